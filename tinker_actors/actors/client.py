"""The clients: typed handles on actors, with Tinker's names.

The step verbs (`forward`, `forward_backward`, `optim_step`) return when their message is in line, with a
`Pending` for the result, so that straightforward code is pipelined. Everything else returns its result, and
still has its place in line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

import attrs
import trio
from tokenizers import Tokenizer

from tinker_actors.actors.failure import FailureLog
from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    LoadState,
    OptimStep,
    Sample,
    SampleTarget,
    Sampling,
    SaveState,
    SaveWeightsForSampler,
    Training,
)
from tinker_actors.actors.training import Lineage
from tinker_actors.errors import APIResponseValidationError, ConfigError, InputError
from tinker_actors.kernel import ActorRef, Message, Pending
from tinker_actors.text.resolution import resolve_tokenizer_id
from tinker_actors.text.tokenizer import load_tokenizer
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.model import GetInfoResponse
from tinker_actors.wire.optimizer import AdamParams, OptimStepResponse
from tinker_actors.wire.sampling import SampleResponse, SamplingParams
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType
from tinker_actors.wire.weights import LoadWeightsResponse, SaveWeightsForSamplerResponse, SaveWeightsResponse

__all__ = ["SamplerFactory", "SamplingClient", "Tokenizers", "TrainingClient", "no_async_twin"]

R = TypeVar("R")


def no_async_twin(owner: object, name: str) -> NoReturn:
    """Raise the AttributeError for a missing attribute; it says so if it is an `*_async` name.

    Raises:
        AttributeError: always.
    """
    kind = type(owner).__name__
    plain = name.removesuffix("_async")
    if plain != name and hasattr(type(owner), plain):
        message = f"{kind} has no {name!r}: use {plain!r}, every method here is async already"
        raise AttributeError(message, name=name, obj=owner)
    raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=owner)


class Tokenizers:
    """Loads tokenizers off the loop, each once: who asks while one is being loaded waits for it.

    Args:
        load: loads one by its id, in a thread.
    """

    def __init__(self, load: Callable[[str], Tokenizer] = load_tokenizer) -> None:
        self._load = load
        self._loaded: dict[str, Tokenizer] = {}
        self._locks: dict[str, trio.Lock] = {}

    async def get(self, tokenizer_id: str) -> Tokenizer:
        """Return the tokenizer of a resolved id. Checkpoints.

        Raises:
            ConfigError: there is none.
        """
        async with self._locks.setdefault(tokenizer_id, trio.Lock()):
            if tokenizer_id not in self._loaded:
                self._loaded[tokenizer_id] = await trio.to_thread.run_sync(self._load, tokenizer_id)
            return self._loaded[tokenizer_id]


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
        open_path: opens a sampling session for a path of saved weights.
        tokenizers: where tokenizers come from.
    """

    ref: ActorRef[Sampling]
    open_path: Callable[[str], Awaitable[str]]
    tokenizers: Tokenizers

    def make(self, session_id: str, base_model: str, tokenizer_id: str, version: int) -> SamplingClient:
        """Make a client of a sampling session."""
        target = SampleTarget(session_id)
        return SamplingClient(self.ref, target, base_model, version, tokenizer_id, self.tokenizers)


class TrainingClient:
    """Trains one model. Made by `ServiceClient.create_lora_training_client`.

    Attributes:
        ref: the TrainingActor; typed messages may be sent to it directly.
    """

    def __init__(
        self,
        ref: ActorRef[Training],
        lineage: Lineage,
        samplers: SamplerFactory,
        failures: FailureLog,
    ) -> None:
        self.ref = ref
        self._lineage = lineage
        self._samplers = samplers
        self._failures = failures
        self._published = 0

    def __repr__(self) -> str:
        return f"<TrainingClient {self.model_id} of {self._lineage.base_model}>"

    def __getattr__(self, name: str) -> NoReturn:
        no_async_twin(self, name)

    @property
    def model_id(self) -> str:
        """The model's present id on the service; a restore changes it."""
        return self._lineage.model_id

    async def submit(self, message: Message[Training, R]) -> Pending[R]:
        """Put any training message in line.

        Raises:
            UnobservedFailure: an earlier operation failed and nobody had awaited it; this one was not sent.
            ServiceClosing: the service is closing.
        """
        self._failures.check()
        pending = await self.ref.submit(message)
        self._failures.watch(pending)
        return pending

    # --- step verbs: in line when they return ------------------------------------------------------------

    async def forward(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> Pending[ForwardBackwardOutput]:
        """Put the computation of a batch's loss in line; no gradient.

        Raises:
            InputError: a batch that cannot be sent; names the field and the value.
            UnobservedFailure: see `submit`.
        """
        return await self.submit(Forward(data, loss_fn, _config(loss_fn_config)))

    async def forward_backward(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        loss_fn_config: Mapping[str, float | str] | None = None,
    ) -> Pending[ForwardBackwardOutput]:
        """Put the accumulation of a batch's gradient in line. The loss is a sum over tokens.

        Args:
            data: the batch; position i of an input predicts token i + 1.
            loss_fn: which loss.
            loss_fn_config: its settings, such as `clip_low_threshold`.

        Raises:
            InputError: a batch that cannot be sent; names the field and the value.
            UnobservedFailure: see `submit`.
        """
        return await self.submit(ForwardBackward(data, loss_fn, _config(loss_fn_config)))

    async def optim_step(self, adam_params: AdamParams) -> Pending[OptimStepResponse]:
        """Put the step with the accumulated gradient in line; it ends the training step.

        Raises:
            InputError: a setting that is not finite or out of range.
            UnobservedFailure: see `submit`.
        """
        return await self.submit(OptimStep(adam_params))

    # --- everything else: done when they return ----------------------------------------------------------

    async def save_state(self, name: str, ttl_seconds: int | None = None) -> SaveWeightsResponse:
        """Save weights and optimizer; a restore starts from the newest such state.

        Raises:
            InputError: a name that cannot stand in a path.
            ConflictError: the name is taken.
        """
        return await (await self.submit(SaveState(name, ttl_seconds)))

    async def load_state(self, path: str) -> LoadWeightsResponse:
        """Load saved weights into this model; the optimizer starts afresh.

        Raises:
            InputError: not a `tinker://` path.
            NotFoundError: no such state.
        """
        return await (await self.submit(LoadState(_tinker_path(path), optimizer=False)))

    async def load_state_with_optimizer(self, path: str) -> LoadWeightsResponse:
        """Load saved weights and optimizer into this model.

        Raises:
            InputError: not a `tinker://` path.
            NotFoundError: no such state.
        """
        return await (await self.submit(LoadState(_tinker_path(path), optimizer=True)))

    async def save_weights_for_sampler(
        self, name: str, ttl_seconds: int | None = None
    ) -> SaveWeightsForSamplerResponse:
        """Save weights to sample from under a name.

        Raises:
            InputError: a name that cannot stand in a path.
            ConflictError: the name is taken.
            APIResponseValidationError: the service gave no path.
        """
        reply = await (await self.submit(SaveWeightsForSampler(name, ttl_seconds)))
        if reply.path is None:
            raise APIResponseValidationError("the service gave no path")
        return SaveWeightsForSamplerResponse(reply.path)

    async def save_weights_and_get_sampling_client(self) -> SamplingClient:
        """Publish the weights as they are at this place in line, and return a client that samples from them.

        Raises:
            APIResponseValidationError: the service gave no sampling session.
        """
        reply = await (await self.submit(SaveWeightsForSampler()))
        if reply.sampling_session_id is None:
            raise APIResponseValidationError("the service gave no sampling_session_id")
        self._published += 1
        return self._samplers.make(
            reply.sampling_session_id, self._lineage.base_model, self._tokenizer_id, self._published
        )

    async def create_sampling_client(self, model_path: str) -> SamplingClient:
        """Return a client that samples from weights saved under a path.

        Raises:
            InputError: not a `tinker://` path.
            NotFoundError: no such weights.
        """
        session_id = await self._samplers.open_path(_tinker_path(model_path))
        return self._samplers.make(session_id, self._lineage.base_model, self._tokenizer_id, 0)

    def get_info(self) -> GetInfoResponse:
        """Return what the service said of the model when it was made, under its present id."""
        info = self._lineage.info
        assert info is not None, "the actor has started, so the service has been asked"
        return attrs.evolve(info, model_id=self.model_id)

    async def get_tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer: text to ids and back, without any chat template.

        Raises:
            ConfigError: there is none.
        """
        return await self._samplers.tokenizers.get(self._tokenizer_id)

    @property
    def _tokenizer_id(self) -> str:
        return resolve_tokenizer_id(self._lineage.base_model, self.get_info().model_data.tokenizer_id)


def _config(config: Mapping[str, float | str] | None) -> dict[str, float | str] | None:
    return None if config is None else dict(config)


def _tinker_path(path: str) -> str:
    if not path.startswith("tinker://"):
        raise InputError("path", path, "must start with tinker://")
    return path
