from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import tinker_actors as ta
from tinker_actors.errors import InputError
from tinker_actors.rl.regularizers import KL, L2, Entropy

SHAPES = st.one_of(st.tuples(st.integers(1, 3)), st.tuples(st.integers(1, 2), st.integers(1, 3)))


def log_probabilities(shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    """Draw log probabilities that float32 holds exactly, so that small steps away from them can be told."""
    return arrays.arrays(np.int64, shape, elements=st.integers(-1024, 0)).map(lambda drawn: drawn / 128)


BATCHES = st.lists(SHAPES, min_size=1, max_size=2).flatmap(
    lambda shapes: st.tuples(*(st.tuples(*(log_probabilities(shape) for _ in range(3))) for shape in shapes))
)
"""Per datum: log probabilities, a reference's, and a mask."""


def datum(shape: tuple[int, ...], **inputs: Any) -> ta.Datum:
    """Make an example with these loss inputs."""
    tensors = {
        name: ta.TensorData.from_numpy(np.asarray(value, np.float64)) for name, value in inputs.items()
    }
    targets = ta.TensorData.from_numpy(np.zeros(shape, np.int64))
    return ta.Datum(ta.ModelInput.from_ints([1] * shape[0]), {"target_tokens": targets, **tensors})


def assert_true_gradient(regularizer: Any, data: list[ta.Datum], logprobs: list[Any]) -> None:
    """Compare each derivative with the slope between two points."""
    gradients = regularizer(data, logprobs).gradients
    step = 2.0**-10
    for index, one in enumerate(logprobs):
        for place in np.ndindex(one.shape):
            values = []
            for sign in (1, -1):
                moved = [each.copy() for each in logprobs]
                moved[index][place] += sign * step
                values.append(regularizer(data, moved).loss)
            slope = (values[0] - values[1]) / (2 * step)
            assert gradients[index][place] == pytest.approx(slope, rel=1e-4, abs=1e-4)


KINDS: list[Any] = [
    lambda: L2(1.0),
    lambda: L2(1.0, center=-2.5, mask="m"),
    lambda: KL(1.0, reference="r"),
    lambda: KL(1.0, reference="r", direction="forward", mask="m"),
    lambda: KL(1.0, reference="r", symmetric=True),
    lambda: Entropy(1.0),
    lambda: Entropy(1.0, mask="m"),
]


@pytest.mark.lesson("L9")
@pytest.mark.parametrize("make", KINDS, ids=map(str, range(len(KINDS))))
@settings(max_examples=20)
@given(batch=BATCHES)
def test_each_gradient_is_the_slope_of_its_value(make: Any, batch: Any) -> None:
    """For one and for several targets at a position, with and without a mask, the gradient is the true one."""
    data = [datum(one.shape, r=reference, m=mask) for one, reference, mask in batch]
    assert_true_gradient(make(), data, [one for one, _, _ in batch])


@given(log_probabilities((4,)))
def test_clipped_distances_have_no_slope(logprobs: Any) -> None:
    """Beyond the clip L2 is flat, and within it nothing changes."""
    clipped = L2(1.0, center=-3.0, clip=1.00390625)  # between two values that are drawn: no kink near a step
    assert_true_gradient(clipped, [datum((4,))], [logprobs])
    far = np.abs(logprobs + 3) > 1.00390625
    gradient = np.asarray(clipped([datum((4,))], [logprobs]).gradients[0])
    assert not gradient[far].any()
    np.testing.assert_array_equal(gradient[~far], 2 * (logprobs[~far] + 3))


@pytest.mark.lesson("L9")
@settings(max_examples=40)
@given(BATCHES)
def test_a_divergence_is_zero_only_where_model_and_reference_agree(batch: Any) -> None:
    """KL of anything with itself is 0 with no slope; with something else it is above 0 and has one."""
    for direction in ("forward", "reverse"):
        for one, reference, _ in batch:
            same = KL(1.0, reference=[one], direction=direction)([datum(one.shape)], [one])
            assert (same.loss, np.asarray(same.gradients[0]).any()) == (0.0, False)
            other = KL(1.0, reference=[reference], direction=direction)([datum(one.shape)], [one])
            assert other.loss >= 0
            assert (other.loss > 0) == bool((one != reference).any()) == bool(np.any(other.gradients[0]))


@given(st.floats(-30, 0, width=32), st.sampled_from([-np.inf, 1.0]), st.sampled_from(["forward", "reverse"]))
def test_a_divergence_of_neighbours_is_not_negative(lp: float, towards: float, direction: Any) -> None:
    """What is left of the terms' rounding where they cancel is not taken for a value."""
    one = np.array([lp], np.float32)
    neighbour = np.nextafter(one, np.float32(towards))
    assert KL(1.0, reference=[neighbour], direction=direction)([datum((1,))], [one]).loss >= 0


@given(arrays.arrays(np.float64, (2, 5), elements=st.floats(-2, 2)))
def test_over_the_whole_vocabulary_they_are_what_their_names_say(logits: Any) -> None:
    """KL and entropy of two whole distributions, by their formulas."""
    lp, lq = (np.log(np.exp(row) / np.exp(row).sum())[None] for row in logits)
    p, q = np.exp(lp), np.exp(lq)
    data = [datum((1, 5), r=lq)]
    forward = KL(1.0, reference=[lq], direction="forward")(data, [lp]).loss
    reverse = KL(1.0, reference=[lq])(data, [lp]).loss  # the usual direction
    assert forward == pytest.approx((q * (lq - lp)).sum(), abs=1e-9)
    assert reverse == pytest.approx((p * (lp - lq)).sum(), abs=1e-9)
    assert KL(1.0, reference=[lq], symmetric=True)(data, [lp]).loss == pytest.approx((forward + reverse) / 2)
    assert Entropy(1.0)(data, [lp]).loss == pytest.approx((p * lp).sum())


def test_a_reference_is_read_from_each_datum() -> None:
    """Every datum brings its own reference: the first one's does not stand for all."""
    one, two = np.full(2, -1.0), np.full(2, -2.0)
    data = [datum((2,), r=one), datum((2,), r=two)]
    agreeing = KL(1.0, reference="r")(data, [one, two])
    assert agreeing.loss == 0.0
    assert KL(1.0, reference="r")(data, [one, one]).loss > 0


@pytest.mark.lesson("L9", "L10")
@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: KL(1.0, reference="r"), "data[1].loss_fn_inputs"),
        (lambda: KL(1.0, reference=[np.zeros(2)]), "len(KL.reference)"),
        (lambda: KL(1.0, reference=[np.zeros(2), np.zeros(3)]), "KL.reference[1].shape"),
        (lambda: KL(1.0, reference=[np.zeros(2), [0.0, math.nan]]), "KL.reference[1]"),
        (lambda: KL(1.0, reference=[np.zeros(2), ["a", "b"]]), "KL.reference[1]"),
        (lambda: L2(1.0, mask="r"), "data[1].loss_fn_inputs"),
        (lambda: Entropy(1.0, mask="short"), "data[0].loss_fn_inputs['short'].shape"),
    ],
    ids=map(str, range(7)),
)
def test_what_cannot_be_computed_is_refused(call: Any, field: str) -> None:
    """A missing, misshapen or infinite reference or mask is an error that names the datum, never a zero."""
    data = [datum((2,), r=np.zeros(2), short=np.zeros(1)), datum((2,), short=np.zeros(1))]
    with pytest.raises(InputError) as caught:
        call()(data, [np.zeros(2, np.float32)] * 2)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: L2(-1.0), "L2.weight"),
        (lambda: L2(math.nan), "L2.weight"),
        (lambda: L2("1"), "L2.weight"),
        (lambda: L2(True), "L2.weight"),
        (lambda: L2(1.0, center=math.inf), "L2.center"),
        (lambda: L2(1.0, clip=0.0), "L2.clip"),
        (lambda: KL(math.inf, reference="r"), "KL.weight"),
        (lambda: KL(1.0, reference="r", direction="backward"), "KL.direction"),
        (lambda: Entropy(-0.5), "Entropy.weight"),
    ],
    ids=map(str, range(9)),
)
def test_settings_are_checked_when_they_are_made(call: Any, field: str) -> None:
    """A weight is finite and not negative, and everything else in its range."""
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.field == field
