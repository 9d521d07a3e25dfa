"""The `Context` an actor lives in: what the runtime gives to one incarnation."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar, cast

import trio

from tinker_actors.errors import InputError, Withdrawn
from tinker_actors.kernel.border import await_user
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.message import Message
from tinker_actors.kernel.reader import Reader, current_reader
from tinker_actors.kernel.ref import ActorRef, StopMode
from tinker_actors.kernel.ticker import next_tick
from tinker_actors.kernel.timer import Timers
from tinker_actors.kernel.token import ReplyToken
from tinker_actors.kernel.watch import Down, Obituary

__all__ = ["CallerLeft", "Context", "Host"]

RoleT = TypeVar("RoleT")


class CallerLeft(Withdrawn):
    """Ends a handler whose caller had left before its point of no return; the actor lives on."""


class Host(Protocol):
    """The incarnation, as its context sees it."""

    @property
    def checkpoint(self) -> object:
        """What the actor keeps for its next incarnation."""
        ...

    @checkpoint.setter
    def checkpoint(self, state: object) -> None: ...

    bound: dict[Envelope[Any], None]
    handles_down: bool

    @property
    def watches(self) -> dict[Obituary, int]:
        """Whom it watches, with the keys to unwatch."""
        ...

    @property
    def surviving(self) -> dict[Envelope[Any], None]:
        """Messages whose reply tokens outlive the incarnation."""
        ...

    @property
    def last_seq(self) -> int:
        """The `seq` of the newest message in line."""
        ...

    @property
    def parked(self) -> tuple[Envelope[Any], ...]:
        """Messages whose senders wait for room, in order."""
        ...

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task of the incarnation."""
        ...

    def post(self, envelope: Envelope[Any]) -> None:
        """Put a signal in line."""
        ...

    def take_back(self, envelope: Envelope[Any]) -> bool:
        """Remove a signal that has not been taken."""
        ...

    def forget_down(self, path: str) -> None:
        """Remove the `Down` of an actor, if it has not been taken."""
        ...


class Context(Generic[RoleT]):
    """What the runtime gives an actor; one per incarnation.

    Attributes:
        ref: the actor's own address.
        incarnation: 1 for the first life, then counting.
        last_failure: what ended the previous incarnation, if it crashed.
    """

    def __init__(
        self, ref: ActorRef[RoleT], incarnation: int, last_failure: Exception | None, host: Host
    ) -> None:
        self.ref = ref
        self.incarnation = incarnation
        self.last_failure = last_failure
        self._host = host
        self._timers: Timers | None = None

    @property
    def path(self) -> str:
        """The actor's path, such as `service/training/model-0`."""
        return self.ref.path

    @property
    def checkpoint(self) -> Any:
        """Whatever the actor keeps here is there for its next incarnation; None at first."""
        return self._host.checkpoint

    @checkpoint.setter
    def checkpoint(self, state: object) -> None:
        self._host.checkpoint = state

    @property
    def last_admitted(self) -> int:
        """The `seq` of the newest message in this actor's line."""
        return self._host.last_seq

    @property
    def waiting_for_room(self) -> tuple[Envelope[Any], ...]:
        """The messages whose senders wait for room in this actor's line, in the order in which they will get it."""
        return self._host.parked

    @property
    def call(self) -> Envelope[Any]:
        """The envelope whose handler calls this; not for tasks started by `spawn`.

        Raises:
            LookupError: no handler runs in this task.
        """
        reader = current_reader()
        envelope: Envelope[Any] | None = None if reader is None else reader.envelope
        if envelope is None:
            raise LookupError(f"{self.path} handles no message in this task")
        return envelope

    # --- tasks and time ----------------------------------------------------------------------------------

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task that ends with this incarnation; if it raises, the incarnation crashes."""
        self._host.spawn(function, *args)

    def every(self, period: float, function: Callable[[], Awaitable[object]]) -> None:
        """Call `function` every `period` seconds of trio time, without drift; missed ticks are skipped.

        Raises:
            InputError: a period that is not positive.
        """
        if not period > 0:
            raise InputError("period", period, "must be positive")
        self.spawn(_tick, period, function)

    def send_after(self, delay: float, message: Message[RoleT, Any], *, key: Hashable = None) -> None:
        """Send this actor a message after `delay` seconds of trio time, before all users' messages.

        Args:
            delay: seconds.
            message: told, not asked.
            key: names the timer; setting it again replaces it. The message's type if None.

        Raises:
            InputError: a negative delay.
        """
        self._timers_of().set(_key(message, key), delay, message)

    def send_every(self, period: float, message: Message[RoleT, Any], *, key: Hashable = None) -> None:
        """Send this actor a message every `period` seconds, without drift; else as `send_after`.

        Raises:
            InputError: a period that is not positive.
        """
        self._timers_of().set(_key(message, key), period, message, period=period)

    def cancel_timer(self, key: Hashable) -> bool:
        """Stop a timer; its message does not come any more, even if it was due. False if there is none."""
        return self._timers_of().cancel(key)

    def _timers_of(self) -> Timers:
        if self._timers is None:
            self._timers = Timers(self._host)
        return self._timers

    # --- watching ----------------------------------------------------------------------------------------

    def watch(self, ref: ActorRef[Any], *, incarnations: bool = False) -> None:
        """Have this actor told of another one's end: its handler for `Down` gets it before other messages.

        There is exactly one `Down`, at once if the other has ended already. A restart is none, unless
        `incarnations`. The watch ends with this incarnation.

        Raises:
            TypeError: this actor has no handler for `Down`.
        """
        if not self._host.handles_down:
            raise TypeError(f"{self.path} has no handler for Down, so it cannot watch {ref.path}")
        self.unwatch(ref)
        host = self._host
        host.watches[ref.obituary] = ref.obituary.add(
            lambda down: host.post(_signal(down)), incarnations=incarnations
        )

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Stop watching: no `Down` comes any more, even if it was under way."""
        key = self._host.watches.pop(ref.obituary, None)
        if key is not None:
            ref.obituary.remove(key)
            self._host.forget_down(ref.path)

    async def stop(self, mode: StopMode = "drain") -> None:
        """Begin to stop this actor for good. A checkpoint."""
        await self.ref.stop(mode)

    # --- the message in hand -----------------------------------------------------------------------------

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
        registry = self._host.surviving if survives_restart else self._host.bound
        return ReplyToken(envelope, registry, self.path)

    def commit(self) -> None:
        """Pass the current message's point of no return: its caller's leaving no longer cancels the handler.

        If the caller has left already, this does not return: it ends the handler, and nothing else, by an
        exception that the runtime knows.
        """
        envelope = self.call
        scope = cast("Reader", envelope.reader).scope
        assert scope is not None  # a message is in its reader's scope for as long as it has one
        if scope.cancel_called:
            raise CallerLeft("the caller left before the point of no return", actor=self.path, started=True)
        envelope.committed = True
        scope.deadline = math.inf


def _key(message: Message[Any, Any], key: Hashable) -> Hashable:
    return cast("Hashable", type(message)) if key is None else key


def _signal(message: Down) -> Envelope[None]:
    return Envelope(message, asked=False)


async def _tick(period: float, function: Callable[[], Awaitable[object]]) -> None:
    start = trio.current_time()
    while True:
        await trio.sleep_until(next_tick(start, period, trio.current_time()))
        await await_user(function)
