"""Which checkpoints of a run are kept. Pure.

Each rule keeps some; what none of them keeps is outdated. A restore has to find one, and another if that one turns
out to be gone: so the two newest that were verified are kept whatever the rules say, and so is everything that is
newer than the older of them, for it may be about to take its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, cast

import attrs

from tinker_actors.errors import InputError
from tinker_actors.protocol.batch import check_flag
from tinker_actors.protocol.saving import check_ttl

__all__ = ["SAFE", "CheckpointState", "Kept", "Retention", "RunCheckpoint", "sort_out"]

CheckpointState = Literal["begun", "done", "verified", "gone"]
"""What is known of a checkpoint: it was put in line, saved, seen on the service, or is not there any more."""

SAFE: Final = 2
"""So many stay whatever the rules say: the newest, and the one to fall back on."""

_A_WEEK: Final = 7 * 24 * 3600


@attrs.frozen(kw_only=True)
class Retention:
    """Which checkpoints of a run are kept, and what becomes of the others.

    Those that are pinned are kept as well, and so are the two newest, without a time to live.

    Attributes:
        last: so many of the newest, at least two.
        every: those whose step is a multiple of it; None is no such rule.
        best: so many of those with the best metric.
        best_is: whether the highest metric is the best, or the lowest.
        ttl_seconds: the time to live that the others are given as soon as they are outdated, where the service has
            such; None gives them none, and they stay until `Run.gc`.
        delete: delete the others as soon as they are outdated.

    Raises:
        InputError: a number out of its range.
    """

    last: int = SAFE
    every: int | None = None
    best: int = 0
    best_is: Literal["highest", "lowest"] = "highest"
    ttl_seconds: int | None = _A_WEEK
    delete: bool = False

    def __attrs_post_init__(self) -> None:
        _check_count("last", self.last, SAFE)
        if self.every is not None:
            _check_count("every", self.every, 1)
        _check_count("best", self.best, 0)
        if self.best_is not in ("highest", "lowest"):
            raise InputError("retention.best_is", self.best_is, "must be 'highest' or 'lowest'")
        try:
            check_ttl(self.ttl_seconds)
        except InputError as error:
            raise InputError("retention.ttl_seconds", self.ttl_seconds, error.why) from error
        check_flag("retention.delete", self.delete)


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"retention.{name}", value, f"must be a whole number from {least}")


@attrs.frozen(kw_only=True)
class RunCheckpoint:
    """A checkpoint of a run: weights and optimizer after a step.

    Attributes:
        name: such as `addition-000120`.
        path: where it is; None as long as it is not saved.
        step: how many steps it holds.
        state: what is known of it.
        tokens: how many had been trained.
        metric: how good it is, in the user's own measure.
        pinned: it is kept whatever the rules say.
        time: when it was put in line, in seconds since 1970.
        ttl_seconds: the time to live that it was given; None is for ever.
    """

    name: str
    path: str | None
    step: int
    state: CheckpointState
    tokens: int = 0
    metric: float | None = None
    pinned: bool = False
    time: float = 0.0
    ttl_seconds: int | None = None


@attrs.frozen
class Kept:
    """What becomes of each checkpoint.

    Attributes:
        kept: why it is kept, by name.
        outdated: those that no rule keeps, the oldest first.
    """

    kept: dict[str, str]
    outdated: tuple[RunCheckpoint, ...]


def sort_out(retention: Retention, checkpoints: Sequence[RunCheckpoint]) -> Kept:
    """Say which checkpoints are kept and which are outdated. Those that are gone are neither.

    Args:
        retention: the rules.
        checkpoints: all of a run, in the order in which they were put in line.
    """
    there = [one for one in checkpoints if one.state != "gone"]
    verified = [one for one in there if one.state == "verified"]
    kept: dict[str, str] = {}
    if len(verified) < SAFE:
        kept |= {one.name: "two that are verified must be there" for one in there}
    else:
        kept |= {one.name: "newest" for one in there[there.index(verified[-SAFE]) :]}
    rules: list[tuple[str, list[RunCheckpoint]]] = [
        ("pinned", [one for one in there if one.pinned]),
        (f"last {retention.last}", verified[-retention.last :]),
        (f"best {retention.best}", _best(retention, verified)),
        (f"every {retention.every}", _every(retention, there)),
    ]
    for why, ones in rules:
        for one in ones:
            kept.setdefault(one.name, why)
    return Kept(kept, tuple(one for one in there if one.name not in kept))


def _best(retention: Retention, verified: list[RunCheckpoint]) -> list[RunCheckpoint]:
    """Return those with the best metric; of equal ones the newer."""
    sign = 1.0 if retention.best_is == "highest" else -1.0
    rated = [one for one in verified if one.metric is not None]
    rated.sort(key=lambda one: sign * cast("float", one.metric))
    return rated[len(rated) - retention.best :] if retention.best < len(rated) else rated


def _every(retention: Retention, there: list[RunCheckpoint]) -> list[RunCheckpoint]:
    return [] if retention.every is None else [one for one in there if one.step % retention.every == 0]
