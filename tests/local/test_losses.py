from __future__ import annotations

import numpy as np
import pytest

from tinker_actors.errors import InputError
from tinker_actors.local.losses import LOSSES, loss_spec

RANDOM = np.random.default_rng(0)
LOGPROBS = -RANDOM.exponential(1.0, 64)
INPUTS = {
    "weights": RANDOM.standard_normal(64),
    "logprobs": LOGPROBS + 0.3 * RANDOM.standard_normal(64),
    "advantages": RANDOM.standard_normal(64),
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradient_matches_central_differences(name: str) -> None:
    """Each token's derivative by its log-probability is the slope of its value."""
    spec = LOSSES[name]
    inputs = {key: INPUTS[key] for key in spec.inputs}
    config = spec.configured(None)
    terms = spec.function(LOGPROBS, inputs, config)
    above, below = (spec.function(LOGPROBS + sign * 1e-6, inputs, config).value for sign in (1, -1))
    np.testing.assert_allclose((above - below) / 2e-6, terms.gradient, rtol=1e-6, atol=1e-8)


def one(name: str, lp: float, config: dict[str, float] | None = None, **inputs: float) -> tuple[float, float]:
    """Value and derivative of a single token."""
    spec = LOSSES[name]
    arrays = {key: np.array([value]) for key, value in inputs.items()}
    terms = spec.function(np.array([lp]), arrays, spec.configured(config))
    return float(terms.value[0]), float(terms.gradient[0])


def test_cross_entropy_by_hand() -> None:
    """A token costs its weighted negative log-probability."""
    assert one("cross_entropy", np.log(0.25), weights=2.0) == pytest.approx((2 * np.log(4), -2.0))


def test_importance_sampling_by_hand() -> None:
    """A token costs minus ratio times advantage, which is also the derivative."""
    assert one("importance_sampling", np.log(0.6), logprobs=np.log(0.4), advantages=2.0) == pytest.approx(
        (-3.0, -3.0)
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient"),
    [
        (1.0, 1.0, -1.0, -1.0),
        (1.5, 1.0, -1.2, 0.0),  # too far up already: clipped, no gradient
        (1.5, -1.0, 1.5, 1.5),  # a bad token that became likelier: the minimum keeps the gradient
        (0.5, 1.0, -0.5, -0.5),  # a good token that became rarer likewise
        (0.5, -1.0, 0.8, 0.0),
    ],
)
def test_ppo_by_hand(ratio: float, advantage: float, value: float, gradient: float) -> None:
    """The pessimistic minimum: clipping takes effect only where the ratio has moved in the wanted direction."""
    assert one("ppo", np.log(ratio), logprobs=0.0, advantages=advantage) == pytest.approx((value, gradient))


def test_ppo_thresholds_are_bounds_of_the_ratio() -> None:
    """`clip_high_threshold` 1.05 clips at a ratio of 1.05, not at 2.05."""
    config = {"clip_high_threshold": 1.05}
    assert one("ppo", np.log(1.1), config, logprobs=0.0, advantages=1.0) == pytest.approx((-1.05, 0.0))


def test_diagnostics_tell_how_far_learner_and_sampler_are_apart() -> None:
    """Ratio, the KL estimate and what share was clipped come per token; tokens without advantage are inactive."""
    spec = LOSSES["ppo"]
    inputs = {"logprobs": np.log([0.5, 0.5]), "advantages": np.array([1.0, 0.0])}
    terms = spec.function(np.log([0.75, 0.5]), inputs, spec.configured(None))
    assert terms.diagnostics["ratio"] == pytest.approx([1.5, 1.0])
    assert terms.diagnostics["kl"] == pytest.approx([-np.log(1.5), 0.0])
    assert terms.diagnostics["clip_fraction"].tolist() == [1.0, 0.0]
    assert terms.active.tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "config", "field"),
    [
        ("cross_entropy", {"clip_low_threshold": 0.8}, "clip_low_threshold"),
        ("ppo", {"clip_low_treshold": 0.8}, "clip_low_treshold"),
        ("ppo", {"clip_low_threshold": float("nan")}, "clip_low_threshold"),
        ("ppo", {"clip_low_threshold": 1.5}, "clip_low_threshold"),
    ],
)
def test_bad_configuration_is_refused_by_name(name: str, config: dict[str, float], field: str) -> None:
    """Unknown keys, NaN and crossed thresholds name the key."""
    with pytest.raises(InputError, match=field):
        LOSSES[name].configured(config)


def test_an_unknown_loss_is_refused_with_the_list_of_known_ones() -> None:
    """The message helps who mistyped, or asks for a loss only the Tinker service has."""
    with pytest.raises(InputError, match=r"cispo.*cross_entropy, importance_sampling, ppo"):
        loss_spec("cispo")
