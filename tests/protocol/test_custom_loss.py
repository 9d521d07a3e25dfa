from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tinker_actors.errors import APIResponseValidationError, InputError
from tinker_actors.protocol.chunking import chunk_batch
from tinker_actors.protocol.custom_loss import (
    CustomLoss,
    backward_data,
    check_function,
    checked_loss,
    forward_data,
    logprobs_of,
    with_metrics,
)
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.provenance import PromptProvenanceSpan
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput

SPARSE = TensorData.from_sparse(np.array([[0, 0, 0, 0, 3], [0] * 5, [0] * 5], np.int64))


def datum(targets: Any, **inputs: Any) -> Datum:
    """Make an example whose input has as many tokens as there are rows of targets."""
    tensor = targets if isinstance(targets, TensorData) else TensorData.from_numpy(np.asarray(targets))
    return Datum(ModelInput.from_ints([1] * tensor.shape[0]), {"target_tokens": tensor, **inputs})


def output(*logprobs: Any, metrics: dict[str, float] | None = None) -> ForwardBackwardOutput:
    """Make what a service answers."""
    tensors = [{"logprobs": TensorData.from_numpy(np.asarray(one, np.float32))} for one in logprobs]
    return ForwardBackwardOutput("ArrayRecord", tensors, metrics or {})


def loss(*gradients: Any, value: Any = 1.0, **metrics: Any) -> CustomLoss:
    return CustomLoss(value, gradients, metrics)


# --- what is sent ----------------------------------------------------------------------------------------


def test_the_forward_pass_sends_the_targets_alone() -> None:
    """Targets stay as they are, weights are zeros of their shape, and other inputs stay here."""
    data = [
        datum([1, 2], weights=[1.0, 1.0], margin=np.ones(3)),
        datum([[1, 2, 3], [4, 5, 6]]),
        datum(SPARSE),
    ]
    sent = forward_data(data)
    assert [set(one.loss_fn_inputs) for one in sent] == [{"target_tokens", "weights"}] * 3
    assert [one.loss_fn_inputs["target_tokens"] for one in sent] == [
        one.loss_fn_inputs["target_tokens"] for one in data
    ]
    weights = [one.loss_fn_inputs["weights"] for one in sent]
    assert [(one.shape, one.dtype) for one in weights] == [
        ((2,), "float32"),
        ((2, 3), "float32"),
        ((3, 5), "float32"),
    ]
    assert not any(one.to_numpy().any() for one in weights)


def test_the_sources_of_tokens_go_along() -> None:
    """Spans of provenance are kept in both passes."""
    spans = [PromptProvenanceSpan(sequence_id="a", length=2)]
    given = datum([1, 2]).with_provenance(model_input=spans, loss_fn_inputs=spans)
    (sent,) = forward_data([given])
    (back,) = backward_data([sent], checked_loss(loss([1, 2]), [np.zeros(2, np.float32)]))
    assert sent.model_input_spans == back.model_input_spans == given.model_input_spans
    assert sent.loss_fn_input_spans == back.loss_fn_input_spans == given.loss_fn_input_spans


BAD_BATCHES: list[tuple[Any, str]] = [
    ([], "data"),
    ([datum([1]), "text"], "data[1]"),
    ([datum([1]), Datum(ModelInput.from_ints([1]))], "data[1].loss_fn_inputs"),
    ([datum([[[1]]])], "data[0].loss_fn_inputs['target_tokens'].shape"),
    (
        [datum(TensorData(np.zeros((1, 0), np.int64), "int64"))],
        "data[0].loss_fn_inputs['target_tokens'].shape",
    ),
    ([datum(np.zeros(2, np.float32))], "data[0].loss_fn_inputs['target_tokens'].dtype"),
    (
        [Datum(ModelInput.from_ints([1, 2]), {"target_tokens": [1]})],
        "data[0].loss_fn_inputs['target_tokens'].shape",
    ),
]


@pytest.mark.parametrize(("data", "field"), BAD_BATCHES, ids=itertools.count())
def test_a_batch_that_cannot_be_sent_is_refused_by_name(data: Sequence[Any], field: str) -> None:
    """An empty batch, and missing or misshapen targets, name the datum and the field."""
    with pytest.raises(InputError) as caught:
        forward_data(data)
    assert caught.value.field == field


def test_the_weights_of_the_backward_pass_are_the_negative_gradient() -> None:
    """Minus the gradient, float32, in the targets' shape; a gradient of zeros is sent as well."""
    sent = forward_data([datum([1, 2]), datum([[1, 2]]), datum([3])])
    logprobs = logprobs_of(sent, output([-1, -2], [[-1, -2]], [-3]))
    checked = checked_loss(loss(np.array([2.0, -4.0]), [[0.5, 0.25]], [0]), logprobs)
    back = backward_data(sent, checked)
    weights = [one.loss_fn_inputs["weights"] for one in back]
    assert [one.tolist() for one in weights] == [[-2.0, 4.0], [[-0.5, -0.25]], [0.0]]
    assert {one.dtype for one in weights} == {"float32"}
    assert [one.loss_fn_inputs["target_tokens"] for one in back] == [
        one.loss_fn_inputs["target_tokens"] for one in sent
    ]


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 3)).map(
            lambda shape: datum(np.zeros(shape if shape[1] else shape[:1], np.int64))
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 8),
    st.integers(1, 300),
)
def test_both_passes_are_cut_into_the_same_chunks(data: list[Datum], datums: int, weight: int) -> None:
    """Whatever the gradients, the backward pass has the forward pass's chunks."""
    sent = forward_data(data)
    shapes = [one.loss_fn_inputs["target_tokens"].shape for one in sent]
    logprobs = [np.zeros(shape, np.float32) for shape in shapes]
    back = backward_data(sent, checked_loss(loss(*(np.ones(shape) for shape in shapes)), logprobs))
    cuts = [
        [len(chunk) for chunk in chunk_batch(one, max_datums=datums, max_bytes=weight)]
        for one in (sent, back)
    ]
    assert cuts[0] == cuts[1]


# --- what comes back -------------------------------------------------------------------------------------


def test_log_probabilities_have_the_targets_shape() -> None:
    """Float32 arrays that nobody changes, also from a service that gives them flat."""
    sent = forward_data([datum([1, 2]), datum([[1, 2], [3, 4]]), datum(SPARSE)])
    flat, sparse = output([-1, -2, -3, -4], np.zeros((3, 5))).loss_fn_outputs
    copied = {"logprobs": TensorData.from_numpy(np.array([-1, -2]))}  # as it is of another type
    got = logprobs_of(sent, ForwardBackwardOutput("ArrayRecord", [copied, flat, sparse], {}))
    assert got[1].tolist() == [[-1, -2], [-3, -4]]
    assert [one.shape for one in got] == [(2,), (2, 2), (3, 5)]
    assert {one.dtype for one in got} == {np.dtype(np.float32)}
    assert not any(one.flags.writeable for one in got)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (output(), "0 outputs for 1 datums"),
        (ForwardBackwardOutput("ArrayRecord", [{}], {}), r"loss_fn_outputs\[0\] has no logprobs"),
        (output([-1.0]), r"shape \(1,\), its targets \(2,\)"),
        (output([-1.0, math.inf]), "not finite"),
    ],
)
def test_an_answer_without_log_probabilities_is_told(answer: ForwardBackwardOutput, words: str) -> None:
    """One output for each datum, with one finite number for each target, or a typed error."""
    with pytest.raises(APIResponseValidationError, match=words):
        logprobs_of(forward_data([datum([1, 2])]), answer)


# --- what the user's function returned -------------------------------------------------------------------


class _Graph:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("call detach first")


BAD_RESULTS: list[tuple[Any, str]] = [
    ((1.0, {}), "loss_fn(...)"),
    (None, "loss_fn(...)"),
    (loss([0, 0], value=math.nan), "loss_fn(...).loss"),
    (loss([0, 0], value=[1.0]), "loss_fn(...).loss"),
    (loss([0, 0], value="1"), "loss_fn(...).loss"),
    (loss([0, 0], value=_Graph()), "loss_fn(...).loss"),
    (CustomLoss(1.0, 3), "loss_fn(...).gradients"),
    (loss(), "len(loss_fn(...).gradients)"),
    (loss([0, 0], [0, 0]), "len(loss_fn(...).gradients)"),
    (loss([0]), "loss_fn(...).gradients[0].shape"),
    (loss([[0, 0]]), "loss_fn(...).gradients[0].shape"),
    (loss([[0], [0, 0]]), "loss_fn(...).gradients[0]"),
    (loss(None), "loss_fn(...).gradients[0]"),
    (loss([True, False]), "loss_fn(...).gradients[0]"),
    (loss([1j, 0]), "loss_fn(...).gradients[0]"),
    (loss([0, math.nan]), "loss_fn(...).gradients[0][1]"),
    (loss([0, 1e300]), "loss_fn(...).gradients[0][1]"),
    (CustomLoss(1.0, [[0, 0]], [1.0]), "loss_fn(...).metrics"),
    (CustomLoss(1.0, [[0, 0]], {"": 1.0}), "loss_fn(...).metrics"),
    (CustomLoss(1.0, [[0, 0]], {1: 1.0}), "loss_fn(...).metrics"),
    (loss([0, 0], **{"a:mean": math.inf}), "loss_fn(...).metrics['a:mean']"),
]


@pytest.mark.lesson("L9", "L10")
@pytest.mark.parametrize(("result", "field"), BAD_RESULTS, ids=itertools.count())
def test_what_a_loss_function_returns_is_checked(result: Any, field: str) -> None:
    """What is no loss, no gradient or no metric is refused by its place and value, and never taken for 0."""
    with pytest.raises(InputError) as caught:
        checked_loss(result, [np.zeros(2, np.float32)])
    assert caught.value.field == field


def test_the_place_in_a_gradient_of_two_dimensions_is_named() -> None:
    """Row and column of the first value that is not finite, and the value."""
    with pytest.raises(InputError) as caught:
        checked_loss(loss([[0, 0], [0, -math.inf]]), [np.zeros((2, 2), np.float32)])
    assert (caught.value.field, caught.value.value) == ("loss_fn(...).gradients[0][1][1]", -math.inf)


@given(arrays.arrays(np.float64, arrays.array_shapes(max_dims=2, max_side=4), elements=st.floats(-1e6, 1e6)))
def test_what_is_good_is_kept(gradient: Any) -> None:
    """Numbers of numpy's and Python's own kinds come out as floats and float32."""
    given_loss = CustomLoss(np.float32(2), np.stack([gradient]), {"a:sum": np.int64(3)})
    checked = checked_loss(given_loss, [gradient.astype(np.float32)])
    assert (checked.loss, dict(checked.metrics)) == (2.0, {"a:sum": 3.0})
    assert type(checked.loss) is float
    (kept,) = checked.gradients
    np.testing.assert_array_equal(np.asarray(kept), gradient.astype(np.float32), strict=True)


def test_the_users_loss_and_metrics_stand_in_the_result() -> None:
    """`loss:sum` is the user's; the service's own is the surrogate's; the user's metrics win over the service's."""
    answer = output([-1.0], metrics={"loss:sum": 3.0, "tokens:sum": 1.0, "x:mean": 1.0})
    merged = with_metrics(answer, CustomLoss(42.0, [], {"my:mean": 42.0, "x:mean": 2.0}))
    assert merged.metrics == {
        "loss:sum": 42.0,
        "surrogate_loss:sum": 3.0,
        "tokens:sum": 1.0,
        "my:mean": 42.0,
        "x:mean": 2.0,
    }
    assert merged.loss_fn_outputs == answer.loss_fn_outputs
    assert with_metrics(output(), CustomLoss(1.0, [])).metrics == {"loss:sum": 1.0}


def test_a_loss_function_is_called_from_a_thread() -> None:
    """So it is a plain one: an async function has no loop there, and other things cannot be called."""

    async def later(data: object, logprobs: object) -> None: ...

    check_function(lambda data, logprobs: None)
    for bad in (later, "cross_entropy", None):
        with pytest.raises(InputError, match="loss_fn"):
            check_function(bad)
