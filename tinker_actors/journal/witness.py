"""Which results are kept to tell later whether a model is what it was. Pure.

The first gradient of a step says what the weights were, before the step. So kept is that of the first step after each
saved state: a model that computes it again has gone back to the state. And that of the second one: after a restore it
says whether the optimizer came back as well, for it has moved the weights once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.journal.schema import Statement
from tinker_actors.protocol.journal import STEP_ENDS, Record
from tinker_actors.protocol.step import CHANGING
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["Kept", "after_states", "kept_of"]

_NEVER: Final = -2  # before the model's creation


@attrs.frozen(eq=False)
class Kept:
    """What is kept of a result.

    Attributes:
        datum: the index of the datum in the batch.
        loss: of the whole batch, where the service said it.
        logprobs: float32, of the datum's targets.
    """

    datum: int
    loss: float | None
    logprobs: NDArray[np.float32]

    def row(self, position: int) -> Statement:
        """Return the row of a result."""
        values = position, self.datum, self.loss, self.logprobs.astype("<f4").tobytes()
        return "INSERT OR REPLACE INTO witnesses VALUES(?, ?, ?, ?)", values

    @classmethod
    def read(cls, datum: int, loss: float | None, logprobs: bytes) -> Kept:
        """Return what was written."""
        return cls(datum, loss, np.frombuffer(logprobs, "<f4").astype(np.float32, copy=False))


def kept_of(output: ForwardBackwardOutput) -> Kept | None:
    """Return what is kept of a gradient's result: the datum with the most targets. None if none has any."""
    best: tuple[int, NDArray[np.float32]] | None = None
    for index, one in enumerate(output.loss_fn_outputs):
        tensor = one.get("logprobs")
        if tensor is None or tensor.dtype != "float32" or tensor.is_sparse:
            continue
        values = np.asarray(tensor.to_numpy(), np.float32).reshape(-1)
        if values.size > (0 if best is None else best[1].size):
            best = index, values
    return None if best is None else Kept(best[0], output.metrics.get("loss:sum"), best[1])


def after_states(
    records: dict[int, Record], position: int, states: Iterable[int]
) -> dict[int, Literal[1, 2]]:
    """Return after which saved states the gradient at a position is the first of the first, or of the second, step.

    Args:
        records: what is held, in order.
        position: the gradient's.
        states: positions of saved states; -1 is the model's creation.
    """
    changes = (
        (record.position, record.operation.kind)
        for record in reversed(records.values())
        if record.position < position and record.operation.kind in CHANGING
    )
    last, kind = next(changes, (_NEVER, None))
    found: dict[int, Literal[1, 2]] = {state: 1 for state in states if last <= state < position}
    if kind == "optim_step":
        start = next((at for at, kind in changes if kind in STEP_ENDS), _NEVER)
        found |= {state: 2 for state in states if start <= state < last}
    return found
