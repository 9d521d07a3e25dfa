from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

from tinker_actors.errors import (
    ActorStopping,
    InputError,
    MailboxFull,
    Withdrawn,
)
from tinker_actors.kernel import Message
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.overflow import MailboxSpec
from tinker_actors.kernel.reader import Reader


async def take(box: Mailbox, reader: Reader | None = None) -> Any:
    """Take the next message, as a reader of its own that stays with it."""
    reader = reader or Reader(box, [])
    reader.task = trio.lowlevel.current_task()
    return await box.get(reader)


class Role:
    pass


@attrs.frozen
class Mail(Message[Role, Any]):
    number: int = 0


class Part(Mail):
    unit = "part"


class End(Mail):
    unit = "end"


def mail(number: int = 0, **fields: Any) -> Envelope[Any]:
    return Envelope(Mail(number), **fields)


def numbers(envelopes: list[Envelope[Any]]) -> list[int]:
    return [envelope.message.number for envelope in envelopes]


def check_counters(box: Mailbox) -> None:
    """The rule every mailbox keeps at every moment."""
    seen = box.statistics()
    assert (
        seen.admitted
        == seen.handled
        + seen.failed
        + seen.abandoned
        + seen.expired
        + seen.dropped
        + seen.rejected
        + seen.queued
        + seen.running
    )
    assert seen.queued <= seen.peak <= seen.capacity


async def read_all(box: Mailbox, into: list[Envelope[Any]]) -> None:
    while (envelope := await take(box)) is not None:
        into.append(envelope)


# --- admission ----------------------------------------------------------------------------------------------


@pytest.mark.rule("M4")
async def test_messages_come_out_in_order_of_admission() -> None:
    """What goes in first comes out first, with consecutive numbers."""
    box = Mailbox("a", MailboxSpec(capacity=10))
    assert box.last_seq == -1
    for number in range(5):
        await box.put(mail(number))
    out = [await take(box) for _ in range(5)]
    assert numbers(out) == [0, 1, 2, 3, 4]
    assert [envelope.seq for envelope in out] == [0, 1, 2, 3, 4]
    assert {envelope.state for envelope in out} == {State.RUNNING}
    assert box.last_seq == 4
    assert box.is_empty
    check_counters(box)


@pytest.mark.rule("M1")
@pytest.mark.parametrize("capacity", [0, -1, 1.5, float("inf")])
def test_a_mailbox_has_a_bound(capacity: Any) -> None:
    """There is no mailbox without room, and none without end."""
    with pytest.raises(InputError, match="capacity"):
        Mailbox("a", MailboxSpec(capacity=capacity))


@pytest.mark.rule("M7")
async def test_put_and_get_are_checkpoints() -> None:
    """Both always give other tasks a turn and notice a cancellation."""
    box = Mailbox("a", MailboxSpec(capacity=2))
    with trio.testing.assert_checkpoints():
        await box.put(mail())
    with trio.testing.assert_checkpoints():
        await take(box)
    box.close("has stopped")
    with trio.testing.assert_checkpoints():
        assert await take(box) is None


async def test_a_refused_sender_that_tries_again_starves_nobody() -> None:
    """Trying in a loop to send to an actor that is ending lets it end."""
    box = Mailbox("a", MailboxSpec(capacity=1))
    box.drain("is stopping")
    with trio.testing.assert_checkpoints(), pytest.raises(ActorStopping):
        await box.put(mail())


@pytest.mark.rule("M3", "M5")
async def test_a_full_mailbox_lets_senders_wait_in_order() -> None:
    """Backpressure: senders are admitted one by one, first come first served, as room appears."""
    box = Mailbox("a", MailboxSpec(capacity=2))
    admitted: list[int] = []

    async def send(number: int) -> None:
        await box.put(mail(number))
        admitted.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(send, number)
            await trio.testing.wait_all_tasks_blocked()
        assert admitted == [0, 1]
        assert box.statistics().parked == 4
        out = []
        for expected in (3, 4, 5, 6, 6, 6):
            out.append(await take(box))
            await trio.testing.wait_all_tasks_blocked()
            assert len(admitted) == expected
    assert numbers(out) == admitted == list(range(6))
    assert box.statistics().peak == 2
    check_counters(box)


async def test_who_comes_later_does_not_overtake_the_parked() -> None:
    """While somebody waits for room, `put_nowait` is refused even if there were room in the same tick."""
    box = Mailbox("a", MailboxSpec(capacity=1))
    box.put_nowait(mail(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.put, mail(1))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(MailboxFull):
            box.put_nowait(mail(2))
        first = await take(box)
        with pytest.raises(MailboxFull):
            box.put_nowait(mail(3))
        assert numbers([first, await take(box)]) == [0, 1]


def test_nowait_says_how_full_it_is() -> None:
    """The error names the actor, the depth and the capacity."""
    box = Mailbox("tree/a", MailboxSpec(capacity=1))
    box.put_nowait(mail())
    with pytest.raises(MailboxFull, match="tree/a holds 1 of 1") as caught:
        box.put_nowait(mail())
    assert (caught.value.actor, caught.value.depth, caught.value.capacity) == ("tree/a", 1, 1)
    assert caught.value.started is False


@pytest.mark.rule("M3")
@pytest.mark.parametrize("room", [True, False])
async def test_cancelled_before_admission_is_never_enqueued(room: bool) -> None:
    """A sender whose scope is cancelled sends nothing, whether or not there is room."""
    box = Mailbox("a", MailboxSpec(capacity=1))
    if not room:
        box.put_nowait(mail())
    before = box.statistics()
    envelope = mail()
    with trio.move_on_after(0) as scope:
        await box.put(envelope)
    assert scope.cancelled_caught
    assert box.statistics() == before
    assert envelope.state is State.NEW


@pytest.mark.rule("M3")
async def test_once_enqueued_the_send_returns() -> None:
    """A cancellation after admission does not take back the message, and the sender is told so by returning."""
    box = Mailbox("a", MailboxSpec(capacity=1))
    returned = []

    async def send(scope: trio.CancelScope) -> None:
        with scope:
            await box.put(mail())
            returned.append(True)

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        box.put_nowait(mail())
        nursery.start_soon(send, scope)
        await trio.testing.wait_all_tasks_blocked()
        await take(box)  # admits the parked sender ...
        scope.cancel()  # ... that is cancelled before it runs
    assert returned == [True]
    assert box.statistics().queued == 1


@pytest.mark.rule("M3")
async def test_nowait_ignores_cancelled_scopes() -> None:
    """Like trio's own `*_nowait`, it is no checkpoint."""
    box = Mailbox("a", MailboxSpec(capacity=1))
    with trio.CancelScope() as scope:
        scope.cancel()
        box.put_nowait(mail())
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert box.statistics().queued == 1


@pytest.mark.rule("M3")
@pytest.mark.scenario(21)
async def test_a_thousand_parked_senders_half_of_them_cancelled() -> None:
    """The rest is admitted in order, and nothing of the cancelled ones remains."""
    box = Mailbox("a", MailboxSpec(capacity=1))
    box.put_nowait(mail(-1))
    scopes = [trio.CancelScope() for _ in range(1000)]

    async def send(number: int) -> None:
        with scopes[number]:
            await box.put(mail(number))

    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(send, number, name=str(number))
        await trio.testing.wait_all_tasks_blocked()
        order = [block[0].message.number for block in box._parked.values()]
        for scope in scopes[::2]:
            scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert box.statistics().parked == 500
        out = [await take(box) for _ in range(501)]
    assert numbers(out) == [-1, *(number for number in order if number % 2)]
    assert not box._parked
    check_counters(box)


# --- taking back --------------------------------------------------------------------------------------------


@pytest.mark.rule("C1")
async def test_an_abandoned_message_frees_its_place_at_once() -> None:
    """What its caller left is gone, is never read, and the next sender is in."""
    box = Mailbox("a", MailboxSpec(capacity=2))
    first, second, third = mail(0), mail(1), mail(2)
    box.put_nowait(first)
    box.put_nowait(second)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.put, third)
        await trio.testing.wait_all_tasks_blocked()
        assert box.abandon(first)
        assert not box.abandon(first)
        assert (first.state, third.state) == (State.ABANDONED, State.QUEUED)
    assert isinstance(first.error, Withdrawn)
    assert first.error.started is False
    assert numbers([await take(box), await take(box)]) == [1, 2]
    assert not box.abandon(second)
    check_counters(box)


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_unit_is_taken_back_whole(which: int) -> None:
    """Whichever message of a unit is withdrawn, all of it goes, and nothing of its neighbours."""
    box = Mailbox("a", MailboxSpec(capacity=10))
    before = [Envelope(Part(0)), Envelope(End(1))]
    unit = [Envelope(Part(2)), Envelope(Part(3)), Envelope(End(4))]
    between, after = mail(5), [Envelope(Part(6))]
    for envelope in (*before, *unit[:2], between, unit[2], *after):
        box.put_nowait(envelope)
    assert box.withdraw(unit[which])
    assert {envelope.state for envelope in unit} == {State.ABANDONED}
    assert all(envelope.observed for envelope in unit)
    for envelope in unit:
        with pytest.raises(Withdrawn):
            envelope.result()
    assert not box.withdraw(unit[which])
    assert numbers([await take(box) for _ in range(4)]) == [0, 1, 5, 6]
    check_counters(box)


async def test_a_unit_that_has_begun_is_not_taken_back() -> None:
    """Once its first message has been read, none of the others can be withdrawn, nor those that join it."""
    box = Mailbox("a", MailboxSpec(capacity=10))
    unit = [Envelope(Part(0)), Envelope(Part(1)), Envelope(End(2))]
    box.put_nowait(unit[0])
    box.put_nowait(unit[1])
    await take(box)
    box.put_nowait(unit[2])
    assert [box.withdraw(envelope) for envelope in unit] == [False, False, False]
    assert unit[1].state is unit[2].state is State.QUEUED
    assert numbers([await take(box), await take(box)]) == [1, 2]


async def test_a_message_of_a_unit_is_not_abandoned_alone() -> None:
    """A caller that leaves cannot tear a hole into a unit."""
    box = Mailbox("a", MailboxSpec(capacity=10))
    part = Envelope(Part(0))
    box.put_nowait(part)
    assert not box.abandon(part)
    assert part.state is State.QUEUED


async def test_a_message_of_no_unit_is_withdrawn_alone() -> None:
    """Withdrawing a plain message touches no other."""
    box = Mailbox("a", MailboxSpec(capacity=10))
    envelopes = [mail(number) for number in range(3)]
    for envelope in envelopes:
        box.put_nowait(envelope)
    assert box.withdraw(envelopes[1])
    assert numbers([await take(box), await take(box)]) == [0, 2]


# --- reading ------------------------------------------------------------------------------------------------


async def test_a_waiting_reader_gets_what_comes() -> None:
    """Readers that wait get one message each."""
    box = Mailbox("a", MailboxSpec(capacity=10))
    got: list[tuple[int, int]] = []

    async def read(reader: int) -> None:
        envelope = await take(box)
        got.append((reader, numbers([envelope])[0]))

    async with trio.open_nursery() as nursery:
        for reader in range(3):
            nursery.start_soon(read, reader)
            await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            box.put_nowait(mail(number))
    assert sorted(number for _, number in got) == [0, 1, 2]
    assert {reader for reader, _ in got} == {0, 1, 2}


@pytest.mark.rule("M7")
async def test_a_cancelled_reader_takes_nothing() -> None:
    """A reader that is cancelled while it waits, or before it looks, leaves every message where it is."""
    box = Mailbox("a", MailboxSpec(capacity=10))
    with trio.move_on_after(0):
        await take(box)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(get_in, box, scope, [])
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
    assert not box.idle
    box.put_nowait(mail(1))
    with trio.move_on_after(0):
        await take(box)
    assert box.statistics().queued == 1


async def get_in(
    box: Mailbox, scope: trio.CancelScope, into: list[Any], reader: Reader | None = None
) -> None:
    with scope:
        into.append(await take(box, reader))


@pytest.mark.parametrize("message_first", [True, False])
@pytest.mark.parametrize("how", ["retired", "cancelled", "both"])
async def test_a_reader_that_leaves_in_the_tick_of_a_message_loses_nothing(
    how: str, message_first: bool
) -> None:
    """Of two waiting readers one leaves as a message arrives: one of the two gets it.

    A reader that is retired, as it is before its incarnation is cancelled, leaves the message to the other one. One
    that was only cancelled has it, if the message came first.
    """
    box = Mailbox("a", MailboxSpec(capacity=10))
    by_first: list[Any] = []
    by_second: list[Any] = []
    first, second = Reader(box, []), Reader(box, [])
    scope = trio.CancelScope()

    def leave() -> None:
        if how != "cancelled":
            first.retired = True
            box.wake(first)
        if how != "retired":
            scope.cancel()

    async with trio.open_nursery() as nursery:
        for reader, its_scope, into in (
            (first, scope, by_first),
            (second, trio.CancelScope(), by_second),
        ):
            nursery.start_soon(get_in, box, its_scope, into, reader)
            await trio.testing.wait_all_tasks_blocked()
        if message_first:
            box.put_nowait(mail(7))
        leave()
        if not message_first:
            box.put_nowait(mail(7))
        await trio.testing.wait_all_tasks_blocked()
        has_it = by_first if how == "cancelled" and message_first else by_second
        assert numbers(has_it) == [7]
        nursery.cancel_scope.cancel()
    assert len([taken for taken in by_first + by_second if taken is not None]) == 1


async def test_a_stolen_message_sends_the_reader_back_to_wait() -> None:
    """A reader that was woken for a message another reader has taken meanwhile goes on waiting."""
    box = Mailbox("a", MailboxSpec(capacity=10))
    got: list[Any] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get_in, box, trio.CancelScope(), got)
        await trio.testing.wait_all_tasks_blocked()
        box.put_nowait(mail(1))
        stolen = box.take(Reader(box, []))
        assert stolen is not None
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        box.put_nowait(mail(2))
    assert numbers(got) == [2]


@pytest.mark.rule("M7")
async def test_one_schedule_point_per_message() -> None:
    """A long queue starves nobody: between any two messages every other runnable task has its turn."""
    box = Mailbox("a", MailboxSpec(capacity=200))
    for number in range(100):
        box.put_nowait(mail(number))
    turns = 0
    done = False

    async def other() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(100):
            await take(box)
        done = True
    assert 99 <= turns <= 102


@pytest.mark.rule("C3")
async def test_an_expired_message_is_not_read(autojump_clock: trio.abc.Clock) -> None:
    """What its sender cannot wait for any more is skipped, settled and counted; room is made for the next."""
    box = Mailbox("a", MailboxSpec(capacity=2))
    late, good = mail(0, deadline=trio.current_time() + 1), mail(1, deadline=trio.current_time() + 10)
    box.put_nowait(late)
    box.put_nowait(good)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.put, mail(2))
        await trio.sleep(5)
        assert numbers([await take(box), await take(box)]) == [1, 2]
    assert late.state is State.EXPIRED
    assert isinstance(late.error, Withdrawn)
    assert late.error.started is False
    check_counters(box)


async def test_a_reader_of_expired_mail_goes_on_waiting(autojump_clock: trio.abc.Clock) -> None:
    """If everything in the queue has expired, the reader waits for the next message."""
    box = Mailbox("a", MailboxSpec(capacity=2))
    box.put_nowait(mail(0, deadline=trio.current_time() - 1))
    async with trio.open_nursery() as nursery:
        got: list[Any] = []
        nursery.start_soon(get_in, box, trio.CancelScope(), got)
        await trio.sleep(1)
        assert got == []
        box.put_nowait(mail(1))
    assert numbers(got) == [1]


@pytest.mark.rule("M3", "M4")
async def test_nobody_overtakes_a_block_that_waits() -> None:
    """A message that would fit does not pass a block of two that does not fit yet."""
    box = Mailbox("a", MailboxSpec(capacity=3))
    reader, late = Reader(box, []), mail(4)
    block = (mail(2), mail(3))
    for number in range(2):
        await box.put(mail(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.put_block, block)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(box.put, late)
        await trio.testing.wait_all_tasks_blocked()
        assert late.seq == -1
        for _ in range(2):
            taken = await take(box, reader)
            taken.settle(None)
            box.done(reader)
        await trio.testing.wait_all_tasks_blocked()
        assert [envelope.seq for envelope in (*block, late)] == [2, 3, 4]
