"""How a child is made, run, restarted and stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import attrs
import trio

from tinker_actors.kernel.actor import Actor
from tinker_actors.kernel.admission import Refusal, unchanged
from tinker_actors.kernel.bound import at_least, within
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.overflow import MailboxSpec, Overflow, SizeOf
from tinker_actors.kernel.restart import RestartPolicy

__all__ = ["ChildSpec"]

RoleT = TypeVar("RoleT")


@attrs.frozen(kw_only=True)
class ChildSpec(Generic[RoleT]):
    """How a child is made, run, restarted and stopped.

    Attributes:
        name: unique among its siblings.
        factory: makes a new actor for each incarnation.
        policy: when it is restarted.
        on_exhausted: when it was restarted too often: `escalate` fails its supervisor, `fail` only it.
        significant: its normal end counts for the supervisor's `auto_shutdown`; not for permanent children.
        capacity: messages its mailbox holds.
        max_bytes: bytes its mailbox holds, see `MailboxSpec`.
        size_of: a message's bytes, see `MailboxSpec`.
        overflow: what a full mailbox does, see `MailboxSpec`.
        on_restart: `hold` keeps messages in line across a restart; `fail_fast` gives asks back to their
            callers (`ActorRestarting`), those in line and those that come before the next incarnation.
        mailbox: a mailbox shared with siblings (a pool) in place of an own one.
        concurrency: handlers that may run at once; if one crashes, the others are lost with it.
        limiter: handling a message takes one of its tokens; setting `total_tokens` to 0 pauses the actor.
        reply_timeout: seconds an ask waits whose caller has no deadline.
        start_timeout: seconds `on_start` may take.
        stop_timeout: seconds an orderly stop may take before it is killed.
        cleanup_timeout: seconds `on_stop` may take, and seconds a killed handler may take to unwind.
        refusal: turns the error for messages that never started into the one their senders get.

    Raises:
        InputError: a number out of its bounds, or a significant child that is permanent.
    """

    name: str
    factory: Callable[[], Actor[RoleT]]
    policy: RestartPolicy = RestartPolicy()
    on_exhausted: Literal["escalate", "fail"] = "escalate"
    significant: bool = attrs.field(default=False)
    capacity: int = 64
    max_bytes: int | None = None
    size_of: SizeOf | None = None
    overflow: Overflow = "block"
    on_restart: Literal["hold", "fail_fast"] = "hold"
    mailbox: Mailbox | None = None
    concurrency: int = attrs.field(default=1, validator=at_least(1))
    limiter: trio.CapacityLimiter | None = None
    reply_timeout: float = attrs.field(default=math.inf, validator=within(0.0))
    start_timeout: float = attrs.field(default=30.0, validator=within(0.0))
    stop_timeout: float = attrs.field(default=30.0, validator=within(0.0))
    cleanup_timeout: float = attrs.field(default=5.0, validator=within(0.0))
    refusal: Refusal = unchanged

    def __attrs_post_init__(self) -> None:
        self.policy.check_significant(significant=self.significant)
        self.line()

    def line(self) -> MailboxSpec:
        """Return how its own mailbox is bounded."""
        return MailboxSpec(
            capacity=self.capacity,
            max_bytes=self.max_bytes,
            size_of=self.size_of,
            overflow=self.overflow,
        )
