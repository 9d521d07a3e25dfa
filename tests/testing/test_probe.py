from __future__ import annotations

from typing import Any

import pytest
import trio

from tinker_actors.errors import ActorStopped, InFlightLost, InputError
from tinker_actors.kernel import ChildSpec, Down, Message, PoolSpec, start_pool
from tinker_actors.testing import Probe, open_test_system


@pytest.mark.rule("T2")
async def test_messages_of_any_type_are_recorded(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A probe takes whatever comes, in order, and `expect` gives it message by message."""
    async with open_test_system() as system:
        probe = await system.probe()
        await probe.ref.tell(cast.Add(1))
        await probe.ref.tell(cast.Strange())
        assert (await probe.expect(cast.Add)).amount == 1
        await probe.expect(cast.Strange)
        assert probe.received == [cast.Add(1), cast.Strange()]


@pytest.mark.rule("T2")
async def test_expect_names_what_came_instead(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Another message, no message after some, no message at all: each is told."""
    async with open_test_system() as system:
        probe = await system.probe("p")
        begin = trio.current_time()
        with pytest.raises(AssertionError, match=r"p got no Add within 2.0 s; it has got no message at all"):
            await probe.expect(cast.Add, within=2.0)
        assert trio.current_time() == begin + 2.0
        await probe.ref.tell(cast.Strange())
        with pytest.raises(AssertionError, match=r"p expected Add and got Strange\(\)"):
            await probe.expect(cast.Add)
        with pytest.raises(
            AssertionError, match=r"p got no Message within 1.0 s; the last .* was Strange\(\)"
        ):
            await probe.expect(Message)


async def test_expect_waits_no_longer_than_it_must(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It returns when the message comes."""
    async with open_test_system() as system, trio.open_nursery() as nursery:
        probe = await system.probe()

        async def send() -> None:
            await trio.sleep(3)
            await probe.ref.tell(cast.Add(1))

        nursery.start_soon(send)
        begin = trio.current_time()
        await probe.expect(cast.Add, within=10)
        assert trio.current_time() == begin + 3


@pytest.mark.rule("T2")
async def test_expect_none(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It takes its time if nothing comes, and fails for what comes or has come."""
    async with open_test_system() as system, trio.open_nursery() as nursery:
        probe = await system.probe()
        begin = trio.current_time()
        await probe.expect_none(within=5)
        assert trio.current_time() == begin + 5
        nursery.start_soon(probe.ref.tell, cast.Add(1))
        with pytest.raises(AssertionError, match=r"expected no message and got Add\(amount=1\)"):
            await probe.expect_none()
        await probe.expect_none()


@pytest.mark.rule("T2")
async def test_fish_passes_over_the_others(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It gives the first message that pleases, or names all that did not; its time is for all of them together."""
    async with open_test_system() as system:
        probe = await system.probe()
        for amount in (1, 2, 3):
            await probe.ref.tell(cast.Add(amount))
        assert await probe.fish(lambda message: message.amount == 2) == cast.Add(2)
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await trio.sleep(3)
                await probe.ref.tell(cast.Add(4))

            nursery.start_soon(send)
            what = r"fished for 5 s and got Add\(amount=3\), Add\(amount=4\)$"
            with pytest.raises(AssertionError, match=what):
                await probe.fish(lambda message: message.amount == 2, within=5)
        assert trio.current_time() == begin + 5
        with pytest.raises(AssertionError, match="got no message"):
            await probe.fish(bool)


@pytest.mark.rule("T2")
async def test_replies_by_script(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Replies come in their order, the last for good; an exception among them reaches the caller as it is."""
    async with open_test_system() as system:
        probe = await system.probe()
        probe.reply_with(cast.Add, 1, ValueError("no"), 3)
        assert await probe.ref.ask(cast.Add()) == 1
        with pytest.raises(ValueError, match="no"):
            await probe.ref.ask(cast.Add())
        assert [await probe.ref.ask(cast.Add()) for _ in range(2)] == [3, 3]
        probe.reply_with(cast.Add, None)
        assert await probe.ref.ask(cast.Add()) is None
        assert probe.unanswered == ()
        with pytest.raises(InputError, match="at least one"):
            probe.reply_with(cast.Add)


@pytest.mark.rule("T2")
async def test_replies_by_function(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A function makes the reply, async or not, and may raise; the probe lives on."""
    async with open_test_system() as system:
        probe = await system.probe()
        probe.handle_with(cast.Add, lambda message: message.amount + 1)

        async def sleep(message: Any) -> str:
            await trio.sleep(message.seconds)
            return "slept well"

        def throw(message: Any) -> None:
            raise message.error

        probe.handle_with(cast.Nap, sleep)
        probe.handle_with(cast.Throw, throw)
        assert await probe.ref.ask(cast.Add(4)) == 5
        assert await probe.ref.ask(cast.Nap(60)) == "slept well"
        with pytest.raises(KeyError):
            await probe.ref.ask(cast.Throw(KeyError()))
        assert await probe.ref.ask(cast.Add(5)) == 6


@pytest.mark.rule("T2")
async def test_the_test_answers_later(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """An ask without script waits for the test, however many others come before its answer."""
    async with open_test_system() as system:
        probe = await system.probe()
        add = await probe.ref.submit(cast.Add(1))
        nap = await probe.ref.submit(cast.Nap(1))
        await probe.ref.tell(cast.Strange())
        await trio.testing.wait_all_tasks_blocked()
        assert probe.unanswered == (cast.Add(1), cast.Nap(1))
        assert probe.fail(await probe.fish(lambda m: isinstance(m, cast.Nap)), ValueError("tired"))
        with pytest.raises(ValueError, match="tired"):
            await nap
        assert not add.settled
        assert probe.reply(probe.received[0], 7)
        assert await add == 7
        assert probe.unanswered == ()
        with pytest.raises(ValueError, match=r"Add\(amount=1\) does not wait .* no message does"):
            probe.reply(probe.received[0], 8)
        with pytest.raises(ValueError, match=r"Strange\(\) does not wait"):
            probe.reply(probe.received[2], None)


async def test_equal_messages_are_told_apart(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The reply goes to the message that it names, not to one like it; of one object sent twice, to the older."""
    async with open_test_system() as system:
        probe = await system.probe()
        first, second = await probe.ref.submit(cast.Add()), await probe.ref.submit(cast.Add())
        await probe.expect(cast.Add)
        probe.reply(await probe.expect(cast.Add), 2)
        assert await second == 2
        assert not first.settled
        probe.reply(probe.received[0], 1)
        assert await first == 1
        same = cast.Add()
        older, newer = await probe.ref.submit(same), await probe.ref.submit(same)
        await probe.fish(lambda message: message is same)
        probe.reply(same, 1)
        assert await older == 1
        await trio.testing.wait_all_tasks_blocked()
        probe.reply(same, 2)
        assert await newer == 2


async def test_an_answer_too_late_is_told(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Who answers when nobody waits hears of it, and it is a dead letter; such an ask is unanswered no more."""
    async with open_test_system() as system:
        probe = await system.probe()
        with trio.move_on_after(1):
            await probe.ref.ask(cast.Add())
        await trio.testing.wait_all_tasks_blocked()
        assert probe.unanswered == ()
        assert not probe.reply(probe.received[0], 1)
        assert [letter.reason for letter in system.take_dead_letters()] == ["late_reply"]


async def test_what_is_unanswered_at_the_end_is_lost(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A probe that is stopped leaves nobody waiting."""
    async with open_test_system() as system:
        probe = await system.probe()
        pending = await probe.ref.submit(cast.Add())
        await probe.expect(cast.Add)
        await probe.ref.stop()
        with pytest.raises(InFlightLost):
            await pending
        assert probe.unanswered == ()


async def test_a_probe_watches(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The `Down` of an actor is received like a message."""
    async with open_test_system() as system:
        probe = await system.probe()
        ref = await system.start(cast.CounterActor)
        probe.watch(ref)
        await ref.stop()
        assert (await probe.expect(Down)).path == ref.path


async def test_a_probe_in_a_tree_of_ones_own(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It can be made before its tree, with settings; before it is started it has no address."""
    probe = Probe("mine")
    with pytest.raises(RuntimeError, match=r"await probe\.start"):
        probe.ref  # noqa: B018 - reading it is the test
    with pytest.raises(RuntimeError, match=r"await probe\.start"):
        probe.watch(None)
    async with open_test_system() as system:
        assert await probe.start(system.root, capacity=2) is probe.ref
        assert probe.ref.path == "test/mine"
        assert probe.ref.statistics().capacity == 2
        assert repr(probe) == "<Probe mine: 0 received>"


async def test_a_probe_as_a_pool(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Its factory makes as many actors as are wanted, and all report to it and answer for themselves."""
    async with open_test_system() as system:
        probe = Probe()
        pool = await start_pool(system.root, PoolSpec(name="pool", workers=3), probe.factory)
        pendings = [await pool.ref.submit(cast.Add(number)) for number in range(6)]
        for number in range(6):
            message = await probe.expect(cast.Add)
            probe.reply(message, 10 * message.amount)
            assert message.amount == number
        assert [await pending for pending in pendings] == [0, 10, 20, 30, 40, 50]


async def test_a_probe_can_be_stopped_and_started_again(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """It ends like any actor, and what comes then is refused; its scripts are there for the next one it makes."""
    async with open_test_system() as system:
        probe = await system.probe()
        probe.reply_with(cast.Add, 1)
        await probe.ref.stop()
        with pytest.raises(ActorStopped):
            await probe.ref.ask(cast.Add())
        await system.start(ChildSpec(name="probe", factory=probe.factory))
        assert await probe.ref.ask(cast.Add()) == 1
