from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tinker_actors as ta
from tinker_actors.errors import InputError
from tinker_actors.protocol.metric import reduce_metrics
from tinker_actors.rl.losses import compose, cross_entropy, importance_sampling
from tinker_actors.rl.regularizers import KL, L2, Entropy

LOGPROBS = [np.array([-1.0, -2.0], np.float32), np.array([[-0.5, -3.0]], np.float32)]


def data(**more: float) -> list[ta.Datum]:
    """Make a batch of an example with one target at a position, and of one with two."""
    made = []
    for shape in ((2,), (1, 2)):
        inputs = {"target_tokens": np.zeros(shape, np.int64), "weights": np.full(shape, 0.5)}
        inputs |= {name: np.full(shape, value) for name, value in more.items()}
        made.append(
            ta.Datum(
                ta.ModelInput.from_ints([1] * shape[0]),
                {name: ta.TensorData.from_numpy(array) for name, array in inputs.items()},
            )
        )
    return made


def test_a_composed_loss_is_the_weighted_sum_of_its_parts() -> None:
    """Value and gradients are the base's, plus each regularizer's by its weight."""
    parts = [(1.0, cross_entropy), (0.25, L2(0.25)), (2.0, Entropy(2.0)), (0.0, KL(0.0, reference="weights"))]
    loss = compose(cross_entropy, *(part for _, part in parts[1:]))(data(), LOGPROBS)
    alone = [(weight, part(data(), LOGPROBS)) for weight, part in parts]
    assert loss.loss == pytest.approx(sum(weight * part.loss for weight, part in alone))
    for index in range(2):
        wanted = sum(weight * np.asarray(part.gradients[index]) for weight, part in alone)
        np.testing.assert_allclose(loss.gradients[index], wanted, rtol=1e-6)


def test_each_part_reports_value_contribution_and_gradient_norms() -> None:
    """By names that the reduction of chunks' metrics keeps; norms are over the whole batch."""
    loss = compose(cross_entropy, L2(0.25, name="far"))(data(), LOGPROBS)
    flat = np.concatenate([one.reshape(-1) for one in LOGPROBS]).astype(np.float64)
    norm = 2 * math.sqrt((flat**2).sum())
    assert loss.metrics == pytest.approx(
        {
            "base:sum": 3.25,
            "base_contribution:sum": 3.25,
            "base_grad_norm:mean": 1.0,
            "base_weighted_grad_norm:mean": 1.0,
            "far:sum": 14.25,
            "far_contribution:sum": 14.25 / 4,
            "far_grad_norm:mean": norm,
            "far_weighted_grad_norm:mean": norm / 4,
            "total_grad_norm:mean": math.sqrt(((flat / 2 - 0.5) ** 2).sum()),
        }
    )
    assert reduce_metrics([loss.metrics], [2]) == loss.metrics
    assert all(name.count(":") == 1 for name in loss.metrics)


def test_metrics_of_the_parts_are_passed_on() -> None:
    """A base that reports more is heard; a name that two parts use is refused."""

    def base(_: Any, logprobs: Any) -> ta.CustomLoss:
        return ta.CustomLoss(1.0, logprobs, {name: 7.0})

    name = "pairs:mean"
    assert compose(base)(data(), LOGPROBS).metrics["pairs:mean"] == 7.0
    name = "l2:sum"
    with pytest.raises(InputError, match="two parts of the loss report it"):
        compose(base, L2(1.0))(data(), LOGPROBS)


@pytest.mark.lesson("L9", "L10")
def test_a_part_that_fails_fails_the_loss() -> None:
    """Its exception is raised, with a note that names the part: no loss, norm or gradient of 0 stands in for it."""

    class Broken(L2):
        def __call__(self, *_: Any) -> Any:
            raise ZeroDivisionError("broken")

    with pytest.raises(ZeroDivisionError) as caught:
        compose(cross_entropy, Broken(1.0, name="odd"))(data(), LOGPROBS)
    assert caught.value.__notes__ == ["raised by the part 'odd' of a composed loss"]


@pytest.mark.lesson("L9", "L10")
@pytest.mark.parametrize(
    ("result", "field"),
    [
        ((1.0, {}), "base(...)"),
        (ta.CustomLoss(1.0, [np.zeros(1), np.zeros((1, 2))]), "base(...).gradients[0].shape"),
        (ta.CustomLoss(1.0, [np.zeros(2), np.full((1, 2), math.nan)]), "base(...).gradients[1][0][0]"),
        (ta.CustomLoss(math.inf, LOGPROBS), "base(...).loss"),
    ],
    ids=map(str, range(4)),
)
def test_what_a_part_returns_is_checked(result: Any, field: str) -> None:
    """A gradient that would only fit by being repeated, or is not finite, is refused in the part's name."""
    with pytest.raises(InputError) as caught:
        compose(lambda *_: result, L2(1.0))(data(), LOGPROBS)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([None], "base"),
        ([cross_entropy, None], "regularizers[0]"),
        ([cross_entropy, cross_entropy], "regularizers[0].name"),
        ([cross_entropy, L2(1.0, name="")], "regularizers[0].name"),
        ([cross_entropy, L2(1.0, name="a:sum")], "regularizers[0].name"),
        *[
            ([cross_entropy, L2(1.0, name=name)], "regularizers[0].name")
            for name in ("base", "total", "loss", "surrogate_loss")
        ],
        ([cross_entropy, L2(1.0), L2(2.0)], "regularizers[1].name"),
    ],
    ids=map(str, range(10)),
)
def test_parts_have_names_of_their_own(parts: Any, field: str) -> None:
    """A name that is missing, taken, or would not survive as a metric is refused when the loss is put together."""
    with pytest.raises(InputError) as caught:
        compose(*parts)
    assert caught.value.field == field


def test_a_regularizer_of_the_users_own_has_a_weight_that_counts() -> None:
    """Its weight is checked as those of the house are."""

    class Mine:
        name, weight = "mine", -1.0

        def __call__(self, *_: Any) -> Any:
            raise AssertionError

    with pytest.raises(InputError, match=r"regularizers\[0\].weight = -1.0"):
        compose(cross_entropy, Mine())


def test_the_services_losses_by_hand() -> None:
    """Value and gradient of two tokens."""
    one = [
        ta.Datum(
            ta.ModelInput.from_ints([1, 1]),
            {"weights": [1.0, -2.0], "logprobs": [-1.0, -1.0], "advantages": [1.0, 3.0]},
        )
    ]
    lp = [np.array([-1.0, -2.0])]
    entropy = cross_entropy(one, lp)
    assert (entropy.loss, np.asarray(entropy.gradients).tolist()) == (-3.0, [[-1.0, 2.0]])
    sampled = importance_sampling(one, lp)
    assert sampled.loss == pytest.approx(-1 - 3 / math.e)
    np.testing.assert_allclose(sampled.gradients, [[-1, -3 / math.e]])
    for loss, missing in ((cross_entropy, "weights"), (importance_sampling, "logprobs")):
        with pytest.raises(InputError, match=f"'{missing}' is missing"):
            loss([ta.Datum(ta.ModelInput.from_ints([1]))], [np.zeros(1)])
        with pytest.raises(InputError, match=rf"\['{missing}'\].shape"):
            loss(one, [np.zeros(3)])


def test_a_ratio_that_is_too_large_is_refused_with_its_place() -> None:
    """Also where its advantage is 0; numpy's own warning is none of the user's concern."""
    for advantage in (0.0, 1.0):
        inputs = {"logprobs": [-1.0, -1e3], "advantages": [1.0, advantage]}
        one = [ta.Datum(ta.ModelInput.from_ints([1, 1]), inputs)]
        lp = [np.array([-1.0, -1.0], np.float32)]
        with pytest.raises(InputError, match="must be finite"):
            importance_sampling(one, lp).checked(lp)
