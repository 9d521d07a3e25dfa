"""The TrainingClient: a typed handle on a TrainingActor, with Tinker's names.

The step verbs (`forward`, `forward_backward`, `optim_step`) return when their message is in line, with a
`Pending` for the result, so that straightforward code is pipelined. Everything else returns its result, and
still has its place in line.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, cast

import attrs
import trio

from tinker_actors.actors.failure import FailureLog
from tinker_actors.actors.guide import Guide
from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    ForwardBackwardCustom,
    FromPath,
    LoadState,
    OptimStep,
    SaveState,
    SaveWeightsExternal,
    SaveWeightsForSampler,
    Training,
    Unload,
)
from tinker_actors.actors.run_message import Reach, Skip, Train, TrainForward, TrainOptim
from tinker_actors.actors.sampler_factory import SamplerFactory, check_policy
from tinker_actors.actors.sampling_client import SamplingClient
from tinker_actors.actors.telemetry import TelemetryHandle
from tinker_actors.actors.training_step import TrainingStep
from tinker_actors.errors import APIResponseValidationError, InputError
from tinker_actors.kernel import ActorRef, Message, Pending
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.protocol.batch import check_flag
from tinker_actors.protocol.console import run_console_url
from tinker_actors.protocol.custom_loss import CustomLossFn
from tinker_actors.protocol.journal import Decision
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.protocol.saving import check_state_path
from tinker_actors.text.resolution import resolve_tokenizer_id
from tinker_actors.text.tokenizer import Tokenizer
from tinker_actors.wire.input import Datum
from tinker_actors.wire.model import GetInfoResponse
from tinker_actors.wire.optimizer import AdamParams, OptimParams, OptimStepResponse
from tinker_actors.wire.sampling import SamplingClientKind
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType
from tinker_actors.wire.weights import (
    LoadWeightsResponse,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
)

__all__ = ["Trained", "TrainingClient"]

R = TypeVar("R")


@attrs.frozen
class Trained:
    """The results of a step that was decided as one.

    Attributes:
        forward: the output of the gradient.
        optim: the end of the step.
    """

    forward: Pending[ForwardBackwardOutput]
    optim: Pending[OptimStepResponse]


class TrainingClient(Guide):
    """Trains one model. Made by `ServiceClient.create_lora_training_client`.

    Attributes:
        ref: the TrainingActor; typed messages may be sent to it directly.
    """

    _made_by: ClassVar[str] = "await service.create_lora_training_client(...)"
    _made_of: ClassVar[str] = "ref"

    def __init__(
        self,
        ref: ActorRef[Training],
        lineage: Lineage,
        samplers: SamplerFactory,
        failures: FailureLog,
        telemetry: TelemetryHandle | None = None,
    ) -> None:
        self.ref = ref
        self._lineage = lineage
        self._samplers = samplers
        self._failures = failures
        self._telemetry = telemetry
        self._published = 0

    def __repr__(self) -> str:
        return f"<TrainingClient {self.model_id} of {self._lineage.base_model}>"

    @property
    def model_id(self) -> str:
        """The model's present id on the service; a restore changes it."""
        return self._lineage.model_id

    async def submit(self, message: Message[Training, R]) -> Pending[R]:
        """Put any training message in line.

        Raises:
            UnobservedFailure: an earlier operation failed and nobody had awaited it; this one was not sent.
            ServiceClosing: the service is closing.
            InputError: no message.
        """
        if not isinstance(cast("object", message), Message):
            raise InputError(
                "message", message, "must be a message for a model, such as those of the room messages"
            )
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

    async def forward_backward_custom(
        self,
        data: Sequence[Datum],
        loss_fn: CustomLossFn,
        *,
        loss_type_input: Literal["logprobs"] | None = None,
    ) -> Pending[ForwardBackwardOutput]:
        """Put the accumulation of the gradient of a loss of your own in line.

        When its turn comes, the log probabilities of the targets are computed, `loss_fn` is called with them, and its
        gradients are sent; nothing else of this model runs in between. The function runs in a worker thread, and may
        run again if the model is lost meanwhile. What it raises, the result raises, and the step it belongs to is
        given up.

        Args:
            data: the batch. Of the loss inputs only `target_tokens`, of shape (n,) or (n, k), are sent; all others
                are for `loss_fn` alone.
            loss_fn: takes the batch and, for each datum, the log probabilities of its targets (float32, read-only, of
                the targets' shape), and returns a `CustomLoss`. `tinker_actors.bridges` makes one of a function of
                torch, jax or autograd.
            loss_type_input: has no meaning any more: it is always log probabilities that the function is given.

        Returns:
            the output of the backward pass, with `loss:sum` and the metrics that the function returned;
            `surrogate_loss:sum` is what the service makes of the gradients.

        Raises:
            InputError: a batch without targets, or something else than a loss function.
            UnobservedFailure: see `submit`.
        """
        if loss_type_input is not None:
            if loss_type_input != "logprobs":
                raise InputError("loss_type_input", loss_type_input, "must be 'logprobs' or None")
            warnings.warn("loss_type_input has no meaning any more", DeprecationWarning, stacklevel=2)
        return await self.submit(ForwardBackwardCustom(data, loss_fn))

    async def optim_step(
        self,
        optim_params: OptimParams | None = None,
        *,
        adam_params: AdamParams | None = None,
        confirm: bool = False,
    ) -> Pending[OptimStepResponse]:
        """Put the step with the accumulated gradient in line; it ends the training step.

        Args:
            optim_params: the optimizer's settings: `AdamParams`, `DimuonParams`, or another optimizer's.
            adam_params: the older name of `optim_params`.
            confirm: send it only when the results of the step's gradients are there; if one of them failed, it is not
                sent, and its result is `StepVoid` with the cause.

        Raises:
            InputError: no settings or two of them, or one that is not finite or out of range.
            UnobservedFailure: see `submit`.
        """
        if optim_params is not None and adam_params is not None:
            raise InputError(
                "adam_params", adam_params, "is the older name of optim_params: give one of them"
            )
        params = adam_params if optim_params is None else optim_params
        if params is None:
            raise InputError("optim_params", None, "must be given")
        return await self.submit(OptimStep(params, confirm))

    async def train(
        self,
        data: Sequence[Datum],
        loss_fn: LossFnType,
        optim_params: OptimParams,
        loss_fn_config: Mapping[str, float | str] | None = None,
        decision: Decision | None = None,
        in_line: Callable[[Outcome[Any]], None] | None = None,
    ) -> Trained:
        """Train one step: a gradient and its `optim_step`, decided together, with nothing between them.

        Returns when the step is decided: written to the model's journal, in one transaction. Whatever happens to the
        service after that, the step reaches the model exactly once, or its results say why it does not.

        Args:
            data: the batch.
            loss_fn: which loss.
            optim_params: the optimizer's settings.
            loss_fn_config: the loss's settings.
            decision: what a run decides with the step.
            in_line: called when the step is in line, with what fails if it will not be decided; a caller who is
                cancelled before that has begun nothing.

        Raises:
            InputError: a batch or settings that cannot be sent; names the field and the value.
            JournalError: it could not be written; nothing was sent.
            StepVoid: gradients that were in line before it failed; nothing of it was sent.
            UnobservedFailure: see `submit`.
        """
        train = Train(data, loss_fn, _config(loss_fn_config), optim_params, decision)
        messages: list[Message[Training, Any]] = [train, TrainForward(train), TrainOptim(train)]
        self._failures.check()
        decided, forward, optim = await self.ref.submit_many(messages)
        if in_line is not None:
            in_line(decided.outcome)
        try:
            await decided
        except Exception:
            forward.outcome.observed = optim.outcome.observed = True  # they say the same
            raise
        finally:
            self._failures.watch(forward)
            self._failures.watch(optim)
        return Trained(forward, optim)

    async def decide(
        self,
        optim_params: OptimParams,
        decision: Decision,
        in_line: Callable[[Outcome[Any]], None] | None = None,
    ) -> Pending[OptimStepResponse]:
        """Put the step with the accumulated gradient in line; return when it is decided, as `train` does.

        Raises:
            InputError: settings that cannot be sent.
            JournalError: it could not be written; it was not sent.
            StepVoid: a gradient of the step failed; nothing of it was applied, and the step is not decided.
            UnobservedFailure: see `submit`.
        """
        messages: list[Message[Training, Any]] = [OptimStep(optim_params, decision=decision), Reach()]
        pending, reached = await self._submit_many(messages)
        if in_line is not None:
            in_line(pending.outcome)
        await reached
        if pending.settled and pending.outcome.error is not None:
            await pending
        return cast("Pending[OptimStepResponse]", pending)

    async def reach(self) -> None:
        """Wait until everything that is in line has been taken up: written, and sent or refused."""
        [reached] = await self._submit_many([Reach()])
        await reached

    async def skip(self, decision: Decision, in_line: Callable[[Outcome[Any]], None] | None = None) -> None:
        """Decide a step of a run in which nothing is trained; returns when it is written; `in_line` as in `train`.

        Raises:
            JournalError: it could not be written.
            UnobservedFailure: see `submit`.
        """
        pending = await self.submit(Skip(decision))
        if in_line is not None:
            in_line(pending.outcome)
        await pending

    @contextlib.asynccontextmanager
    async def step(self, confirm: bool = False) -> AsyncGenerator[TrainingStep]:  # noqa: ASYNC119 - it guards nothing
        """Collect the operations of one step, and put them in line as one block when the body ends.

        The body may take its time: nothing is sent before its end, and nothing at all if it raises. Steps of several
        tasks never mix. See `actors.training_step`.

        Args:
            confirm: as `optim_step`.

        Raises:
            InputError: the step has more operations than the line holds; nothing was sent.
            UnobservedFailure: see `submit`.
            ServiceClosing: the service is closing.
        """
        step = TrainingStep(confirm=confirm)
        yield step
        await step.send(self._submit_many)

    async def _submit_many(self, messages: Sequence[Message[Training, Any]]) -> list[Pending[Any]]:
        self._failures.check()
        pendings = await self.ref.submit_many(messages)
        for pending in pendings:
            self._failures.watch(pending)
        return pendings

    # --- everything else: done when they return ----------------------------------------------------------

    async def save_state(
        self,
        name: str,
        ttl_seconds: int | None = None,
        overwrite: bool = False,
        user_metadata: Mapping[str, str] | None = None,
    ) -> SaveWeightsResponse:
        """Save weights and optimizer; a restore starts from the newest such state.

        Args:
            name: what they are called; the path is `tinker://<model>/weights/<name>`.
            ttl_seconds: how long they are kept, 3600 to ten years; None is for ever.
            overwrite: take the place of a state of the same name, metadata included.
            user_metadata: kept with them.

        Raises:
            InputError: a name that cannot stand in a path, a time out of its range, or metadata that do not map
                text to text.
            ConflictError: the name is taken.
        """
        return await (await self.submit(SaveState(name, ttl_seconds, overwrite, user_metadata)))

    async def load_state(self, path: str, weights_access_token: str | None = None) -> LoadWeightsResponse:
        """Load saved weights into this model; the optimizer starts afresh.

        Args:
            path: where the weights are.
            weights_access_token: gives access to weights of another account.

        Raises:
            InputError: not a `tinker://` path.
            NotFoundError, RequestFailedError: no such state; some services tell it at once, others by the result.
        """
        message = LoadState(path, optimizer=False, weights_access_token=weights_access_token)
        return await (await self.submit(message))

    async def load_state_with_optimizer(
        self, path: str, weights_access_token: str | None = None
    ) -> LoadWeightsResponse:
        """Load saved weights and optimizer into this model.

        Args:
            path: where they are.
            weights_access_token: gives access to weights of another account.

        Raises:
            InputError: not a `tinker://` path.
            NotFoundError, RequestFailedError: no such state; some services tell it at once, others by the result.
        """
        message = LoadState(path, optimizer=True, weights_access_token=weights_access_token)
        return await (await self.submit(message))

    async def save_weights_for_sampler(
        self, name: str, ttl_seconds: int | None = None, user_metadata: Mapping[str, str] | None = None
    ) -> SaveWeightsForSamplerResponse:
        """Save weights to sample from under a name.

        Args:
            name: what they are called; the path is `tinker://<model>/sampler_weights/<name>`.
            ttl_seconds: how long they are kept, 3600 to ten years; None is for ever.
            user_metadata: kept with them.

        Raises:
            InputError: a name that cannot stand in a path, a time out of its range, or metadata that do not map
                text to text.
            ConflictError: the name is taken.
            APIResponseValidationError: the service gave no path.
        """
        if name is None:  # type: ignore[redundant-expr, unused-ignore]  # without one it would be another operation
            raise InputError("name", name, "must be given")
        reply = await (await self.submit(SaveWeightsForSampler(name, ttl_seconds, user_metadata)))
        if reply.path is None:
            raise APIResponseValidationError("the service gave no path")
        return SaveWeightsForSamplerResponse(reply.path)

    async def save_weights_external(
        self,
        name: str,
        ttl_seconds: int | None = None,
        age_encryption_recipients: Sequence[str] | None = None,
    ) -> SaveWeightsExternalResponse:
        """Save weights in the format of PEFT, for use elsewhere.

        Args:
            name: what they are called.
            ttl_seconds: how long they are kept, 3600 to ten years; None is for ever.
            age_encryption_recipients: who can read them, by public keys of age, ten at most; None is everybody who
                has the URL.

        Raises:
            InputError: a name that cannot stand in a path, a time out of its range, or recipients that are no
                list of keys.
            ConflictError: the name is taken.
        """
        return await (await self.submit(SaveWeightsExternal(name, ttl_seconds, age_encryption_recipients)))

    async def unload(self) -> None:
        """Give the model's slot on the service back when all before this is done. A second time does nothing.

        Nothing can be done with the model any more: what is submitted later fails with `ModelUnloaded`. What was
        saved stays, and so do its samplers. Leaving the service does the same for all models.
        """
        if self._lineage.unloaded:
            await trio.lowlevel.checkpoint()
            return
        await (await self.submit(Unload()))

    async def save_weights_and_get_sampling_client(
        self,
        name: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,
        kind: SamplingClientKind = "snapshot",
    ) -> SamplingClient:
        """Publish the weights as they are at this place in line, and return a client that samples from them.

        Args:
            name: has no meaning any more; weights with a name are saved by `save_weights_for_sampler`.
            retry_config: when samples are drawn anew, and when they count as stuck.
            record_stability_info: have the service keep what the loss `stable_reinforce` needs.
            kind: `snapshot`: the client's weights stay what they are. `inflight`: publishing again moves this client
                along to the newer weights, at some moment that nobody is told of.

        Raises:
            InputError: not a `RetryConfig`, or another kind.
            APIResponseValidationError: the service gave neither a sampling session nor a path.
        """
        check_policy(retry_config)
        check_flag("record_stability_info", record_stability_info)
        if name is not None:
            warnings.warn("name has no meaning any more", DeprecationWarning, stacklevel=2)
        reply = await (await self.submit(SaveWeightsForSampler(kind=kind)))
        if reply.sampling_session_id is None and reply.path is None:
            raise APIResponseValidationError("the service gave neither a sampling_session_id nor a path")
        self._published += 1
        if reply.sampling_session_id is not None:
            target = self._samplers.published(reply.sampling_session_id, self._lineage, self._published)
        else:  # older services save under a name of their own
            target = await self._samplers.open(FromPath(str(reply.path)))
        return self._samplers.make(
            target,
            self._lineage.base_model,
            self._tokenizer_id,
            self._published,
            retry_config,
            record_stability_info,
        )

    async def create_sampling_client(
        self, model_path: str, retry_config: RetryConfig | None = None, record_stability_info: bool = False
    ) -> SamplingClient:
        """Return a client that samples from weights saved under a path.

        Args:
            model_path: `tinker://` path of saved weights.
            retry_config: when samples are drawn anew, and when they count as stuck.
            record_stability_info: have the service keep what the loss `stable_reinforce` needs.

        Raises:
            InputError: not a `tinker://` path, or not a `RetryConfig`.
            NotFoundError: no such weights.
        """
        check_policy(retry_config)
        check_flag("record_stability_info", record_stability_info)
        check_state_path("model_path", model_path)
        target = await self._samplers.open(FromPath(model_path))
        return self._samplers.make(
            target,
            self._lineage.base_model,
            self._tokenizer_id,
            retry_config=retry_config,
            record_stability_info=record_stability_info,
        )

    def get_info(self) -> GetInfoResponse:
        """Return what the service said of the model when it was made, under its present id."""
        info = self._lineage.info
        assert info is not None, "the actor has started, so the service has been asked"
        return attrs.evolve(info, model_id=self.model_id)

    def get_telemetry(self) -> TelemetryHandle | None:
        """Return what tells the service of events of your own; None where telemetry is off."""
        return self._telemetry

    def get_console_url(self) -> str:
        """Return where the Tinker service's console shows this training run; other services have no console."""
        return run_console_url(self.model_id)

    async def get_tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer: text to ids and back, without any chat template.

        Raises:
            ConfigError: the model has no tokenizer that can be loaded; it says why.
        """
        return await self._samplers.home.tokenizers.get(self._tokenizer_id)

    @property
    def _tokenizer_id(self) -> str:
        return resolve_tokenizer_id(self._lineage.base_model, self.get_info().model_data.tokenizer_id)


def _config(config: Mapping[str, float | str] | None) -> dict[str, float | str] | None:
    if isinstance(cast("object", config), Mapping):
        return dict(cast("Mapping[str, float | str]", config))
    return cast("dict[str, float | str] | None", config)  # the message refuses what is none
