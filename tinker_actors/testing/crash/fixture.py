"""What the fixture `crash_points` gives: the explorer, as thorough as the command line asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict, Unpack

from tinker_actors.testing.service.dialect import Dedupe
from tinker_actors.testing.service.fault import ServiceFaults

from .explorer import explore_lives
from .report import CrashReport
from .stage import Program, Schedule

__all__ = ["CrashPoints", "ExploreOptions"]


class ExploreOptions(TypedDict, total=False):
    """What else `explore_lives` takes."""

    dedupe: Dedupe
    session: Literal["kept", "lost"]
    rollback: bool
    double: bool
    only: Iterable[Schedule] | None
    seed: int
    downtime: float
    faults: ServiceFaults | None
    flags: Mapping[str, object] | None


class CrashPoints:
    """Explores programmes: every point if pytest was called with `--crash-points`, else a few that are drawn.

    Attributes:
        full: whether every point is tried.
    """

    def __init__(self, *, full: bool) -> None:
        self.full = full

    def explore_lives(
        self, program: Program, *, sample: int = 20, **options: Unpack[ExploreOptions]
    ) -> CrashReport:
        """Explore a programme, and fail if it does not end as it should.

        Args:
            program: one whole life.
            sample: how many schedules are drawn without `--crash-points`.
            options: as `tinker_actors.testing.crash.explore_lives`.

        Raises:
            AssertionError: it names the first crashes after which it ended otherwise.
        """
        report = explore_lives(program, sample=None if self.full else sample, **options)
        report.check()
        return report
