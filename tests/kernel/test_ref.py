from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorStopped, HandlerCrashed, InFlightLost, MailboxFull, Withdrawn
from tinker_actors.kernel import TRACE, ActorRef, Down, MailboxStatistics
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.overflow import MailboxSpec
from tinker_actors.kernel.reader import Reader
from tinker_actors.kernel.watch import Obituary


class Bare:
    """What stands behind a ref, with nobody who reads the mailbox."""

    path = "a"
    reply_timeout = math.inf

    def __init__(self) -> None:
        self.mailbox = Mailbox("a", MailboxSpec(capacity=1))
        self.obituary = Obituary()

    def choose(self) -> Mailbox:
        return self.mailbox

    async def stop(self, mode: str, timeout: float) -> None:  # noqa: ASYNC109 - as the protocol has it
        await trio.lowlevel.checkpoint()
        self.obituary.ended(Down("a", "stopped"))

    def statistics(self) -> MailboxStatistics:
        return self.mailbox.statistics()

    def take(self) -> Envelope[Any] | None:
        """Take the next message, as a reader of its own that stays with it."""
        return self.mailbox.take(Reader(self.mailbox, []))


# --- tell, ask, submit ---------------------------------------------------------------------------------------


async def test_the_three_ways_to_send(stage: Any) -> None:
    """`ask` gives the reply, `submit` a Pending of it, `tell` nothing; all keep the sender's order."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.say(1)))
        pending = await ref.submit(stage.Do(stage.say(2)))
        ref.tell_nowait(stage.Do(stage.say(3)))
        assert await ref.ask(stage.Do(stage.say(4))) == 4
        assert await pending == 2
        assert pending.settled
    assert stage.log == [1, 2, 3, 4]


async def test_a_pending_is_not_its_answer(stage: Any) -> None:
    """Who takes one for the other, or for a future, is told to await it."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(stage.say(1)))
        for name in ("result", "metrics"):
            with pytest.raises(AttributeError, match=f"a Pending has no '{name}': await it"):
                getattr(pending, name)
        await pending


async def test_sending_is_a_checkpoint(stage: Any) -> None:
    """Each of the three that are awaited lets others run, also if the answer is there at once."""

    async def at_once(_: Any) -> None:
        pass

    async with stage.open() as tree:
        ref = await stage.start(tree)
        for send in (ref.tell, ref.ask, ref.submit):
            with trio.testing.assert_checkpoints():
                await send(stage.Do(at_once))


async def test_a_thousand_submits_from_one_task_keep_their_order(stage: Any) -> None:
    """Pipelined: nothing is awaited in between, and the handlers run in program order."""
    async with stage.open() as tree:
        ref = await stage.start(tree, capacity=7)
        pendings = [await ref.submit(stage.Do(stage.say(number))) for number in range(1000)]
        assert [await pending for pending in pendings] == list(range(1000))
    assert stage.log == list(range(1000))


@pytest.mark.rule("M4")
@pytest.mark.parametrize("capacity", [1, 3, 1000])
async def test_two_tasks_keep_their_own_orders(stage: Any, capacity: int) -> None:
    """However two senders interleave, each one's messages are handled in the order it sent them."""

    async def send(ref: Any, sender: str) -> None:
        for number in range(300):
            await ref.submit(stage.Do(stage.say((sender, number))))

    async with stage.open() as tree:
        ref = await stage.start(tree, capacity=capacity)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ref, "a")
            nursery.start_soon(send, ref, "b")
    for sender in "ab":
        assert [number for own, number in stage.log if own == sender] == list(range(300))


async def test_a_full_mailbox_blocks_or_refuses(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The awaited sends wait for room; `tell_nowait` is refused, and the sender lives on."""
    async with stage.open() as tree:
        ref = await stage.start(tree, capacity=1)
        await ref.tell(stage.Do(stage.sleep(1)))
        await trio.testing.wait_all_tasks_blocked()
        ref.tell_nowait(stage.Do(stage.say("queued")))
        with pytest.raises(MailboxFull):
            ref.tell_nowait(stage.Do(stage.say("refused")))
        start = trio.current_time()
        await ref.tell(stage.Do(stage.say("waited")))
        assert trio.current_time() == start + 1
    assert stage.log[-2:] == ["queued", "waited"]


# --- one outcome per ask -------------------------------------------------------------------------------------


@pytest.mark.rule("M3", "A2")
@pytest.mark.parametrize("room", [True, False])
async def test_a_caller_cancelled_before_admission_sends_nothing(
    stage: Any, room: bool, autojump_clock: trio.abc.Clock
) -> None:
    """The handler never runs, the depth is what it was, and nobody stays parked."""
    async with stage.open() as tree:
        ref = await stage.start(tree, capacity=1)
        await ref.tell(stage.Do(stage.sleep(10)))
        await trio.testing.wait_all_tasks_blocked()
        if not room:
            await ref.tell(stage.Do(stage.say("queued")))
        before = ref.statistics()
        for send in (ref.ask, ref.tell, ref.submit):
            with trio.move_on_after(0 if room else 1) as scope:
                await send(stage.Do(stage.say("never")))
            assert scope.cancelled_caught
            assert ref.statistics() == before
    assert "never" not in stage.log


@pytest.mark.rule("C1")
@pytest.mark.parametrize("why", ["cancelled", "deadline"])
async def test_a_caller_cancelled_while_queued_takes_its_message_along(
    stage: Any, why: str, autojump_clock: trio.abc.Clock
) -> None:
    """The handler is not called, the place is free at once, and the counters say why the caller left."""

    async def ask() -> None:
        with trio.move_on_after(1 if why == "deadline" else math.inf):
            await ref.ask(stage.Do(stage.say("never")))

    async with stage.open() as tree:
        ref = await stage.start(tree, capacity=1)
        await ref.tell(stage.Do(stage.sleep(10)))
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        ref.tell_nowait(stage.Do(stage.say("next")))
        seen = ref.statistics()
        assert (seen.abandoned, seen.expired) == ((0, 1) if why == "deadline" else (1, 0))
    assert stage.log == [("begin", None), ("end", None), "next"]


@pytest.mark.rule("C1")
async def test_a_caller_that_leaves_cancels_its_handler(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """By default the handler unwinds, the caller leaves at once, and the next message is handled."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        start = trio.current_time()
        with trio.move_on_after(1) as scope:
            await ref.ask(stage.Do(stage.sleep(10, "long")))
        assert scope.cancelled_caught
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
        assert trio.current_time() == start + 1
    assert stage.log == [("begin", "long"), ("cancelled", "long"), "next"]
    assert stage.delays == []


@pytest.mark.rule("C1")
async def test_a_message_to_be_finished_is_finished(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Neither the caller's leaving nor its deadline touches the handler; its result is dropped."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1) as scope:
            await ref.ask(stage.Finish(stage.sleep(10, "long")))
        assert scope.cancelled_caught
        assert stage.log == [("begin", "long")]
        start = trio.current_time()
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
        assert trio.current_time() == start + 9
    assert stage.log == [("begin", "long"), ("end", "long"), "next"]


@pytest.mark.rule("C1")
async def test_a_caller_that_waits_leaves_after_its_handler(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The handler is cancelled, may take its time to unwind, and only then the caller is cancelled."""

    async def unwind(_: Any) -> None:
        try:
            await trio.sleep(10)
        finally:
            with trio.move_on_after(3, shield=True):
                await trio.sleep(2)
            stage.log.append("unwound")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        start = trio.current_time()
        with trio.move_on_after(1) as scope:
            await ref.ask(stage.Wait(unwind))
        assert scope.cancelled_caught
        assert (stage.log, trio.current_time()) == (["unwound"], start + 3)
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"


async def test_a_caller_that_would_wait_leaves_a_queued_message_at_once(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """What has not begun needs no unwinding."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(stage.sleep(10)))
        start = trio.current_time()
        with trio.move_on_after(1):
            await ref.ask(stage.Wait(stage.say("never")))
        assert trio.current_time() == start + 1
    assert "never" not in stage.log


async def test_a_caller_that_leaves_a_unit_changes_nothing(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """An asked message of a unit is handled with its unit, whether its caller leaves it queued or running."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1):
            await ref.ask(stage.Part(stage.sleep(10, "running")))
        with trio.move_on_after(1):
            await ref.ask(stage.End(stage.say("queued")))
    assert stage.log == [("begin", "running"), ("end", "running"), "queued"]


@pytest.mark.rule("C3")
async def test_a_deadline_is_the_caller_s_own_error(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Under `fail_after`, a message that waits or runs too long ends in TooSlowError, not in ours."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await ref.ask(stage.Do(stage.sleep(10, "running")))
        await ref.tell(stage.Do(stage.sleep(10)))
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await ref.ask(stage.Do(stage.say("never")))
    assert ("cancelled", "running") in stage.log
    assert "never" not in stage.log


async def test_a_message_found_expired_ends_in_the_caller_s_own_cancellation(
    stage: Any, mock_clock: trio.testing.MockClock
) -> None:
    """If the actor sees the deadline pass before trio's timer tells the caller, the caller hears of its own."""
    bare = Bare()
    ref: ActorRef[Any] = ActorRef(bare)
    ended: list[str] = []

    async def ask() -> None:
        with pytest.raises(trio.TooSlowError), trio.fail_after(3):
            await ref.ask(stage.Do(stage.say("never")))
        ended.append("too slow")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(5)  # time that passes while code runs, before trio looks at its timers
        assert bare.take() is None
    assert ended == ["too slow"]


async def test_a_deadline_that_was_moved_after_admission(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A caller that has given itself more time hears that its message, or its handler, did not have it."""
    async with stage.open() as tree:
        ref = await stage.start(tree)

        async def ask(run: Any, expected: type[Exception], started: bool) -> None:
            with trio.move_on_after(1) as scope:
                extend.append(scope)
                with pytest.raises(expected) as caught:
                    await ref.ask(stage.Do(run))
                assert caught.value.started is started

        extend: list[trio.CancelScope] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, stage.sleep(5, "running"), InFlightLost, True)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, stage.say("never"), Withdrawn, False)
            await trio.testing.wait_all_tasks_blocked()
            await ref.tell(stage.Do(stage.say("next")))
            for scope in extend:
                scope.deadline += 10
    assert stage.log == [("begin", "running"), ("cancelled", "running"), "next"]


@pytest.mark.rule("C3")
@pytest.mark.parametrize("kind", ["Do", "Wait", "Finish"])
async def test_a_deadline_cancels_what_its_caller_s_leaving_would(
    stage: Any, kind: str, autojump_clock: trio.abc.Clock
) -> None:
    """The handler has the caller's deadline, unless its message is one that is finished; the next one has none."""

    async def look(_: Any) -> None:
        stage.log.append(trio.current_effective_deadline())
        await trio.lowlevel.checkpoint()

    async with stage.open() as tree:
        ref = await stage.start(tree)
        due = trio.current_time() + 5
        with trio.fail_at(due):
            await ref.ask(getattr(stage, kind)(look))
        await ref.ask(stage.Do(look))
    assert stage.log == [math.inf if kind == "Finish" else due, math.inf]


@pytest.mark.rule("C3")
async def test_a_deadline_travels_down_a_chain_of_asks(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The innermost handler is cancelled at the outermost caller's deadline, and knows it beforehand."""
    async with stage.open() as tree:
        inner, outer = await stage.start(tree, "inner"), await stage.start(tree, "outer")

        async def innermost(_: Any) -> None:
            stage.log.append(trio.current_effective_deadline())
            try:
                await trio.sleep(10)
            finally:
                stage.log.append(trio.current_time())

        async def forward(_: Any) -> None:
            await inner.ask(stage.Do(innermost))

        due = trio.current_time() + 2
        with trio.move_on_at(due) as scope:
            await outer.ask(stage.Do(forward))
        assert scope.cancelled_caught
        assert trio.current_time() == due
        assert await inner.ask(stage.Do(stage.say("alive"))) == "alive"
        assert await outer.ask(stage.Do(stage.say("alive"))) == "alive"
    assert stage.log[:2] == [due, due]
    assert stage.delays == []


@pytest.mark.rule("A1")
@pytest.mark.parametrize("first", ["reply", "cancel"])
async def test_cancel_and_reply_in_one_tick(stage: Any, first: str) -> None:
    """Whichever is first wins; nobody else is cancelled and the actor lives on."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        tokens: list[Any] = []
        got: list[Any] = []

        async def detach(actor: Any) -> Any:
            await trio.lowlevel.checkpoint()
            tokens.append(actor.context.detach_reply())
            return tokens[0]

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                got.append(await ref.ask(stage.Do(detach)))

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, scope)
            await trio.testing.wait_all_tasks_blocked()
            steps = [functools.partial(tokens[0].settle, 1), scope.cancel]
            for step in steps if first == "reply" else reversed(steps):
                step()
        assert (got, scope.cancelled_caught) == (([1], False) if first == "reply" else ([], True))
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
    assert stage.delays == []


@pytest.mark.rule("A4")
async def test_no_cancelled_reaches_a_caller_that_is_not_cancelled(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A handler that raises a Cancelled it has caught elsewhere crashes its actor; nobody else notices."""
    caught: list[BaseException] = []

    async def catch() -> None:
        with trio.move_on_after(0):
            try:
                await trio.sleep(1)
            except trio.Cancelled as error:
                caught.append(error)
                raise

    await catch()
    async with stage.open() as tree:
        ref, sibling = await stage.start(tree, "a"), await stage.start(tree, "b")
        pending = await sibling.submit(stage.Do(stage.sleep(5, "sibling")))
        with pytest.raises(HandlerCrashed, match="crashed on Do") as raised:
            await ref.ask(stage.Do(stage.fail(caught[0])))
        assert "Cancelled of another task" in str(raised.value.__cause__)
        assert await pending == "sibling"
        assert await ref.ask(stage.Do(stage.say("again"))) == "again"
    assert len(stage.delays) == 1


async def test_an_answer_may_be_there_before_its_caller_looks(stage: Any) -> None:
    """A caller that waited for room may find its message handled when it comes to run again."""
    bare = Bare()
    ref: ActorRef[Any] = ActorRef(bare)
    replies: list[Any] = []

    async def ask() -> None:
        replies.append(await ref.ask(stage.Do(stage.say(1))))

    bare.mailbox.put_nowait(Envelope(stage.Do(stage.say(0))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        bare.take()
        taken = bare.take()
        assert taken is not None
        taken.settle("there")
    assert replies == ["there"]


# --- the end -------------------------------------------------------------------------------------------------


@pytest.mark.rule("M8")
async def test_a_ref_knows_the_end(stage: Any) -> None:
    """`wait_stopped` and `stopped` tell; every way to send is refused with `started` False."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        assert not ref.stopped
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.wait_stopped)
            await tree.stop_child("a")
        assert ref.stopped
        for send in (ref.ask, ref.tell, ref.submit):
            with pytest.raises(ActorStopped) as caught:
                await send(stage.Do(stage.say("never")))
            assert (caught.value.actor, caught.value.started) == ("tree/a", False)
        with pytest.raises(ActorStopped):
            ref.tell_nowait(stage.Do(stage.say("never")))
    assert stage.log == []


# --- traces --------------------------------------------------------------------------------------------------


@pytest.mark.rule("N7")
@pytest.mark.scenario(48)
async def test_a_trace_is_seen_by_the_handler_and_by_nobody_else(stage: Any) -> None:
    """What a caller sets is there in its handler, in what that handler asks and spawns, and gone afterwards."""
    async with stage.open() as tree:
        inner, outer = await stage.start(tree, "inner"), await stage.start(tree, "outer")

        async def tell_trace(_: Any) -> object:
            await trio.lowlevel.checkpoint()
            return TRACE.get()

        async def chain(actor: Any) -> tuple[object, object, object]:
            spawned: list[object] = []

            async def beside() -> None:
                spawned.append(TRACE.get())
                await trio.lowlevel.checkpoint()

            actor.context.spawn(beside)
            inside = await inner.ask(stage.Do(tell_trace))
            await trio.testing.wait_all_tasks_blocked()
            return TRACE.get(), inside, spawned[0]

        async def call(trace: object) -> None:
            TRACE.set(trace)
            assert await outer.ask(stage.Do(chain)) == (trace, trace, trace)

        async with trio.open_nursery() as nursery:
            for trace in ("one", None, "two"):
                nursery.start_soon(call, trace)
        assert await outer.ask(stage.Do(tell_trace)) is None


async def test_a_child_that_a_handler_starts_is_nobody_s_call(stage: Any) -> None:
    """Neither the trace nor the message of the handler that started a child stays with the child."""
    seen: list[Any] = []

    async def look(actor: Any) -> None:
        seen.append(TRACE.get())
        with pytest.raises(LookupError):
            _ = actor.context.call
        await trio.lowlevel.checkpoint()

    async with stage.open() as tree:

        async def start(_: Any) -> None:
            await stage.start(tree, "child", starting=look)

        ref = await stage.start(tree)
        TRACE.set("caller")
        await ref.ask(stage.Do(start))
    assert seen == [None]


@pytest.mark.rule("N7")
async def test_a_trace_ends_with_its_handler(stage: Any) -> None:
    """What the actor does between messages, and at its end, belongs to no caller."""

    async def look(_: Any) -> None:
        stage.log.append(TRACE.get())
        await trio.lowlevel.checkpoint()

    async with stage.open() as tree:
        ref = await stage.start(tree, draining=look)
        TRACE.set("caller")
        await ref.ask(stage.Do(look))
    assert stage.log == ["caller", None]
