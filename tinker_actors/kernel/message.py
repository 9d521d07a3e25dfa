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


class Message(Generic[RoleT_contra, ReplyT_co]):
    """Base of all messages; subclasses are frozen attrs classes.

    Class attributes:
        on_abandon: what happens to a running handler when the caller of an `ask` leaves. `cancel`: it is
            cancelled and the caller leaves at once. `finish`: it runs on and its result is dropped. `wait`:
            it is cancelled and the caller leaves when it has unwound.
        unit: messages between two `end`s (the second included) are taken back together by
            `Pending.withdraw`, or not at all; a caller that leaves its `ask` of one of them changes nothing.
            `none` stands for itself.
    """

    __slots__ = ()

    on_abandon: ClassVar[OnAbandon] = "cancel"
    unit: ClassVar[Unit] = "none"


class State(enum.Enum):
    """Where an envelope is. Only QUEUED and RUNNING have successors."""

    NEW = "new"  # not admitted yet
    QUEUED = "queued"
    RUNNING = "running"
    SETTLED = "settled"
    ABANDONED = "abandoned"  # its caller left
    EXPIRED = "expired"  # its deadline passed before it began or while it ran


@attrs.frozen
class MailboxStatistics:
    """What a mailbox has seen.

    Attributes:
        queued: messages waiting now.
        parked: senders waiting for room now.
        capacity: messages it may hold.
        peak: most messages that ever waited at once.
        admitted: messages admitted so far; always queued + taken + withdrawn + unstarted.
        withdrawn: admitted messages that were taken back, abandoned or expired before they began.
        taken: messages given to a handler.
        unstarted: messages that were still queued when the mailbox was closed.
    """

    queued: int
    parked: int
    capacity: int
    peak: int
    admitted: int
    withdrawn: int
    taken: int
    unstarted: int
