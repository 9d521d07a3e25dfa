"""What becomes of a supervised command that has ended. Pure: time and chance are arguments.

| it ended | what follows |
|---|---|
| with 0 | the same end |
| after a signal was passed on to it | the same end, whatever its code |
| with 2 (usage), 78 (configuration), 126 or 127 (it cannot be run), or a code that was named | the same end |
| otherwise, or by a signal | it is started again after a delay; too often within the window: the same end |

The delays double, and begin anew after it has run for a while; the window counts only the time in which it ran, as it
is with the kernel's supervisors.
"""

from __future__ import annotations

import signal
from collections.abc import Collection
from typing import TypeAlias

import attrs

from tinker_actors.kernel import RestartPolicy
from tinker_actors.kernel.restart import Record, Restart

__all__ = ["DO_NOT_RESTART", "FINAL", "Again", "End", "Supervision", "Verdict", "status_of"]

DO_NOT_RESTART = 78
"""A command that ends with this code is not started again: EX_CONFIG of sysexits.h."""
FINAL = frozenset({2, DO_NOT_RESTART, 126, 127})
"""Codes that another start would not change: usage, configuration, and those of shells for what cannot be run."""


@attrs.frozen
class End:
    """The supervision ends.

    Attributes:
        status: its own exit status.
        line: why, in words; empty if nobody needs to be told.
    """

    status: int
    line: str = ""


@attrs.frozen
class Again:
    """The command is started again after `delay` seconds; `line` says why."""

    delay: float
    line: str


Verdict: TypeAlias = End | Again


def status_of(code: int) -> int:
    """Return a process's code as a shell would: what a signal ended, has 128 and the signal's number."""
    return code if code >= 0 else 128 - code


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


class Supervision:
    """The ends of one command, and what they mean for the next one.

    Attributes:
        attempt: which start is the present one; 1 for the first.
        passed_on: the signal that the command was last passed on, if any.
    """

    def __init__(self, policy: RestartPolicy, final: Collection[int] = ()) -> None:
        self.attempt = 1
        self.passed_on: int | None = None
        self._record = Record(policy)
        self._final = FINAL.union(final)

    def ended(self, code: int, *, ran_for: float, chance: float) -> Verdict:
        """Decide what follows.

        Args:
            code: of the process; that of a signal is negative.
            ran_for: seconds that it ran.
            chance: a number in [0, 1) for the jitter.
        """
        how = f"attempt {self.attempt} {_how(code)} after {ran_for:.1f} s"
        if code == 0:
            return End(0)
        if self.passed_on is not None:
            return End(status_of(code), f"{how}; it was asked to end")
        if code in self._final:
            return End(code, f"{how}; another start would not change that")
        decision = self._record.ended(how, crashed=True, ran_for=ran_for, chance=chance)
        if not isinstance(decision, Restart):
            policy = self._record.policy
            much = f"{policy.max_restarts} restarts within {policy.period:g} s of running time"
            return End(status_of(code), f"{how}; given up: {much} are allowed")
        self.attempt += 1
        return Again(decision.delay, f"{how}; started again in {decision.delay:.1f} s")

    def asked_while_down(self, number: int) -> End:
        """Return the end that follows a signal that comes while nothing runs."""
        return End(128 + number, f"ended by {signal.Signals(number).name} before attempt {self.attempt}")

    def not_started(self, error: OSError) -> End:
        """Return the end that follows if the command cannot be run at all."""
        return End(
            127 if isinstance(error, FileNotFoundError) else 126,
            f"attempt {self.attempt} cannot be started: {error.strerror}",
        )
