"""An envelope: one message on its way, its place in line and its one outcome.

Theory of operation. Every admitted envelope ends in exactly one terminal state (SETTLED, ABANDONED, EXPIRED),
and its outcome is settled in the same synchronous step, whatever ends it: the handler's return or exception,
a crash, a stop, a withdrawal, the closing of the mailbox. The runtime owns it; neither caller nor handler can
forget to answer. (An ask whose caller left is ABANDONED at once; its handler, if it runs on, settles it for
nobody.)
"""

from __future__ import annotations

import contextvars
import math
from typing import Any, Generic, Literal, TypeVar

import attrs
import trio

from tinker_actors.kernel.message import Message, State
from tinker_actors.kernel.outcome import Outcome

__all__ = ["TRACE", "Duty", "Envelope"]

T = TypeVar("T")

TRACE: contextvars.ContextVar[object] = contextvars.ContextVar("tinker_actors.TRACE", default=None)
"""Whatever a caller sets here, such as a trace id, is set around the handlers of the messages it sends."""

Duty = Literal["handler", "token", "surviving token"]
"""Who owes the answer; see `Context.detach_reply`."""


@attrs.define(eq=False)
class Envelope(Generic[T]):
    """One message under way.

    Attributes:
        message: what was sent.
        outcome: what its sender waits for.
        deadline: absolute trio time after which nobody wants it; `inf` if there is none.
        asked: somebody may wait for the outcome; False for a `tell`.
        trace: the sender's `TRACE`.
        seq: its place among all admissions of its mailbox; -1 before admission.
        unit: the unit it belongs to, see `Message.unit`.
        state: where it is.
        scope: cancels the handler while it runs.
        committed: past its point of no return; the handler is not cancelled any more.
        duty: who owes the answer.
        detached: its handler has ended and left the answer to a `ReplyToken`.
    """

    message: Message[Any, T]
    # `Outcome[T]` would say the same to pyright, but an alias takes microseconds to call.
    outcome: Outcome[T] = attrs.field(factory=Outcome)  # pyright: ignore[reportUnknownVariableType]
    deadline: float = math.inf
    asked: bool = True
    trace: object = attrs.field(factory=TRACE.get)
    seq: int = -1
    unit: int | None = None
    state: State = State.NEW
    scope: trio.CancelScope | None = None
    committed: bool = False
    duty: Duty = "handler"
    detached: bool = False

    @trio.lowlevel.enable_ki_protection
    def settle(self, value: T) -> bool:
        """End it with a value; False if it had its outcome already."""
        self._end(State.SETTLED)
        return self.outcome.settle(value)

    @trio.lowlevel.enable_ki_protection
    def fail(self, error: Exception, state: State = State.SETTLED) -> bool:
        """End it with an error; False if it had its outcome already."""
        self._end(state)
        return self.outcome.fail(error)

    def _end(self, state: State) -> None:
        if self.state in (State.NEW, State.QUEUED, State.RUNNING):
            self.state = state

    def open_scope(self) -> trio.CancelScope:
        """Make the scope its handler runs in: a deadline cancels only what its caller's leaving would."""
        finishes = self.message.on_abandon == "finish"
        self.scope = trio.CancelScope(deadline=math.inf if finishes else self.deadline)
        return self.scope

    @trio.lowlevel.enable_ki_protection
    def leave(self) -> trio.lowlevel.Abort:
        """The caller of an ask leaves after the handler has begun: do what the message's policy says."""
        if self.unit is not None:
            return trio.lowlevel.Abort.SUCCEEDED  # it goes with its unit
        self.state = State.ABANDONED
        policy = self.message.on_abandon
        if policy == "finish" or self.committed or self.scope is None:
            return trio.lowlevel.Abort.SUCCEEDED
        self.scope.cancel(reason=f"the caller of {type(self.message).__name__} left")
        return trio.lowlevel.Abort.FAILED if policy == "wait" else trio.lowlevel.Abort.SUCCEEDED
