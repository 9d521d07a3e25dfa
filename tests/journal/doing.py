"""What the tests of the journal do with one: short operations, and all that it says in one value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import trio

from tests.protocol.operations import optim, save
from tinker_actors.journal.disk import Change, Disk
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.journal import Decision, Intent, ModelFacts, Operation
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput

MODEL = ModelFacts(model_id="m0", session_id="s", model_seq=0, next_number=1, sampler_seq=0)


def batch(token: int = 7, *, kind: OperationKind = "forward_backward", length: int = 3) -> Operation:
    datum = Datum(ModelInput.from_ints([token] * length), {"weights": [1.0] * length})
    return Operation(kind=kind, data=(datum,), loss_fn="ppo")


def output(value: float, length: int = 3) -> ForwardBackwardOutput:
    logprobs = TensorData(np.full(length, value, np.float32), "float32")
    return ForwardBackwardOutput("x", [{"logprobs": logprobs}], {"loss:sum": -value * length})


class Noted(Disk):
    """Notes what is changed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Change] = []

    def before(self, change: Change, path: Path) -> None:
        self.changes.append(change)


def opened(folder: Path, **options: Any) -> DurableJournal:
    return open_journal(folder, **({"inline": True} | options))


def opened_live(folder: Path) -> DurableJournal:
    """Open a journal and have its model be live."""
    journal = opened(folder)
    journal.made(MODEL)
    journal.revived()
    return journal


def record(journal: DurableJournal, *operations: Operation, decision: Decision | None = None) -> list[int]:
    """Record operations as if each had one request, with the next number."""
    following = 1 if journal.model is None else journal.model.next_number
    intents = [
        Intent(operation=operation, numbers=(following + index,), plan=(len(operation.data),))
        for index, operation in enumerate(operations)
    ]
    return trio.run(journal.record, intents, decision)


def decision(step: int, after: bytes = b"{}", **fields: Any) -> Decision:
    return Decision(step=step, after=after, **fields)


def step(journal: DurableJournal, number: int, *, token: int | None = None, done: bool = True) -> list[int]:
    """Decide a step of one gradient, and have its results."""
    operations = batch(number if token is None else token), optim(float(number))
    positions = record(journal, *operations, decision=decision(number, b'{"at": %d}' % number))
    if done:
        journal.done(positions[0], output(-float(number)))
        journal.done(positions[1])
    return positions


def saved(journal: DurableJournal, name: str, *, verified: bool = False) -> int:
    """Save a state."""
    (position,) = record(journal, save(name))
    journal.checkpointed(position, f"tinker://{name}")
    journal.done(position)
    if verified:
        journal.mark(name, "verified")
    return position


def killed(journal: DurableJournal, folder: Path, **options: Any) -> DurableJournal:
    """Open a journal again whose process was killed."""
    abandon(journal)
    return opened(folder, **options)


def abandon(journal: DurableJournal) -> None:
    """Do what a kernel does for a process that was killed."""
    disk: Disk = journal._store._disk
    disk.abandon()


def told(journal: DurableJournal) -> dict[str, Any]:
    """Return all that a journal says."""
    records = journal.replay()
    return {
        "checkpoint": journal.checkpoint,
        "complete": journal.complete,
        "replay": [
            (one.position, trio.run(journal.read, one), one.done, one.plan, journal.keeps(one.position))
            for one in records
        ],
        "parts": {one.position: journal.parts(one.position) for one in records},
        "model": journal.model,
        "live": journal.live,
        "steps": journal.steps,
        "loop_state": journal.loop_state,
        "tokens": journal.tokens,
        "loss_fn": journal.loss_fn,
        "facts": dict(journal.facts),
        "checkpoints": journal.checkpoints,
        "witnesses": [
            (one.position, one.checkpoint, one.which, one.datum, one.loss, one.logprobs.tolist())
            for one in journal.witnesses()
        ],
        "held_bytes": journal.held_bytes,
        "since": journal.bytes_since_checkpoint,
    }
