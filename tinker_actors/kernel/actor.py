"""What users of the kernel write: an `Actor` with handlers, and the `Context` it lives in.

    class CounterActor(Actor[Counter]):
        def __init__(self) -> None:
            self.total = 0

        @handles(Add)
        async def add(self, message: Add) -> int:
            self.total += message.amount
            return self.total

Handlers run one at a time unless the child's spec says otherwise. A handler's exception is an answer if the
actor *declares* its type, and a crash otherwise: the caller gets `HandlerCrashed`, and the supervisor decides.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, cast

import trio

from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.message import Message
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.ticker import next_tick

__all__ = ["CURRENT_CALL", "Actor", "Context", "Ending", "Handler", "ReplyToken", "handles"]

R = TypeVar("R")
RoleT = TypeVar("RoleT")
Handler: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
HandlerT = TypeVar("HandlerT", bound=Handler)

Ending = Literal["drain", "now", "kill", "crash"]
"""How an incarnation ends: it worked off its mailbox, it was told to stop, it was cancelled, it raised."""

CURRENT_CALL: contextvars.ContextVar[Envelope[Any]] = contextvars.ContextVar("CURRENT_CALL")
"""The envelope whose handler runs in this task; set by the runtime."""

_MARK = "_tinker_actors_handles"


class ReplyToken(Generic[R]):
    """The right, and the duty, to answer one message after its handler has returned.

    A handler takes it from `Context.detach_reply` and returns it in place of a reply. If the incarnation (or,
    for a surviving token, the actor) ends before it was used, the runtime answers `InFlightLost`.
    """

    __slots__ = ("_registry", "envelope")

    def __init__(self, envelope: Envelope[R], registry: set[ReplyToken[Any]]) -> None:
        self.envelope = envelope
        self._registry = registry
        registry.add(self)
        envelope.detached = True

    @property
    def settled(self) -> bool:
        """Whether the message has its outcome."""
        return self.envelope.outcome.settled

    def settle(self, value: R) -> bool:
        """Answer with a value; False, and nothing else, if there was an answer already."""
        self._registry.discard(self)
        return self.envelope.settle(value)

    def fail(self, error: Exception) -> bool:
        """Answer with an error; False, and nothing else, if there was an answer already."""
        self._registry.discard(self)
        return self.envelope.fail(error)


def handles(
    message: type[Message[Any, R]],
) -> Callable[
    [Callable[[Any, Any], Awaitable[R | ReplyToken[R]]]], Callable[[Any, Any], Awaitable[R | ReplyToken[R]]]
]:
    """Mark a method of an actor as the handler of one message type; its return type is checked."""

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
        nursery: trio.Nursery,
        incarnation: int,
        last_failure: Exception | None,
        bound: set[ReplyToken[Any]],
        surviving: set[ReplyToken[Any]],
        last_seq: Callable[[], int],
    ) -> None:
        self.ref = ref
        self.incarnation = incarnation
        self.last_failure = last_failure
        self._nursery = nursery
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
        """The envelope whose handler calls this."""
        return CURRENT_CALL.get()

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task that ends with this incarnation; if it raises, the incarnation crashes."""
        self._nursery.start_soon(function, *args)

    def every(self, period: float, function: Callable[[], Awaitable[object]]) -> None:
        """Call `function` every `period` seconds of trio time, without drift; missed ticks are skipped."""
        self.spawn(_tick, period, function)

    def detach_reply(self, *, survives_restart: bool = False) -> ReplyToken[Any]:
        """Take over the duty to answer the current message; the handler returns the token.

        Args:
            survives_restart: the next incarnation may still answer (somebody must keep the token for it);
                else the answer is `InFlightLost` when this incarnation ends.
        """
        return ReplyToken(self.call, self._surviving if survives_restart else self._bound)

    def commit(self) -> None:
        """Pass the current message's point of no return: its caller's leaving no longer cancels the handler."""
        self.call.committed = True
        if self.call.scope is not None:
            self.call.scope.deadline = math.inf


async def _tick(period: float, function: Callable[[], Awaitable[object]]) -> None:
    start = trio.current_time()
    while True:
        await trio.sleep_until(next_tick(start, period, trio.current_time()))
        await function()


class Actor(Generic[RoleT]):
    """Base of all actors.

    Class attributes:
        declares: exception types that are answers, not crashes.
        handlers: message type to handler; collected from the methods marked with `handles`.
    """

    declares: ClassVar[tuple[type[Exception], ...]] = ()
    handlers: ClassVar[dict[type, Handler]] = {}

    context: Context[RoleT]
    """Set by the runtime before `on_start`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own: dict[type, Handler] = {}
        for attribute in vars(cls).values():
            message = cast("type | None", getattr(attribute, _MARK, None))
            if message is None:
                continue
            if message in own:
                raise TypeError(f"{cls.__name__} has two handlers for {message.__name__}")
            own[message] = cast("Handler", attribute)
        cls.handlers = {**cls.handlers, **own}

    async def on_start(self) -> None:
        """Prepare before the first message; an exception here is a failed start."""
        await trio.lowlevel.checkpoint()

    async def on_drain(self) -> None:
        """Wait for work under way, after the last message of an orderly stop; cancelled when time is up."""
        await trio.lowlevel.checkpoint()

    async def on_stop(self, ending: Ending) -> None:
        """Clean up, shielded for at most the spec's `cleanup_timeout`; errors are logged."""
        await trio.lowlevel.checkpoint()
