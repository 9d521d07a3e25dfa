"""The tree that runs.

service                   one for one; started top to bottom, stopped bottom to top
├── telemetry             outlives everything it reports on
├── heartbeat             beats from its own thread
├── session               owns the session's epoch; finishing it is its last act
├── futures               waits for the results of promises
├── training              one TrainingActor per model
│   └── model-0 …
├── sampling              a pool of SamplingActors behind one throttle
│   └── worker-0 …
└── evaluation            another one behind the same throttle, for samples that go first
    └── worker-0
"""

from __future__ import annotations

import contextlib
import math
import random
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import NoReturn

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.failure import FailureLog
from tinker_actors.actors.futures import CONCURRENCY, FuturesActor, Polls
from tinker_actors.actors.heartbeat import HeartbeatActor
from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.message import Futures, Sampling, Telemetry, Training
from tinker_actors.actors.reachability import Reachability
from tinker_actors.actors.rebinding import SamplerOpener
from tinker_actors.actors.recorder import Recorder
from tinker_actors.actors.sampling import SamplingActor, SamplingShare, sampling_policy, shared_backoff
from tinker_actors.actors.session import Adoption, Session, SessionActor
from tinker_actors.actors.telemetry import Reporter, TelemetryActor, TelemetryHandle, secrets_of
from tinker_actors.actors.throttle import BytesGate, SampleGate
from tinker_actors.actors.tokenizers import Tokenizers
from tinker_actors.actors.training import TrainingActor
from tinker_actors.actors.waits import Waits
from tinker_actors.errors import (
    ActorError,
    ActorStopped,
    ModelLost,
    ModelPoisoned,
    ModelUnloaded,
    ServiceClosing,
    StartFailed,
    TinkerActorsError,
)
from tinker_actors.kernel import (
    ActorCrashed,
    ActorRef,
    ChildSpec,
    Intensity,
    KernelEvent,
    PoolSpec,
    RestartPolicy,
    Supervisor,
    open_supervisor,
    start_pool,
)
from tinker_actors.protocol.aimd import AdaptiveLimit
from tinker_actors.protocol.event import ActorFailed
from tinker_actors.protocol.event_line import EventSink
from tinker_actors.protocol.throttle import SampleThrottle
from tinker_actors.protocol.wait import WaitSeen
from tinker_actors.transport.config import TINKER_SERVICE, Config
from tinker_actors.transport.heartbeat import TransportOpener
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.service import ClientConfigResponse

__all__ = ["Tree", "open_tree", "raise_cause", "wants_telemetry"]

_TRAINING_POLICY = RestartPolicy(restart="transient", max_restarts=5, period=60.0, uncounted=(ModelLost,))
# Handlers here wait for the service, which takes its time; `Waits` tells of that, and of its end.
_SLOW_AFTER = 600.0
# Seconds for the opening of the first session on a service that is there.
_START_TIMEOUT = 600.0
# Seconds for the opening of another session that is under way when nobody is left who needs one.
_NO_SESSION_NEEDED = 1.0
# Models and samplers fail together when the service does, and each is bounded by its own policy.
_ANY_NUMBER = Intensity(max_restarts=1_000_000)


@attrs.define(eq=False)
class Tree:
    """The running parts.

    Attributes:
        config: how the service is reached and used.
        transport: the way to it.
        root: the supervisor of everything.
        events: where events go.
        rng: chance for delays and seeds.
        failures: what nobody has awaited, by client.
        session: the present session.
        samplers: opens sampling sessions.
        waits: who waits for what.
        tokenizers: where tokenizers come from.
        reporter: takes what telemetry is to tell; None if there is no telemetry.
        telemetry: the same for users.
        futures: the FuturesActor.
        training: the supervisor of the TrainingActors.
        sampling: the sampling pool.
        evaluation: the pool of the lane that goes first.
        throttle: what all samples pass on their way to the service.
        sightings: are told of all that the kernel reports.
        adoption: what an earlier process has left.
    """

    config: Config
    transport: HttpTransport
    root: Supervisor
    events: EventHub
    rng: random.Random
    failures: list[FailureLog]
    session: Session = attrs.field(init=False)
    samplers: SamplerOpener = attrs.field(init=False)
    waits: Waits = attrs.field(init=False)
    tokenizers: Tokenizers = attrs.field(factory=Tokenizers)
    reporter: Reporter | None = None
    telemetry: TelemetryHandle | None = None
    adoption: Adoption | None = None
    futures: ActorRef[Futures] = attrs.field(init=False)
    training: Supervisor = attrs.field(init=False)
    sampling: ActorRef[Sampling] = attrs.field(init=False)
    evaluation: ActorRef[Sampling] = attrs.field(init=False)
    throttle: SampleThrottle = attrs.field(init=False)
    sightings: list[Callable[[KernelEvent], object]] = attrs.field(factory=list)
    _models: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        timeout = self.config.outage_timeout
        self.waits = Waits(self.events)
        self.waits.sources.append(self._outage)
        self.session = Session(Reachability(self.transport, self.events, self.rng, timeout), self.waits)
        self.samplers = SamplerOpener(self.transport, self.session, self.events)
        self.root.on_stopped(self.session.close)

    @property
    def _waits_for_service(self) -> bool:
        return self.adoption is not None and self.adoption.waits

    def _outage(self) -> list[WaitSeen]:
        since = self.session.reachability.away_since
        if since is None:
            return []
        seconds = trio.current_time() - since
        return [WaitSeen(self.config.base_url, "server", "", seconds, self.session.reachability.state, "", 1)]

    async def start(self, beat_through: TransportOpener | None) -> None:
        """Start everything but models, in the order of the picture above."""
        if wants_telemetry(self.config):
            await self._start_telemetry()
        heartbeat = await self.root.start_child(
            ChildSpec(
                name="heartbeat",
                factory=lambda: HeartbeatActor(
                    self.config,
                    self.session,
                    beat_through,
                    self.events,
                    lambda: self.transport.latest_credentials,
                ),
            )
        )
        await self.root.start_child(
            ChildSpec(
                name="session",
                factory=lambda: SessionActor(
                    self.transport, self.session, heartbeat, self.events, self.rng, self.adoption
                ),
                # Who waits for an absent service is told of it by `Waits`; `outage_timeout` ends that.
                start_timeout=math.inf if self._waits_for_service else _START_TIMEOUT,
                stop_timeout=_NO_SESSION_NEEDED,
                refusal=refusal,
            )
        )
        limits = self.session.limits
        in_flight = max(1, min(self.config.max_samples, limits.sample_max_concurrent_requests))
        throttle = self.throttle = SampleThrottle(
            shared_backoff(self.config),
            AdaptiveLimit(in_flight),
            limits.sample_dispatch_bytes_semaphore_size,
        )
        polls = Polls(
            self.events,
            self.waits,
            throttle,
            BytesGate(limits.inflight_response_bytes_semaphore_size),
            cancels=self.session.cancels,
            together=_waits_together(self.config, limits),
            reporter=self.reporter,
            reachability=self.session.reachability,
        )
        self.futures = await self.root.start_child(
            ChildSpec(
                name="futures",
                factory=lambda: FuturesActor(self.transport, polls),
                capacity=CONCURRENCY,
                concurrency=CONCURRENCY,
            )
        )
        self.training = self.root.start_supervisor("training", "dynamic", intensity=_ANY_NUMBER)
        await self._start_sampling(polls)

    async def _start_telemetry(self) -> None:
        reporter = Reporter(
            lambda: datetime.now(UTC),
            uuid.uuid4,
            self.config.user_metadata,
            lambda: secrets_of(self.transport),
        )
        self.reporter = reporter
        spec: ChildSpec[Telemetry] = ChildSpec(
            name="telemetry",
            factory=lambda: TelemetryActor(self.transport, self.session, reporter),
            on_exhausted="fail",  # nothing else may suffer from it
        )
        self.telemetry = TelemetryHandle(reporter, await self.root.start_child(spec))
        self.events.listen(reporter.happened)
        self.events.failures = reporter.failed

    async def _start_sampling(self, polls: Polls) -> None:
        """Start a pool for each lane; both draw through one throttle."""
        futures, in_flight = self.futures, polls.throttle.limit.most
        share = SamplingShare(
            SampleGate(polls.throttle),
            self.rng,
            self.session,
            self.samplers,
            self.waits,
            self.events,
            sampling_policy(None, self.session.limits),
            polls.cancels,
        )

        async def start(name: str, workers: int, handlers: int) -> ActorRef[Sampling]:
            spec = PoolSpec(
                name=name,
                intensity=_ANY_NUMBER,
                workers=workers,
                concurrency=-(-handlers // workers),
                stop_timeout=math.inf,
                refusal=refusal,
            )
            pool = await start_pool(self.root, spec, lambda: SamplingActor(self.transport, futures, share))
            return pool.ref

        self.sampling = await start("sampling", self.config.sampling_actors, in_flight)
        # Twice as many, so that the lane also has somebody in line while those in flight are all its own.
        self.evaluation = await start("evaluation", 1, 2 * in_flight)

    async def start_model(self, lineage: Lineage) -> ActorRef[Training]:
        """Start the TrainingActor of a new model.

        Raises:
            StartFailed: the model was not made; the cause is chained.
        """
        spec = ChildSpec(
            name=f"model-{self._models}",
            factory=lambda: TrainingActor(
                lineage, self.transport, self.session, self.futures, self.events, self.rng
            ),
            policy=_TRAINING_POLICY,
            on_exhausted="fail",
            start_timeout=math.inf,
            stop_timeout=math.inf,
            refusal=lambda error: model_refusal(lineage, error),
        )
        self._models += 1
        try:
            return await self.training.start_child(spec)
        except ActorError as error:
            if error.__cause__ is not None:
                raise
            raise ServiceClosing from error  # it was stopped, or there was nothing left to start it

    def record(self, sink: EventSink) -> None:
        """Have what happens from now on written down, until everything has ended."""
        recorder = Recorder(sink, self.root, self.waits, lambda: secrets_of(self.transport))
        recorder.begin(self.events, self.sightings)

    def observe(self, event: KernelEvent) -> None:
        """Pass on what the kernel reports."""
        for sighting in self.sightings:
            sighting(event)
        if not isinstance(event, ActorCrashed):
            return
        cause = f"{type(event.cause).__name__}: {event.cause}"
        self.events.publish(ActorFailed(event.actor, cause, event.delay))
        if self.reporter is not None:
            data: dict[str, object] = {"actor": event.actor, "error_type": type(event.cause).__name__}
            self.reporter.log("actor_crashed", data)
            self.reporter.failed(event.cause)


def _waits_together(config: Config, limits: ClientConfigResponse) -> bool:
    return limits.sample_use_retrieve_futures if config.batch_polls is None else config.batch_polls


def wants_telemetry(config: Config) -> bool:
    """Whether the service is told of this client: as the configuration says; else it must be Tinker's own."""
    return config.base_url == TINKER_SERVICE if config.telemetry is None else config.telemetry


def refusal(error: ActorStopped) -> TinkerActorsError:
    """Return what the sender of a message that never started is told: why the actor was given up, or closing."""
    cause = error.__cause__
    if cause is None:
        return ServiceClosing()
    poisoned = ModelPoisoned(f"{error.actor} was given up: {cause}", model_id=error.actor)
    poisoned.__cause__ = cause
    return poisoned


def model_refusal(lineage: Lineage, error: ActorStopped) -> TinkerActorsError:
    """Return what the sender of a message to a model is told that never started."""
    if lineage.unloaded and error.__cause__ is None:
        model_id = lineage.model_id
        return ModelUnloaded(f"model {model_id} was unloaded: nothing can be done with it", model_id=model_id)
    return refusal(error)


@contextlib.asynccontextmanager
async def open_tree(
    config: Config,
    transport: HttpTransport,
    rng: random.Random,
    failures: list[FailureLog],
    beat_through: TransportOpener | None,
    record: EventSink | None = None,
    adoption: Adoption | None = None,
) -> AsyncIterator[Tree]:
    """Start the tree; leaving it means that everything in it has ended.

    Raises:
        TinkerActorsError: why an actor did not start.
    """
    tree: Tree | None = None

    def observe(event: KernelEvent) -> None:
        if tree is not None:
            tree.observe(event)

    with contextlib.closing(EventHub()) as events:
        async with open_supervisor(
            "service", rng=rng, observer=observe, grace=config.grace, slow_after=_SLOW_AFTER
        ) as root:
            tree = Tree(config, transport, root, events, rng, failures, adoption=adoption)
            if record is not None:
                tree.record(record)
            try:
                await tree.start(beat_through)
            except StartFailed as error:
                raise_cause(error)
            try:
                yield tree
                # What was put in line runs to its end, however long that takes; `grace` is for other ends.
                await root.stop("drain", math.inf)
            except Exception as error:
                events.report(error)
                raise


def raise_cause(error: StartFailed, note: str | None = None) -> NoReturn:
    """Raise the reason why an actor did not start, if it is one of ours: that is what the user can act on.

    Raises:
        TinkerActorsError: the reason, with the note; else the StartFailed itself.
    """
    cause = error.__cause__
    if not isinstance(cause, TinkerActorsError):
        raise error
    if note is not None:
        cause.add_note(note)
    raise cause
