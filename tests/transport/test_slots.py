"""Places for requests under way: fair, and never lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tinker_actors.transport.slots import Slots


def test_there_is_at_least_one_place() -> None:
    """A limit of nothing is an error."""
    with pytest.raises(ValueError, match="limit = 0"):
        Slots(0)


async def test_places_are_handed_out_in_the_order_of_asking() -> None:
    """Who gives a place back gives it to the first in line; nobody pushes in."""
    slots = Slots(1)
    assert await slots.take()
    order: list[int] = []

    async def take(number: int) -> None:
        assert await slots.take()
        order.append(number)
        slots.give_back()

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(take, number)
            await wait_all_tasks_blocked()
        assert slots.waiting == 5
        slots.give_back()
        assert slots.in_use == 1  # handed on, never free in between
        assert await slots.take()
        assert order == [0, 1, 2, 3, 4]
        slots.give_back()
    assert (slots.in_use, slots.waiting) == (0, 0)


@pytest.mark.lesson("L13")
@pytest.mark.parametrize("cancel_first", [True, False])
async def test_a_waiter_that_is_cancelled_loses_no_place(cancel_first: bool) -> None:
    """Whatever comes first, the hand-over or the cancellation, the place goes on."""
    slots = Slots(1)
    await slots.take()
    got: list[str] = []

    async def wait(name: str, scope: trio.CancelScope) -> None:
        with scope:
            assert await slots.take()
            got.append(name)
            slots.give_back()

    first, second = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "first", first)
        await wait_all_tasks_blocked()
        nursery.start_soon(wait, "second", second)
        await wait_all_tasks_blocked()
        if cancel_first:
            first.cancel()
            slots.give_back()
        else:
            slots.give_back()
            first.cancel()
    assert got == (["second"] if cancel_first else ["first", "second"])
    assert (slots.in_use, slots.waiting) == (0, 0)


async def test_closing_sends_away_who_waits(autojump_clock: Any) -> None:
    """After it nobody gets a place; those under way give theirs back."""
    slots = Slots(1)
    assert await slots.take()
    answers: list[bool] = []

    async def wait() -> None:
        answers.append(await slots.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        slots.close()
    assert answers == [False]
    assert not await slots.take()
    slots.give_back()
    assert (slots.in_use, slots.waiting) == (0, 0)
