"""What an actor costs: memory while it is idle, CPU time when it crashes and starts again.

    python benchmarks/costs.py traced 2000       # KB per actor, as tracemalloc counts
    python benchmarks/costs.py resident 10000    # MB of all of them, as the operating system counts

Memory is measured in a process of its own, so that nothing that ran before has left room to fill.
"""

from __future__ import annotations

import gc
import logging
import resource
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import process_time

import attrs
import ours
import trio
import trio.testing

from tinker_actors.kernel import (
    Actor,
    ActorReady,
    Backoff,
    ChildSpec,
    Intensity,
    Message,
    RestartPolicy,
    handles,
)

__all__ = ["resident_mb", "restart_us", "traced_kb"]

_OFTEN = 10**9
_AT_ONCE = 1e-6  # seconds
_PAGE = resource.getpagesize()
_STATM = Path("/proc/self/statm")


def traced_kb(actors: int) -> float:
    """Return the KB that Python allocates for an idle, started actor; a mean over so many."""
    return _measured("traced", actors) / actors / 1024


def resident_mb(actors: int) -> float:
    """Return the MB by which the resident set grows while so many idle actors are started."""
    return _measured("resident", actors) / 1024**2


def _measured(how: str, actors: int) -> float:
    command = [sys.executable, __file__, how, str(actors)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(run.stdout)


def _resident() -> int:
    """Return the bytes that are resident now; where no system file tells, the most that ever were."""
    if _STATM.exists():
        return int(_STATM.read_text("ascii").split()[1]) * _PAGE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _traced() -> int:
    return tracemalloc.get_traced_memory()[0]


async def _grown(actors: int, used: Callable[[], int]) -> int:
    """Start actors, let them come to rest, and return by how much the memory in use has grown."""
    async with ours.open_tree() as tree:
        crowd = tree.start_supervisor("crowd", "dynamic")
        await crowd.start_child(ChildSpec(name="first", factory=ours.EchoActor))  # what all of them share
        gc.collect()
        before = used()
        refs = [
            await crowd.start_child(ChildSpec(name=f"actor-{at}", factory=ours.EchoActor))
            for at in range(actors)
        ]
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        grown = used() - before
        del refs
        return grown


class Fragile:
    """Role of the actor that crashes."""


@attrs.frozen
class Crash(Message[Fragile, None]):
    """Crashes its actor."""


@attrs.define(eq=False)
class FragileActor(Actor[Fragile]):
    """Crashes when it is told to, and notes when."""

    crashed: Callable[[], None]

    @handles(Crash)
    async def crash(self, _: Crash) -> None:
        """Note the time and raise."""
        self.crashed()
        raise ArithmeticError("on purpose")


@attrs.define
class _Stopwatch:
    """Takes the CPU seconds from each crash to the next start."""

    begin: float = 0.0
    laps: list[float] = attrs.field(factory=list)
    ready: trio.Event = attrs.field(factory=trio.Event)

    def crashed(self) -> None:
        self.begin = process_time()

    def observe(self, event: object) -> None:
        if isinstance(event, ActorReady):
            self.laps.append(process_time() - self.begin)
            self.ready.set()


async def _restart(count: int) -> list[float]:
    """Crash an actor so many times; windows so short that they are always empty, as in an actor that crashes rarely."""
    watch = _Stopwatch()
    intensity = Intensity(max_restarts=_OFTEN, period=_AT_ONCE)
    policy = RestartPolicy(max_restarts=_OFTEN, period=_AT_ONCE, backoff=Backoff(base=0.0))
    async with ours.open_tree(observer=watch.observe, intensity=intensity) as tree:
        ref = await tree.start_child(
            ChildSpec(name="fragile", factory=lambda: FragileActor(watch.crashed), policy=policy)
        )
        for _ in range(count):
            watch.ready = trio.Event()
            await ref.tell(Crash())
            await watch.ready.wait()
    return watch.laps[1:]  # the first start follows no crash


def restart_us(count: int) -> float:
    """Return the CPU microseconds from a crash until the next incarnation is ready, without backoff; the median.

    Crashes are not logged: writing them down would cost more than all the rest.
    """
    log = logging.getLogger("tinker_actors")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    gc.collect()
    gc.disable()
    try:
        return statistics.median(trio.run(_restart, count)) * 1e6
    finally:
        gc.enable()
        log.setLevel(before)


def main() -> None:
    """Print the bytes by which memory grows."""
    how, actors = sys.argv[1], int(sys.argv[2])
    if how == "traced":
        tracemalloc.start()
    print(trio.run(_grown, actors, _traced if how == "traced" else _resident))


if __name__ == "__main__":
    main()
