"""An envelope: one message on its way, its place in line and its one outcome.

Theory of operation. Every admitted envelope ends in exactly one terminal state (SETTLED, ABANDONED, EXPIRED),
and its outcome is settled in the same synchronous step, whatever ends it: the handler's return or exception,
a crash, a stop, a withdrawal, the closing of the mailbox. The runtime owns it; neither caller nor handler can
forget to answer. (An ask whose caller left is ABANDONED at once; its handler, if it runs on, settles it for
nobody.) The mailbox that admitted it counts where it ended, once.

It is its own outcome, and its class attributes are the state of a new one, because making it is most of what a
message costs.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import Hashable
from typing import Any, Generic, Literal, Protocol, TypeVar

import trio

from tinker_actors.errors import ActorError
from tinker_actors.kernel.dead_letter import Reason
from tinker_actors.kernel.message import Message, State
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.kernel.reader import Reader

__all__ = ["TRACE", "Duty", "Envelope", "Ledger"]

T = TypeVar("T")

TRACE: contextvars.ContextVar[object] = contextvars.ContextVar("tinker_actors.TRACE", default=None)
"""Whatever a caller sets here, such as a trace id, is set around the handlers of the messages it sends."""

Duty = Literal["handler", "token", "surviving token"]
"""Who owes the answer; see `Context.detach_reply`."""


# Looking a member up in its class is slow before Python 3.12, and every message does it several times.
_NEW, _QUEUED, _RUNNING, _SETTLED = State.NEW, State.QUEUED, State.RUNNING, State.SETTLED


class Ledger(Protocol):
    """Where an envelope's end is counted; its mailbox."""

    handled: int
    watched: bool

    def settled(self, envelope: Envelope[Any]) -> None:
        """It has ended in a value, and somebody wants to know: called only if `watched`."""
        ...

    def ended(self, envelope: Envelope[Any], before: State) -> None:
        """It has ended in another way than by a value."""
        ...

    def answered_again(self, envelope: Envelope[Any]) -> None:
        """It was answered when it had ended already."""
        ...


class Envelope(Outcome[T], Generic[T]):
    """One message under way.

    Attributes:
        message: what was sent.
        deadline: absolute trio time after which nobody wants it; `inf` if there is none.
        asked: somebody may wait for the outcome; False for a `tell`.
        trace: the sender's `TRACE`.
        seq: its place among all admissions of its mailbox; -1 before admission.
        unit: the unit it belongs to, see `Message.unit`.
        state: where it is.
        ledger: the mailbox that counts it, once admitted; None for what is in no mailbox.
        reader: who handles it, while it runs.
        committed: past its point of no return; the handler is not cancelled any more.
        duty: who owes the answer.
        detached: its handler has ended and left the answer to a `ReplyToken`.
        crash: what was raised by the last incarnation that crashed with it and left it in line.
        crashes: how many incarnations crashed with it.
        size: bytes it counts for.
        key: under which it is coalesced; None if it is not.
        reason: why it is a dead letter, once it has ended.
        stamp: when it was admitted, and then when it began; -1 where nobody measures it.
    """

    settled: bool = False
    error: Exception | None = None
    observed: bool = False
    seq: int = -1
    unit: int | None = None
    state: State = State.NEW
    ledger: Ledger | None = None
    reader: Reader | None = None
    asked: bool = True
    committed: bool = False
    duty: Duty = "handler"
    detached: bool = False
    crash: Exception | None = None
    crashes: int = 0
    size: int = 0
    key: Hashable = None
    reason: Reason | None = None
    stamp: float = -1.0

    def __init__(self, message: Message[Any, T], deadline: float = math.inf, asked: bool = True) -> None:
        self.message = message
        self.deadline = deadline
        self.trace: object = TRACE.get()
        if not asked:
            self.asked = False
            self.observed = True  # nobody is going to look

    def __repr__(self) -> str:
        return f"<Envelope {type(self.message).__name__} #{self.seq} {self.state.value}>"

    @trio.lowlevel.enable_ki_protection
    def settle(self, value: T) -> bool:
        """End it with a value; False if it had its outcome already."""
        if self.state is _RUNNING:
            self.state = _SETTLED
            ledger = self.ledger
            if ledger is not None:
                ledger.handled += 1
                if ledger.watched:
                    ledger.settled(self)
            if not self.asked:
                self.settled = True  # and nobody waits, or may look
                return True
        else:
            self._end(State.SETTLED)
        return self._close(value, None)

    @trio.lowlevel.enable_ki_protection
    def fail(self, error: Exception, state: State = State.SETTLED, *, reason: Reason | None = None) -> bool:
        """End it with an error; False if it had its outcome already.

        Args:
            error: for its sender.
            state: how it ends.
            reason: why it is a dead letter, if it is one.
        """
        if isinstance(error, ActorError) and error.handed_back is None:
            error.handed_back = self.message
        if not self.settled:
            self.error = error  # these two are for `Ledger.ended`
            self.reason = reason
        self._end(state)
        return self._close(None, error)

    @trio.lowlevel.enable_ki_protection
    def cut_short(self, error: Exception) -> None:
        """Its handler was cancelled because nobody waits: end it without counting that as an answer."""
        if self.state is State.RUNNING:
            self.fail(error, State.EXPIRED)
        elif not self.settled:
            self._close(None, error)

    def given_up(self) -> State:
        """Return how it ends if its caller leaves now."""
        in_time = self.deadline == math.inf or self.deadline > trio.current_time()
        return State.ABANDONED if in_time else State.EXPIRED

    def _end(self, state: State) -> None:
        before = self.state
        if before is _NEW or before is _QUEUED or before is _RUNNING:
            self.state = state
            if self.ledger is not None:
                self.ledger.ended(self, before)
        elif self.ledger is not None:
            self.ledger.answered_again(self)

    @trio.lowlevel.enable_ki_protection
    def leave(self) -> trio.lowlevel.Abort:
        """The caller of an ask leaves after the handler has begun: do what the message's policy says."""
        if self.unit is not None:
            return trio.lowlevel.Abort.SUCCEEDED  # it goes with its unit
        policy = self.message.on_abandon
        self._end(self.given_up())
        if policy == "finish" or self.committed or self.reader is None:
            return trio.lowlevel.Abort.SUCCEEDED
        self.reader.interrupt(f"the caller of {type(self.message).__name__} left")
        return trio.lowlevel.Abort.FAILED if policy == "wait" else trio.lowlevel.Abort.SUCCEEDED
