"""Probes: actors that tests talk through. They record what they get and answer by script.

Theory of operation. A `Probe` lives in the test; the actor it starts is a thin one that hands every message, of
whatever type, to it. A message whose type has a script is answered at once; another ask stays unanswered, its duty
to answer kept as a reply token, until the test answers it. `expect` and its siblings read what has come like a
channel: each message is seen once, in the order of arrival.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar, cast

import attrs
import trio

from tinker_actors.errors import InputError
from tinker_actors.kernel import Actor, ActorRef, ChildSpec, Context, Message, ReplyToken, Supervisor
from tinker_actors.kernel.message import State
from tinker_actors.testing.interpose import Handler, Relay

__all__ = ["Probe"]

R = TypeVar("R")
M = TypeVar("M", bound=Message[Any, Any])
Script = Callable[[Any], Awaitable[Any]]


@attrs.frozen(eq=False)
class _Unanswered:
    message: Message[Any, Any]
    token: ReplyToken[Any]

    @property
    def is_waited_for(self) -> bool:
        return self.token.envelope.state is State.RUNNING


class Probe:
    """An actor of any role, in the hands of a test.

    Its `ref` may be given to whoever wants a ref, of whatever role. An exception that it answers with reaches the
    caller as it is: to a probe, every exception is a declared one.

    Attributes:
        name: its name among its siblings.
        received: every message it has got, in order; `Down` of actors it watches among them.
    """

    def __init__(self, name: str = "probe") -> None:
        self.name = name
        self.received: list[Message[Any, Any]] = []
        self._scripts: dict[type, Script] = {}
        self._seen = 0  # how many of `received` were expected, fished or passed over
        self._unanswered: list[_Unanswered] = []
        self._arrivals = trio.lowlevel.ParkingLot()
        self._ref: ActorRef[Any] | None = None
        self._context: Context[Any] | None = None

    def __repr__(self) -> str:
        return f"<Probe {self.name}: {len(self.received)} received>"

    # --- as an actor -------------------------------------------------------------------------------------

    async def start(self, tree: Supervisor, **settings: Any) -> ActorRef[Any]:
        """Start its actor below a supervisor, and return its ref. A checkpoint.

        Args:
            tree: the supervisor.
            settings: of the `ChildSpec`, such as `capacity`.
        """
        settings = {"name": self.name, "factory": self.factory, **settings}
        self._ref = await tree.start_child(ChildSpec(**settings))
        return self._ref

    def factory(self) -> Actor[Any]:
        """Make its actor, for a `ChildSpec` or a pool of one's own; `start` is the short way."""
        return _ProbeActor(self)

    @property
    def ref(self) -> ActorRef[Any]:
        """Its address.

        Raises:
            RuntimeError: its actor has not been started.
        """
        if self._ref is None:
            raise RuntimeError(f"the probe {self.name} has not been started: await probe.start(tree)")
        return self._ref

    def watch(self, ref: ActorRef[Any]) -> None:
        """Have it watch an actor, whose `Down` it receives like a message.

        Raises:
            RuntimeError: its actor has not been started.
        """
        if self._context is None:
            raise RuntimeError(f"the probe {self.name} has not been started: await probe.start(tree)")
        self._context.watch(ref)

    def attach(self, context: Context[Any]) -> None:
        """Take the context of an incarnation of its actor; its actor's own."""
        self._ref, self._context = context.ref, context

    async def take(self, message: Message[Any, Any]) -> Any:
        """Record a message and answer it, or keep the duty to; its actor's own."""
        assert self._context is not None
        self.received.append(message)
        self._arrivals.unpark_all()
        script = self._scripts.get(type(message))
        if script is not None:
            return await script(message)
        # The test may answer as soon as it runs, so the duty is taken over before.
        token = None
        if self._context.call.asked:
            token = self._context.detach_reply()
            self._unanswered.append(_Unanswered(message, token))
        await trio.lowlevel.checkpoint()
        return token

    # --- answers -----------------------------------------------------------------------------------------

    def reply_with(self, kind: type[Message[Any, R]], *replies: R | Exception) -> None:
        """Answer messages of a type with these, one after the other, and with the last one from then on.

        An exception among them is raised to the caller. It counts for messages that come from now on, and takes the
        place of what was said of this type before.

        Raises:
            InputError: no reply.
        """
        if not replies:
            raise InputError("replies", replies, "give at least one; None is one")
        left = list(replies)

        async def reply(_: object) -> R:
            await trio.lowlevel.checkpoint()
            value = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(value, Exception):
                raise value
            return value

        self._scripts[kind] = reply

    def handle_with(self, kind: type[M], function: Callable[[M], Any]) -> None:
        """Answer messages of a type with what a function makes of them; it may be async, and may raise."""

        async def handle(message: M) -> Any:
            result = function(message)
            if inspect.isawaitable(result):
                return await result
            await trio.lowlevel.checkpoint()
            return result

        self._scripts[kind] = handle

    @property
    def unanswered(self) -> tuple[Message[Any, Any], ...]:
        """The asks that wait for an answer of the test, oldest first."""
        return tuple(one.message for one in self._unanswered if one.is_waited_for)

    def reply(self, message: Message[Any, R], value: R) -> bool:
        """Answer a message that was left unanswered; False if nobody waits for that any more.

        Raises:
            ValueError: it is not one of the unanswered.
        """
        duty = self._duty(message)
        return duty.is_waited_for & duty.token.settle(value)

    def fail(self, message: Message[Any, Any], error: Exception) -> bool:
        """Answer a message that was left unanswered with an error; else as `reply`."""
        duty = self._duty(message)
        return duty.is_waited_for & duty.token.fail(error)

    def _duty(self, message: Message[Any, Any]) -> _Unanswered:
        for one in self._unanswered:
            if one.message is message:
                self._unanswered.remove(one)
                return one
        waiting = ", ".join(map(repr, self.unanswered)) or "no message"
        raise ValueError(f"{message!r} does not wait for an answer of the probe {self.name}; {waiting} does")

    # --- expectations ------------------------------------------------------------------------------------

    async def expect(self, kind: type[M], *, within: float = 1.0) -> M:
        """Wait for the next message, which must be of this type, and return it. A checkpoint.

        Args:
            kind: a message type; of its subclasses as well, so `Message` stands for any.
            within: seconds of trio time.

        Raises:
            AssertionError: another message came, or none; the error says which.
        """
        message = await self._next(within)
        if message is None:
            raise AssertionError(f"{self._who} got no {kind.__name__} within {within} s{self._before()}")
        if isinstance(message, kind):
            return message
        raise AssertionError(f"{self._who} expected {kind.__name__} and got {message!r}")

    async def expect_none(self, *, within: float = 1.0) -> None:
        """Wait, and see that no message comes, and that none has come that was not expected yet. A checkpoint.

        Raises:
            AssertionError: one came; the error says which.
        """
        message = await self._next(within)
        if message is not None:
            raise AssertionError(f"{self._who} expected no message and got {message!r}")

    async def fish(
        self, predicate: Callable[[Message[Any, Any]], bool], *, within: float = 1.0
    ) -> Message[Any, Any]:
        """Wait for a message for which `predicate` is true and return it; pass over all before. A checkpoint.

        Raises:
            AssertionError: there was none in time; the error says which came instead.
        """
        passed: list[Message[Any, Any]] = []
        deadline = trio.current_time() + within
        while True:
            message = await self._next(deadline - trio.current_time())
            if message is None:
                came = ", ".join(map(repr, passed)) or "no message"
                raise AssertionError(f"{self._who} fished for {within} s and got {came}")
            if predicate(message):
                return message
            passed.append(message)

    async def _next(self, within: float) -> Message[Any, Any] | None:
        """Return the next message that was not seen yet; None if it does not come in time. A checkpoint."""
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(max(0.0, within)):  # noqa: ASYNC912 - the checkpoint above is one
            while self._seen == len(self.received):
                await self._arrivals.park()
        if self._seen == len(self.received):
            return None
        self._seen += 1
        return self.received[self._seen - 1]

    @property
    def _who(self) -> str:
        return f"the probe {self.name}"

    def _before(self) -> str:
        if not self.received:
            return "; it has got no message at all"
        return f"; the last message before was {self.received[-1]!r}"


class _ProbeActor(Actor[Any]):
    declares: ClassVar[tuple[type[Exception], ...]] = (Exception,)

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    async def on_start(self) -> None:
        self.probe.attach(self.context)
        await trio.lowlevel.checkpoint()


@trio.lowlevel.disable_ki_protection
async def _take(actor: _ProbeActor, message: Message[Any, Any]) -> Any:
    return await actor.probe.take(message)


_ProbeActor.handlers = cast("dict[type, Handler]", Relay(lambda _: _take))
