"""What a full mailbox does with one more message, and how big messages are."""

from __future__ import annotations

import logging
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorRestarting, Dropped, HandlerCrashed, InputError, MailboxFull
from tinker_actors.kernel import Coalesce, DeadLetter, Message
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.instrument import Sight
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.overflow import MailboxSpec
from tinker_actors.kernel.reader import Reader


class Role:
    pass


@attrs.frozen
class Mail(Message[Role, Any]):
    number: int = 0
    size: int = 1


class Other(Mail):
    pass


def size_of(message: Any) -> int:
    """Give what the message says; one of size 0 cannot be measured."""
    assert message.size
    return int(message.size)


def by_parity(message: Any) -> int | None:
    """Coalesce by parity; messages of another type are not coalesced, and number 13 breaks the key."""
    assert message.number != 13
    return None if isinstance(message, Other) else message.number % 2


def tell(number: int = 0, size: int = 1) -> Envelope[Any]:
    return Envelope(Mail(number, size), asked=False)


def ask(number: int = 0, size: int = 1) -> Envelope[Any]:
    return Envelope(Mail(number, size))


async def rest(box: Mailbox) -> list[int]:
    """Take what waits, and say which numbers that was."""
    found = []
    while not box.is_empty:
        reader = Reader(box, [])
        envelope: Any = await box.get(reader)
        envelope.settle(None)
        box.done(reader)
        found.append(envelope.message.number)
    check_counters(box)
    return found


def check_counters(box: Mailbox) -> None:
    """The rule every mailbox keeps at every moment."""
    seen = box.statistics()
    ended = seen.handled + seen.failed + seen.abandoned + seen.expired + seen.dropped + seen.rejected
    assert seen.admitted == ended + seen.queued + seen.running


def open_box(letters: list[Any], **settings: Any) -> Mailbox:
    return Mailbox("a", MailboxSpec(**settings), sight=Sight(letters.append))


def reasons(letters: list[DeadLetter]) -> list[tuple[str, int]]:
    return [(letter.reason, letter.seq) for letter in letters]


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.rule("M1")
@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"capacity": 0}, "capacity"),
        ({"capacity": 2.5}, "capacity"),
        ({"capacity": True}, "capacity"),
        ({"max_bytes": 0, "size_of": size_of}, "max_bytes"),
        ({"max_bytes": 1.5, "size_of": size_of}, "max_bytes"),
        ({"max_bytes": 10}, "max_bytes"),
        ({"size_of": size_of}, "max_bytes"),
        ({"overflow": "explode"}, "overflow"),
        ({"overflow": None}, "overflow"),
        ({"overflow": by_parity}, "overflow"),
    ],
)
def test_wrong_bounds_are_refused(settings: dict[str, Any], field: str) -> None:
    """A bound that is no bound, or half of a pair, is refused where it is written."""
    with pytest.raises(InputError) as caught:
        MailboxSpec(**settings)
    assert caught.value.field == field


def test_a_spec_refuses_them_as_well(stage: Any) -> None:
    """The same holds for the spec of a child, before anything is started."""
    for wrong in ({"capacity": 0}, {"max_bytes": 5}, {"overflow": "explode"}):
        with pytest.raises(InputError):
            stage.spec(**wrong)


def test_without_a_measure_nothing_has_a_size() -> None:
    """Bytes do not count, and there are no keys, unless somebody asked for them."""
    spec = MailboxSpec()
    assert spec.measure(Mail(1, 100)) == 0
    assert spec.key(Mail(1)) is None


def test_a_measure_that_raises_counts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What `size_of` or a key raises is logged with the message's type, and keeps no message out."""
    spec = MailboxSpec(max_bytes=10, size_of=size_of, overflow=Coalesce(by_parity))
    assert spec.measure(Mail(1, 7)) == 7
    assert spec.key(Mail(3)) == 1
    with caplog.at_level(logging.ERROR, "tinker_actors.kernel"):
        assert spec.measure(Mail(1, 0)) == 0
        assert spec.key(Mail(13)) is None
    assert [record.getMessage() for record in caplog.records] == [
        "size_of failed on Mail",
        "the key of Mail failed",
    ]


# --- policies -----------------------------------------------------------------------------------------------


@pytest.mark.rule("M5")
async def test_block_waits_in_order(autojump_clock: trio.abc.Clock) -> None:
    """Senders of a full mailbox wait, and get in one by one, in the order in which they came."""
    letters: list[Any] = []
    box = open_box(letters, capacity=1)
    box.put_nowait(tell(0))
    async with trio.open_nursery() as nursery:
        for number in (1, 2, 3):
            nursery.start_soon(box.put, tell(number))
            await trio.testing.wait_all_tasks_blocked()
        assert box.statistics().parked == 3
        with pytest.raises(MailboxFull):
            box.put_nowait(tell(4))
        found = []
        for _ in range(4):
            reader = Reader(box, [])
            envelope: Any = await box.get(reader)
            envelope.settle(None)
            box.done(reader)
            found.append(envelope.message.number)
    assert found == [0, 1, 2, 3]
    assert letters == []


@pytest.mark.rule("M5")
async def test_fail_tells_how_full_it_is() -> None:
    """The sender gets `MailboxFull` with depth and capacity; the message was never admitted."""
    letters: list[Any] = []
    box = open_box(letters, capacity=2, overflow="fail")
    await box.put_block((tell(0), tell(1)))
    with pytest.raises(MailboxFull) as caught:
        await box.put(ask(2))
    assert (caught.value.depth, caught.value.capacity, caught.value.started) == (2, 2, False)
    with pytest.raises(MailboxFull):
        box.put_nowait(tell(2))
    with pytest.raises(MailboxFull):
        await box.put_block((tell(2), tell(3)))
    assert box.statistics().refused == 4
    assert box.statistics().admitted == 2
    assert await rest(box) == [0, 1]
    assert letters == []


async def test_the_error_names_bytes_where_they_count() -> None:
    """A mailbox that is full of bytes says how many."""
    box = open_box([], capacity=5, max_bytes=10, size_of=size_of, overflow="fail")
    box.put_nowait(tell(0, 8))
    with pytest.raises(MailboxFull, match=r"holds 1 of 5 messages and 8 of 10 bytes"):
        box.put_nowait(tell(1, 3))
    box.put_nowait(tell(2, 2))
    assert await rest(box) == [0, 2]


@pytest.mark.rule("M5")
async def test_drop_new_drops_what_comes() -> None:
    """What is in line stays; what comes is counted, buried, and answered if somebody waits."""
    letters: list[Any] = []
    box = open_box(letters, capacity=2, overflow="drop_new")
    await box.put_block((tell(0), tell(1)))
    await box.put(tell(2))
    box.put_nowait(tell(3))
    asked = ask(4)
    box.put_nowait(asked)
    with pytest.raises(Dropped) as caught:
        asked.result()
    assert caught.value.started is False
    assert caught.value.handed_back == Mail(4)
    check_counters(box)
    assert await rest(box) == [0, 1]
    assert reasons(letters) == [("dropped", 2), ("dropped", 3), ("dropped", 4)]
    assert box.statistics().dropped == 3


@pytest.mark.rule("M5")
async def test_drop_old_drops_what_waited_longest() -> None:
    """The newest messages are there, in order; the oldest ones are answered with `Dropped`."""
    letters: list[Any] = []
    box = open_box(letters, capacity=3, overflow="drop_old")
    first = ask(0)
    box.put_nowait(first)
    for number in (1, 2, 3):
        await box.put(tell(number))
    with pytest.raises(Dropped):
        first.result()
    await box.put_block((tell(4), tell(5)))
    check_counters(box)
    assert await rest(box) == [3, 4, 5]
    assert reasons(letters) == [("dropped", 0), ("dropped", 1), ("dropped", 2)]


async def test_drop_old_makes_room_for_bytes() -> None:
    """As many of the oldest go as the new one needs."""
    letters: list[Any] = []
    box = open_box(letters, capacity=9, max_bytes=10, size_of=size_of, overflow="drop_old")
    for number in range(5):
        box.put_nowait(tell(number, 2))
    box.put_nowait(tell(5, 5))
    assert box.statistics().queued_bytes == 9
    assert await rest(box) == [3, 4, 5]
    assert box.statistics().dropped == 3
    box.put_nowait(tell(6, 2))
    box.put_nowait(tell(7, 50))
    assert box.statistics().queued_bytes == 50
    assert await rest(box) == [7]


@pytest.mark.rule("M5")
async def test_a_policy_reaches_the_sender_only(stage: Any) -> None:
    """A handler that tells a full actor may catch `MailboxFull`, or let its ask be dropped, and lives on."""
    async with stage.open() as tree:
        for policy, error in (("fail", MailboxFull), ("drop_new", Dropped)):
            full = await stage.start(tree, f"full-{policy}", capacity=1, overflow=policy)
            sender = await stage.start(tree, f"sender-{policy}")
            stay = trio.Event()
            await full.tell(stage.Do(lambda _, stay=stay: stay.wait()))
            await trio.testing.wait_all_tasks_blocked()
            await full.tell(stage.Do(stage.say(policy)))

            async def run(_: Any, full: Any = full, error: Any = error) -> str:
                with pytest.raises(error):
                    await full.ask(stage.Do(stage.say("lost")))
                return "lives"

            assert await sender.ask(stage.Do(run)) == "lives"
            stay.set()
    assert stage.log == ["fail", "drop_new"]
    assert stage.delays == []


# --- coalescing ---------------------------------------------------------------------------------------------


@pytest.mark.rule("M5")
async def test_only_the_newest_of_a_key_stays() -> None:
    """It takes the place of the newest, and the older one is a dead letter `coalesced`."""
    letters: list[Any] = []
    box = open_box(letters, capacity=3, overflow=Coalesce(by_parity))
    for number in (0, 1, 2):
        box.put_nowait(tell(number))
    assert box.statistics().queued == 2
    assert reasons(letters) == [("coalesced", 0)]
    assert box.statistics().dropped == 1
    assert await rest(box) == [1, 2]


async def test_what_has_no_key_is_not_coalesced() -> None:
    """Asks, messages whose key is None, and those whose key cannot be told, all stay."""
    letters: list[Any] = []
    box = open_box(letters, capacity=9, overflow=Coalesce(by_parity))
    box.put_nowait(ask(2))
    box.put_nowait(Envelope(Other(4), asked=False))
    box.put_nowait(tell(13))
    box.put_nowait(tell(6))
    box.put_nowait(ask(8))
    box.put_nowait(tell(10))
    assert await rest(box) == [2, 4, 13, 8, 10]
    assert reasons(letters) == [("coalesced", 3)]


async def test_a_full_line_still_coalesces() -> None:
    """The place of the older one is the room for the newer one; without an older one, its sender waits."""
    box = open_box([], capacity=2, overflow=Coalesce(by_parity))
    box.put_nowait(tell(0))
    box.put_nowait(tell(1))
    box.put_nowait(tell(2))
    with pytest.raises(MailboxFull):
        box.put_nowait(ask(4))
    assert await rest(box) == [1, 2]


async def test_nobody_waits_while_there_is_room(autojump_clock: trio.abc.Clock) -> None:
    """A message that coalesces while others wait for room leaves no place empty that one of them could have."""
    letters: list[Any] = []
    box = open_box(letters, capacity=1, overflow=Coalesce(by_parity))
    box.put_nowait(tell(0))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for number in (1, 2):
                nursery.start_soon(box.put, tell(number))
                await trio.testing.wait_all_tasks_blocked()
            assert box.statistics().queued == 1
            found = await rest(box)
    assert sorted(found) == [1, 2]
    assert reasons(letters) == [("coalesced", 0)]
    assert box.statistics().parked == 0


async def test_the_older_one_stays_until_the_newer_one_is_in(autojump_clock: trio.abc.Clock) -> None:
    """A sender that is cancelled while it waits for room leaves the message that it would have replaced."""
    letters: list[Any] = []
    box = open_box(letters, capacity=9, max_bytes=10, size_of=size_of, overflow=Coalesce(by_parity))
    box.put_nowait(tell(0, 4))
    box.put_nowait(ask(1, 6))
    with trio.move_on_after(1) as waiting:
        await box.put(tell(2, 8))
    assert waiting.cancelled_caught
    assert await rest(box) == [0, 1]
    assert letters == []


async def test_a_parked_message_coalesces_when_it_gets_in(autojump_clock: trio.abc.Clock) -> None:
    """Of two of a key that waited for room, only the newer one stays in line."""
    letters: list[Any] = []
    box = open_box(letters, capacity=2, overflow=Coalesce(by_parity))
    box.put_nowait(ask(1))
    box.put_nowait(ask(1))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for number in (2, 4):
                nursery.start_soon(box.put, tell(number))
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(2):  # both get in before either is read
                reader = Reader(box, [])
                envelope: Any = await box.get(reader)
                envelope.settle(None)
                box.done(reader)
            assert await rest(box) == [4]
    assert reasons(letters) == [("coalesced", 2)]


# --- bytes --------------------------------------------------------------------------------------------------


@pytest.mark.rule("M1")
async def test_bytes_bound_the_line(autojump_clock: trio.abc.Clock) -> None:
    """Messages wait for bytes as they wait for places, and the count of bytes returns to zero."""
    box = open_box([], capacity=9, max_bytes=10, size_of=size_of)
    box.put_nowait(tell(0, 6))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.put, tell(1, 5))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(box.put, tell(2, 1))  # it would fit, but it is not its turn
        await trio.testing.wait_all_tasks_blocked()
        seen = box.statistics()
        assert (seen.queued, seen.queued_bytes, seen.parked, seen.max_bytes) == (1, 6, 2, 10)
        assert await rest(box) == [0, 1, 2]
    assert box.statistics().queued_bytes == 0


async def test_one_larger_than_everything_passes_alone(autojump_clock: trio.abc.Clock) -> None:
    """A message that can never fit is admitted when nothing else waits, and nothing beside it."""
    box = open_box([], capacity=9, max_bytes=10, size_of=size_of)
    box.put_nowait(tell(0, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.put, tell(1, 100))
        await trio.testing.wait_all_tasks_blocked()
        assert box.statistics().parked == 1
        reader = Reader(box, [])
        first: Any = await box.get(reader)
        first.settle(None)
        box.done(reader)
        assert box.statistics().queued_bytes == 100
        with pytest.raises(MailboxFull):
            box.put_nowait(tell(2, 1))
        assert await rest(box) == [1]
    box.put_nowait(tell(3, 1))
    assert await rest(box) == [3]


async def test_a_message_that_leaves_takes_its_bytes_with_it(autojump_clock: trio.abc.Clock) -> None:
    """A caller that left frees the bytes of its message, and who waited for them gets in."""
    box = open_box([], capacity=9, max_bytes=10, size_of=size_of)
    big = ask(0, 9)
    box.put_nowait(big)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.put, tell(1, 9))
        await trio.testing.wait_all_tasks_blocked()
        assert box.abandon(big)
        assert (box.statistics().queued, box.statistics().queued_bytes) == (1, 9)
        check_counters(box)
    assert await rest(box) == [1]


async def test_a_cancelled_large_block_lets_smaller_ones_in(autojump_clock: trio.abc.Clock) -> None:
    """Who stands first and is cancelled holds up nobody that fits; who stands later and leaves changes nothing."""
    box = open_box([], capacity=9, max_bytes=10, size_of=size_of)
    box.put_nowait(tell(0, 6))
    large, last = trio.CancelScope(), trio.CancelScope()

    async def put(scope: trio.CancelScope, envelope: Envelope[Any]) -> None:
        with scope:
            await box.put(envelope)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, large, tell(1, 9))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(box.put, tell(2, 3))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(put, last, tell(3, 3))
        await trio.testing.wait_all_tasks_blocked()
        last.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert (box.statistics().queued, box.statistics().parked) == (1, 2)
        large.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert (box.statistics().queued, box.statistics().parked) == (2, 0)
    assert await rest(box) == [0, 2]


async def test_a_block_is_measured_whole() -> None:
    """`submit_many` waits for the bytes of all of its messages."""
    box = open_box([], capacity=9, max_bytes=10, size_of=size_of, overflow="fail")
    await box.put_block((tell(0, 4), tell(1, 4)))
    with pytest.raises(MailboxFull):
        await box.put_block((tell(2, 1), tell(3, 2)))
    await box.put_block((tell(4, 1), tell(5, 1)))
    assert await rest(box) == [0, 1, 4, 5]


async def test_a_block_must_be_able_to_fit(stage: Any) -> None:
    """A block of nothing, or of more than the mailbox ever holds, is refused instead of waited for."""
    async with stage.open() as tree:
        ref = await stage.start(tree, capacity=2)
        with pytest.raises(InputError) as caught:
            await ref.submit_many([])
        assert caught.value.field == "messages"
        with pytest.raises(InputError, match="more than the 2") as caught:
            await ref.submit_many([stage.Do(stage.say(number)) for number in range(3)])
        assert caught.value.field == "len(messages)"
        assert ref.statistics().admitted == 0


async def test_parked_asks_are_handed_back_at_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """With `fail_fast`, asks that wait for room hear of the restart at once; tells go on waiting, and get in."""
    heard: list[str] = []
    async with stage.open() as tree:
        ref = await stage.start(tree, capacity=1, on_restart="fail_fast")
        bad = await ref.submit(stage.Do(crash_at(1)))
        await trio.testing.wait_all_tasks_blocked()

        async def ask_parked() -> None:
            with pytest.raises(ActorRestarting) as caught:
                await ref.ask(stage.Do(stage.say("never")))
            assert caught.value.started is False
            heard.append(f"ask at {trio.current_time()}")

        async with trio.open_nursery() as nursery:
            await ref.tell(stage.Do(stage.say("in line")))
            nursery.start_soon(ask_parked)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ref.tell, stage.Do(stage.say("parked")))
            await trio.testing.wait_all_tasks_blocked()
            assert ref.statistics().parked == 2
            with pytest.raises(HandlerCrashed):
                await bad
        await ref.stop()
    assert heard == ["ask at 1.0"]
    assert stage.log == ["in line", "parked"]


def crash_at(seconds: float) -> Any:
    """Crash after a while."""

    async def run(_: Any) -> None:
        await trio.sleep(seconds)
        raise ValueError

    return run
