"""Sampling requests: what they sample from, their numbers, and their results.

Theory of operation. There are three ways to say what to sample from: a sampling session, a base model, a
`tinker://` path. A sampling session is made for a base model or a path, or comes from weights that were
saved without a name. The latter live in memory: they outlive their model, but neither their session nor the
service, and of more than `max_snapshots` of them the one used longest ago is dropped. Of the others it is kept what
they were made for, so that a restarted service has them again.

Within a sampling session requests are numbered, and a repeated number gets the first one's id again; the
order does not matter. A request without a seed gets one from the service's own stream. A request that finds
the pool full is refused with 429 and may come again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable

import attrs
import trio

from tinker_actors.errors import InputError
from tinker_actors.wire.sampling import CreateSamplingSessionRequest, SampleRequest, SampleSubmitted

from .archive import CONFIG_FILE, read_arrays, read_config
from .boot import number_of, numbered
from .catalog import Catalog
from .conversion import sample_job, sample_response
from .decoding import DecoderPool, Source
from .job import BUSY_SECONDS, SequenceLog
from .lora import LoraWeights
from .model import BaseModel
from .promise import PromiseTable
from .refusal import refusal
from .sample import SampleResult, check_job
from .session import SessionTable
from .state import KeptSampler, ServiceState
from .store import CheckpointPath, CheckpointStore
from .worker import blame

__all__ = ["Samplers"]

REMEMBERED = 16_384  # requests of one sampling session whose repetition is recognised
PATHS = 256  # checkpoints whose base model is remembered
_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class _SamplingSession:
    """A place to sample from.

    Attributes:
        source: the weights; None until they are asked for in this life of the service.
        unnamed: the weights exist here only.
        made_for: what an earlier life of the service has kept of it.
        log: the accepted requests.
    """

    source: Source | None
    unnamed: bool = False
    made_for: KeptSampler | None = None
    log: SequenceLog = attrs.field(factory=lambda: SequenceLog(REMEMBERED))


class Samplers:
    """Everything that can be sampled from, and the samples under way.

    Args:
        pool: the decoders.
        catalog: the base models.
        sessions: what sampling sessions die with.
        promises: where results go.
        store: where paths lead.
        state: keeps what was opened.
        draw_seed: the service's own stream of seeds.
        date: what the calendar says, in seconds.
        life: makes request ids differ from those of other lives of the service.
        max_open: samples that may be queued or under way.
        max_snapshots: unnamed weights kept.

    Attributes:
        pool: the decoders.
        sequences: sequences drawn so far.
    """

    def __init__(
        self,
        pool: DecoderPool,
        *,
        catalog: Catalog,
        sessions: SessionTable,
        promises: PromiseTable,
        store: CheckpointStore,
        state: ServiceState,
        draw_seed: Callable[[], int],
        date: Callable[[], float],
        life: str,
        max_open: int = 2048,
        max_snapshots: int = 256,
    ) -> None:
        self.pool = pool
        self.sequences = 0
        self._catalog = catalog
        self._sessions = sessions
        self._promises = promises
        self._store = store
        self._state = state
        self._draw_seed = draw_seed
        self._date = date
        self._life = life
        self._max_open = max_open
        self._max_snapshots = max_snapshots
        self._sampling: dict[str, _SamplingSession] = {}  # least recently used first
        self._numbers: dict[str, SequenceLog] = {}  # of sampling sessions, by session
        self._paths: dict[tuple[CheckpointPath, int], Source] = {}  # oldest first
        self._submitted = 0
        self._boot = 1

    # ------------------------------------------------------------------------------------- sampling sessions

    def create_session(self, request: CreateSamplingSessionRequest, digest: bytes) -> str:
        """Open a sampling session for a base model or a path, and return its id.

        Raises:
            InputError: neither or both are given, or it is no known model or no path.
            ConflictError: the number belongs to another sampling session.
            NotFoundError, SessionGoneError: the session or the path does not exist.
        """
        self._sessions.check_alive(request.session_id)
        source = self._source(request.base_model, request.model_path)
        number = request.sampling_session_seq_id
        sampling_session_id = self.reserve(request.session_id, number, digest)
        if sampling_session_id not in self._sampling:
            self._state.note_sampler(
                KeptSampler(
                    sampler_id=sampling_session_id,
                    session_id=request.session_id,
                    number=number,
                    digest=digest,
                    base_model=request.base_model,
                    model_path=request.model_path,
                )
            )
            self._sampling[sampling_session_id] = _SamplingSession(source)
        return sampling_session_id

    def revive(self, boot: int, kept: Iterable[KeptSampler]) -> None:
        """Begin another life of the service, with what earlier ones have opened."""
        self._boot = boot
        for one in kept:
            log = self._numbers.setdefault(one.session_id, SequenceLog(REMEMBERED))
            log.note(one.number, one.digest, one.sampler_id)
            self._sampling[one.sampler_id] = _SamplingSession(None, made_for=one)

    def reserve(self, session_id: str, number: int, digest: bytes) -> str:
        """Take a sampling session's number and return the id that goes with it.

        Raises:
            InputError: the number is negative.
            ConflictError: the number belongs to another request.
        """
        if number < 0:
            raise InputError("sampling_session_seq_id", number, "must not be negative")
        log = self._numbers.setdefault(session_id, SequenceLog(REMEMBERED))
        first = log.repeated(number, digest)
        if first is not None:
            return first
        sampling_session_id = numbered(f"{session_id}:sample", number, self._boot)
        log.note(number, digest, sampling_session_id)
        return sampling_session_id

    def add_snapshot(self, sampling_session_id: str, base: BaseModel, weights: LoraWeights) -> None:
        """Make unnamed weights available under an id that was reserved."""
        source = Source(sampling_session_id, base, lambda: weights)
        self._sampling[sampling_session_id] = _SamplingSession(source, unnamed=True)
        unnamed = [key for key, entry in self._sampling.items() if entry.unnamed]
        for key in unnamed[: -self._max_snapshots]:
            del self._sampling[key]

    def end_session(self, session_id: str) -> None:
        """Drop a session's sampling sessions and the samples it waits for."""
        self.pool.cancel(self._promises.break_owned(session_id, f"session {session_id!r} has ended"))
        self._numbers.pop(session_id, None)
        for key in [key for key in self._sampling if _session_of(key) == session_id]:
            del self._sampling[key]

    def ids(self, session_id: str) -> list[str]:
        """Return the sampling sessions of a session that are in use, in the order of their numbers."""
        prefix = f"{session_id}:sample:"
        found = [key for key in self._sampling if key.startswith(prefix)]
        return sorted(found, key=number_of)

    def describe(self, sampling_session_id: str) -> tuple[str, str | None]:
        """Return what a sampling session samples from: a base model's name, and its weights' path if they have one.

        Raises:
            NotFoundError: there is no such sampling session.
        """
        source = self._used(sampling_session_id)[1]
        path = (
            str(source.key[0])
            if isinstance(source.key, tuple) and isinstance(source.key[0], CheckpointPath)
            else None
        )
        return source.base.name, path

    def _used(self, sampling_session_id: str) -> tuple[_SamplingSession, Source]:
        """Return a sampling session with its weights."""
        entry = self._sampling.get(sampling_session_id)
        if entry is None:
            raise refusal(404, f"Sampling session {sampling_session_id!r} does not exist")
        if entry.source is None:
            assert entry.made_for is not None, "it is of an earlier life"
            entry.source = self._source(entry.made_for.base_model, entry.made_for.model_path)
        return entry, entry.source

    @property
    def sampling_sessions(self) -> int:
        """Sampling sessions in use."""
        return len(self._sampling)

    # -------------------------------------------------------------------------------------------- requests

    def submit(self, request: SampleRequest, digest: bytes, nursery: trio.Nursery) -> SampleSubmitted:
        """Accept a sampling request and return its promise.

        Args:
            request: what is wanted.
            digest: of its bytes.
            nursery: where the decoder's task runs.

        Raises:
            InputError: a value of the request is bad.
            ConflictError: its number belongs to another request.
            NotFoundError, SessionGoneError: what it wants to sample from does not exist.
            RateLimitError: too many samples are under way.
        """
        owner, log, source = self._target(request)
        number = None if log is None else request.seq_id
        if log is not None and number is not None:
            first = log.repeated(number, digest)
            if first is not None:
                return _submitted(first, request.num_samples)
        request_id = f"{self._life}:sample:{self._submitted}"
        job = sample_job(request, request_id, 0)
        check_job(job, source.base)
        if self.pool.open >= self._max_open:
            raise refusal(429, f"{self._max_open} samples are under way", retry_after=BUSY_SECONDS)
        if request.sampling_params.seed is None:  # drawn only now: a refused request takes nothing
            job = attrs.evolve(job, seed=self._draw_seed())
        self._submitted += 1
        if log is not None and number is not None:
            log.note(number, digest, request_id)
        self._promises.open(request_id, owner)
        self.pool.submit(source, job, functools.partial(self._settle, request_id), nursery)
        return _submitted(request_id, request.num_samples)

    def _target(self, request: SampleRequest) -> tuple[str, SequenceLog | None, Source]:
        """Return who owns a request's promise, the log of its numbers, and its weights."""
        sampling_session_id = request.sampling_session_id
        if sampling_session_id is None:
            return "", None, self._source(request.base_model, request.model_path)
        if request.base_model is not None or request.model_path is not None:
            given = request.base_model or request.model_path
            raise InputError("sampling_session_id", sampling_session_id, f"excludes {given!r}")
        session_id = _session_of(sampling_session_id)
        self._sessions.check_alive(session_id)
        entry, source = self._used(sampling_session_id)
        self._sampling[sampling_session_id] = self._sampling.pop(sampling_session_id)
        return session_id, entry.log, source

    def _source(self, base_model: str | None, model_path: str | None) -> Source:
        if (base_model is None) == (model_path is None):
            what = "one of base_model and model_path must be given"
            raise InputError("base_model", base_model, what)
        if base_model is not None:
            return Source(("base", base_model), self._catalog.get(base_model), lambda: None)
        assert model_path is not None
        path = CheckpointPath.parse(model_path)
        self._store.check_exists(path, self._date())
        key = (path, self._store.version(path))
        if key not in self._paths:
            config = read_config(self._store.load(path, self._date(), [CONFIG_FILE]))
            base = self._catalog.get(config.base_model_name_or_path)
            self._paths[key] = Source(key, base, functools.partial(self._load, path, base))
            if len(self._paths) > PATHS:
                del self._paths[next(iter(self._paths))]
        return self._paths[key]

    def _load(self, path: CheckpointPath, base: BaseModel) -> LoraWeights:
        files = self._store.load(path, self._date())
        config = read_config(files).lora_config()
        return LoraWeights.from_arrays(base.config, config, read_arrays(files, optimizer=False))

    def _settle(self, request_id: str, outcome: SampleResult | Exception) -> None:
        if isinstance(outcome, SampleResult):
            self.sequences += len(outcome.sequences)
            self._promises.resolve(request_id, sample_response(outcome))
            return
        category = blame(outcome)
        if category == "server":
            _log.error("sample %s failed", request_id, exc_info=outcome)
        self._promises.fail(request_id, str(outcome) or repr(outcome), category)


def _session_of(sampling_session_id: str) -> str:
    return sampling_session_id.rpartition(":sample:")[0]


def _submitted(request_id: str, num_samples: int) -> SampleSubmitted:
    return SampleSubmitted(request_id, tuple(f"{request_id}:{index}" for index in range(num_samples)))
