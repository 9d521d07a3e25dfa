"""A tree of actors: opening one, and leaving it.

What leaves `open_supervisor` is the body's own exception if it raised, else the failure that was escalated;
never an exception group around either. An interrupt (KeyboardInterrupt, SystemExit) that was raised in an
actor comes before both.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncGenerator, Iterator

import trio

from tinker_actors.kernel.handling import collapse, without_cancelled
from tinker_actors.kernel.instrument import Observer, Sight
from tinker_actors.kernel.patrol import Patrol
from tinker_actors.kernel.reader import Reader
from tinker_actors.kernel.restart import Intensity
from tinker_actors.kernel.supervisor import AutoShutdown, Strategy, Supervisor

__all__ = ["open_supervisor"]


class _Root:
    """What all supervisors of one tree share."""

    nursery: trio.Nursery
    supervisor: Supervisor

    def __init__(self, rng: random.Random, sight: Sight) -> None:
        self.chance = rng.random
        self.sight = sight
        self.body = trio.CancelScope()
        self.patrol = trio.CancelScope(shield=True)
        self.failure: Exception | None = None
        self.is_stopping = False  # the body was cancelled, or has raised

    def fail(self, error: Exception) -> None:
        """The root supervisor has failed: cancel the body."""
        if self.failure is None:
            self.failure = error
        self.body.cancel(reason=f"a supervised actor was given up: {error}")

    def shut_down(self) -> None:
        """The root supervisor has ended of its own will: cancel the body."""
        self.body.cancel(reason="the significant actors have ended")

    def cancel(self, reason: str) -> None:
        """Cancel the body; the second time, kill the actors."""
        if self.is_stopping:
            self.supervisor.ask_to_stop("kill")
        self.is_stopping = True
        self.body.cancel(reason=reason)

    def busy_readers(self) -> Iterator[tuple[str, Reader]]:
        """Give the readers that have a message, with the path of their actor."""
        return _busy(self.supervisor)

    async def watch(self, seconds: float) -> None:
        """Name handlers that run for long, until the tree has ended."""
        with self.patrol:
            await Patrol(seconds, self.busy_readers).run()


def _busy(supervisor: Supervisor) -> Iterator[tuple[str, Reader]]:
    for child in supervisor.everybody():
        if isinstance(child, Supervisor):
            yield from _busy(child)
        elif child.current is not None:
            yield from ((child.path, reader) for reader in child.current.busy())


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_supervisor(  # noqa: ASYNC911 - entering waits for nothing; leaving has waited for the stop
    name: str,
    *,
    rng: random.Random,
    strategy: Strategy = "one_for_one",
    intensity: Intensity = Intensity(),
    auto_shutdown: AutoShutdown = "never",
    observer: Observer | None = None,
    trace_messages: bool = False,
    timed: bool = False,
    slow_after: float = 30.0,
    grace: float = 30.0,
) -> AsyncGenerator[Supervisor]:
    """Open a tree of actors; leaving it means that everything in it has ended.

    If the body returns, what was admitted is worked off (`drain`); if it raises or is cancelled, or an actor
    is given up, nothing new is begun (`now`). A cancellation that comes during the drain ends the drain the
    same way, a further one, by Ctrl-C or `Supervisor.cancel`, kills. Either way everything has ended within
    `grace` seconds, plus the clean-up hooks; but a task that swallows its cancellation is waited for.

    Args:
        name: first part of every actor's path.
        rng: chance for backoff jitter.
        strategy: of the root supervisor, see `Supervisor`.
        intensity: how many restarts of its children the root supervisor makes before it gives up.
        auto_shutdown: the tree ends, and the body is cancelled, when `any` or `all` significant children of
            the root supervisor have ended by themselves.
        observer: told of starts, crashes, ends and dead letters.
        trace_messages: it is told of every single message as well.
        timed: messages are timed; `statistics` and `snapshot` show it.
        slow_after: seconds after which a handler that still runs is named in the log; `inf` for never.
        grace: seconds for the whole stop.

    Raises:
        RestartIntensityExceeded: a child was given up and its failure escalated; the body was cancelled.
    """
    body: BaseException | None = None
    broken: BaseException | None = None
    root = _Root(rng, Sight(observer, trace_messages=trace_messages, timed=timed))
    supervisor = Supervisor(name, strategy, root, None, intensity=intensity, auto_shutdown=auto_shutdown)
    root.supervisor = supervisor
    deadline = math.inf
    try:
        async with trio.open_nursery() as root.nursery:
            if slow_after < math.inf:
                root.nursery.start_soon(root.watch, slow_after)
            try:
                with root.body:
                    yield supervisor
                    deadline = trio.current_time() + grace
                    await supervisor.stop("drain", grace)
            except BaseException as error:  # noqa: ASYNC103, BLE001 - raised below, outside the nursery's group
                body = error
            root.is_stopping = True
            try:
                await _stop_now(supervisor, min(grace, max(0.0, deadline - trio.current_time())))
            finally:
                root.patrol.cancel(reason="the tree has ended")
    except BaseException as error:  # noqa: ASYNC103, BLE001 - as above
        broken = collapse(error)
    supervisor.run_callbacks()
    leaving = _what_leaves(body, broken, root.failure)
    try:
        if leaving is not None:
            raise leaving
    finally:
        del body, broken, leaving  # or this frame and the traceback would keep each other alive


async def _stop_now(supervisor: Supervisor, timeout: float) -> None:  # noqa: ASYNC109 - as for `stop`
    try:
        with trio.CancelScope(shield=True):
            await supervisor.stop("now", timeout)
    except BaseException:  # Ctrl-C once more
        supervisor.ask_to_stop("kill")
        raise


def _what_leaves(
    body: BaseException | None, broken: BaseException | None, failure: Exception | None
) -> BaseException | None:
    """Choose the exception of a tree that has ended; the others that there are become notes on it.

    Args:
        body: what the body raised.
        broken: what an actor's task raised: an interrupt, or the sign of a defect in the kernel.
        failure: what was escalated.
    """
    if broken is not None:
        body = without_cancelled(body)  # a task that raises also cancels the body
    interrupted = broken is not None and not isinstance(broken, Exception)
    errors = [error for error in (body, broken, failure) if error is not None]
    if broken is not None and interrupted:
        errors.remove(broken)
        errors.insert(0, broken)
    for other in errors[1:]:
        errors[0].add_note(f"also, in the same tree of actors: {other!r}")
    return errors[0] if errors else None
