"""Nothing disappears without a trace."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.kernel import DeadLetter, DeadLetters, Message


class Role:
    pass


@attrs.frozen
class Note(Message[Role, Any]):
    number: int = 0


def ignore(_: object) -> None:
    """Be nobody."""


@pytest.mark.rule("O3")
async def test_a_letter_says_what_was_lost(autojump_clock: trio.abc.Clock) -> None:
    """Observer and subscribers get it whole and at once; `recent` keeps it without the message."""
    observed: list[DeadLetter] = []
    heard: list[DeadLetter] = []
    letters = DeadLetters(observed.append)
    await trio.sleep(5)
    with letters.subscribe(heard.append):
        letters.bury("tree/a", Note(1), 7, "stopped")
    letters.bury("tree/b", Note(2), -1, "dropped")
    at = trio.current_time()
    whole = [
        DeadLetter("tree/a", "stopped", "Note", 7, at, Note(1)),
        DeadLetter("tree/b", "dropped", "Note", -1, at, Note(2)),
    ]
    assert observed == whole
    assert heard == whole[:1]
    assert letters.recent == tuple(attrs.evolve(letter, message=None) for letter in whole)
    assert dict(letters.counts) == {"stopped": 1, "dropped": 1}


async def test_the_counts_are_for_reading() -> None:
    """Nobody changes them from outside, and they follow what happens."""
    letters = DeadLetters(ignore)
    counts: Any = letters.counts
    with pytest.raises(TypeError):
        counts["stopped"] = 3
    letters.bury("tree/a", Note(), 0, "stopped")
    assert counts["stopped"] == 1


@pytest.mark.rule("O3")
async def test_only_the_newest_are_kept() -> None:
    """A thousand, oldest first; all are counted."""
    letters = DeadLetters(ignore)
    for seq in range(1005):
        letters.bury("tree/a", Note(), seq, "expired")
    assert [letter.seq for letter in letters.recent] == list(range(5, 1005))
    assert letters.counts["expired"] == 1005


@pytest.mark.rule("O3")
async def test_kept_letters_keep_no_message_alive() -> None:
    """A large message may be collected although its letter is still shown."""
    letters = DeadLetters(ignore)
    message = Note()
    gone = weakref.ref(message)
    letters.bury("tree/a", message, 0, "dropped")
    del message
    gc.collect()
    assert gone() is None
    assert letters.recent[0].kind == "Note"


@pytest.mark.rule("O2")
async def test_a_subscriber_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The others hear nevertheless, and so do those who come and go meanwhile."""

    def broken(letter: DeadLetter) -> None:
        raise ValueError("broken")

    heard: list[DeadLetter] = []
    letters = DeadLetters(ignore)
    with letters.subscribe(broken), letters.subscribe(heard.append):
        letters.bury("tree/a", Note(), 0, "failed")
    assert len(heard) == 1
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "a subscriber of dead letters failed" in errors[0].getMessage()
    letters.bury("tree/a", Note(), 1, "failed")
    assert len(heard) == 1


async def test_a_subscription_ends_with_its_block_also_by_an_error() -> None:
    """Whatever leaves the block, the callback is not called any more; twice subscribed is called twice."""
    heard: list[DeadLetter] = []
    letters = DeadLetters(ignore)
    with pytest.raises(KeyError), letters.subscribe(heard.append), letters.subscribe(heard.append):
        letters.bury("tree/a", Note(), 0, "failed")
        raise KeyError
    letters.bury("tree/a", Note(), 1, "failed")
    assert [letter.seq for letter in heard] == [0, 0]


async def test_a_subscriber_may_leave_while_it_is_called() -> None:
    """Ending a subscription from inside its callback disturbs no other."""
    heard: list[str] = []
    letters = DeadLetters(ignore)

    def leave(letter: DeadLetter) -> None:
        heard.append("once")
        subscription.__exit__(None, None, None)

    subscription = letters.subscribe(leave)
    subscription.__enter__()
    with letters.subscribe(lambda _: heard.append("other")):
        letters.bury("tree/a", Note(), 0, "failed")
        letters.bury("tree/a", Note(), 1, "failed")
    assert heard == ["once", "other", "other"]


@pytest.mark.rule("O3")
async def test_a_flood_stays_readable(caplog: pytest.LogCaptureFixture) -> None:
    """One line for the first of each reason, and one for every doubling."""
    letters = DeadLetters(ignore)
    for seq in range(100):
        letters.bury("tree/a", Note(), seq, "expired")
    letters.bury("tree/a", Note(), 0, "lost")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        *(f"dead letter (expired, number {2**power}): Note for tree/a" for power in range(7)),
        "dead letter (lost, number 1): Note for tree/a",
    ]


@pytest.mark.rule("O3")
async def test_the_tree_shows_its_letters(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Each way in which a told message can be lost has its reason, and the observer gets the same letters."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.fail(stage.Declared())))
        await ref.tell(stage.Strange(stage.say(1)))
        await ref.tell(stage.Do(stage.fail(ValueError())))
        await trio.sleep(5)
        assert [letter.reason for letter in tree.dead_letters.recent] == ["failed", "unhandled", "crashed"]
        await ref.tell(stage.Do(stage.sleep(100)))
        await ref.tell(stage.Do(stage.say(2)))
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop("kill")
        reasons = [letter.reason for letter in tree.dead_letters.recent]
        assert sorted(reasons[3:]) == ["lost", "stopped"]
        assert {letter.actor for letter in tree.dead_letters.recent} == {"tree/a"}
        observed = [event for event in stage.events if isinstance(event, DeadLetter)]
        assert [letter.reason for letter in observed] == reasons
    assert stage.log == [("begin", None), ("cancelled", None)]
