"""How long an ask waits whose caller did not say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import InputError
from tinker_actors.kernel import PoolSpec, start_pool


async def test_an_ask_without_deadline_ends_in_time(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The actor's `reply_timeout` is its deadline: the handler is cancelled, the caller gets a plain error."""
    async with stage.open() as tree:
        ref = await stage.start(tree, reply_timeout=5.0)
        with pytest.raises(
            trio.TooSlowError, match=r"tree/a did not answer Do within its reply_timeout of 5.0 s"
        ):
            await ref.ask(stage.Do(stage.sleep(100)))
        assert trio.current_time() == 5
        assert await ref.ask(stage.Do(stage.sleep(4, "in time"))) == "in time"
    assert stage.log[:2] == [("begin", None), ("cancelled", None)]


async def test_a_callers_own_deadline_counts(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Be it longer or shorter; and it ends as the caller's own scope says."""
    async with stage.open() as tree:
        ref = await stage.start(tree, reply_timeout=5.0)
        with trio.fail_after(50):
            assert await ref.ask(stage.Do(stage.sleep(20, "long"))) == "long"
        with trio.move_on_after(1) as scope:
            await ref.ask(stage.Do(stage.sleep(20)))
        assert scope.cancelled_caught
        assert trio.current_time() == 21


async def test_submit_and_units_have_no_timeout(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Who takes a `Pending` waits as long as they like, and a message of a unit goes with its unit."""
    async with stage.open() as tree:
        ref = await stage.start(tree, reply_timeout=5.0)
        assert await (await ref.submit(stage.Do(stage.sleep(20, "pending")))) == "pending"
        assert await ref.ask(stage.End(stage.sleep(20, "unit"))) == "unit"


async def test_a_pool_has_one_too(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It is that of the pool, whoever of its workers answers."""
    async with stage.open() as tree:
        spec = PoolSpec(name="pool", workers=1, reply_timeout=5.0)
        pool = await start_pool(tree, spec, stage.PuppetActor)
        with pytest.raises(trio.TooSlowError, match="tree/pool"):
            await pool.ref.ask(stage.Do(stage.sleep(100)))


async def test_a_full_line_counts_as_waiting(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Time that an ask waits for room is part of its time."""
    async with stage.open() as tree:
        ref = await stage.start(tree, reply_timeout=5.0, capacity=1)
        for _ in range(2):
            await ref.tell(stage.Do(stage.sleep(20)))
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.TooSlowError):
            await ref.ask(stage.Do(stage.say("never")))
        assert trio.current_time() == 5
    assert "never" not in stage.log


@pytest.mark.parametrize("wrong", [-1.0, math.nan])
def test_wrong_timeouts_are_refused(stage: Any, wrong: float) -> None:
    """Of actors and pools."""
    with pytest.raises(InputError):
        stage.spec(reply_timeout=wrong)
    with pytest.raises(InputError):
        PoolSpec(name="pool", workers=1, reply_timeout=wrong)
