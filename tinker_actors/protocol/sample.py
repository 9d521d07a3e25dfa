"""What a sample may ask for beside its sequences, and whether the answer has it. Pure."""

from __future__ import annotations

import attrs
import numpy as np

from tinker_actors.errors import InputError, ServiceTooOld
from tinker_actors.wire.sampling import SampleResponse
from tinker_actors.wire.tensor import TensorData

__all__ = ["check_extras", "complete", "leading_none"]


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def check_extras(
    *,
    include_prompt_logprobs: bool,
    topk_sample_logprobs: int,
    target_prompt_logprobs: TensorData | None,
    prompt_alt_tokens_k: int,
    prompt_logprobs_last_n: int | None,
) -> None:
    """Check what is asked for beside the sequences, as tinker 0.38.0 does before it sends anything.

    Raises:
        InputError: a number out of its range, targets of another kind, or `prompt_logprobs_last_n` without the log
            probabilities that it cuts.
    """
    for name, value in (
        ("topk_sample_logprobs", topk_sample_logprobs),
        ("prompt_alt_tokens_k", prompt_alt_tokens_k),
    ):
        if not _is_count(value, 0):
            raise InputError(name, value, "must be 0 or a positive integer of 32 bits")
    if target_prompt_logprobs is not None:
        _check_targets(target_prompt_logprobs)
    if prompt_logprobs_last_n is None:
        return
    if not _is_count(prompt_logprobs_last_n, 1):
        raise InputError("prompt_logprobs_last_n", prompt_logprobs_last_n, "must be a positive integer")
    if not include_prompt_logprobs:
        raise InputError(
            "prompt_logprobs_last_n", prompt_logprobs_last_n, "needs include_prompt_logprobs = True"
        )


def _check_targets(targets: object) -> None:
    name = "target_prompt_logprobs"
    if not isinstance(targets, TensorData):
        raise InputError(name, targets, "must be TensorData")
    if targets.dtype != "int64" or len(targets.shape) != 2:
        raise InputError(name, (targets.dtype, targets.shape), "must be int64 and have two dimensions")


def complete(
    response: SampleResponse, length: int, *, alt_tokens: bool, last_n: int | None
) -> SampleResponse:
    """Return the answer as it should be, if everything is in it that was asked for.

    Some services give no log probability for the first token, which has none; it is filled in, as missing.

    Args:
        response: the answer.
        length: tokens of the prompt.
        alt_tokens: tokens were to be drawn for the prompt's positions.
        last_n: the prompt's log probabilities were asked for the last so many positions only.

    Raises:
        ServiceTooOld: the service does not know what was asked for.
    """
    if alt_tokens and response.prompt_alt_tokens is None:
        raise ServiceTooOld("prompt_alt_tokens_k", "the answer has no prompt_alt_tokens")
    values = response.prompt_logprobs_np
    if values is None:
        return response
    if last_n is not None:
        if not np.isnan(values[: max(0, len(values) - last_n)]).all():
            raise ServiceTooOld("prompt_logprobs_last_n", "the answer has values before the last n")
        return response
    if len(values) != length - 1:
        return response
    padded = np.concatenate([np.full(1, np.nan, np.float32), values])
    return attrs.evolve(response, prompt_logprobs_np=padded)


def leading_none(values: list[float | None]) -> list[float | None]:
    """Return log probabilities of a prompt with None for the first token, whatever the service made up for it."""
    return [None, *values[1:]]
