"""Runs a programme once for each point at which it can crash, and compares how it ends."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from tinker_actors.testing.service.dialect import Dedupe
from tinker_actors.testing.service.fault import ServiceFaults

from .point import CrashPoint
from .report import CrashFailure, CrashReport
from .stage import Played, Program, Schedule, Stage
from .state import EndState, difference

__all__ = ["explore_lives"]


def explore_lives(
    program: Program,
    *,
    dedupe: Dedupe = "replay",
    session: Literal["kept", "lost"] = "kept",
    rollback: bool = False,
    double: bool = False,
    sample: int | None = None,
    only: Iterable[Schedule] | None = None,
    seed: int = 0,
    downtime: float = 1.0,
    faults: ServiceFaults | None = None,
    flags: Mapping[str, object] | None = None,
) -> CrashReport:
    """Run a programme once for each point at which it can crash, and compare how it ends.

    It is run without a crash first; that run says where it can crash and how it should end.

    Args:
        program: one whole life; see `Program`.
        dedupe: what the service does with a repeated number.
        session: whether the session is still there when the next life begins.
        rollback: the service dies with each life, and comes back with models that are what was saved last, under the
            same ids and without a word.
        double: have the second life crash as well: each pair of points.
        sample: so many schedules are drawn; None tries them all.
        only: just these schedules.
        seed: of all chance; the same seed finds the same.
        downtime: seconds between two lives.
        faults: what goes wrong beside the crashes.
        flags: more of what the service tells its clients.

    Raises:
        Exception: what the programme raised although nothing crashed.
    """
    stage = Stage(
        dedupe=dedupe,
        session=session,
        rollback=rollback,
        downtime=downtime,
        faults=faults or ServiceFaults(),
        flags=flags or {},
        seed=seed,
    )
    return _Exploration(stage, program).run(double=double, sample=sample, only=only)


class _Exploration:
    def __init__(self, stage: Stage, program: Program) -> None:
        self._stage = stage
        self._program = program
        self._failures: dict[Schedule, CrashFailure] = {}
        self._tried: dict[Schedule, int] = {}  # to the number of points of its last life
        uninterrupted = stage.play(program)
        if uninterrupted.end is None:
            raise uninterrupted.error or AssertionError("the programme does not end, without any crash")
        self._expected: EndState = uninterrupted.end
        self._points: tuple[CrashPoint, ...] = uninterrupted.lives[0]

    def run(self, *, double: bool, sample: int | None, only: Iterable[Schedule] | None) -> CrashReport:
        if only is not None:
            schedules: Iterable[Schedule] = only
        elif sample is not None:
            schedules = self._drawn(double=double, count=sample)
        else:
            schedules = self._all(double=double)
        for schedule in schedules:
            self._try(schedule)
        return CrashReport(
            expected=self._expected,
            points=self._points,
            schedules=len(self._tried),
            failures=tuple(self._failures.values()),
        )

    def _all(self, *, double: bool) -> Iterator[Schedule]:
        for first in range(1, len(self._points) + 1):
            yield (first,)
            for second in range(1, self._try((first,)) + 1) if double else ():
                yield (first, second)

    def _drawn(self, *, double: bool, count: int) -> Iterator[Schedule]:
        rng = random.Random(self._stage.seed)
        singles = list(range(1, len(self._points) + 1))
        if not double:
            for first in sorted(rng.sample(singles, min(count, len(singles)))):
                yield (first,)
            return
        for _ in range(count):
            first = rng.choice(singles)
            yield (first, rng.randint(1, self._try((first,))))

    def _try(self, schedule: Schedule) -> int:
        """Play a schedule, if that was not done yet; return how many points its last life has."""
        if schedule not in self._tried:
            played = self._stage.play(self._program, schedule)
            self._tried[schedule] = len(played.lives[-1])
            what = self._judge(played)
            if what is not None:
                self._failures[schedule] = CrashFailure(played.crashes, what, played.error)
        return self._tried[schedule]

    def _judge(self, played: Played) -> str | None:
        if played.error is not None:
            return f"life {len(played.lives)} raised {played.error!r}"
        if played.end is None:
            return f"life {len(played.lives)} went on and on"
        return difference(self._expected, played.end)
