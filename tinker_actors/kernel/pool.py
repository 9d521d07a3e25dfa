"""A pool: interchangeable workers that take from one mailbox.

One shared, bounded queue means that a slow worker holds nobody up, and that a worker which crashes loses only
what it had begun. Messages are taken in order of admission.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
import trio

from tinker_actors.errors import ActorStopped, TinkerActorsError
from tinker_actors.kernel.actor import Actor
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.ref import ActorRef
from tinker_actors.kernel.restart import RestartPolicy
from tinker_actors.kernel.slot import ChildSpec
from tinker_actors.kernel.supervisor import Supervisor

__all__ = ["PoolSpec", "start_pool"]

RoleT = TypeVar("RoleT")


def _unchanged(error: ActorStopped) -> TinkerActorsError:
    return error


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
    """

    name: str
    workers: int
    concurrency: int = 1
    capacity: int = 1024
    policy: RestartPolicy = RestartPolicy()
    refusal: Callable[[ActorStopped], TinkerActorsError] = _unchanged


async def start_pool(
    parent: Supervisor, spec: PoolSpec, factory: Callable[[], Actor[RoleT]]
) -> ActorRef[RoleT]:
    """Start the workers of a pool and return the address of the pool.

    Raises:
        StartFailed: a worker did not start.
    """
    group = parent.start_supervisor(spec.name, "dynamic")
    mailbox = Mailbox(group.path, spec.capacity, spec.refusal)
    ended = trio.Event()
    group.on_stopped(lambda: _end(mailbox, ended))
    for index in range(spec.workers):
        await group.start_child(
            ChildSpec(
                name=f"worker-{index}",
                factory=factory,
                policy=spec.policy,
                mailbox=mailbox,
                concurrency=spec.concurrency,
            )
        )
    return ActorRef(group.path, mailbox, ended)


def _end(mailbox: Mailbox, ended: trio.Event) -> None:
    mailbox.close("has stopped")
    ended.set()
