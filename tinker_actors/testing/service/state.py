"""What a scripted service remembers: sessions, models, samplers, checkpoints, promises."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import attrs

from .dialect import FailureForm, LostForm, ServiceDialect
from .fault import Pause, ServiceFaults
from .reply import Refusal

__all__ = [
    "Applied",
    "Checkpoint",
    "Failure",
    "Model",
    "Promise",
    "Sampler",
    "ServiceState",
    "Session",
]


@attrs.frozen
class Applied:
    """One thing that became part of a model.

    Attributes:
        endpoint: "forward_backward" or "optim_step".
        digest: of the content: the same for the same batch or the same optimizer's parameters.
        seq_id: its number when it was done; None if it had none.
        content: the batch (`data`, `loss_fn`, ...) or the parameters, as JSON values.
    """

    endpoint: str
    digest: str
    seq_id: int | None
    content: object = attrs.field(repr=False)


@attrs.define(eq=False)
class Session:
    """A session.

    Attributes:
        lost: None while it lives; else what heartbeats are told: 410, 404, 500, or 200 if nobody says so.
    """

    session_id: str
    created: float
    request: dict[str, object]
    beats: int = 0
    last_beat: float = 0.0
    lost: int | None = None
    finished: object = None
    models: list[str] = attrs.field(factory=list)
    samplers: list[str] = attrs.field(factory=list)
    created_by: dict[tuple[str, int], str] = attrs.field(factory=dict)
    """Promise or sampler by (endpoint, number), for what is not made twice."""


@attrs.define(eq=False)
class Model:
    """A model: a list of what was done to it.

    Attributes:
        applied: everything in it, with what a checkpoint brought along, in order.
        origin: what was in it when it was made.
        expected: the next number in its turn.
        seen: number to (digest, promise) of what was done.
        parked: number to what is to be done in its turn.
        free_at: when its work so far is done.
        lost: None while it is loaded; else the form in which it is told that it is not.
        corrupted: what is listed of it says so.
        cold: it has no optimizer yet, although it has steps.
        strayed: how many steps farther it is than its steps would take it, because the optimizer began afresh.
    """

    model_id: str
    session_id: str
    base_model: str
    rank: int
    created: float
    user_metadata: object = None
    applied: list[Applied] = attrs.field(factory=list)
    origin: tuple[Applied, ...] = ()
    expected: int = 1
    seen: dict[int, tuple[str, str]] = attrs.field(factory=dict)
    parked: dict[int, Callable[[float], None]] = attrs.field(factory=dict)
    free_at: float = 0.0
    last_request: float = 0.0
    lost: str | None = None
    corrupted: bool = False
    cold: bool = False
    strayed: int = 0

    @property
    def steps(self) -> int:
        """How many optimizer steps are in it."""
        return sum(one.endpoint == "optim_step" for one in self.applied)


@attrs.frozen(kw_only=True)
class Checkpoint:
    """A model as it was.

    Attributes:
        kind: "weights" or "sampler_weights".
        applied: what was in the model.
        strayed: as of the model.
    """

    path: str
    model_id: str
    kind: str
    name: str
    base_model: str
    rank: int
    created: float
    applied: tuple[Applied, ...]
    expires_at: float = math.inf
    strayed: int = 0
    public: bool = False
    user_metadata: object = None

    @property
    def steps(self) -> int:
        """How many optimizer steps are in it."""
        return sum(one.endpoint == "optim_step" for one in self.applied)


@attrs.define(eq=False)
class Sampler:
    """A sampling session."""

    sampler_id: str
    session_id: str
    base_model: str
    model_path: str | None
    steps: int
    seen: dict[int, str] = attrs.field(factory=dict)
    promises: list[str] = attrs.field(factory=list)
    joined: int = 0


@attrs.frozen
class Failure:
    """That a request ran and failed, and how it is told."""

    form: FailureForm
    text: str
    category: str = "server"
    status: int = 422


@attrs.define(eq=False)
class Promise:
    """What was asked for, and when and what it will be.

    Attributes:
        ready_at: when the result is there; infinity while the request is parked.
        kind: "training" or "sample" if the result has a protobuf form.
        lost: in which form it is told that the result is lost; None if it is not.
    """

    request_id: str
    endpoint: str
    owner: str
    ready_at: float = math.inf
    result: object = None
    kind: str | None = None
    failure: Failure | None = None
    lost: LostForm | None = None
    reads: int = 0


class ServiceState:
    """All of it, and the rules of time.

    Attributes:
        epoch: Unix time of the service's begin.
        listeners: called whenever something changed that a held answer may wait for.
        without_optimizer: paths of checkpoints that whoever loads them gets the weights alone of.
        stray: how many steps farther than another an optimizer goes that begins afresh.
    """

    def __init__(self, dialect: ServiceDialect, faults: ServiceFaults, epoch: float) -> None:
        self.dialect = dialect
        self.epoch = epoch
        self.listeners: set[Callable[[], None]] = set()
        self.sessions: dict[str, Session] = {}
        self.models: dict[str, Model] = {}
        self.samplers: dict[str, Sampler] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        self.promises: dict[str, Promise] = {}
        self.telemetry: list[object] = []
        self.cancelled: list[str] = []
        self.losses: list[object] = []
        self.flags: dict[str, object] = {}
        self.dynamic_flags: dict[str, object] = {}
        self.tokens: dict[str, float] = {}  # until when each is valid
        self.token_lifetime: float | None = None
        self._work = faults.work
        self._pauses = faults.pauses
        self.without_optimizer: set[str] = set()
        self.stray = 1
        self._sampling: list[float] = []  # a heap
        self._made = 0

    # --- finding -----------------------------------------------------------------------------------------

    def model(self, model_id: str) -> Model:
        """Return a model that is loaded.

        Raises:
            Refusal: there is none.
        """
        model = self.models.get(model_id)
        if model is None:
            raise Refusal(404, f"Model {model_id} not found")
        if model.lost is None:
            return model
        if model.lost == "400":
            raise Refusal(400, f"Model {model_id} not loaded (likely stale request from previous server)")
        raise Refusal(int(model.lost), f"Model {model_id} is gone")

    def session(self, session_id: str) -> Session:
        """Return a session that lives, or of which nobody says that it does not.

        Raises:
            Refusal: there is none.
        """
        session = self.sessions.get(session_id)
        if session is None:
            raise Refusal(404, f"Session {session_id} not found")
        if session.lost not in (None, 200):
            raise Refusal(404 if session.lost == 404 else 410, f"Session {session_id} has ended")
        return session

    def checkpoint(self, path: str, now: float) -> Checkpoint:
        """Return a checkpoint that is there and has not expired.

        Raises:
            Refusal: there is none.
        """
        checkpoint = self.checkpoints.get(path)
        if checkpoint is None or checkpoint.expires_at <= now:
            raise Refusal(404, f"Checkpoint {path} not found")
        return checkpoint

    def latest(self, model_id: str, kind: str) -> Checkpoint | None:
        """Return the latest checkpoint of a model."""
        own = [one for one in self.checkpoints.values() if (one.model_id, one.kind) == (model_id, kind)]
        return own[-1] if own else None

    # --- promises ----------------------------------------------------------------------------------------

    def promise(self, endpoint: str, owner: str) -> Promise:
        """Make a promise."""
        self._made += 1
        promise = Promise(f"{owner}:{self._made}", endpoint, owner)
        self.promises[promise.request_id] = promise
        return promise

    def changed(self) -> None:
        """Have every held answer looked at again."""
        for listener in list(self.listeners):
            listener()

    def done_at(self, now: float, free_at: float, rng: random.Random) -> float:
        """Return when work is done that comes now, behind other work; a cycle does any amount of it."""
        cycle = self.dialect.cycle
        if cycle > 0:
            done = max((math.floor(now / cycle) + 1) * cycle, free_at)
        else:
            done = max(now, free_at) + self._work.draw(rng)
        pause = self.pause_at(done)
        return done if pause is None else pause.end

    def sampling_until(self, time: float) -> None:
        """A sample is at the service until some time."""
        heapq.heappush(self._sampling, time)

    def samples_at(self, now: float) -> int:
        """Return how many samples are at the service; the time must not fall."""
        while self._sampling and self._sampling[0] <= now:
            heapq.heappop(self._sampling)
        return len(self._sampling)

    def pause_at(self, now: float) -> Pause | None:
        """Return the pause there is at some time."""
        return next((pause for pause in self._pauses if pause.start <= now < pause.end), None)

    def cycle_of(self, done: float) -> int:
        """Return the number of the clock cycle in which something was done."""
        return round(done / self.dialect.cycle)

    # --- losing ------------------------------------------------------------------------------------------

    def lose_model(self, model: Model, form: str, now: float) -> None:
        """Forget a model; what it was working on is never done."""
        model.lost = form
        model.parked.clear()
        for promise in self.promises.values():
            if promise.owner == model.model_id and promise.ready_at > now:
                promise.lost = "410"
        self.changed()

    def forget_checkpoints(self, model: Model) -> None:
        """Forget all that was saved of a model."""
        for path in [one.path for one in self.checkpoints.values() if one.model_id == model.model_id]:
            del self.checkpoints[path]

    def roll_back(self, model: Model) -> None:
        """Set a model back to its latest checkpoint, under the same id and without a word."""
        latest = self.latest(model.model_id, "weights")
        model.applied = list(model.origin if latest is None else latest.applied)

    def break_promises(self) -> None:
        """Forget what was promised, and which numbers were seen."""
        for session in self.sessions.values():
            session.created_by.clear()
        for promise in self.promises.values():
            promise.lost = "410"
        for model in self.models.values():
            model.seen.clear()
            model.expected = max([model.expected, *(number + 1 for number in model.parked)])
            model.parked.clear()
        self.changed()

    def lose_session(self, session: Session, status: int, now: float) -> None:
        """Forget a session and what belongs to it."""
        session.lost = status
        for model_id in session.models:
            if self.models[model_id].lost is None:
                self.lose_model(self.models[model_id], "400", now)

    def expire(self, now: float) -> None:
        """Lose the sessions that have been silent for too long."""
        timeout = self.dialect.session_timeout
        if timeout is None:
            return
        for session in self.sessions.values():
            if session.lost is None and session.beats and now >= session.last_beat + timeout:
                self.lose_session(session, 200, now)
