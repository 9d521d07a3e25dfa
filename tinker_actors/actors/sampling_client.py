"""The SamplingClient: a value that draws samples through the pools."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, Protocol, Self

import attrs
import trio

from tinker_actors.actors.guide import Guide
from tinker_actors.actors.message import Sample, SampleTarget, Sampling
from tinker_actors.actors.session import Session
from tinker_actors.actors.tokenizers import Tokenizers
from tinker_actors.errors import APIResponseValidationError, ConfigError, NotPicklable
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.protocol.sample import leading_none
from tinker_actors.protocol.sampler_handle import SamplerHandle, write_handle
from tinker_actors.protocol.throttle import Priority
from tinker_actors.text.tokenizer import Tokenizer
from tinker_actors.wire.input import ModelInput
from tinker_actors.wire.sampling import SampleResponse, SamplingParams
from tinker_actors.wire.tensor import TensorData

__all__ = ["SamplerHome", "SamplingClient"]


@attrs.frozen(eq=False)
class SamplerHome:
    """What all sampling clients of a service have in common.

    Attributes:
        training: the pool of the usual lane.
        evaluation: the pool of the lane that goes first.
        session: the present session.
        base_url: where the service is.
        tokenizers: where tokenizers come from.
    """

    training: ActorRef[Sampling]
    evaluation: ActorRef[Sampling]
    session: Session
    base_url: str
    tokenizers: Tokenizers


class _ReadsHandles(Protocol):
    async def from_sampler_handle(
        self, handle: str, retry_config: RetryConfig | None = None
    ) -> SamplingClient: ...


@attrs.frozen
class SamplingClient(Guide):
    """Draws samples from fixed weights. A value: making many of them costs nothing, and none has to be closed.

    It cannot be pickled; `get_sampler_handle` gives what another process needs.

    Attributes:
        ref: the sampling pool; typed messages may be sent to it directly.
        target: the weights.
        base_model: the model they adapt; empty if neither the user nor the service has said it.
        version: how many versions of the weights its TrainingClient had published before; 0 for weights from
            elsewhere.
        retry_config: when its samples are drawn anew; None: as the service says.
        record_stability_info: the service keeps what the loss `stable_reinforce` needs.
        priority: its lane.
    """

    _made_by: ClassVar[str] = "await service.create_sampling_client(...)"
    _made_of: ClassVar[str] = "ref"

    ref: ActorRef[Sampling] = attrs.field(repr=False)
    target: SampleTarget
    base_model: str
    version: int
    retry_config: RetryConfig | None = attrs.field(repr=False)
    record_stability_info: bool = attrs.field(repr=False)
    priority: Priority
    _tokenizer_id: str = attrs.field(repr=False)
    _home: SamplerHome = attrs.field(repr=False)
    _room: trio.CapacityLimiter | None = attrs.field(
        repr=False
    )  # where it may have fewer in flight than the pool

    async def sample(
        self,
        prompt: ModelInput,
        num_samples: int,
        sampling_params: SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        topk_sample_logprobs: int = 0,
        target_prompt_logprobs: TensorData | None = None,
        prompt_alt_tokens_k: int = 0,
        prompt_logprobs_last_n: int | None = None,
    ) -> SampleResponse:
        """Draw sequences that continue a prompt. A caller that leaves takes its sample with it.

        What was asked for by the last four arguments is only sent if it was: older services do not know them.

        Args:
            prompt: what is continued.
            num_samples: how many sequences.
            sampling_params: how tokens are drawn.
            include_prompt_logprobs: also return the log probability of each prompt token.
            topk_prompt_logprobs: also return that many likeliest tokens per prompt position.
            topk_sample_logprobs: also return that many likeliest tokens per drawn token.
            target_prompt_logprobs: also return the log probabilities of these tokens: int64, shape
                (prompt length - 1, k), -1 for none; row i is for prompt position i + 1.
            prompt_alt_tokens_k: also draw that many tokens for each prompt position but the first.
            prompt_logprobs_last_n: return what is returned per prompt position for the last n only.

        Raises:
            InputError: an empty prompt, a parameter out of range, or what does not go together; nothing was sent.
            ServiceTooOld: the service does not know what was asked for.
            APIConnectionError: none of this client's samples has ended for `RetryConfig.progress_timeout`.
            TinkerError: the service refused or failed.
        """
        message = Sample(
            target=self.target,
            prompt=prompt,
            num_samples=num_samples,
            sampling_params=sampling_params,
            include_prompt_logprobs=include_prompt_logprobs,
            topk_prompt_logprobs=topk_prompt_logprobs,
            topk_sample_logprobs=topk_sample_logprobs,
            target_prompt_logprobs=target_prompt_logprobs,
            prompt_alt_tokens_k=prompt_alt_tokens_k,
            prompt_logprobs_last_n=prompt_logprobs_last_n,
            record_stability_info=self.record_stability_info,
            retry_config=self.retry_config,
            priority=self.priority,
        )
        if self._room is None:
            return await self.ref.ask(message)
        async with self._room:
            return await self.ref.ask(message)

    async def compute_logprobs(
        self, prompt: ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> list[float | None]:
        """Return the log probability of each prompt token given those before it; the first is None.

        Args:
            prompt: the tokens.
            prompt_logprobs_last_n: compute it for the last n tokens only; None for the others.

        Raises:
            InputError: an empty prompt, or n below 1.
            APIResponseValidationError: the service sent none.
            ServiceTooOld: the service does not know `prompt_logprobs_last_n`.
            TinkerError: the service refused or failed.
        """
        reply = await self.sample(
            prompt,
            1,
            SamplingParams(max_tokens=1),
            include_prompt_logprobs=True,
            prompt_logprobs_last_n=prompt_logprobs_last_n,
        )
        if reply.prompt_logprobs is None:
            raise APIResponseValidationError("the service sent no prompt_logprobs")
        return leading_none(reply.prompt_logprobs)

    def evaluation(self) -> Self:
        """Return this client on the lane that goes first: its samples overtake all that wait on the usual one."""
        return attrs.evolve(self, ref=self._home.evaluation, priority="evaluation")

    async def get_tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the model: text to ids and back, without any chat template.

        Raises:
            ConfigError: the model has no tokenizer that can be loaded, or it is not known which model it is.
        """
        if not self._tokenizer_id:
            await trio.lowlevel.checkpoint()
            raise ConfigError("base_model = None: name the model beside the path to have its tokenizer")
        return await self._home.tokenizers.get(self._tokenizer_id)

    def get_base_model(self) -> str:
        """Return the name of the base model; empty if neither the user nor the service has said it."""
        return self.base_model

    # --- other processes ---------------------------------------------------------------------------------

    def get_sampler_handle(self) -> str:
        """Return a line of text that makes a client of the same weights in another process.

        There is no key in it. It is good as long as the session lives in which the weights were opened, that is, until
        this client's service is left.
        """
        handle = SamplerHandle(
            session_id=self.target.session_id or self._home.session.session_id,
            sampling_session_id=self.target.sampling_session_id,
            base_model=self.base_model,
            base_url=self._home.base_url,
            record_stability_info=self.record_stability_info,
        )
        return write_handle(handle)

    @staticmethod
    async def from_sampler_handle(
        handle: str, *, service: _ReadsHandles, retry_config: RetryConfig | None = None
    ) -> SamplingClient:
        """Return a client of the weights behind a handle, as `ServiceClient.from_sampler_handle` does."""
        return await service.from_sampler_handle(handle, retry_config)

    def __reduce__(self) -> NoReturn:
        raise NotPicklable(
            "a SamplingClient lives in one process: send the string from get_sampler_handle(), and make a client of it "
            "with from_sampler_handle() there"
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self
