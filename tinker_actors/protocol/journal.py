"""What has to be done again if a model is lost, or its process is: the journal's rules.

Theory of operation. Every operation is recorded (its *intent*) before its first byte is sent, and gets the next
position. `checkpointed` names a saved state that holds everything before a position; what stands before it is
forgotten, but for the gradients of a step that was still open then: a saved state holds weights and optimizer, not
the accumulated gradient. After a loss, a new model is loaded from that state and `replay` gives what came after, in
order: gradients, optimizer steps and loads always, other operations only if they have no result yet. A failed
operation is struck out and is never done again.

An `optim_step` ends a step, and so does a `load_state`, which drops the accumulated gradient. A step is *decided* when
the intent of its `optim_step` is committed, and with it, in the same transaction, the user's `Decision`: where the
user's own loop stands after the step.

Weights published without a name end with their session, so such an operation may be *kept*: it is replayed although it
has its result, until it is `release`d. A checkpoint behind it keeps it only if no step lies between.

If the latest state turns out to be gone, `fall_back` goes back to the one before it, or to the model's creation, as
long as what came after that is still held.

A journal also knows the model that takes what is recorded (`made`), with the number that each request has there and
the promise that the service gave for it (`accepted`): with these another process can go on with the very same model.
That is so only while the model is *live*: once everything that was replayed into it has its result (`revived`).

Two are written: `MemoryJournal`, which survives whatever dies but the process, and the one of a run, which is on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.protocol.chunking import datum_bytes
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.input import Datum
from tinker_actors.wire.optimizer import OptimParams
from tinker_actors.wire.sampling import SamplingClientKind
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType

__all__ = [
    "STEP_ENDS",
    "Checkpoint",
    "Decision",
    "Intent",
    "Journal",
    "ModelFacts",
    "Operation",
    "PartSent",
    "Record",
    "Witness",
]

STEP_ENDS: frozenset[OperationKind] = frozenset({"optim_step", "load_state"})
"""What ends a step: nothing that came before is still waiting to be applied."""
_SMALL = 256  # bytes an operation without a batch is taken to weigh


@attrs.frozen(kw_only=True)
class Operation:
    """One training operation, as it was decided; only the fields of its kind are set.

    Attributes:
        kind: which operation.
        data: the batch.
        loss_fn: the loss.
        loss_fn_config: the loss's settings.
        optim_params: the optimizer's settings.
        path: where to load from.
        optimizer: load the optimizer's state too.
        weights_access_token: admits to weights of another account.
        name: what to save under; None for an ephemeral sampler.
        ttl_seconds: how long the service keeps what is saved.
        overwrite: take the place of a state of the same name.
        user_metadata: kept with what is saved.
        sampler_kind: whether samplers of these weights stay with them, or follow later ones.
        recipients: who can read weights saved for use elsewhere.
        body: names the batch in a journal that keeps it elsewhere; `data` is then empty until it is read.
    """

    kind: OperationKind
    data: tuple[Datum, ...] = ()
    loss_fn: LossFnType = "cross_entropy"
    loss_fn_config: dict[str, float | str] | None = None
    optim_params: OptimParams | None = None
    path: str | None = None
    optimizer: bool = False
    weights_access_token: str | None = attrs.field(default=None, repr=False)
    name: str | None = None
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: dict[str, str] | None = None
    sampler_kind: SamplingClientKind = "snapshot"
    recipients: tuple[str, ...] | None = None
    body: str | None = None

    @property
    def is_unnamed(self) -> bool:
        """Whether it publishes weights that cannot be found under a name; to send it again makes other ones."""
        return self.kind == "save_for_sampler" and self.name is None

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Bytes each datum of its batch is taken to weigh on the wire."""
        return tuple(map(datum_bytes, self.data))

    @cached_property
    def data_bytes(self) -> int:
        """Bytes its batch is taken to weigh on the wire."""
        return sum(self.sizes)

    @property
    def weight(self) -> int:
        """Bytes it is taken to weigh."""
        return _SMALL + self.data_bytes


@attrs.define(eq=False)
class Record:
    """An operation at its position.

    Attributes:
        position: its place in the order, from 0.
        operation: what it is.
        done: it has its result.
        plan: the datums in each of its requests, as it was decided; empty if that is not known.
    """

    position: int
    operation: Operation
    done: bool = False
    plan: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class Intent:
    """What is about to be sent.

    Attributes:
        operation: what it is.
        numbers: those of its requests on the model, in order.
        plan: the datums in each of its requests; (0,) without a batch.
    """

    operation: Operation
    numbers: tuple[int, ...] = ()
    plan: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class Decision:
    """What the user decided with a step.

    Attributes:
        step: which step, from 0.
        after: where the user's loop stands after it: JSON of at most 65,536 bytes.
        groups: ids of the rollouts it was made of.
        skipped: nothing is trained in this step.
        loss_fn: the loss that it is trained with; None if it has none that has a name.
    """

    step: int
    after: bytes
    groups: tuple[str, ...] = ()
    skipped: bool = False
    loss_fn: str | None = None


@attrs.frozen(kw_only=True)
class ModelFacts:
    """The model that takes what is recorded.

    Attributes:
        model_id: its id on the service.
        session_id: the session it was made in.
        model_seq: its number there.
        next_number: the lowest number that none of its requests has had.
        sampler_seq: the next number of a sampling session of its session.
        free: lower numbers that the service did not take; the next requests have to have them.
        loaded: the position of the saved state that was loaded into it; None if it was made afresh.
        alone_from: what stands from this position on was computed by none but models that were loaded from that state;
            None if it was made afresh.
    """

    model_id: str
    session_id: str
    model_seq: int
    next_number: int
    sampler_seq: int
    free: tuple[int, ...] = ()
    loaded: int | None = None
    alone_from: int | None = None


@attrs.frozen(kw_only=True)
class PartSent:
    """One request of an operation that has no result.

    Attributes:
        number: its number on the present model.
        request_id: its promise; None if the service is not known to have taken it.
    """

    number: int
    request_id: str | None


@attrs.frozen
class Checkpoint:
    """A saved state, weights and optimizer, that holds everything before `position`.

    Attributes:
        path: where it is.
        position: of the operation that saved or loaded it.
        weights_access_token: admits to it, if it is of another account.
    """

    path: str
    position: int
    weights_access_token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, eq=False)
class Witness:
    """What the model computed in one of the two steps after a saved state.

    Attributes:
        position: of the gradient it was computed with.
        checkpoint: the saved state; None for the model's creation.
        which: the first or the second step after it.
        datum: the index of the datum in the batch.
        loss: the loss of the whole batch, where the service said it.
        logprobs: float32, of the datum's targets.
    """

    position: int
    checkpoint: Checkpoint | None
    which: Literal[1, 2]
    datum: int
    loss: float | None
    logprobs: NDArray[np.float32]


class Journal(Protocol):
    """Where a TrainingActor writes what it has decided.

    What is no `async` function here writes in its own time: it is lost with the process unless `flush` was waited for.
    """

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest saved state; None means: start from the model's creation."""
        ...

    @property
    def complete(self) -> bool:
        """Whether everything that `replay` gives is there in full."""
        ...

    @property
    def model(self) -> ModelFacts | None:
        """The model that takes what is recorded, with the numbers that are used by now."""
        ...

    @property
    def live(self) -> bool:
        """Whether everything that was replayed into that model has its result."""
        ...

    async def record(self, intents: Sequence[Intent], decision: Decision | None = None) -> list[int]:
        """Write intents, and what was decided with them, in one transaction; return their positions.

        It is committed when this returns, batches first. Without intents it is a step that trains nothing.

        Raises:
            JournalError: it cannot be written: nothing of it is there, and nothing may be sent.
            JournalFull: the journal has no room for it.
        """
        ...

    async def read(self, record: Record) -> Operation:
        """Return a record's operation with its batch.

        Raises:
            JournalError: the batch cannot be read.
        """
        ...

    async def flush(self) -> None:
        """Wait until everything noted so far is committed.

        Raises:
            JournalError: it cannot be written.
        """
        ...

    def made(self, facts: ModelFacts) -> None:
        """Note a new model, which takes everything from now on and is not live yet.

        Of the model that is noted already it says which numbers are used, and changes nothing else.
        """
        ...

    def revived(self) -> None:
        """Note that everything that was replayed into the model has its result: it is live."""
        ...

    def accepted(self, position: int, part: int, request_id: str) -> None:
        """Note the promise that the service gave for one of an operation's requests."""
        ...

    def parts(self, position: int) -> tuple[PartSent, ...]:
        """Return the requests of an operation that has no result, on the live model."""
        ...

    def done(self, position: int, output: ForwardBackwardOutput | None = None, *, keep: bool = False) -> None:
        """Note that the operation has its result; `keep` has it replayed all the same.

        Args:
            position: which operation.
            output: the result, where it has metrics; it may be kept as a witness.
            keep: replay it although it is done.
        """
        ...

    def witness_at(self, position: int) -> Witness | None:
        """Return what was computed by the gradient at a position, if that is kept."""
        ...

    def witnesses(self) -> Sequence[Witness]:
        """Return what was computed in the first and the second step after each usable saved state, oldest first."""
        ...

    def keeps(self, position: int) -> bool:
        """Whether an operation is kept; a checkpoint may have made that impossible."""
        ...

    def release(self, position: int) -> None:
        """Replay a kept operation no more."""
        ...

    def strike(self, position: int, *, freed: Sequence[int] = ()) -> None:
        """Note that the operation failed and had no effect; it is never done again.

        Args:
            position: which operation.
            freed: those of its numbers that the service did not take; they are free until an intent has them.
        """
        ...

    def settled_before(self, position: int) -> bool:
        """Whether every operation before `position` has its result or was struck out."""
        ...

    def checkpointed(self, position: int, path: str, weights_access_token: str | None = None) -> None:
        """Note the state that the operation at `position` saved or loaded; everything before has its result.

        A state older than the newest one known changes nothing.
        """
        ...

    async def read_witness(self, witness: Witness) -> Operation | None:
        """Return the operation with whose batch a witness was computed; None if that is not held any more.

        Raises:
            JournalError: the batch cannot be read.
        """
        ...

    def fall_back(self, *, gone: bool = True) -> bool:
        """Forget the newest saved state for the one before.

        Args:
            gone: it is for good; else only this process does without it.

        Returns:
            False: there is nothing to fall back on.
        """
        ...

    def replay(self) -> Sequence[Record]:
        """What has to be sent to a model that was loaded from the checkpoint, in order; batches by `read`."""
        ...
