from __future__ import annotations

import numpy as np
import pytest

from tinker_actors.errors import InputError
from tinker_actors.text.renderer import datum_from_model_input_weights
from tinker_actors.wire.input import ModelInput

EXAMPLE = ModelInput.from_ints([5, 6, 7, 8])
WEIGHTS = np.array([0, 0, 1, 1], np.float32)


def test_each_token_is_predicted_from_those_before_it() -> None:
    """The targets are the tokens from the second on, with their weights."""
    datum = datum_from_model_input_weights(EXAMPLE, WEIGHTS)
    assert datum.model_input.to_numpy().tolist() == [5, 6, 7]
    assert datum.loss_fn_inputs["target_tokens"].to_numpy().tolist() == [6, 7, 8]
    assert datum.loss_fn_inputs["target_tokens"].dtype == "int64"
    assert datum.loss_fn_inputs["weights"].to_numpy().tolist() == [0, 1, 1]


def test_an_example_may_be_cut() -> None:
    """From behind."""
    datum = datum_from_model_input_weights(EXAMPLE, WEIGHTS, max_length=3)
    assert datum.loss_fn_inputs["target_tokens"].to_numpy().tolist() == [6, 7]


@pytest.mark.parametrize(
    ("weights", "max_length", "field"),
    [(WEIGHTS[:3], None, "weights"), (WEIGHTS, 1, "model_input"), (WEIGHTS, -1, "max_length")],
)
def test_what_makes_no_datum_is_refused(weights: np.ndarray, max_length: int | None, field: str) -> None:
    """A weight for each token, something to predict, and a length that is one."""
    with pytest.raises(InputError) as caught:
        datum_from_model_input_weights(EXAMPLE, weights, max_length)
    assert caught.value.field == field
