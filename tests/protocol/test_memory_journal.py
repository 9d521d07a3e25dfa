"""The journal against a plain model of it, and against a service that loses its model at any moment."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.protocol.operations import load, optim, save
from tinker_actors.protocol.chunking import datum_bytes
from tinker_actors.protocol.journal import (
    Checkpoint,
    Decision,
    Intent,
    Journal,
    ModelFacts,
    Operation,
    Record,
)
from tinker_actors.protocol.memory_journal import MemoryJournal
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.input import Datum, ModelInput

T = TypeVar("T")
ROOMY = 10**9
MUTATING = ("forward_backward", "optim_step", "load_state")
STEP_ENDS = ("optim_step", "load_state")
DATUMS = tuple(Datum(ModelInput.from_ints([token] * length)) for token, length in enumerate((1, 40, 400)))


def batch(kind: OperationKind = "forward_backward", size: int = 0, loss: Any = "ppo") -> Operation:
    return Operation(kind=kind, data=(DATUMS[size],), loss_fn=loss)


def full(max_bytes: int, *operations: Operation) -> MemoryJournal:
    """Make a journal in which the operations are recorded and done, without a checkpoint."""
    journal = MemoryJournal(max_bytes=max_bytes)
    for operation in operations:
        journal.done(journal.add(operation))
    return journal


def replayed(journal: Journal) -> list[tuple[int, Operation]]:
    return [(record.position, record.operation) for record in journal.replay()]


def is_complete(journal: Journal) -> bool:
    return journal.complete  # a call: type checkers take a property for constant


# --- the rules, one by one -------------------------------------------------------------------------------


def test_a_new_journal_is_empty() -> None:
    """Restoring from it means: make the model anew."""
    journal: Journal = MemoryJournal(max_bytes=0)
    assert (journal.checkpoint, journal.complete, list(journal.replay())) == (None, True, [])
    assert journal.settled_before(0)


def test_what_changed_the_model_is_always_done_again() -> None:
    """Gradients, steps and loads have to be; of the others, those that still owe their result."""
    journal = MemoryJournal(max_bytes=ROOMY)
    operations = [
        batch(),
        batch("forward"),
        optim(),
        save("a"),
        Operation(kind="save_for_sampler"),
        load("p"),
    ]
    positions = [journal.add(operation) for operation in operations]
    assert positions == [0, 1, 2, 3, 4, 5]
    assert replayed(journal) == list(enumerate(operations))
    for position in positions:
        journal.done(position)
    assert replayed(journal) == [(0, operations[0]), (2, operations[2]), (5, operations[5])]
    assert all(record.done for record in journal.replay())


def test_what_failed_is_never_done_again() -> None:
    """Nor is it waited for."""
    journal = MemoryJournal(max_bytes=ROOMY)
    first, second = journal.add(batch()), journal.add(batch())
    assert not journal.settled_before(2)
    journal.strike(first)
    journal.strike(first)
    assert [record.position for record in journal.replay()] == [second]
    assert journal.settled_before(1)
    assert not journal.settled_before(2)
    journal.done(second)
    assert journal.settled_before(2)


def test_a_checkpoint_holds_what_was_before_it() -> None:
    """What came after stays, in order, with its result or without."""
    journal = full(ROOMY, batch(), optim(), save("a"), batch(), optim(2.0))
    pending = journal.add(batch())
    journal.checkpointed(2, "tinker://m/weights/a")
    assert journal.checkpoint == Checkpoint("tinker://m/weights/a", 2)
    assert [(record.position, record.done) for record in journal.replay()] == [
        (3, True),
        (4, True),
        (pending, False),
    ]


def test_an_open_steps_gradients_survive_a_checkpoint_in_mid_step() -> None:
    """A saved state holds no gradient: those since the last step are sent again before what came after."""
    journal = full(
        ROOMY, batch(size=1), optim(), batch(size=2), batch(size=0), batch("forward"), save("a"), optim(2.0)
    )
    journal.checkpointed(5, "a")
    assert replayed(journal) == [(2, batch(size=2)), (3, batch(size=0)), (6, optim(2.0))]
    journal.done(journal.add(save("b")))
    journal.checkpointed(7, "b")
    assert replayed(journal) == []


def test_a_step_that_was_refused_leaves_its_gradients_open() -> None:
    """A struck `optim_step` ended nothing."""
    journal = full(ROOMY, batch())
    journal.strike(journal.add(optim()))
    journal.done(journal.add(save("a")))
    journal.checkpointed(2, "a")
    assert [record.position for record in journal.replay()] == [0]


@pytest.mark.parametrize("optimizer", [True, False])
def test_a_load_drops_the_gradients_before_it(optimizer: bool) -> None:
    """As the service does."""
    journal = full(ROOMY, batch(), load("p", optimizer=optimizer), save("a"))
    journal.checkpointed(2, "a")
    assert replayed(journal) == []


def test_a_state_that_was_loaded_with_its_optimizer_is_a_checkpoint() -> None:
    """Nothing before it matters, not even open gradients, and it is not loaded twice."""
    journal = full(ROOMY, batch(), optim(), batch(), load("p"), batch(size=1))
    journal.checkpointed(3, "p")
    assert journal.checkpoint == Checkpoint("p", 3)
    assert replayed(journal) == [(4, batch(size=1))]


def test_what_admits_to_a_state_is_remembered_with_it() -> None:
    """It is loaded again after a loss; nobody is shown it."""
    journal = full(ROOMY, load("p"))
    journal.checkpointed(0, "p", "token")
    assert journal.checkpoint == Checkpoint("p", 0, "token")
    assert "token" not in repr(journal.checkpoint)


def test_an_older_state_never_replaces_a_newer_one() -> None:
    """Results may come in any order; going back would lose what lies between."""
    journal = full(ROOMY, save("old"), batch(), optim(), save("new"), batch(size=1))
    journal.checkpointed(3, "new")
    journal.checkpointed(0, "old")
    journal.checkpointed(3, "new again")
    assert journal.checkpoint == Checkpoint("new", 3)
    assert replayed(journal) == [(4, batch(size=1))]


# --- the bound -------------------------------------------------------------------------------------------


def test_an_operation_weighs_its_batch_and_a_little() -> None:
    """So that a million operations without a batch have a weight, too."""
    assert batch(size=2).weight == optim().weight + datum_bytes(DATUMS[2])
    assert optim().weight > 0


def test_what_does_not_fit_is_forgotten_and_said() -> None:
    """Until a checkpoint behind it makes up for the loss."""
    journal = full(3000, batch(size=2))
    assert is_complete(journal)
    journal.done(journal.add(batch(size=2)))
    assert not is_complete(journal)
    journal.done(journal.add(optim()))
    assert not is_complete(journal)
    journal.done(journal.add(save("a")))
    journal.checkpointed(3, "a")
    assert is_complete(journal)
    assert replayed(journal) == []


def test_a_checkpoint_in_mid_step_does_not_bring_forgotten_gradients_back() -> None:
    """The open step's batch is gone: its empty shell must not be taken for it."""
    journal = full(1000, batch(size=2), save("a"))
    journal.checkpointed(1, "a")
    assert not is_complete(journal)
    journal.done(journal.add(optim()))
    journal.done(journal.add(save("b")))
    journal.checkpointed(3, "b")
    assert is_complete(journal)


def test_a_checkpoint_before_the_forgetting_does_not_make_up_for_it() -> None:
    """What was forgotten lies behind it."""
    journal = full(3000, save("a"), batch(size=2), batch(size=2), optim())
    journal.checkpointed(0, "a")
    assert not is_complete(journal)


def test_striking_the_operation_that_was_too_much_brings_nothing_back() -> None:
    """The steps before it are forgotten all the same."""
    journal = full(1000, batch(), optim())
    journal.strike(journal.add(batch(size=2)))
    assert not is_complete(journal)
    journal.done(journal.add(save("a")))
    journal.checkpointed(3, "a")
    assert is_complete(journal)


def test_what_is_under_way_keeps_its_place_when_it_is_forgotten() -> None:
    """A save still waits for the gradients before it."""
    journal = MemoryJournal(max_bytes=1000)
    gradient = journal.add(batch(size=2))
    state = journal.add(save("a"))
    assert not is_complete(journal)
    assert not journal.settled_before(state)
    journal.done(gradient)
    assert journal.settled_before(state)


def test_forward_passes_that_are_done_weigh_nothing() -> None:
    """They are never done again, so an evaluation does not use up the room for gradients."""
    journal = full(3000, *[batch("forward", size=2)] * 100)
    assert is_complete(journal)
    journal.done(journal.add(batch(size=2)))
    assert is_complete(journal)


def test_a_run_that_never_saves_does_not_fill_the_memory() -> None:
    """Nothing is kept of thousands of steps that cannot be done again anyway."""
    journal = full(10_000, *[batch(size=1), batch(size=1), optim()] * 2000)
    assert not is_complete(journal)
    assert len(journal._records) < 100


# --- any sequence of events ------------------------------------------------------------------------------


@attrs.define
class Entry:
    """What the model knows of one operation."""

    operation: Operation
    state: str = "open"  # or done, or struck
    held: bool = True
    kept: bool = False


@attrs.define
class Service:
    """What a service would hold after some operations: enough to tell two histories apart."""

    saved: dict[str, tuple[object, object]] = attrs.field(factory=dict)
    weights: object = "base"
    optimizer: object = "fresh"
    gradient: tuple[object, ...] = ()

    def apply(self, operation: Operation) -> None:
        """Do what an operation does."""
        match operation.kind:
            case "forward_backward":
                self.gradient += ((operation.data, operation.loss_fn),)
            case "optim_step":
                moved = (self.weights, self.optimizer, self.gradient, operation.optim_params)
                self.weights, self.optimizer, self.gradient = (
                    hash(repr(moved)),
                    hash(repr(("moments", moved))),
                    (),
                )
            case "load_state":
                weights, moments = self.saved.get(operation.path or "", (operation.path, operation.path))
                self.weights, self.gradient = weights, ()
                self.optimizer = moments if operation.optimizer else self.optimizer
            case "save_state":
                self.saved[operation.name or ""] = (self.weights, self.optimizer)
            case _:
                pass

    @property
    def trained(self) -> tuple[object, object, object]:
        return self.weights, self.optimizer, self.gradient


class JournalMachine(RuleBasedStateMachine):
    """Random lives of a journal, beside a model that forgets nothing but what the bound demands."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.checkpoint: Checkpoint | None = None
        self.before: Checkpoint | None = None

    @initialize(max_bytes=st.sampled_from([600, 2500, 6000, ROOMY]))
    def open(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.journal = MemoryJournal(max_bytes=max_bytes)

    # what may happen

    @rule(
        kind=st.sampled_from(
            ["forward_backward"] * 3
            + ["optim_step"] * 2
            + ["save_state"] * 2
            + ["load_state", "forward", "sampler", "sampler"]
        ),
        size=st.integers(0, 2),
        flag=st.booleans(),
    )
    def record(self, kind: str, size: int, flag: bool) -> None:
        position = len(self.entries)
        operation = {
            "forward_backward": batch(size=size, loss="ppo" if flag else "cispo"),
            "forward": batch("forward", size=size),
            "optim_step": optim(float(position)),
            "save_state": save(f"s{position}"),
            "load_state": load(f"s{max(0, position - 1 - size)}", optimizer=flag),
            "sampler": Operation(kind="save_for_sampler", name=None),
        }[kind]
        assert self.journal.add(operation) == position
        self.entries.append(Entry(operation))
        held = [entry for entry in self.entries if entry.held]
        if sum(entry.operation.weight for entry in held) > self.max_bytes:
            for entry in held:
                entry.held = False

    @precondition(lambda self: any(entry.state == "open" for entry in self.entries))
    @rule(which=st.integers(0, 10), failed=st.sampled_from([False, False, False, True]), keep=st.booleans())
    def settle(self, which: int, failed: bool, keep: bool) -> None:
        unsettled = [at for at, entry in enumerate(self.entries) if entry.state == "open"]
        position = unsettled[which % len(unsettled)]
        entry = self.entries[position]
        entry.state = "struck" if failed else "done"
        entry.kept = keep and not failed and entry.operation.kind == "save_for_sampler"
        if failed:
            self.journal.strike(position)
        else:
            self.journal.done(position, keep=entry.kept)
        entry.held = entry.held and not failed and (entry.operation.kind in MUTATING or entry.kept)

    @precondition(lambda self: any(entry.kept for entry in self.entries))
    @rule(which=st.integers(0, 10))
    def release(self, which: int) -> None:
        """Tell that nobody samples any more from something that was published."""
        kept = [at for at, entry in enumerate(self.entries) if entry.kept]
        position = kept[which % len(kept)]
        self.journal.release(position)
        self.entries[position].kept = self.entries[position].held = False

    @precondition(lambda self: self.checkpoint is not None)
    @rule()
    def fall_back(self) -> None:
        """Tell that the newest state is gone; it may be that nothing can be done about it."""
        if self.journal.fall_back():
            self.checkpoint = self.before
            for at, _ in self.replay():
                self.entries[at].held = True

    @precondition(lambda self: self.states())
    @rule(which=st.integers(0, 10))
    def checkpointed(self, which: int) -> None:
        """Tell of a state whose operation and everything before it is settled, be it an old one."""
        states = self.states()
        position = states[-1 - which % len(states)]
        operation = self.entries[position].operation
        path = operation.path or operation.name or ""
        self.journal.checkpointed(position, path)
        if self.checkpoint is None or position > self.checkpoint.position:
            self.before, self.checkpoint = self.checkpoint, Checkpoint(path, position)
            needed = {at for at, _ in self.replay()}
            for at, entry in enumerate(self.entries[: position + 1]):
                entry.held = entry.held and at in needed
                entry.kept = entry.kept and at in needed

    # what the model says

    def states(self) -> list[int]:
        """Return which operations made a state that everything before it is in."""
        return [
            at
            for at, entry in enumerate(self.entries)
            if entry.state == "done"
            and (
                entry.operation.kind == "save_state"
                or (entry.operation.kind == "load_state" and entry.operation.optimizer)
            )
            and self.settled(at)
        ]

    def settled(self, position: int) -> bool:
        return all(entry.state != "open" for entry in self.entries[:position])

    def replay(self) -> list[tuple[int, Operation]]:
        saved_at = -1 if self.checkpoint is None else self.checkpoint.position
        alive = [(at, entry) for at, entry in enumerate(self.entries) if entry.state != "struck"]
        ends = [at for at, entry in alive if at <= saved_at and entry.operation.kind in STEP_ENDS]
        step_start = max(ends, default=-1)
        return [
            (at, entry.operation)
            for at, entry in alive
            if (at > saved_at and (entry.operation.kind in MUTATING or entry.state == "open" or entry.kept))
            or (step_start < at < saved_at and (entry.operation.kind == "forward_backward" or entry.kept))
        ]

    # what must be true at any time

    @invariant()
    def the_journal_is_the_model(self) -> None:
        expected = self.replay()
        complete = all(self.entries[at].held for at, _ in expected)
        assert self.journal.checkpoint == self.checkpoint
        assert self.journal.complete == complete
        if complete:
            got: list[Record] = list(self.journal.replay())
            assert [(one.position, one.operation) for one in got] == expected
            assert [one.done for one in got] == [self.entries[at].state == "done" for at, _ in expected]
            for at, entry in enumerate(self.entries):
                assert self.journal.keeps(at) == entry.kept
        for position in range(len(self.entries) + 1):
            assert self.journal.settled_before(position) == self.settled(position)

    @invariant()
    def it_holds_no_more_than_it_may(self) -> None:
        batches = [one.operation.data for one in self.journal.replay()]
        assert sum(datum_bytes(one) for batch_ in batches for one in batch_) <= self.max_bytes

    @invariant()
    def a_lost_model_comes_back_as_it_was(self) -> None:
        """The promise itself: checkpoint and replay give the very state of a model that was never lost."""
        if not self.journal.complete:
            return
        never_lost = Service()
        for entry in self.entries:
            if entry.state != "struck":
                never_lost.apply(entry.operation)
        restored = Service(saved=dict(never_lost.saved))
        if self.journal.checkpoint is not None:
            restored.apply(load(self.journal.checkpoint.path))
        for record in self.journal.replay():
            restored.apply(record.operation)
        assert restored.trained == never_lost.trained


def test_any_life_of_a_journal_is_that_of_its_model() -> None:
    """Whatever is recorded, settled and saved, in any order: the same replay, and the same trained model."""
    run_state_machine_as_test(
        JournalMachine,
        settings=settings(max_examples=50, stateful_step_count=40, deadline=None, derandomize=True),
    )


def test_a_result_of_an_operation_that_was_forgotten_changes_nothing() -> None:
    """A replay may end after the position has been struck out or saved."""
    journal = MemoryJournal(max_bytes=10**6)
    position = journal.add(Operation(kind="optim_step"))
    journal.strike(position)
    journal.done(position)
    assert list(journal.replay()) == []


# --- what is kept, and what there is to fall back on -----------------------------------------------------------


def test_a_kept_publication_is_replayed_until_it_is_released() -> None:
    """At its place, although it has its result; a checkpoint keeps it only if no step lies between."""
    journal = MemoryJournal(max_bytes=ROOMY)
    publish = Operation(kind="save_for_sampler")
    first = journal.add(publish)
    journal.done(first, keep=True)
    journal.done(journal.add(optim()), keep=True)  # replayed anyway
    second = journal.add(publish)
    journal.done(second, keep=True)
    assert [record.position for record in journal.replay()] == [0, 1, 2]
    assert journal.keeps(first)
    saved = journal.add(save("a"))
    journal.checkpointed(saved, "a")
    assert [record.position for record in journal.replay()] == [second]
    assert not journal.keeps(first)
    journal.release(second)
    journal.release(second)
    journal.done(first, keep=True)  # forgotten by now
    assert journal.replay() == []


def test_an_older_state_is_gone_back_to() -> None:
    """With everything since, once more; and from the first state to the model's creation."""
    journal = full(ROOMY, batch(), optim(), save("a"))
    journal.checkpointed(2, "a")
    for operation in (batch(), optim(2.0), save("b"), batch()):
        journal.done(journal.add(operation))
    journal.checkpointed(5, "b")
    assert list(journal.records) == [6]
    assert journal.fall_back()
    assert journal.checkpoint == Checkpoint("a", 2)
    assert [record.position for record in journal.replay()] == [3, 4, 6]
    assert journal.complete
    assert not journal.fall_back()
    alone = full(ROOMY, batch(), optim(), save("a"))
    alone.checkpointed(2, "a")
    assert alone.fall_back()
    assert alone.checkpoint is None
    assert [record.position for record in alone.replay()] == [0, 1]


def test_what_is_not_held_is_not_gone_back_to() -> None:
    """Neither what was forgotten for lack of room, nor what would take the room of what is needed."""
    forgotten = full(0, batch(), optim(), save("a"))
    forgotten.checkpointed(2, "a")
    assert not forgotten.fall_back()
    room = batch().weight + optim().weight + save("a").weight
    crowded = full(room, batch(), optim(), save("a"))
    crowded.checkpointed(2, "a")
    crowded.done(crowded.add(batch()))
    assert not crowded.fall_back()
    assert crowded.complete


# --- what it shares with a journal on disk ---------------------------------------------------------------------


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    found: T = ended.value.value
    return found


def test_intents_are_there_at_once_in_their_order() -> None:
    """With the plan of their requests; nothing has to be waited for, and a batch need not be read."""
    journal = MemoryJournal(max_bytes=ROOMY)
    intents = [
        Intent(operation=batch(), numbers=(1, 2), plan=(1, 0)),
        Intent(operation=optim(), numbers=(3,)),
    ]
    assert at_once(journal.record(intents, Decision(step=0, after=b"null"))) == [0, 1]
    first, second = journal.replay()
    assert (first.plan, second.plan) == ((1, 0), ())
    assert at_once(journal.read(first)) is intents[0].operation
    at_once(journal.flush())


def test_it_keeps_nothing_for_another_process() -> None:
    """No promises, no witnesses: there will be none that could use them."""
    journal = MemoryJournal(max_bytes=ROOMY)
    position = journal.add(batch())
    journal.accepted(position, 0, "r1")
    assert journal.parts(position) == ()
    assert journal.witness_at(position) is None
    assert journal.witnesses() == ()
    assert at_once(journal.read_witness(cast("Any", None))) is None


def test_a_new_model_is_live_when_its_replay_has_its_results() -> None:
    """Word of the numbers of the same model changes nothing about that; another model begins anew."""
    journal = MemoryJournal(max_bytes=ROOMY)
    facts = ModelFacts(model_id="m0", session_id="s", model_seq=0, next_number=1, sampler_seq=0)
    assert (journal.model, is_live(journal)) == (None, False)
    journal.made(facts)
    assert (journal.model, is_live(journal)) == (facts, False)
    journal.revived()
    journal.made(attrs.evolve(facts, next_number=7))
    assert is_live(journal)
    journal.made(attrs.evolve(facts, model_id="m1"))
    assert not is_live(journal)


def is_live(journal: Journal) -> bool:
    return journal.live
