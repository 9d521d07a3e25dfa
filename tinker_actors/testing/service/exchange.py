"""The way of one request through a service, with the faults that strike it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, cast

import attrs

from . import account, listing, promising, session, training
from .body import write_answer
from .call import Call
from .dialect import FailureForm, LostForm
from .fault import ServiceFault
from .garbling import garbled
from .gate import Gate
from .law import Law
from .promising import Outcome, Pending
from .reply import Answer, Ending, Held, Refusal, ReplyPlan, Step
from .route import ENDPOINT_NAMES
from .state import Failure, Model, Session

__all__ = ["Exchange"]

_Endpoint: TypeAlias = Callable[[Call], Outcome]
_NOTHING_DONE: Final[Mapping[tuple[str, str], Ending]] = {
    ("drop", "connect"): "refuse_connection",
    ("drop", "request"): "drop_head",
    ("stall", "request"): "stall_head",
}
_ENDINGS: Final[Mapping[tuple[str, str], Ending]] = {
    ("drop", "answer"): "drop_head",
    ("drop", "body"): "drop_body",
    ("drop", "reset"): "reset",
    ("stall", "answer"): "stall_head",
    ("stall", "body"): "stall_body",
    ("duplicate", "answer"): "twice",
}


def _endpoints() -> Mapping[str, _Endpoint]:
    found = {
        name: function
        for module in (session, training, promising, listing, account)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name in ENDPOINT_NAMES
    }
    return MappingProxyType(found)


_ENDPOINTS: Final = _endpoints()


class Exchange:
    """One request and the faults that strike it."""

    def __init__(self, gate: Gate, call: Call, strikes: list[ServiceFault], latency: Law) -> None:
        self._gate = gate
        self._call = call
        self._strikes = strikes
        self._latency = latency

    def begin(self) -> Step:
        """Deliver it, now or later."""
        late = [fault for fault in self._strikes if (fault.what, fault.form) == ("delay", "request")]
        for fault in late:
            self._gate.inject(fault, self._call)
        due = self._call.now + sum(fault.law.draw(self._call.rng) for fault in late)
        return self._deliver(self._call.now, due)

    def _deliver(self, now: float, due: float) -> Step:
        if now < due:
            return Held(due, lambda later: self._deliver(later, due))
        self._call.now = now
        unheard = self._unheard()
        return self._finish(self._carry_out()) if unheard is None else unheard

    def _unheard(self) -> ReplyPlan | None:
        """Return the plan of a request that is not carried out."""
        call = self._call
        for fault in self._strikes:
            ending = _NOTHING_DONE.get((fault.what, fault.form))
            if ending is not None:
                self._gate.inject(fault, call)
                return ReplyPlan(ending=ending)
            if (fault.what, fault.form) == ("refuse", "before"):
                self._gate.inject(fault, call)
                return self._refused(fault).encoded()
        refusal = self._gate.refusal_of_key(call) or self._gate.limit(call)
        return None if refusal is None else refusal.encoded()

    def _refused(self, fault: ServiceFault) -> Answer:
        asked = self._gate.retry_after(self._call.now, fault.retry_after, fault.retry_after_form)
        text = fault.text or f"status {fault.status}, as planned"
        return Refusal(fault.status, text, (*asked, *fault.headers)).answer

    def _carry_out(self) -> Outcome:
        call = self._call
        for fault in self._strikes:
            self._lose(fault)
            if fault.what == "fail":
                self._gate.inject(fault, call)
                form = cast("FailureForm", fault.form)  # checked by `ServiceFault`
                call.failure = Failure(form, fault.text, fault.category, fault.status)
        outcome = _ask(call)
        for fault in self._strikes:
            if (fault.what, fault.form) == ("duplicate", "request"):
                self._gate.inject(fault, call)
                outcome = _ask(call)
            if fault.what == "evict" and call.promise is not None:
                self._gate.inject(fault, call)
                call.promise.lost = cast("LostForm", fault.form)
        return outcome

    def _lose(self, fault: ServiceFault) -> None:
        state, now = self._call.state, self._call.now
        model = self._model()
        owner = self._session(model)
        if fault.what == "lose_model" and model is not None:
            state.lose_model(model, fault.form, now)
        elif fault.what == "lose_session" and owner is not None:
            status = 200 if fault.form == "silent" else int(fault.form)
            state.lose_session(owner, status, now)
        elif fault.what == "rollback" and model is not None:
            state.roll_back(model)
        else:
            return
        self._gate.inject(fault, self._call)

    def _named(self, field: str) -> str:
        body = self._call.request.body
        value = body.get(field) if isinstance(body, dict) else None
        return value if isinstance(value, str) else ""

    def _model(self) -> Model | None:
        model = self._call.state.models.get(self._named("model_id"))
        return None if model is None or model.lost is not None else model

    def _session(self, model: Model | None) -> Session | None:
        state = self._call.state
        sampler = state.samplers.get(self._named("sampling_session_id"))
        owner = model or sampler
        return state.sessions.get(self._named("session_id") if owner is None else owner.session_id)

    def _finish(self, outcome: Outcome) -> Step:
        if isinstance(outcome, Pending):
            look = outcome.look
            return Held(outcome.until, lambda later: self._finish(look(later)))
        call = self._call
        plan = write_answer(outcome, call.request, call.state.dialect)
        delay = self._latency.draw(call.rng)
        for fault in self._strikes:
            ending = _ENDINGS.get((fault.what, fault.form))
            if ending is not None:
                plan = attrs.evolve(plan, ending=ending)
            elif fault.what == "garbage":
                plan = garbled(plan, fault.form)
            elif (fault.what, fault.form) == ("delay", "answer"):
                delay += fault.law.draw(call.rng)
            elif (fault.what, fault.form) == ("refuse", "after"):
                plan = self._refused(fault).encoded()
            else:
                continue
            self._gate.inject(fault, call)
        return attrs.evolve(plan, delay=delay)


def _ask(call: Call) -> Outcome:
    try:
        return _ENDPOINTS[call.request.endpoint](call)
    except Refusal as refusal:
        return refusal.answer
