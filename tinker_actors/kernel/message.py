"""Typed messages: what may be sent to whom, and what comes back.

A message class names the *role* it is addressed to and the type of its reply:

    class Counter: ...                                   # a role: a mere name for the type checker

    @attrs.frozen
    class Add(Message[Counter, int]):                    # to a Counter; answered with an int
        amount: int

    total = await ref.ask(Add(2))                        # ref: ActorRef[Counter]; total: int

Sending a message to a ref of another role is a type error. A role may derive from another one; a message for
the wider role may then be sent to a ref of the narrower one (a pool and its workers share messages that way).
"""

from __future__ import annotations

import enum
from typing import ClassVar, Generic, Literal, TypeVar

import attrs

__all__ = ["Message", "OnAbandon", "State", "Unit"]

RoleT_contra = TypeVar("RoleT_contra", contravariant=True)
ReplyT_co = TypeVar("ReplyT_co", covariant=True)

OnAbandon = Literal["cancel", "finish", "wait"]
Unit = Literal["none", "part", "end"]


_MEANINGS = ("on_abandon", "unit", "exclusive", "reentrant", "max_redeliver", "stands_alone")


class Message(Generic[RoleT_contra, ReplyT_co]):
    """Base of all messages; subclasses are frozen attrs classes.

    Class attributes:
        on_abandon: what happens to a running handler when the caller of an `ask` leaves. `cancel`: it is
            cancelled and the caller leaves at once. `finish`: it runs on and its result is dropped. `wait`:
            it is cancelled and the caller leaves when it has unwound.
        unit: messages between two `end`s (the second included) are taken back together by
            `Pending.withdraw`, or not at all; a caller that leaves its `ask` of one of them changes nothing.
            `none` stands for itself.
        exclusive: where handlers run side by side, this one begins when all earlier ones have ended, and
            nothing later begins until it has ended.
        reentrant: an ask that would wait for itself (`AskCycle`) is handled at once instead, beside the
            handler that waits for it.
        max_redeliver: the message is idempotent: if its incarnation crashes, it is handled again, before
            what stands behind it, at most so often. Then it is poison and given up.
        stands_alone: follows from `unit` and `exclusive`: it has nothing to do with its neighbours in line.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, kind in vars(cls).get("__annotations__", {}).items():
            if name in _MEANINGS and "ClassVar" not in str(kind):
                raise TypeError(
                    f"{cls.__name__}.{name} means something to the runtime: give the field another name"
                )
        cls.stands_alone = cls.unit == "none" and not cls.exclusive

    on_abandon: ClassVar[OnAbandon] = "cancel"
    unit: ClassVar[Unit] = "none"
    exclusive: ClassVar[bool] = False
    reentrant: ClassVar[bool] = False
    max_redeliver: ClassVar[int] = 0
    stands_alone: ClassVar[bool] = True  # no unit and no barrier: one look, for the many


class State(enum.Enum):
    """Where an envelope is. Only NEW, QUEUED and RUNNING have successors."""

    NEW = "new"  # not admitted yet
    QUEUED = "queued"
    RUNNING = "running"
    SETTLED = "settled"
    ABANDONED = "abandoned"  # its caller left, or took it back
    EXPIRED = "expired"  # its deadline passed before it began or while it ran


@attrs.frozen(kw_only=True)
class MailboxStatistics:
    """What a mailbox has seen.

    Every message that was admitted is counted in exactly one place:
    `admitted == handled + failed + abandoned + expired + dropped + rejected + queued + running`.

    Attributes:
        queued: messages waiting now.
        queued_bytes: their sizes together, if the mailbox knows sizes.
        parked: senders waiting for room now.
        capacity: messages it may hold.
        max_bytes: bytes it may hold; None if they do not count.
        peak: most messages that ever waited at once.
        admitted: messages admitted so far.
        handled: messages that were answered with a value.
        failed: messages that were answered with an error, or lost, after they had begun.
        abandoned: messages that were taken back, or whose caller left.
        expired: messages whose deadline passed.
        dropped: messages that the overflow policy dropped.
        rejected: messages that were handed back before they began, because the actor stopped or restarts.
        running: messages begun and not answered.
        late_replies: answers that came when nobody waited any more.
        duplicate_replies: answers after the first.
        refused: messages that were not admitted at all.
        waited: seconds in line, the median and the 99th percentile of recent messages; None unless timed.
        took: seconds in the handler, likewise.
    """

    queued: int = 0
    queued_bytes: int = 0
    parked: int = 0
    capacity: int = 0
    max_bytes: int | None = None
    peak: int = 0
    admitted: int = 0
    handled: int = 0
    failed: int = 0
    abandoned: int = 0
    expired: int = 0
    dropped: int = 0
    rejected: int = 0
    running: int = 0
    late_replies: int = 0
    duplicate_replies: int = 0
    refused: int = 0
    waited: tuple[float, float] | None = None
    took: tuple[float, float] | None = None
