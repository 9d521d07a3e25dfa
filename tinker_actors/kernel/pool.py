"""A pool: interchangeable workers that take from one mailbox.

One shared, bounded queue means that a slow worker holds nobody up, and that a worker which crashes loses only
what it had begun. Messages are taken in order of admission.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

from tinker_actors.kernel.actor import Actor
from tinker_actors.kernel.bound import at_least
from tinker_actors.kernel.mailbox import Mailbox, Refusal, unchanged
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.restart import RestartPolicy
from tinker_actors.kernel.slot import ChildSpec
from tinker_actors.kernel.supervisor import Supervisor

__all__ = ["PoolSpec", "start_pool"]

RoleT = TypeVar("RoleT")


@attrs.frozen(kw_only=True)
class PoolSpec:
    """How a pool is built.

    Attributes:
        name: unique among its siblings.
        workers: how many actors take from the mailbox.
        concurrency: handlers each of them may run at once.
        capacity: messages the shared mailbox holds.
        policy: when a worker is restarted.
        refusal: turns the error for messages that never started into the one their senders get.

    Raises:
        InputError: a number out of its bounds.
    """

    name: str
    workers: int = attrs.field(validator=at_least(1))
    concurrency: int = attrs.field(default=1, validator=at_least(1))
    capacity: int = attrs.field(default=1024, validator=at_least(1))
    policy: RestartPolicy = RestartPolicy()
    refusal: Refusal = unchanged


async def start_pool(
    parent: Supervisor, spec: PoolSpec, factory: Callable[[], Actor[RoleT]]
) -> ActorRef[RoleT]:
    """Start the workers of a pool and return the address of the pool. A checkpoint.

    If a worker does not start, or the caller is cancelled, no worker is left.

    Raises:
        StartFailed: a worker did not start.
        InputError: there is a child of this name already.
        ActorError: the supervisor is stopping.
    """
    group = parent.start_supervisor(spec.name, "dynamic")
    mailbox = Mailbox(group.path, spec.capacity, spec.refusal)
    ended = trio.Event()
    group.on_stopped(lambda: _end(mailbox, ended))
    try:
        for index in range(spec.workers):
            await group.start_child(_worker(spec, index, mailbox, factory))
    except BaseException:
        with trio.CancelScope(shield=True):
            await group.stop("kill", 0.0)
        raise
    return ActorRef(group.path, mailbox, ended)  # noqa: ASYNC910 - there is at least one worker


def _worker(
    spec: PoolSpec, index: int, mailbox: Mailbox, factory: Callable[[], Actor[RoleT]]
) -> ChildSpec[RoleT]:
    return ChildSpec(
        name=f"worker-{index}",
        factory=factory,
        policy=spec.policy,
        mailbox=mailbox,
        concurrency=spec.concurrency,
    )


def _end(mailbox: Mailbox, ended: trio.Event) -> None:
    mailbox.close("has stopped")
    ended.set()
