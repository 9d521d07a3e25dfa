"""A task that swallows its cancellation: reported, left behind, and nobody else is harmed."""

from __future__ import annotations

import logging
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed, InFlightLost
from tinker_actors.kernel import (
    ActorCrashed,
    ActorEnded,
    ActorReady,
    ActorStuck,
    Backoff,
    Down,
    PoolSpec,
    RestartPolicy,
    start_pool,
)

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=1.0, jitter=0.0), max_restarts=5)


@attrs.define
class Mule:
    """Handlers that do not hear of their cancellation until they are released."""

    release: trio.Event = attrs.field(factory=trio.Event)
    freed: list[str] = attrs.field(factory=list)

    def stand(self, name: str = "mule", *, then: Exception | None = None) -> Any:
        async def stand_still(_: Any) -> str:
            with trio.CancelScope(shield=True):
                await self.release.wait()
            self.freed.append(name)
            if then is not None:
                raise then
            return "too late"

        return stand_still


def stuck(stage: Any) -> list[ActorStuck]:
    return [event for event in stage.events if isinstance(event, ActorStuck)]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_stop_does_not_wait_for_ever(
    stage: Any, concurrency: int, autojump_clock: trio.abc.Clock
) -> None:
    """What does not unwind after a kill is stuck: its callers are answered, its ref is down, its name is free."""
    mule = Mule()
    async with stage.open() as tree:
        ref = await stage.start(tree, concurrency=concurrency, cleanup_timeout=2.0)
        other = await stage.start(tree, "other")
        begun = await ref.submit(stage.Do(mule.stand()))
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop("kill")
        assert begun.settled
        with pytest.raises(InFlightLost):
            await begun
        assert trio.current_time() <= 5
        assert await ref.wait_stopped() == Down("tree/a", "stuck")
        (event,) = stuck(stage)
        assert (event.actor, event.incarnation) == ("tree/a", 1)
        assert "stand_still" in event.stack
        assert await other.ask(stage.Do(stage.say("unharmed"))) == "unharmed"
        again = await stage.start(tree)
        assert await again.ask(stage.Do(stage.say("new"))) == "new"
        seen = ref.statistics()
        assert (seen.queued, seen.running) == (0, 0)
        mule.release.set()
    assert mule.freed == ["mule"]
    assert len([event for event in stage.events if isinstance(event, ActorEnded)]) == 3


async def test_a_soft_stop_becomes_hard_and_then_gives_up(
    stage: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """Drain, kill, stuck: each has its time, and the log has the stack."""
    mule = Mule()
    async with stage.open() as tree:
        ref = await stage.start(tree, cleanup_timeout=2.0)
        begun = await ref.submit(stage.Do(mule.stand()))
        waiting = await ref.submit(stage.Do(stage.say("never")))
        with caplog.at_level(logging.ERROR, "tinker_actors.kernel"):
            await ref.stop("drain", timeout=10.0)
        assert trio.current_time() == 14
        assert begun.settled
        assert waiting.settled
        (record,) = caplog.records
        assert "tree/a#1 is stuck" in record.getMessage()
        assert "stand_still" in record.getMessage()
        mule.release.set()
    assert stage.log == []


async def test_the_tree_ends_when_it_is_released(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Leaving the tree tells everybody in time, and then waits for the task, which nothing can end."""
    mule = Mule()
    told: list[float] = []
    async with trio.open_nursery() as nursery:
        async with stage.open(grace=5.0) as tree:
            ref = await stage.start(tree, cleanup_timeout=2.0)
            ref.obituary.add(lambda down: told.append(trio.current_time()))
            await ref.tell(stage.Do(mule.stand()))
            await trio.testing.wait_all_tasks_blocked()

            async def later() -> None:
                await trio.sleep(100)
                mule.release.set()

            nursery.start_soon(later)
        assert trio.current_time() == 100
    assert told[0] <= 10
    assert len(stuck(stage)) == 1


@pytest.mark.parametrize("then", [None, ValueError("too late to crash")])
async def test_what_it_does_later_concerns_nobody(
    stage: Any, then: Exception | None, autojump_clock: trio.abc.Clock
) -> None:
    """An answer or a crash of what was left behind reaches no caller, no counter of ends, no supervisor."""
    mule = Mule()
    async with stage.open() as tree:
        ref = await stage.start(tree, cleanup_timeout=2.0)
        begun = await ref.submit(stage.Do(mule.stand(then=then)))
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop("kill")
        before = attrs.evolve(ref.statistics(), late_replies=0, duplicate_replies=0)
        mule.release.set()
        await trio.sleep(5)
        after = attrs.evolve(ref.statistics(), late_replies=0, duplicate_replies=0)
        assert after == before
        with pytest.raises(InFlightLost):
            await begun
    assert not [event for event in stage.events if isinstance(event, ActorCrashed)]
    assert len([event for event in stage.events if isinstance(event, ActorEnded)]) == 1


async def test_a_group_restart_replaces_it(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Another incarnation takes its place with all that waits; the group is up, the old task harms nobody."""
    mule = Mule()
    async with stage.open(strategy="one_for_all") as tree:
        ref = await stage.start(tree, "a", policy=QUICK, cleanup_timeout=2.0)
        sibling = await stage.start(tree, "b", policy=QUICK)
        begun = await ref.submit(stage.Do(mule.stand()))
        waiting = await ref.submit(stage.Do(stage.say("waiting")))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(HandlerCrashed):
            await sibling.ask(stage.Do(stage.fail(ValueError())))
        with pytest.raises(InFlightLost):
            await begun
        assert await waiting == "waiting"
        assert await sibling.ask(stage.Do(stage.say("sibling"))) == "sibling"
        (event,) = stuck(stage)
        assert (event.actor, event.incarnation) == ("tree/a", 1)
        readies = [e.incarnation for e in stage.events if isinstance(e, ActorReady) and e.actor == "tree/a"]
        assert readies == [1, 2]
        mule.release.set()
        await trio.sleep(5)
        assert not ref.stopped
        seen = ref.statistics()
        assert (seen.running, seen.queued) == (0, 0)
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"


async def test_a_stuck_temporary_sibling_ends(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It is not restarted with its group, so nothing takes its place, and the group is up nevertheless."""
    mule = Mule()
    async with stage.open(strategy="one_for_all") as tree:
        guest = await stage.start(
            tree, "guest", policy=RestartPolicy(restart="temporary"), cleanup_timeout=2.0
        )
        other = await stage.start(tree, "b", policy=QUICK)
        await guest.tell(stage.Do(mule.stand()))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(HandlerCrashed):
            await other.ask(stage.Do(stage.fail(ValueError())))
        assert await other.ask(stage.Do(stage.say("alive"))) == "alive"
        await trio.sleep(20)
        assert guest.stopped
        mule.release.set()


async def test_a_stuck_clean_up_is_bounded(
    stage: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """An `on_stop` that hangs is cancelled after its time and logged; one that swallows that too, is stuck."""
    mule = Mule()

    async def hang(_: Any, ending: str) -> None:
        await trio.sleep_forever()

    async def swallow(actor: Any, ending: str) -> None:
        await mule.stand()(actor)

    async with stage.open() as tree:
        hanging = await stage.start(tree, "hanging", stopping=hang, cleanup_timeout=2.0)
        await hanging.stop()
        assert trio.current_time() == 2
        assert await hanging.wait_stopped() == Down("tree/hanging", "stopped")
        assert "on_stop did not end within 2.0 s" in caplog.text
        swallowing = await stage.start(tree, "swallowing", stopping=swallow, cleanup_timeout=2.0)
        await swallowing.stop("drain", timeout=5.0)
        assert (await swallowing.wait_stopped()).reason == "stuck"
        assert trio.current_time() <= 12
        mule.release.set()
    assert [event.actor for event in stuck(stage)] == ["tree/swallowing"]


async def test_a_stuck_task_beside_the_handlers(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A spawned task that does not end keeps its incarnation from ending as a handler does."""
    mule = Mule()

    async def spawn(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        actor.context.spawn(mule.stand(), None)

    async with stage.open() as tree:
        ref = await stage.start(tree, cleanup_timeout=2.0)
        await ref.ask(stage.Do(spawn))
        await ref.stop(timeout=5.0)
        assert (await ref.wait_stopped()).reason == "stuck"
        assert "stand_still" in stuck(stage)[0].stack
        mule.release.set()


async def test_a_stuck_start_is_left_behind(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An `on_start` that swallows the stop of its tree does not keep the others from ending."""
    mule = Mule()

    async def starting(actor: Any) -> None:
        await mule.stand()(actor)

    async with stage.open() as tree:
        other = await stage.start(tree, "other")
        with trio.move_on_after(1) as left:
            await stage.start(tree, starting=starting, cleanup_timeout=2.0)
        assert left.cancelled_caught
        assert trio.current_time() <= 6
        assert list(tree.children) == ["other"]
        assert await other.ask(stage.Do(stage.say("unharmed"))) == "unharmed"
        mule.release.set()


async def test_a_stuck_worker_is_stopped_with_its_pool(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The pool is down, its callers are answered, and what waited in its line was handed back."""
    mule = Mule()
    async with stage.open() as tree:
        spec = PoolSpec(name="pool", workers=1, cleanup_timeout=2.0)
        pool = await start_pool(tree, spec, stage.PuppetActor)
        begun = await pool.ref.submit(stage.Do(mule.stand()))
        waiting = await pool.ref.submit(stage.Do(stage.say("never")))
        await trio.testing.wait_all_tasks_blocked()
        await pool.ref.stop("kill")
        assert pool.ref.stopped
        assert begun.settled
        assert waiting.settled
        seen = pool.ref.statistics()
        assert (seen.queued, seen.running) == (0, 0)
        mule.release.set()
    assert stage.log == []


async def test_a_limiter_gets_its_token_back(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What is left behind holds no token, or one stuck handler would pause all who share the limiter."""
    mule = Mule()
    limiter = trio.CapacityLimiter(1)
    async with stage.open() as tree:
        ref = await stage.start(tree, limiter=limiter, cleanup_timeout=2.0)
        other = await stage.start(tree, "other", limiter=limiter)
        await ref.tell(stage.Do(mule.stand()))
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.borrowed_tokens == 1
        await ref.stop("kill")
        assert limiter.borrowed_tokens == 0
        assert await other.ask(stage.Do(stage.say("served"))) == "served"
        mule.release.set()
    assert limiter.borrowed_tokens == 0


async def test_who_has_gone_on_is_not_aborted(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """To abort a child that waits for its restart, stops, or has another incarnation meanwhile, does nothing."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK)
        slot: Any = tree.children["a"]
        with pytest.raises(HandlerCrashed):
            await ref.ask(stage.Do(stage.fail(ValueError())))
        await trio.testing.wait_all_tasks_blocked()
        await slot.abort(trio.TooSlowError())
        await trio.sleep(5)
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
        slot.ask_to_stop("drain")
        await slot.abort(trio.TooSlowError())
        assert await ref.wait_stopped() == Down("tree/a", "stopped")
    assert len([event for event in stage.events if isinstance(event, ActorCrashed)]) == 1
