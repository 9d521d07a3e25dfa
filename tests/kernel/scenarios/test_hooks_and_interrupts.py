"""What happens when users' own functions raise, and when Ctrl-C strikes."""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, Unhandled
from tinker_actors.kernel import ActorReady, Coalesce, KernelEvent, open_supervisor
from tinker_actors.kernel.outcome import Outcome

Main = Callable[[], Awaitable[None]]


def boom(*_: Any) -> Any:
    raise ValueError("a user's function failed")


def leaves(error: BaseException) -> list[BaseException]:
    """Return what is in an exception group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in leaves(part)]
    return [error]


def run(main: Main) -> None:
    """Run a whole program in virtual time."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# --- hooks that raise ------------------------------------------------------------------------------------


@pytest.mark.scenario(35)
@pytest.mark.rule("O2")
async def test_a_failing_observer_is_logged_and_reaches_no_actor(stage: Any, caplog: Any) -> None:
    """An observer that raises on everything, single messages included, changes nothing for actors and callers."""
    async with stage.open(observer=boom, trace_messages=True) as tree:
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(stage.say(1))) == 1
        with pytest.raises(Unhandled):
            await ref.ask(stage.Strange(stage.say(2)))
        assert ref.statistics().handled == 1
        assert tree.snapshot().children[0].incarnation == 1
    assert caplog.text.count("the observer failed on ActorReady") == 1
    assert caplog.text.count("the observer failed on DeadLetter") == 1
    assert "a user's function failed" in caplog.text


@pytest.mark.scenario(35)
@pytest.mark.rule("O3")
async def test_a_failing_subscriber_of_dead_letters_is_logged_and_the_next_one_is_told(
    stage: Any, caplog: Any
) -> None:
    """A subscriber that raises keeps the letter neither from the others nor from the books."""
    heard: list[str] = []
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with tree.dead_letters.subscribe(boom), tree.dead_letters.subscribe(lambda x: heard.append(x.reason)):
            with pytest.raises(Unhandled):
                await ref.ask(stage.Strange(stage.say(1)))
            assert await ref.ask(stage.Do(stage.say(2))) == 2
        assert tree.dead_letters.counts == {"unhandled": 1}
    assert heard == ["unhandled"]
    assert caplog.text.count("a subscriber of dead letters failed") == 1


@pytest.mark.scenario(35)
@pytest.mark.rule("M1")
async def test_a_failing_size_of_is_logged_and_the_message_counts_for_nothing(
    stage: Any, caplog: Any
) -> None:
    """A message whose size cannot be told is admitted, in a mailbox that is full of bytes as well."""
    async with stage.open() as tree:
        ref = await stage.start(tree, max_bytes=1, size_of=boom)
        pendings = [await ref.submit(stage.Do(stage.say(number))) for number in range(3)]
        assert ref.statistics().queued_bytes == 0
        assert [await pending for pending in pendings] == [0, 1, 2]
    assert caplog.text.count("size_of failed on Do") == 3


@pytest.mark.scenario(35)
@pytest.mark.rule("M5")
async def test_a_failing_key_is_logged_and_the_message_is_not_coalesced(stage: Any, caplog: Any) -> None:
    """Messages whose key cannot be told all stay in line."""
    async with stage.open() as tree:
        ref = await stage.start(tree, overflow=Coalesce(boom))
        for number in range(3):
            ref.tell_nowait(stage.Do(stage.say(number)))
    assert stage.log == [0, 1, 2]
    assert "the key of Do failed" in caplog.text


@pytest.mark.scenario(35)
@pytest.mark.rule("D1")
async def test_a_failing_on_undelivered_is_logged_and_the_stop_goes_on(
    stage: Any, caplog: Any, autojump_clock: trio.testing.MockClock
) -> None:
    """`on_stop` still runs, watchers hear of a good end, and the messages are dead letters all the same."""
    given: list[int] = []

    class Careless(stage.PuppetActor):
        async def on_undelivered(self, messages: Any) -> None:
            given.append(len(messages))
            await trio.lowlevel.checkpoint()
            boom()

        async def on_stop(self, ending: Any) -> None:
            await trio.lowlevel.checkpoint()
            stage.log.append(ending)

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=Careless)
        ref.tell_nowait(stage.Do(stage.sleep(1)))
        await trio.testing.wait_all_tasks_blocked()
        ref.tell_nowait(stage.Do(stage.say("never")))
        await ref.stop("now")
        assert (await ref.wait_stopped()).reason == "stopped"
        assert tree.dead_letters.counts == {"stopped": 1}
    assert given == [1]
    assert stage.log == [("begin", None), ("end", None), "now"]
    assert caplog.text.count("on_undelivered failed") == 1


# --- interrupts ------------------------------------------------------------------------------------------


@pytest.mark.scenario(36)
@pytest.mark.rule("N2")
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_a_handler_leaves_once_and_settles_everything(
    stage: Any, interrupt: type[BaseException]
) -> None:
    """Callers of the message in hand and of the one in line get `ActorStopped`; nothing is restarted."""
    errors: list[ActorStopped] = []

    async def caller(ref: Any, message: Any) -> None:
        with pytest.raises(ActorStopped) as caught:
            await ref.ask(message)
        errors.append(caught.value)

    async def main() -> None:
        async with trio.open_nursery() as callers, stage.open() as tree:
            ref, other = await stage.start(tree, "a"), await stage.start(tree, "b")
            callers.start_soon(caller, other, stage.Do(stage.sleep(1000)))
            await trio.testing.wait_all_tasks_blocked()
            callers.start_soon(caller, other, stage.Do(stage.say("never")))
            await trio.testing.wait_all_tasks_blocked()
            callers.start_soon(caller, ref, stage.Do(stage.fail(interrupt("strikes"))))
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert [(type(leaf), leaf.args) for leaf in leaves(caught.value)] == [(interrupt, ("strikes",))]
    assert sorted((error.actor, error.started) for error in errors) == [
        ("tree/a", True),
        ("tree/b", False),
        ("tree/b", True),
    ]
    assert [event.incarnation for event in stage.events if isinstance(event, ActorReady)] == [1, 1]
    assert stage.delays == []


@pytest.mark.scenario(36)
@pytest.mark.rule("N2")
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("incarnation", [1, 2])
def test_an_interrupt_in_on_start_leaves_once(
    stage: Any, interrupt: type[BaseException], incarnation: int
) -> None:
    """In a first start as in a restart: no further start, the ask in line is settled, and it leaves as it is."""
    starts: list[int] = []
    errors: list[ActorStopped] = []

    async def strike(actor: Any) -> None:
        await trio.lowlevel.checkpoint()
        starts.append(actor.context.incarnation)
        if actor.context.incarnation == incarnation:
            raise interrupt("strikes")

    async def caller(ref: Any) -> None:
        with pytest.raises(ActorStopped) as caught:
            await ref.ask(stage.Do(stage.say("never")))
        errors.append(caught.value)

    async def main() -> None:
        async with trio.open_nursery() as callers:
            with pytest.raises(interrupt, match="strikes"):
                async with stage.open() as tree:
                    ref = await stage.start(tree, starting=strike)
                    ref.tell_nowait(stage.Do(stage.fail(ValueError())))
                    callers.start_soon(caller, ref)
                    await trio.sleep_forever()
            stage.log.append("left once")

    run(main)
    assert stage.log == ["left once"]
    assert starts == list(range(1, incarnation + 1))
    assert [error.started for error in errors] == [False] * (incarnation - 1)


@pytest.mark.scenario(36)
@pytest.mark.rule("N2", "A2")
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_out_of_the_observer_of_a_settlement_leaves_once(
    interrupt: type[BaseException], stage: Any
) -> None:
    """The message that was just being settled has an outcome, whatever it is, and nothing is restarted."""
    ends: list[Any] = []

    def observe(event: KernelEvent) -> None:
        stage.events.append(event)
        if type(event).__name__ == "MessageSettled" and interrupt is not None:
            raise interrupt("strikes")

    async def caller(ref: Any) -> None:
        try:
            ends.append(await ref.ask(stage.Do(stage.say("reply"))))
        except ActorStopped as error:
            ends.append(error.started)

    async def main() -> None:
        async with trio.open_nursery() as callers:
            with pytest.raises(interrupt, match="strikes"):
                async with open_supervisor(
                    "tree", rng=random.Random(0), observer=observe, trace_messages=True
                ) as tree:
                    ref = await stage.start(tree)
                    callers.start_soon(caller, ref)
                    await trio.sleep_forever()
            stage.log.append("left once")

    run(main)
    assert stage.log == ["reply", "left once"]
    assert ends in (["reply"], [True])
    assert sum(isinstance(event, ActorReady) for event in stage.events) == 1


@pytest.fixture
def strike_in_settlement(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Send SIGINT between the steps of the first settlement."""
    strikes: list[int] = []
    close = Outcome._close

    @trio.lowlevel.enable_ki_protection
    def striking(self: Any, value: Any, error: Any) -> bool:
        if value == "reply" and not strikes:
            strikes.append(1)
            signal.raise_signal(signal.SIGINT)
        return close(self, value, error)

    monkeypatch.setattr(Outcome, "_close", striking)
    yield strikes
    assert strikes == [1]


@pytest.mark.scenario(36)
@pytest.mark.rule("N8", "N2")
def test_ctrl_c_in_the_middle_of_a_settlement_waits_until_it_is_done(
    stage: Any, default_sigint: None, strike_in_settlement: list[int]
) -> None:
    """A real SIGINT between two steps of a settlement: the caller has its value, and the run ends once."""
    replies: list[Any] = []

    async def caller(ref: Any) -> None:
        replies.append(await ref.ask(stage.Do(stage.say("reply"))))

    async def main() -> None:
        async with trio.open_nursery() as callers, stage.open() as tree:
            callers.start_soon(caller, await stage.start(tree))
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        run(main)
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyboardInterrupt]
    assert replies == ["reply"]
    assert sum(isinstance(event, ActorReady) for event in stage.events) == 1
