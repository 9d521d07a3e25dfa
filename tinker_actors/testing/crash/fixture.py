"""What the fixture `crash_points` gives: the explorer, as thorough as the command line asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Unpack

from tinker_actors.runs.run import Run

from .explorer import ExploreOptions, explore, explore_lives
from .life import RunOptions
from .report import CrashReport
from .stage import Program

__all__ = ["CrashPoints"]

_FEW = 20


class CrashPoints:
    """Explores loops: every point if pytest was called with `--crash-points`, else a few that are drawn.

    Attributes:
        full: whether every point is tried.
    """

    def __init__(self, *, full: bool) -> None:
        self.full = full

    def explore(
        self,
        program: Callable[[Run], Awaitable[object]],
        *,
        run: RunOptions | None = None,
        **options: Unpack[ExploreOptions],
    ) -> CrashReport:
        """Explore a loop, and fail if it does not end as it should.

        Args:
            program: the loop; it is given an open run, and is called anew in each life.
            run: arguments of `open_run`.
            options: as `tinker_actors.testing.crash.explore`; `sample`, 20 unless said otherwise, does not count with
                `--crash-points`.

        Raises:
            AssertionError: it names the first crashes after which it ended otherwise.
        """
        report = explore(program, run=run, **self._thorough(options))
        report.check()
        return report

    def explore_lives(self, program: Program, **options: Unpack[ExploreOptions]) -> CrashReport:
        """Explore a programme that opens its service by itself.

        Args:
            program: one whole life.
            options: as for `explore`.

        Raises:
            AssertionError: it names the first crashes after which it ended otherwise.
        """
        report = explore_lives(program, **self._thorough(options))
        report.check()
        return report

    def _thorough(self, options: ExploreOptions) -> ExploreOptions:
        return {**options, "sample": None if self.full else options.get("sample", _FEW)}
