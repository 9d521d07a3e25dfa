"""What leaves a tree of actors, and how it ends."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    ActorError,
    ActorStopped,
    RestartIntensityExceeded,
)
from tinker_actors.kernel import ActorEnded, ActorReady, RestartPolicy
from tinker_actors.kernel.tree import _what_leaves

NEVER = RestartPolicy(max_restarts=0)


def stop_logged(stage: Any, name: str, seconds: float = 0.0) -> dict[str, Any]:
    """Settings of a child that notes its start and its stop."""

    async def start(_: Any) -> None:
        stage.log.append(f"start {name}")
        await trio.lowlevel.checkpoint()

    async def stop(_: Any, ending: str) -> None:
        await trio.sleep(seconds)
        stage.log.append(f"{ending} {name}")

    return {"starting": start, "stopping": stop}


# --- what leaves the tree -----------------------------------------------------------------------------------


@pytest.mark.rule("M9", "D3")
@pytest.mark.parametrize(
    "error",
    [
        ValueError("body"),
        KeyboardInterrupt(),
        SystemExit(3),
        StopAsyncIteration("body"),
        ExceptionGroup("body", [ValueError("a")]),
        RestartIntensityExceeded("body", actor="x", history=()),
    ],
)
async def test_the_body_s_exception_leaves_as_itself(
    stage: Any, error: BaseException, autojump_clock: trio.abc.Clock
) -> None:
    """Same object, no group around it; children have been stopped, and what had not begun never began."""
    with pytest.raises(type(error)) as caught:
        async with stage.open() as tree:
            ref = await stage.start(tree, **stop_logged(stage, "a"))
            running = await ref.submit(stage.Do(stage.sleep(1, "done")))
            queued = await ref.submit(stage.Do(stage.say("never")))
            await trio.testing.wait_all_tasks_blocked()
            raise error
    assert caught.value is error
    assert await running == "done"
    with pytest.raises(ActorStopped) as stopped:
        await queued
    assert stopped.value.started is False
    assert stage.log[-1] == "now a"
    assert "never" not in stage.log


@pytest.mark.rule("N6")
async def test_a_cancellation_from_outside_is_caught_outside(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Children stop in order, shielded from it; the outer scope knows that it was its own cancellation."""
    with trio.move_on_after(1) as scope:
        async with stage.open() as tree:
            for name in "ab":
                await stage.start(tree, name, **stop_logged(stage, name, seconds=2))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert stage.log == ["start a", "start b", "now b", "now a"]


@pytest.mark.rule("D3")
async def test_a_cancellation_during_the_drain_ends_the_drain(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The body had returned and work was being worked off: what has not begun is given up, what has, ends."""
    begin = trio.current_time()
    with trio.move_on_after(3) as scope:
        async with stage.open() as tree:
            first, second = await stage.start(tree, "a"), await stage.start(tree, "b")
            pendings = [await ref.submit(stage.Do(stage.sleep(5, ref.path))) for ref in (first, second)]
            left = await second.submit(stage.Do(stage.say("never")))
    assert scope.cancelled_caught
    assert trio.current_time() == begin + 5
    assert [await pending for pending in pendings] == ["tree/a", "tree/b"]
    with pytest.raises(ActorStopped):
        await left


@pytest.mark.scenario(37)
async def test_a_cancellation_in_the_tick_of_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The shutdown wins: no actor is started again after it."""
    with trio.move_on_after(2):
        async with stage.open() as tree:
            ref = await stage.start(tree)

            async def fail_late(_: Any) -> None:
                await trio.sleep_until(due)
                raise ValueError("x")

            due = trio.current_effective_deadline()
            await ref.tell(stage.Do(fail_late))
            await ref.tell(stage.Do(stage.say("never")))
            await trio.sleep_forever()
    assert [event.incarnation for event in stage.events if isinstance(event, ActorReady)] == [1]
    assert stage.log == []


@pytest.mark.rule("S5", "S11")
async def test_escalation_cancels_the_body(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The failure of a child that was given up leaves the tree, with its cause, as a plain exception."""
    error = ValueError("cause")
    cancelled = False
    with pytest.raises(RestartIntensityExceeded) as caught:
        async with stage.open() as tree:
            await stage.start(tree, "sibling", **stop_logged(stage, "sibling"))
            ref = await stage.start(tree, policy=NEVER)
            await ref.tell(stage.Do(stage.fail(error)))
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled = True
                raise
    assert cancelled
    assert caught.value.__cause__ is error
    assert stage.log == ["start sibling", "now sibling"]


async def test_escalation_during_the_drain(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A child that is given up while the tree drains ends the drain and leaves as the failure."""

    async def fail_late(_: Any) -> None:
        await trio.sleep(1)
        raise ValueError("x")

    begin = trio.current_time()
    with pytest.raises(RestartIntensityExceeded):
        async with stage.open() as tree:
            busy = await stage.start(tree, "busy")
            ref = await stage.start(tree, policy=NEVER)
            await ref.tell(stage.Do(fail_late))
            await ref.tell(stage.Do(stage.say("never")))
            await busy.tell(stage.Do(stage.sleep(5)))
            await busy.tell(stage.Do(stage.say("never")))
            await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == begin + 5
    assert "never" not in stage.log


async def test_a_body_that_ignores_the_escalation(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A body that swallows its cancellation does not swallow the failure."""
    with pytest.raises(RestartIntensityExceeded):
        async with stage.open() as tree:
            ref = await stage.start(tree, policy=NEVER)
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
            with trio.CancelScope(shield=True):
                await trio.sleep(5)


async def test_the_body_s_exception_wins_over_the_escalation(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The failure is a note on it: neither is lost."""
    with pytest.raises(KeyError) as caught:
        async with stage.open() as tree:
            ref = await stage.start(tree, policy=NEVER)
            await ref.tell(stage.Do(stage.fail(ValueError("cause"))))
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("body")
    assert "RestartIntensityExceeded" in caught.value.__notes__[0]


async def test_two_escalations_are_one_failure(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The first failure leaves the tree."""

    def fail_after(seconds: float) -> Any:
        async def run(_: Any) -> None:
            await trio.sleep(seconds)
            raise ValueError(seconds)

        return run

    with pytest.raises(RestartIntensityExceeded) as caught:
        async with stage.open() as tree:
            for name, seconds in (("a", 1), ("b", 2)):
                ref = await stage.start(tree, name, policy=NEVER)
                await ref.tell(stage.Do(fail_after(seconds)))
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
    assert caught.value.actor == "tree/a"
    assert len(stage.delays) == 2


@pytest.mark.rule("S5")
async def test_a_nested_supervisor_that_fails_is_restarted(
    stage: Any, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its parent restarts it with all its children, under the same refs; nobody else is touched."""
    async with stage.open() as tree:
        await stage.start(tree, "sibling", **stop_logged(stage, "sibling"))
        group = tree.start_supervisor("group")
        other = await stage.start(group, "b", **stop_logged(stage, "b"))
        ref = await stage.start(group, policy=NEVER)
        await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        await ref.tell(stage.Do(stage.say("kept in line")))
        await trio.sleep(1)
        assert stage.log == ["start sibling", "start b", "restart b", "start b", "kept in line"]
        assert await other.ask(stage.Do(stage.say("alive"))) == "alive"
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
        assert tree.snapshot().restarts == 1
    assert "tree/a" not in caplog.text


@pytest.mark.rule("S5")
async def test_a_nested_supervisor_escalates(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """If it may not be restarted it stops its own children at once and its parent fails; it starts nothing more."""
    error = ValueError("x")
    with pytest.raises(RestartIntensityExceeded, match="tree/group crashed 1 times") as caught:
        async with stage.open() as tree:
            group = tree.start_supervisor("group", policy=NEVER)
            await stage.start(group, "b", **stop_logged(stage, "b"))
            ref = await stage.start(group, policy=NEVER)
            await ref.tell(stage.Do(stage.fail(error)))
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                assert stage.log == ["start b", "now b"]
                with pytest.raises(ActorError, match="starts nothing new"):
                    group.start_supervisor("c")
            await trio.sleep_forever()
    below = caught.value.__cause__
    assert isinstance(below, RestartIntensityExceeded)
    assert (below.actor, below.__cause__) == ("tree/group/a", error)


async def test_a_tree_inside_an_actor_is_its_own(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An actor may open a tree; its failure is that actor's crash, and the outer tree lives on."""

    async def run(_: Any) -> None:
        async with stage.open() as inner:
            ref = await stage.start(inner, "inner", policy=NEVER)
            await ref.tell(stage.Do(stage.fail(ValueError("inner"))))
            await trio.sleep_forever()

    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(ActorError) as caught:
            await ref.ask(stage.Do(run))
        assert isinstance(caught.value.__cause__, RestartIntensityExceeded)
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"


@pytest.mark.rule("S5")
async def test_five_siblings_that_crash_once_each_live_on(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The budget is each child's own."""
    policy = RestartPolicy(max_restarts=1)
    async with stage.open() as tree:
        refs = [await stage.start(tree, name, policy=policy) for name in "abcde"]
        for ref in refs:
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        for ref in refs:
            assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"


async def test_a_defect_of_the_kernel_orphans_nobody(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """If the code around an actor fails, all children are stopped, all asks settled, and the defect is shown."""

    class Broken(random.Random):
        def random(self) -> float:
            raise RuntimeError("defect")

    lost: list[BaseException] = []

    async def ask(ref: Any) -> None:
        try:
            await ref.ask(stage.Do(stage.sleep(1)))
        except ActorStopped as error:
            lost.append(error)

    async def drive(outer: trio.Nursery) -> None:
        async with stage.open(rng=Broken()) as tree:
            await stage.start(tree, "sibling", **stop_logged(stage, "sibling"))
            ref = await stage.start(tree)
            await ref.tell(stage.Do(stage.fail(ValueError("x"))))
            outer.start_soon(ask, ref)
            await trio.sleep_forever()

    async with trio.open_nursery() as outer:
        with pytest.raises(RuntimeError, match="defect"):
            await drive(outer)
    assert len(lost) == 1
    assert stage.log == ["start sibling", "now sibling"]
    assert [event for event in stage.events if isinstance(event, ActorEnded)] == [
        ActorEnded("tree/a", 1, failed=True),
        ActorEnded("tree/sibling", 1, failed=False),
    ]


@pytest.mark.parametrize(
    ("body", "broken", "failure", "leaves", "noted"),
    [
        (None, None, None, None, 0),
        ("error", None, None, "body", 0),
        (None, "error", None, "broken", 0),
        (None, None, "error", "failure", 0),
        ("error", "error", "error", "body", 2),
        ("error", "interrupt", "error", "broken", 2),
        ("cancelled", "error", None, "broken", 0),
        ("cancelled", None, "error", "body", 1),
        (None, "error", "error", "broken", 1),
    ],
)
async def test_which_exception_leaves(
    body: str | None, broken: str | None, failure: str | None, leaves: str | None, noted: int
) -> None:
    """Interrupts first, then the body's own, then a defect, then what was escalated; the rest are notes."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as error:
            cancelled = error
            raise
    kinds: dict[str | None, Any] = {
        None: lambda: None,
        "error": ValueError,
        "interrupt": KeyboardInterrupt,
        "cancelled": lambda: cancelled,
    }
    errors = {"body": kinds[body](), "broken": kinds[broken](), "failure": kinds[failure](), None: None}
    left = _what_leaves(errors["body"], errors["broken"], errors["failure"])
    assert left is errors[leaves]
    assert len(getattr(left, "__notes__", ())) == noted


# --- Ctrl-C -------------------------------------------------------------------------------------------------


async def strike_at(seconds: float) -> None:
    """Press Ctrl-C; in a system task, which is protected, so that it reaches the main task."""
    await trio.sleep(seconds)
    signal.raise_signal(signal.SIGINT)


@pytest.mark.rule("N2", "D3")
@pytest.mark.parametrize("moment", ["body", "start", "drain"])
@pytest.mark.usefixtures("default_sigint")
def test_ctrl_c_stops_the_tree_in_order(stage: Any, moment: str) -> None:
    """A SIGINT while the body waits, while a child starts or while the tree drains: stopped, then raised."""

    async def main() -> None:
        trio.lowlevel.spawn_system_task(strike_at, 1)
        async with stage.open() as tree:
            await stage.start(tree, "a", **stop_logged(stage, "a"))
            if moment == "start":
                await stage.start(tree, "b", starting=stage.sleep(1000))
            elif moment == "body":
                await trio.sleep(1000)
            else:
                await stage.start(tree, "b", draining=stage.sleep(2, "drain"))

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert stage.log[-1] == "now a"
    if moment == "drain":
        assert ("end", "drain") in stage.log


@pytest.mark.rule("D3")
@pytest.mark.usefixtures("default_sigint")
def test_a_second_ctrl_c_kills(stage: Any) -> None:
    """While the tree stops in order, one more SIGINT kills what still runs, at once."""
    times: list[float] = []

    async def main() -> None:
        begin = trio.current_time()
        trio.lowlevel.spawn_system_task(strike_at, 1)
        trio.lowlevel.spawn_system_task(strike_at, 2)
        try:
            async with stage.open(grace=1000) as tree:
                for name in "ab":
                    ref = await stage.start(tree, name, stop_timeout=1000, **stop_logged(stage, name))
                    await ref.tell(stage.Do(stage.sleep(500, name)))
                group = tree.start_supervisor("group")
                group.on_stopped(lambda: stage.log.append("called back"))
                await stage.start(group, stop_timeout=1000, draining=stage.sleep(500))
                await trio.sleep_forever()
        finally:
            times.append(trio.current_time() - begin)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert times == [2]
    assert {("cancelled", name) for name in ("a", "b", None)} <= set(stage.log)
    assert {"kill a", "kill b", "called back"} <= set(stage.log)
