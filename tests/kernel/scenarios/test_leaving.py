"""Callers that leave: before their message is in line, while it waits, and while it runs."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.kernel import Pending

SENDS = ("ask", "tell", "submit", "submit_many")
LEFT = (None, None, True)


@pytest.fixture
def gate() -> trio.Event:
    """What a handler waits for."""
    return trio.Event()


def wait_for(gate: trio.Event) -> Any:
    """Return a handler that waits."""

    async def run(_: Any) -> str:
        await gate.wait()
        return "waited"

    return run


# --- before admission ---------------------------------------------------------------------------------------


@pytest.mark.scenario(10)
@pytest.mark.rule("M3", "C1")
@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("has_room", [True, False])
async def test_who_is_cancelled_before_sending_sends_nothing(
    stage: Any, books: Any, gate: trio.Event, send: str, has_room: bool, autojump_clock: trio.abc.Clock
) -> None:
    """Even if there is room: no handler runs, and no counter but that of the others has moved."""
    async with stage.open() as tree:
        ref = await books.start(tree, capacity=1)
        ahead = [await ref.submit(stage.Do(wait_for(gate)))]
        await trio.testing.wait_all_tasks_blocked()
        if not has_room:
            ahead.append(await ref.submit(stage.Do(stage.say("ahead"))))
        before = books.counts(ref)
        caller = books.caller(send)
        caller.scope.cancel()
        await caller.run(ref, stage.Do(stage.say("never")))
        assert caller.got == LEFT
        assert books.counts(ref) == before
        gate.set()
        for pending in ahead:
            await pending
    assert stage.log == ([] if has_room else ["ahead"])
    assert books.counts(ref) == {"admitted": len(ahead), "handled": len(ahead)}


@pytest.mark.scenario(10)
@pytest.mark.rule("M3", "C1")
@pytest.mark.parametrize("send", SENDS)
async def test_who_is_cancelled_while_waiting_for_room_leaves_no_trace(
    stage: Any, books: Any, gate: trio.Event, send: str, autojump_clock: trio.abc.Clock
) -> None:
    """In the step of the cancellation nobody waits for room any more; whoever waited behind keeps the place."""
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree, capacity=1)
        for run in (wait_for(gate), stage.say("ahead")):
            await ref.tell(stage.Do(run))
            await trio.testing.wait_all_tasks_blocked()
        full = {"admitted": 2, "queued": 1, "running": 1}
        leaver, other = books.caller(send), books.caller(send)
        for caller, name, parked in ((leaver, "never", 1), (other, "behind", 2)):
            nursery.start_soon(caller.run, ref, stage.Do(stage.say(name)))
            await trio.testing.wait_all_tasks_blocked()
            assert books.counts(ref) == {**full, "parked": parked}
        leaver.scope.cancel()
        assert books.counts(ref) == {**full, "parked": 1}
        await trio.testing.wait_all_tasks_blocked()
        assert leaver.got == LEFT
        assert books.counts(ref) == {**full, "parked": 1}
        gate.set()
    assert other.error is None
    assert stage.log == ["ahead", "behind"]
    assert books.counts(ref) == {"admitted": 3, "handled": 3}


@pytest.mark.scenario(10)
@pytest.mark.rule("M3")
@pytest.mark.parametrize("send", ["tell", "submit", "submit_many"])
@pytest.mark.parametrize("has_room", [True, False])
async def test_who_is_cancelled_after_admission_has_sent(
    stage: Any, books: Any, gate: trio.Event, send: str, has_room: bool, autojump_clock: trio.abc.Clock
) -> None:
    """Once the message is in line the send returns normally, though its scope was cancelled in the same tick."""
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree, capacity=1)
        if not has_room:
            for run in (wait_for(gate), stage.say("ahead")):
                await ref.tell(stage.Do(run))
                await trio.testing.wait_all_tasks_blocked()
        caller = books.caller(send)
        nursery.start_soon(caller.run, ref, stage.Do(stage.say("sent")))
        if has_room:
            while not ref.statistics().admitted:  # ends in the tick of the admission, or the one after it
                await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
            while ref.statistics().parked:
                await trio.lowlevel.cancel_shielded_checkpoint()
        caller.scope.cancel()
    assert caller.error is None
    assert not caller.scope.cancelled_caught
    assert stage.log[-1] == "sent"


@pytest.mark.scenario(10)
@pytest.mark.rule("M3")
async def test_a_send_that_does_not_wait_is_not_stopped_by_a_cancelled_scope(stage: Any, books: Any) -> None:
    """`tell_nowait` and `submit_nowait` have no cancel point: their messages are handled."""
    pending: list[Pending[Any]] = []
    async with stage.open() as tree:
        ref = await books.start(tree)
        with trio.CancelScope() as scope:  # noqa: ASYNC100 - that there is no cancel point is the promise
            scope.cancel()
            ref.tell_nowait(stage.Do(stage.say("told")))
            pending.append(ref.submit_nowait(stage.Do(stage.say("submitted"))))
        assert await pending[0] == "submitted"
    assert stage.log == ["told", "submitted"]


# --- in line --------------------------------------------------------------------------------------------------


@pytest.mark.scenario(11)
@pytest.mark.rule("C1", "A1", "A6")
async def test_who_leaves_the_line_makes_room_at_once(
    stage: Any, books: Any, gate: trio.Event, autojump_clock: trio.abc.Clock
) -> None:
    """In the step of the cancellation the message is gone and the next sender has its room; no handler runs."""
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree, capacity=2)
        await ref.tell(stage.Do(wait_for(gate)))
        await trio.testing.wait_all_tasks_blocked()
        callers = [books.caller("ask") for _ in range(4)]
        for number, caller in enumerate(callers):
            nursery.start_soon(caller.run, ref, stage.Do(stage.say(number)))
            await trio.testing.wait_all_tasks_blocked()
        assert books.counts(ref) == {"admitted": 3, "running": 1, "queued": 2, "parked": 2}
        callers[0].scope.cancel()
        assert books.counts(ref) == {
            "admitted": 4, "running": 1, "queued": 2, "abandoned": 1, "parked": 1
        }  # fmt: skip
        callers[1].scope.cancel()
        assert books.counts(ref) == {"admitted": 5, "running": 1, "queued": 2, "abandoned": 2}
        await trio.testing.wait_all_tasks_blocked()
        assert [caller.got for caller in callers[:2]] == [LEFT, LEFT]
        callers[2].scope.cancel()
        assert books.counts(ref) == {"admitted": 5, "running": 1, "queued": 1, "abandoned": 3}
        ref.tell_nowait(stage.Do(stage.say("in its room")))
        gate.set()
    assert [caller.got for caller in callers] == [LEFT, LEFT, LEFT, (3, None, False)]
    assert stage.log == [3, "in its room"]
    assert books.counts(ref) == {"admitted": 6, "handled": 3, "abandoned": 3}
    assert not tree.dead_letters.counts


# --- running --------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Work:
    """A handler that works for 10 seconds and takes 2 to unwind."""

    log: list[Any] = attrs.field(factory=list)

    def note(self, what: str) -> None:
        self.log.append((trio.current_time(), what))

    async def run(self, actor: Any) -> str:
        self.note("begin")
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            self.note("cancelled")
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            self.note("unwound")
            raise
        self.note("end")
        return "result"

    async def next(self, actor: Any) -> int:
        self.note("next")
        await trio.lowlevel.checkpoint()
        return int(actor.context.incarnation)


@pytest.mark.scenario(12)
@pytest.mark.rule("C1", "A4", "A6")
@pytest.mark.parametrize(
    ("kind", "left_at", "log", "late"),
    [
        ("Do", 3.0, [(0, "begin"), (3, "cancelled"), (5, "unwound"), (5, "next")], 0),
        ("Finish", 3.0, [(0, "begin"), (10, "end"), (10, "next")], 1),
        ("Wait", 5.0, [(0, "begin"), (3, "cancelled"), (5, "unwound"), (5, "next")], 0),
    ],
    ids=["cancel", "finish", "wait"],
)
async def test_who_leaves_a_running_handler(
    stage: Any,
    books: Any,
    kind: str,
    left_at: float,
    log: list[Any],
    late: int,
    autojump_clock: trio.abc.Clock,
) -> None:
    """`on_abandon` says whether the handler is cancelled and when its caller gets away; the actor goes on."""
    work, caller = Work(), books.caller("ask")
    async with stage.open() as tree, trio.open_nursery() as nursery:
        ref = await books.start(tree)
        nursery.start_soon(caller.run, ref, getattr(stage, kind)(work.run))
        await trio.testing.wait_all_tasks_blocked()
        following = await ref.submit(stage.Do(work.next))
        await trio.sleep(3)
        assert books.counts(ref) == {"admitted": 2, "queued": 1, "running": 1}
        caller.scope.cancel()
        assert books.counts(ref) == {"admitted": 2, "queued": 1, "abandoned": 1}
        assert await following == 1  # the same incarnation
    assert caller.got == LEFT
    assert caller.left_at == left_at
    assert work.log == log
    counts = {"admitted": 2, "abandoned": 1, "handled": 1}
    assert books.counts(ref) == (counts | {"late_replies": late} if late else counts)
    assert dict(tree.dead_letters.counts) == ({"late_reply": late} if late else {})
    assert stage.delays == []
