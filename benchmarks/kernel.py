"""Measure the kernel against bare trio channels and against other actor libraries.

    python benchmarks/kernel.py                     # everything, with pykka and TriOTP where they are installed
    python benchmarks/kernel.py --only tell,ask     # some of it
    python benchmarks/kernel.py --quick             # few messages: to see that it runs, not to read numbers

A table first; the last line is JSON, with null for what cannot be measured here. Rates are operations per CPU second.
Each ratio is a median over interleaved pairs of runs (`pairs.py`), and each run has a `trio.run` of its own.

    tell          messages to one actor until all are handled; raw: a channel of 64 places and a loop
    ask           round trips of one caller; raw: two fixed channels of one place each
    ask_100       the same of 100 callers; raw: one channel for requests, and per caller one for replies, made once
    ask_deadline  ask under a fail_after of its own; raw: the round trip under the same
    pool_ask      ask of a pool of 4 workers with a limiter of 4; raw: as for ask
    pykka         our ask; `ask` of a ThreadingActor
    triotp        our ask; `gen_server.call`
    actor_kb      memory of an idle actor, a mean of 2,000, as tracemalloc counts, in KB
    actors_10k_mb memory of 10,000 idle actors, as the resident set grows, in MB
    restart_us    CPU time from a crash until the next incarnation is ready, without backoff and log, in microseconds
    counters      our ask with handlers timed; our ask
    hooks         our ask with every message shown to an observer that does nothing; our ask

The process keeps to one CPU where the system lets it: two threads that share an interpreter lock, as pykka's do, cost
several times as much on two, and the comparison should be with others at their best.

Bars say what the kernel promises; missing one changes nothing but the last column.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import attrs
import costs
import ours
import raw
import rivals
import trio
from pairs import Pair, Side, measure

CALLERS = 100
AT_LEAST = {
    "tell": 0.90,
    "ask": 0.70,
    "ask_100": 0.70,
    "ask_deadline": 0.75,
    "pool_ask": 0.50,
    "pykka": 1.0,
    "triotp": 1.7,
}
AT_MOST = {"actor_kb": 8.0, "actors_10k_mb": 100.0, "restart_us": 150.0}


@attrs.frozen
class Effort:
    """How much is done for each number.

    Attributes:
        pairs: runs of each side.
        quick: a fiftieth of the operations in each run.
    """

    pairs: int
    quick: bool

    def operations(self, full: int) -> int:
        """Return how many operations a run has."""
        return full // 50 if self.quick else full


@attrs.frozen
class Row:
    """A line of the table; None is what cannot be measured here.

    Attributes:
        value: the ratio, or what else the name says.
        ours: our operations per CPU second.
        theirs: theirs.
    """

    value: float | None
    ours: float | None = None
    theirs: float | None = None


Benchmark: TypeAlias = Callable[[str, Effort], Row]


def in_trio(work: Callable[[int], Awaitable[float]]) -> Side:
    """Give each run a `trio.run` of its own."""
    return lambda count: trio.run(work, count)


def compare(our_side: Side, their_side: Side, operations: int) -> Benchmark:
    """Measure pairs, with so many operations in each run."""

    def run(name: str, effort: Effort) -> Row:
        found = measure(name, Pair(our_side, their_side, effort.operations(operations)), effort.pairs)
        return Row(found.ratio, found.ours, found.theirs)

    return run


def against(library: str, their_side: Side, operations: int) -> Benchmark:
    """Compare our ask to another library's, or say that it is not installed."""
    if not rivals.installed(library):
        return lambda _name, _effort: Row(None)
    return compare(ASK, their_side, operations)


def with_options(**options: Any) -> Benchmark:
    """Compare our ask in a tree with some options to our ask without."""
    return compare(in_trio(partial(ours.ask, **options)), ASK, 10_000)


ASK = in_trio(ours.ask)
ROUND_TRIP = in_trio(raw.ask)
BENCHMARKS: dict[str, Benchmark] = {
    "tell": compare(in_trio(ours.tell), in_trio(raw.tell), 20_000),
    "ask": compare(ASK, ROUND_TRIP, 10_000),
    "ask_100": compare(
        in_trio(partial(ours.ask_concurrently, callers=CALLERS)),
        in_trio(partial(raw.ask_concurrently, callers=CALLERS)),
        10_000,
    ),
    "ask_deadline": compare(in_trio(ours.ask_with_deadline), in_trio(raw.ask_with_deadline), 8_000),
    "pool_ask": compare(in_trio(ours.ask_pool), ROUND_TRIP, 8_000),
    "pykka": against("pykka", rivals.ask_pykka, 8_000),
    "triotp": against("triotp", in_trio(rivals.call_triotp), 6_000),
    "actor_kb": lambda _name, _effort: Row(costs.traced_kb(2_000)),
    "actors_10k_mb": lambda _name, _effort: Row(costs.resident_mb(10_000)),
    "restart_us": lambda _name, effort: Row(costs.restart_us(effort.operations(1_000))),
    "counters": with_options(timed=True),
    "hooks": with_options(trace_messages=True, observer=lambda _event: None),
}


def met(name: str, value: float | None) -> bool | None:
    """Whether a bar is met; None if there is no bar, or no number."""
    if value is None or name not in {**AT_LEAST, **AT_MOST}:
        return None
    return value >= AT_LEAST[name] if name in AT_LEAST else value <= AT_MOST[name]


def line(name: str, row: Row) -> str:
    """Lay out a line of the table."""
    rates = "".join(f"{'-' if rate is None else f'{rate:,.0f}':>14}" for rate in (row.ours, row.theirs))
    value = "-" if row.value is None else f"{row.value:.3f}"
    bar = (
        f">= {AT_LEAST[name]:g}" if name in AT_LEAST else f"<= {AT_MOST[name]:g}" if name in AT_MOST else "-"
    )
    verdict = {True: "yes", False: "no", None: "-"}[met(name, row.value)]
    return f"{name:<14}{rates}{value:>10}{bar:>9}  {verdict}"


def names(text: str) -> list[str]:
    """Read a list of names, in the order of the table."""
    wanted = text.split(",")
    if unknown := set(wanted) - set(BENCHMARKS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return [name for name in BENCHMARKS if name in wanted]


def keep_to_one_cpu() -> None:
    """Let the scheduler move this process, and those it starts, no more."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    """Measure, and print the table and the line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15, help="pairs of runs for each ratio (15)")
    parser.add_argument(
        "--only", type=names, default=list(BENCHMARKS), help="names, with commas between them"
    )
    parser.add_argument("--quick", action="store_true", help="few operations: to see that it runs")
    options = parser.parse_args()
    keep_to_one_cpu()
    effort = Effort(options.pairs, options.quick)
    print(f"Python {platform.python_version()}, trio {trio.__version__}; medians of {effort.pairs} pairs")
    print(f"{'':<14}{'ours op/s':>14}{'theirs op/s':>14}{'value':>10}{'bar':>9}  ok")
    found: dict[str, float | None] = {}
    for name in options.only:
        row = BENCHMARKS[name](name, effort)
        found[name] = None if row.value is None else round(row.value, 3)
        print(line(name, row), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
