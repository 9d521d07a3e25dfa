from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tinker_actors.errors import NotFoundError, SessionGoneError
from tinker_actors.local.promise import PromiseTable
from tinker_actors.wire.future import RequestFailed, TryAgain


async def read(table: PromiseTable, request_id: str) -> object:
    promise = table.find(request_id)
    await table.wait(promise)
    return table.outcome(promise)


async def test_a_reader_is_held_until_the_result_comes(autojump_clock: trio.abc.Clock) -> None:
    """The result is given at the moment it is there, to every reader, and any number of times."""
    table = PromiseTable(hold=30)
    table.open("r", "model")
    start = trio.current_time()
    got: list[tuple[float, object]] = []

    async def reader() -> None:
        result = await read(table, "r")
        got.append((trio.current_time() - start, result))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        nursery.start_soon(reader)
        await trio.sleep(12)
        table.resolve("r", "done")
    assert got == [(12, "done")] * 2
    assert await read(table, "r") == "done"
    assert trio.current_time() - start == 12


async def test_without_a_result_the_reader_is_told_to_come_again(autojump_clock: trio.abc.Clock) -> None:
    """After `hold` seconds a reader gets TryAgain with the promise's id; the promise stays."""
    table = PromiseTable(hold=30)
    table.open("r", "model")
    start = trio.current_time()
    assert await read(table, "r") == TryAgain("r", queue_state="active")
    assert trio.current_time() - start == 30
    table.resolve("r", "done")
    assert await read(table, "r") == "done"


async def test_failed_and_broken_promises(autojump_clock: trio.abc.Clock) -> None:
    """A failed one gives its error and category; a broken one raises 410 with the reason."""
    table = PromiseTable(hold=30)
    table.open("failed", "model")
    table.open("broken", "model")
    table.open("other", "another model")
    table.fail("failed", "no memory", "server")
    assert table.break_owned("model", "the model is gone") == ["broken"]
    assert await read(table, "failed") == RequestFailed("no memory", "server")
    with pytest.raises(SessionGoneError, match="the model is gone") as caught:
        await read(table, "broken")
    assert caught.value.status_code == 410
    assert await read(table, "other") == TryAgain("other")


@pytest.mark.parametrize("end", ["resolve", "fail", "break"])
async def test_the_first_end_counts(end: str) -> None:
    """What comes after a promise has ended is ignored."""
    table = PromiseTable(hold=0)
    table.open("r", "model")
    steps: dict[str, Callable[[], object]] = {
        "resolve": lambda: table.resolve("r", "done"),
        "fail": lambda: table.fail("r", "bad", "user"),
        "break": lambda: table.break_owned("model", "gone"),
    }
    steps[end]()
    for step in steps.values():
        step()
    if end == "break":
        with pytest.raises(SessionGoneError):
            await read(table, "r")
    else:
        assert await read(table, "r") == ("done" if end == "resolve" else RequestFailed("bad", "user"))


async def test_an_unknown_promise_is_not_found() -> None:
    """An id that was never given out is 404."""
    with pytest.raises(NotFoundError, match="'nothing' is not known"):
        PromiseTable(hold=0).find("nothing")


async def test_the_oldest_read_results_are_dropped_beyond_a_limit() -> None:
    """Results that were read go first and oldest first; unread and pending ones do not suffer from it."""
    table = PromiseTable(hold=0, kept_read=2, kept_unread=10)
    for number in range(6):
        table.open(f"r{number}", "model")
    for number in range(5):
        table.resolve(f"r{number}", number)
    for number in (3, 0, 1):
        assert await read(table, f"r{number}") == number
    with pytest.raises(NotFoundError):
        table.find("r3")
    assert [await read(table, f"r{number}") for number in (0, 1)] == [0, 1]
    assert (table.kept_count, table.pending_count) == (4, 1)
    assert await read(table, "r2") == 2


async def test_results_that_nobody_asks_for_are_bounded_too() -> None:
    """Of the results never read, the oldest are dropped beyond their own limit; pending ones never."""
    table = PromiseTable(hold=0, kept_read=2, kept_unread=2)
    for number in range(5):
        table.open(f"r{number}", "model")
    for number in range(1, 5):
        table.resolve(f"r{number}", number)
    for dropped in ("r1", "r2"):
        with pytest.raises(NotFoundError):
            table.find(dropped)
    assert await read(table, "r0") == TryAgain("r0")
    assert await read(table, "r3") == 3


async def test_a_reader_who_leaves_takes_nothing_with_him() -> None:
    """A cancelled poll leaves the promise as it was; the result goes to the next reader."""
    table = PromiseTable(hold=30)
    promise = table.open("r", "model")
    with trio.move_on_after(0) as scope:
        await read(table, "r")
    assert scope.cancelled_caught
    assert promise.settled.statistics().tasks_waiting == 0
    table.resolve("r", "done")
    assert await read(table, "r") == "done"


async def test_readers_are_let_go_when_the_service_closes(autojump_clock: trio.abc.Clock) -> None:
    """`stop_holding` answers those who wait, and nobody is held from then on."""
    table = PromiseTable(hold=30)
    table.open("r", "model")
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, table, "r")
        await trio.testing.wait_all_tasks_blocked()
        table.stop_holding()
    assert await read(table, "r") == TryAgain("r")
    assert trio.current_time() == start


async def test_waiting_checkpoints_even_when_the_result_is_there() -> None:
    """A poll in a loop cannot starve the others."""
    table = PromiseTable(hold=0)
    promise = table.open("r", "model")
    table.resolve("r", "done")
    with trio.testing.assert_checkpoints():
        await table.wait(promise)
