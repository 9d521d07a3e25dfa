"""Whether a model is what it was: its results compared with those that were kept. Pure.

A *witness* is what the first gradient of a step computed, in the first and in the second step after a saved state. It
tells two things apart that no status code does:

- a model that was *rolled back* under its id, because its service was restarted, computes again what it computed right
  after the saved state, although it has taken steps since;
- a model that was *restored* and computes something else in the first step has other weights than those that were
  saved; in the second step, another optimizer: one that begins afresh takes the first step differently.

Two results are compared by the mean distance of their log probabilities. How far they may be apart is a judgement:

    SAME            the same weights: what a service that computes in float32 or better, and batches as it likes, may
                    differ by from run to run; a step with a learning rate worth the name moves them by more
    OTHER_WEIGHTS   other weights, in the first step: far above any noise, for who is wrong here gives a good model up
    OTHER           another optimizer, in the second step: an Adam that begins afresh moves every weight by the whole
                    learning rate, one with its moments by a part of it

What the first step differs by is allowed in the second several times. A service with more noise than that is told
apart by its user (`Config.noise`): *same* is then up to twice the noise, for both results have it, and anything else
begins at five times of it. A step that moves log probabilities by less than *same* cannot be told from none: after an
interruption its model is made again, which costs time and no step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.protocol.journal import ModelFacts, Record, Witness
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = [
    "OTHER",
    "OTHER_WEIGHTS",
    "SAME",
    "Fate",
    "Trial",
    "alone_from",
    "distance",
    "fate_of_optimizer",
    "follows",
    "has_steps",
    "is_lost",
    "is_same",
    "logprobs_of",
    "of_rollback",
    "witness_of",
]

SAME: Final = 1e-4
OTHER: Final = 1e-3
OTHER_WEIGHTS: Final = 5e-3
_SEVERAL: Final = 5.0  # times what was seen in the first step may be seen in the second; times the noise
_BOTH: Final = 2.0

Fate: TypeAlias = Literal["kept", "lost", "cannot tell"]


@attrs.frozen(kw_only=True)
class Trial:
    """A step taken by a restored model, and by one that was given the same weights without the optimizer.

    Attributes:
        start: how far the two were apart before the step.
        moved: how far the step has moved the one without.
        apart: how far they were apart after it.
        coasts: the whole state, loaded once more, is moved by a step without a gradient: its momentum is there.
    """

    start: float
    moved: float
    apart: float
    coasts: bool = False


def alone_from(loaded: int | None, before: ModelFacts | None, records: Sequence[Record]) -> int | None:
    """Return the position from which on only models loaded from a saved state have computed anything.

    What they compute says nothing of whether they got all that was saved: they may all have lost the same.

    Args:
        loaded: the position of the saved state that a new model is loaded from; None if it is made afresh.
        before: the model before it, if there was one.
        records: what is replayed into the new one, in order.
    """
    if loaded is None:
        return None
    if before is not None and before.loaded == loaded and before.alone_from is not None:
        return before.alone_from
    following = records[-1].position + 1 if records else loaded + 1
    gradients = (one for one in records if one.operation.kind == "forward_backward")
    return next((one.position for one in gradients if not one.done), following)


def distance(witness: Witness, output: ForwardBackwardOutput, datum: int) -> float:
    """Return how far a result is from a witness: the mean distance of log probabilities.

    Args:
        witness: what was computed before.
        output: what is computed now.
        datum: which of its datums is the witness's.
    """
    now = logprobs_of(output, datum)
    if now is None or now.shape != witness.logprobs.shape:
        return float("inf")
    if np.array_equal(now, witness.logprobs, equal_nan=True):
        return 0.0
    apart = np.abs(now.astype(np.float64) - witness.logprobs)
    return float("inf") if np.isnan(apart).any() else float(np.mean(apart))


def logprobs_of(output: ForwardBackwardOutput, datum: int) -> NDArray[np.float32] | None:
    """Return the log probabilities of one datum's targets, in one row; None if there are none."""
    outputs: Sequence[Any] = output.loss_fn_outputs
    tensor = outputs[datum].get("logprobs") if datum < len(outputs) else None
    return None if tensor is None else np.asarray(tensor.to_numpy(), np.float32).reshape(-1)


def is_same(apart: float, *, noise: float = 0.0) -> bool:
    """Whether two results that are so far apart are those of the same weights.

    Args:
        apart: how far.
        noise: how far two runs on the service are apart that should be the same.
    """
    return apart <= max(SAME, _BOTH * noise)


def is_lost(witness: Witness, apart: float, *, first: float = 0.0, noise: float = 0.0) -> bool:
    """Whether a restored model has not got all that was saved: weights by the first witness, optimizer by the second.

    Args:
        witness: what was computed before.
        apart: how far from it the restored model is.
        first: how far it was in the first step.
        noise: as for `is_same`.
    """
    least = OTHER_WEIGHTS if witness.which == 1 else max(OTHER, _SEVERAL * first)
    return not apart <= max(least, _SEVERAL * noise)


def follows(witness: Witness, position: int | None) -> bool:
    """Whether a witness was computed with the very weights of the saved state at a position."""
    return witness.which == 1 and witness.checkpoint is not None and witness.checkpoint.position == position


def fate_of_optimizer(trial: Trial, *, noise: float = 0.0) -> Fate:
    """Return whether a restored model has the optimizer that was saved, by what a step did to it.

    Args:
        trial: the step.
        noise: as for `is_same`.
    """
    clearly = max(OTHER, _SEVERAL * noise)
    if not is_same(trial.start, noise=noise) or trial.coasts:
        return "cannot tell"
    if is_same(trial.apart, noise=noise):
        return "lost" if trial.moved > clearly else "cannot tell"
    return "kept" if trial.apart > clearly else "cannot tell"


def witness_of(output: ForwardBackwardOutput) -> Witness | None:
    """Return what a result is compared by: the datum with the most targets; None if none has any."""
    found = [logprobs_of(output, datum) for datum in range(len(output.loss_fn_outputs))]
    sizes = [0 if one is None else one.size for one in found]
    datum = sizes.index(max(sizes)) if sizes else 0
    logprobs = found[datum] if any(sizes) else None
    if logprobs is None:
        return None
    return Witness(position=-1, checkpoint=None, which=2, datum=datum, loss=None, logprobs=logprobs)


def has_steps(witnesses: Iterable[Witness], records: Sequence[Record]) -> bool:
    """Whether a step was sent that a rollback would lose; that of the newest gradient may still stand before its end.

    Args:
        witnesses: all that are kept.
        records: what would be replayed.
    """
    newest = max((one.position for one in records if one.operation.kind == "forward_backward"), default=-1)
    ended = any(one.operation.kind == "optim_step" and one.position < newest for one in records)
    return ended or bool(of_rollback(witnesses, records))


def of_rollback(witnesses: Iterable[Witness], records: Sequence[Record]) -> list[Witness]:
    """Return those that tell of a rollback, the newest first: since their saved state a step was taken.

    Args:
        witnesses: all that are kept.
        records: what would be replayed.
    """
    last = max((one.position for one in records if one.operation.kind == "optim_step"), default=-1)
    first = min((one.position for one in records), default=-1)
    found = [one for one in witnesses if one.which == 1 and (one.position < last or one.position < first)]
    return sorted(found, key=lambda one: -one.position)
