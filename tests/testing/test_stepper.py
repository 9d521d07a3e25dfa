from __future__ import annotations

from typing import Any

import pytest
import trio

from tinker_actors.errors import HandlerCrashed, InputError
from tinker_actors.kernel import Actor, ChildSpec, MessageStarted, handles
from tinker_actors.testing import Step, Stepper, open_test_system


@pytest.mark.rule("T2")
async def test_one_message_per_step(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Without a step nothing is begun; a step handles the next message in line, tells how it ended, and no more."""
    async with open_test_system() as system, system.stepping(cast.CounterActor) as (ref, step):
        first, second = await ref.submit(cast.Add(1)), await ref.submit(cast.Add(2))
        await trio.sleep(100)
        assert not any(isinstance(event, MessageStarted) for event in system.events)
        assert await step() == Step(cast.Add(1), "replied", reply=1)
        assert (first.settled, second.settled) == (True, False)
        assert ref.statistics().handled == 1
        await trio.sleep(100)
        assert not second.settled
        assert (await step()).reply == 3
        assert await second == 3


@pytest.mark.rule("T2")
async def test_a_step_tells_how_the_handler_ended(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Declared error, crash, cancellation, token, and `Stop` are told apart; a restart is waited for."""
    spec = ChildSpec(name="a", factory=cast.CounterActor, policy=cast.steady)
    async with open_test_system(allow_dead_letters={"failed", "crashed", "lost"}) as system:
        async with system.stepping(spec) as (ref, step), trio.open_nursery() as nursery:
            declared, crash = cast.Declared(), KeyError("x")
            await ref.tell(cast.Throw(declared))
            assert await step() == Step(cast.Throw(declared), "raised", error=declared)
            await ref.tell(cast.Throw(crash))
            assert (await step()).error is crash
            await ref.tell(cast.Detach())
            begin = trio.current_time()
            assert (await step()).end == "detached"
            assert trio.current_time() == begin + 10  # the backoff
            with trio.move_on_after(2):
                nursery.start_soon(step)
                await ref.ask(cast.Nap(60))
            await ref.tell(cast.Nap(60))
            steps: list[Step] = []
            nursery.start_soon(note, steps, step)
            await trio.testing.wait_all_tasks_blocked()
            await ref.stop("kill")
        assert steps == [Step(cast.Nap(60), "cancelled")]


async def note(steps: list[Step], step: Stepper) -> None:
    """Make a step and note what it was."""
    steps.append(await step())


async def test_a_caller_that_leaves_ends_the_step(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The step is over when the handler was cancelled; the next one handles the next message."""
    async with open_test_system() as system, system.stepping(cast.CounterActor) as (ref, step):
        steps: list[Step] = []

        async def ask() -> None:
            with trio.move_on_after(2):
                await ref.ask(cast.Nap(60))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            steps.append(await step())
        await ref.tell(cast.Add())
        steps.append(await step())
        assert [one.end for one in steps] == ["cancelled", "replied"]


async def test_a_normal_end_is_told_with_its_reply(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """`Stop` is a way to end a step."""
    async with open_test_system() as system, system.stepping(cast.CounterActor) as (ref, step):
        await ref.tell(cast.Leave())
        assert await step() == Step(cast.Leave(), "stopped", reply="left")


@pytest.mark.rule("T2")
async def test_messages_wait_in_line_for_their_step(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """What has not been stepped to can be withdrawn, and expires; a step passes over it."""
    async with (
        open_test_system(allow_dead_letters={"expired"}) as system,
        system.stepping(cast.CounterActor) as (ref, step),
    ):
        withdrawn = await ref.submit(cast.Add(1))
        await ref.tell(cast.Add(2))
        assert await withdrawn.withdraw()
        assert (await step()).message == cast.Add(2)
        with trio.move_on_after(1):
            await ref.ask(cast.Add(3))
        await ref.tell(cast.Add(4))
        assert (await step()).message == cast.Add(4)


@pytest.mark.rule("T2")
async def test_a_step_that_does_not_come_fails(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Nothing in line, or a handler that does not end: each is told after its time; then steps go on one by one."""
    async with open_test_system() as system, system.stepping(cast.CounterActor) as (ref, step):
        with pytest.raises(AssertionError, match=r"no step within 5 s: no message was begun"):
            await step(within=5)
        begun = await ref.submit(cast.Add(1))
        await trio.sleep(100)
        assert await begun.withdraw()
        nap, add, last = [await ref.submit(m) for m in (cast.Nap(10), cast.Add(1), cast.Add(1))]
        with pytest.raises(AssertionError, match="its handler did not end"):
            await step(within=5)
        assert (await step()).message == cast.Nap(10)
        await trio.sleep(100)
        assert (nap.settled, add.settled) == (True, False)
        await step()
        await trio.sleep(100)
        assert (add.settled, last.settled) == (True, False)


async def test_a_step_waits_for_its_message(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """A step taken before the message has come is made when it comes."""
    async with open_test_system() as system, system.stepping(cast.CounterActor) as (ref, step):

        async def send() -> None:
            await trio.sleep(3)
            await ref.tell(cast.Add(5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert (await step()).reply == 5


async def test_timers_pass_without_a_step(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """The runtime's own messages are not held up, and are no steps."""

    class TimerActor(Actor[Any]):
        fired = 0

        async def on_start(self) -> None:
            self.context.send_after(1, cast.Nap(0))
            await trio.lowlevel.checkpoint()

        @handles(cast.Nap)
        async def fire(self, _: Any) -> str:
            await trio.lowlevel.checkpoint()
            self.fired += 1
            return "fired"

        @handles(cast.Add)
        async def add(self, _: Any) -> int:
            await trio.lowlevel.checkpoint()
            return self.fired

    async with open_test_system() as system, system.stepping(TimerActor) as (ref, step):
        async with trio.open_nursery() as nursery:
            steps: list[Step] = []
            nursery.start_soon(note, steps, step)
            await trio.sleep(2)
            await ref.tell(cast.Add())
        assert steps == [Step(cast.Add(), "replied", reply=1)]


async def test_side_by_side_handlers_are_stepped_one_by_one(
    cast: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Concurrency does not let a second message slip through."""
    async with (
        open_test_system() as system,
        system.stepping(cast.CounterActor, "a", concurrency=4) as (ref, step),
    ):
        pendings = [await ref.submit(cast.Nap(1)) for _ in range(4)]
        for number in range(4):
            await step()
            await trio.sleep(10)
            assert [pending.settled for pending in pendings].count(True) == number + 1


async def test_after_the_block_the_actor_runs_freely(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """What is left in line is handled, and the tree can drain."""
    async with open_test_system() as system:
        async with system.stepping(cast.CounterActor) as (ref, step):
            pendings = [await ref.submit(cast.Add()) for _ in range(3)]
            await step()
        assert [await pending for pending in pendings] == [1, 2, 3]


async def test_a_limiter_of_its_own_is_refused(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Steps are made by a limiter, so there is no place for another."""
    async with open_test_system() as system:
        spec = ChildSpec(name="a", factory=cast.CounterActor, limiter=trio.CapacityLimiter(1))
        with pytest.raises(InputError, match="limiter"):
            async with system.stepping(spec):
                pass


async def test_a_crash_reaches_the_caller_as_ever(cast: Any, autojump_clock: trio.abc.Clock) -> None:
    """Stepping changes nothing of what callers see: the crash is chained, and the actor starts again."""
    async with open_test_system() as system, system.stepping(cast.CounterActor) as (ref, step):
        pending = await ref.submit(cast.Throw(KeyError("x")))
        assert (await step()).end == "raised"
        with pytest.raises(HandlerCrashed) as crash:
            await pending
        assert isinstance(crash.value.__cause__, KeyError)
