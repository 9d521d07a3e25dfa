"""Subscriptions: what one gets, what one loses, how they end."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.service_ref import ServiceRef
from tinker_actors.actors.waits import Waits
from tinker_actors.errors import InputError
from tinker_actors.protocol.event import (
    HeartbeatMissed,
    Lagged,
    LoopBlocked,
    ModelLostEvent,
    OrphanPossible,
    SessionRenewed,
)


def test_a_channel_that_was_dropped_is_forgotten() -> None:
    """A loop that subscribes at each step and closes nothing does not fill the memory with channels and events."""
    hub = EventHub()
    kept = hub.subscribe()
    for _ in range(100):
        hub.subscribe().__enter__()
    assert hub.subscribers == 1
    hub.publish(missed(1))
    assert drain(kept) == [missed(1)]
    hub.close()
    assert kept.closed is False


async def test_a_reader_that_is_cancelled_takes_no_event_along() -> None:
    """What it was about to get, another reader gets, or the next call."""
    hub = EventHub()
    channel = hub.subscribe()
    for number in range(3):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                got: list[Any] = []

                async def read(got: list[Any] = got) -> None:
                    got.append(await channel.receive())

                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                hub.publish(missed(number))
                scope.cancel()
        assert [*got, *drain(channel)] == [missed(number)]
    hub.publish(missed(9))
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.receive()
    assert drain(channel) == [missed(9)]


def missed(number: int) -> HeartbeatMissed:
    return HeartbeatMissed("s", float(number))


def ref_of(hub: EventHub) -> ServiceRef:
    return ServiceRef(hub, Waits(hub), lambda _: None)


def drain(channel: Any) -> list[Any]:
    found = []
    while True:
        try:
            found.append(channel.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return found


async def test_every_subscriber_has_what_it_asked_for() -> None:
    """All events, or those of the named kinds, from now on."""
    hub = EventHub()
    ref = ref_of(hub)
    hub.publish(missed(0))
    everything, beats = ref.subscribe(), ref.subscribe(HeartbeatMissed)
    two = ref.subscribe(HeartbeatMissed, SessionRenewed)
    many = ref.subscribe(HeartbeatMissed, SessionRenewed, LoopBlocked, ModelLostEvent)
    renewed, blocked = SessionRenewed("s", 2), LoopBlocked(1.0, "there")
    for event in (missed(1), renewed, blocked):
        hub.publish(event)
    assert drain(everything) == [missed(1), renewed, blocked]
    assert drain(beats) == [missed(1)]
    assert drain(two) == [missed(1), renewed]
    assert drain(many) == [missed(1), renewed, blocked]


async def test_a_subscriber_that_lags_is_told_how_many_it_lost() -> None:
    """In the place where they are missing; the newest are kept, and nobody else loses any."""
    hub = EventHub()
    ref = ref_of(hub)
    slow, quick = ref.subscribe(max_buffer=2), ref.subscribe()
    for number in range(5):
        hub.publish(missed(number))
    assert drain(slow) == [Lagged(3), missed(3), missed(4)]
    assert drain(quick) == [missed(number) for number in range(5)]
    for number in range(5, 8):
        hub.publish(missed(number))
    assert drain(slow) == [Lagged(1), missed(6), missed(7)]
    assert (slow.dropped, quick.dropped) == (4, 0)


async def test_a_subscriber_of_one_kind_gets_no_other() -> None:
    """What it lost stands in `dropped`; whoever names `Lagged` gets that too."""
    hub = EventHub()
    ref = ref_of(hub)
    plain, told = (
        ref.subscribe(HeartbeatMissed, max_buffer=1),
        ref.subscribe(HeartbeatMissed, Lagged, max_buffer=1),
    )
    for number in range(3):
        hub.publish(missed(number))
    assert (drain(plain), plain.dropped) == ([missed(2)], 2)
    assert (drain(told), told.dropped) == ([Lagged(2), missed(2)], 2)


async def test_a_loop_over_a_subscription_ends_with_the_service(autojump_clock: Any) -> None:
    """What was published before is read to its end, by a reader that waits as well."""
    hub = EventHub()
    early, late = hub.subscribe(), hub.subscribe()
    seen: list[Any] = []

    async def listen() -> None:
        seen.extend([event async for event in early])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        hub.publish(missed(1))
        await trio.testing.wait_all_tasks_blocked()
        assert seen == []  # a list comes when the loop has ended
        hub.publish(missed(2))
        hub.close()
    assert seen == [missed(1), missed(2)]
    assert [event async for event in late] == [missed(1), missed(2)]
    with pytest.raises(trio.EndOfChannel):
        late.receive_nowait()


async def test_a_subscription_to_what_has_ended_is_over_at_once() -> None:
    """Nobody waits for events of a service that was left."""
    hub = EventHub()
    hub.close()
    assert [event async for event in hub.subscribe()] == []
    assert hub.subscribers == 0


async def test_leaving_the_block_ends_the_subscription() -> None:
    """Both kinds of block; a reader that waits is told, and the hub forgets the channel."""
    hub = EventHub()
    with hub.subscribe() as channel:
        hub.publish(missed(1))
    with pytest.raises(trio.ClosedResourceError):
        channel.receive_nowait()
    async with trio.open_nursery() as nursery, hub.subscribe() as other:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await other.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
    hub.publish(missed(2))
    assert (channel.closed, other.closed) == (True, True)
    assert hub.subscribers == 0


async def test_readers_share_a_subscription() -> None:
    """Each event goes to one of them."""
    hub = EventHub()
    channel = hub.subscribe()
    seen: list[Any] = []

    async def read() -> None:
        seen.append(await channel.receive())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            hub.publish(missed(number))
    assert sorted(event.seconds for event in seen) == [0.0, 1.0, 2.0]


async def test_reading_is_a_checkpoint() -> None:
    """Also where an event lies ready."""
    hub = EventHub()
    channel = hub.subscribe()
    hub.publish(missed(1))
    with trio.testing.assert_checkpoints():
        await channel.receive()
    with trio.testing.assert_checkpoints():
        await channel.aclose()


async def test_a_reader_that_leaves_loses_nothing() -> None:
    """An event that comes when it is cancelled stays for the next."""
    hub = EventHub()
    channel = hub.subscribe()
    with trio.move_on_after(0):
        await channel.receive()
    hub.publish(missed(1))
    with trio.move_on_after(0) as scope:
        await channel.receive()
    assert scope.cancelled_caught
    assert drain(channel) == [missed(1)]


def test_a_subscription_names_what_it_is() -> None:
    """Its kinds, how many wait, how many are lost."""
    hub = EventHub()
    one, all_ = hub.subscribe((OrphanPossible, Lagged)), hub.subscribe(max_buffer=1)
    hub.publish(missed(1))
    hub.publish(missed(2))
    assert repr(one) == "<EventChannel of OrphanPossible, Lagged, 0 waiting, 0 dropped>"
    assert repr(all_) == "<EventChannel of all events, 1 waiting, 1 dropped>"


def test_what_is_no_event_is_refused() -> None:
    """Before anything is waited for in vain."""
    ref = ref_of(EventHub())
    with pytest.raises(InputError, match="kinds"):
        ref.subscribe(int)
    for wrong in (0, None, "9", 1.5):
        with pytest.raises(InputError, match="max_buffer"):
            ref.subscribe(max_buffer=wrong)  # type: ignore[call-overload]  # that is what is refused


def test_a_listener_that_fails_keeps_nothing_from_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; one that has ended is not called any more."""
    hub = EventHub()
    channel, heard = hub.subscribe(), []

    def bad(event: Any) -> None:
        raise ValueError("mine")

    hub.listen(bad)
    end = hub.listen(heard.append)
    hub.publish(missed(1))
    end()
    hub.publish(missed(2))
    assert drain(channel) == [missed(1), missed(2)]
    assert heard == [missed(1)]
    assert caplog.messages == ["a function that is told of events failed on a HeartbeatMissed"] * 2
