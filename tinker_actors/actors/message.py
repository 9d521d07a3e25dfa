"""The typed messages, and the roles they are addressed to.

Messages check their contents when they are made, so bad input is refused before anything is in line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import attrs

from tinker_actors.actors.target import FromBase, FromPath, Published, SampleTarget
from tinker_actors.errors import InputError
from tinker_actors.kernel import Message
from tinker_actors.kernel.message import Unit
from tinker_actors.protocol.batch import (
    check_batch,
    check_flag,
    check_name,
    check_optim,
    check_prompt,
    check_sampling,
)
from tinker_actors.protocol.custom_loss import CustomLossFn, check_function, forward_data
from tinker_actors.protocol.journal import Decision
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.protocol.sample import check_extras
from tinker_actors.protocol.saving import check_recipients, check_state_path, check_ttl, metadata
from tinker_actors.protocol.throttle import Priority
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.optimizer import OptimParams, OptimStepResponse
from tinker_actors.wire.sampling import SampleResponse, SamplingClientKind, SamplingParams
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType
from tinker_actors.wire.weights import (
    LoadWeightsResponse,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResult,
    SaveWeightsResponse,
)

__all__ = [
    "CheckSession",
    "Flush",
    "Forward",
    "ForwardBackward",
    "ForwardBackwardCustom",
    "FromBase",
    "FromPath",
    "Futures",
    "Heartbeat",
    "LoadState",
    "OptimStep",
    "Published",
    "RenewSession",
    "Sample",
    "SampleTarget",
    "Sampling",
    "SaveState",
    "SaveWeightsExternal",
    "SaveWeightsForSampler",
    "SessionRole",
    "StartBeating",
    "Telemetry",
    "TellCancelled",
    "Training",
    "Unload",
    "WaitForResult",
    "datums",
]

T = TypeVar("T")


class Training:
    """Role: trains one model."""


class Sampling:
    """Role: draws samples."""


class Futures:
    """Role: waits for the results of promises."""


class SessionRole:
    """Role: owns the session."""


class Heartbeat:
    """Role: keeps the session alive."""


class Telemetry:
    """Role: reports events to the service."""


def datums(data: Sequence[Datum]) -> tuple[Datum, ...]:
    """Return a batch as a message keeps it.

    Raises:
        InputError: no sequence.
    """
    if not isinstance(data, Sequence):
        raise InputError("data", data, "must be a list of Datum")
    return tuple(data)


def _recipients(keys: Sequence[str] | None) -> tuple[str, ...] | None:
    check_recipients(keys)
    return None if keys is None else tuple(keys)


# --- training --------------------------------------------------------------------------------------------

ANY_NUMBER = 1_000_000
"""Of times a message is handled again; how often a model may be lost is bounded elsewhere."""


@attrs.frozen
class _Batch(Message[Training, ForwardBackwardOutput]):
    max_redeliver: ClassVar[int] = ANY_NUMBER

    data: tuple[Datum, ...] = attrs.field(converter=datums)
    loss_fn: LossFnType
    loss_fn_config: dict[str, float | str] | None = None

    def __attrs_post_init__(self) -> None:
        check_batch(self.data, self.loss_fn, self.loss_fn_config)


@attrs.frozen
class Forward(_Batch):
    """Compute a batch's loss, without a gradient.

    Raises:
        InputError: see `protocol.batch.check_batch`.
    """


@attrs.frozen
class ForwardBackward(_Batch):
    """Add a batch's gradient to what the model has accumulated.

    Raises:
        InputError: see `protocol.batch.check_batch`.
    """

    unit: ClassVar[Unit] = "part"


@attrs.frozen
class ForwardBackwardCustom(Message[Training, ForwardBackwardOutput]):
    """Add the gradient of a loss of the user's own; see `actors.custom_loss`.

    Attributes:
        data: the batch, as the user's function sees it.
        loss_fn: the user's function.
        forward: what is sent of the batch to learn the log probabilities.

    Raises:
        InputError: see `protocol.custom_loss.forward_data`; a loss function that cannot be called.
    """

    unit: ClassVar[Unit] = "part"
    max_redeliver: ClassVar[int] = ANY_NUMBER  # how often its model is restored is for its supervisor to say

    data: tuple[Datum, ...] = attrs.field(converter=datums)
    loss_fn: CustomLossFn
    forward: tuple[Datum, ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        check_function(self.loss_fn)
        object.__setattr__(self, "forward", forward_data(self.data))


@attrs.frozen
class OptimStep(Message[Training, OptimStepResponse]):
    """Apply the accumulated gradient; the last message of a step.

    Attributes:
        optim_params: the optimizer's settings for this step.
        confirm: it is sent only when the results of the step's gradients are there. If one of them failed it is not
            sent at all, and its answer is `StepVoid` with the cause.
        decision: what a run decides with this step; written with it.

    Raises:
        InputError: see `protocol.batch.check_optim`.
    """

    unit: ClassVar[Unit] = "end"
    # While it waits for the gradients nothing of it has been sent: if the model is lost then, it waits again.
    max_redeliver: ClassVar[int] = ANY_NUMBER

    optim_params: OptimParams
    confirm: bool = False
    decision: Decision | None = None

    def __attrs_post_init__(self) -> None:
        check_optim(self.optim_params)
        check_flag("confirm", self.confirm)


@attrs.frozen
class SaveState(Message[Training, SaveWeightsResponse]):
    """Save weights and optimizer.

    Attributes:
        name: what they are called: `tinker://<model>/weights/<name>`.
        ttl_seconds: how long they are kept, 3600 to ten years; None is for ever.
        overwrite: take the place of a state of the same name.
        user_metadata: kept with them.

    Raises:
        InputError: a name that cannot stand in a path, a time out of its range, or metadata that is none.
    """

    max_redeliver: ClassVar[int] = ANY_NUMBER

    name: str
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: dict[str, str] | None = attrs.field(default=None, converter=metadata)

    def __attrs_post_init__(self) -> None:
        check_name("name", self.name)
        check_ttl(self.ttl_seconds)
        check_flag("overwrite", self.overwrite)


@attrs.frozen
class SaveWeightsForSampler(Message[Training, SaveWeightsForSamplerResult]):
    """Save weights to sample from: under a name, or as a sampling session at once.

    Attributes:
        name: what they are called: `tinker://<model>/sampler_weights/<name>`; None opens a sampling session.
        ttl_seconds: how long they are kept, 3600 to ten years; None is for ever.
        user_metadata: kept with them.
        kind: of the sampling session. `snapshot`: its weights stay what they are. `inflight`: a later session of that
            kind moves this one along. Only without a name.

    Raises:
        InputError: a name that cannot stand in a path, a time out of its range, metadata that is none, or a kind that
            is none or is given beside a name or a time.
    """

    max_redeliver: ClassVar[int] = ANY_NUMBER

    name: str | None = None
    ttl_seconds: int | None = None
    user_metadata: dict[str, str] | None = attrs.field(default=None, converter=metadata)
    kind: SamplingClientKind = "snapshot"

    def __attrs_post_init__(self) -> None:
        if self.name is not None:
            check_name("name", self.name)
        check_ttl(self.ttl_seconds)
        if self.kind not in ("snapshot", "inflight"):
            raise InputError("kind", self.kind, "must be 'snapshot' or 'inflight'")
        if self.kind == "inflight" and not (self.name is None and self.ttl_seconds is None):
            raise InputError("kind", self.kind, "has neither a name nor a time to live")


@attrs.frozen
class SaveWeightsExternal(Message[Training, SaveWeightsExternalResponse]):
    """Save weights in the format of PEFT, for use elsewhere.

    Attributes:
        name: what they are called.
        ttl_seconds: how long they are kept, 3600 to ten years; None is for ever.
        age_encryption_recipients: who can read them, by public keys of age, ten at most; None is everybody who has
            the URL.

    Raises:
        InputError: a name that cannot stand in a path, a time out of its range, or recipients that are none.
    """

    max_redeliver: ClassVar[int] = ANY_NUMBER

    name: str
    ttl_seconds: int | None = None
    age_encryption_recipients: tuple[str, ...] | None = attrs.field(default=None, converter=_recipients)

    def __attrs_post_init__(self) -> None:
        check_name("name", self.name)
        check_ttl(self.ttl_seconds)


@attrs.frozen
class LoadState(Message[Training, LoadWeightsResponse]):
    """Load saved weights into the model, with the optimizer's state if asked.

    Attributes:
        path: `tinker://<model>/weights/<name>`.
        optimizer: load the optimizer's state too; else it starts afresh.
        weights_access_token: admits to weights of another account.

    Raises:
        InputError: not a `tinker://` path.
    """

    max_redeliver: ClassVar[int] = ANY_NUMBER

    path: str
    optimizer: bool
    weights_access_token: str | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        check_state_path("path", self.path)


@attrs.frozen
class Unload(Message[Training, None]):
    """Give the model's slot on the service back when all before it is done; nothing can be done with it then."""

    max_redeliver: ClassVar[int] = ANY_NUMBER


# --- sampling --------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Sample(Message[Sampling, SampleResponse]):
    """Draw sequences that continue a prompt.

    Attributes:
        target: where from.
        prompt: what is continued.
        num_samples: how many sequences.
        sampling_params: how tokens are drawn.
        include_prompt_logprobs: also give the log probability of each prompt token.
        topk_prompt_logprobs: also give that many likeliest tokens per prompt position.
        topk_sample_logprobs: the same for each drawn token.
        target_prompt_logprobs: also give the log probabilities of these tokens; see `SampleRequest`.
        prompt_alt_tokens_k: also draw that many tokens for each prompt position but the first.
        prompt_logprobs_last_n: give what is given per prompt position only for the last n.
        record_stability_info: have the service keep what the loss `stable_reinforce` needs.
        retry_config: when it is drawn anew; None: as the service says.
        priority: its lane once a handler has it; `SamplingClient.evaluation` has the way that is never crowded.

    Raises:
        InputError: an empty prompt, parameters out of range, or a request for what does not go together.
    """

    target: SampleTarget
    prompt: ModelInput
    num_samples: int
    sampling_params: SamplingParams
    include_prompt_logprobs: bool = False
    topk_prompt_logprobs: int = 0
    topk_sample_logprobs: int = 0
    target_prompt_logprobs: TensorData | None = None
    prompt_alt_tokens_k: int = 0
    prompt_logprobs_last_n: int | None = None
    record_stability_info: bool = False
    retry_config: RetryConfig | None = None
    priority: Priority = "training"

    def __attrs_post_init__(self) -> None:
        check_prompt(self.prompt, self.num_samples, self.topk_prompt_logprobs)
        check_sampling(self.sampling_params)
        check_flag("include_prompt_logprobs", self.include_prompt_logprobs)
        check_flag("record_stability_info", self.record_stability_info)
        if self.has_extras:
            check_extras(
                include_prompt_logprobs=self.include_prompt_logprobs,
                topk_sample_logprobs=self.topk_sample_logprobs,
                target_prompt_logprobs=self.target_prompt_logprobs,
                prompt_alt_tokens_k=self.prompt_alt_tokens_k,
                prompt_logprobs_last_n=self.prompt_logprobs_last_n,
            )
        if self.priority not in {"training", "evaluation"}:
            raise InputError("priority", self.priority, "must be 'training' or 'evaluation'")

    @property
    def has_extras(self) -> bool:
        """Whether it asks for something that few ask for."""
        return bool(
            self.topk_sample_logprobs
            or self.prompt_alt_tokens_k
            or self.target_prompt_logprobs is not None
            or self.prompt_logprobs_last_n is not None
        )


# --- what surrounds the work -----------------------------------------------------------------------------


@attrs.frozen
class WaitForResult(Message[Futures, T]):
    """Wait for a promise's result.

    Attributes:
        kind: the wire class of the result.
        request_id: the promise.
        request_type: what was promised, in the service's words, such as `Sample`.
        subject: whose request it is: a model, or a sampling session.
        again: it was waited for before, by a FuturesActor that crashed.
        target: for a sample: what it is drawn from.
        era: the sample's era in the target's progress.
        progress_timeout: seconds without progress after which the sample is stuck.
    """

    kind: type[T]
    request_id: str
    request_type: str = ""
    subject: str = ""
    again: bool = False
    target: SampleTarget | None = None
    era: int = 0
    progress_timeout: float = math.inf


@attrs.frozen
class TellCancelled(Message[Futures, None]):
    """Tell the service of the samples that nobody waits for any more."""


@attrs.frozen
class RenewSession(Message[SessionRole, None]):
    """The session of this epoch is lost: open a new one, unless that has been done."""

    lost_epoch: int


@attrs.frozen
class CheckSession(Message[SessionRole, None]):
    """The session of this epoch may be lost: ask the service, and open a new one if it is."""

    epoch: int


@attrs.frozen
class StartBeating(Message[Heartbeat, None]):
    """Beat for this session from now on."""

    session_id: str


@attrs.frozen
class Flush(Message[Telemetry, bool]):
    """Send the events that wait; whether the service has taken them."""
