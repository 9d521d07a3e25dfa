from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.bridges.gradients.coupling import (
    CASES,
    LOGPROBS,
    assert_needs_every_datum,
    assert_same_as_by_hand,
    assert_true_in_the_model,
)
from tests.rl.slopes import FLAT, open_trained
from tinker_actors.bridges.torch import loss
from tinker_actors.errors import InputError
from tinker_actors.types import Datum, ModelInput, TensorData


def coupled(_: Any, logprobs: Any) -> Any:
    """Tinker's own form: a tensor with its graph, and metrics that may be tensors."""
    sums = [one.sum() for one in logprobs]
    margin = sums[0] - sums[1]
    value = torch.nn.functional.softplus(-0.1 * margin) + sum(one.mean() ** 2 for one in logprobs)
    return value, {"margin:mean": margin}


def test_it_is_what_is_written_by_hand() -> None:
    """Loss, metrics and gradients of a loss that couples all datums; also where gradients are switched off."""
    assert_same_as_by_hand(loss(coupled))
    with torch.no_grad():
        assert_same_as_by_hand(loss(coupled))


@pytest.mark.requirement("R125")
@CASES
async def test_the_models_gradient_is_that_of_the_loss(autojump_clock: Any, data: Any) -> None:
    """By finite differences through a real model."""
    await assert_true_in_the_model(loss(coupled), data)


@pytest.mark.lesson("L9")
def test_every_datum_must_have_a_gradient() -> None:
    """As with the official client, which raises ValueError; zeros by intention are fine."""
    assert_needs_every_datum(loss, torch.sum, lambda one: one.detach().sum())


def test_parameters_of_the_functions_own_get_their_gradients() -> None:
    """`backward` is called on the loss, so a model of the user's own that takes part can be trained."""
    scale = torch.nn.Parameter(torch.tensor(2.0))
    loss(lambda _, lp: (scale * sum(one.sum() for one in lp), {}))([], LOGPROBS)
    assert scale.grad is not None
    assert scale.grad.item() == -8.0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda *_: 1.0, "must be a pair"),
        (lambda *_: (1.0, {}), "must be a tensor"),
        (lambda *_: (torch.tensor(1.0), {}), "does not depend on the log probabilities"),
    ],
    ids=map(str, range(3)),
)
def test_what_the_function_returns_is_checked(function: Any, words: str) -> None:
    """Something else than (tensor with a graph, metrics) is refused."""
    with pytest.raises(InputError, match=words):
        loss(function)([], LOGPROBS)


def test_tensors_cross_both_ways() -> None:
    """With a gradient, in half precision, sparse: what Tinker's type takes under these names, ours does."""
    half = torch.tensor([[1.5, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    assert TensorData.from_torch(half) == TensorData([[1.5, 0.0]], "float32")
    assert Datum(ModelInput.from_ints([1]), {"mask": half[0]}).loss_fn_inputs["mask"].tolist() == [1.5, 0.0]
    rows = torch.zeros((2, 9), dtype=torch.int32)
    rows[0, 3] = 5
    sparse = TensorData.from_torch_sparse(rows)
    assert sparse.is_sparse
    back = sparse.to_torch()
    assert back.dtype == torch.int64
    assert torch.equal(back, rows.long())
    back += 1
    assert sparse.to_numpy()[0, 3] == 5


async def test_a_function_without_its_bridge_is_told_of_it(autojump_clock: Any) -> None:
    """Tinker's own form is given no tensors, and what it returns is no `CustomLoss`: the errors name the bridges."""
    async with open_trained() as trained:
        with pytest.raises(TypeError, match="must be Tensor") as caught:
            await (await trained.training.forward_backward_custom(FLAT, coupled))
        assert "tinker_actors.bridges" in caught.value.__notes__[0]
        with pytest.raises(InputError, match=r"tinker_actors\.bridges"):
            await (await trained.training.forward_backward_custom(FLAT, lambda *_: (torch.tensor(1.0), {})))
