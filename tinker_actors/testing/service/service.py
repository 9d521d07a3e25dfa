"""A small deterministic Tinker service without a model, which behaves as a test wants it to.

Theory of operation. `handle` takes a request and the time, and returns a plan of the answer: status, headers, bytes,
delay, and what goes wrong on the way. It waits for nothing and reads no clock; an answer that is not known yet is
`Held`, and is asked for again later. The fronts (`transport`, `loopback`) carry plans out.

What is done, is done when the request is handled; that a result takes time is a time in its promise. So the state is
always whole, and two runs with the same requests at the same times and the same seed are the same.

    request ─> schedule: which faults strike ─> refused, or lost on the way: nothing is carried out
                                             └> endpoint (twice, if duplicated) ─> answer ─> garbled, delayed, cut
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import attrs

from tinker_actors.errors import InputError

from .body import read_body
from .call import Call
from .dialect import ServiceDialect
from .exchange import Exchange
from .fault import InjectedFault, Schedule, ServiceFaults
from .gate import Gate
from .reply import Answer, Refusal, ServedRequest, Step
from .route import ENDPOINT_NAMES, find_route
from .state import Applied, ServiceState

__all__ = ["ScriptedService"]

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class ScriptedService:
    """A Tinker service for tests.

    Attributes:
        faults: what goes wrong.
        dialect: how it behaves when nothing goes wrong.
        requests: everything that came, in order.
        injected: the faults that have struck, in order.

    Args:
        faults: what is to go wrong.
        dialect: its manners.
        seed: for everything that is left to chance.
        api_key: what requests must carry in `x-api-key`; None asks for none.
        token_lifetime: seconds; requests must carry a token that was exchanged for the key and is not older. None asks
            for the key itself.
        flags: more of what `client_config` tells.
        dynamic_flags: what `client_dynamic_config` tells.
        epoch: what time it is for the service when it begins; in dates only.
    """

    def __init__(
        self,
        faults: ServiceFaults | None = None,
        *,
        dialect: ServiceDialect | None = None,
        seed: int = 0,
        api_key: str | None = None,
        token_lifetime: float | None = None,
        flags: Mapping[str, object] | None = None,
        dynamic_flags: Mapping[str, object] | None = None,
        epoch: datetime = EPOCH,
    ) -> None:
        self.faults = faults or ServiceFaults()
        self.dialect = dialect or ServiceDialect()
        self.requests: list[ServedRequest] = []
        self.injected: list[InjectedFault] = []
        self._began: float | None = None
        self._state = ServiceState(self.dialect, self.faults, epoch.timestamp())
        self._state.flags = dict(flags or {})
        self._state.dynamic_flags = dict(dynamic_flags or {})
        self._state.token_lifetime = token_lifetime
        self._gate = Gate(self._state, Schedule(self.faults, seed), api_key, self.injected)

    def __repr__(self) -> str:
        return f"<ScriptedService: {len(self.requests)} requests, {len(self.injected)} faults>"

    # --- what tests look at ------------------------------------------------------------------------------

    @property
    def trained(self) -> Mapping[str, tuple[Applied, ...]]:
        """What is in each model, lost ones too, in order; a loaded checkpoint brings its own along."""
        return {model_id: tuple(model.applied) for model_id, model in self._state.models.items()}

    @property
    def models(self) -> tuple[str, ...]:
        """The models that are loaded, in the order they were made."""
        return tuple(model.model_id for model in self._state.models.values() if model.lost is None)

    @property
    def sessions(self) -> tuple[str, ...]:
        """The sessions that live, in the order they were opened."""
        return tuple(one.session_id for one in self._state.sessions.values() if one.lost is None)

    @property
    def samplers(self) -> Mapping[str, int]:
        """The sampling sessions, with the optimizer steps in their weights."""
        return {one.sampler_id: one.steps for one in self._state.samplers.values()}

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The paths of the checkpoints, in the order they were saved."""
        return tuple(self._state.checkpoints)

    @property
    def telemetry(self) -> tuple[object, ...]:
        """The events that clients have reported."""
        return tuple(self._state.telemetry)

    @property
    def cancelled(self) -> tuple[str, ...]:
        """The promises that clients have given up."""
        return tuple(self._state.cancelled)

    def sampling(self, now: float) -> int:
        """Return how many samples are at the service; the time, as in `handle`, must not fall."""
        return self._state.samples_at(now)

    def count(self, *endpoints: str) -> int:
        """Return how many requests came to some endpoints.

        Raises:
            InputError: an endpoint that there is none of.
        """
        if unknown := set(endpoints) - ENDPOINT_NAMES:
            raise InputError("endpoints", sorted(unknown), f"must be some of {sorted(ENDPOINT_NAMES)}")
        return sum(request.endpoint in endpoints for request in self.requests)

    # --- what tests may do -------------------------------------------------------------------------------

    def lose_model(self, model_id: str, now: float, form: str = "400") -> None:
        """Lose a model now; see `ServiceFaults.lose_model`.

        Raises:
            InputError: there is no such model.
        """
        if model_id not in self._state.models:
            raise InputError("model_id", model_id, "is no model of this service")
        self._state.lose_model(self._state.models[model_id], form, now)

    def corrupt_model(self, model_id: str) -> None:
        """Have a model listed as corrupted, though it goes on to answer.

        Raises:
            InputError: there is no such model.
        """
        if model_id not in self._state.models:
            raise InputError("model_id", model_id, "is no model of this service")
        self._state.models[model_id].corrupted = True

    def forget_optimizer(self, path: str) -> None:
        """Have whoever loads a checkpoint from now on get its weights alone, without a word.

        Raises:
            InputError: there is no such checkpoint.
        """
        if path not in self._state.checkpoints:
            raise InputError("path", path, "is no checkpoint of this service")
        self._state.without_optimizer.add(path)

    def lose_session(
        self, session_id: str, now: float, form: Literal["410", "404", "500", "silent"] = "410"
    ) -> None:
        """Lose a session now, and its models with it; see `ServiceFaults.lose_session`.

        Raises:
            InputError: there is no such session.
        """
        if session_id not in self._state.sessions:
            raise InputError("session_id", session_id, "is no session of this service")
        self._state.lose_session(
            self._state.sessions[session_id], 200 if form == "silent" else int(form), now
        )

    def lose_sampler(self, sampling_session_id: str) -> None:
        """Lose a sampling session alone.

        Raises:
            InputError: there is no such sampling session.
        """
        if self._state.samplers.pop(sampling_session_id, None) is None:
            raise InputError("sampling_session_id", sampling_session_id, "is no sampler of this service")

    def restart(self, now: float, models: Literal["unloaded", "rolled_back"] = "unloaded") -> None:
        """Have the service die and come back now: checkpoints and sessions are there, promises are not kept.

        Args:
            now: the time, as in `handle`.
            models: what became of them. `unloaded`: they are gone, and who names one is told so, in the form "400".
                `rolled_back`: each is what its latest checkpoint holds, or what it was when it was made, under the
                same id and without a word; which numbers it has seen is forgotten, but not which comes next, and what
                had come before its turn is lost.
        """
        for model in self._state.models.values():
            if model.lost is None and models == "unloaded":
                self._state.lose_model(model, "400", now)
            elif model.lost is None:
                self._state.roll_back(model)
        self._state.break_promises()

    def begin(self, now: float) -> float:
        """Say what a front's clock shows; returns what it showed when the service began, which is now if it had not."""
        if self._began is None:
            self._began = now
        return self._began

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have a function called whenever held answers should be asked for again; returns one that ends it."""
        self._state.listeners.add(listener)
        return lambda: self._state.listeners.discard(listener)

    # --- requests ----------------------------------------------------------------------------------------

    def handle(self, request: ServedRequest, now: float) -> Step:
        """Take a request.

        Args:
            request: as it came; number, endpoint, time and body are filled in.
            now: seconds since the service began; must not fall.
        """
        self._state.expire(now)
        route = find_route(request.method, request.path)
        endpoint, params = ("", {}) if isinstance(route, int) else route
        request = attrs.evolve(
            request, number=len(self.requests), endpoint=endpoint, params=params, at=now, body=None
        )
        self.requests.append(request)
        if isinstance(route, int) or endpoint in self.dialect.lacks:
            status = route if isinstance(route, int) else 404
            text = "Not Found" if status == 404 else "Method Not Allowed"
            return Answer({"detail": text}, status).encoded()
        try:
            request = attrs.evolve(request, body=read_body(request, self.dialect))
            self.requests[-1] = request
        except Refusal as refusal:
            return refusal.answer.encoded()
        rng, strikes = self._gate.schedule.arrive(endpoint, now)
        call = Call(request, self._state, now, rng)
        return Exchange(self._gate, call, strikes, self.faults.latency).begin()
