"""What full mailboxes keep, and senders that wait for room."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import Dropped, MailboxFull
from tinker_actors.kernel import Coalesce


async def incarnation(actor: Any) -> int:
    await trio.lowlevel.checkpoint()
    return actor.context.incarnation


def letters(tree: Any, reason: str) -> list[int]:
    return [letter.seq for letter in tree.dead_letters.recent if letter.reason == reason]


@pytest.mark.scenario(20)
@pytest.mark.rule("M1", "M5", "O3")
@pytest.mark.parametrize(
    ("overflow", "handled", "dropped"),
    [
        ("block", [1, 2, 3, 4, 5, 6], []),
        ("fail", [1, 2, 3], []),
        ("drop_new", [1, 2, 3], [4, 5, 6]),
        ("drop_old", [4, 5, 6], [1, 2, 3]),
    ],
)
async def test_what_a_full_mailbox_keeps(
    stage: Any,
    books: Any,
    overflow: str,
    handled: list[int],
    dropped: list[int],
    autojump_clock: trio.abc.Clock,
) -> None:
    """Six tells meet room for three: exactly those the policy keeps are handled, in order."""
    refusals = []
    async with stage.open() as tree:
        ref = await books.start(tree, capacity=3, overflow=overflow)
        await ref.tell(stage.Do(stage.sleep(1, 0)))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(1, 7):
            try:
                await ref.tell(stage.Do(stage.say(number)))
            except MailboxFull as error:
                refusals.append((number, error.depth, error.capacity, error.started))
            at = 1.0 if overflow == "block" and number > 3 else 0.0
            assert trio.current_time() == at
    assert stage.log == [("begin", 0), ("end", 0), *handled]
    assert letters(tree, "dropped") == dropped
    assert tree.dead_letters.counts.get("dropped", 0) == len(dropped)
    assert sum(tree.dead_letters.counts.values()) == len(dropped)
    assert refusals == ([(number, 3, 3, False) for number in (4, 5, 6)] if overflow == "fail" else [])
    seen = ref.statistics()
    assert (seen.peak, seen.refused, seen.dropped) == (3, len(refusals), len(dropped))
    assert (seen.admitted, seen.handled) == (7 - len(refusals), 1 + len(handled))


@pytest.mark.scenario(20)
@pytest.mark.rule("M5", "O3")
async def test_coalescing_keeps_the_newest_of_each_key(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The newer one goes to the back of the line, asks are left alone, and a new key waits for room."""
    names: dict[Any, str] = {}

    def named(name: str) -> Any:
        message = stage.Do(stage.say(name))
        names[message] = name
        return message

    def key(message: Any) -> str | None:
        return names[message][0] if message in names else None

    async with stage.open() as tree:
        ref = await books.start(tree, capacity=4, overflow=Coalesce(key))
        await ref.tell(stage.Do(stage.sleep(1, "gate")))
        await trio.testing.wait_all_tasks_blocked()
        asked = await ref.submit(named("a0"))
        for name in ("a1", "b1", "a2", "c1", "b2", "a3"):
            await ref.tell(named(name))
        assert (ref.statistics().queued, trio.current_time()) == (4, 0.0)
        await ref.tell(named("d1"))
        assert trio.current_time() == 1.0
        assert await asked == "a0"
    assert stage.log[2:] == ["a0", "c1", "b2", "a3", "d1"]
    assert letters(tree, "coalesced") == [2, 3, 4]
    assert dict(tree.dead_letters.counts) == {"coalesced": 3}
    assert (ref.statistics().dropped, ref.statistics().handled, ref.statistics().peak) == (3, 6, 4)


@pytest.mark.scenario(20)
@pytest.mark.rule("M5", "A2", "A3")
@pytest.mark.parametrize(
    ("overflow", "lost", "kept"), [("drop_new", "newer", "older"), ("drop_old", "older", "newer")]
)
async def test_who_waits_for_a_dropped_message_hears_at_once(
    stage: Any, books: Any, overflow: str, lost: str, kept: str, autojump_clock: trio.abc.Clock
) -> None:
    """It gets `Dropped` with its message and `started=False`; the other one is answered."""
    ends: dict[str, Any] = {}

    async with stage.open() as tree:
        ref = await books.start(tree, capacity=1, overflow=overflow)
        messages = {name: stage.Do(stage.say(name)) for name in ("older", "newer")}

        async def ask(name: str) -> None:
            try:
                ends[name] = (await ref.ask(messages[name]), trio.current_time())
            except Dropped as error:
                ends[name] = (error.handed_back, trio.current_time(), error.started)

        await ref.tell(stage.Do(stage.sleep(1)))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for name in messages:
                nursery.start_soon(ask, name)
                await trio.testing.wait_all_tasks_blocked()
    assert ends == {lost: (messages[lost], 0.0, False), kept: (kept, 1.0)}
    assert ref.statistics().dropped == 1


@pytest.mark.scenario(20)
@pytest.mark.rule("M5")
async def test_a_refusal_inside_a_handler_is_an_ordinary_exception(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The handler that meets a full mailbox may catch it; neither actor crashes."""

    async def send(actor: Any) -> int:
        with pytest.raises(MailboxFull, match=r"tree/b holds 1 of 1"):
            await b.tell(stage.Do(stage.say("never")))
        return actor.context.incarnation

    async with stage.open() as tree:
        a = await books.start(tree, "a")
        b = await books.start(tree, "b", capacity=1, overflow="fail")
        await b.tell(stage.Do(stage.sleep(1)))
        await trio.testing.wait_all_tasks_blocked()
        await b.tell(stage.Do(stage.say("in line")))
        assert await a.ask(stage.Do(send)) == 1
        await trio.sleep(2)
        assert await b.ask(stage.Do(incarnation)) == 1
    assert stage.delays == []


@pytest.mark.scenario(21)
@pytest.mark.rule("M3", "M4")
async def test_half_of_a_thousand_waiting_senders_leave(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The others are admitted in the order they came; nothing keeps the cancelled ones alive."""
    scopes: list[trio.CancelScope] = []
    traces: list[weakref.ref[Any]] = []

    async def send(number: int) -> None:
        message = stage.Do(stage.say(number))
        traces.append(weakref.ref(message))
        with scopes[number]:
            await ref.tell(message)

    async with stage.open() as tree:
        ref = await books.start(tree, capacity=1)
        await ref.tell(stage.Do(stage.sleep(1, "gate")))
        await trio.testing.wait_all_tasks_blocked()
        await ref.tell(stage.Do(stage.say("in line")))
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                scopes.append(trio.CancelScope())
                nursery.start_soon(send, number)
                while ref.statistics().parked <= number:  # noqa: ASYNC110 - counters have no event
                    await trio.lowlevel.checkpoint()
            for number in range(0, 1000, 2):
                scopes[number].cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert (ref.statistics().parked, ref.statistics().queued) == (500, 1)
            gc.collect()
            assert [number for number, trace in enumerate(traces) if trace()] == list(range(1, 1000, 2))
    assert stage.log[2:] == ["in line", *range(1, 1000, 2)]
    seen = ref.statistics()
    assert (seen.parked, seen.peak, seen.admitted, seen.handled) == (0, 1, 502, 502)
    assert sum(tree.dead_letters.counts.values()) == 0
