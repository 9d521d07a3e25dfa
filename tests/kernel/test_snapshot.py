"""What a tree does at one moment."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed
from tinker_actors.kernel import (
    ActorSnapshot,
    Backoff,
    MailboxStatistics,
    PastMessage,
    PoolSpec,
    RestartPolicy,
    RunningMessage,
    SupervisorSnapshot,
    start_pool,
)

SLOW = RestartPolicy(backoff=Backoff(base=4.0, jitter=0.0))


@pytest.mark.rule("O1")
async def test_a_quiet_tree(stage: Any) -> None:
    """Supervisors and actors in the order of their start, each with its path and state."""
    async with stage.open(strategy="rest_for_one") as tree:
        await stage.start(tree, "b")
        group = tree.start_supervisor("group", "dynamic")
        await stage.start(group, "a")
        seen = tree.snapshot()
    assert seen == SupervisorSnapshot(
        path="tree",
        strategy="rest_for_one",
        restarts=0,
        stopping=False,
        children=(
            quiet("tree/b"),
            SupervisorSnapshot(
                path="tree/group",
                strategy="dynamic",
                restarts=0,
                stopping=False,
                children=(quiet("tree/group/a"),),
            ),
        ),
    )


def quiet(path: str) -> ActorSnapshot:
    return ActorSnapshot(
        path=path,
        life="running",
        incarnation=1,
        restarts=0,
        next_restart_at=None,
        mailbox=MailboxStatistics(capacity=64),
        line=path,
        running=(),
        recent=(),
        last_failure=None,
    )


async def test_any_node_can_be_found(stage: Any) -> None:
    """By its path at whatever depth; names that begin alike are not mixed up, and what is not there is told."""
    async with stage.open() as tree:
        await stage.start(tree, "group1")
        group = tree.start_supervisor("group")
        await stage.start(group.start_supervisor("inner"), "a")
        seen = tree.snapshot()
    assert seen.find("tree/group1").path == "tree/group1"
    assert seen.find("tree/group") is seen.children[1]
    assert seen.find("tree/group/inner/a").path == "tree/group/inner/a"
    for missing in ("tree/none", "tree/group/none", "tree/group1/a", "", "tree"):
        with pytest.raises(KeyError):
            seen.find(missing)


@pytest.mark.rule("O1")
async def test_what_runs_is_shown(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Type and place of each message in hand, and whom its handler waits for; time only where it is kept."""
    for timed in (False, True):
        async with stage.open(timed=timed) as tree:
            a = await stage.start(tree, "a")
            b = await stage.start(tree, "b", concurrency=2)

            async def ask_b(_: Any, b: Any = b) -> Any:
                return await b.ask(stage.Do(stage.sleep(5)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.ask, stage.Do(ask_b))
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(b.ask, stage.Finish(stage.sleep(5)))
                nursery.start_soon(a.ask, stage.Do(stage.say(1)))
                await trio.sleep(2)
                seen = tree.snapshot()
                seconds, since = (2.0, trio.current_time() - 2.0) if timed else (None, None)
                left: Any = seen.find("tree/a")
                right: Any = seen.find("tree/b")
                assert left.running == (
                    RunningMessage(kind="Do", seq=0, seconds=seconds, since=since, waiting_on=("tree/b",)),
                )
                assert left.mailbox.queued == 1
                assert {(one.kind, one.seq, one.seconds) for one in right.running} == {
                    ("Do", 0, seconds),
                    ("Finish", 1, seconds),
                }


@pytest.mark.rule("O1")
async def test_a_restart_is_shown(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """When the next start is due, what ended the last incarnation, and how many restarts there were."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=SLOW)
        with pytest.raises(HandlerCrashed):
            await ref.ask(stage.Do(stage.fail(ValueError("why"))))
        await trio.testing.wait_all_tasks_blocked()
        seen: Any = tree.snapshot().find("tree/a")
        assert (seen.life, seen.incarnation, seen.restarts) == ("restarting", 1, 1)
        assert seen.next_restart_at == 4.0
        assert seen.last_failure == "ValueError('why')"
        assert tree.snapshot().restarts == 1
        await trio.sleep(5)
        seen = tree.snapshot().find("tree/a")
        assert (seen.life, seen.incarnation, seen.next_restart_at) == ("running", 2, None)


async def test_a_stop_is_shown(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A supervisor on its way out says so, and its actors are draining."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.sleep(1)))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.stop, "drain", math.inf)
            await trio.testing.wait_all_tasks_blocked()
            seen = tree.snapshot()
            assert seen.stopping
            assert [getattr(child, "life", None) for child in seen.children] == ["draining"]
        assert tree.snapshot().children == ()


async def test_a_pool_is_a_supervisor_of_workers(stage: Any) -> None:
    """Its workers are shown one by one, with the mailbox they share."""
    async with stage.open() as tree:
        pool = await start_pool(tree, PoolSpec(name="pool", workers=2), stage.PuppetActor)
        seen: Any = tree.snapshot().find("tree/pool")
        assert [child.path for child in seen.children] == ["tree/pool/worker-0", "tree/pool/worker-1"]
        assert seen.children[0].mailbox == pool.ref.statistics()
        assert [child.line for child in seen.children] == ["tree/pool", "tree/pool"]


def past(seq: int, at: float, seconds: float | None, state: str, error: str | None) -> PastMessage:
    return PastMessage(kind="Do", seq=seq, ended_at=at, seconds=seconds, state=state, error=error)


async def test_the_last_messages_are_remembered(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """So many of each mailbox as was said: when each ended, how long it ran, and how it ended."""
    async with stage.open() as tree:
        a = await stage.start(tree, "a")
        tree.remember(3)
        await a.ask(stage.Do(stage.say(0)))
        await a.ask(stage.Do(stage.sleep(2)))
        with pytest.raises(stage.Declared):
            await a.ask(stage.Do(stage.fail(stage.Declared())))
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.ask, stage.Do(stage.sleep(5)))
                await trio.testing.wait_all_tasks_blocked()
                assert tree.snapshot().find("tree/a").running[0].seconds == 0
                await a.ask(stage.Do(stage.say(0)))
        await trio.testing.wait_all_tasks_blocked()
        seen: Any = tree.snapshot().find("tree/a")
        assert seen.recent[0] == past(2, 2.0, 0.0, "settled", "Declared")
        assert {(one.seq, one.ended_at, one.seconds, one.state) for one in seen.recent[1:]} == {
            (3, 3.0, 1.0, "expired"),
            (4, 3.0, None, "expired"),
        }


async def test_remembering_may_begin_and_end_at_any_time(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It holds for actors that run, in whatever depth, and for those that are started later."""
    async with stage.open() as tree:
        group = tree.start_supervisor("group")
        early = await stage.start(group, "early")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(early.ask, stage.Do(stage.sleep(2)))
            await trio.sleep(1)
            tree.remember(2)
            assert tree.snapshot().find("tree/group/early").running[0].seconds is None
        late = await stage.start(tree, "late")
        await late.ask(stage.Do(stage.sleep(1)))
        seen = tree.snapshot()
        assert seen.find("tree/group/early").recent == (past(0, 2.0, None, "settled", None),)
        assert seen.find("tree/late").recent == (past(0, 3.0, 1.0, "settled", None),)
        tree.remember(0)
        await late.ask(stage.Do(stage.sleep(1)))
        assert tree.snapshot().find("tree/late").recent == ()


@pytest.mark.rule("O1")
def test_snapshots_are_facts() -> None:
    """Nothing in them can be changed, so they may be kept and compared."""
    seen = quiet("tree/a")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        seen.life = "stopped"  # type: ignore[misc]  # that is the point
