from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import numpy as np
import pytest

from tinker_actors.errors import InputError
from tinker_actors.local.adam import AdamParams
from tinker_actors.local.example import Example
from tinker_actors.local.lora import LoraConfig
from tinker_actors.local.losses import LOSSES
from tinker_actors.local.model import BaseModel
from tinker_actors.local.tokenizer import character_tokenizer
from tinker_actors.local.trainer import LoraModel, LossResult
from tinker_actors.local.transformer import ModelConfig, initial_weights

T = TypeVar("T")
CONFIG = ModelConfig(vocab_size=100, context_length=32, layers=2, width=16, heads=4, mlp_width=24)
TINY = BaseModel.build("tiny", CONFIG, initial_weights(CONFIG, 0), character_tokenizer())
TINY64 = BaseModel.build("tiny", CONFIG, initial_weights(CONFIG, 0, np.float64), character_tokenizer())
LORA = LoraConfig(rank=4, seed=1)
ADAM = AdamParams(learning_rate=1e-2)


def run(slices: Generator[None, None, T]) -> T:
    """Drive a generator to its end."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: T = end.value
            return result


def example(seed: int, length: int = 12) -> Example:
    """An example that every loss accepts once its inputs are picked; see `batch`."""
    random = np.random.default_rng(seed)
    return Example(
        random.integers(3, 100, length),
        {
            "target_tokens": random.integers(3, 100, length),
            "weights": random.standard_normal(length).astype(np.float32),
            "logprobs": (-4.5 + 0.3 * random.standard_normal(length)).astype(np.float32),
            "advantages": random.standard_normal(length).astype(np.float32),
        },
    )


def batch(loss_fn: str, lengths: list[int], first_seed: int = 0) -> list[Example]:
    """Examples of these lengths with the inputs the loss takes."""
    names = ("target_tokens", *LOSSES[loss_fn].inputs)
    made = [example(first_seed + index, length) for index, length in enumerate(lengths)]
    return [Example(each.tokens, {name: each.loss_inputs[name] for name in names}) for each in made]


def trained(base: BaseModel = TINY, steps: int = 2) -> LoraModel:
    """A model whose B is not zero any more."""
    model = LoraModel(base, LORA)
    for step in range(steps):
        run(model.forward_backward(batch("cross_entropy", [12, 7], 100 + step), "cross_entropy"))
        model.optim_step(ADAM)
    return model


@pytest.mark.parametrize("loss_fn", list(LOSSES))
def test_gradients_of_every_loss_match_central_differences(loss_fn: str) -> None:
    """The accumulated gradient of every adapter array is the slope of `loss:sum`, to 1e-4 in float64."""
    model = trained(TINY64)
    data = batch(loss_fn, [12, 9, 32, 8])
    run(model.forward_backward(data, loss_fn))
    gradient, weights = model.layout.views(model.gradient), model.weights
    random = np.random.default_rng(0)
    for name, slot in model.layout.slots.items():
        step = np.zeros_like(weights)
        step[slot.offset : slot.end] = random.standard_normal(slot.end - slot.offset)
        losses = []
        for sign in (1, -1):
            moved = model.layout.views(weights + sign * 1e-6 * step)
            model.load_state(moved, optimizer=False)
            losses.append(run(model.forward_backward(data, loss_fn, backward=False)).metrics["loss:sum"])
        wanted = float((gradient[name] * model.layout.view(step, name)).sum())
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(wanted, rel=1e-4), name


@pytest.mark.parametrize("loss_fn", list(LOSSES))
def test_the_loss_is_the_sum_over_tokens_of_the_formula(loss_fn: str) -> None:
    """`loss:sum` is what the returned log-probabilities give by the loss's formula."""
    model = trained()
    data = batch(loss_fn, [12, 5, 20])
    result = run(model.forward_backward(data, loss_fn, backward=False))
    spec = LOSSES[loss_fn]
    wanted = 0.0
    for one, output in zip(data, result.outputs, strict=True):
        inputs = {name: one.loss_inputs[name].astype(np.float64) for name in spec.inputs}
        wanted += spec.function(output["logprobs"].astype(np.float64), inputs, spec.config).value.sum()
    assert result.metrics["loss:sum"] == pytest.approx(wanted, rel=1e-5)
    assert result.metrics["tokens:sum"] == 37


def many(seed: int, length: int, count: int) -> Example:
    """An example with several targets at each position, some of them the same token."""
    random = np.random.default_rng(seed)
    targets = random.integers(3, 9, (length, count))
    weights = random.standard_normal((length, count)).astype(np.float32)
    return Example(random.integers(3, 100, length), {"target_tokens": targets, "weights": weights})


def test_gradients_of_several_targets_at_a_position_match_central_differences() -> None:
    """A batch with (N,) and (N, K) targets has the slope of its loss, in float64, for every adapter array."""
    model = trained(TINY64)
    data = [many(0, 12, 3), *batch("cross_entropy", [12]), many(1, 5, 2)]
    run(model.forward_backward(data, "cross_entropy"))
    gradient, weights = model.layout.views(model.gradient), model.weights
    random = np.random.default_rng(0)
    for name, slot in model.layout.slots.items():
        step = np.zeros_like(weights)
        step[slot.offset : slot.end] = random.standard_normal(slot.end - slot.offset)
        losses = []
        for sign in (1, -1):
            model.load_state(model.layout.views(weights + sign * 1e-6 * step), optimizer=False)
            result = run(model.forward_backward(data, "cross_entropy", backward=False))
            losses.append(result.metrics["loss:sum"])
        wanted = float((gradient[name] * model.layout.view(step, name)).sum())
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(wanted, rel=1e-4), name


def test_several_targets_are_told_as_one_each_would_be() -> None:
    """Column k of an (N, K) output is what the k-th targets alone give; the tokens are positions, not targets."""
    model, data = trained(), many(0, 12, 3)
    together = run(model.forward_backward([data], "cross_entropy", backward=False))
    assert together.metrics["tokens:sum"] == 12
    (output,) = together.outputs
    for k in range(3):
        column = {name: array[:, k] for name, array in data.loss_inputs.items()}
        alone = run(model.forward_backward([Example(data.tokens, column)], "cross_entropy", backward=False))
        assert alone.outputs[0]["logprobs"].tobytes() == output["logprobs"][:, k].tobytes()


def test_one_target_at_a_position_has_the_same_bits_either_way() -> None:
    """(N, 1) and (N,) give the same gradient."""
    gradients = []
    (flat,) = batch("cross_entropy", [12])
    column = {name: array[:, None] for name, array in flat.loss_inputs.items()}
    for data in (flat, Example(flat.tokens, column)):
        model = trained()
        run(model.forward_backward([data], "cross_entropy"))
        gradients.append(model.gradient.tobytes())
    assert gradients[0] == gradients[1]


def test_outputs_are_in_the_order_of_the_data_with_their_lengths() -> None:
    """Whatever order lengths are computed in, output i belongs to example i, as float32."""
    model, lengths = trained(), [20, 3, 9, 32, 3, 8]
    data = batch("cross_entropy", lengths)
    together = run(model.forward_backward(data, "cross_entropy", backward=False)).outputs
    assert [output["logprobs"].shape for output in together] == [(length,) for length in lengths]
    assert all(output["logprobs"].dtype == np.float32 for output in together)
    for one, output in zip(data, together, strict=True):
        alone = run(model.forward_backward([one], "cross_entropy", backward=False)).outputs[0]
        assert alone["logprobs"].tobytes() == output["logprobs"].tobytes()


@pytest.mark.parametrize("others", range(32))
def test_a_datum_has_the_same_bits_alone_and_beside_others(others: int) -> None:
    """Log-probabilities and gradient of a datum do not depend on who shares the batch, nor on its place."""
    random = np.random.default_rng(others)
    subject = batch("ppo", [11], 500)
    crowd = batch("ppo", random.integers(1, 33, others).tolist(), 1000)
    place = int(random.integers(0, others + 1))
    alone, beside = trained(), trained()
    outcome = run(alone.forward_backward(subject, "ppo"))
    silent = [
        Example(one.tokens, {**one.loss_inputs, "advantages": np.zeros(one.tokens.size, np.float32)})
        for one in crowd
    ]
    crowded = run(beside.forward_backward(silent[:place] + subject + silent[place:], "ppo"))
    assert crowded.outputs[place]["logprobs"].tobytes() == outcome.outputs[0]["logprobs"].tobytes()
    assert np.array_equal(beside.gradient, alone.gradient)
    assert alone.gradient.any()


def test_cutting_a_batch_into_calls_changes_no_bit() -> None:
    """Gradients are added up datum by datum in order, over calls as within one."""
    data = batch("importance_sampling", [12, 9, 32, 8, 17, 3, 12])
    whole, parts = trained(), trained()
    run(whole.forward_backward(data, "importance_sampling"))
    for part in (data[:1], data[1:4], data[4:]):
        run(parts.forward_backward(part, "importance_sampling"))
    assert whole.gradient.tobytes() == parts.gradient.tobytes()


def test_padding_and_slices_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long slice and many short ones give the same bits, and the generator yields between slices."""
    data = batch("cross_entropy", [12, 9, 32, 8, 17, 3, 12, 30])
    one, many = trained(), trained()
    monkeypatch.setattr("tinker_actors.local.trainer.SLICE_TOKENS", 10_000)
    assert len(list(one.forward_backward(data, "cross_entropy"))) == 0
    monkeypatch.setattr("tinker_actors.local.trainer.SLICE_TOKENS", 40)
    assert len(list(many.forward_backward(data, "cross_entropy"))) == 4
    assert one.gradient.tobytes() == many.gradient.tobytes()


def test_slices_are_bounded_by_tokens() -> None:
    """A large batch is cut so that no slice exceeds SLICE_TOKENS padded tokens."""
    model = LoraModel(TINY, LORA)
    yields = len(list(model.forward_backward(batch("cross_entropy", [32] * 40), "cross_entropy")))
    assert yields == 40 * 32 // 512 - 1 + 1  # 2.5 windows of 512 are 3 slices with 2 yields


def test_slices_are_bounded_by_gradient_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a high rank few short examples already fill a slice, and the bits stay the same."""
    data = batch("cross_entropy", [3] * 6)
    one, many = trained(), trained()
    assert len(list(one.forward_backward(data, "cross_entropy"))) == 0
    monkeypatch.setattr("tinker_actors.local.trainer.SLICE_NUMBERS", 2 * many.layout.size + 1)
    assert len(list(many.forward_backward(data, "cross_entropy"))) == 2
    assert one.gradient.tobytes() == many.gradient.tobytes()


@pytest.mark.parametrize("how", ["close", "throw", "drop"])
def test_an_abandoned_call_leaves_the_gradient_as_it_was(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing, throwing into or dropping the generator between slices accumulates nothing."""
    monkeypatch.setattr("tinker_actors.local.trainer.SLICE_TOKENS", 16)
    model = trained()
    run(model.forward_backward(batch("cross_entropy", [12]), "cross_entropy"))
    before = model.gradient.tobytes()
    slices = model.forward_backward(batch("cross_entropy", [12, 12, 12], 7), "cross_entropy")
    next(slices)
    next(slices)
    if how == "close":
        slices.close()
    elif how == "throw":
        with pytest.raises(KeyError):
            slices.throw(KeyError())
    else:
        del slices
    assert model.gradient.tobytes() == before
    run(model.forward_backward(batch("cross_entropy", [12], 9), "cross_entropy"))
    assert model.gradient.tobytes() != before


def test_a_loss_that_is_not_finite_accumulates_nothing() -> None:
    """An importance ratio that overflows is an error with the loss's value, and the gradient stays."""
    model = trained()
    run(model.forward_backward(batch("importance_sampling", [12]), "importance_sampling"))
    before = model.gradient.tobytes()
    bad = batch("importance_sampling", [12, 8])
    bad[1] = Example(bad[1].tokens, {**bad[1].loss_inputs, "logprobs": np.full(8, -1e5, np.float32)})
    with pytest.raises(InputError, match=r"loss:sum = -?(inf|nan)"):
        run(model.forward_backward(bad, "importance_sampling"))
    assert model.gradient.tobytes() == before


def test_a_gradient_that_is_not_finite_accumulates_nothing() -> None:
    """The loss may just fit into float32 where its gradient does not."""
    model = trained()
    model.load_state(
        {name: array * 50 for name, array in model.layout.views(model.weights).items()}, optimizer=False
    )
    bad = batch("importance_sampling", [8])
    inputs = {**bad[0].loss_inputs, "advantages": np.full(8, 1.0, np.float32)}
    logprobs = run(model.forward_backward(bad, "importance_sampling", backward=False)).outputs[0]["logprobs"]
    extreme = Example(bad[0].tokens, {**inputs, "logprobs": logprobs - np.float32(86)})
    assert np.isfinite(
        run(model.forward_backward([extreme], "importance_sampling", backward=False)).metrics["loss:sum"]
    )
    with pytest.raises(InputError, match="gradient"):
        run(model.forward_backward([extreme], "importance_sampling"))
    assert not model.gradient.any()


def test_changing_the_model_between_slices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls interleaved would lose one gradient; the second to finish says so instead."""
    monkeypatch.setattr("tinker_actors.local.trainer.SLICE_TOKENS", 16)
    model = LoraModel(TINY, LORA)
    slices = model.forward_backward(batch("cross_entropy", [12, 12]), "cross_entropy")
    next(slices)
    run(model.forward_backward(batch("cross_entropy", [12]), "cross_entropy"))
    with pytest.raises(RuntimeError, match="changed while"):
        run(slices)


def test_forward_alone_accumulates_nothing() -> None:
    """With backward=False the numbers are the same and the gradient stays zero."""
    model = trained()
    data = batch("ppo", [12, 9])
    forward_only = run(model.forward_backward(data, "ppo", backward=False))
    assert not model.gradient.any()
    both = run(model.forward_backward(data, "ppo"))
    assert both.metrics == forward_only.metrics


def test_off_policy_metrics_are_means_over_tokens_that_count() -> None:
    """`ratio:mean`, `kl:mean` and `clip_fraction:mean` leave out tokens without advantage, and padding."""
    model = trained()
    data = batch("ppo", [12])
    logprobs = run(model.forward_backward(data, "ppo", backward=False)).outputs[0]["logprobs"]
    advantages = np.where(np.arange(12) < 6, 0, 1).astype(np.float32)
    sampler = np.where(np.arange(12) < 6, 0, logprobs - np.log(1.5)).astype(np.float32)
    one = Example(data[0].tokens, {**data[0].loss_inputs, "logprobs": sampler, "advantages": advantages})
    metrics = run(model.forward_backward([one], "ppo", backward=False)).metrics
    assert metrics["tokens:sum"] == 6
    assert metrics["ratio:mean"] == pytest.approx(1.5, rel=1e-5)
    assert metrics["kl:mean"] == pytest.approx(-np.log(1.5), rel=1e-5)
    assert metrics["clip_fraction:mean"] == 1.0
    silent = Example(one.tokens, {**one.loss_inputs, "advantages": np.zeros(12, np.float32)})
    assert set(run(model.forward_backward([silent], "ppo")).metrics) == {"loss:sum", "tokens:sum"}


def test_loss_configuration_reaches_the_loss() -> None:
    """With thresholds far apart ppo clips no token, with its defaults some."""
    model = trained()
    data = batch("ppo", [12, 12])
    usual, wide = (
        run(model.forward_backward(data, "ppo", config, backward=False)).metrics["clip_fraction:mean"]
        for config in (None, {"clip_low_threshold": 0.0, "clip_high_threshold": 1e9})
    )
    assert wide == 0 < usual


def test_training_lowers_the_loss() -> None:
    """Twenty steps on one batch at least halve its loss."""
    model = LoraModel(TINY, LORA)
    data = [
        Example(one.tokens, {**one.loss_inputs, "weights": np.ones(12, np.float32)})
        for one in batch("cross_entropy", [12])
    ]
    losses: list[LossResult] = []
    for _ in range(20):
        losses.append(run(model.forward_backward(data, "cross_entropy")))
        model.optim_step(AdamParams(learning_rate=2e-2))
    assert losses[-1].metrics["loss:sum"] < losses[0].metrics["loss:sum"] / 2


def test_optim_step_reports_and_starts_a_new_sum() -> None:
    """The metrics are the norms; afterwards the gradient is zero and the network moved."""
    model = LoraModel(TINY, LORA)
    data = batch("cross_entropy", [12])
    before = run(model.forward_backward(data, "cross_entropy"))
    length = float(np.linalg.norm(model.gradient.astype(np.float64)))
    metrics = model.optim_step(AdamParams(learning_rate=1e-2, grad_clip_norm=1e-3))
    assert metrics["grad_norm"] == pytest.approx(length)
    assert metrics["param_norm"] == pytest.approx(float(np.linalg.norm(model.weights.astype(np.float64))))
    assert metrics["learning_rate"] == 1e-2
    assert not model.gradient.any()
    after = run(model.forward_backward(data, "cross_entropy", backward=False))
    assert after.metrics["loss:sum"] != before.metrics["loss:sum"]


def test_a_step_out_of_range_changes_nothing() -> None:
    """A learning rate that would leave infinite weights is refused; the model and its optimizer stay usable."""
    model = trained()
    run(model.forward_backward(batch("cross_entropy", [12]), "cross_entropy"))
    weights, gradient = model.weights.tobytes(), model.gradient.tobytes()
    with pytest.raises(InputError, match="learning_rate"):
        model.optim_step(AdamParams(learning_rate=1e300))
    assert (model.weights.tobytes(), model.gradient.tobytes()) == (weights, gradient)
    assert int(model.state(optimizer=True)["optimizer.t"].item()) == 2


@pytest.mark.parametrize("optimizer", [True, False])
def test_state_round_trip_is_exact(optimizer: bool) -> None:
    """Every array comes back bit for bit, in a model that was made with another seed."""
    state = trained().state(optimizer=optimizer)
    other = LoraModel(TINY, LoraConfig(rank=4, seed=99))
    other.load_state(state, optimizer=optimizer)
    again = other.state(optimizer=optimizer)
    assert state.keys() == again.keys()
    assert all(again[name].tobytes() == state[name].tobytes() for name in state)
    assert ("optimizer.t" in state) is optimizer


def test_training_after_a_load_equals_training_without_it() -> None:
    """Saving and loading in the middle of a run changes no bit of what follows."""
    straight = trained()
    resumed = LoraModel(TINY, LoraConfig(rank=4, seed=99))
    resumed.load_state(straight.state(optimizer=True), optimizer=True)
    for step in range(3):
        for model in (straight, resumed):
            run(model.forward_backward(batch("ppo", [12, 9], step), "ppo"))
            model.optim_step(ADAM)
    assert resumed.weights.tobytes() == straight.weights.tobytes()


def test_loading_without_the_optimizer_starts_it_afresh() -> None:
    """The same weights with a new optimizer train differently from those with the old one."""
    state = trained().state(optimizer=True)
    results = []
    for optimizer in (True, False):
        model = LoraModel(TINY, LORA)
        model.load_state(state, optimizer=optimizer)
        run(model.forward_backward(batch("cross_entropy", [12]), "cross_entropy"))
        model.optim_step(ADAM)
        results.append(model.weights.tobytes())
        assert int(model.state(optimizer=True)["optimizer.t"].item()) == (3 if optimizer else 1)
    assert results[0] != results[1]


@pytest.mark.parametrize(
    "name",
    [
        "layers.0.attn.qkv.lora_a",
        "optimizer.m.unembed.lora_b",
        "optimizer.v.layers.1.mlp.up.lora_a",
        "optimizer.t",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_a_damaged_state_is_refused_and_changes_nothing(name: str, damage: str) -> None:
    """A missing or ill-shaped array is named, and the model stays as it was."""
    model = trained()
    before = model.state(optimizer=True)
    damaged = dict(before)
    if damage == "missing":
        del damaged[name]
    else:
        damaged[name] = np.zeros((2, 3), np.float32)
    with pytest.raises(InputError, match=name):
        model.load_state(damaged, optimizer=True)
    after = model.state(optimizer=True)
    assert all(after[key].tobytes() == before[key].tobytes() for key in before)


def test_a_negative_step_count_is_refused() -> None:
    """Adam's bias correction would be nonsense."""
    model = trained()
    with pytest.raises(InputError, match=r"optimizer\.t = -1"):
        model.load_state({**model.state(optimizer=True), "optimizer.t": np.array(-1)}, optimizer=True)


def test_loading_drops_the_accumulated_gradient() -> None:
    """A checkpoint stands between steps, so what was accumulated before belongs to nothing any more."""
    model = trained()
    run(model.forward_backward(batch("cross_entropy", [12]), "cross_entropy"))
    model.load_state(model.state(optimizer=True), optimizer=True)
    assert not model.gradient.any()


def test_a_snapshot_does_not_follow_the_model() -> None:
    """A sampler keeps the weights of its moment while training goes on."""
    model = trained()
    snapshot = model.snapshot()
    before = snapshot.flat.tobytes()
    run(model.forward_backward(batch("cross_entropy", [12]), "cross_entropy"))
    model.optim_step(ADAM)
    assert snapshot.flat.tobytes() == before != model.weights.tobytes()


def test_bad_input_is_refused_by_the_call_itself() -> None:
    """Errors come before the first slice, so a driver need not start a thread to learn of them."""
    model = LoraModel(TINY, LORA)
    with pytest.raises(InputError, match="batch is empty"):
        model.forward_backward([], "cross_entropy")
    with pytest.raises(InputError, match="loss_fn"):
        model.forward_backward(batch("ppo", [3]), "gspo")
    with pytest.raises(InputError, match="clip_low_threshold"):
        model.forward_backward(batch("cross_entropy", [3]), "cross_entropy", {"clip_low_threshold": 0.5})
