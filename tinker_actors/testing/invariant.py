"""What holds of a tree of actors when a test has done its work: nothing is under way, counted wrong, or left behind.

Theory of operation. A tree is *quiescent* when no actor has a message in line or in hand, no sender waits for room,
and no actor is on its way between two states. `settle` waits for that without a clock of its own: it lets every
task run until all are blocked, looks, and if something is still under way (a backoff, a handler that sleeps) waits
until trio runs any other task, which an instrument tells it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import trio
import trio.testing

from tinker_actors.kernel import ActorSnapshot, MailboxStatistics, Supervisor, SupervisorSnapshot

__all__ = [
    "assert_counters",
    "assert_quiescent",
    "check_counters",
    "living_tasks",
    "no_leaked_tasks",
    "settle",
]

_AT_REST = frozenset({"running", "stopped", "failed", "stuck"})


def actors_of(tree: SupervisorSnapshot) -> Iterator[ActorSnapshot]:
    """Give every actor below a supervisor, at whatever depth."""
    for child in tree.children:
        if isinstance(child, ActorSnapshot):
            yield child
        else:
            yield from actors_of(child)


def _stirs(actor: ActorSnapshot) -> list[str]:
    """Say what is under way in an actor."""
    mailbox = actor.mailbox
    found = [] if actor.life in _AT_REST else [f"it is {actor.life}"]
    if mailbox.queued:
        found.append(f"{mailbox.queued} messages wait in line")
    if mailbox.parked:
        found.append(f"{mailbox.parked} senders wait for room")
    for message in actor.running:
        waits = f", which waits on {', '.join(message.waiting_on)}" if message.waiting_on else ""
        found.append(f"it handles {message.kind} (#{message.seq}){waits}")
    if mailbox.running and not actor.running:
        found.append(f"{mailbox.running} messages were begun and are not answered")
    return found


def _under_way(tree: Supervisor) -> list[str]:
    actors = actors_of(tree.snapshot())
    return [f"{actor.path}: {'; '.join(stirs)}" for actor in actors if (stirs := _stirs(actor))]


def assert_quiescent(tree: Supervisor) -> None:
    """Assert that nothing is queued, running, parked, starting, stopping or restarting below a supervisor.

    Raises:
        AssertionError: it names each actor where something is under way, and what.
    """
    found = _under_way(tree)
    if found:
        raise AssertionError(f"{tree.path} is not quiescent:\n  " + "\n  ".join(found))


async def settle(tree: Supervisor, *, within: float = 60.0) -> None:
    """Wait until nothing is under way below a supervisor, see `assert_quiescent`, and no task can run.

    Timers that have not fired are not waited for. A checkpoint.

    Args:
        tree: a supervisor.
        within: seconds to wait for it.

    Raises:
        AssertionError: it took longer; what is still under way is named.
    """
    with trio.move_on_after(within):
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if not _under_way(tree):
                return
            await _other_task_runs()
    assert_quiescent(tree)


class _Stir(trio.abc.Instrument):
    """Notes that a task runs."""

    def __init__(self) -> None:
        self.seen = trio.Event()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio's signature
        self.seen.set()


async def _other_task_runs() -> None:
    stir = _Stir()
    trio.lowlevel.add_instrument(stir)
    try:
        await stir.seen.wait()
    finally:
        trio.lowlevel.remove_instrument(stir)


# --- counters -----------------------------------------------------------------------------------------------


def check_counters(path: str, seen: MailboxStatistics) -> str | None:
    """Return what is wrong with the counters of a mailbox; None if they add up."""
    ended = seen.handled + seen.failed + seen.abandoned + seen.expired + seen.dropped + seen.rejected
    if seen.admitted == ended + seen.queued + seen.running and seen.running >= 0:
        return None
    sums = f"{ended} ended, {seen.queued} queued, {seen.running} running"
    return f"{path}: {seen.admitted} admitted, but {sums}: {seen}"


def assert_counters(tree: Supervisor) -> None:
    """Assert of every mailbox below a supervisor that each message it admitted is counted in exactly one place.

    Raises:
        AssertionError: it names the actors whose counters do not add up.
    """
    checked = (check_counters(actor.path, actor.mailbox) for actor in actors_of(tree.snapshot()))
    wrong = [problem for problem in checked if problem is not None]
    if wrong:
        raise AssertionError("counters do not add up:\n  " + "\n  ".join(wrong))


# --- tasks --------------------------------------------------------------------------------------------------


def living_tasks() -> list[trio.lowlevel.Task]:
    """Return every task of this run, trio's own included."""
    root = trio.lowlevel.current_root_task()
    found = [] if root is None else [root]
    for task in found:  # grows while it is walked
        found += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


@contextlib.asynccontextmanager
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Assert that the tasks started while the block runs have ended when it is left in good order.

    Tasks that end without waiting for anything else are given the time to. Leaving is a checkpoint.

    Raises:
        AssertionError: it names the tasks that are left.
    """
    before = set(living_tasks())
    await trio.lowlevel.checkpoint()
    yield
    await trio.testing.wait_all_tasks_blocked()
    left = [task.name for task in living_tasks() if task not in before]
    if left:
        raise AssertionError(f"{len(left)} tasks were left behind: {', '.join(left)}")
