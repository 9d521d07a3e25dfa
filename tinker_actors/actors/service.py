"""The tree that runs, and the client that stands for it.

service                   one for one; started top to bottom, stopped bottom to top
├── telemetry             outlives everything it reports on
├── heartbeat             beats from its own thread
├── session               owns the session's epoch; finishing it is its last act
├── futures               waits for the results of promises
├── training              one TrainingActor per model
│   └── model-0 …
└── sampling              a pool of SamplingActors behind one limiter
    └── worker-0 …
"""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import NoReturn

import attrs
import trio

from tinker_actors.actors.client import (
    SamplerFactory,
    SamplingClient,
    Tokenizers,
    TrainingClient,
    no_async_twin,
)
from tinker_actors.actors.event import EventHub
from tinker_actors.actors.failure import FailureLog
from tinker_actors.actors.futures import CONCURRENCY, FuturesActor
from tinker_actors.actors.heartbeat import HeartbeatActor
from tinker_actors.actors.message import Futures, Record, Sampling, Telemetry, Training
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.sampling import SamplingActor, SamplingShare, shared_backoff
from tinker_actors.actors.session import Session, SessionActor
from tinker_actors.actors.telemetry import TelemetryActor
from tinker_actors.actors.training import Lineage, TrainingActor
from tinker_actors.errors import (
    ActorError,
    ActorStopped,
    InputError,
    ModelPoisoned,
    ServiceClosing,
    StartFailed,
    TinkerActorsError,
    TinkerError,
    UnobservedFailure,
)
from tinker_actors.kernel import (
    ActorCrashed,
    ActorRef,
    ChildSpec,
    KernelEvent,
    PoolSpec,
    RestartPolicy,
    Supervisor,
    open_supervisor,
    start_pool,
)
from tinker_actors.protocol.event import ActorFailed, ServiceEvent
from tinker_actors.protocol.journal import MemoryJournal
from tinker_actors.transport.config import TINKER_SERVICE, Config
from tinker_actors.transport.heartbeat import TransportOpener
from tinker_actors.transport.http import Carrier, HttpTransport, open_transport
from tinker_actors.wire.endpoint import CAPABILITIES, CREATE_SAMPLING_SESSION, GET_INFO
from tinker_actors.wire.model import GetInfoRequest, LoraConfig
from tinker_actors.wire.sampling import CreateSamplingSessionRequest
from tinker_actors.wire.session import Empty, GetServerCapabilitiesResponse

__all__ = ["ServiceClient", "open_client"]

_MAX_RANK = 4096
# A restore may have hundreds of operations to send again before the actor takes its next message.
_RESTORE_TIMEOUT = 3600.0
_TRAINING_POLICY = RestartPolicy(max_restarts=5, period=60.0)


@attrs.define(eq=False)
class _Tree:
    """The running parts, once they run."""

    config: Config
    transport: HttpTransport
    root: Supervisor
    events: EventHub
    rng: random.Random
    session: Session = attrs.field(factory=Session)
    tokenizers: Tokenizers = attrs.field(factory=Tokenizers)
    failures: list[FailureLog] = attrs.field(factory=list)
    telemetry: ActorRef[Telemetry] | None = None

    async def start(
        self, beat_through: TransportOpener | None
    ) -> tuple[ActorRef[Futures], Supervisor, ActorRef[Sampling]]:
        """Start everything but models, in the order of the picture above."""
        if _wants_telemetry(self.config):
            self.telemetry = await self.root.start_child(self._telemetry_spec())
        heartbeat = await self.root.start_child(
            ChildSpec(
                name="heartbeat",
                factory=lambda: HeartbeatActor(self.config, self.session, beat_through, self.events),
            )
        )
        await self.root.start_child(
            ChildSpec(
                name="session",
                factory=lambda: SessionActor(self.transport, self.session, heartbeat, self.events),
                start_timeout=600.0,
            )
        )
        futures = await self.root.start_child(
            ChildSpec(
                name="futures",
                factory=lambda: FuturesActor(self.transport),
                capacity=CONCURRENCY,
                concurrency=CONCURRENCY,
            )
        )
        training = self.root.start_supervisor("training", "dynamic")
        return futures, training, await self._start_sampling(futures)

    def _telemetry_spec(self) -> ChildSpec[Telemetry]:
        return ChildSpec(
            name="telemetry",
            factory=lambda: TelemetryActor(
                self.transport, self.session, lambda: datetime.now(UTC), uuid.uuid4
            ),
            on_exhausted="fail",  # nothing else may suffer from it
            capacity=1000,
        )

    async def _start_sampling(self, futures: ActorRef[Futures]) -> ActorRef[Sampling]:
        config = self.config
        share = SamplingShare(trio.CapacityLimiter(config.max_samples), shared_backoff(config), self.rng)
        spec = PoolSpec(
            name="sampling",
            workers=config.sampling_actors,
            concurrency=-(-config.max_samples // config.sampling_actors),
            refusal=_refusal,
        )
        return await start_pool(self.root, spec, lambda: SamplingActor(self.transport, futures, share))

    def observe(self, event: KernelEvent) -> None:
        """Pass on what the kernel reports."""
        if not isinstance(event, ActorCrashed):
            return
        cause = f"{type(event.cause).__name__}: {event.cause}"
        self.events.publish(ActorFailed(event.actor, cause, event.delay))
        if self.telemetry is not None:
            data: dict[str, object] = {"actor": event.actor, "error_type": type(event.cause).__name__}
            with contextlib.suppress(ActorError):
                self.telemetry.tell_nowait(Record("actor_crashed", data))


def _wants_telemetry(config: Config) -> bool:
    return config.base_url == TINKER_SERVICE if config.telemetry is None else config.telemetry


def _refusal(error: ActorStopped) -> TinkerActorsError:
    """What the sender of a message that never started is told."""
    cause = error.__cause__
    if cause is None:
        return ServiceClosing()
    refusal = ModelPoisoned(f"{error.actor} was given up: {cause}", model_id=error.actor)
    refusal.__cause__ = cause
    return refusal


class ServiceClient:
    """A Tinker service. Made by `open_service`; valid inside it.

    Attributes:
        backend: `local` for the embedded service, else the base URL.
        rest: plain calls.
    """

    def __init__(
        self,
        tree: _Tree,
        futures: ActorRef[Futures],
        training: Supervisor,
        sampling: ActorRef[Sampling],
        backend: str,
        chosen: str,
    ) -> None:
        self.backend = backend
        self.rest = RestClient(tree.transport)
        self._tree = tree
        self._futures = futures
        self._training = training
        self._sampling = sampling
        self._chosen = chosen
        self._models = 0

    def __repr__(self) -> str:
        return f"<ServiceClient {self.backend}>"

    def __getattr__(self, name: str) -> NoReturn:
        no_async_twin(self, name)

    @property
    def session_id(self) -> str:
        """The present session's id on the service."""
        return self._tree.session.session_id

    def subscribe(self, max_buffer: int = 1000) -> trio.MemoryReceiveChannel[ServiceEvent]:
        """Return a channel of what happens from now on; a subscriber that does not keep up loses events."""
        return self._tree.events.subscribe(max_buffer)

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Return what the service offers."""
        return await self._tree.transport.call(CAPABILITIES, Empty())

    async def create_lora_training_client(
        self,
        base_model: str,
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,
        train_attn: bool = True,
        train_unembed: bool = True,
        user_metadata: Mapping[str, str] | None = None,
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

        Raises:
            InputError: nothing to train, or a rank or seed out of range.
            APIStatusError: the service refused, for instance because it does not know the model.
            RequestFailedError: the service failed to make it.
        """
        if not (train_mlp or train_attn or train_unembed):
            raise InputError("train_mlp, train_attn, train_unembed", False, "at least one must be true")
        if isinstance(rank, bool) or not 1 <= rank <= _MAX_RANK:
            raise InputError("rank", rank, f"must be 1 to {_MAX_RANK}")
        if seed is not None and not 0 <= seed < 2**63:
            raise InputError("seed", seed, "must be in [0, 2**63)")
        lora = LoraConfig(
            rank=rank,
            seed=self._tree.rng.getrandbits(31) if seed is None else seed,
            train_unembed=train_unembed,
            train_mlp=train_mlp,
            train_attn=train_attn,
        )
        lineage = Lineage(
            base_model,
            lora,
            MemoryJournal(max_bytes=self._tree.config.replay_bytes),
            None if user_metadata is None else dict(user_metadata),
        )
        ref = await self._start_training(lineage)
        return await self._training_client(ref, lineage)

    async def _start_training(self, lineage: Lineage) -> ActorRef[Training]:
        tree = self._tree
        self._models += 1
        spec = ChildSpec(
            name=f"model-{self._models - 1}",
            factory=lambda: TrainingActor(lineage, tree.transport, tree.session, self._futures, tree.events),
            policy=_TRAINING_POLICY,
            on_exhausted="fail",
            start_timeout=_RESTORE_TIMEOUT,
            stop_timeout=tree.config.grace,
            refusal=_refusal,
        )
        try:
            return await self._training.start_child(spec)
        except StartFailed as error:
            _raise_cause(error, note=self._chosen)

    async def _training_client(self, ref: ActorRef[Training], lineage: Lineage) -> TrainingClient:
        info = await self._tree.transport.call(GET_INFO, GetInfoRequest(lineage.model_id))
        failures = FailureLog(f"the TrainingClient of {lineage.model_id}")
        self._tree.failures.append(failures)
        samplers = SamplerFactory(self._sampling, self._open_path, self._tree.tokenizers)
        return TrainingClient(ref, info, lineage.base_model, lambda: lineage.model_id, samplers, failures)

    async def create_sampling_client(
        self, model_path: str | None = None, base_model: str | None = None
    ) -> SamplingClient:
        """Return a client that samples from a base model or from saved weights.

        Args:
            model_path: `tinker://` path of saved weights.
            base_model: name of a base model; beside a path it only names the tokenizer.

        Raises:
            InputError: neither was given, or a path that is none.
            APIStatusError: the service does not know it.
        """
        if model_path is None and base_model is None:
            raise InputError("model_path", None, "give a model_path or a base_model")
        if model_path is not None and not model_path.startswith("tinker://"):
            raise InputError("model_path", model_path, "must start with tinker://")
        session_id = await self._open_sampling_session(model_path, base_model)
        factory = SamplerFactory(self._sampling, self._open_path, self._tree.tokenizers)
        name = base_model or ""
        return factory.make(session_id, name, name, 0)

    async def _open_path(self, path: str) -> str:
        return await self._open_sampling_session(path, None)

    async def _open_sampling_session(self, model_path: str | None, base_model: str | None) -> str:
        session = self._tree.session
        request = CreateSamplingSessionRequest(
            session_id=session.session_id,
            sampling_session_seq_id=session.take_sampler_seq(),
            base_model=base_model if model_path is None else None,
            model_path=model_path,
        )
        try:
            reply = await self._tree.transport.call(CREATE_SAMPLING_SESSION, request)
        except TinkerError as error:
            error.add_note(self._chosen)
            raise
        return reply.sampling_session_id


def _raise_cause(error: StartFailed, note: str | None = None) -> NoReturn:
    """Raise the reason why an actor did not start, if it is one of ours: that is what the user can act on."""
    cause = error.__cause__
    if not isinstance(cause, TinkerActorsError):
        raise error
    if note is not None:
        cause.add_note(note)
    raise cause


@contextlib.asynccontextmanager
async def open_client(
    config: Config,
    *,
    rng: random.Random,
    backend: str,
    chosen: str,
    through: Carrier | None = None,
    beat_through: TransportOpener | None = None,
) -> AsyncIterator[ServiceClient]:
    """Connect to a service, start the tree, and yield its client; leaving it means everything has ended.

    Args:
        config: how the service is reached.
        rng: chance for delays and seeds.
        backend: the name of the backend for users.
        chosen: one line that says which backend was chosen and why.
        through: a transport to use in place of the network.
        beat_through: opens one for the heartbeat, in the loop that beats.

    Raises:
        UnobservedFailure: the body returned, and an operation had failed that nobody awaited.
        TinkerError: the service could not be reached or refused.
    """
    failures: list[FailureLog] = []
    try:
        async with open_transport(config, rng=rng, through=through) as transport:
            events = EventHub()
            with contextlib.closing(events):
                async with _open_tree(config, transport, events, rng, failures, beat_through) as parts:
                    yield ServiceClient(*parts, backend=backend, chosen=chosen)
    except trio.Cancelled:
        raise
    except BaseException as error:
        for note in _unobserved(failures):
            error.add_note(f"an operation had failed and was never awaited: {note!r}")
        raise
    _raise_unobserved(failures)


@contextlib.asynccontextmanager
async def _open_tree(
    config: Config,
    transport: HttpTransport,
    events: EventHub,
    rng: random.Random,
    failures: list[FailureLog],
    beat_through: TransportOpener | None,
) -> AsyncIterator[tuple[_Tree, ActorRef[Futures], Supervisor, ActorRef[Sampling]]]:
    tree: _Tree | None = None

    def observe(event: KernelEvent) -> None:
        if tree is not None:
            tree.observe(event)

    async with open_supervisor("service", rng=rng, observer=observe, grace=config.grace) as root:
        tree = _Tree(config, transport, root, events, rng, failures=failures)
        try:
            started = await tree.start(beat_through)
        except StartFailed as error:
            _raise_cause(error)
        yield (tree, *started)


def _unobserved(failures: list[FailureLog]) -> list[Exception]:
    return [error for log in failures for error in log.take()]


def _raise_unobserved(failures: list[FailureLog]) -> None:
    errors = _unobserved(failures)
    if errors:
        error = UnobservedFailure(f"an operation failed and was never awaited: {errors[0]}")
        for other in errors[1:]:
            error.add_note(f"also: {other!r}")
        raise error from errors[0]
