"""Single steps: an actor handles exactly one message whenever the test says so.

Theory of operation. Handling a message takes a token of the actor's limiter, and while there is none, messages stay
in line, where they can still be withdrawn or expire. A `Stepper` is such a limiter with no tokens. A step gives it
one, and takes it away as soon as a message has been begun. An interposed actor tells when that is, and how the
handler ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import attrs
import trio

from tinker_actors.errors import InputError
from tinker_actors.kernel import Actor, ChildSpec, Message, ReplyToken, Stop
from tinker_actors.testing.interpose import Interposed, Proceed

__all__ = ["Step", "StepEnd", "Stepper"]

RoleT = TypeVar("RoleT")
StepEnd: TypeAlias = Literal["replied", "raised", "detached", "stopped", "cancelled"]
"""How a handler ended: with a reply; with an exception, declared or not; leaving the answer to a `ReplyToken`; with
`Stop`; because its caller left, its deadline passed, or its actor was killed."""


@attrs.frozen
class Step:
    """What an actor did in one step.

    Attributes:
        message: what it handled.
        end: how the handler ended.
        reply: what it replied; None unless it did.
        error: what it raised; None unless it did.
    """

    message: Message[Any, Any]
    end: StepEnd
    reply: Any = None
    error: BaseException | None = None


class Stepper:
    """Lets an actor handle messages one by one: `step = await stepper()`.

    Messages of the runtime (timers, `Down`) pass without a step, and so do those that an actor handles because it
    waits for itself (`Message.reentrant`).
    """

    def __init__(self) -> None:
        self._gate = trio.CapacityLimiter(0)
        self._last: Step | None = None
        self._ended = trio.Event()
        self._running = False

    def arm(self, spec: ChildSpec[RoleT]) -> ChildSpec[RoleT]:
        """Return a spec whose actor moves only by steps of this stepper.

        Raises:
            InputError: the spec has a limiter of its own.
        """
        if spec.limiter is not None:
            raise InputError("limiter", spec.limiter, "the steps are made by a limiter, so it must be None")
        return attrs.evolve(spec, factory=self._wrap(spec.factory), limiter=self._gate)

    def _wrap(self, factory: Callable[[], Actor[RoleT]]) -> Callable[[], Actor[RoleT]]:
        return lambda: _Stepped(factory(), self)

    async def __call__(self, *, within: float = 60.0) -> Step:
        """Let the actor handle one message, and return when its handler has ended. A checkpoint.

        If none is in line, or the actor is being restarted, it is waited for.

        Raises:
            AssertionError: no message was begun, or its handler did not end, within so many seconds of trio time.
        """
        await trio.lowlevel.checkpoint()
        self._ended = trio.Event()
        if not self._running:  # else a step before this one ran out of time
            self._gate.total_tokens = 1
        with trio.move_on_after(within):
            await self._ended.wait()
            assert self._last is not None
            return self._last
        self._gate.total_tokens = 0
        what = "its handler did not end" if self._running else "no message was begun"
        raise AssertionError(f"there was no step within {within} s: {what}")

    def release(self) -> None:
        """Let the actor run freely from now on."""
        self._gate.total_tokens = math.inf

    def begin(self) -> bool:
        """A handler begins; False if that is no step. The interposed actor's own."""
        if self._running or self._gate.total_tokens == math.inf:
            return False
        self._gate.total_tokens = 0
        self._running = True
        return True

    def end(self, step: Step) -> None:
        """The handler of a step has ended; the interposed actor's own."""
        self._running = False
        self._last = step
        self._ended.set()


class _Stepped(Interposed[RoleT], Generic[RoleT]):
    def __init__(self, inner: Actor[RoleT], stepper: Stepper) -> None:
        super().__init__(inner)
        self._stepper = stepper

    async def around(self, message: Message[Any, Any], proceed: Proceed) -> Any:
        if (
            self.context.call.seq < 0 or not self._stepper.begin()
        ):  # a signal of the runtime has no place in line
            return await proceed()
        try:
            reply = await proceed()
        except trio.Cancelled:
            self._stepper.end(Step(message, "cancelled"))
            raise
        except BaseException as error:
            self._stepper.end(Step(message, "raised", error=error))
            raise
        self._stepper.end(_step(message, reply))
        return reply


def _step(message: Message[Any, Any], reply: Any) -> Step:
    if isinstance(reply, ReplyToken):
        return Step(message, "detached")
    if isinstance(reply, Stop):
        return Step(message, "stopped", reply=reply.reply)
    return Step(message, "replied", reply=reply)
