"""What users of the kernel write: an `Actor` with handlers, and the `Context` it lives in.

    class CounterActor(Actor[Counter]):
        def __init__(self) -> None:
            self.total = 0

        @handles(Add)
        async def add(self, message: Add) -> int:
            self.total += message.amount
            return self.total

Handlers run one at a time unless the child's spec says otherwise. A handler's exception is an answer if the
actor *declares* its type, and a crash otherwise: the caller gets `HandlerCrashed`; the supervisor decides.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, cast

import trio

from tinker_actors.errors import InFlightLost, InputError, Withdrawn
from tinker_actors.kernel.border import await_user
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.message import Message
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.ticker import next_tick

__all__ = ["CURRENT_CALL", "Actor", "CallerLeft", "Context", "Ending", "Handler", "ReplyToken", "handles"]

R = TypeVar("R")
RoleT = TypeVar("RoleT")
Handler: TypeAlias = Callable[[Any, Any], Awaitable[Any]]

Ending = Literal["drain", "now", "kill", "crash"]
"""How an incarnation ends: it worked off its mailbox, it was told to stop, it was cancelled, it raised."""

CURRENT_CALL: contextvars.ContextVar[Envelope[Any] | None] = contextvars.ContextVar(
    "tinker_actors.CURRENT_CALL", default=None
)
"""The envelope whose handler runs in this task; set by the runtime."""

_MARK = "_tinker_actors_handles"


class CallerLeft(Withdrawn):
    """Ends a handler whose caller had left before its point of no return; the actor lives on."""


class ReplyToken(Generic[R]):
    """The right, and the duty, to answer one message after its handler has returned.

    A handler takes it from `Context.detach_reply` and returns it in place of a reply. If the incarnation (or,
    for a surviving token, the actor) ends before it was used, or if nobody keeps it any more, the runtime
    answers `InFlightLost`.
    """

    __slots__ = ("__weakref__", "_actor", "_loop", "_registry", "envelope")

    def __init__(self, envelope: Envelope[R], registry: set[Envelope[Any]], actor: str = "") -> None:
        self.envelope = envelope
        self._actor = actor
        self._registry = registry
        self._loop = trio.lowlevel.current_trio_token()
        registry.add(envelope)

    @property
    def settled(self) -> bool:
        """Whether the message has its outcome."""
        return self.envelope.outcome.settled

    def belongs_to(self, envelope: Envelope[Any]) -> bool:
        """Whether it is the answer to this message."""
        return self.envelope is envelope

    @trio.lowlevel.enable_ki_protection
    def settle(self, value: R) -> bool:
        """Answer with a value; False, and nothing else, if there was an answer already."""
        self._registry.discard(self.envelope)
        return self.envelope.settle(value)

    @trio.lowlevel.enable_ki_protection
    def fail(self, error: Exception) -> bool:
        """Answer with an error; False, and nothing else, if there was an answer already."""
        self._registry.discard(self.envelope)
        return self.envelope.fail(error)

    def __del__(self) -> None:
        if not self.envelope.outcome.settled:
            with contextlib.suppress(trio.RunFinishedError):  # then nobody is left who could wait
                # The collector may run in any thread, so the loop is asked to do it.
                self._loop.run_sync_soon(_forsake, self.envelope, self._registry, self._actor)


def _forsake(envelope: Envelope[Any], registry: set[Envelope[Any]], actor: str) -> None:
    registry.discard(envelope)
    if not envelope.outcome.settled:
        text = f"{actor} dropped the reply token of {type(envelope.message).__name__} without an answer"
        envelope.fail(InFlightLost(text, actor=actor, started=True))


def handles(
    message: type[Message[Any, R]],
) -> Callable[
    [Callable[[Any, Any], Awaitable[R | ReplyToken[R]]]], Callable[[Any, Any], Awaitable[R | ReplyToken[R]]]
]:
    """Mark a method of an actor as the handler of one message type; its return type is checked.

    A subclass that overrides the method overrides the handler. Messages are told apart by their exact type.
    """

    def mark(
        handler: Callable[[Any, Any], Awaitable[R | ReplyToken[R]]],
    ) -> Callable[[Any, Any], Awaitable[R | ReplyToken[R]]]:
        setattr(handler, _MARK, message)
        return handler

    return mark


class Context(Generic[RoleT]):
    """What the runtime gives an actor; one per incarnation.

    Attributes:
        ref: the actor's own address.
        incarnation: 1 for the first life, then counting.
        last_failure: what ended the previous incarnation, if it crashed.
    """

    def __init__(
        self,
        ref: ActorRef[RoleT],
        incarnation: int,
        last_failure: Exception | None,
        *,
        spawn: Callable[[Callable[..., Awaitable[object]], tuple[object, ...]], None],
        bound: set[Envelope[Any]],
        surviving: set[Envelope[Any]],
        last_seq: Callable[[], int],
    ) -> None:
        self.ref = ref
        self.incarnation = incarnation
        self.last_failure = last_failure
        self._spawn = spawn
        self._bound = bound
        self._surviving = surviving
        self._last_seq = last_seq

    @property
    def path(self) -> str:
        """The actor's path, such as `service/training/model-0`."""
        return self.ref.path

    @property
    def last_admitted(self) -> int:
        """The `seq` of the newest message in this actor's line."""
        return self._last_seq()

    @property
    def call(self) -> Envelope[Any]:
        """The envelope whose handler calls this; not for tasks started by `spawn`.

        Raises:
            LookupError: no handler runs in this task.
        """
        envelope = CURRENT_CALL.get()
        if envelope is None:
            raise LookupError(f"{self.path} handles no message in this task")
        return envelope

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task that ends with this incarnation; if it raises, the incarnation crashes."""
        self._spawn(function, args)

    def every(self, period: float, function: Callable[[], Awaitable[object]]) -> None:
        """Call `function` every `period` seconds of trio time, without drift; missed ticks are skipped.

        Raises:
            InputError: a period that is not positive.
        """
        if not period > 0:
            raise InputError("period", period, "must be positive")
        self.spawn(_tick, period, function)

    def detach_reply(self, *, survives_restart: bool = False) -> ReplyToken[Any]:
        """Take over the duty to answer the current message; the handler returns the token.

        From then on the message is the token's. A handler that crashes or is cancelled with its incarnation
        leaves a surviving token its duty; in all other cases the handler's own end settles the message.

        Args:
            survives_restart: the next incarnation may still answer (somebody must keep the token for it);
                else the answer is `InFlightLost` when this incarnation ends.

        Raises:
            RuntimeError: this message's duty has been taken over already.
        """
        envelope = self.call
        if envelope.duty != "handler":
            raise RuntimeError(f"{self.path} has detached the reply to this message already")
        envelope.duty = "surviving token" if survives_restart else "token"
        return ReplyToken(envelope, self._surviving if survives_restart else self._bound, self.path)

    def commit(self) -> None:
        """Pass the current message's point of no return: its caller's leaving no longer cancels the handler.

        If the caller has left already, this does not return: it ends the handler, and nothing else, by an
        exception that the runtime knows.
        """
        envelope = self.call
        if envelope.scope is None:
            return  # the handler has returned and left the answer to a token
        if envelope.scope.cancel_called:
            raise CallerLeft("the caller left before the point of no return", actor=self.path, started=True)
        envelope.committed = True
        envelope.scope.deadline = math.inf


async def _tick(period: float, function: Callable[[], Awaitable[object]]) -> None:
    start = trio.current_time()
    while True:
        await trio.sleep_until(next_tick(start, period, trio.current_time()))
        await await_user(function)


class Actor(Generic[RoleT]):
    """Base of all actors.

    Class attributes:
        declares: exception types that are answers, not crashes.
        handlers: message type to handler; collected from the methods marked with `handles`.
    """

    declares: ClassVar[tuple[type[Exception], ...]] = ()
    handlers: ClassVar[dict[type, Handler]] = {}
    _handler_names: ClassVar[dict[type, str]] = {}

    context: Context[RoleT]
    """Set by the runtime before `on_start`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        names: dict[type, str] = {}
        for parent in reversed(cls.__mro__[1:]):
            names.update(vars(parent).get("_handler_names", {}))
        names.update(_marked(cls))
        cls._handler_names = names
        cls.handlers = {message: cast("Handler", getattr(cls, name)) for message, name in names.items()}

    async def on_start(self) -> None:
        """Prepare before the first message; an exception here is a failed start."""
        await trio.lowlevel.checkpoint()

    async def on_drain(self) -> None:
        """Wait for work under way, after the last message of an orderly stop; cancelled when time is up."""
        await trio.lowlevel.checkpoint()

    async def on_stop(self, ending: Ending) -> None:  # noqa: ARG002 - for those who override it
        """Clean up, shielded for at most the spec's `cleanup_timeout`; errors are logged.

        Not called for an incarnation whose `on_start` did not end well.
        """
        await trio.lowlevel.checkpoint()


def _marked(cls: type) -> dict[type, str]:
    """Return the handlers that a class itself defines: message type to name of the method."""
    names: dict[type, str] = {}
    for name, attribute in vars(cls).items():
        message = cast("type | None", getattr(attribute, _MARK, None))
        if message is None:
            continue
        if message in names:
            raise TypeError(f"{cls.__name__} has two handlers for {message.__name__}")
        names[message] = name
    return names
