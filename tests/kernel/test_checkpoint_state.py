"""What an actor keeps for its next incarnation."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed
from tinker_actors.kernel import Backoff, RestartPolicy, Stop

QUICK = RestartPolicy(backoff=Backoff(base=1.0, maximum=1.0, jitter=0.0), max_restarts=9)


def keep(value: Any) -> Any:
    async def run(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        actor.context.checkpoint = value

    return run


async def kept(actor: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return actor.context.checkpoint


async def test_nothing_is_kept_at_first(stage: Any) -> None:
    """Before anything was put there it is None."""
    async with stage.open() as tree:
        assert await (await stage.start(tree)).ask(stage.Do(kept)) is None


async def test_it_survives_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The very object is there when `on_start` of the next incarnation runs, and in all after it."""
    state = {"step": 7}

    async def starting(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        stage.log.append((actor.context.incarnation, actor.context.checkpoint))

    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK, starting=starting)
        await ref.ask(stage.Do(keep(state)))
        for _ in range(2):
            with pytest.raises(HandlerCrashed):
                await ref.ask(stage.Do(stage.fail(ValueError())))
        assert await ref.ask(stage.Do(kept)) is state
    assert stage.log == [(1, None), (2, state), (3, state)]


async def test_it_survives_other_ends(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A `Stop`, and a restart of the whole group, as well."""

    async def bye(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return Stop(None)

    async with stage.open(strategy="one_for_all") as tree:
        ref = await stage.start(tree, policy=QUICK)
        other = await stage.start(tree, "b", policy=QUICK)
        await ref.ask(stage.Do(keep("kept")))
        await ref.ask(stage.Do(bye))
        assert await ref.ask(stage.Do(kept)) == "kept"
        with pytest.raises(HandlerCrashed):
            await other.ask(stage.Do(stage.fail(ValueError())))
        await trio.sleep(5)
        assert await ref.ask(stage.Do(kept)) == "kept"
        assert await other.ask(stage.Do(kept)) is None


async def test_what_on_stop_keeps_is_kept(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The last thing an incarnation does may be to leave something for the next one."""

    async def stopping(actor: Any, ending: str) -> None:
        await trio.lowlevel.checkpoint()
        actor.context.checkpoint = ending

    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK, stopping=stopping)
        with pytest.raises(HandlerCrashed):
            await ref.ask(stage.Do(stage.fail(ValueError())))
        assert await ref.ask(stage.Do(kept)) == "crash"


async def test_an_actor_of_the_same_name_starts_from_nothing(stage: Any) -> None:
    """What was kept belongs to the actor that was stopped, not to its name."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.ask(stage.Do(keep("old")))
        await ref.stop()
        assert await (await stage.start(tree)).ask(stage.Do(kept)) is None
