"""The embedded service without HTTP: sessions, models, samplers, promises, and the tasks that work on them.

Theory of operation. An engine is open inside `running`: there it has a nursery for its tasks, one per
model, one per decoder at work, and one that frees what belonged to sessions that ended. Requests come as
plain calls from the loop that opened it, and none of these calls waits, so each is decided as a whole. Only
beats, which touch nothing but the session table, may come from other threads.

A model ends with its session, when it is unloaded, or when it is dropped: at once, whatever it is doing.
Its pending promises break; what it saved stays.

With a state on disk (`state`) an engine goes on where an earlier one ended, however that was. Sessions that were alive
are alive, and their silence begins anew; models are not loaded, but known as runs; a promise has the result that was
kept, or is broken. What is numbered in a session gets an id that no earlier life has given (`boot`), also if the
number was used there.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import attrs
import numpy as np
import orjson
import trio

from tinker_actors.errors import InputError
from tinker_actors.wire.codec import encode
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.model import CreateModelRequest, CreateModelResponse

from .boot import boot_of, numbered
from .catalog import Catalog
from .compute import Compute, ComputeMode
from .conversion import check_optimizer, lora_config
from .decoding import DecoderPool
from .job import Job, SequenceLog
from .promise import Promise, PromiseTable
from .refusal import refusal
from .sampling import Samplers
from .session import SessionTable
from .state import KeptSession, Run, Saved, ServiceState
from .store import CheckpointStore
from .worker import ModelWorker, Work

__all__ = ["Engine", "ServiceStatistics", "Settings"]

CREATE = "create_model"
OPERATIONS = (
    CREATE,
    "forward",
    "forward_backward",
    "optim_step",
    "load_weights",
    "save_weights",
    "save_weights_for_sampler",
    "save_weights_external",
)
NOTE_EVERY = 10.0  # seconds of requests after which it is written down again when the last one came
SHORTEST_SLEEP = 0.001  # seconds; below that, rounding could keep the clock where it is
_log = logging.getLogger(__name__)


def _fresh_id() -> str:
    return secrets.token_hex(8)


@attrs.frozen(kw_only=True)
class Settings:
    """How a service behaves.

    Attributes:
        compute: where numpy runs. seed: of the service's own draws: adapters and samples whose client names
        no seed. poll_hold: seconds a poll waits for its result. session_timeout: seconds without a beat
        after which a session expires. clock: the time in seconds, callable from any thread; None means that
        of the loop that opens the service. utc_now: the calendar, asked once. new_id: makes the part of ids
        that no other life of a service may repeat. max_rows: samples under way at once per decoder.
        max_decoders: idle decoders kept for their next request. max_samples: samples that may be queued or
        under way.
    """

    compute: ComputeMode = "thread"
    seed: int = 0
    poll_hold: float = 30.0
    session_timeout: float = 300.0
    clock: Callable[[], float] | None = None
    utc_now: Callable[[], datetime] = lambda: datetime.now(UTC)
    new_id: Callable[[], str] = _fresh_id
    max_rows: int = 64
    max_decoders: int = 8
    max_samples: int = 2048


@attrs.frozen(kw_only=True)
class ServiceStatistics:
    """What a service is doing.

    Attributes:
        sessions: sessions alive.
        beats: heartbeats of all sessions so far.
        models: models loaded.
        models_dropped: models that were dropped so far, unloaded ones not counted.
        jobs_queued: training requests accepted and not begun.
        jobs_parked: those of them that wait for smaller numbers.
        jobs_begun: training requests begun so far, by operation.
        promises_pending: promises without a result.
        promises_kept: results that can be read.
        sampling_sessions: sampling sessions in use.
        samples_open: sampling requests queued or under way.
        sequences: sequences drawn so far.
        decoders: decoders in memory.
        telemetry_events: events received so far.
    """

    sessions: int
    beats: int
    models: int
    models_dropped: int
    jobs_queued: int
    jobs_parked: int
    jobs_begun: dict[str, int]
    promises_pending: int
    promises_kept: int
    sampling_sessions: int
    samples_open: int
    sequences: int
    decoders: int
    telemetry_events: int


class Engine:
    """An embedded service, reached by calls instead of requests.

    Args:
        settings: how it behaves.
        catalog: the base models it offers.
        store: where checkpoints lie.
        state: keeps all else that lasts.

    Attributes:
        sessions, promises, samplers, store, catalog, compute: its parts.
        life: a name no other life of a service has.
        boot: how many lives it has had, this one included; known once it is open.
        telemetry_events: events received so far.
        runs: every model that was made, by its id, the oldest first.
    """

    def __init__(
        self, settings: Settings, catalog: Catalog, store: CheckpointStore, state: ServiceState | None = None
    ) -> None:
        self._state = state or ServiceState()
        self._lives: frozenset[str] = frozenset()
        self.boot = 1
        self.catalog = catalog
        self.store = store
        self.compute = Compute(settings.compute)
        self.life = settings.new_id()
        self.telemetry_events = 0
        self.runs: dict[str, Run] = {}
        self._clock = settings.clock
        self._utc_now = settings.utc_now
        self._epoch = 0.0
        self._seed = settings.seed
        self._draw_adapter, self._draw_sample = _streams(self._seed, self.boot)
        self.sessions = SessionTable(
            timeout=settings.session_timeout, clock=self.now, new_id=lambda: f"session-{settings.new_id()}"
        )
        self.promises = PromiseTable(hold=settings.poll_hold, earlier=self._earlier_promise)
        self.samplers = Samplers(
            DecoderPool(self.compute, max_rows=settings.max_rows, max_resident=settings.max_decoders),
            catalog=catalog,
            sessions=self.sessions,
            promises=self.promises,
            store=store,
            state=self._state,
            draw_seed=self._draw_sample_seed,
            date=self.date,
            life=self.life,
            max_open=settings.max_samples,
        )
        self._models: dict[str, ModelWorker] = {}
        self._creations: dict[str, SequenceLog] = {}  # by session
        self._faults: set[tuple[str, int]] = set()
        self._begun: Counter[str] = Counter()
        self._dropped = 0
        self._unloads = 0
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._session_created = trio.Event()

    def _draw_sample_seed(self) -> int:
        return self._draw_sample()  # that of the life it is

    def now(self) -> float:
        """Return the service's time in seconds. Callable from any thread.

        Raises:
            RuntimeError: the service is not open and was given no clock.
        """
        if self._clock is None:
            raise RuntimeError("the embedded service is not open")
        return self._clock()

    def calendar(self, time: float) -> float:
        """Return what the calendar says at a time of the service, in seconds since 1970."""
        return self._epoch + time

    def date(self) -> float:
        """Return what the calendar says now, in seconds since 1970. Callable from any thread."""
        return self.calendar(self.now())

    # ------------------------------------------------------------------------------------------------- life

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Be open inside. Leaving ends every task; slices under way are waited for. Once only. Checkpoints.

        Raises:
            RuntimeError: the service is or was open.
            ConfigError: the state cannot be used, or another service uses it.
        """
        if self._token is not None:
            raise RuntimeError("an embedded service can be opened once; make another one over the same store")
        token = trio.lowlevel.current_trio_token()
        if self._clock is None:
            self._clock = trio.lowlevel.current_clock().current_time  # other loops' clocks have other origins
        self._epoch = self._utc_now().timestamp() - self._clock()
        self._token = token
        with self.compute.active():
            failure: Exception | None = None
            try:
                await self.compute.call(lambda: [self.catalog.get(name) for name in self.catalog.names])
                self._revive(await self.compute.call(self._open_state))
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._free_ended_sessions, name="session expiry")
                    try:
                        yield
                    except Exception as exc:  # noqa: BLE001 - raised below, outside of the nursery's group
                        failure = exc
                    self._nursery = None
                    nursery.cancel_scope.cancel(reason="the embedded service is closing")
            finally:
                self._nursery = None
                self._state.close(list(self.runs.values()))
                if failure is not None:
                    raise failure

    def _open_state(self) -> Saved:
        saved = self._state.open(self.life, self.date())
        if self.store.root is not None and self.store.root == self._state.directory:
            self.store.clean()  # nobody else is at work there
        self.store.expire(self.date())
        return saved

    def _revive(self, saved: Saved) -> None:
        """Go on where earlier lives have ended."""
        self.boot, self._lives = saved.boot, saved.lives
        self._draw_adapter, self._draw_sample = _streams(self._seed, self.boot)
        self.runs = {run.run_id: run for run in saved.runs}
        for one in saved.sessions:
            self.sessions.revive(one.session_id, one.tags, one.user_metadata, one.display_name, one.state)
        self.samplers.revive(saved.boot, saved.samplers)

    def _earlier_promise(self, request_id: str) -> Promise | None:
        result = self._state.outcome(request_id)
        if result is not None:
            return Promise.ended(request_id, result=orjson.loads(result))
        run_id = request_id.rpartition(":")[0]
        of_run = run_id in self.runs and boot_of(run_id) < self.boot
        if of_run or request_id.partition(":")[0] in self._lives:
            return Promise.ended(request_id, why="the service was restarted")
        return None

    def _keep_reply(self, request_id: str, reply: object) -> None:
        self._state.note_outcome(request_id, encode(reply))

    def is_own_loop(self) -> bool:
        """Tell whether the caller runs in the loop that opened the service."""
        return self._token is not None and trio.lowlevel.current_trio_token() is self._token

    @property
    def nursery(self) -> trio.Nursery:
        """Where the service's tasks run.

        Raises:
            InternalServerError: the service is not open.
        """
        if self._nursery is None:
            raise refusal(503, "the embedded service is not open")
        return self._nursery

    async def _free_ended_sessions(self) -> None:
        while True:
            pause = max(self.sessions.next_expiry() - self.now(), SHORTEST_SLEEP)
            with trio.move_on_after(pause):
                await self._session_created.wait()
            if self._session_created.is_set():
                self._session_created = trio.Event()
            try:
                self.free_ended_sessions()
            except OSError as error:  # then they end once more after a restart
                _log.warning("ends of sessions were not kept", exc_info=error)

    def free_ended_sessions(self) -> None:
        """Free what belonged to sessions that have ended since the last call."""
        ended = self.sessions.sweep()
        for session_id in ended:
            why = f"session {session_id!r} has ended"
            for worker in [worker for worker in self._models.values() if worker.session_id == session_id]:
                self._remove(worker, why)
            self.samplers.end_session(session_id)
            self._creations.pop(session_id, None)
        for session_id in ended:  # when all is free: the disk may refuse
            self._state.note_end(session_id, self.sessions.end(session_id))

    def create_session(
        self, tags: Sequence[str], user_metadata: Mapping[str, str] | None, display_name: str | None
    ) -> str:
        """Open a session and return its id."""
        session_id = self.sessions.create(tags, user_metadata, display_name)
        self._state.note_session(
            KeptSession(
                session_id=session_id,
                tags=tuple(tags),
                user_metadata=user_metadata or {},
                display_name=display_name,
            )
        )
        self._session_created.set()
        return session_id

    # ----------------------------------------------------------------------------------------------- models

    def create_model(
        self,
        request: CreateModelRequest,
        digest: bytes,
        load: Callable[[ModelWorker], Awaitable[object]] | None = None,
    ) -> UntypedAPIFuture:
        """Accept the creation of a model; its number within the session decides its id.

        Args:
            request: what it is to be.
            digest: tells a repetition from another request.
            load: loads it when it is made, and returns the reply.

        Raises:
            InputError: base model, number or adapter are bad.
            ConflictError: the number belongs to another model.
            NotFoundError, SessionGoneError: the session does not exist.
        """
        self.sessions.check_alive(request.session_id)
        if request.model_seq_id < 0:
            raise InputError("model_seq_id", request.model_seq_id, "must not be negative")
        log = self._creations.setdefault(request.session_id, SequenceLog(limit=16_384))
        model_id = self.model_id(request.session_id, request.model_seq_id)
        first = log.repeated(request.model_seq_id, digest)
        if first is not None:
            return UntypedAPIFuture(first, model_id)
        base = self.catalog.get(request.base_model)
        check_optimizer(request.optimizer_config)
        config = lora_config(request.lora_config, self._draw_adapter)
        worker = ModelWorker(
            model_id,
            request.session_id,
            base,
            config,
            compute=self.compute,
            promises=self.promises,
            on_begin=self._on_begin,
            keep=self._keep_reply if self._state.lasts else None,
        )
        run = Run(
            run_id=model_id,
            session_id=request.session_id,
            base_model=base.name,
            rank=config.rank,
            user_metadata=dict(request.user_metadata or {}),
            last_request=self.date(),
        )
        self._state.note_run(run)
        self.nursery.start_soon(worker.run, name=f"model {model_id}")
        self._models[model_id] = worker
        self.runs[model_id] = run
        request_id = worker.submit(0, CREATE, digest, _creation(worker, load))
        log.note(request.model_seq_id, digest, request_id)
        return UntypedAPIFuture(request_id, model_id)

    def model_id(self, session_id: str, number: int) -> str:
        """Return the id of the model that is made under a number of a session in this life of the service."""
        return numbered(f"{session_id}:train", number, self.boot)

    def model(self, model_id: str) -> ModelWorker:
        """Return a model's worker, for a request.

        Raises:
            NotFoundError: the model is not loaded.
        """
        worker = self._models.get(model_id)
        if worker is None:
            raise refusal(404, f"Model {model_id!r} is not loaded")
        self._note_use(self.runs[model_id])
        return worker

    def _note_use(self, run: Run) -> None:
        run.last_request = self.date()
        if run.last_request - run.noted >= NOTE_EVERY:
            try:
                self._state.note_run(run)
            except OSError as error:  # nobody is refused for that
                run.noted = run.last_request
                _log.warning("the time of the last request was not kept", exc_info=error)

    def unload_model(self, model_id: str) -> str:
        """Remove a model at once, whatever it is doing, and return a new request id for the answer.

        Raises:
            NotFoundError: the model is not loaded.
        """
        self._remove(self.model(model_id), f"Model {model_id!r} was unloaded")
        self._unloads += 1
        return f"{self.life}:unload:{self._unloads}"

    def drop_model(self, model_id: str) -> None:
        """Lose a model at once, as a failing server would.

        Raises:
            NotFoundError: the model is not loaded.
        """
        self._remove(self.model(model_id), f"Model {model_id!r} is not loaded")
        self._dropped += 1

    def drop_model_at(self, operation: str, nth: int) -> None:
        """Lose a model when the nth request of an operation, counted over all models, begins to run.

        Raises:
            InputError: there is no such operation, or that request has begun already.
        """
        if operation not in OPERATIONS:
            raise InputError("operation", operation, f"must be one of {', '.join(OPERATIONS)}")
        if nth <= self._begun[operation]:
            raise InputError("nth", nth, f"{self._begun[operation]} have begun already; counting starts at 1")
        self._faults.add((operation, nth))

    def _on_begin(self, worker: ModelWorker, job: Job) -> None:
        self._begun[job.operation] += 1
        fault = (job.operation, self._begun[job.operation])
        if fault in self._faults:
            self._faults.remove(fault)
            self.drop_model(worker.model_id)

    def _remove(self, worker: ModelWorker, why: str) -> None:
        del self._models[worker.model_id]
        worker.stop(why)
        self.promises.break_owned(worker.model_id, why)

    # --------------------------------------------------------------------------------------------- statistics

    def statistics(self) -> ServiceStatistics:
        """Return what the service is doing."""
        queues = [worker.queue for worker in self._models.values()]
        return ServiceStatistics(
            sessions=self.sessions.alive_count,
            beats=self.sessions.total_beats,
            models=len(self._models),
            models_dropped=self._dropped,
            jobs_queued=sum(queue.queued + queue.parked for queue in queues),
            jobs_parked=sum(queue.parked for queue in queues),
            jobs_begun=dict(self._begun),
            promises_pending=self.promises.pending_count,
            promises_kept=self.promises.kept_count,
            sampling_sessions=self.samplers.sampling_sessions,
            samples_open=self.samplers.pool.open,
            sequences=self.samplers.sequences,
            decoders=self.samplers.pool.resident,
            telemetry_events=self.telemetry_events,
        )


def _streams(seed: int, boot: int) -> tuple[Callable[[], int], Callable[[], int]]:
    """Return what draws the seeds of adapters, and those of samples, in a life of the service."""
    adapters, samples = np.random.SeedSequence(seed if boot == 1 else (seed, boot)).spawn(2)
    return _drawer(adapters), _drawer(samples)


def _drawer(seeds: np.random.SeedSequence) -> Callable[[], int]:
    generator = np.random.default_rng(seeds)
    return lambda: int(generator.integers(2**63))


def _creation(worker: ModelWorker, load: Callable[[ModelWorker], Awaitable[object]] | None) -> Work:
    async def run() -> object:
        await worker.create()
        return CreateModelResponse(worker.model_id) if load is None else await load(worker)

    return Work(run)
