"""First starts that fail, restarts that fail, constructors that raise and hooks that hang."""

# What is bound inside `pytest.raises` is looked at after it.
# pyright: reportPossiblyUnboundVariable=false

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, HandlerCrashed, StartFailed
from tinker_actors.kernel import Actor, ActorEnded, ActorReady, Backoff, Down, RestartPolicy, handles

QUICK = RestartPolicy(max_restarts=3, backoff=Backoff(base=1.0, maximum=8.0, jitter=0.0))


def logged(stage: Any, name: str) -> dict[str, Any]:
    """Hooks of a child that notes its start and its stop."""

    async def start(_: Any) -> None:
        stage.log.append(f"start {name}")
        await trio.sleep(1)

    async def stop(_: Any, ending: str) -> None:
        await trio.sleep(1)
        stage.log.append(f"{ending} {name}")

    return {"starting": start, "stopping": stop}


@pytest.mark.scenario(28)
@pytest.mark.rule("S1", "S2", "N2", "N3")
@pytest.mark.parametrize("how", ["on_start", "constructor"])
async def test_the_third_of_five_does_not_start(stage: Any, how: str, autojump_clock: trio.abc.Clock) -> None:
    """The two before it stop in reverse, the starter gets `StartFailed` with the cause, nothing is left."""
    error = ValueError("third")

    def broken() -> Any:
        raise error

    failing = {"factory": broken} if how == "constructor" else {"starting": stage.fail(error)}
    before = trio.lowlevel.current_statistics().tasks_living
    with pytest.raises(StartFailed, match="tree/3 did not start") as caught:
        async with stage.open() as tree:
            for name in "12345":
                await stage.start(tree, name, **(failing if name == "3" else logged(stage, name)))
    assert caught.value.__cause__ is error
    assert caught.value.actor == "tree/3"
    assert stage.log == ["start 1", "start 2", "now 2", "now 1"]
    assert trio.current_time() == 4.0
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert tree.snapshot().children == ()
    endings = [(event.actor, event.failed) for event in stage.events if isinstance(event, ActorEnded)]
    assert endings == [("tree/3", True), ("tree/2", False), ("tree/1", False)]


@pytest.mark.scenario(28)
@pytest.mark.rule("S2")
async def test_a_first_start_that_fails_is_not_repeated(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A starter that catches it may go on: the others live, no restart is counted, and the name is free."""
    async with stage.open() as tree:
        await stage.start(tree, "1")
        with pytest.raises(StartFailed):
            await stage.start(tree, "2", policy=QUICK, starting=stage.fail(ValueError("second")))
        await trio.sleep(100)
        assert [child.path for child in tree.snapshot().children] == ["tree/1"]
        assert tree.snapshot().restarts == 0
        await stage.start(tree, "2")
        assert [(child.path, child.life) for child in tree.snapshot().children] == [
            ("tree/1", "running"),
            ("tree/2", "running"),
        ]
    assert stage.delays == [None]


@pytest.mark.scenario(29)
@pytest.mark.rule("S2", "S6", "S7", "S8")
@pytest.mark.parametrize("how", ["on_start", "constructor"])
async def test_a_restart_that_fails_twice(
    stage: Any, books: Any, how: str, autojump_clock: trio.abc.Clock
) -> None:
    """Both failures count and are waited out; the messages in line are handled in order by the fourth life."""
    made = 0

    def fail_on_restart() -> None:
        if made in (2, 3):
            raise ValueError(f"start {made}")

    async def start(_: Any) -> None:
        await trio.lowlevel.checkpoint()
        if how == "on_start":
            fail_on_restart()

    def factory() -> Any:
        nonlocal made
        made += 1
        if how == "constructor":
            fail_on_restart()
        return stage.PuppetActor(starting=start)

    async with stage.open() as tree:
        ref = await books.start(tree, factory=factory, policy=QUICK, capacity=4)
        crashing = ref.submit_nowait(stage.Do(stage.fail(ValueError("crash"))))
        for number in range(3):
            ref.tell_nowait(stage.Do(stage.say(number)))
        async with trio.open_nursery() as nursery:
            for number in (3, 4, 5):
                nursery.start_soon(ref.ask, stage.Do(stage.say(number)))
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(6.5)
            child = tree.snapshot().find("tree/a")
            assert (child.life, child.incarnation, child.restarts) == ("restarting", 3, 3)
            assert (child.next_restart_at, child.last_failure) == (7.0, "ValueError('start 3')")
            assert (child.mailbox.queued, child.mailbox.parked) == (4, 2)
            assert stage.log == []
        with pytest.raises(HandlerCrashed):
            await crashing
        assert trio.current_time() == 7.0
        assert tree.snapshot().restarts == 3
    assert stage.log == [0, 1, 2, 3, 4, 5]
    assert stage.delays == [1.0, 2.0, 4.0]
    assert made == 4
    assert [event.incarnation for event in stage.events if isinstance(event, ActorReady)] == [1, 4]
    assert books.counts(ref) == {"admitted": 7, "handled": 6, "failed": 1}


@pytest.mark.scenario(29)
@pytest.mark.rule("S2", "S7")
async def test_a_stop_wins_over_a_restart_that_fails(
    stage: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A stop that comes between two failing starts ends the actor at once."""
    made = []

    async def start(actor: Any) -> None:
        made.append(actor.context.incarnation)
        await trio.lowlevel.checkpoint()
        if len(made) > 1:
            raise ValueError("start")

    async with stage.open() as tree:
        ref = await books.start(tree, starting=start, policy=QUICK)
        with pytest.raises(HandlerCrashed):
            await ref.ask(stage.Do(stage.fail(ValueError("crash"))))
        await trio.sleep(1.5)
        assert made == [1, 2]
        await ref.stop("now")
        assert trio.current_time() == 1.5
        await trio.sleep(100)
    assert made == [1, 2]
    assert stage.delays == [1.0, 2.0]


# --- failed starts and their watchers -----------------------------------------------------------------------


class Watcher(Actor[Any]):
    """Watches whom it is told to and keeps what it hears."""

    def __init__(self, refs: list[Any], heard: list[Any]) -> None:
        self.refs = refs
        self.heard = heard

    async def on_start(self) -> None:
        await trio.lowlevel.checkpoint()
        for ref in self.refs:
            self.context.watch(ref)

    @handles(Down)
    async def down(self, message: Down) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append((message, trio.current_time()))


@pytest.mark.scenario(30)
@pytest.mark.rule("S10", "S2", "W1", "A2", "N3")
@pytest.mark.parametrize("how", ["constructor", "on_start", "hangs"])
async def test_a_first_start_that_fails_leaves_no_zombie(
    stage: Any, books: Any, how: str, autojump_clock: trio.abc.Clock
) -> None:
    """The actor has failed: watchers get one `Down`, before and after, its messages are settled, its name is free."""
    error = ValueError("no start")
    heard: list[Any] = []
    refs: list[Any] = []
    pendings: list[Any] = []

    def factory() -> Any:
        ref = tree.children["a"].ref
        refs.append(ref)
        books.refs.append(ref)
        pendings.append(ref.submit_nowait(stage.Do(stage.say("never"))))
        ref.obituary.add(lambda down: heard.append((down, trio.current_time())))
        if how == "constructor":
            raise error
        return stage.PuppetActor(starting=stage.fail(error) if how == "on_start" else stage.sleep(1000))

    async with stage.open() as tree:
        with pytest.raises(StartFailed) as caught:
            await stage.start(tree, factory=factory, start_timeout=7)
        ended_at = 7.0 if how == "hangs" else 0.0
        cause = caught.value.__cause__
        assert isinstance(cause, trio.TooSlowError) if how == "hangs" else cause is error
        assert isinstance(cause, Exception)
        down = Down("tree/a", "failed", cause)
        await stage.start(tree, "watcher", factory=lambda: Watcher(refs, heard))
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [(down, ended_at), (down, ended_at)]
        assert refs[0].stopped
        with pytest.raises(ActorStopped) as lost:
            await pendings[0]
        assert (lost.value.started, lost.value.__cause__) == (False, cause)
        for send in (refs[0].ask, refs[0].tell):
            with pytest.raises(ActorStopped):
                await send(stage.Do(stage.say("never")))
        await stage.start(tree)
        assert trio.current_time() == ended_at
    assert stage.log == ([("begin", None), ("cancelled", None)] if how == "hangs" else [])
    assert books.counts(refs[0]) == {"admitted": 1, "rejected": 1, "refused": 2}
    assert ActorEnded("tree/a", 1, failed=True) in stage.events


@pytest.mark.scenario(30)
@pytest.mark.rule("S2", "S5", "S10", "W1", "A2")
@pytest.mark.parametrize("how", ["constructor", "hangs"])
async def test_restarts_that_never_succeed_leave_no_zombie(
    stage: Any, books: Any, how: str, autojump_clock: trio.abc.Clock
) -> None:
    """They are crashes like any other: when they are used up the actor has failed, and its watcher hears once."""
    error = ValueError("no start")
    heard: list[Any] = []
    made = 0

    def factory() -> Any:
        nonlocal made
        made += 1
        if made > 1 and how == "constructor":
            raise error
        return stage.PuppetActor(starting=stage.sleep(1000) if made > 1 else None)

    policy = RestartPolicy(max_restarts=2, backoff=Backoff(base=1.0, jitter=0.0))
    async with stage.open() as tree:
        ref = await books.start(tree, factory=factory, policy=policy, on_exhausted="fail", start_timeout=7)
        await stage.start(tree, "watcher", factory=lambda: Watcher([ref], heard))
        with pytest.raises(HandlerCrashed):
            await ref.ask(stage.Do(stage.fail(ValueError("crash"))))
        pending = await ref.submit(stage.Do(stage.say("never")))
        with pytest.raises(ActorStopped) as lost:
            await pending
        assert lost.value.started is False
        ended_at = 3.0 + (14.0 if how == "hangs" else 0.0)
        await trio.testing.wait_all_tasks_blocked()
        [(down, at)] = heard
        assert (down.path, down.reason, at) == ("tree/a", "failed", ended_at)
        assert isinstance(down.cause, trio.TooSlowError if how == "hangs" else ValueError)
        assert ref.stopped
    assert (made, stage.delays) == (3, [1.0, 2.0, None])
    assert books.counts(ref) == {"admitted": 2, "failed": 1, "rejected": 1}
