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
        loss_inputs: by Tinker's names: `target_tokens` (integers) and what the loss needs, all of shape (N,);
            or (N, K) for K targets at each position, where the loss takes them.
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
    _check_ids(field, tokens, config)


def _check_ids(field: str, tokens: NDArray[np.generic], config: ModelConfig) -> None:
    ids = tokens.astype(np.int64)
    wrong = np.argwhere((ids < 0) | (ids >= config.vocab_size))
    if wrong.size:
        raise InputError(
            f"{field}{_place(wrong[0])}",
            int(ids[tuple(wrong[0])]),
            f"must be a token id below {config.vocab_size}",
        )


def _place(indices: NDArray[np.intp]) -> str:
    return "".join(f"[{index}]" for index in indices)


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
    targets = example.loss_inputs[TARGETS]
    shape = targets.shape if spec.many and targets.ndim == 2 and targets.size else example.tokens.shape[:1]
    if shape[0] != example.tokens.size:
        raise InputError(
            f"{field}.loss_fn_inputs[{TARGETS!r}]", shape, f"the input has {example.tokens.size} tokens"
        )
    for name, array in example.loss_inputs.items():
        where = f"{field}.loss_fn_inputs[{name!r}]"
        if name not in wanted:
            raise InputError(where, f"{array.dtype} {array.shape}", f"{spec.name} takes {', '.join(wanted)}")
        if array.shape != shape:
            raise InputError(where, array.shape, f"must have the input's shape {shape}")
        if name != TARGETS:
            _check_numbers(where, array)
    where = f"{field}.loss_fn_inputs[{TARGETS!r}]"
    if targets.dtype.kind not in "iu":
        raise InputError(where, f"{targets.dtype} {targets.shape}", "must be integers")
    _check_ids(where, targets, config)


def _check_numbers(field: str, array: NDArray[np.generic]) -> None:
    if array.dtype.kind not in "fiu":
        raise InputError(field, str(array.dtype), "must be numbers")
    numbers = array.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(numbers))
    if wrong.size:
        raise InputError(f"{field}{_place(wrong[0])}", float(numbers[tuple(wrong[0])]), "must be finite")
