"""The client of a service, and how it is connected."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import ClassVar, Literal, get_args

import trio

from tinker_actors.actors.admin import AdminClient
from tinker_actors.actors.event import EventChannel
from tinker_actors.actors.failure import FailureLog
from tinker_actors.actors.guide import Guide
from tinker_actors.actors.lineage import Lineage, StartState
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.run_message import Revive
from tinker_actors.actors.sampler_factory import SamplerFactory
from tinker_actors.actors.sampling_client import SamplerHome, SamplingClient
from tinker_actors.actors.service_ref import ServiceRef
from tinker_actors.actors.session import Adoption
from tinker_actors.actors.telemetry import TelemetryHandle
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.actors.tree import Tree, open_tree, raise_cause
from tinker_actors.errors import InputError, ResultLost, StartFailed, TinkerError, UnobservedFailure
from tinker_actors.protocol.console import session_console_url
from tinker_actors.protocol.creation import check_base_model, check_optimizer, lora_config, shape_of
from tinker_actors.protocol.event import ServiceEvent
from tinker_actors.protocol.event_line import EventSink
from tinker_actors.protocol.memory_journal import MemoryJournal
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.protocol.saving import check_state_path, metadata
from tinker_actors.protocol.wait import WaitSeen
from tinker_actors.transport.config import Config
from tinker_actors.transport.heartbeat import TransportOpener
from tinker_actors.transport.http import Carrier, open_transport
from tinker_actors.wire.optimizer import OptimizerConfig
from tinker_actors.wire.service import GetServerCapabilitiesResponse, HealthResponse
from tinker_actors.wire.session import FinishType

__all__ = ["ServiceClient", "open_client"]


class ServiceClient(Guide):
    """A Tinker service. Made by `open_service`; valid inside it.

    Attributes:
        backend: `local` for the embedded service, else the base URL.
        rest: looks after what is kept on the service.
        admin: what only administrators may see.
        ref: the service as a whole, whose events may be subscribed to.
    """

    _made_by: ClassVar[str] = "async with tinker_actors.open_service(...) as service"
    _made_of: ClassVar[str] = "tree"
    _beside: ClassVar[Mapping[str, type]] = {"rest": RestClient, "admin": AdminClient}

    def __init__(
        self,
        tree: Tree,
        backend: str,
        chosen: str,
    ) -> None:
        self.backend = backend
        self.rest = RestClient(tree.transport, flags_known=True)
        self.admin = AdminClient(tree.transport, flags_known=True)
        self.ref = ServiceRef(tree.events, tree.waits, tree.record)
        self._tree = tree
        self._chosen = chosen
        self._closing = trio.Lock()
        self._samplers = SamplerFactory(
            SamplerHome(tree.sampling, tree.evaluation, tree.session, tree.config.base_url, tree.tokenizers),
            tree.session,
            tree.samplers,
            tree.transport,
            tree.rng,
            tree.throttle.limit.most,
            chosen,
        )

    def __repr__(self) -> str:
        return f"<ServiceClient {self.backend}>"

    @property
    def session_id(self) -> str:
        """The present session's id on the service."""
        return self._tree.session.session_id

    def subscribe(self, max_buffer: int = 1000) -> EventChannel[ServiceEvent]:
        """Return a channel of all that happens from now on; `ref.subscribe` also takes kinds of events."""
        return self.ref.subscribe(max_buffer=max_buffer)

    def waits(self) -> list[WaitSeen]:
        """Return who waits for what, since when and why; the oldest wait first. As `ref.waits`."""
        return self.ref.waits()

    async def close(
        self, status: Literal["success", "errored", "interrupted"] = "success", detail: str | None = None
    ) -> None:
        """End the work now, rather than when the service is left, and tell the service how it went.

        After success, everything that is in line is carried out first; else only what was sent is waited for. Either
        way no longer than `grace`. Afterwards every operation is refused with `ServiceClosing`. The first call counts;
        the others wait for it. Without a call, leaving the service says `success` if the body returned, `errored` if it
        raised, `interrupted` if it was cancelled. Always a checkpoint.

        Args:
            status: how it went.
            detail: a few words about it, for those who look at the session.

        Raises:
            InputError: another status.
        """
        if status not in get_args(FinishType):
            raise InputError("status", status, f"must be one of {', '.join(get_args(FinishType))}")
        tree = self._tree
        async with self._closing:
            if tree.session.closed:
                return
            tree.session.say_how_it_ends(status, detail)
            await tree.root.stop("drain" if status == "success" else "now", tree.config.grace)

    def get_telemetry(self) -> TelemetryHandle | None:
        """Return what tells the service of events of your own; None where telemetry is off."""
        return self._tree.telemetry

    def create_rest_client(self) -> RestClient:
        """Return `rest`. Nothing is sent, and there is nothing to close."""
        return self.rest

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Return what the service offers. Checkpoints."""
        return await self.rest.get_server_capabilities()

    async def health_check(self) -> HealthResponse:
        """Return what the service says of its health. Checkpoints."""
        return await self.rest.health_check()

    async def copy_weights(
        self, path: str, *, ttl_seconds: int | None = None, weights_access_token: str | None = None
    ) -> str:
        """Copy a checkpoint into this client's project and return the path of the copy. Checkpoints.

        Arguments and errors: as `RestClient.copy_weights`.
        """
        return await self.rest.copy_weights(
            path, ttl_seconds=ttl_seconds, weights_access_token=weights_access_token
        )

    def get_console_url(self) -> str:
        """Return where the console of the Tinker service shows the present session; it knows its own only."""
        return session_console_url(self.session_id)

    async def create_lora_training_client(
        self,
        base_model: str,
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,
        train_attn: bool = True,
        train_unembed: bool = True,
        user_metadata: Mapping[str, str] | None = None,
        optimizer: OptimizerConfig | None = None,
    ) -> TrainingClient:
        """Make a LoRA model and return a client that trains it.

        Args:
            base_model: what is adapted.
            rank: rank of the adapters.
            seed: makes the initial adapters repeatable; None draws one.
            train_mlp: adapt the MLP layers.
            train_attn: adapt the attention layers.
            train_unembed: adapt the output layer.
            user_metadata: stored with the model.
            optimizer: which optimizer it is trained with; None is Adam.

        Raises:
            InputError: nothing to train, no name of a model, a rank or seed out of range, metadata that do not map text
                to text, or something else than an optimizer.
            APIStatusError: the service refused, for instance because it does not know the model.
            RequestFailedError: the service failed to make it.
        """
        lora = lora_config(
            rank, seed, train_unembed, train_mlp, train_attn, draw=lambda: self._tree.rng.getrandbits(31)
        )
        return await self._start(
            Lineage(
                check_base_model(base_model),
                lora,
                self._journal(),
                metadata(user_metadata) or {},
                optimizer_config=check_optimizer(optimizer),
            )
        )

    async def create_training_client_from_state(
        self,
        path: str,
        base_model: str | None = None,
        user_metadata: Mapping[str, str] | None = None,
        weights_access_token: str | None = None,
        optimizer: OptimizerConfig | None = None,
    ) -> TrainingClient:
        """Make a model of saved weights and return a client that trains it; the optimizer starts afresh.

        Args:
            path: `tinker://` path of a saved state.
            base_model: what it adapts; None: as the state says.
            user_metadata: stored with the model.
            weights_access_token: gives access to weights of another account.
            optimizer: which optimizer it is trained with; None: as the state says.

        Raises:
            InputError: not a `tinker://` path, a state of no LoRA model, metadata that do not map text to text, or
                something else than an optimizer.
            NotFoundError: no such state; or, where the service cannot say what a state was made of, no such call.
            APIStatusError, RequestFailedError: the service refused or failed to make it, or to load the state; the
                model has given its slot back.
        """
        state = StartState(path, optimizer=False, weights_access_token=weights_access_token)
        return await self._start_from(state, base_model, user_metadata, check_optimizer(optimizer))

    async def create_training_client_from_state_with_optimizer(
        self,
        path: str,
        base_model: str | None = None,
        user_metadata: Mapping[str, str] | None = None,
        weights_access_token: str | None = None,
    ) -> TrainingClient:
        """Make a model of saved weights and optimizer: its next step is that of the model that was saved.

        Args:
            path: `tinker://` path of a saved state.
            base_model: what it adapts; None: as the state says.
            user_metadata: stored with the model.
            weights_access_token: gives access to weights of another account.

        Raises:
            InputError: not a `tinker://` path, a state of no LoRA model, or metadata that do not map text to text.
            NotFoundError: no such state; or, where the service cannot say what a state was made of, no such call.
            APIStatusError, RequestFailedError: the service refused or failed to make it, or to load the state; the
                model has given its slot back.
        """
        state = StartState(path, optimizer=True, weights_access_token=weights_access_token)
        return await self._start_from(state, base_model, user_metadata, None)

    async def _start_from(
        self,
        state: StartState,
        base_model: str | None,
        user_metadata: Mapping[str, str] | None,
        optimizer: OptimizerConfig | None,
    ) -> TrainingClient:
        check_state_path("path", state.path)
        given = None if base_model is None else check_base_model(base_model)
        own = metadata(user_metadata) or {}
        if self._tree.transport.capability.creates_by_loading:
            lineage = Lineage(
                given or "", None, self._journal(), own, start=state, optimizer_config=optimizer
            )
            return await self._start(lineage)
        try:
            info = await self.rest.get_weights_info_by_tinker_path(state.path)
        except TinkerError as error:
            error.add_note(self._chosen)
            raise
        shape = shape_of(state.path, info, self._tree.rng.getrandbits(31))
        config = optimizer or info.optimizer_config
        name = given or info.base_model
        return await self._start(
            Lineage(name, shape, self._journal(), own, start=state, optimizer_config=config)
        )

    async def start_lineage(self, lineage: Lineage) -> TrainingClient:
        """Start the actor of a model whose journal is somebody else's; runs use it.

        If the journal knows a model of an earlier process, that is gone on with if it may be (`Lineage.resumption`);
        else a new one is made of its latest saved state, and what came after is sent again.

        Raises:
            APIStatusError, RequestFailedError: the service refused or failed to make the model.
            ModelPoisoned: it cannot be made again.
        """
        lineage.resuming = lineage.journal.model is not None
        training = await self._start(lineage)
        if lineage.resuming:
            await (await training.ref.submit(Revive()))
        return training

    def _journal(self) -> MemoryJournal:
        return MemoryJournal(max_bytes=self._tree.config.replay_bytes)

    async def _start(self, lineage: Lineage) -> TrainingClient:
        try:
            ref = await self._tree.start_model(lineage)
        except StartFailed as error:
            raise_cause(error, note=self._chosen)
        info = lineage.info
        if not lineage.base_model and info is not None:  # made of a state that only the service has read
            lineage.base_model = info.model_data.model_name or info.model_name or ""
        # A run's step is in the weights, and that is what its loop goes on with; nobody need miss the result.
        harmless = (ResultLost,) if lineage.in_run else ()
        failures = FailureLog(f"the TrainingClient of {lineage.model_id}", self._tree.failures, harmless)
        return TrainingClient(ref, lineage, self._samplers, failures, self._tree.telemetry)

    async def create_sampling_client(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,
    ) -> SamplingClient:
        """Return a client that samples from a base model or from saved weights.

        Args:
            model_path: `tinker://` path of saved weights.
            base_model: name of a base model; beside a path it only names the tokenizer.
            retry_config: when samples are drawn anew, and when they count as stuck.
            record_stability_info: have the service keep what the loss `stable_reinforce` needs.

        Raises:
            InputError: neither was given, not a `tinker://` path, or not a `RetryConfig`; nothing was sent.
            APIStatusError: the service does not know it.
        """
        return await self._samplers.create(model_path, base_model, retry_config, record_stability_info)

    async def from_sampler_handle(
        self, handle: str, retry_config: RetryConfig | None = None
    ) -> SamplingClient:
        """Return a client of the weights behind a handle, which may come from another process.

        Args:
            handle: what `SamplingClient.get_sampler_handle` returned.
            retry_config: as in `create_sampling_client`.

        Raises:
            InputError: a text that is no handle, or one that leads to another service.
            APIStatusError: the service does not know the sampling session any more.
        """
        return await self._samplers.adopt(handle, retry_config)


@contextlib.asynccontextmanager
async def open_client(
    config: Config,
    *,
    rng: random.Random,
    backend: str,
    chosen: str,
    through: Carrier | None = None,
    beat_through: TransportOpener | None = None,
    record: EventSink | None = None,
    adoption: Adoption | None = None,
) -> AsyncIterator[ServiceClient]:
    """Connect to a service, start the tree, and yield its client; leaving it means everything has ended.

    Args:
        config: how the service is reached.
        rng: chance for delays and seeds.
        backend: the name of the backend for users.
        chosen: one line that says which backend was chosen and why.
        through: a transport to use in place of the network.
        beat_through: opens one for the heartbeat, in the loop that beats.
        record: has all written down, from the very beginning; as `service.ref.record`.
        adoption: what an earlier process has left and this one is to go on with.

    Raises:
        UnobservedFailure: the body returned, and an operation had failed that nobody awaited.
        TinkerError: the service could not be reached or refused.
    """
    failures: list[FailureLog] = []
    try:
        async with (
            open_transport(config, rng=rng, through=through) as transport,
            open_tree(config, transport, rng, failures, beat_through, record, adoption) as tree,
        ):
            try:
                yield ServiceClient(tree, backend, chosen)
            except BaseException as error:
                tree.session.say_how_it_ends(*_how(error))
                raise
    except trio.Cancelled:
        raise
    except BaseException as error:
        for note in _unobserved(failures):
            error.add_note(f"an operation had failed and was never awaited: {note!r}")
        raise
    _raise_unobserved(failures)


def _how(error: BaseException) -> tuple[FinishType, str | None]:
    """Return how a body has ended that raised, and the kind of what it raised: its text may hold anything."""
    kinds = {type(one) for one in _leaves(error)} - {trio.Cancelled}
    if not kinds or KeyboardInterrupt in kinds:
        return "interrupted", None
    return "errored", ", ".join(sorted(kind.__name__ for kind in kinds))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Give the exceptions in a group, which a nursery of the body may have made."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _unobserved(failures: list[FailureLog]) -> list[Exception]:
    return [error for log in list(failures) for error in log.take()]


def _raise_unobserved(failures: list[FailureLog]) -> None:
    errors = _unobserved(failures)
    if errors:
        error = UnobservedFailure(f"an operation failed and was never awaited: {errors[0]}")
        for other in errors[1:]:
            error.add_note(f"also: {other!r}")
        raise error from errors[0]
