"""Tasks at the gates: in order, bounded, nobody forgotten."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.actors.throttle import BytesGate, SampleGate
from tinker_actors.protocol.aimd import AdaptiveLimit
from tinker_actors.protocol.backoff import SampleBackoff
from tinker_actors.protocol.throttle import SampleThrottle


def gate(free: int = 10**9, most: int = 10**6) -> SampleGate:
    return SampleGate(SampleThrottle(SampleBackoff(), AdaptiveLimit(most), free))


async def test_bytes_come_in_order(autojump_clock: Any) -> None:
    """Who waits is served first in, first out; who leaves lets the others pass."""
    budget, order = BytesGate(10), list[str]()

    async def use(name: str, size: int) -> None:
        async with budget.hold(size):
            order.append(name)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, "a", 15)
        await trio.sleep(0.1)
        gone = trio.CancelScope()

        async def leaves() -> None:
            with gone:
                await use("gone", 1)

        nursery.start_soon(leaves)
        await trio.sleep(0.1)
        for name in ("b", "c"):
            nursery.start_soon(use, name, 20)
            await trio.sleep(0.1)
        gone.cancel()
    assert order == ["a", "b", "c"]
    assert (budget.ledger.free, budget.ledger.waiting) == (10, 0)


async def test_bytes_that_are_there_need_no_checkpoint() -> None:
    """The hot path does not yield."""
    budget = BytesGate(10)
    with trio.testing.assert_no_checkpoints():
        await budget.take(3)
    budget.give(3)


async def test_a_sample_that_finds_room_goes_at_once() -> None:
    """The hot path has no checkpoint and no object."""
    samples = gate()
    with trio.testing.assert_no_checkpoints():
        weight = samples.enter_nowait(100)
    assert weight == 100
    samples.leave(weight)
    with trio.testing.assert_no_checkpoints():
        assert await samples.enter(100) == 100


@pytest.mark.lesson("L11")
async def test_after_a_refusal_ten_go_at_a_time(autojump_clock: Any) -> None:
    """Everybody waits for the clock, then ten are on their way at once, in order of arrival."""
    samples, order, peak = gate(), list[int](), 0

    async def submit(number: int) -> None:
        nonlocal peak
        weight = samples.enter_nowait(1)
        if weight is None:
            weight = await samples.enter(1)
        order.append(number)
        peak = max(peak, samples.throttle.running)
        await trio.sleep(0.5)
        samples.leave(weight)

    samples.refused(1, 30.0, 0)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(25):
            nursery.start_soon(submit, number)
            await trio.sleep(0.01)
    assert trio.current_time() - started == pytest.approx(31.5)
    batches = [set(order[:10]), set(order[10:20]), set(order[20:])]  # within one, trio's order is nobody's
    assert batches == [set(range(10)), set(range(10, 20)), set(range(20, 25))]
    assert peak == 10


async def test_a_longer_pause_is_noticed_by_who_minds_the_clock(autojump_clock: Any) -> None:
    """Also if it comes from another service with the same key."""
    samples = gate()
    started = trio.current_time()
    samples.refused(1, 5.0, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(samples.enter, 1)
        await trio.sleep(1)
        samples.refused(1, 60.0, 1)
    assert trio.current_time() - started == pytest.approx(61)


@pytest.mark.lesson("L13", "D57")
async def test_a_pause_that_begins_while_all_wait_for_room_has_an_end(autojump_clock: Any) -> None:
    """Polls, and other services with the same key, are refused, too; the line goes on when that is over."""
    samples = gate(most=1)
    held = samples.enter_nowait(1)
    assert held is not None
    samples.submitted(held)
    started = trio.current_time()
    with trio.move_on_after(1000) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(samples.enter, 1)
            await trio.sleep(1)
            samples.throttle.backoff.refused(now=trio.current_time(), retry_after=45.0)
            await trio.sleep(1)
            samples.ended()  # the last whose end could wake somebody
    assert not scope.cancelled_caught
    assert trio.current_time() - started == pytest.approx(46)


async def test_who_minds_the_clock_may_leave(autojump_clock: Any) -> None:
    """The next in line takes the place."""
    samples = gate()
    samples.refused(1, 5.0, 0)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def first() -> None:
            with scope:
                await samples.enter(1)

        nursery.start_soon(first)
        await trio.sleep(0.1)
        nursery.start_soon(samples.enter, 1)
        await trio.sleep(0.1)
        scope.cancel()
    assert trio.current_time() - started == pytest.approx(5)
    assert (samples.throttle.running, samples.throttle.waiting) == (1, 0)


@pytest.mark.lesson("L13", "D57")
@pytest.mark.parametrize("seed", range(20))
async def test_no_wake_up_is_lost(autojump_clock: Any, seed: int) -> None:
    """Random samples on both lanes, refused here and elsewhere, and left: all come to an end, and all is given back."""
    rng = random.Random(seed)
    samples = gate(500, most=rng.choice([2, 8, 10**6]))
    throttle, done = samples.throttle, 0

    async def draw(size: int, again: bool) -> None:
        weight = None if again else samples.enter_nowait(size)
        if weight is None:
            weight = await samples.enter(size, rng.choice(["training", "evaluation"]), again=again)
        generation, give_back = throttle.limit.generation, samples.leave
        try:
            await trio.sleep(rng.random() * 3)
            if rng.random() < 0.1:
                samples.refused(size, rng.choice([None, 3.0]), generation)
            else:
                give_back = samples.submitted
        finally:
            give_back(weight)
        if give_back == samples.leave:
            return
        try:
            await trio.sleep(rng.random() * 3)
            if rng.random() < 0.1:  # a poll is refused
                throttle.backoff.refused(now=trio.current_time(), retry_after=rng.choice([2.0, 50.0]))
                throttle.paused()
        finally:
            samples.ended()

    async def caller() -> None:
        nonlocal done
        with trio.move_on_after(rng.choice([5.0, 60.0, math.inf])):  # who has no end must come to one
            for again in range(rng.randrange(1, 4)):
                await draw(rng.randrange(200), again > 0)
        done += 1

    with trio.fail_after(100_000):
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(caller)
                await trio.sleep(rng.random() * 0.1)
    assert (throttle.in_flight, throttle.first) == (0, None)
    assert (done, throttle.running, throttle.waiting, throttle.free) == (150, 0, 0, 500)
