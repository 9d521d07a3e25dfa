"""A pool: interchangeable workers behind one address.

Theory of operation. With `shared` routing all workers take from one bounded mailbox, in order of admission: a
slow worker holds nobody up, and a worker that crashes loses only what it had begun. With `least_loaded` routing
every worker has its own mailbox and a message goes to the one with the least to do: for workers that keep
something warm, at the price that what waits behind a slow worker waits.

A resize starts workers, or retires some: a retired worker finishes what it has begun. A worker that is busy with
one message for more than `stuck_after` seconds is cancelled and started again, like one that crashed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, TypeVar, cast

import attrs
import trio

from tinker_actors.kernel.actor import Actor
from tinker_actors.kernel.admission import Refusal, unchanged
from tinker_actors.kernel.bound import at_least, check_count, within
from tinker_actors.kernel.lifecycle import Life
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import MailboxStatistics
from tinker_actors.kernel.overflow import MailboxSpec, Overflow
from tinker_actors.kernel.patrol import Patrol
from tinker_actors.kernel.reader import Reader
from tinker_actors.kernel.ref import ActorRef, StopMode
from tinker_actors.kernel.restart import Intensity, RestartPolicy
from tinker_actors.kernel.slot import Slot
from tinker_actors.kernel.spec import ChildSpec
from tinker_actors.kernel.supervisor import Supervisor
from tinker_actors.kernel.watch import Down, Obituary

__all__ = ["Pool", "PoolSpec", "start_pool"]

RoleT = TypeVar("RoleT")


@attrs.frozen(kw_only=True)
class PoolSpec:
    """How a pool is built.

    Attributes:
        name: unique among its siblings.
        workers: how many actors take messages.
        concurrency: handlers each of them may run at once.
        capacity: messages that may wait: in the shared mailbox, or in each worker's.
        overflow: what a full mailbox does, see `MailboxSpec`.
        routing: `shared` or `least_loaded`, see the module.
        limiter: handling a message takes one of its tokens; setting `total_tokens` to 0 pauses the pool.
        stuck_after: seconds after which a worker that is busy with one message is replaced; never by default.
        policy: when a worker is restarted.
        intensity: how many restarts of workers the pool makes before it gives up.
        reply_timeout: seconds an ask waits whose caller has no deadline.
        stop_timeout: seconds an orderly stop of a worker may take before it is killed.
        cleanup_timeout: seconds a worker's `on_stop` may take, and seconds a killed handler may unwind.
        refusal: turns the error for messages that never started into the one their senders get.

    Raises:
        InputError: a number out of its bounds.
    """

    name: str
    workers: int = attrs.field(validator=at_least(1))
    concurrency: int = attrs.field(default=1, validator=at_least(1))
    capacity: int = attrs.field(default=1024, validator=at_least(1))
    overflow: Overflow = "block"
    routing: Literal["shared", "least_loaded"] = attrs.field(
        default="shared", validator=attrs.validators.in_(("shared", "least_loaded"))
    )
    limiter: trio.CapacityLimiter | None = None
    stuck_after: float = attrs.field(default=math.inf, validator=within(0.0))
    policy: RestartPolicy = RestartPolicy()
    intensity: Intensity = Intensity()
    reply_timeout: float = attrs.field(default=math.inf, validator=within(0.0))
    stop_timeout: float = attrs.field(default=30.0, validator=within(0.0))
    cleanup_timeout: float = attrs.field(default=5.0, validator=within(0.0))
    refusal: Refusal = unchanged


class Pool(Generic[RoleT]):
    """A pool that runs.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
        ref: its address.
        obituary: where its end is told.
    """

    def __init__(self, group: Supervisor, spec: PoolSpec, factory: Callable[[], Actor[RoleT]]) -> None:
        self.path: str = group.path
        self.obituary: Obituary = Obituary()
        self.reply_timeout: float = spec.reply_timeout
        self._group = group
        self._spec = spec
        self._factory = factory
        line = MailboxSpec(capacity=spec.capacity, overflow=spec.overflow)
        self._mailbox = Mailbox(group.path, line, spec.refusal, group.sight, spec.limiter)
        self.ref: ActorRef[RoleT] = ActorRef(self, self._mailbox if spec.routing == "shared" else None)
        self._workers: dict[str, Slot[RoleT]] = {}  # those that are to stay
        self._gone: list[MailboxStatistics] = []  # what ended workers have seen, with mailboxes of their own
        self._made = 0
        group.on_stopped(self._end)

    # --- as the target of its ref ------------------------------------------------------------------------

    def choose(self) -> Mailbox:
        """Return the mailbox for the next message."""
        if self._spec.routing == "shared" or not self._workers:
            return self._mailbox
        return min(self._workers.values(), key=_order).mailbox

    def statistics(self) -> MailboxStatistics:
        """Return counters and depths, of all workers together."""
        if self._spec.routing == "shared":
            return self._mailbox.statistics()
        own = [c.statistics() for c in self._group.everybody() if isinstance(c, Slot) and not c.has_ended]
        return _sum([*own, *self._gone])

    async def stop(self, mode: StopMode, timeout: float) -> None:  # noqa: ASYNC109 - a stop that kills
        """Stop all workers and wait for their end. A checkpoint."""
        await self._group.stop(mode, timeout)

    def _end(self) -> None:
        self._mailbox.close("has stopped")
        self._workers.clear()
        self.obituary.ended(Down(self.path, "stopped"))

    # --- size --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many workers take messages."""
        return len(self._workers)

    async def resize(self, workers: int) -> None:
        """Start workers, or retire some. A checkpoint.

        It returns when those that were started are ready. Retired ones, idle ones first, finish what they
        have begun (with `least_loaded`, what waits for them), and are not waited for.

        Raises:
            InputError: less than one worker.
            StartFailed: a worker did not start; those before it have.
            ActorError: the pool is stopping.
        """
        check_count("workers", workers, 1)
        await trio.lowlevel.checkpoint()
        for slot in sorted(self._workers.values(), key=_of_use)[: max(0, self.size - workers)]:
            del self._workers[slot.spec.name]
            if self._spec.routing == "shared":
                slot.retire()
            else:
                slot.ask_to_stop("drain")
        while self.size < workers:
            await self._add_worker()

    async def _add_worker(self) -> None:
        spec = self._worker(self._made)
        self._made += 1
        await self._group.start_child(spec)
        slot = cast("Slot[RoleT]", self._group.children[spec.name])  # nobody has run since it was ready
        self._workers[spec.name] = slot
        slot.obituary.add(lambda _: self._forget(spec.name, slot))

    def _forget(self, name: str, slot: Slot[RoleT]) -> None:
        self._workers.pop(name, None)
        if self._spec.routing != "shared":
            self._gone = [_sum([*self._gone, slot.statistics()])]

    def _worker(self, index: int) -> ChildSpec[RoleT]:
        spec, shared = self._spec, self._spec.routing == "shared"
        return ChildSpec(
            name=f"worker-{index}",
            factory=self._factory,
            policy=spec.policy,
            mailbox=self._mailbox if shared else None,
            capacity=spec.capacity,
            overflow=spec.overflow,
            concurrency=spec.concurrency,
            limiter=spec.limiter,
            stop_timeout=spec.stop_timeout,
            cleanup_timeout=spec.cleanup_timeout,
            refusal=spec.refusal,
        )

    # --- stuck workers -----------------------------------------------------------------------------------

    def _busy(self) -> Iterator[tuple[str, Reader]]:
        for name, slot in self._workers.items():
            if slot.current is not None:
                yield from ((name, reader) for reader in slot.current.busy())

    async def guard(self) -> None:
        """Replace workers that are busy for too long, for as long as the pool lives."""
        seconds = self._spec.stuck_after
        patrol = Patrol(seconds, self._busy)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(seconds / 4)
                for name in patrol.look(trio.current_time()):
                    slot = self._workers[name]
                    text = f"{slot.path} was busy with one message for more than {seconds} s"
                    nursery.start_soon(slot.abort, trio.TooSlowError(text))


def _load(slot: Slot[Any]) -> int:
    return slot.mailbox.load if slot.spec.mailbox is None else len(slot.current.busy()) if slot.current else 0


def _order(slot: Slot[Any]) -> tuple[bool, int]:
    """Sort workers for the next message: those that run first, by what they have to do."""
    return slot.life is not Life.RUNNING, _load(slot)


def _of_use(slot: Slot[Any]) -> tuple[bool, int]:
    """Sort workers for leaving: those that do not run first, by what they have to do."""
    return slot.life is Life.RUNNING, _load(slot)


def _sum(parts: list[MailboxStatistics]) -> MailboxStatistics:
    """Return counters and depths added up; what cannot be added is left out."""
    left_out = ("max_bytes", "waited", "took")
    names = [field.name for field in attrs.fields(MailboxStatistics) if field.name not in left_out]
    sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in names}
    return MailboxStatistics(**sums)


async def start_pool(parent: Supervisor, spec: PoolSpec, factory: Callable[[], Actor[RoleT]]) -> Pool[RoleT]:
    """Start a pool. A checkpoint.

    If a worker does not start, or the caller is cancelled, no worker is left.

    Raises:
        StartFailed: a worker did not start.
        InputError: there is a child of this name already.
        ActorError: the supervisor is stopping.
    """
    group = parent.start_supervisor(spec.name, "dynamic", intensity=spec.intensity)
    pool = Pool(group, spec, factory)
    try:
        await pool.resize(spec.workers)
    except BaseException:
        with trio.CancelScope(shield=True):
            await group.stop("kill", 0.0)
        raise
    if spec.stuck_after < math.inf:
        group.attend(pool.guard)
    return pool
