"""A real model in float64, and whether a loss's gradient is the slope of its value by the model's own weights."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

import tinker_actors as ta
from tinker_actors.local.conversion import examples
from tinker_actors.local.lora import adapted
from tinker_actors.local.model import BaseModel
from tinker_actors.local.tokenizer import character_tokenizer
from tinker_actors.local.trainer import LoraModel
from tinker_actors.local.transformer import (
    ModelConfig,
    forward,
    initial_weights,
    log_softmax,
    padded_length,
)
from tinker_actors.wire.training import ForwardBackwardInput

ADAM = ta.AdamParams(learning_rate=1e-2)
CONFIG = ModelConfig(vocab_size=100, context_length=32, layers=1, width=16, heads=2, mlp_width=24)
BASE = BaseModel.build(
    "tiny",
    CONFIG,
    {name: 8 * array for name, array in initial_weights(CONFIG, 0, np.float64).items()},
    character_tokenizer(),
)

Value = Callable[[list[Any]], float]
"""A loss in float64: the log probabilities of each datum to its value."""


def datum(seed: int, length: int, count: int | None = None, *, sparse: bool = False) -> ta.Datum:
    """Make an example with one target at each position, or several; with weights, and a reference of its own."""
    random = np.random.default_rng(seed)
    shape = (length,) if count is None else (length, count)
    targets = random.integers(3, 100, shape)
    if sparse:
        targets[:, 1:] = 0
    tensor = ta.TensorData.from_sparse(targets) if sparse else ta.TensorData.from_numpy(targets)
    assert tensor.is_sparse == sparse
    inputs = {
        "target_tokens": tensor,
        "weights": ta.TensorData.from_numpy(random.standard_normal(shape)),
        "reference": ta.TensorData.from_numpy(-4 + random.standard_normal(shape)),
    }
    return ta.Datum(ta.ModelInput.from_ints(random.integers(3, 100, length)), inputs)


MIXED = [datum(0, 9), datum(1, 12, 3), datum(2, 5, 6, sparse=True)]
"""One target at each position, three, and six of which most are listed nowhere."""
FLAT = [datum(3, 9), datum(4, 12), datum(5, 5)]


class Trained:
    """A model that has been trained a little, so that no weight is 0, and a client on it.

    Attributes:
        training: the client.
        embedded: the service.
    """

    def __init__(self, training: ta.TrainingClient, embedded: ta.EmbeddedService) -> None:
        self.training = training
        self.embedded = embedded

    @property
    def model(self) -> LoraModel:
        """The model itself, as it is now."""
        return self.embedded._engine._models[self.training.model_id].model

    def logprobs(self, data: list[ta.Datum], weights: Any) -> list[Any]:
        """Compute the log probabilities that a model with other weights would give, in float64."""
        network = adapted(BASE.network, self.model.layout, weights)
        found = []
        for one in examples(ForwardBackwardInput(data, "cross_entropy")):
            length = one.tokens.size
            tokens = np.zeros((1, padded_length(length)), np.int64)
            tokens[0, :length] = one.tokens
            every = log_softmax(forward(network, tokens).logits(network))[0, :length]
            targets = one.loss_inputs["target_tokens"]
            picked = np.take_along_axis(every, targets.reshape(length, -1), axis=-1)
            found.append(picked.reshape(targets.shape))
        return found

    async def check(self, data: list[ta.Datum], loss_fn: Any, value: Value) -> ta.ForwardBackwardOutput:
        """Compare the accumulated gradient, array by array along random directions, with the slope of the value."""
        output = await (await self.training.forward_backward_custom(data, loss_fn))
        model, random = self.model, np.random.default_rng(7)
        assert output.metrics["loss:sum"] == pytest.approx(
            value(self.logprobs(data, model.weights)), rel=1e-5
        )
        gradient = model.layout.views(model.gradient)
        for name, slot in model.layout.slots.items():
            step = np.zeros_like(model.weights)
            step[slot.offset : slot.end] = random.standard_normal(slot.end - slot.offset)
            ends = [value(self.logprobs(data, model.weights + sign * 1e-5 * step)) for sign in (1, -1)]
            wanted = float((gradient[name] * model.layout.view(step, name)).sum())
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(wanted, rel=1e-4, abs=1e-6), name
        return output


@contextlib.asynccontextmanager
async def open_trained(steps: int = 2, **settings: Any) -> AsyncIterator[Trained]:
    """Open a service with one model, on virtual time."""
    embedded = ta.EmbeddedService(base_models=[BASE], compute="inline")
    async with ta.open_service(
        backend="local", embedded=embedded, heartbeat="loop", telemetry=False, **settings
    ) as service:
        training = await service.create_lora_training_client("tiny", rank=4, seed=1)
        for seed in range(steps):
            data = [
                ta.Datum(
                    one.model_input, {name: one.loss_fn_inputs[name] for name in ("target_tokens", "weights")}
                )
                for one in (datum(seed + 10, 12), datum(seed + 20, 7))
            ]
            await training.forward_backward(data, "cross_entropy")
            await (await training.optim_step(ADAM))
        yield Trained(training, embedded)


# --- a loss that couples all datums and tokens ---------------------------------------------------------------


def coupled_value(logprobs: list[Any]) -> float:
    """Return a preference of the first datum to the second, and a square of means."""
    sums = [one.sum() for one in logprobs]
    return float(np.logaddexp(0, -0.1 * (sums[0] - sums[1])) + sum(one.mean() ** 2 for one in logprobs))


def coupled(_: Any, logprobs: Any) -> ta.CustomLoss:
    """Return the same with its gradients by hand."""
    sums = [float(one.sum()) for one in logprobs]
    slope = -0.1 / (1 + np.exp(0.1 * (sums[0] - sums[1])))
    pairs = [slope, -slope] + [0.0] * (len(sums) - 2)
    gradients = [
        np.full(one.shape, pair + 2 * float(one.mean()) / one.size)
        for pair, one in zip(pairs, logprobs, strict=True)
    ]
    return ta.CustomLoss(coupled_value(list(logprobs)), gradients, {"margin:mean": sums[0] - sums[1]})
