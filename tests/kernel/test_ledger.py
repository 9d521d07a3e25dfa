"""What a mailbox counts, whatever becomes of a message."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorError, InFlightLost
from tinker_actors.kernel import ActorRef, Backoff, MailboxStatistics, Message, RestartPolicy, handles
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.ledger import MailboxLedger
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.overflow import MailboxSpec
from tinker_actors.kernel.reader import Reader

QUICK = RestartPolicy(backoff=Backoff(base=1.0, jitter=0.0), max_restarts=9)
ENDS = ("handled", "failed", "abandoned", "expired", "dropped", "rejected")


def check(ref: ActorRef[Any]) -> MailboxStatistics:
    """Return the counters, after a look at the rule they keep at every moment."""
    seen = ref.statistics()
    assert seen.admitted == sum(getattr(seen, name) for name in ENDS) + seen.queued + seen.running, seen
    return seen


def ends(seen: MailboxStatistics) -> dict[str, int]:
    """Return the counters of ends that are not zero."""
    return {name: getattr(seen, name) for name in ENDS if getattr(seen, name)}


async def ignore(function: Callable[..., Any], *args: Any) -> None:
    """Wait for something and drop its failure."""
    with contextlib.suppress(ActorError):
        await function(*args)


# --- how a message ends -------------------------------------------------------------------------------------


async def test_answers_are_told_apart(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A value counts as handled; a declared error, a crash and a message without handler count as failed."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK)
        await ref.ask(stage.Do(stage.say(1)))
        assert ends(check(ref)) == {"handled": 1}
        with pytest.raises(stage.Declared):
            await ref.ask(stage.Do(stage.fail(stage.Declared())))
        assert ends(check(ref)) == {"handled": 1, "failed": 1}
        await ignore(ref.ask, stage.Do(stage.fail(ValueError())))
        assert ends(check(ref)) == {"handled": 1, "failed": 2}
        await ignore(ref.ask, stage.Strange(stage.say(2)))
        assert ends(check(ref)) == {"handled": 1, "failed": 3}
        for run in (stage.say(3), stage.fail(stage.Declared()), stage.fail(ValueError())):
            await ref.tell(stage.Do(run))
        await trio.sleep(10)
        assert ends(check(ref)) == {"handled": 2, "failed": 5}


@pytest.mark.rule("O1")
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_every_moment_of_a_long_message_adds_up(
    stage: Any, concurrency: int, autojump_clock: trio.abc.Clock
) -> None:
    """Waiting, running and ended messages add up to those admitted, also when handlers run side by side."""
    async with stage.open() as tree:
        ref = await stage.start(tree, concurrency=concurrency)
        pendings = [await ref.submit(stage.Do(stage.sleep(number, number))) for number in range(1, 6)]
        for _ in range(16):
            check(ref)
            await trio.sleep(1)
        assert [await pending for pending in pendings] == [1, 2, 3, 4, 5]
        seen = check(ref)
        assert (seen.queued, seen.running, seen.handled) == (0, 0, 5)


async def test_callers_that_leave_are_counted(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A caller that was cancelled leaves an abandoned message, in line or in its handler, and so does a withdrawal."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for number in range(2):
                    nursery.start_soon(ref.ask, stage.Do(stage.sleep(100, number)))
                    await trio.testing.wait_all_tasks_blocked()
                seen = check(ref)
                assert (seen.queued, seen.running) == (1, 1)
                scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert ends(check(ref)) == {"abandoned": 2}
        pending = await ref.submit(stage.Do(stage.sleep(1)))
        behind = await ref.submit(stage.Do(stage.sleep(1)))
        await trio.testing.wait_all_tasks_blocked()
        assert await behind.withdraw()
        assert not await pending.withdraw()
        await pending
        assert ends(check(ref)) == {"abandoned": 3, "handled": 1}


async def test_deadlines_are_counted(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A message whose deadline passes in the handler has expired, and is not abandoned as well."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1):
            await ref.ask(stage.Do(stage.sleep(100)))
        await trio.testing.wait_all_tasks_blocked()
        assert ends(check(ref)) == {"expired": 1}
        assert check(ref).running == 0


async def test_what_is_past_its_deadline_is_not_begun() -> None:
    """A reader skips it and counts it as expired."""
    box = Mailbox("a", MailboxSpec())
    old: Envelope[Any] = Envelope(Note(), trio.current_time() - 1)
    box.put_nowait(old)
    box.close("has stopped")
    assert old.settled
    box = Mailbox("a", MailboxSpec())
    old = Envelope(Note(), trio.current_time() - 1)
    box.put_nowait(old)
    box.drain("is stopping")
    assert await box.get(Reader(box, [])) is None
    assert old.state is State.EXPIRED
    assert box.statistics().expired == 1


@pytest.mark.rule("O1")
@pytest.mark.parametrize("mode", ["drain", "now", "kill"])
async def test_a_stop_leaves_nothing_uncounted(stage: Any, mode: str, autojump_clock: trio.abc.Clock) -> None:
    """After the end everything admitted has ended; what came too late was refused."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ignore, ref.ask, stage.Do(stage.sleep(1, number)))
                await trio.testing.wait_all_tasks_blocked()
            await ref.stop(mode)
            seen = check(ref)
            assert (seen.queued, seen.running) == (0, 0)
        await ignore(ref.tell, stage.Do(stage.say("late")))
        assert check(ref).refused == 1
    wanted = {
        "drain": {"handled": 3},
        "now": {"handled": 1, "rejected": 2},
        "kill": {"failed": 1, "rejected": 2},
    }
    assert ends(check(ref)) == wanted[mode]


@pytest.mark.rule("S8")
async def test_messages_handed_back_are_rejected(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """With `fail_fast`, asks in line at a crash are rejected, and those that come before the restart refused."""
    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK, on_restart="fail_fast")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ignore, ref.ask, stage.Do(stage.fail(ValueError())))
            await ref.tell(stage.Do(stage.say("told")))
            for _ in range(2):
                nursery.start_soon(ignore, ref.ask, stage.Do(stage.say("never")))
        await trio.testing.wait_all_tasks_blocked()
        await ignore(ref.ask, stage.Do(stage.say("never")))
        await trio.sleep(2)
        seen = check(ref)
        assert seen.failed == 1
        assert seen.handled == 1
        assert seen.rejected + seen.refused == 3
    assert stage.log == ["told"]


async def test_dropped_messages_are_admitted_and_dropped(stage: Any) -> None:
    """Each policy that drops keeps the rule, whichever message it takes."""
    async with stage.open() as tree:
        for policy in ("drop_new", "drop_old"):
            stay = trio.Event()
            ref = await stage.start(tree, policy, overflow=policy, capacity=1)
            await ref.tell(stage.Do(lambda _, stay=stay: stay.wait()))
            await trio.testing.wait_all_tasks_blocked()
            for number in range(4):
                ref.tell_nowait(stage.Do(stage.say(number)))
                check(ref)
            stay.set()
            await ref.stop()
            assert ends(check(ref)) == {"handled": 2, "dropped": 3}
    assert stage.log == [0, 3]


async def test_a_block_that_does_not_get_in_is_refused_whole(stage: Any) -> None:
    """Every message of it counts as refused, none as admitted."""
    async with stage.open() as tree:
        ref = await stage.start(tree, capacity=4, overflow="fail")
        stay = trio.Event()
        await ref.tell(stage.Do(lambda _: stay.wait()))
        await trio.testing.wait_all_tasks_blocked()
        await ref.submit_many([stage.Do(stage.say(1)), stage.Do(stage.say(2))])
        await ignore(ref.submit_many, [stage.Do(stage.say(number)) for number in (3, 4, 5)])
        seen = check(ref)
        assert (seen.refused, seen.admitted, seen.queued) == (3, 3, 2)
        stay.set()


async def test_a_message_that_is_put_back_runs_once_in_the_books(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A message handled again after a crash is in line meanwhile, and ends once."""

    class Again(stage.Do):
        max_redeliver = 1

    class Patient(stage.PuppetActor):
        @handles(Again)
        async def again(self, message: Any) -> Any:
            return await message.run(self)

    async def run(actor: Any) -> str:
        await trio.sleep(1)
        if actor.context.incarnation == 1:
            raise ValueError
        return "done"

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=Patient, policy=QUICK)
        pending = await ref.submit(Again(run))
        for _ in range(8):
            check(ref)
            await trio.sleep(0.5)
        assert await pending == "done"
        assert ends(check(ref)) == {"handled": 1}


# --- answers too many ---------------------------------------------------------------------------------------


@pytest.mark.rule("A1")
async def test_a_second_answer_is_a_duplicate(stage: Any) -> None:
    """The first one counts; the others change no counter but `duplicate_replies`, and are dead letters."""

    async def twice(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        token = actor.context.detach_reply()
        assert token.settle("first")
        assert not token.settle("second")
        assert not token.fail(ValueError())
        return token

    async with stage.open() as tree:
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(twice)) == "first"
        seen = check(ref)
        assert (seen.handled, seen.failed, seen.duplicate_replies, seen.late_replies) == (1, 0, 2, 0)
        assert dict(tree.dead_letters.counts) == {"duplicate_reply": 2}


@pytest.mark.lesson("D64")
@pytest.mark.rule("A6")
async def test_an_answer_after_the_caller_left_is_late(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The message counts as expired; its answer as late, and is a dead letter."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.move_on_after(1):
            await ref.ask(stage.Finish(stage.sleep(2, "value")))
        assert check(ref).running == 0
        await trio.sleep(5)
        seen = check(ref)
        assert ends(seen) == {"expired": 1}
        assert (seen.late_replies, seen.duplicate_replies) == (1, 0)
        assert dict(tree.dead_letters.counts) == {"late_reply": 1}


@pytest.mark.rule("A6")
async def test_an_answer_after_the_message_was_lost_is_late(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """The token of an incarnation that ended answers nobody: its caller has heard `InFlightLost`."""
    tokens: list[Any] = []

    async def detach(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        tokens.append(actor.context.detach_reply())
        return tokens[-1]

    async with stage.open() as tree:
        ref = await stage.start(tree, policy=QUICK)
        pending = await ref.submit(stage.Do(detach))
        await ref.tell(stage.Do(stage.fail(ValueError())))
        with pytest.raises(InFlightLost):
            await pending
        assert not tokens[0].settle("late")
        seen = check(ref)
        assert (seen.late_replies, seen.duplicate_replies) == (1, 0)


async def test_nobody_counts_answers_to_a_tell(stage: Any) -> None:
    """Nobody waits for the first answer either, so a second one is no event."""

    async def twice(actor: Any) -> Any:
        await trio.lowlevel.checkpoint()
        token = actor.context.detach_reply()
        token.settle(1)
        token.settle(2)
        return token

    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(twice))
        await ref.stop()
        seen = check(ref)
        assert (seen.handled, seen.duplicate_replies, seen.late_replies) == (1, 0, 0)
        assert not tree.dead_letters.counts


# --- failures nobody sees -----------------------------------------------------------------------------------


async def test_a_failure_that_nobody_can_see_any_more_is_a_letter(stage: Any) -> None:
    """A `Pending` thrown away makes its failure, before or after, a dead letter; one that was seen does not."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        seen = await ref.submit(stage.Do(stage.fail(stage.Declared())))
        with pytest.raises(stage.Declared):
            await seen
        del seen
        unseen = await ref.submit(stage.Do(stage.fail(stage.Declared())))
        await trio.testing.wait_all_tasks_blocked()
        del unseen
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        assert dict(tree.dead_letters.counts) == {"unobserved": 1}
        early = await ref.submit(stage.Do(stage.fail(stage.Declared())))
        del early
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        assert dict(tree.dead_letters.counts) == {"unobserved": 1, "failed": 1}


async def test_a_failure_that_has_a_listener_is_no_letter(stage: Any) -> None:
    """Whoever set `on_failure` hears of it; and a mailbox without a tree has nobody to tell."""
    heard: list[Any] = []
    async with stage.open() as tree:
        ref = await stage.start(tree)
        pending = await ref.submit(stage.Do(stage.fail(stage.Declared())))
        pending.outcome.on_failure = heard.append
        del pending
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        assert len(heard) == 1
        assert not tree.dead_letters.counts
    alone = MailboxLedger("a", None)
    alone.thrown_away(Envelope(Note()))


# --- time ---------------------------------------------------------------------------------------------------


async def test_a_timed_tree_knows_how_long_messages_take(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Median and 99th percentile of the time in line and in the handler, of recent messages."""
    async with stage.open(timed=True) as tree:
        ref = await stage.start(tree)
        assert ref.statistics().waited is None
        assert ref.statistics().took is None
        pendings = [await ref.submit(stage.Do(stage.sleep(1))) for _ in range(10)]
        for pending in pendings:
            await pending
        assert ref.statistics().waited == (5.0, 9.0)
        assert ref.statistics().took == (1.0, 1.0)


async def test_failures_are_timed_and_traced_as_well(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """What ends in an error took its time too; what never began only waited."""
    async with stage.open(timed=True, trace_messages=True) as tree:
        ref = await stage.start(tree, policy=QUICK)

        async def fail(_: Any) -> None:
            await trio.sleep(3)
            raise stage.Declared

        with pytest.raises(stage.Declared):
            await ref.ask(stage.Do(fail))
        assert ref.statistics().took == (3.0, 3.0)
        first = await ref.submit(stage.Do(stage.sleep(1)))
        await trio.testing.wait_all_tasks_blocked()
        behind = await ref.submit(stage.Do(stage.sleep(1)))
        await behind.withdraw()
        await first
    kinds = [type(event).__name__ for event in stage.events if hasattr(event, "seq")]
    assert kinds == [
        "MessageAdmitted",
        "MessageStarted",
        "MessageSettled",
        "MessageAdmitted",
        "MessageStarted",
        "MessageAdmitted",
        "MessageSettled",
        "MessageSettled",
    ]
    settled = [(e.state, e.error) for e in stage.events if type(e).__name__ == "MessageSettled"]
    assert settled == [("settled", "Declared"), ("abandoned", "Withdrawn"), ("settled", None)]


async def test_only_recent_messages_are_kept(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Old durations are forgotten: 600 quick messages leave nothing of a slow one."""
    async with stage.open(timed=True) as tree:
        ref = await stage.start(tree)
        await ref.ask(stage.Do(stage.sleep(50)))
        assert ref.statistics().took == (50.0, 50.0)
        for _ in range(600):
            await ref.ask(stage.Do(stage.sleep(0)))
        assert ref.statistics().took == (0.0, 0.0)


class Role:
    pass


@attrs.frozen
class Note(Message[Role, Any]):
    pass


async def test_a_handler_that_has_answered_may_be_cut_short(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Its message's deadline ends the handler, and changes nothing about the answer."""

    async def answer_and_stay(actor: Any) -> Any:
        token = actor.context.detach_reply()
        token.settle("answer")
        await stage.sleep(100, "stays")(actor)
        return token

    async with stage.open() as tree:
        ref = await stage.start(tree)
        with trio.fail_after(5):
            assert await ref.ask(stage.Do(answer_and_stay)) == "answer"
        assert await ref.ask(stage.Do(stage.say("next"))) == "next"
        assert trio.current_time() == 5
        seen = check(ref)
        assert ends(seen) == {"handled": 2}
        assert (seen.late_replies, seen.duplicate_replies) == (0, 0)


async def test_every_way_in_is_traced(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A message that waited for room, and one handled beside another, is admitted, begun and settled once."""

    class Again(stage.Do):
        reentrant = True

    class Host(stage.PuppetActor):
        @handles(Again)
        async def again(self, message: Any) -> Any:
            return await message.run(self)

    async def outer(actor: Any) -> Any:
        await trio.sleep(1)
        return await actor.context.ref.ask(Again(stage.sleep(2, "inner")))

    async with stage.open(timed=True, trace_messages=True) as tree:
        ref = await stage.start(tree, factory=Host, capacity=1)
        pendings = [await ref.submit(stage.Do(run)) for run in (outer, stage.say(1), stage.say(2))]
        assert [await pending for pending in pendings] == ["inner", 1, 2]
        check(ref)
    for name in ("MessageAdmitted", "MessageStarted", "MessageSettled"):
        seen = [event.seq for event in stage.events if type(event).__name__ == name]
        assert sorted(seen) == [0, 1, 2, 3]
