"""Pendings: waiting for an answer, and taking a message back."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed, Withdrawn


async def test_leaving_a_pending_changes_nothing(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """However often and however early a waiter leaves, what was admitted is handled and can be awaited."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        running = await ref.submit(stage.Do(stage.sleep(3, "running")))
        queued = await ref.submit(stage.Do(stage.sleep(1, "queued")))
        before = ref.statistics()
        for pending in (running, queued, running):
            with trio.move_on_after(0) as scope:
                await pending
            assert scope.cancelled_caught
        assert ref.statistics().admitted == before.admitted
        assert ref.statistics().abandoned == 0
        with trio.move_on_after(1):
            await running
        assert await queued == "queued"
        assert await running == "running"
        with trio.move_on_after(0) as scope:
            await running
        assert scope.cancelled_caught
    assert [kind for kind, _ in stage.log] == ["begin", "end", "begin", "end"]


async def test_a_submitted_message_has_no_deadline(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The submitter's deadline bounds its wait for room, not the message."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1):
            pending = await ref.submit(stage.Do(stage.sleep(5, "done")))
        assert await pending == "done"


@pytest.mark.rule("A5")
async def test_any_number_of_tasks_await_one_pending(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Each gets the crash as an exception object of its own, with the handler's exception as its cause."""
    error = KeyError("cause")
    caught: list[HandlerCrashed] = []

    async def read(pending: Any) -> None:
        try:
            await pending
        except HandlerCrashed as raised:
            caught.append(raised)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(stage.fail(error)))
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(read, pending)
        await read(pending)
    assert len({id(raised) for raised in caught}) == 11
    assert all(raised.__cause__ is error for raised in caught)
    assert all(raised.started for raised in caught)


async def test_a_pending_is_shown_by_its_message_and_state(stage: Any) -> None:
    """The repr names the message's type and where it is, not its contents."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Part(stage.say(1)))
        await pending
        assert repr(pending) == "<Pending Part settled>"
        assert repr(ref) == "<ActorRef tree/a>"


async def test_withdrawing_takes_back_a_whole_unit(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """From any of its Pendings, if nothing of it has begun; all of them end in Withdrawn."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.sleep(10)))
        await trio.testing.wait_all_tasks_blocked()
        unit = [await ref.submit(kind(stage.say("unit"))) for kind in (stage.Part, stage.Part, stage.End)]
        after = await ref.submit(stage.End(stage.say("after")))
        assert await unit[1].withdraw()
        assert not await unit[0].withdraw()
        for pending in unit:
            with pytest.raises(Withdrawn) as caught:
                await pending
            assert caught.value.started is False
        assert await after == "after"
    assert "unit" not in stage.log


@pytest.mark.parametrize("progress", ["running", "handled"])
async def test_withdrawing_a_unit_that_has_begun_changes_nothing(
    stage: Any, progress: str, autojump_clock: trio.abc.Clock
) -> None:
    """If its first message has been dequeued, even if it is long done, the rest stays in line."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        first = await ref.submit(stage.Part(stage.sleep(1, "first")))
        await ref.submit(stage.Do(stage.sleep(5)))
        last = await ref.submit(stage.End(stage.say("last")))
        await trio.sleep(0.5 if progress == "running" else 2)
        assert not await last.withdraw()
        assert not await first.withdraw()
        assert await last == "last"


async def test_withdrawing_is_a_checkpoint_and_obeys_cancellation(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A withdrawal in a cancelled scope takes nothing back."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.sleep(1)))
        pending = await ref.submit(stage.Do(stage.say("kept")))
        with trio.move_on_after(0) as scope:
            await pending.withdraw()
        assert scope.cancelled_caught
        assert await pending == "kept"
