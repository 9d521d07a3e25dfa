"""Sampling: parameters, prompts, sequences, and the sessions that they belong to."""

from collections.abc import Sequence
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.field import ARRAY, count, named, since
from tinker_actors.wire.input import ModelInput
from tinker_actors.wire.likeliest import PromptAltTokens, TopkList, TopkLogprobs
from tinker_actors.wire.tensor import TensorData

__all__ = [
    "CreateSamplingSessionRequest",
    "CreateSamplingSessionResponse",
    "GetSamplerResponse",
    "JoinSamplingSessionRequest",
    "JoinSamplingSessionResponse",
    "SampleRequest",
    "SampleResponse",
    "SampleSubmitted",
    "SampledSequence",
    "SamplingClientKind",
    "SamplingParams",
    "StopReason",
]

StopReason = Literal["length", "stop"]
"""The known ones; a service may come to have others."""

SamplingClientKind = Literal["snapshot", "inflight"]
"""Whether a sampler keeps its weights, or takes on those of later saves."""


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


def _targets(_: object, attribute: "attrs.Attribute[TensorData | None]", value: TensorData | None) -> None:
    if value is not None and (value.dtype != "int64" or len(value.shape) != 2):
        raise InputError(attribute.name, (value.dtype, value.shape), "must be int64 and have two dimensions")


def _last_n(_: object, attribute: "attrs.Attribute[int | None]", value: int | None) -> None:
    if value is not None and value < 1:
        raise InputError(attribute.name, value, "must be at least 1")


@attrs.frozen(kw_only=True)
class SampleRequest:
    """Draws sequences that continue a prompt.

    Attributes:
        num_samples: how many sequences.
        prompt: what they continue.
        sampling_params: how tokens are drawn.
        base_model: what to sample from without a session.
        model_path: likewise, a checkpoint for sampling.
        sampling_session_id: the session to sample in.
        seq_id: the request's number in the session.
        prompt_logprobs: also give the log probability of each prompt token.
        topk_prompt_logprobs: also give that many likeliest tokens for each prompt position.
        topk_sample_logprobs: the same for each drawn token.
        target_prompt_logprobs: also give the log probability of these tokens: int64, shape
            (prompt length - 1, k), -1 for none; row i is for prompt position i + 1. May be sparse.
        prompt_alt_tokens_k: also draw that many tokens for each prompt position but the first.
        prompt_logprobs_last_n: give what is given per prompt position only for the last n.
        record_stability_info: keep what the loss `stable_reinforce` needs.

    Raises:
        InputError: targets of another dtype or shape, a number that is negative.
    """

    num_samples: int = 1
    prompt: ModelInput
    sampling_params: SamplingParams
    base_model: str | None = None
    model_path: str | None = None
    sampling_session_id: str | None = None
    seq_id: int | None = None
    prompt_logprobs: bool | None = None
    topk_prompt_logprobs: int = attrs.field(default=0, validator=count)
    topk_sample_logprobs: int = attrs.field(default=0, validator=count, metadata=since("0.30.4"))
    target_prompt_logprobs: TensorData | None = attrs.field(default=None, validator=_targets)
    prompt_alt_tokens_k: int = attrs.field(default=0, validator=count, metadata=since("0.33.1"))
    prompt_logprobs_last_n: int | None = attrs.field(default=None, validator=_last_n)
    record_stability_info: bool | None = None
    type: Literal["sample"] = "sample"


@attrs.frozen
class SampleSubmitted:
    """The promise of a sample.

    Attributes:
        request_id: what to ask for the result with.
        sample_sequence_ids: one name per sequence; only newer services give them.
        model_id: the model, if the service says it.
    """

    request_id: str
    sample_sequence_ids: tuple[str, ...] | None = None
    model_id: str | None = None


@attrs.frozen
class SampledSequence:
    """One drawn sequence.

    Attributes:
        stop_reason: why it ended, see `StopReason`; an unknown reason is kept as the service wrote it.
        tokens_np: token ids, int32, shape (n,).
        logprobs_np: log probability of each token under the model, float32, shape (n,).
        topk_logprobs_np: the likeliest tokens at each position.
        sequence_id: its name, by which provenance spans refer to it; only newer services give one.
    """

    stop_reason: str
    tokens_np: npt.NDArray[np.int32] = attrs.field(eq=ARRAY, hash=False, metadata=named("tokens"))
    logprobs_np: npt.NDArray[np.float32] | None = attrs.field(
        default=None, eq=ARRAY, hash=False, metadata=named("logprobs")
    )
    topk_logprobs_np: TopkLogprobs | None = attrs.field(default=None, metadata=named("topk_logprobs"))
    sequence_id: str | None = None

    def renamed(self, sequence_id: str) -> "SampledSequence":
        """Return it under another name."""
        return SampledSequence(
            self.stop_reason, self.tokens_np, self.logprobs_np, self.topk_logprobs_np, sequence_id
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

    @property
    def topk_logprobs(self) -> TopkList | None:
        """Per token the likeliest (token, log probability) pairs; None where there are none."""
        return None if self.topk_logprobs_np is None else self.topk_logprobs_np.tolist()


@attrs.frozen
class SampleResponse:
    """The sequences drawn for one request.

    Attributes:
        sequences: in the order of their index.
        prompt_logprobs_np: log probability of each prompt token given those before it, float32, shape
            (prompt length,); NaN where there is none, as for the first.
        topk_prompt_logprobs_np: per prompt position the likeliest tokens.
        target_prompt_logprobs: the log probabilities of the targets, laid out as in the request; 0.0 where there
            was no target.
        prompt_cache_hit_tokens: how many prompt tokens the service had computed before.
        prompt_alt_tokens: tokens drawn for the prompt's positions.
    """

    sequences: tuple[SampledSequence, ...]
    prompt_logprobs_np: npt.NDArray[np.float32] | None = attrs.field(
        default=None, eq=ARRAY, hash=False, metadata=named("prompt_logprobs")
    )
    topk_prompt_logprobs_np: TopkLogprobs | None = attrs.field(
        default=None, metadata=named("topk_prompt_logprobs")
    )
    target_prompt_logprobs: TensorData | None = None
    prompt_cache_hit_tokens: int = attrs.field(default=0, metadata=since("0.18.1"))
    prompt_alt_tokens: PromptAltTokens | None = None
    type: Literal["sample"] = "sample"

    @property
    def prompt_logprobs(self) -> list[float | None] | None:
        """The prompt's log probabilities as a list, with None where there is none."""
        if self.prompt_logprobs_np is None:
            return None
        values: list[float | None] = self.prompt_logprobs_np.tolist()
        for index in np.flatnonzero(np.isnan(self.prompt_logprobs_np)).tolist():
            values[index] = None
        return values

    @property
    def topk_prompt_logprobs(self) -> TopkList | None:
        """Per prompt position the likeliest (token, log probability) pairs; None where there are none."""
        return None if self.topk_prompt_logprobs_np is None else self.topk_prompt_logprobs_np.tolist()


# --- sampling sessions -----------------------------------------------------------------------------------


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
    type: Literal["create_sampling_session"] | None = None


@attrs.frozen
class JoinSamplingSessionRequest:
    """Asks for numbers of one's own in a sampling session that another process opened."""

    sampling_session_id: str
    type: Literal["join_sampling_session"] = "join_sampling_session"


@attrs.frozen
class JoinSamplingSessionResponse:
    """Which client of the sampling session this one is.

    Attributes:
        client_counter: client k numbers its requests from k * 10**9; who opened the session is client 0.
    """

    client_counter: int
    type: Literal["join_sampling_session"] | None = None


@attrs.frozen
class GetSamplerResponse:
    """What a sampling session samples from.

    Attributes:
        sampler_id: the sampling session.
        base_model: the model.
        model_path: the checkpoint, if it is not the base model alone.
    """

    sampler_id: str
    base_model: str
    model_path: str | None = None
