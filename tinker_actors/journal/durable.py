"""The journal of a run, on disk: what it gives is the same before and after its process has died.

Theory of operation. `protocol.journal_rules` says what is held and what is let go; a `DurableJournal` does in the
database whatever the rules do in memory, and an opened one is made by having the rules do it again. Nothing of a batch
stays in memory: an operation knows its body's hash, and `read` gives the batch.

Only `record`, `note` and `flush` wait for the disk. All else is written in its own time, in the order it was said; what
a kill takes with it is what the run would not know either if it had been killed a moment earlier. What cannot be
written makes every later `record` fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import attrs
import trio

from tinker_actors.errors import DecodeError, JournalError
from tinker_actors.journal.catalogue import SavedState, begun
from tinker_actors.journal.contents import Contents, Station
from tinker_actors.journal.holding import Holding
from tinker_actors.journal.ledger import Recorded, meta
from tinker_actors.journal.progress import Progress, batch_tokens, decision_row
from tinker_actors.journal.schema import Statement
from tinker_actors.journal.states import States
from tinker_actors.journal.store import Store
from tinker_actors.protocol.body import decode_batch
from tinker_actors.protocol.journal import (
    Checkpoint,
    Decision,
    Intent,
    ModelFacts,
    Operation,
    PartSent,
    Record,
    Witness,
)
from tinker_actors.protocol.retention import RunCheckpoint
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["DurableJournal"]


class DurableJournal:
    """A run's journal; made by `open_journal`. It implements `protocol.journal.Journal`.

    Args:
        store: where it is written.
        contents: what it holds.
        here: where it is written now.
        max_bytes: what the batches may take on disk.
        now: the time, in seconds since 1970.

    Attributes:
        here: where it is written now; the time is that of opening.
        before: where it was written by the last process that made a model, or recorded something for the one that was
            there; None if it is new. `here` and `before` of the same host and boot are of the same machine, which has
            not been restarted since.
        incarnation: how often it has been opened, this time included: from 1.
        steadfast: no saved state is given up meanwhile, whoever says that it is gone.
        lost_steps: decided steps that a torn tail has taken with it; they count as never decided. It is said at each
            opening until another step is decided.
    """

    def __init__(
        self, store: Store, contents: Contents, here: Station, *, max_bytes: int, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._rules = contents.rules
        self._holding = Holding(store, contents.rules, contents.witnesses)
        self._states = States(store, self._holding, contents.catalogue)
        self._line = contents.line
        self._progress = contents.progress
        self._facts = contents.facts
        self._max_bytes = max_bytes
        self._now = now
        self._tokens = self._progress.tokens  # trained, with those of the step under way
        self.incarnation = contents.incarnation
        self.before = contents.before
        self.here = here
        self.lost_steps = contents.lost_steps
        self.steadfast = False

    # --- deciding ----------------------------------------------------------------------------------------

    async def record(self, intents: Sequence[Intent], decision: Decision | None = None) -> list[int]:
        """Write intents, and what was decided with them, in one transaction; return their positions. A checkpoint.

        It is committed when this returns, batches first, also if the caller is cancelled meanwhile.

        Raises:
            JournalError: it cannot be written: nothing of it is there, and nothing may be sent.
            JournalFull: the batches do not fit; a checkpoint that is verified may make room.
        """
        numbers = [number for intent in intents for number in intent.numbers]
        model = self._line.take(numbers)
        trained = [one.operation for one in intents if one.operation.kind == "forward_backward"]
        new_tokens = sum(batch_tokens(operation.data) for operation in trained)
        self._tokens += new_tokens
        tokens, steps, time = self._tokens, self._progress.steps, self._now()
        recorded: list[Recorded] = []
        states: list[SavedState] = []
        progress: list[Progress] = []

        def work() -> list[Statement]:
            written, rows = self._store.ledger.record(intents)
            recorded.extend(written)
            for one, intent in zip(written, intents, strict=True):
                state = begun(one.position, intent.operation, step=steps, tokens=tokens, time=time)
                if state is not None:
                    states.append(state)
                    rows.append(state.row())
            following = self._store.ledger.next_position
            self._store.stamp.take_over()
            rows += [*model, meta("position", following)]
            if decision is not None:
                loss_fn = decision.loss_fn or self._progress.loss_fn
                progress.append(Progress.after(decision, tokens=tokens, loss_fn=loss_fn))
                rows += [meta("loss_fn", loss_fn), meta("lost_steps", 0)]
                rows.append(decision_row(decision, following - 1, tokens))
            return rows

        def settled() -> None:
            self._settle_intents(intents, recorded, states)
            if progress:
                self._progress = progress[-1]

        try:
            await self._store.commit(work, settled)
        except (JournalError, trio.Cancelled):
            self._line.give_back(numbers)
            self._tokens -= new_tokens
            raise
        return [one.position for one in recorded]

    def _settle_intents(
        self, intents: Sequence[Intent], recorded: Sequence[Recorded], states: Iterable[SavedState]
    ) -> None:
        for intent, one in zip(intents, recorded, strict=True):
            operation = intent.operation
            if one.body is not None:
                operation = attrs.evolve(operation, data=(), body=one.body)
            self._holding.add(Record(one.position, operation, plan=intent.plan))
            self._line.expect(one.position, intent.numbers)
        self._states.begin(states)

    async def read(self, record: Record) -> Operation:
        """Return a record's operation with its batch. A checkpoint.

        Raises:
            JournalError: the batch is not there, or not what it was.
        """
        operation = record.operation
        if operation.body is None:
            await trio.lowlevel.checkpoint()
            return operation
        body = await self._store.read(operation.body)
        try:
            return attrs.evolve(operation, data=decode_batch(body))
        except DecodeError as error:
            raise JournalError(f"the batch of operation {record.position} cannot be read") from error

    async def flush(self) -> None:
        """Wait until everything said so far is committed. A checkpoint.

        Raises:
            JournalError: it cannot be written.
        """
        await self._store.commit(list, lambda: None)

    # --- what became of it -------------------------------------------------------------------------------

    def accepted(self, position: int, part: int, request_id: str) -> None:
        """Note the promise that the service gave for one of an operation's requests."""
        self._store.note(self._line.accepted(position, part, request_id))

    def done(self, position: int, output: ForwardBackwardOutput | None = None, *, keep: bool = False) -> None:
        """Note that the operation has its result; see `protocol.journal.Journal.done`."""
        record = self._rules.records.get(position)
        rows = self._line.settled(position)
        if record is not None:
            if output is not None and not record.done and record.operation.kind == "forward_backward":
                rows += self._holding.see(position, output, self._states.recent())
            self._rules.settle(position, keep=keep)
            if position in self._rules.records:
                kept = self._rules.keeps(position)
                rows.append(("UPDATE operations SET done = 1, kept = ? WHERE position = ?", (kept, position)))
        self._holding.write(rows, about=[position])

    def strike(self, position: int, *, freed: Sequence[int] = ()) -> None:
        """Note that the operation failed and had no effect; it is never done again."""
        self._rules.drop(position)
        rows = self._line.settled(position) + self._line.give_back(freed) + self._states.strike(position)
        self._holding.write(rows, about=[position])

    def keeps(self, position: int) -> bool:
        """Whether an operation is kept; a checkpoint may have made that impossible."""
        return self._rules.keeps(position)

    def release(self, position: int) -> None:
        """Replay a kept operation no more."""
        self._rules.release(position)
        self._holding.write([], about=[position])

    def settled_before(self, position: int) -> bool:
        """Whether every operation before `position` has its result or was struck out."""
        return self._rules.settled_before(position)

    # --- the model ---------------------------------------------------------------------------------------

    @property
    def model(self) -> ModelFacts | None:
        """The model that takes what is recorded, with the numbers that are used by now."""
        return self._line.model

    @property
    def live(self) -> bool:
        """Whether everything that was replayed into that model has its result."""
        return self._line.live

    def made(self, facts: ModelFacts) -> None:
        """Note a new model, or the numbers of the present one."""
        rows = self._line.made(facts)

        def work() -> list[Statement]:
            self._store.stamp.take_over()
            return rows

        self._store.later(work)

    def revived(self) -> None:
        """Note that everything that was replayed into the model has its result."""
        self._store.note(self._line.revived())

    def parts(self, position: int) -> tuple[PartSent, ...]:
        """Return the requests of an operation that has no result, on the present model."""
        return self._line.parts(position)

    # --- saved states ------------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest usable saved state."""
        return self._rules.checkpoint

    @property
    def complete(self) -> bool:
        """Everything that `replay` gives is there."""
        return self._rules.complete

    def replay(self) -> Sequence[Record]:
        """What has to be sent to a model that was loaded from the checkpoint, in order; batches by `read`."""
        return self._rules.replay()

    def checkpointed(self, position: int, path: str, weights_access_token: str | None = None) -> None:
        """Note the state that the operation at `position` saved or loaded; everything before has its result.

        What is saved where an older one was has taken its place. The next batch begins a new segment.
        """
        self._states.checkpointed(position, path, weights_access_token)

    def fall_back(self, *, gone: bool = True) -> bool:
        """Forget the newest saved state for the one before.

        Args:
            gone: it is for good; else only this process does without it.

        Returns:
            False: there is nothing to fall back on, or none is given up meanwhile.
        """
        return not self.steadfast and self._states.fall_back(gone=gone)

    @property
    def starts(self) -> Sequence[Checkpoint | None]:
        """The states that a restore can start from, the newest last; None is the model's creation."""
        return self._rules.checkpoints

    @property
    def checkpoints(self) -> tuple[RunCheckpoint, ...]:
        """The states that were put in line to be saved, in order, some time longer than they are there."""
        return self._states.listed()

    def mark(self, name: str, state: Literal["verified", "gone"]) -> bool:
        """Note that a saved state was seen on the service (`verified`) or is not there any more (`gone`).

        When two that a restore can start from are verified, what is older is let go.

        Returns:
            False: no such state is known, or it is the only one to restore from and stays so, or `steadfast`.
        """
        if state == "gone" and self.steadfast:
            return False
        return self._states.mark(name, state)

    def describe(
        self,
        name: str,
        *,
        metric: float | None = None,
        pinned: bool | None = None,
        ttl_seconds: int | None = None,
    ) -> None:
        """Note more about a saved state; what is None stays as it was. One that is not known is ignored.

        Args:
            name: what it was saved under.
            metric: how good it is.
            pinned: it is kept whatever the rules say.
            ttl_seconds: its time to live; 0 is none.
        """
        self._states.describe(name, metric, pinned, ttl_seconds)

    # --- witnesses ---------------------------------------------------------------------------------------

    def witness_at(self, position: int) -> Witness | None:
        """Return what was computed by the gradient at a position, if that is kept; seen from `checkpoint`."""
        return self._holding.witness_at(position)

    def witnesses(self) -> Sequence[Witness]:
        """Return what was computed in the first and the second step after each usable saved state, oldest first."""
        return self._holding.witnesses()

    async def read_witness(self, witness: Witness) -> Operation | None:
        """Return the operation with whose batch a witness was computed; None if it is not held any more. A checkpoint.

        Raises:
            JournalError: the batch cannot be read.
        """
        record = self._rules.held().get(witness.position)
        if record is None:
            await trio.lowlevel.checkpoint()
            return None
        return await self.read(record)

    # --- the run -----------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How many steps were decided."""
        return self._progress.steps

    @property
    def loss_fn(self) -> str | None:
        """The loss that was named with a decision last; None if none ever was."""
        return self._progress.loss_fn

    @property
    def loop_state(self) -> bytes | None:
        """Where the user's loop stands after the last decided step, as JSON; None before the first one."""
        return self._progress.loop_state

    @property
    def tokens(self) -> int:
        """How many tokens were trained in the decided steps."""
        return self._progress.tokens

    @property
    def facts(self) -> Mapping[str, JsonValue]:
        """What the run has noted, by name."""
        return self._facts

    async def note(self, **facts: JsonValue) -> None:
        """Write facts about the run, beside those that are there, in one transaction. A checkpoint.

        Raises:
            JournalError: they are not there.
        """
        after = self._facts | facts
        await self._store.commit(lambda: [meta("facts", after)], lambda: self._facts.update(facts))

    # --- room --------------------------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """What the batches take on disk."""
        return self._store.segments.size

    @property
    def max_bytes(self) -> int:
        """What they may take."""
        return self._max_bytes

    def room_needed(self, size: int) -> int:
        """Return how many bytes are missing for a batch of `size` bytes; 0 if it fits."""
        return max(0, self.held_bytes + size - self._max_bytes)

    @property
    def bytes_since_checkpoint(self) -> int:
        """What the batches take that no usable saved state holds."""
        return self._holding.bytes_since_checkpoint

    # --- the end -----------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Write what was said and close the files, whoever cancels. A checkpoint."""
        with suppress(JournalError):
            await self._store.aclose()

    def close(self) -> None:
        """Write what was said and close the files; waits for the disk."""
        self._store.close()
