"""Sampling: parameters, prompts, sequences."""

from collections.abc import Sequence
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.wire.input import ModelInput

__all__ = [
    "CreateSamplingSessionRequest",
    "CreateSamplingSessionResponse",
    "SampleRequest",
    "SampleResponse",
    "SampleSubmitted",
    "SampledSequence",
    "SamplingParams",
    "StopReason",
]

StopReason = Literal["length", "stop"]


@attrs.frozen(kw_only=True)
class SamplingParams:
    """How tokens are drawn; defaults are Tinker's.

    Attributes:
        max_tokens: at most this many new tokens; None leaves it to the service.
        seed: makes the draw repeatable; sample i of a request has its own stream.
        stop: strings or token ids that end a sequence; None means the end-of-text token, [] nothing at all.
        temperature: 0 takes the likeliest token.
        top_k: only the k likeliest tokens; -1 is off.
        top_p: only the likeliest tokens that together reach this probability; 1 is off.
    """

    # tinker 0.38.0 types/sampling_params.py
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | Sequence[str] | Sequence[int] | None = None
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0


@attrs.frozen(kw_only=True)
class SampleRequest:
    """Draws sequences that continue a prompt."""

    prompt: ModelInput
    sampling_params: SamplingParams
    num_samples: int = 1
    sampling_session_id: str | None = None
    seq_id: int | None = None
    base_model: str | None = None
    model_path: str | None = None
    prompt_logprobs: bool | None = None
    topk_prompt_logprobs: int = 0
    type: Literal["sample"] = "sample"


@attrs.frozen
class SampleSubmitted:
    """The promise of a sample.

    Attributes:
        request_id: what to ask for the result with.
        sample_sequence_ids: one name per sequence; only newer services give them.
    """

    request_id: str
    sample_sequence_ids: tuple[str, ...] | None = None


@attrs.frozen
class SampledSequence:
    """One drawn sequence.

    Attributes:
        stop_reason: why it ended.
        tokens_np: token ids, int32, shape (n,).
        logprobs_np: log probability of each token under the model, float32, shape (n,).
    """

    stop_reason: StopReason
    tokens_np: npt.NDArray[np.int32] = attrs.field(eq=attrs.cmp_using(eq=np.array_equal))
    logprobs_np: npt.NDArray[np.float32] | None = attrs.field(
        default=None, eq=attrs.cmp_using(eq=np.array_equal)
    )

    @property
    def tokens(self) -> list[int]:
        """The token ids as a list."""
        tokens: list[int] = self.tokens_np.tolist()
        return tokens

    @property
    def logprobs(self) -> list[float] | None:
        """The log probabilities as a list."""
        logprobs: list[float] | None = None if self.logprobs_np is None else self.logprobs_np.tolist()
        return logprobs


@attrs.frozen
class SampleResponse:
    """The sequences drawn for one request.

    Attributes:
        sequences: in the order of their index.
        prompt_logprobs: log probability of each prompt token given those before it; the first is None.
        topk_prompt_logprobs: per prompt position the likeliest (token, log probability) pairs.
    """

    sequences: tuple[SampledSequence, ...]
    prompt_logprobs: tuple[float | None, ...] | None = None
    topk_prompt_logprobs: tuple[tuple[tuple[int, float], ...] | None, ...] | None = None
    type: Literal["sample"] = "sample"


@attrs.frozen(kw_only=True)
class CreateSamplingSessionRequest:
    """Opens a place to sample from: a base model or saved weights."""

    session_id: str
    sampling_session_seq_id: int
    base_model: str | None = None
    model_path: str | None = None
    type: Literal["create_sampling_session"] = "create_sampling_session"


@attrs.frozen
class CreateSamplingSessionResponse:
    """The id to sample with."""

    sampling_session_id: str
