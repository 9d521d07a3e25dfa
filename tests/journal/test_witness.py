from __future__ import annotations

import numpy as np
import pytest

from tinker_actors.journal.witness import after_states, kept_of
from tinker_actors.protocol.journal import Operation, Record
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput

KINDS: dict[str, OperationKind] = {
    "g": "forward_backward",
    "o": "optim_step",
    "s": "save_state",
    "l": "load_state",
    "f": "forward",
}


def records(line: str) -> dict[int, Record]:
    """Make records of letters: gradient, optimizer step, save, load, forward; others are not held."""
    return {
        at: Record(at, Operation(kind=KINDS[letter])) for at, letter in enumerate(line) if letter in KINDS
    }


@pytest.mark.parametrize(
    ("line", "position", "states", "expected"),
    [
        ("g", 0, [-1], {-1: 1}),
        ("go", 0, [-1], {-1: 1}),
        ("gogo", 2, [-1], {-1: 2}),
        ("gogog", 4, [-1], {}),  # the third step
        ("ggo", 1, [-1], {}),  # the second gradient of a step tells nothing that the first does not
        ("goggo", 3, [-1], {}),
        ("gosgo", 3, [2], {2: 1}),
        ("gosgo", 3, [-1, 2], {-1: 2, 2: 1}),  # each state by its own
        ("gosgogo", 5, [-1, 2], {2: 2}),
        ("gsgo", 2, [-1, 1], {1: 1}),  # a save in mid-step: its weights are those of the gradient
        ("gofsgfo", 4, [-1, 3], {-1: 2, 3: 1}),  # forward passes change nothing
        ("lg", 1, [-1, 0], {0: 1}),  # a state that was loaded whole
        ("lg", 1, [-1], {}),  # and one that was not: the model is another than at its creation
        ("gol.go", 4, [-1, 2], {2: 1}),
        ("lgog", 3, [0], {0: 2}),
        ("glgog", 4, [-1], {}),
        ("..g", 2, [1], {1: 1}),
        ("g", 0, [0, 5], {}),  # states behind it
    ],
)
def test_a_gradient_tells_of_the_states_it_follows(
    line: str, position: int, states: list[int], expected: dict[int, int]
) -> None:
    """If it is the first of the first step after one, or of the second."""
    assert after_states(records(line), position, states) == expected


def logprobs(*values: float) -> dict[str, TensorData]:
    return {"logprobs": TensorData(np.array(values, np.float32), "float32")}


def test_the_datum_with_the_most_targets_is_kept() -> None:
    """With the loss of the whole batch; it tells the most."""
    output = ForwardBackwardOutput(
        "x", [logprobs(1), logprobs(1, 2, 3), {}, logprobs(4, 5)], {"loss:sum": 2.5}
    )
    kept = kept_of(output)
    assert kept is not None
    assert (kept.datum, kept.loss, kept.logprobs.tolist()) == (1, 2.5, [1, 2, 3])


@pytest.mark.parametrize(
    "output",
    [
        ForwardBackwardOutput(),
        ForwardBackwardOutput("x", [{}]),
        ForwardBackwardOutput("x", [logprobs()]),
        ForwardBackwardOutput("x", [{"logprobs": TensorData([1], "int64")}]),
        ForwardBackwardOutput("x", [{"logprobs": TensorData.from_sparse(np.eye(9, dtype=np.float32))}]),
    ],
)
def test_a_result_without_log_probabilities_is_no_witness(output: ForwardBackwardOutput) -> None:
    """There is nothing to compare with."""
    assert kept_of(output) is None
