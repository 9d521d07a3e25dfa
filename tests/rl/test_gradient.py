"""The gradient that the model gets is that of the loss, by the real model's own weights; steps keep their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinker_actors as ta
from tests.rl.slopes import ADAM, FLAT, MIXED, coupled, coupled_value, datum, open_trained
from tinker_actors.rl.losses import compose, cross_entropy, importance_sampling
from tinker_actors.rl.regularizers import KL, L2, Entropy

PARTS = (
    L2(0.1, center=-3.0),
    KL(0.2, reference="reference"),
    KL(0.2, reference="reference", direction="forward", mask="weights", name="back"),
    Entropy(0.3),
)


def composed_value(data: list[ta.Datum], logprobs: list[Any]) -> float:
    """Compute what the composition of `coupled` and all of `PARTS` should be."""
    return coupled_value(logprobs) + sum(part.weight * part(data, logprobs).loss for part in PARTS)


@pytest.mark.requirement("R125")
@pytest.mark.lesson("L9")
@pytest.mark.parametrize("body", ["json", "protobuf"])
@pytest.mark.parametrize("data", [FLAT, MIXED], ids=["1-D", "1-D, 2-D and sparse"])
async def test_the_models_gradient_is_that_of_the_composed_loss(
    autojump_clock: Any, data: Any, body: Any
) -> None:
    """By finite differences through every adapter array of a real model, for one and for several targets."""
    async with open_trained(training_body=body) as trained:
        output = await trained.check(data, compose(coupled, *PARTS), lambda lp: composed_value(data, lp))
        norm = output.metrics["total_grad_norm:mean"]
        assert norm > 0
        assert {"l2:sum", "kl:sum", "back:sum", "entropy:sum", "margin:mean"} <= set(output.metrics)


@pytest.mark.requirement("R125")
async def test_gradients_of_several_losses_add_up(autojump_clock: Any) -> None:
    """A custom loss after a gradient of the service's own adds to it."""
    async with open_trained() as trained:
        await (await trained.training.forward_backward_custom(FLAT, coupled))
        once = trained.model.gradient.copy()
        await (await trained.training.forward_backward_custom(FLAT, coupled))
        np.testing.assert_allclose(trained.model.gradient, 2 * once)


def plain(seed: int) -> ta.Datum:
    """Make an example with what cross_entropy takes, and nothing else."""
    one = datum(seed, 9)
    inputs = {name: one.loss_fn_inputs[name] for name in ("target_tokens", "weights")}
    return ta.Datum(one.model_input, inputs)


@pytest.mark.requirement("R125")
async def test_a_custom_cross_entropy_trains_to_the_same_bits(autojump_clock: Any) -> None:
    """Three pipelined steps with the service's loss and with the same loss as a function: equal weights."""
    ends = []
    for custom in (False, True):
        async with open_trained() as trained:
            for seed in range(3):
                data = [plain(seed), plain(seed + 100)]
                if custom:
                    await trained.training.forward_backward_custom(data, cross_entropy)
                else:
                    await trained.training.forward_backward(data, "cross_entropy")
                await trained.training.optim_step(ADAM)
            await trained.training.save_state("end")
            ends.append(trained.model.weights.tobytes())
    assert ends[0] == ends[1]


async def test_a_custom_importance_sampling_trains_to_nearly_the_same(autojump_clock: Any) -> None:
    """Its ratio is computed from log probabilities in float32, so the weights agree but for that."""
    random = np.random.default_rng(0)
    data = []
    for seed in range(2):
        one = plain(seed)
        inputs = {"target_tokens": one.loss_fn_inputs["target_tokens"]}
        inputs["logprobs"] = ta.TensorData.from_numpy(-4 + 0.1 * random.standard_normal(9))
        inputs["advantages"] = ta.TensorData.from_numpy(random.standard_normal(9))
        data.append(ta.Datum(one.model_input, inputs))
    ends = []
    for custom in (False, True):
        async with open_trained() as trained:
            if custom:
                await trained.training.forward_backward_custom(data, importance_sampling)
            else:
                await trained.training.forward_backward(data, "importance_sampling")
            await (await trained.training.optim_step(ADAM))
            ends.append(trained.model.weights)
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4, atol=1e-6)


@pytest.mark.requirement("R125")
@pytest.mark.parametrize("operation", ["forward", "forward_backward", "optim_step"])
async def test_a_lost_model_ends_with_the_same_bits(autojump_clock: Any, operation: str) -> None:
    """Whichever pass the model is lost in, the same gradients are applied once each, in order."""
    ends = []
    for lost in (False, True):
        async with open_trained() as trained:
            if lost:
                trained.embedded.drop_model_at(operation, 2 if operation == "forward" else 4)
            for seed in range(3):
                await trained.training.forward_backward_custom([plain(seed), *MIXED], coupled)
                await trained.training.optim_step(ADAM)
            await trained.training.save_state("end")
            assert trained.training.model_id.endswith(str(int(lost)))
            ends.append(trained.model.weights.tobytes())
    assert ends[0] == ends[1]
