from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.journal.doing import (
    MODEL,
    abandon,
    batch,
    decision,
    killed,
    opened,
    opened_live,
    output,
    record,
    saved,
    step,
    told,
)
from tests.protocol.operations import optim, save
from tinker_actors.errors import JournalError, JournalFull
from tinker_actors.protocol.journal import Intent, Journal, Operation, PartSent
from tinker_actors.protocol.retention import RunCheckpoint
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageChunk
from tinker_actors.wire.input import Datum, ModelInput


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    """A run that begins has decided nothing, and there is nobody to go on with."""
    durable = opened(tmp_path)
    journal: Journal = durable
    assert (journal.checkpoint, journal.complete, list(journal.replay())) == (None, True, [])
    assert (journal.model, journal.live, journal.witnesses()) == (None, False, [])
    assert (durable.steps, durable.loop_state, durable.tokens) == (0, None, 0)
    assert (durable.incarnation, durable.before, durable.lost_steps) == (1, None, 0)
    trio.run(durable.aclose)


def test_a_step_is_there_after_a_kill_with_its_loop_state(tmp_path: Path) -> None:
    """What was decided is sent again to the last bit, and the loop goes on behind it."""
    journal = opened(tmp_path)
    positions = record(journal, batch(5), optim(0.5), decision=decision(0, b'{"seen": 1}', groups=("a", "b")))
    journal = killed(journal, tmp_path)
    assert [one.position for one in journal.replay()] == positions
    first, second = (trio.run(journal.read, one) for one in journal.replay())
    assert (first.data, first.loss_fn, second.optim_params) == (
        batch(5).data,
        "ppo",
        optim(0.5).optim_params,
    )
    assert (journal.steps, journal.loop_state, journal.tokens) == (1, b'{"seen": 1}', 3)
    abandon(journal)


def test_a_skipped_step_is_decided_without_an_operation(tmp_path: Path) -> None:
    """Its loop state counts as that of any other step."""
    journal = opened(tmp_path)
    step(journal, 0)
    assert record(journal, decision=decision(1, b"[2]", skipped=True)) == []
    journal = killed(journal, tmp_path)
    assert (journal.steps, journal.loop_state, journal.tokens) == (2, b"[2]", 3)
    abandon(journal)


def test_open_requests_and_their_promises_survive(tmp_path: Path) -> None:
    """Another process asks for the results of what this one sent, on the same model."""
    journal = opened_live(tmp_path)
    operation = Operation(kind="forward_backward", data=batch().data * 2)
    (position,) = trio.run(journal.record, [Intent(operation=operation, numbers=(1, 2), plan=(1, 1))])
    journal.accepted(position, 1, "promise")
    journal = killed(journal, tmp_path)
    assert journal.live
    (one,) = journal.replay()
    assert (one.position, one.plan, one.done) == (position, (1, 1), False)
    assert journal.parts(position) == (
        PartSent(number=1, request_id=None),
        PartSent(number=2, request_id="promise"),
    )
    assert journal.model is not None
    assert journal.model.next_number == 3
    journal.done(position, output(-1.0))
    assert journal.parts(position) == ()
    abandon(journal)


def test_numbers_that_came_back_are_free_until_they_are_used(tmp_path: Path) -> None:
    """There is no hole in a model's numbers, whoever goes on with it."""
    journal = opened(tmp_path)
    journal.made(MODEL)
    first, _ = record(journal, batch(1), batch(2))
    journal.strike(first, freed=[1])
    journal = killed(journal, tmp_path)
    assert journal.model is not None
    assert (journal.model.next_number, journal.model.free) == (3, (1,))
    trio.run(journal.record, [Intent(operation=batch(3), numbers=(1,), plan=(1,))])
    journal = killed(journal, tmp_path)
    assert journal.model is not None
    assert (journal.model.next_number, journal.model.free) == (3, ())
    abandon(journal)


def test_a_new_model_is_not_live_and_knows_no_request(tmp_path: Path) -> None:
    """Numbers and promises were the old one's."""
    journal = opened_live(tmp_path)
    (position,) = record(journal, batch())
    journal.accepted(position, 0, "old")
    journal.made(type(MODEL)(model_id="m1", session_id="s", model_seq=1, next_number=1, sampler_seq=0))
    journal.accepted(position, 0, "of the replay")
    journal = killed(journal, tmp_path)
    assert not journal.live
    assert journal.parts(position) == ()
    assert [one.position for one in journal.replay()] == [position]
    abandon(journal)


def test_checkpoints_are_listed_from_the_moment_they_are_put_in_line(tmp_path: Path) -> None:
    """With what they hold, what the user says of them, and what became of them."""
    journal = opened(tmp_path, now=lambda: 100.0)
    step(journal, 0)
    record(journal, save("a"))
    journal.describe("a", metric=0.5, pinned=True, ttl_seconds=60)
    journal.describe("b", metric=0.7)
    expected = RunCheckpoint(
        name="a",
        path=None,
        step=1,
        state="begun",
        tokens=3,
        metric=0.5,
        pinned=True,
        time=100.0,
        ttl_seconds=60,
    )
    assert journal.checkpoints == (expected,)
    journal.checkpointed(2, "tinker://a")
    journal = killed(journal, tmp_path)
    (listed,) = journal.checkpoints
    assert (listed.state, listed.path, listed.pinned) == ("done", "tinker://a", True)
    assert journal.mark("a", "verified")
    assert journal.mark("a", "verified")
    assert not journal.mark("b", "verified")
    assert journal.checkpoints[0].state == "verified"
    abandon(journal)


def test_a_save_that_failed_leaves_no_checkpoint(tmp_path: Path) -> None:
    """It was begun, and that was all."""
    journal = opened(tmp_path)
    (position,) = record(journal, save("a"))
    journal.strike(position)
    journal = killed(journal, tmp_path)
    assert journal.checkpoints == ()
    abandon(journal)


def test_what_is_saved_in_the_place_of_an_older_state_makes_that_one_go(tmp_path: Path) -> None:
    """Nobody falls back on a path that holds something newer by now."""
    journal = opened(tmp_path)
    for number in range(2):
        step(journal, number)
        (position,) = record(journal, save("same"))
        journal.checkpointed(position, "tinker://same")
    assert [one.state for one in journal.checkpoints] == ["gone", "done"]
    assert journal.fall_back()
    assert journal.checkpoint is None
    assert len(journal.replay()) == 4
    abandon(journal)


def test_facts_are_written_together(tmp_path: Path) -> None:
    """Beside those that are there, and they are there when the call returns."""
    journal = opened(tmp_path)

    async def note() -> None:
        await journal.note(identity={"rank": 8}, seed=3)
        await journal.note(seed=4)

    trio.run(note)
    journal = killed(journal, tmp_path)
    assert dict(journal.facts) == {"identity": {"rank": 8}, "seed": 4}
    abandon(journal)


def test_where_and_when_it_was_written_last_is_known(tmp_path: Path) -> None:
    """So that a run can say whether the machine is the same, and how long it was away."""
    clock = [10.0]
    journal = opened(tmp_path, now=lambda: clock[0])
    clock[0] = 20.0
    journal.revived()
    clock[0] = 30.0
    again = killed(journal, tmp_path, now=lambda: clock[0])
    assert again.before is not None
    assert again.before.time == 20.0
    assert (again.before.host, again.before.boot) == (again.here.host, again.here.boot)
    assert again.incarnation == 2
    abandon(again)


def test_a_batch_that_does_not_fit_is_not_admitted(tmp_path: Path) -> None:
    """Nothing of its step is there; a checkpoint still is written, and makes room when two are verified."""
    journal = opened(tmp_path, max_bytes=1000)
    step(journal, 0)
    assert journal.room_needed(900) > 0
    with pytest.raises(JournalFull) as caught:
        record(journal, batch(length=200), optim(), decision=decision(1))
    assert (caught.value.limit, caught.value.held) == (1000, journal.held_bytes)
    assert (journal.steps, len(journal.replay())) == (1, 2)
    saved(journal, "a", verified=True)
    saved(journal, "b", verified=True)
    assert journal.held_bytes == 0
    assert journal.room_needed(900) == 0
    record(journal, batch(length=40), optim(), decision=decision(1))
    assert journal.steps == 2
    abandon(journal)


def test_segments_go_when_two_newer_states_are_verified(tmp_path: Path) -> None:
    """And not before: the newest state may turn out to be gone."""
    journal = opened(tmp_path)
    files = []
    for number in range(4):
        step(journal, number)
        saved(journal, f"s{number}")
        files.append(sorted(path.name for path in (tmp_path / "bodies").iterdir()))
    assert files[-1] == ["000001.seg", "000002.seg", "000003.seg", "000004.seg"]
    assert journal.mark("s1", "verified")
    assert len(list((tmp_path / "bodies").iterdir())) == 4
    assert journal.mark("s3", "verified")
    assert sorted(path.name for path in (tmp_path / "bodies").iterdir()) == ["000003.seg", "000004.seg"]
    before = told(journal)
    journal = killed(journal, tmp_path)
    assert told(journal) == before
    assert journal.fall_back()
    assert journal.fall_back()
    assert not journal.fall_back()
    assert journal.checkpoint is not None
    assert journal.checkpoint.path == "tinker://s1"
    abandon(journal)


def test_the_same_batch_is_stored_once(tmp_path: Path) -> None:
    """However many steps are made of it, and as long as one of them needs it."""
    journal = opened(tmp_path)
    step(journal, 0, token=5)
    size = journal.held_bytes
    positions = step(journal, 1, token=5, done=False)
    assert journal.held_bytes == size
    journal.strike(positions[0])
    assert trio.run(journal.read, journal.replay()[0]).data == batch(5).data
    abandon(journal)


def test_a_journal_that_is_closed_takes_nothing(tmp_path: Path) -> None:
    """Who is late is told; closing twice is no matter."""
    journal = opened(tmp_path)
    trio.run(journal.aclose)
    trio.run(journal.aclose)
    journal.made(MODEL)
    with pytest.raises(JournalError, match="closed"):
        record(journal, batch())


def test_the_two_steps_after_each_state_are_witnesses(tmp_path: Path) -> None:
    """What the first gradient of each gave, with its batch, as long as a restore may start from that state."""
    journal = opened(tmp_path)
    for number in range(2):
        step(journal, number)
    saved(journal, "a")
    for number in range(2, 5):
        step(journal, number)
    journal = killed(journal, tmp_path)
    found = [
        (one.checkpoint and one.checkpoint.path, one.which, one.position, one.loss)
        for one in journal.witnesses()
    ]
    assert found == [
        (None, 1, 0, -0.0),
        (None, 2, 2, 3.0),
        ("tinker://a", 1, 5, 6.0),
        ("tinker://a", 2, 7, 9.0),
    ]
    for one in journal.witnesses():
        operation = trio.run(journal.read_witness, one)
        assert operation is not None
        assert len(operation.data) == 1
        assert one.logprobs.tolist() == [-(one.loss or 0.0) / 3] * 3
    first = journal.witnesses()[0]
    assert journal.witness_at(0) is None  # a restore would not compute it
    assert [getattr(journal.witness_at(at), "which", None) for at in (5, 7, 9)] == [1, 2, None]
    saved(journal, "b", verified=True)
    saved(journal, "c", verified=True)
    assert journal.witnesses() == []
    assert trio.run(journal.read_witness, first) is None
    abandon(journal)


def test_a_witness_is_what_was_computed_at_first(tmp_path: Path) -> None:
    """A replay is compared with it, so it must not take its place."""
    journal = opened(tmp_path)
    step(journal, 0)
    step(journal, 1)
    journal.done(2, output(-99.0))
    assert [one.loss for one in journal.witnesses()] == [-0.0, 3.0]
    journal = killed(journal, tmp_path)
    journal.done(2, output(-99.0))
    assert [one.loss for one in journal.witnesses()] == [-0.0, 3.0]
    abandon(journal)


async def test_a_thread_writes_while_the_loop_goes_on(tmp_path: Path) -> None:
    """Many tasks record at once, in the order they came; nothing is lost on the way out."""
    journal = opened(tmp_path, inline=False)
    journal.made(MODEL)
    positions: list[int] = []

    async def decide(number: int) -> None:
        intent = Intent(operation=batch(number), numbers=(number + 1,), plan=(1,))
        positions.extend(await journal.record([intent]))
        journal.accepted(positions[-1], 0, f"r{number}")

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(decide, number)
    assert sorted(positions) == list(range(20))
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.aclose()
    again = opened(tmp_path, inline=False)
    assert len(again.replay()) == 20
    assert all(again.parts(position)[0].request_id for position in positions)
    await again.flush()
    await again.aclose()


def test_a_kept_publication_is_still_kept_after_a_kill(tmp_path: Path) -> None:
    """Whether somebody samples from it is not the journal's to know."""
    journal = opened(tmp_path)
    (position,) = record(journal, Operation(kind="save_for_sampler"))
    journal.done(position, keep=True)
    journal = killed(journal, tmp_path)
    assert journal.keeps(position)
    assert [one.position for one in journal.replay()] == [position]
    journal.release(position)
    journal = killed(journal, tmp_path)
    assert not journal.keeps(position)
    assert journal.replay() == []
    abandon(journal)


def test_the_bytes_since_the_last_checkpoint_are_counted(tmp_path: Path) -> None:
    """They are what a restore has to send again, and what a checkpoint makes room for."""
    journal = opened(tmp_path)
    assert journal.bytes_since_checkpoint == 0
    step(journal, 0)
    one = journal.bytes_since_checkpoint
    step(journal, 1)
    assert journal.bytes_since_checkpoint == 2 * one > 0
    saved(journal, "a")
    assert journal.bytes_since_checkpoint == 0
    (position,) = record(journal, batch(5))
    assert journal.bytes_since_checkpoint == one
    journal.strike(position)
    assert journal.bytes_since_checkpoint == 0
    assert journal.fall_back()
    assert journal.bytes_since_checkpoint == 2 * one
    journal = killed(journal, tmp_path)
    assert journal.bytes_since_checkpoint == 2 * one
    abandon(journal)


def test_tokens_are_counted_as_far_as_they_are_known(tmp_path: Path) -> None:
    """Images by what they are expected to take; a step that was not admitted counts nothing."""
    journal = opened(tmp_path, max_bytes=400)
    chunks = [
        EncodedTextChunk([1, 2]),
        ImageChunk(b"x", "png", 10),
        ImageChunk(b"y", "png"),
        DmelChunk(b"\0"),
    ]
    data = (Datum(ModelInput(chunks)),)
    record(journal, Operation(kind="forward_backward", data=data), decision=decision(0))
    assert journal.tokens == 12
    with pytest.raises(JournalFull):
        record(journal, batch(length=400))
    record(journal, batch(kind="forward", length=2), optim(), decision=decision(1))
    assert journal.tokens == 12
    abandon(journal)


def test_numbers_and_their_intent_take_one_place_in_line(tmp_path: Path) -> None:
    """What is noted while an intent is written comes behind it: a kill leaves no number that nobody has."""
    for attempt in range(20):  # which of two tasks goes on first is left to chance
        folder = tmp_path / str(attempt)
        journal = opened(folder)
        journal.made(MODEL)

        async def write(journal: Any = journal) -> None:
            begun = trio.Event()

            async def decide() -> None:
                begun.set()
                await journal.record([Intent(operation=batch(), numbers=(1,), plan=(1,))])

            async def note() -> None:
                await begun.wait()
                journal.made(attrs.evolve(MODEL, next_number=2))
                journal.revived()
                assert [part.number for part in journal.parts(0)] == [1]

            async with trio.open_nursery() as nursery:
                nursery.start_soon(decide)
                nursery.start_soon(note)

        trio.run(write)
        abandon(journal)


def test_the_loss_is_written_with_the_decision(tmp_path: Path) -> None:
    """In the same transaction: after any kill the journal has it if, and only if, it has the step."""
    journal = opened_live(tmp_path)
    record(journal, batch(), optim(1.0), decision=decision(0, loss_fn="ppo"))
    journal = killed(journal, tmp_path)
    assert (journal.steps, journal.loss_fn) == (1, "ppo")
    record(journal, decision=decision(1, skipped=True))
    journal = killed(journal, tmp_path)
    assert (journal.steps, journal.loss_fn) == (2, "ppo")
    abandon(journal)


def test_journals_of_earlier_versions_have_the_loss_among_the_facts(tmp_path: Path) -> None:
    """It is read from there until a step is decided."""
    journal = opened(tmp_path)
    trio.run(lambda: journal.note(loss="ppo"))
    journal = killed(journal, tmp_path)
    assert journal.loss_fn == "ppo"
    abandon(journal)
