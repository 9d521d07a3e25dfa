from __future__ import annotations

import numpy as np
import pytest

from tinker_actors.errors import InputError
from tinker_actors.local.example import Example, check_examples
from tinker_actors.local.losses import LOSSES
from tinker_actors.local.transformer import ModelConfig

CONFIG = ModelConfig(vocab_size=100, context_length=16)
GOOD = {"target_tokens": np.array([4, 5, 6]), "weights": np.ones(3, np.float32)}


def check(tokens: object = (3, 4, 5), **changes: object) -> None:
    """Check a batch of a good datum and one with these changes; None takes an input away."""
    inputs = {**GOOD, **{name: np.array(value) for name, value in changes.items() if value is not None}}
    for name in [name for name, value in changes.items() if value is None]:
        del inputs[name]
    data = [Example(np.array([3, 4, 5]), GOOD), Example(np.array(tokens), inputs)]
    check_examples(data, LOSSES["cross_entropy"], CONFIG)


def test_good_data_pass() -> None:
    """Integer weights and unsigned token ids are numbers too."""
    check()
    check(weights=[0, 1, 1])
    check(np.array([3, 4, 5], np.uint8))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "1 to 16 tokens"),
        ([3] * 17, r"17 tokens': must be 1 to 16"),
        ([3, 100, 5], r"data\[1\].model_input\[1\] = 100: must be a token id below 100"),
        ([3, 4, -1], r"data\[1\].model_input\[2\] = -1"),
        ([[3, 4, 5]], "one-dimensional"),
        ([3.0, 4.0, 5.0], "integers"),
    ],
)
def test_bad_tokens_are_named(tokens: list[object], message: str) -> None:
    """The datum, the position and the id stand in the error."""
    with pytest.raises(InputError, match=message):
        check(np.array(tokens, np.int64) if tokens == [] else tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None}, r"cross_entropy needs 'weights'"),
        ({"target_tokens": None}, r"cross_entropy needs 'target_tokens'"),
        ({"weights": [1.0, float("nan"), 1.0]}, r"\['weights'\]\[1\] = nan: must be finite"),
        ({"weights": [1.0, 1.0, float("inf")]}, r"\['weights'\]\[2\] = inf"),
        ({"weights": [1.0, 1.0]}, r"\['weights'\] = \(2,\): must have the input's shape \(3,\)"),
        ({"weights": ["1", "1", "1"]}, r"must be numbers"),
        ({"target_tokens": [4, 5, 100]}, r"\['target_tokens'\]\[2\] = 100"),
        ({"target_tokens": [4.0, 5.0, 6.0]}, r"integers"),
        ({"target_tokens": [[4, 5]], "weights": [[1.0, 1.0]]}, r"the input has 3 tokens"),
        ({"target_tokens": [[4], [5], [6]]}, r"\['weights'\] = \(3,\): must have the input's shape \(3, 1\)"),
        (
            {"target_tokens": [[4, 5], [6, 7], [8, 100]], "weights": [[1.0, 1.0]] * 3},
            r"\['target_tokens'\]\[2\]\[1\] = 100",
        ),
        ({"target_tokens": [[], [], []]}, r"must have the input's shape \(3,\)"),
        ({"target_tokens": [[[4]], [[5]], [[6]]]}, r"must have the input's shape \(3,\)"),
        ({"mask": [1.0, 1.0, 1.0]}, r"\['mask'\].*takes target_tokens, weights"),
    ],
)
def test_bad_loss_inputs_are_named(changes: dict[str, object], message: str) -> None:
    """Missing, unknown, ragged and non-finite inputs name datum, input and position."""
    with pytest.raises(InputError, match=message) as caught:
        check(**changes)
    assert caught.value.field.startswith("data[1]")


def test_several_targets_at_a_position_are_for_cross_entropy_alone() -> None:
    """It takes (N, K) targets with weights of their shape; losses that compare with a sampler do not."""
    check(target_tokens=[[4, 5], [6, 7], [8, 9]], weights=[[1.0, 0.5]] * 3)
    inputs = {"target_tokens": np.zeros((3, 2), np.int64)}
    for name in LOSSES["ppo"].inputs:
        inputs[name] = np.zeros((3, 2), np.float32)
    with pytest.raises(InputError, match=r"must have the input's shape \(3,\)"):
        check_examples([Example(np.array([3, 4, 5]), inputs)], LOSSES["ppo"], CONFIG)


def test_an_empty_batch_is_refused() -> None:
    """There is nothing to compute a loss of."""
    with pytest.raises(InputError, match="batch is empty"):
        check_examples([], LOSSES["ppo"], CONFIG)
