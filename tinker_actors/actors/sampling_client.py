"""The SamplingClient: a value that draws samples through the pool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

import attrs
import trio

from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.message import FromBase, FromPath, Published, Sample, SampleTarget, Sampling
from tinker_actors.actors.session import Session
from tinker_actors.actors.tokenizers import Tokenizers
from tinker_actors.actors.twin import no_async_twin
from tinker_actors.errors import APIResponseValidationError, ConfigError
from tinker_actors.kernel import ActorRef
from tinker_actors.text.tokenizer import Tokenizer
from tinker_actors.wire.input import ModelInput
from tinker_actors.wire.sampling import SampleResponse, SamplingParams

__all__ = ["SamplerFactory", "SamplingClient"]


@attrs.frozen
class SamplingClient:
    """Draws samples from fixed weights. A value: making many of them costs nothing.

    Attributes:
        ref: the sampling pool; typed messages may be sent to it directly.
        target: the weights.
        base_model: the model they adapt.
        version: how many versions of the weights its TrainingClient had published before; 0 for weights from
            elsewhere.
    """

    ref: ActorRef[Sampling] = attrs.field(repr=False)
    target: SampleTarget
    base_model: str
    version: int
    _tokenizer_id: str = attrs.field(repr=False)
    _tokenizers: Tokenizers = attrs.field(repr=False)

    async def sample(
        self,
        prompt: ModelInput,
        num_samples: int,
        sampling_params: SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
    ) -> SampleResponse:
        """Draw sequences that continue a prompt. A caller that leaves takes its sample with it.

        Args:
            prompt: what is continued.
            num_samples: how many sequences.
            sampling_params: how tokens are drawn.
            include_prompt_logprobs: also return the log probability of each prompt token.
            topk_prompt_logprobs: also return that many likeliest tokens per prompt position.

        Raises:
            InputError: an empty prompt, or a parameter out of range; nothing was sent.
            TinkerError: the service refused or failed.
        """
        message = Sample(
            target=self.target,
            prompt=prompt,
            num_samples=num_samples,
            sampling_params=sampling_params,
            include_prompt_logprobs=include_prompt_logprobs,
            topk_prompt_logprobs=topk_prompt_logprobs,
        )
        return await self.ref.ask(message)

    async def compute_logprobs(self, prompt: ModelInput) -> list[float | None]:
        """Return the log probability of each prompt token given those before it; the first is None.

        Raises:
            InputError: an empty prompt.
            APIResponseValidationError: the service sent none.
            TinkerError: the service refused or failed.
        """
        reply = await self.sample(prompt, 1, SamplingParams(max_tokens=1), include_prompt_logprobs=True)
        if reply.prompt_logprobs is None:
            raise APIResponseValidationError("the service sent no prompt_logprobs")
        return reply.prompt_logprobs

    async def get_tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the model: text to ids and back, without any chat template.

        Raises:
            ConfigError: there is none, or the client was made of a path alone, which does not tell the model.
        """
        if not self._tokenizer_id:
            await trio.lowlevel.checkpoint()
            raise ConfigError("base_model = None: name the model beside the path to have its tokenizer")
        return await self._tokenizers.get(self._tokenizer_id)

    def get_base_model(self) -> str:
        """Return the name of the base model."""
        return self.base_model

    def __getattr__(self, name: str) -> NoReturn:
        no_async_twin(self, name)


@attrs.frozen
class SamplerFactory:
    """Makes SamplingClients; given to every TrainingClient.

    Attributes:
        ref: the sampling pool.
        session: whose epoch new sampling sessions belong to.
        open: opens a sampling session.
        tokenizers: where tokenizers come from.
    """

    ref: ActorRef[Sampling]
    session: Session
    open: Callable[[FromPath | FromBase], Awaitable[SampleTarget]]
    tokenizers: Tokenizers

    def make(
        self, target: SampleTarget, base_model: str, tokenizer_id: str, version: int = 0
    ) -> SamplingClient:
        """Make a client of a target."""
        return SamplingClient(self.ref, target, base_model, version, tokenizer_id, self.tokenizers)

    def published(self, sampling_session_id: str, lineage: Lineage, version: int) -> SampleTarget:
        """Return the target of weights that were just published without a name."""
        target = SampleTarget(sampling_session_id, lineage.epoch, Published(lineage, version))
        lineage.claim(target)
        return target
