from __future__ import annotations

import numpy as np
import pytest

from tinker_actors.errors import InputError
from tinker_actors.local.adam import AdamParams, AdamState


def scalar_adam(weights: list[float], gradients: list[list[float]], params: AdamParams) -> list[float]:
    """AdamW one number at a time, from the paper (Loshchilov and Hutter, algorithm 2, with a fixed schedule)."""
    m, v = [0.0] * len(weights), [0.0] * len(weights)
    for t, gradient in enumerate(gradients, start=1):
        length = sum(g * g for g in gradient) ** 0.5
        if params.grad_clip_norm and length > params.grad_clip_norm:
            gradient = [g * params.grad_clip_norm / length for g in gradient]  # noqa: PLW2901 - the clipped one replaces it
        for i, g in enumerate(gradient):
            m[i] = params.beta1 * m[i] + (1 - params.beta1) * g
            v[i] = params.beta2 * v[i] + (1 - params.beta2) * g * g
            m_hat, v_hat = m[i] / (1 - params.beta1**t), v[i] / (1 - params.beta2**t)
            decay = params.weight_decay * weights[i]
            weights[i] -= params.learning_rate * (m_hat / (v_hat**0.5 + params.eps) + decay)
    return weights


@pytest.mark.parametrize(
    "params",
    [
        AdamParams(),
        AdamParams(learning_rate=0.1, beta1=0.0, beta2=0.999, eps=1e-3),
        AdamParams(learning_rate=0.01, weight_decay=0.1),
        AdamParams(learning_rate=0.01, grad_clip_norm=0.5),
    ],
)
def test_steps_agree_with_the_formula_one_number_at_a_time(params: AdamParams) -> None:
    """Five steps on a vector equal the paper's algorithm on its single numbers."""
    random = np.random.default_rng(0)
    start, gradients = random.standard_normal(6), random.standard_normal((5, 6))
    state, weights = AdamState.fresh(start), start
    for gradient in gradients:
        weights = state.step(weights, gradient, params)
    np.testing.assert_allclose(weights, scalar_adam(start.tolist(), gradients.tolist(), params), rtol=1e-12)
    assert state.steps == 5


def test_a_step_leaves_its_arguments_alone() -> None:
    """Weights and gradient are never changed in place: snapshots share them."""
    weights, gradient = np.ones(3, np.float32), np.full(3, 2.0, np.float32)
    moved = AdamState.fresh(weights).step(weights, gradient, AdamParams(grad_clip_norm=1.0))
    assert weights.tolist() == [1, 1, 1]
    assert gradient.tolist() == [2, 2, 2]
    assert moved.dtype == np.float32
    assert (moved < 1).all()


def test_a_gradient_of_zeros_moves_by_momentum_and_counts() -> None:
    """A step without a gradient is not skipped."""
    weights = np.zeros(1)
    state = AdamState.fresh(weights)
    weights = state.step(weights, np.ones(1), AdamParams())
    after = state.step(weights, np.zeros(1), AdamParams())
    assert after[0] < weights[0] < 0
    assert state.steps == 2


def test_a_weight_that_never_had_a_gradient_stays() -> None:
    """With eps = 0 nothing is divided by zero."""
    weights = np.array([1.0, 1.0])
    moved = AdamState.fresh(weights).step(weights, np.array([0.0, 1.0]), AdamParams(eps=0.0))
    assert moved[0] == 1.0
    assert moved[1] < 1.0


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": float("nan")},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"eps": -1e-8},
        {"weight_decay": float("inf")},
        {"grad_clip_norm": -1.0},
    ],
)
def test_parameters_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    """The error names the parameter."""
    with pytest.raises(InputError, match=next(iter(bad))):
        AdamParams(**bad)


def test_a_negative_learning_rate_is_allowed() -> None:
    """Tinker allows it: gradient ascent."""
    weights = np.zeros(1)
    assert AdamState.fresh(weights).step(weights, np.ones(1), AdamParams(learning_rate=-0.1))[0] > 0
