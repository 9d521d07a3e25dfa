"""Whether and when a child is started again. Pure: time and chance are arguments.

The intensity window is measured in *running* time: time spent in backoff or start-up does not count, so a
slow cycle of crashes cannot outlive the window.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from tinker_actors.errors import InputError
from tinker_actors.kernel.bound import at_least, within

__all__ = [
    "Await",
    "Backoff",
    "Decision",
    "GiveUp",
    "Intensity",
    "Record",
    "Remain",
    "Restart",
    "RestartPolicy",
    "RestartType",
    "Window",
    "decide",
]

RestartType = Literal["permanent", "transient", "temporary"]
_MAX_DOUBLINGS = 20  # beyond this the cap holds anyway, and 2**n would grow without use


@attrs.frozen(kw_only=True)
class Backoff:
    """Delays between restarts: doubling from `base` to at most `maximum` seconds, less a random share.

    Attributes:
        base: seconds before the first restart.
        maximum: the longest delay, in seconds.
        jitter: the largest share that chance takes off, 0 to 1.

    Raises:
        InputError: a number out of its bounds.
    """

    base: float = attrs.field(default=0.1, validator=within(0.0))
    maximum: float = attrs.field(default=30.0, validator=within(0.0))
    jitter: float = attrs.field(default=0.25, validator=within(0.0, 1.0))

    def delay(self, streak: int, chance: float) -> float:
        """Return the seconds to wait before the restart after `streak` earlier ones.

        Args:
            streak: restarts since the child was last healthy for a while; 0 for the first.
            chance: a number in [0, 1).
        """
        whole = min(self.maximum, self.base * 2 ** min(streak, _MAX_DOUBLINGS))
        return float(whole * (1 - self.jitter * chance))


def _reset_after(policy: RestartPolicy) -> float:
    return max(10.0, (policy.backoff.base + policy.backoff.maximum) / 2)


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """When a child is started again.

    Attributes:
        restart: `permanent` always, `transient` after a crash, `temporary` never (its crash concerns nobody
            but those who wait for it).
        max_restarts: restarts allowed within `period`.
        period: seconds of running time.
        backoff: the delays.
        reset_after: seconds of health after which the backoff starts from its base again; by default the
            middle of the delays, and at least 10.
        uncounted: what is no failure of the actor's when it raises it, but a change outside that it answers by
            starting anew: it is restarted after the first delay, as often as it takes. The actor sets the bounds.

    Raises:
        InputError: a number out of its bounds.
    """

    restart: RestartType = "permanent"
    max_restarts: int = attrs.field(default=3, validator=at_least(0))
    period: float = attrs.field(default=30.0, validator=within(0.0))
    backoff: Backoff = Backoff()
    reset_after: float = attrs.field(
        default=attrs.Factory(_reset_after, takes_self=True), validator=within(0.0)
    )
    uncounted: tuple[type[Exception], ...] = ()

    def check_significant(self, *, significant: bool) -> None:
        """Refuse a significant child that never ends of its own will.

        Raises:
            InputError: a significant child that is permanent.
        """
        if significant and self.restart == "permanent":
            raise InputError("significant", significant, "a permanent child never ends by itself")


@attrs.frozen(kw_only=True)
class Intensity:
    """How many restarts a supervisor makes for all its children together before it gives up.

    Attributes:
        max_restarts: restarts allowed within `period`; that of a group counts once.
        period: seconds of running time: time in which none of the children waits for its restart.

    Raises:
        InputError: a number out of its bounds.
    """

    max_restarts: int = attrs.field(default=10, validator=at_least(0))
    period: float = attrs.field(default=60.0, validator=within(0.0))


class Window:
    """The restarts of a supervisor, on a clock that stands still while a child waits for its restart."""

    def __init__(self, intensity: Intensity, now: float) -> None:
        self._intensity = intensity
        self._stamps: tuple[float, ...] = ()
        self._running_time = 0.0
        self._since = now
        self._waiting = 0

    def admit(self, now: float) -> bool:
        """Count one more restart; False if that is too many."""
        at = self._clock(now)
        recent = tuple(stamp for stamp in self._stamps if at - stamp < self._intensity.period)
        self._stamps = (*recent, at)
        return len(recent) < self._intensity.max_restarts

    def _clock(self, now: float) -> float:
        return self._running_time + (0.0 if self._waiting else now - self._since)

    def pause(self, now: float) -> None:
        """Stop the clock: a child waits for its restart."""
        self._running_time = self._clock(now)
        self._waiting += 1

    def resume(self, now: float) -> None:
        """Let the clock go on if no other child waits."""
        self._waiting -= 1
        self._since = now

    @property
    def restarts(self) -> int:
        """Restarts that the window remembers."""
        return len(self._stamps)

    def clear(self) -> None:
        """Forget the restarts: the supervisor itself was started again."""
        self._stamps = ()


@attrs.frozen
class Restart:
    """Start it again after `delay` seconds; `streak` restarts came close together."""

    delay: float
    streak: int


@attrs.frozen
class GiveUp:
    """It crashed once too often."""


@attrs.frozen
class Remain:
    """It ended and stays ended."""


@attrs.frozen
class Await:
    """It is started again with others, when its supervisor says so."""


Decision: TypeAlias = Restart | GiveUp | Remain


def decide(
    policy: RestartPolicy,
    *,
    crashed: bool,
    failures: tuple[float, ...],
    ran_for: float,
    now: float,
    streak: int,
    chance: float,
) -> Decision:
    """Decide what happens to a child that has ended.

    Args:
        policy: the child's policy.
        crashed: it raised, rather than ending of its own will.
        failures: running-time stamps of its earlier restarts.
        ran_for: seconds its last incarnation was healthy.
        now: the child's running time so far, in seconds.
        streak: restarts counted since it was last healthy for `reset_after`.
        chance: a number in [0, 1) for the jitter.
    """
    if policy.restart == "temporary" or (policy.restart == "transient" and not crashed):
        return Remain()
    recent = [stamp for stamp in failures if now - stamp < policy.period]
    if len(recent) >= policy.max_restarts:
        return GiveUp()
    streak = 0 if ran_for >= policy.reset_after else streak
    return Restart(policy.backoff.delay(streak, chance), streak + 1)


class Record:
    """The restarts of one child, and what they mean for the next one.

    Attributes:
        policy: the child's policy.
        streak: restarts since it was last healthy for a while.
    """

    __slots__ = ("_ends", "_running_time", "policy", "streak")

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy: RestartPolicy = policy
        self.streak: int = 0
        self._ends: tuple[tuple[float, str], ...] = ()
        self._running_time = 0.0

    def clear(self) -> None:
        """Forget it all: the supervisor itself was started again."""
        self.streak = 0
        self._ends = ()

    @property
    def history(self) -> tuple[str, ...]:
        """The ends within the window, oldest first, one line each."""
        return tuple(line for _, line in self._ends)

    def ended(
        self, line: str, *, crashed: bool, ran_for: float, chance: float, counts: bool = True
    ) -> Decision:
        """Note an end and decide what follows.

        Args:
            line: what to remember of it.
            crashed: it raised, rather than ending of its own will.
            ran_for: seconds it was healthy.
            chance: a number in [0, 1) for the jitter.
            counts: it is one of those that are bounded.
        """
        self._running_time += ran_for
        if not counts and self.policy.restart != "temporary":
            return Restart(self.policy.backoff.delay(0, chance), self.streak)
        decision = decide(
            self.policy,
            crashed=crashed,
            failures=tuple(at for at, _ in self._ends),
            ran_for=ran_for,
            now=self._running_time,
            streak=self.streak,
            chance=chance,
        )
        recent = (end for end in self._ends if self._running_time - end[0] < self.policy.period)
        self._ends = (*recent, (self._running_time, line))
        if isinstance(decision, Restart):
            self.streak = decision.streak
        return decision
