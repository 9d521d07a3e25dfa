"""Making a model, and making it again after a loss.

Theory of operation. Recovery always makes a *new* model: the old id is never addressed again, except to unload it,
which happens first, so that its slot is free. What is done is read from the ladder (`protocol.recovery`): a new model
in the session, a new session if none can be had there, and in the end the model is poisoned with the first cause.

At most two models of a service are restored at the same time, and after the loss of a session they begin at different
moments. An absent service is waited for and costs nothing. A restore that comes to nothing ends the incarnation with
`ModelLost`, so that nothing of it is left; the next one counts it, waits for longer, and tries again. It has come to
something when everything that was sent again has its result.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator

import trio

from tinker_actors.actors.birth import Birth, birth_of
from tinker_actors.actors.event import EventHub
from tinker_actors.actors.futures import wait_for_result
from tinker_actors.actors.lineage import Lineage, StartState
from tinker_actors.actors.message import Futures, WaitForResult
from tinker_actors.actors.session import Session
from tinker_actors.errors import (
    APIError,
    BadRequestError,
    ModelLost,
    NotFoundError,
    RequestFailedError,
    SessionGoneError,
    TinkerError,
)
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.event import OrphanPossible
from tinker_actors.protocol.reachability import cannot_reach
from tinker_actors.protocol.recovery import (
    Cause,
    Rung,
    classify,
    is_refusal_of_key,
    next_rung,
    restore_delay,
    says_state_gone,
    session_lost,
)
from tinker_actors.protocol.retry import Sends
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import GET_INFO, UNLOAD_MODEL
from tinker_actors.wire.model import (
    CreateModelResponse,
    GetInfoRequest,
    UnloadModelRequest,
)
from tinker_actors.wire.weights import LoadWeightsResponse

__all__ = ["Restoring"]

_SESSIONS = 3  # sessions, or promises, that may be lost while one model is made
_SPREAD = 2.0  # seconds over which restores begin that have the same reason
_REFUSALS = 2  # refused creations in a row after which the session is suspected


class Restoring:
    """Makes the model of one lineage.

    Args:
        lineage: what stays of it.
        transport: the way to the service.
        session: the present session.
        futures: waits for results.
        events: where events go.
        rng: chance for delays.
    """

    def __init__(
        self,
        lineage: Lineage,
        transport: HttpTransport,
        session: Session,
        futures: ActorRef[Futures],
        events: EventHub,
        rng: random.Random,
    ) -> None:
        self._lineage = lineage
        self._transport = transport
        self._session = session
        self._futures = futures
        self._events = events
        self._rng = rng
        self._birth: Birth | None = None  # the latest

    @property
    def to_load(self) -> StartState | None:
        """The saved state that the model just made is to be loaded with; None if there is none, or it is loaded."""
        assert self._birth is not None, "a model has been made"
        return self._lineage.state if self._birth.path is None else None

    # --- the first time ----------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Make the model for the first time, and learn what the service says of it; one that is lost is made again."""
        for _ in range(_SESSIONS - 1):
            await self._create()
            try:
                await self.learn()
            except TinkerError as error:
                if classify(error, "forward") != "gone":
                    raise
            else:
                return
        await self._create()
        await self.learn()

    async def learn(self) -> None:
        """Learn what the service says of the model.

        Raises:
            TinkerError: it does not say it.
        """
        request = GetInfoRequest(self._lineage.model_id)
        reach = self._session.reachability
        self._lineage.info = await reach.call(lambda: self._transport.call(GET_INFO, request))

    async def _create(self) -> None:
        """Make a model in the present session; if that turns out to be lost, in the next one."""
        session = self._session
        for trial in range(_SESSIONS):
            await session.settled()
            epoch = session.epoch
            try:
                if await self._create_in(epoch):
                    return
            except TinkerError as error:
                if trial == _SESSIONS - 1 or not (self._session_lost(error) or not session.is_current(epoch)):
                    raise
                await session.renew(epoch)
        message = "the promises of new models were lost, one after the other"
        raise ModelLost(message, model_id=self._lineage.model_id)

    def _session_lost(self, error: TinkerError) -> bool:
        return session_lost(error, None if self._birth is None else self._birth.path)

    async def _create_in(self, epoch: int) -> bool:
        """Make a model; False if its promise was lost, or the session has ended since: there may be an orphan."""
        session, lineage = self._session, self._lineage
        session_id, number = session.session_id, session.take_model_seq()
        birth = self._birth = birth_of(
            lineage, session_id, number, by_loading=self._transport.capability.creates_by_loading
        )
        sends = Sends()

        async def ask() -> str:
            sends.spent = 0  # an outage in between is no fault of the call's
            return (await self._transport.call(birth.endpoint, birth.request, sends=sends)).request_id

        with session.waits.shown(session_id, "sending CreateModel"):
            promise = await session.reachability.call(ask)
        if sends.orphan:
            self._events.publish(OrphanPossible(birth.endpoint.name, session_id, number))
        waiting: WaitForResult[CreateModelResponse | LoadWeightsResponse] = WaitForResult(
            birth.reply, promise, birth.request_type, session_id
        )
        try:
            model_id = (await wait_for_result(self._futures, waiting)).model_id or birth.model_id
        except SessionGoneError:
            self._events.publish(OrphanPossible(birth.endpoint.name, session_id, number))
            return False
        if not session.is_current(epoch):
            return False
        lineage.model_id, lineage.model_seq, lineage.epoch = model_id, number, epoch
        return True

    # --- after a loss ------------------------------------------------------------------------------------

    def next_rung(self, failure: Exception | None) -> Rung:
        """Take the end of the last incarnation into account, and say what is done.

        Args:
            failure: what it ended with.
        """
        lineage = self._lineage
        if lineage.first_cause is None and isinstance(failure, ModelLost):
            lineage.first_cause = failure
        in_session = self._session.is_current(lineage.tried_in)
        # The last restore came to nothing, and not because its session ended, or because one step more is left behind.
        if lineage.restoring and in_session and not lineage.excused:
            lineage.restores += 1
        lineage.excused = False
        lineage.restoring, lineage.tried_in = True, self._session.epoch
        cause: Cause = "model_lost"
        if lineage.refusals == _REFUSALS and in_session:
            cause = "no_model_in_session"
        return next_rung(cause, self._transport.capability.dedupe, restores=lineage.restores)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place among the models being restored, and hold it; a failure gives it back."""
        lineage = self._lineage
        pause = restore_delay(lineage.restores, self._rng.random())
        if not self._session.is_current(lineage.epoch):
            pause += self._rng.random() * _SPREAD  # others have lost theirs at the same moment
        await trio.sleep(pause)
        async with self._session.restores:
            yield

    async def make_again(self, rung: Rung) -> None:
        """Make a new model, after giving up the old one.

        Raises:
            ModelLost: the service refuses; the cause says why.
            TinkerError: it refuses the key.
        """
        lineage, session = self._lineage, self._session
        lineage.given_up[lineage.model_id] = None
        await self.unload_given_up()
        try:
            if rung == "new_session":
                await session.renew(lineage.epoch)
            await self._create()
        except TinkerError as error:
            if is_refusal_of_key(error):
                raise
            if session.is_lost:  # no session is to be had: nothing was said of the model
                lineage.restores += 1
            elif self._birth is not None and self._birth.path is not None and _is_about_state(error):
                lineage.not_loaded(self._birth.path, gone=says_state_gone(error))
            lineage.refusals += 1
            message = f"no new model can be made in place of {lineage.model_id}: {error}"
            raise ModelLost(message, model_id=lineage.model_id) from error

    async def unload_given_up(self) -> None:
        """Unload what was given up, once each; what cannot be told now is told with the next restore."""
        for model_id in list(self._lineage.given_up):
            if await self.unload(model_id):
                self._lineage.given_up.pop(model_id, None)

    async def unload(self, model_id: str) -> bool:
        """Unload a model, as well as may be: most likely it is gone already. False if the service was not reached.

        Where that would take along what was saved of it, it stays loaded.
        """
        if self._transport.capability.unload_forgets and model_id in self._lineage.savers:
            await trio.lowlevel.checkpoint()
            return True
        try:
            await self._transport.call(UNLOAD_MODEL, UnloadModelRequest(model_id))
        except APIError as error:
            return not cannot_reach(error)
        return True


def _is_about_state(error: TinkerError) -> bool:
    """Whether a service that makes a model of a saved state speaks of the state: it is gone, or of no use."""
    return isinstance(error, NotFoundError | BadRequestError | RequestFailedError)
