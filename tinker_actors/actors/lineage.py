"""What stays of a model across its incarnations."""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from typing import Any, Literal, Protocol

import attrs
import trio

from tinker_actors.actors.target import SampleTarget
from tinker_actors.actors.void import Void
from tinker_actors.errors import JournalError, ModelPoisoned, RestoreMismatch, TinkerError
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.journal import Checkpoint, Journal
from tinker_actors.protocol.reattach import Resumption
from tinker_actors.protocol.recovery import MAX_LOADS
from tinker_actors.wire.model import (
    GetInfoResponse,
    LoraConfig,
)
from tinker_actors.wire.optimizer import OptimizerConfig

_LOG = logging.getLogger("tinker_actors.training")

__all__ = ["Answer", "Lineage", "Publication", "Resumed", "StartState"]


class Answer(Protocol):
    """Who waits for an operation."""

    def settle(self, value: Any) -> bool:
        """Answer with a value; False if there was an answer already."""
        ...

    def fail(self, error: Exception) -> bool:
        """Answer with an error; False if there was an answer already."""
        ...


@attrs.define(eq=False)
class Publication:
    """Weights published without a name: made again when the model is, for as long as somebody may sample from them.

    Attributes:
        position: of the operation in the journal.
        sampling_session_id: what it gave at first.
        target: what was made of it; None as long as nobody has asked.
    """

    position: int
    sampling_session_id: str
    target: weakref.ref[SampleTarget] | None = None

    @property
    def is_over(self) -> bool:
        """Whether there was a target and nobody has it any more."""
        return self.target is not None and self.target() is None


@attrs.frozen
class StartState:
    """A saved state that a model starts from.

    Attributes:
        path: where it is.
        optimizer: load the optimizer's state too.
        weights_access_token: admits to weights of another account.
    """

    path: str
    optimizer: bool
    weights_access_token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class Resumed:
    """How a process has gone on with the model of an earlier one.

    Attributes:
        how: `attached`: with the very same weights; `restored`: with a new model.
        checkpoint: what that was loaded from; None: it was made anew from its seed, or nothing was restored.
        steps: optimizer steps that were sent again.
        why: why it was restored; empty if it was not.
    """

    how: Literal["attached", "restored"]
    checkpoint: str | None = None
    steps: int = 0
    why: str = ""


def _state_at(checkpoint: Checkpoint) -> StartState:
    return StartState(checkpoint.path, optimizer=True, weights_access_token=checkpoint.weights_access_token)


@attrs.define(eq=False)
class Lineage:
    """What stays of a model across its incarnations and across the ids it has on the service.

    Attributes:
        base_model: what it was made from.
        lora_config: its adapter, with an explicit seed, so that it can be made again; None for a model that a service
            makes of a saved state by itself.
        journal: what was decided since the latest checkpoint.
        user_metadata: stored with the model.
        model_id: its present id on the service; empty before the first.
        model_seq: its number in the session it was made in.
        loaded: the position of the saved state that its present model was loaded from; None if that was made afresh.
        info: what the service said of it when it was first made.
        waiting: who waits for the operation at a position.
        void: what stands in line and is not sent.
        poison: why nothing may be sent to it any more.
        unwritten: why the journal takes nothing more, so that nothing more is sent; what was sent runs to its end.
        given_up: ids it had that are still to be unloaded, in order.
        savers: ids it had or has, of models of which something was, or may have been, saved.
        epoch: the session it was made in, as `Session.epoch` counts them.
        tried_in: the session in which the latest restore began.
        restores: restores in a row that came to nothing.
        restoring: a restore has begun, and not everything that was sent again has its result.
        refusals: how often in a row no model could be made.
        first_cause: what began the restores of this row.
        publications: weights published without a name that somebody may sample from.
        actor: who trains it.
        changed: set, and replaced, when any of this may have changed for those who wait for a publication.
        losses: bounds how many of its user's loss functions run at once: also those that an incarnation has left.
        unloaded: it has given its slot on the service back; nothing can be done with it any more.
        start: the saved state that it was made of.
        optimizer_config: its optimizer; None is the service's own choice, or that of the saved state.
        resumption: what a run knows of the time since an earlier process; without it the model is made anew.
        resuming: the journal is that of an earlier process, and nothing has been done about it yet.
        succeeds: an earlier process had it.
        resumed: how it was gone on with.
        left_behind: positions of what the model had and a new one is not to have.
        mismatch: the model was restored from one saved state, and was something else than before.
        failed_loads: how often a saved state could not be loaded, and is not known to be gone, by its path.
        disowned: positions of gradients whose results are of a model that had lost its optimizer.
        doom: why it is given up instead of being restored once more.
        excused: the latest loss says nothing against the restore before it.
        why: what speaks against going on with the earlier process's model.
        in_run: it is a run's: what would poison it is answered with a restore, as long as that can be done.
    """

    base_model: str
    lora_config: LoraConfig | None
    journal: Journal
    user_metadata: dict[str, str]  # some services want it even when it is empty
    model_id: str = ""
    model_seq: int = 0
    loaded: int | None = None
    info: GetInfoResponse | None = None
    waiting: dict[int, Answer] = attrs.field(factory=dict)
    void: Void | None = None
    poison: ModelPoisoned | None = None
    unwritten: JournalError | None = None
    given_up: dict[str, None] = attrs.field(factory=dict[str, None])
    savers: set[str] = attrs.field(factory=set[str])
    epoch: int = 0
    tried_in: int = 0
    restores: int = 0
    restoring: bool = False
    refusals: int = 0
    first_cause: TinkerError | None = None
    publications: list[Publication] = attrs.field(factory=list[Publication])
    actor: ActorRef[Any] | None = None
    changed: trio.Event = attrs.field(factory=trio.Event)
    losses: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    unloaded: bool = False
    start: StartState | None = None
    optimizer_config: OptimizerConfig | None = None
    resumption: Resumption | None = None
    resuming: bool = False
    succeeds: bool = False
    resumed: Resumed | None = None
    left_behind: list[int] = attrs.field(factory=list[int])
    mismatch: RestoreMismatch | None = None
    failed_loads: Counter[str] = attrs.field(factory=Counter[str])
    disowned: set[int] = attrs.field(factory=set[int])
    doom: RestoreMismatch | None = None
    excused: bool = False
    why: str = ""
    in_run: bool = False

    @property
    def state(self) -> StartState | None:
        """What a new model is loaded with: the latest saved state, else what it was made of."""
        latest = self.journal.checkpoint
        return self.start if latest is None else _state_at(latest)

    def tell(self) -> None:
        """Let those who wait for a publication look again."""
        self.changed.set()
        self.changed = trio.Event()

    def restored(self) -> None:
        """Everything that was sent again has its result."""
        self.restoring = False
        self.restores = self.refusals = 0
        self.first_cause = None
        self.failed_loads.clear()

    def not_loaded(self, path: str, *, gone: bool) -> bool:
        """Note that a saved state could not be loaded; fall back if it is gone, or if that has happened too often.

        Args:
            path: where it is.
            gone: it is not there, or of no use; else it may be loaded another time.

        Returns:
            False: it is gone, and there is nothing to fall back on.
        """
        if gone:
            return self.journal.fall_back()
        self.failed_loads[path] += 1
        if self.failed_loads[path] == MAX_LOADS and self.journal.fall_back(gone=False):
            self.excused = True  # what comes next is another state
            _LOG.warning("%s cannot be loaded now, so the state before it is; it is not given up", path)
        return True

    # --- publications ------------------------------------------------------------------------------------

    def published(self, position: int, sampling_session_id: str) -> None:
        """Note what an operation has published; forget what nobody can sample from any more.

        Of those that nobody has asked for, only the latest is kept: whoever wants one asks before the next is there.
        """
        kept: list[Publication] = []
        for one in self.publications:
            if one.is_over or one.target is None:
                self.journal.release(one.position)
            elif self.journal.keeps(one.position):
                kept.append(one)
        self.publications = [*kept, Publication(position, sampling_session_id)]

    def claim(self, target: SampleTarget) -> None:
        """Note the target that was made of a publication."""
        for one in self.publications:
            if one.sampling_session_id == target.sampling_session_id:
                one.target = weakref.ref(target)

    def publication_at(self, position: int) -> Publication | None:
        """Return the publication of an operation."""
        return next((one for one in self.publications if one.position == position), None)

    def publication_of(self, target: SampleTarget) -> Publication | None:
        """Return the publication that a target was made of, if it can be made again."""
        for one in self.publications:
            if one.target is not None and one.target() is target and self.journal.keeps(one.position):
                return one
        return None

    def forget(self, publication: Publication) -> None:
        """Let go of a publication that cannot be, or need not be, made again."""
        self.publications.remove(publication)
        self.journal.release(publication.position)
        self.tell()
