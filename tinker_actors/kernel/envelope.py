"""An envelope: one message on its way, its place in line and its one outcome.

Theory of operation. Every admitted envelope ends in exactly one terminal state (SETTLED, ABANDONED, EXPIRED),
and its outcome is settled in the same synchronous step, whatever ends it: the handler's return or exception, a
crash, a stop, a withdrawal, the closing of the mailbox. The runtime owns it; neither caller nor handler can
forget to answer.
"""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import attrs
import trio

from tinker_actors.kernel.message import Message, State
from tinker_actors.kernel.outcome import Outcome

__all__ = ["Envelope"]

T = TypeVar("T")


@attrs.define(eq=False)
class Envelope(Generic[T]):
    """One message under way.

    Attributes:
        message: what was sent.
        outcome: what its sender waits for.
        deadline: absolute trio time after which nobody wants it; `inf` if there is none.
        seq: its place among all admissions of its mailbox; -1 before admission.
        unit: the unit it belongs to, see `Message.unit`.
        state: where it is.
        scope: cancels the handler while it runs.
        committed: past its point of no return; the handler is not cancelled any more.
        detached: the answer was left to a `ReplyToken`; the handler's crash does not settle it.
    """

    message: Message[Any, T]
    outcome: Outcome[T] = attrs.field(factory=Outcome)
    deadline: float = math.inf
    seq: int = -1
    unit: int | None = None
    state: State = State.NEW
    scope: trio.CancelScope | None = None
    committed: bool = False
    detached: bool = False

    def settle(self, value: T) -> bool:
        """End it with a value."""
        self._end(State.SETTLED)
        return self.outcome.settle(value)

    def fail(self, error: Exception, state: State = State.SETTLED) -> bool:
        """End it with an error."""
        self._end(state)
        return self.outcome.fail(error)

    def _end(self, state: State) -> None:
        if self.state in (State.NEW, State.QUEUED, State.RUNNING):
            self.state = state

    def leave(self) -> trio.lowlevel.Abort:
        """The caller of an ask leaves while the handler runs: do what the message's policy says."""
        policy = "finish" if self.committed else self.message.on_abandon
        if policy != "finish" and self.scope is not None:
            self.scope.cancel(reason=f"the caller of {type(self.message).__name__} left")
        if policy == "wait":
            return trio.lowlevel.Abort.FAILED
        self.state = State.ABANDONED
        return trio.lowlevel.Abort.SUCCEEDED
