"""One training example, and the checks it must pass before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.errors import InputError

from .losses import LossSpec
from .transformer import ModelConfig

__all__ = ["Example", "check_examples", "check_tokens"]

TARGETS = "target_tokens"


@attrs.frozen(eq=False)
class Example:
    """One datum.

    Attributes:
        tokens: (N,) integers, the input.
        loss_inputs: by Tinker's names, each of shape (N,): `target_tokens` (integers) and what the loss
            needs.
    """

    tokens: NDArray[np.int64]
    loss_inputs: Mapping[str, NDArray[np.generic]]


def check_tokens(field: str, tokens: NDArray[np.generic], config: ModelConfig) -> None:
    """Check one sequence of token ids.

    Raises:
        InputError: it is empty, not one-dimensional, not of integers, longer than the context, or holds an id
            outside the vocabulary. The field names the position.
    """
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise InputError(
            field, f"{tokens.dtype} {tokens.shape}", "must be a one-dimensional array of integers"
        )
    if not 1 <= tokens.size <= config.context_length:
        raise InputError(
            field, f"{tokens.size} tokens", f"must be 1 to {config.context_length} tokens, the context"
        )
    ids = tokens.astype(np.int64)
    wrong = np.flatnonzero((ids < 0) | (ids >= config.vocab_size))
    if wrong.size:
        where = int(wrong[0])
        why = f"must be a token id below {config.vocab_size}"
        raise InputError(f"{field}[{where}]", int(ids[where]), why)


def check_examples(examples: Sequence[Example], spec: LossSpec, config: ModelConfig) -> None:
    """Check a batch for one loss.

    Raises:
        InputError: the batch is empty; tokens or targets are bad (see `check_tokens`); a loss input is
            missing, unknown to the loss, of another shape than the tokens, or holds a number that is not
            finite.
    """
    if not examples:
        raise InputError("data", [], "the batch is empty")
    for index, example in enumerate(examples):
        _check_example(f"data[{index}]", example, spec, config)


def _check_example(field: str, example: Example, spec: LossSpec, config: ModelConfig) -> None:
    check_tokens(f"{field}.model_input", example.tokens, config)
    wanted = (TARGETS, *spec.inputs)
    for name in wanted:
        if name not in example.loss_inputs:
            raise InputError(
                f"{field}.loss_fn_inputs", sorted(example.loss_inputs), f"{spec.name} needs {name!r}"
            )
    for name, array in example.loss_inputs.items():
        where = f"{field}.loss_fn_inputs[{name!r}]"
        if name not in wanted:
            raise InputError(where, f"{array.dtype} {array.shape}", f"{spec.name} takes {', '.join(wanted)}")
        if array.shape != example.tokens.shape:
            raise InputError(where, array.shape, f"must have the input's shape {example.tokens.shape}")
        if name != TARGETS:
            _check_numbers(where, array)
    check_tokens(f"{field}.loss_fn_inputs[{TARGETS!r}]", example.loss_inputs[TARGETS], config)


def _check_numbers(field: str, array: NDArray[np.generic]) -> None:
    if array.dtype.kind not in "fiu":
        raise InputError(field, str(array.dtype), "must be numbers")
    numbers = array.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if wrong.size:
        where = int(wrong[0])
        raise InputError(f"{field}[{where}]", float(numbers[where]), "must be finite")
