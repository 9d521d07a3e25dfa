from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import json_values
from tinker_actors.errors import InputError
from tinker_actors.protocol.batch import (
    check_adam,
    check_batch,
    check_name,
    check_optim,
    check_prompt,
    check_sampling,
)
from tinker_actors.wire.codec import encode
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.optimizer import AdamParams, DimuonParams, OptimParamsBase
from tinker_actors.wire.sampling import SamplingParams
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import LOSS_FNS

PROMPT = ModelInput.from_ints([1, 2, 3])
ONES = [1.0, 1.0, 1.0]
INPUTS: dict[str, Any] = {
    "target_tokens": [2, 3, 4],
    "weights": ONES,
    "logprobs": ONES,
    "advantages": ONES,
    "sequence_ratio_mask": ONES,
}
NEEDS = {
    "cross_entropy": ["target_tokens", "weights"],
    "importance_sampling": ["target_tokens", "logprobs", "advantages"],
    "ppo": ["target_tokens", "logprobs", "advantages"],
    "cispo": ["target_tokens", "logprobs", "advantages"],
    "dro": ["target_tokens", "logprobs", "advantages"],
    "gspo": ["target_tokens", "logprobs", "advantages", "sequence_ratio_mask"],
}


def datum(**changes: Any) -> Datum:
    """Make a datum that is good for every loss, but for the inputs that are given; None leaves one out."""
    inputs = {key: value for key, value in {**INPUTS, **changes}.items() if value is not None}
    return Datum(PROMPT, inputs)


def refusal(act: Callable[[], object]) -> tuple[str, object]:
    with pytest.raises(InputError) as caught:
        act()
    assert caught.value.started is False
    return caught.value.field, caught.value.value


# --- batches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSS_FNS)
def test_a_good_batch_passes(loss: str) -> None:
    """Every loss of Tinker is known, with numbers and strings as settings."""
    assert check_batch([datum(), datum()], loss, {"clip_low_threshold": 0.8, "loss_id": "x", "n": 3}) == loss
    assert check_batch([datum()], loss, None) == loss


def test_large_numbers_are_finite_too() -> None:
    """Their squares are not, which is how the others are found."""
    assert check_batch([datum(weights=[3e38, -3e38, 1.0])], "cross_entropy", None) == "cross_entropy"


@pytest.mark.parametrize("loss", NEEDS)
def test_each_loss_needs_its_inputs(loss: str) -> None:
    """A missing one is told with those that are there; the others are not missed."""
    for key in INPUTS:
        batch = [datum(), datum(**{key: None})]
        if key in NEEDS[loss]:
            field, value = refusal(partial(check_batch, batch, loss, None))
            assert field == "data[1].loss_fn_inputs"
            assert value == sorted(set(INPUTS) - {key})
        else:
            check_batch(batch, loss, None)


def test_other_losses_read_what_they_like() -> None:
    """Which inputs they need, and of which shape, is checked by the service alone."""
    odd = Datum(PROMPT, {"margin": TensorData([0.5], "float32"), "scale": TensorData(2.0, "float32")})
    assert check_batch([odd], "custom", {"loss_id": "mine"}) == "custom"
    assert check_batch([Datum(PROMPT)], "stable_reinforce", None) == "stable_reinforce"


BATCHES: dict[str, tuple[Any, Any, Any, str, object]] = {
    "empty": ([], "ppo", None, "data", []),
    "unknown loss": ([datum()], "mse", None, "loss_fn", "mse"),
    "no loss": ([datum()], None, None, "loss_fn", None),
    "text": ("ab", "ppo", None, "data[0]", "a"),
    "no datum": ([datum(), {"tokens": [1]}], "ppo", None, "data[1]", {"tokens": [1]}),
    "no tokens": ([Datum(ModelInput.empty())], "ppo", None, "data[0].model_input", ModelInput.empty()),
    "wrong length": (
        [datum(), datum(weights=[1.0, 1.0])],
        "cross_entropy",
        None,
        "data[1].loss_fn_inputs['weights'].shape",
        (2,),
    ),
    "too long target": (
        [datum(target_tokens=[1, 2, 3, 4])],
        "cross_entropy",
        None,
        "data[0].loss_fn_inputs['target_tokens'].shape",
        (4,),
    ),
    "no dimension": (
        [datum(weights=TensorData(1.0, "float32"))],
        "cross_entropy",
        None,
        "data[0].loss_fn_inputs['weights'].shape",
        (),
    ),
    "float targets": (
        [datum(target_tokens=np.ones(3))],
        "cross_entropy",
        None,
        "data[0].loss_fn_inputs['target_tokens'].dtype",
        "float32",
    ),
    "integer weights": (
        [datum(weights=np.ones(3, np.int64))],
        "cross_entropy",
        None,
        "data[0].loss_fn_inputs['weights'].dtype",
        "int64",
    ),
    "infinite weight": (
        [datum(), datum(weights=[1.0, math.inf, 1.0])],
        "cross_entropy",
        None,
        "data[1].loss_fn_inputs['weights'][1]",
        math.inf,
    ),
    "infinite in a matrix": (
        [datum(weights=np.array([[1.0, 2.0], [3.0, -math.inf], [0.0, 0.0]]))],
        "cross_entropy",
        None,
        "data[0].loss_fn_inputs['weights'][1][1]",
        -math.inf,
    ),
    "infinite for a custom loss": (
        [datum(margin=np.array([math.inf]))],
        "custom",
        None,
        "data[0].loss_fn_inputs['margin'][0]",
        math.inf,
    ),
    "setting true": ([datum()], "ppo", {"clip": True}, "loss_fn_config['clip']", True),
    "setting none": ([datum()], "ppo", {"clip": None}, "loss_fn_config['clip']", None),
    "setting infinite": ([datum()], "ppo", {"clip": math.inf}, "loss_fn_config['clip']", math.inf),
    "setting too large": ([datum()], "ppo", {"clip": 2**64}, "loss_fn_config['clip']", 2**64),
    "setting list": ([datum()], "ppo", {"clip": [1]}, "loss_fn_config['clip']", [1]),
    "setting half character": ([datum()], "ppo", {"mode": "\ud800"}, "loss_fn_config['mode']", "\ud800"),
    "setting's name": ([datum()], "ppo", {1: 0.5}, "loss_fn_config", 1),
    "settings as list": ([datum()], "ppo", [("clip", 1)], "loss_fn_config", [("clip", 1)]),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_bad_batch_is_refused_by_its_place(name: str) -> None:
    """Field and value are exactly those that are wrong."""
    data, loss, config, field, value = BATCHES[name]
    assert refusal(lambda: check_batch(data, loss, config)) == (field, value)


def test_a_function_in_the_place_of_a_loss_is_told_where_it_belongs() -> None:
    """Losses of one's own have a verb of their own."""

    def loss(data: object, logprobs: object) -> None: ...

    assert refusal(lambda: check_batch([datum()], loss, None)) == ("loss_fn", loss)
    with pytest.raises(InputError, match="forward_backward_custom"):
        check_batch([datum()], loss, None)  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("key", ["weights", "advantages", "logprobs", "clip_low_threshold"])
def test_nan_is_found_wherever_it_stands(key: str) -> None:
    """The first one is named, and shown as nan."""
    bad = datum(**{key: [1.0, math.nan, math.nan]})
    field, value = refusal(lambda: check_batch([datum(), datum(), bad], "ppo", None))
    assert field == f"data[2].loss_fn_inputs[{key!r}][1]"
    assert isinstance(value, float)
    assert math.isnan(value)


def test_numbers_whose_squares_are_too_large_are_good() -> None:
    """Finite is what every number is by itself, up to the largest one; no warning comes of it."""
    check_batch([datum(weights=[3.4e38] * 3)], "cross_entropy", None)


def test_a_ragged_target_does_not_become_a_datum() -> None:
    """It is refused when the datum is made, with its key."""
    field, value = refusal(lambda: datum(target_tokens=[[1, 2], [3]]))
    assert (field, value) == ("loss_fn_inputs['target_tokens']", [[1, 2], [3]])


def test_targets_may_have_candidates() -> None:
    """A second dimension is the service's business; the first is the model input's."""
    pairs: Any = [[1, 2], [3, 4], [5, 6]]
    assert check_batch([datum(target_tokens=pairs, weights=pairs)], "cross_entropy", None) == "cross_entropy"


# --- optimizer -------------------------------------------------------------------------------------------


def test_good_optimizer_settings_pass() -> None:
    """Zeros, integers and numpy's numbers, too."""
    check_adam(AdamParams())
    check_adam(AdamParams(learning_rate=0, beta1=0, beta2=0, eps=0, weight_decay=0, grad_clip_norm=0))
    rate: Any = np.float32(1e-3)
    norm: Any = np.int64(1)
    check_adam(AdamParams(learning_rate=rate, grad_clip_norm=norm))
    assert b'"learning_rate":0.001,' in encode(AdamParams(learning_rate=rate))


NO_NUMBERS: list[Any] = [
    "1e-3",
    None,
    True,
    math.nan,
    math.inf,
    -math.inf,
    -1e-9,
    2**64,
    Fraction(1, 2),
    [1.0],
    1j,
]


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(AdamParams)])
def test_each_optimizer_setting_must_be_a_finite_number_that_is_not_negative(name: str) -> None:
    """Field and value are told for every one of them."""
    for value in NO_NUMBERS:
        params = attrs.evolve(AdamParams(), **{name: value})
        field, told = refusal(partial(check_adam, params))
        assert field == f"adam_params.{name}"
        assert told is value


@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_a_decay_of_one_never_moves(name: str) -> None:
    """It must be below."""
    params = attrs.evolve(AdamParams(), **{name: 1.0})
    assert refusal(lambda: check_adam(params)) == (f"adam_params.{name}", 1.0)


def test_other_things_are_no_optimizer_settings() -> None:
    """A mapping with the right keys is none, either."""
    assert refusal(lambda: check_adam({"learning_rate": 1e-3})) == ("adam_params", {"learning_rate": 1e-3})
    assert refusal(lambda: check_adam(None)) == ("adam_params", None)


def test_every_optimizer_has_its_settings() -> None:
    """Adam's are checked here, the others' check themselves; anything else is none."""
    check_optim(AdamParams())
    check_optim(DimuonParams(learning_rate=0.1))
    check_optim(OptimParamsBase("lion", {"learning_rate": 0.1}))
    assert refusal(lambda: check_optim(AdamParams(beta1=1.0))) == ("adam_params.beta1", 1.0)
    assert refusal(lambda: check_optim({"learning_rate": 0.1})) == ("optim_params", {"learning_rate": 0.1})
    assert refusal(lambda: check_optim(None)) == ("optim_params", None)


# --- samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "num_samples", "field", "value"),
    [
        ([1, 2], 1, "prompt", [1, 2]),
        ("hello", 1, "prompt", "hello"),
        (ModelInput.empty(), 1, "prompt", ModelInput.empty()),
        (PROMPT, 0, "num_samples", 0),
        (PROMPT, -1, "num_samples", -1),
        (PROMPT, True, "num_samples", True),
        (PROMPT, 2.0, "num_samples", 2.0),
        (PROMPT, "2", "num_samples", "2"),
        (PROMPT, None, "num_samples", None),
        (PROMPT, 2**31, "num_samples", 2**31),
    ],
)
def test_a_prompt_has_tokens_and_is_continued_at_least_once(
    prompt: Any, num_samples: Any, field: str, value: object
) -> None:
    """Field and value are told."""
    check_prompt(PROMPT, 1)
    check_prompt(PROMPT, np.int64(4))
    assert refusal(lambda: check_prompt(prompt, num_samples)) == (field, value)


@pytest.mark.parametrize("value", [-1, False, True, 1.5, None, 2**31])
def test_how_many_likely_tokens_are_wanted_is_a_count(value: Any) -> None:
    """None of them is a count as well, but None is none."""
    check_prompt(PROMPT, 1, 0)
    check_prompt(PROMPT, 1, np.int64(20))
    assert refusal(lambda: check_prompt(PROMPT, 1, value)) == ("topk_prompt_logprobs", value)


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"max_tokens": 1},
        {"max_tokens": np.int64(8), "temperature": np.float32(0.5)},
        {"temperature": 0},
        {"top_k": 1},
        {"top_k": -1},
        {"top_p": 1},
        {"top_p": 1e-6},
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"stop": "\n"},
        {"stop": []},
        {"stop": ["a", "b"]},
        {"stop": [0, 5]},
        {"stop": (5,)},
    ],
    ids=str,
)
def test_good_sampling_settings_pass(good: dict[str, Any]) -> None:
    """And can be written as JSON."""
    params = SamplingParams(**good)
    check_sampling(params)
    assert orjson.loads(encode(params))


SAMPLING: list[tuple[str, list[Any]]] = [
    ("max_tokens", [0, -1, True, 2.0, "3", 2**31, [4]]),
    ("temperature", [-0.1, math.nan, math.inf, "1", None, True, 2**64]),
    ("top_k", [0, -2, 1.0, True, "5", None, 2**31]),
    ("top_p", [0, 0.0, -0.5, 1.5, math.nan, "1", None, True]),
    ("seed", [-1, 2**63, 1.0, True, "0"]),
    ("stop", [5, 1.5, {"a": 1}, {1, 2}, b"a", "\ud800"]),
]


@pytest.mark.parametrize(("name", "values"), SAMPLING, ids=[name for name, _ in SAMPLING])
def test_bad_sampling_settings_are_refused(name: str, values: list[Any]) -> None:
    """A wrong type as well as a value out of range, with the field and the value."""
    for value in values:
        params = SamplingParams(**{name: value})
        field, told = refusal(partial(check_sampling, params))
        assert field == f"sampling_params.{name}"
        assert told is value


@pytest.mark.parametrize(
    ("stop", "index", "value"),
    [
        (["a", 1], 0, "a"),
        ([1, "a"], 1, "a"),
        ([1, True], 1, True),
        ([1, -1], 1, -1),
        ([1, 2.0], 1, 2.0),
        (["a", "\ud800"], 1, "\ud800"),
        ([None], 0, None),
    ],
)
def test_each_stop_must_be_of_one_kind(stop: Any, index: int, value: object) -> None:
    """Strings or token ids, not both; the one that is wrong is named."""
    params = SamplingParams(stop=stop)
    assert refusal(lambda: check_sampling(params)) == (f"sampling_params.stop[{index}]", value)


def test_other_things_are_no_sampling_settings() -> None:
    """A mapping with the right keys is none, either."""
    assert refusal(lambda: check_sampling({"top_k": 1})) == ("sampling_params", {"top_k": 1})


@given(st.fixed_dictionaries({}, optional={f.name: json_values for f in attrs.fields(SamplingParams)}))
def test_any_sampling_settings_pass_or_are_refused(settings: dict[str, Any]) -> None:
    """Whatever a user writes: an InputError with the field, or something that can be sent."""
    params, field = SamplingParams(**settings), ""
    try:
        check_sampling(params)
    except InputError as error:
        field = error.field
    if field:
        assert field.partition("[")[0].removeprefix("sampling_params.") in settings
    else:
        assert orjson.loads(encode(params))


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "step-0010", "A_b.c-9", "...", "x" * 128])
def test_good_names_pass(name: str) -> None:
    """Letters, digits and three signs."""
    check_name("name", name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "x" * 129, "a/b", "a b", "a\n", "ä", "a\x00", "a:b", None, 5, ["a"], b"a"],
    ids=repr,
)
def test_what_cannot_stand_in_a_path_is_no_name(name: Any) -> None:
    """The field is the caller's name for it."""
    assert refusal(lambda: check_name("name", name)) == ("name", name)


@given(st.text(max_size=6))
def test_a_name_that_passes_is_one_part_of_a_path(name: str) -> None:
    """No text gets past it that means another place."""
    try:
        check_name("name", name)
    except InputError:
        return
    assert name.isascii()
    assert not set(name) & set("/\\:\0 ")
    assert name not in ("", ".", "..")
