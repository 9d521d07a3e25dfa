"""Results that tell whether a model is what it was."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest

from tinker_actors.protocol.journal import Checkpoint, ModelFacts, Operation, Record, Witness
from tinker_actors.protocol.witness import (
    OTHER,
    SAME,
    Trial,
    alone_from,
    distance,
    fate_of_optimizer,
    follows,
    has_steps,
    is_lost,
    is_same,
    of_rollback,
    witness_of,
)
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput

SAVED = Checkpoint("tinker://m/weights/a", 3)


def witness(*logprobs: float, position: int = 4, which: Any = 1) -> Witness:
    values = np.array(logprobs, np.float32)
    return Witness(position=position, checkpoint=SAVED, which=which, datum=0, loss=1.0, logprobs=values)


def output(*datums: list[float]) -> ForwardBackwardOutput:
    outputs: list[Any] = [
        {"logprobs": TensorData(data=np.array(one, np.float32), dtype="float32", shape=[len(one)])}
        for one in datums
    ]
    return ForwardBackwardOutput("ArrayRecord", outputs, {})


def test_the_distance_is_the_mean_of_log_probabilities() -> None:
    """Of the datum that is the witness's; whatever cannot be compared is as far as can be."""
    assert distance(witness(-1.0, -2.0), output([-1.0, -2.0]), 0) == 0.0
    assert distance(witness(-1.0, -2.0), output([9.0], [-1.5, -2.0]), 1) == pytest.approx(0.25)
    assert distance(witness(-1.0), output([-1.0, -2.0]), 0) == float("inf")
    assert distance(witness(-1.0), output([-1.0]), 1) == float("inf")
    assert distance(witness(-1.0), ForwardBackwardOutput("ArrayRecord", [{}], {}), 0) == float("inf")
    assert distance(witness(float("nan")), output([float("nan")]), 0) == 0.0
    assert distance(witness(float("nan")), output([1.0]), 0) == float("inf")


def test_the_same_weights_give_nearly_the_same() -> None:
    """And what cannot be compared is not the same."""
    assert is_same(0.0)
    assert is_same(SAME)
    assert not is_same(2 * SAME)
    assert not is_same(float("inf"))
    assert is_same(0.02, noise=0.01)
    assert not is_same(0.03, noise=0.01)
    assert is_same(SAME, noise=1e-9)


def test_lost_weights_show_in_the_first_step_and_a_lost_optimizer_in_the_second() -> None:
    """What the first step differs by is allowed in the second, several times."""
    first, second = witness(0.0), witness(0.0, which=2)
    assert not is_lost(first, 0.004)
    assert is_lost(first, 0.006)
    assert is_lost(first, float("nan"))
    assert is_lost(second, 2 * OTHER)
    assert not is_lost(second, 2 * OTHER, first=OTHER)
    assert is_lost(second, 6 * OTHER, first=OTHER)
    for one in (first, second):
        assert not is_lost(one, 0.05, noise=0.01)
        assert is_lost(one, 0.06, noise=0.01)


def record(position: int, kind: Any) -> Record:
    return Record(position, Operation(kind=kind))


def test_only_states_with_a_step_behind_them_tell_of_a_rollback() -> None:
    """A model that has taken none since computes what it did right after the state, and rightly so."""
    after = [record(4, "forward_backward"), record(5, "optim_step"), record(6, "forward_backward")]
    newest, second, older = witness(position=4), witness(position=6, which=2), witness(position=1)
    assert of_rollback([older, newest, second], after) == [newest, older]
    assert of_rollback([older, newest], [record(4, "forward_backward")]) == [older]
    assert of_rollback([older, newest], []) == []
    assert of_rollback([], after) == []


def test_the_first_result_after_a_saved_state_has_its_weights() -> None:
    """Not that of the second step, nor one that follows another state, or the model's creation."""
    assert follows(witness(-1.0), SAVED.position)
    assert not follows(witness(-1.0, which=2), SAVED.position)
    assert not follows(witness(-1.0), SAVED.position + 1)
    assert not follows(attrs.evolve(witness(-1.0), checkpoint=None), SAVED.position)


def test_a_step_that_was_sent_could_be_lost() -> None:
    """Also as long as there is no witness of it; the one under way is none."""
    first = [record(4, "forward_backward"), record(5, "optim_step")]
    assert not has_steps([], [])
    assert not has_steps([], first)
    assert has_steps([], [*first, record(6, "forward_backward")])
    assert has_steps([witness(position=1)], first)


def gradient(position: int, *, done: bool) -> Record:
    return Record(position, Operation(kind="forward_backward"), done=done)


def test_what_was_done_before_a_restore_was_computed_by_another_model() -> None:
    """What has no result yet is the new one's, and so is all that follows."""
    assert alone_from(None, None, [gradient(4, done=True)]) is None
    assert alone_from(3, None, []) == 4
    assert alone_from(3, None, [gradient(4, done=True), gradient(6, done=True)]) == 7
    assert alone_from(3, None, [gradient(4, done=True), gradient(6, done=False)]) == 6


def test_a_second_restore_from_a_state_adds_nothing_to_the_first() -> None:
    """One from another state begins anew."""
    first = ModelFacts(
        model_id="m", session_id="s", model_seq=0, next_number=1, sampler_seq=0, loaded=3, alone_from=7
    )
    records = [gradient(position, done=True) for position in (4, 7, 9)]
    assert alone_from(3, first, records) == 7
    assert alone_from(2, first, records) == 10
    assert alone_from(2, attrs.evolve(first, loaded=None, alone_from=None), records) == 10
    assert alone_from(3, attrs.evolve(first, alone_from=None), records) == 10


@pytest.mark.parametrize(
    ("start", "moved", "apart", "coasts", "fate"),
    [
        (0.0, 0.1, 0.0, False, "lost"),
        (SAME, 2 * OTHER, SAME, False, "lost"),
        (0.0, 0.1, 0.0, True, "cannot tell"),  # the gradient hardly changed
        (0.0, OTHER, 0.0, False, "cannot tell"),  # a step too small to say anything
        (0.0, 0.1, 2 * OTHER, False, "kept"),
        (0.0, 0.0, 2 * OTHER, False, "kept"),
        (0.0, 0.1, OTHER, False, "cannot tell"),  # between the same and something else
        (2 * SAME, 0.1, 0.1, False, "cannot tell"),  # they had not the same weights
        (float("inf"), 0.1, 0.0, False, "cannot tell"),
    ],
)
def test_an_optimizer_is_lost_if_a_step_without_it_does_the_same(
    start: float, moved: float, apart: float, coasts: bool, fate: str
) -> None:
    """It is there if the step does something else, and nothing is said of what lies between."""
    trial = Trial(start=start, moved=moved, apart=apart, coasts=coasts)
    assert fate_of_optimizer(trial) == fate


def test_noise_is_allowed_for_in_what_an_optimizer_does() -> None:
    """What two runs of the same differ by is neither a movement nor a difference."""
    assert fate_of_optimizer(Trial(start=0.0, moved=0.1, apart=0.02), noise=0.01) == "lost"
    assert fate_of_optimizer(Trial(start=0.0, moved=0.05, apart=0.02), noise=0.01) == "cannot tell"
    assert fate_of_optimizer(Trial(start=0.0, moved=0.1, apart=0.05), noise=0.01) == "cannot tell"
    assert fate_of_optimizer(Trial(start=0.02, moved=0.1, apart=0.06), noise=0.01) == "kept"


def test_a_result_is_compared_by_its_longest_datum() -> None:
    """One without targets has nothing to be compared by."""
    found = witness_of(output([-1.0], [-1.0, -2.0], [-3.0]))
    assert found is not None
    assert (found.datum, found.logprobs.tolist()) == (1, [-1.0, -2.0])
    assert witness_of(output([])) is None
    assert witness_of(output()) is None
    assert witness_of(ForwardBackwardOutput("ArrayRecord", [{}], {})) is None
