"""Runs a programme once for each point at which it can crash, and compares how it ends."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Literal, TypedDict, Unpack

from tinker_actors.runs.run import Run
from tinker_actors.testing.service.dialect import Dedupe
from tinker_actors.testing.service.fault import ServiceFaults

from .life import Ended, Life, RunOptions
from .point import CrashPoint
from .report import CrashFailure, CrashReport
from .stage import Played, Program, Schedule, Stage
from .state import EndState, difference

__all__ = ["ExploreOptions", "explore", "explore_lives"]


class ExploreOptions(TypedDict, total=False):
    """What else is said of an exploration; see `explore_lives`."""

    dedupe: Dedupe
    session: Literal["kept", "lost"]
    rollback: bool
    dies: Literal["process", "service"]
    double: bool
    distinct: bool
    sample: int | None
    only: Iterable[Schedule] | None
    seed: int
    downtime: float
    faults: ServiceFaults | None
    flags: Mapping[str, object] | None


def explore(
    program: Callable[[Run], Awaitable[object]],
    *,
    run: RunOptions | None = None,
    **options: Unpack[ExploreOptions],
) -> CrashReport:
    """Run a loop once for each point at which it can crash, and compare how it ends.

        async def loop(run: Run) -> None:
            data = Stream.restore(run.loop_state)
            async for step in run.steps(5):
                await step.train(data.next(), "cross_entropy", ADAM, after=data.state())

        explore(loop, dedupe="none", double=True, sample=100).check()

    What is compared is what is in the run's model, in order, and the loop state. On the way it is held against the
    journal that nothing is sent whose intent is not committed.

    Args:
        program: the loop; it is given an open run, and is called anew in each life.
        run: arguments of `open_run`.
        options: as `explore_lives`.

    Raises:
        Exception: what the programme raised although nothing crashed.
    """
    opening = run or RunOptions()

    async def life_of_a_run(life: Life) -> Ended:
        async with life.open_run(**opening) as opened:
            await program(opened)
        return Ended(opened.training.model_id, opened.loop_state)

    return explore_lives(life_of_a_run, **options)


def explore_lives(
    program: Program,
    *,
    dedupe: Dedupe = "replay",
    session: Literal["kept", "lost"] = "kept",
    rollback: bool = False,
    dies: Literal["process", "service"] = "process",
    double: bool = False,
    distinct: bool = False,
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
        dies: `process`, or `service`: it dies alone and comes back at once, with models that are unloaded or, with
            `rollback`, what was saved last; who was sending something to it loses the connection, and lives on.
        double: have the second life crash as well, or the service die once more: each pair of points.
        distinct: of points in a row at which a crash leaves the same behind, such as before and after an answer
            comes, try only the first. Time is not counted among what is left.
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
        dies=dies,
        dedupe=dedupe,
        session=session,
        rollback=rollback,
        downtime=downtime,
        faults=faults or ServiceFaults(),
        flags=flags or {},
        seed=seed,
    )
    return _Exploration(stage, program, distinct=distinct).run(double=double, sample=sample, only=only)


class _Exploration:
    def __init__(self, stage: Stage, program: Program, *, distinct: bool) -> None:
        self._distinct = distinct
        self._stage = stage
        self._program = program
        self._failures: dict[Schedule, CrashFailure] = {}
        self._tried: dict[Schedule, tuple[int, ...]] = {}  # to where its last life could have ended
        uninterrupted = stage.play(program)
        if uninterrupted.found:
            raise AssertionError(uninterrupted.found[0])
        if uninterrupted.end is None:
            raise uninterrupted.error or AssertionError("the programme does not end, without any crash")
        self._expected: EndState = uninterrupted.end
        self._points: tuple[CrashPoint, ...] = uninterrupted.points
        self._choices = self._choose(uninterrupted)

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
        for first in self._choices:
            yield (first,)
            for second in self._try((first,)) if double else ():
                yield (first, second)

    def _drawn(self, *, double: bool, count: int) -> Iterator[Schedule]:
        rng = random.Random(self._stage.seed)
        singles = self._choices
        if not double:
            for first in sorted(rng.sample(singles, min(count, len(singles)))):
                yield (first,)
            return
        for _ in range(count):
            first = rng.choice(singles)
            yield (first, rng.choice(self._try((first,))))

    def _choose(self, played: Played) -> tuple[int, ...]:
        return played.distinct if self._distinct else played.choices

    def _try(self, schedule: Schedule) -> tuple[int, ...]:
        """Play a schedule, if that was not done yet; return where its last life could have ended."""
        if schedule not in self._tried:
            played = self._stage.play(self._program, schedule)
            self._tried[schedule] = self._choose(played)
            what = self._judge(played)
            if what is not None:
                self._failures[schedule] = CrashFailure(
                    schedule, played.crashes, what, played.error, played.said
                )
        return self._tried[schedule]

    def _judge(self, played: Played) -> str | None:
        if played.found:
            return played.found[0]
        life = 1 if self._stage.dies == "service" else len(played.crashes) + 1
        if played.error is not None:
            return f"life {life} raised {played.error!r}"
        if played.end is None:
            return f"life {life} went on and on"
        return difference(self._expected, played.end)
