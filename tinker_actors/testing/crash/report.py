"""What an exploration has found."""

from __future__ import annotations

import attrs

from .point import CrashPoint
from .state import EndState

__all__ = ["CrashFailure", "CrashReport"]

_SHOWN = 5


@attrs.frozen
class CrashFailure:
    """Crashes after which a programme did not end as it should.

    Attributes:
        schedule: what was played, to play just this again: `explore(..., only=[failure.schedule])`.
        crashes: where it crashed, one for each life.
        what: what came of it.
        error: what the last life raised, if it did.
        said: what its lives wrote to stderr: how each has begun.
    """

    schedule: tuple[int, ...]
    crashes: tuple[CrashPoint, ...]
    what: str
    error: BaseException | None = attrs.field(default=None, repr=False)
    said: str = attrs.field(default="", repr=False)

    def __str__(self) -> str:
        where = "; then at ".join(str(point) for point in self.crashes)
        return f"crashed at {where or 'no point'}: {self.what}"


@attrs.frozen(kw_only=True)
class CrashReport:
    """What came of an exploration.

    Attributes:
        expected: how the programme ends if nothing crashes.
        points: where it can crash in that case, in order.
        schedules: how many crashes, or pairs of crashes, were tried.
        failures: those after which it did not end as it should.
    """

    expected: EndState
    points: tuple[CrashPoint, ...] = attrs.field(repr=False)
    schedules: int
    failures: tuple[CrashFailure, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.failures

    def check(self) -> None:
        """Complain if something was found.

        Raises:
            AssertionError: it names the first failures; the first error that was raised is its cause.
        """
        if self.passed:
            return
        count = f"{len(self.failures)} of {self.schedules} schedules do not end as the uninterrupted run"
        shown = "\n".join(f"  {failure}" for failure in self.failures[:_SHOWN])
        errors = [failure.error for failure in self.failures if failure.error is not None]
        raise AssertionError(f"{count}:\n{shown}") from next(iter(errors), None)
