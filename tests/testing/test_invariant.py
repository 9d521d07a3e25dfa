from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from tinker_actors.errors import HandlerCrashed
from tinker_actors.kernel import ChildSpec, MailboxStatistics, open_supervisor
from tinker_actors.testing import assert_counters, assert_quiescent, no_leaked_tasks, settle
from tinker_actors.testing.invariant import check_counters


def open_tree() -> Any:
    return open_supervisor("tree", rng=random.Random(0))


@pytest.mark.rule("T2")
async def test_what_is_under_way_is_named(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A message in hand, in line, a parked sender: each with its actor; in good order nothing is said."""
    async with open_tree() as tree, trio.open_nursery() as nursery:
        nested = tree.start_supervisor("nested")
        ref = await nested.start_child(ChildSpec(name="a", factory=cast.CounterActor, capacity=1))
        assert_quiescent(tree)
        for _ in range(3):
            nursery.start_soon(ref.tell, cast.Nap(1))
        await trio.testing.wait_all_tasks_blocked()
        what = r"tree/nested/a: 1 messages wait in line; 1 senders wait for room; it handles Nap \(#0\)"
        with pytest.raises(AssertionError, match=what):
            assert_quiescent(tree)
        await settle(tree)
        assert_quiescent(tree)


@pytest.mark.rule("T2")
async def test_a_restart_is_not_quiescent(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """An actor that waits out its backoff is under way."""
    async with open_tree() as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=cast.CounterActor, policy=cast.steady))
        with pytest.raises(HandlerCrashed):
            await ref.ask(cast.Throw(KeyError()))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(AssertionError, match="tree/a: it is restarting"):
            assert_quiescent(tree)


@pytest.mark.rule("T2")
async def test_an_unanswered_message_is_not_quiescent(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A reply that somebody still owes is under way, though no handler runs; `settle` names it and gives up."""
    actor = cast.CounterActor()
    async with open_tree() as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=lambda: actor))
        pending = await ref.submit(cast.Detach())
        with pytest.raises(AssertionError, match="1 messages were begun and are not answered"):
            await settle(tree, within=10.0)
        actor.tokens[0].settle("late")
        await settle(tree)
        assert await pending == "late"


async def test_settle_is_done_when_the_other_tasks_are(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It wakes when anything runs, not by looking again and again: a day of waiting takes a few steps."""
    steps = 0

    class Count(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            steps += 1

    async with open_tree() as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=cast.CounterActor))
        await ref.tell(cast.Nap(29.0))
        trio.lowlevel.add_instrument(Count())
        begin = trio.current_time()
        await settle(tree)
        assert trio.current_time() == begin + 29.0
    assert steps < 50


@pytest.mark.rule("T2")
async def test_counters_that_do_not_add_up_are_named(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A mailbox whose counters miss a message fails, with its path."""
    async with open_tree() as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=cast.CounterActor))
        await ref.ask(cast.Add())
        assert_counters(tree)
        ref._target.mailbox._next_seq += 1
        with pytest.raises(AssertionError, match="tree/a: 2 admitted, but 1 ended, 0 queued, 0 running"):
            assert_counters(tree)


@pytest.mark.parametrize(
    ("right", "numbers"),
    [
        (True, {}),
        (
            True,
            {"admitted": 8, "handled": 1, "failed": 1, "abandoned": 1, "expired": 1, "dropped": 1}
            | {"rejected": 1, "queued": 1, "running": 1},
        ),
        (False, {"admitted": 1}),
        (False, {"handled": 1}),
        (False, {"admitted": 1, "handled": 2, "running": -1}),
    ],
)
def test_every_counter_counts(right: bool, numbers: dict[str, int]) -> None:
    """The sum is over all ways to end and what is under way, and nothing runs less than not at all."""
    assert (check_counters("a", MailboxStatistics(**numbers)) is None) is right


@pytest.mark.rule("T2")
async def test_a_task_left_behind_is_named(autojump_clock: trio.abc.Clock) -> None:
    """A task that was started in the block and still waits fails it; one that is about to end does not."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        with pytest.raises(AssertionError, match=r"1 tasks were left behind: .*sleep_forever"):
            async with no_leaked_tasks():
                nursery.start_soon(trio.sleep_forever)
        async with no_leaked_tasks():
            nursery.start_soon(trio.lowlevel.checkpoint)
        nursery.cancel_scope.cancel()


async def test_leaks_of_a_block_that_raised_are_not_judged(autojump_clock: trio.abc.Clock) -> None:
    """Its own exception is the news."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError):
            async with no_leaked_tasks():
                nursery.start_soon(trio.sleep_forever)
                raise KeyError
        nursery.cancel_scope.cancel()


async def test_a_whole_tree_leaves_no_task(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A tree of actors passes."""
    async with no_leaked_tasks(), open_tree() as tree:
        ref = await tree.start_child(ChildSpec(name="a", factory=cast.CounterActor, concurrency=4))
        assert await ref.ask(cast.Add(3)) == 3
