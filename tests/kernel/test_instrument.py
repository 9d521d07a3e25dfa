from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tinker_actors.kernel import ActorCrashed, ActorEnded, ActorReady


@pytest.mark.rule("S11")
async def test_an_observer_hears_a_life_in_order(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Ready, the message that was lost, crashed with cause and delay, ready again, ended."""
    error = ValueError("x")
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.fail(error)))
        await ref.ask(stage.Do(stage.say(1)))
    ready, lost, crashed, again, ended = stage.events
    assert (lost.actor, lost.reason, lost.kind, lost.seq) == ("tree/a", "crashed", "Do", 0)
    assert (ready, again) == (ActorReady("tree/a", 1), ActorReady("tree/a", 2))
    assert (crashed.actor, crashed.incarnation, crashed.cause) == ("tree/a", 1, error)
    assert crashed.delay is not None
    assert ended == ActorEnded("tree/a", 2, failed=False)


async def test_a_failed_start_is_a_crash_without_a_return(stage: Any) -> None:
    """Observers hear of starts that failed, too."""
    async with stage.open() as tree:
        with pytest.raises(Exception, match="did not start"):
            await stage.start(tree, starting=stage.fail(ValueError("x")))
    crashed, ended = stage.events
    assert isinstance(crashed, ActorCrashed)
    assert crashed.delay is None
    assert ended == ActorEnded("tree/a", 1, failed=True)


@pytest.mark.rule("O2")
async def test_an_observer_that_fails_is_isolated(
    stage: Any, autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its exceptions are logged and reach neither actor nor supervisor."""

    def broken(event: object) -> None:
        raise RuntimeError("observer")

    async with stage.open(observer=broken) as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.fail(ValueError("x"))))
        assert await ref.ask(stage.Do(stage.say(1))) == 1
    failures = [record for record in caplog.records if "observer failed" in record.message]
    assert len(failures) == 5


async def test_no_observer_is_needed(stage: Any) -> None:
    """Without one, nothing is told."""
    async with stage.open(observer=None) as tree:
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(stage.say(1))) == 1
    assert stage.events == []


def test_events_are_frozen() -> None:
    """An observer cannot change what another one hears."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        ActorReady("a", 1).actor = "b"
