"""Clean-up that raises, that raises while it is being cancelled, and that hangs."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed, InFlightLost
from tinker_actors.kernel import ActorReady, ActorStuck, Backoff, Down, Intensity, RestartPolicy

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=8.0, jitter=0.0))
BOUND = 3.0
"""The `cleanup_timeout` of all actors here."""


def lives(stage: Any) -> list[int]:
    return [event.incarnation for event in stage.events if isinstance(event, ActorReady)]


def traces(caplog: pytest.LogCaptureFixture, error: BaseException) -> list[str]:
    """Return what was logged with the traceback of an error."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.exc_info is not None and record.exc_info[1] is error
    ]


async def raise_in_clean_up(error: Exception) -> None:
    """Sleep until cancelled, and raise then."""
    try:
        await trio.sleep_forever()
    finally:
        raise error


@pytest.mark.scenario(34)
@pytest.mark.rule("C5", "C8", "D1", "S4")
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_on_stop_raises(
    stage: Any, books: Any, mode: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """It is logged once with its traceback; the permanent actor has stopped in good order, and stays so."""
    error = RuntimeError("on_stop")

    async def stop(*_: Any) -> None:
        await trio.sleep(1)
        raise error

    async with stage.open() as tree:
        ref = await books.start(tree, stopping=stop, cleanup_timeout=BOUND)
        assert await ref.ask(stage.Do(stage.say("handled"))) == "handled"
        await ref.stop(mode)
        assert trio.current_time() == 1.0
        assert await ref.wait_stopped() == Down("tree/a", "stopped")
        await trio.sleep(100)
        assert tree.snapshot().restarts == 0
    assert traces(caplog, error) == ["tree/a: on_stop failed"]
    assert (lives(stage), stage.delays) == ([1], [])
    assert books.counts(ref) == {"admitted": 1, "handled": 1}


@pytest.mark.scenario(34)
@pytest.mark.rule("C8", "D1", "A2", "S4")
@pytest.mark.parametrize("both", [False, True])
async def test_clean_up_raises_while_it_is_being_cancelled(
    stage: Any, books: Any, both: bool, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """A handler that is killed, its task beside it and `on_stop` raise: all is logged, and nothing is restarted."""
    error, other, third = RuntimeError("handler"), RuntimeError("beside"), RuntimeError("on_stop")

    async def run(actor: Any) -> None:
        if both:
            actor.context.spawn(raise_in_clean_up, other)
        await raise_in_clean_up(error)

    async with stage.open() as tree:
        ref = await books.start(
            tree, stopping=lambda *_: stage.fail(third)(None), cleanup_timeout=BOUND, policy=QUICK
        )
        pending = await ref.submit(stage.Do(run))
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop("kill")
        assert trio.current_time() == 0.0
        down = await ref.wait_stopped()
        assert (down.path, down.reason) == ("tree/a", "stopped")
        with pytest.raises(InFlightLost) as lost:
            await pending
        assert lost.value.started is True
        await trio.sleep(100)
        assert tree.snapshot().restarts == 0
    assert traces(caplog, third) == ["tree/a: on_stop failed"]
    [crash] = [
        record for record in caplog.records if "tree/a#1 crashed, not restarted" in record.getMessage()
    ]
    assert crash.exc_info is not None
    logged = crash.exc_info[1]
    assert logged is error or (both and set(getattr(logged, "exceptions", ())) == {error, other})
    assert (lives(stage), stage.delays) == ([1], [None])
    assert books.counts(ref) == {"admitted": 1, "failed": 1}


@pytest.mark.scenario(34)
@pytest.mark.rule("C5", "C8", "D1")
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
@pytest.mark.parametrize("how", ["hangs", "raises when time is up"])
async def test_on_stop_hangs(
    stage: Any,
    books: Any,
    how: str,
    mode: str,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.abc.Clock,
) -> None:
    """It is cancelled after `cleanup_timeout`, and logged; the stop needs exactly that long."""
    error = RuntimeError("time is up")

    async def stop(*_: Any) -> None:
        if how == "hangs":
            await trio.sleep_forever()
        await raise_in_clean_up(error)

    async with stage.open() as tree:
        ref = await books.start(tree, stopping=stop, cleanup_timeout=BOUND)
        await ref.stop(mode)
        assert trio.current_time() == BOUND
        assert await ref.wait_stopped() == Down("tree/a", "stopped")
        await trio.sleep(100)
    if how == "hangs":
        late = f"tree/a: on_stop did not end within {BOUND} s"
        assert [record.getMessage() for record in caplog.records] == [late]
    else:
        assert traces(caplog, error) == ["tree/a: on_stop failed"]
    assert (lives(stage), stage.delays) == ([1], [])


@pytest.mark.scenario(34)
@pytest.mark.rule("C5", "C6", "C8")
async def test_clean_up_that_does_not_hear_of_its_cancellation(
    stage: Any, books: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """What shields itself for longer is reported as stuck and left behind; siblings stop in their turn."""

    async def stop(*_: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(50)

    async with stage.open() as tree:
        sibling = await books.start(tree, "b")
        ref = await books.start(tree, stopping=stop, cleanup_timeout=BOUND)
        await tree.stop_child("a", "now", timeout=1)
        assert trio.current_time() == 1.0 + 2 * BOUND
        assert await ref.wait_stopped() == Down("tree/a", "stuck")
        assert await sibling.ask(stage.Do(stage.say("alive"))) == "alive"
        await tree.stop_child("b")
        assert trio.current_time() == 1.0 + 2 * BOUND
    [stuck] = [event for event in stage.events if isinstance(event, ActorStuck)]
    assert (stuck.actor, stuck.incarnation) == ("tree/a", 1)
    assert "trio.sleep(50)" in stuck.stack
    assert "tree/a#1 is stuck" in caplog.text
    assert lives(stage) == [1, 1]


@pytest.mark.scenario(34)
@pytest.mark.rule("C5", "C8", "S2", "S11")
@pytest.mark.parametrize("how", ["raises", "hangs"])
async def test_clean_up_after_a_crash_does_not_change_the_restart(
    stage: Any, books: Any, how: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """The crash counts once, with its own cause; the failure of `on_stop` is logged beside it."""
    error = RuntimeError("on_stop")

    async def stop(_: Any, ending: str) -> None:
        if ending == "crash":
            await (stage.fail(error) if how == "raises" else stage.sleep(1000))(None)

    async with stage.open(intensity=Intensity(max_restarts=1)) as tree:
        ref = await books.start(tree, stopping=stop, cleanup_timeout=BOUND, policy=QUICK)
        with pytest.raises(HandlerCrashed) as caught:
            await ref.ask(stage.Do(stage.fail(ValueError("crash"))))
        assert str(caught.value.__cause__) == "crash"
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
        assert trio.current_time() == 1.0 + (BOUND if how == "hangs" else 0.0)
        assert tree.snapshot().restarts == 1
    assert len(traces(caplog, error)) == (how == "raises")
    assert (lives(stage), stage.delays) == ([1, 2], [1.0])
    assert books.counts(ref) == {"admitted": 2, "handled": 1, "failed": 1}


@pytest.mark.scenario(34)
@pytest.mark.rule("C5", "C8", "D3", "S1")
async def test_a_tree_whose_clean_up_fails_everywhere_is_left_in_time(
    stage: Any, books: Any, caplog: pytest.LogCaptureFixture, autojump_clock: trio.abc.Clock
) -> None:
    """Hooks that raise and hang cost each actor its `cleanup_timeout` at most, and nothing leaves the tree."""
    error = RuntimeError("on_stop")
    hooks = {"a": stage.sleep(1000), "b": stage.fail(error), "c": stage.sleep(1000)}
    async with stage.open(grace=100) as tree:
        for name, hook in hooks.items():
            await books.start(tree, name, stopping=lambda *_, hook=hook: hook(None), cleanup_timeout=BOUND)
    assert trio.current_time() == 2 * BOUND
    assert [record.getMessage() for record in caplog.records] == [
        f"tree/c: on_stop did not end within {BOUND} s",
        "tree/b: on_stop failed",
        f"tree/a: on_stop did not end within {BOUND} s",
    ]
    assert all(ref.stopped for ref in books.refs)
