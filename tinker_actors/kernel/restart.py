"""Whether and when a child is started again. Pure: time and chance are arguments.

The intensity window is measured in *running* time: time spent in backoff or start-up does not count, so a
slow cycle of crashes cannot outlive the window.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from tinker_actors.kernel.bound import at_least, within

__all__ = ["Backoff", "Decision", "GiveUp", "Remain", "Restart", "RestartPolicy", "RestartType", "decide"]

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


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """When a child is started again.

    Attributes:
        restart: `permanent` always, `transient` after a crash, `temporary` never (its crash concerns nobody
            but those who wait for it).
        max_restarts: restarts allowed within `period`.
        period: seconds of running time.
        reset_after: seconds of health after which the backoff starts from its base again.
        backoff: the delays.

    Raises:
        InputError: a number out of its bounds.
    """

    restart: RestartType = "permanent"
    max_restarts: int = attrs.field(default=3, validator=at_least(0))
    period: float = attrs.field(default=30.0, validator=within(0.0))
    reset_after: float = attrs.field(default=10.0, validator=within(0.0))
    backoff: Backoff = Backoff()


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
