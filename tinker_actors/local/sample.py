"""What a sampler is asked and what it answers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.errors import InputError

from .example import check_tokens
from .model import BaseModel

__all__ = ["SampleJob", "SampleResult", "SampledSequence", "StopRule", "check_job", "stop_rule"]

StopReason: TypeAlias = Literal["length", "stop"]


@attrs.frozen(eq=False)
class SampleJob:
    """One prompt and how to go on from it.

    Attributes:
        id: whatever tells it from the decoder's other jobs.
        prompt: (n,) integer token ids.
        num_samples: sequences wanted. Sample i is the same however many are asked for.
        max_tokens: most tokens of one sequence; None: up to the context's end.
        temperature: divides the logits; 0 is greedy, the lowest id winning ties.
        top_k: keep the k likeliest tokens; -1 keeps all.
        top_p: then keep the likeliest tokens up to this share of what is left; 1 keeps all.
        stop: None: the model's end token stops. Else exactly these stop: strings that appear in the generated
            text, or token ids; an empty list stops at nothing, not even the end token.
        seed: any integer; decides all draws together with the sample's index.
        prompt_logprobs: give the prompt's log-probabilities.
        topk_prompt_logprobs: give the likeliest k tokens at each position of the prompt; 0 is off.
    """

    id: Hashable
    prompt: NDArray[np.int64]
    num_samples: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    stop: Sequence[str] | Sequence[int] | None = None
    seed: int = 0
    prompt_logprobs: bool = False
    topk_prompt_logprobs: int = 0


@attrs.frozen(eq=False)
class SampledSequence:
    """One sample.

    Attributes:
        tokens: generated ids, the stopping token or the tokens of the stopping string included.
        logprobs: float32, one per token: the model's own log-probabilities, before temperature, top-k and
            top-p. These are what a training forward computes, so at temperature 1 the importance ratio of a
            fresh sample is 1.
        stop_reason: `stop`, or `length` where `max_tokens` or the context ended it. `stop` wins.
    """

    tokens: list[int]
    logprobs: NDArray[np.float32]
    stop_reason: StopReason


@attrs.frozen(eq=False)
class SampleResult:
    """A finished job.

    Attributes:
        id: the job's.
        sequences: `num_samples`, by index.
        prompt_logprobs: float32 (n,), NaN at 0, where nothing predicts; None unless asked for.
        topk_prompt_logprobs: ids int32 (n, k) and log-probabilities float32 (n, k), likeliest first; row 0,
            and columns beyond the vocabulary, are (0, -99999.0), Tinker's empty cell. None unless asked for.
    """

    id: Hashable
    sequences: list[SampledSequence]
    prompt_logprobs: NDArray[np.float32] | None = None
    topk_prompt_logprobs: tuple[NDArray[np.int32], NDArray[np.float32]] | None = None


def check_job(job: SampleJob, base: BaseModel) -> None:
    """Check one job against a model.

    Raises:
        InputError: a value is out of its range, the prompt is bad, or prompt and `max_tokens` exceed the
            context.
    """
    check_tokens("prompt", job.prompt, base.config)
    room = base.config.context_length - job.prompt.size
    if room < 1:
        raise InputError("prompt", f"{job.prompt.size} tokens", "leaves no room in the context for a token")
    if job.max_tokens is not None and not 1 <= job.max_tokens <= room:
        why = f"must be 1 to {room}: prompt and sample share a context of {base.config.context_length}"
        raise InputError("sampling_params.max_tokens", job.max_tokens, why)
    for name, value, good, why in (
        ("num_samples", job.num_samples, job.num_samples >= 1, "must be at least 1"),
        (
            "topk_prompt_logprobs",
            job.topk_prompt_logprobs,
            job.topk_prompt_logprobs >= 0,
            "must not be negative",
        ),
        (
            "sampling_params.top_k",
            job.top_k,
            job.top_k == -1 or job.top_k >= 1,
            "must be -1 (off) or at least 1",
        ),
        ("sampling_params.top_p", job.top_p, 0 < job.top_p <= 1, "must be above 0 and at most 1"),
        (
            "sampling_params.temperature",
            job.temperature,
            math.isfinite(job.temperature) and job.temperature >= 0,
            "must be finite and not negative",
        ),
    ):
        if not good:
            raise InputError(name, value, why)
    _check_stop(job.stop, base)


def _check_stop(stop: Sequence[str] | Sequence[int] | None, base: BaseModel) -> None:
    field = "sampling_params.stop"
    if isinstance(stop, str):
        raise InputError(field, stop, "must be a list; put a single string into one")
    if len({isinstance(item, str) for item in stop or ()}) > 1:
        raise InputError(field, stop, "must hold strings or token ids, not both")
    for index, item in enumerate(stop or ()):
        if item == "":
            raise InputError(f"{field}[{index}]", item, "must not be empty")
        if isinstance(item, int) and not 0 <= item < base.config.vocab_size:
            raise InputError(f"{field}[{index}]", item, f"must be a token id below {base.config.vocab_size}")


@attrs.frozen
class StopRule:
    """A job's `stop`, resolved.

    Attributes:
        tokens: ids that stop.
        strings: texts that stop.
        window: length of the longest of them.
    """

    tokens: frozenset[int]
    strings: tuple[str, ...] = ()
    window: int = 0

    def met(self, token: int, text: str, piece: str) -> bool:
        """Tell whether a token stops its sequence.

        Args:
            token: the newest one.
            text: the generated text including it.
            piece: its own text, the end of `text`.
        """
        if token in self.tokens:
            return True
        recent = text[-(self.window + len(piece) - 1) :] if self.strings else ""
        return any(string in recent for string in self.strings)


def stop_rule(stop: Sequence[str] | Sequence[int] | None, base: BaseModel) -> StopRule:
    """Resolve a job's `stop` for a model."""
    if stop is None:
        return StopRule(frozenset({base.eos}))
    strings = tuple(item for item in stop if isinstance(item, str))
    tokens = frozenset(item for item in stop if not isinstance(item, str))
    return StopRule(tokens, strings, max(map(len, strings), default=0))
