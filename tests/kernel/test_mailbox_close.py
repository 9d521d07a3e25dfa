"""How a mailbox ends."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

from tinker_actors.errors import (
    ActorError,
    ActorStopped,
    ActorStopping,
    MailboxFull,
    ServiceClosing,
    TinkerActorsError,
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


async def get_in(box: Mailbox, scope: trio.CancelScope, into: list[Any]) -> None:
    with scope:
        into.append(await take(box))


async def read_all(box: Mailbox, into: list[Envelope[Any]]) -> None:
    while (envelope := await take(box)) is not None:
        into.append(envelope)


# --- closing ------------------------------------------------------------------------------------------------


@pytest.mark.rule("D1")
async def test_draining_refuses_senders_and_serves_readers() -> None:
    """What is queued is still read, new and parked senders are refused in the same step, then readers end."""
    box = Mailbox("tree/a", MailboxSpec(capacity=2))
    drained: list[str] = []
    box.when_drained(lambda: drained.append("now"))
    box.put_nowait(mail(0))
    box.put_nowait(mail(1))
    refused: list[TinkerActorsError] = []

    async def send() -> None:
        try:
            await box.put(mail(9))
        except ActorStopping as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        box.drain("is stopping")
        box.drain("is stopping again")
        assert not box.is_open
        assert box.statistics().parked == 0
        with pytest.raises(ActorStopping, match=r"tree/a is stopping$"):
            box.put_nowait(mail(9))
        await send()
    assert len(refused) == 2
    assert refused[0] is not refused[1]
    assert all(error.started is False for error in refused)
    assert drained == []
    out: list[Envelope[Any]] = []
    await read_all(box, out)
    assert numbers(out) == [0, 1]
    assert drained == ["now"]
    check_counters(box)


@pytest.mark.parametrize("how", ["drain", "close"])
async def test_an_idle_reader_hears_of_the_end(how: str) -> None:
    """Readers that wait when the mailbox closes get None, all of them."""
    box = Mailbox("a", MailboxSpec(capacity=2))
    got: list[Any] = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(get_in, box, trio.CancelScope(), got)
        await trio.testing.wait_all_tasks_blocked()
        getattr(box, how)("has stopped")
    assert got == [None, None, None]


@pytest.mark.rule("M2", "A2")
async def test_closing_settles_everything_in_one_step() -> None:
    """Queued messages and parked senders have their errors before `close` returns; each has its own."""
    box = Mailbox("tree/a", MailboxSpec(capacity=2))
    cause = ValueError("cause")
    queued = [mail(0), mail(1, asked=False)]
    for envelope in queued:
        box.put_nowait(envelope)
    errors: list[ActorStopped] = []

    async def send() -> None:
        try:
            await box.put(mail(9))
        except ActorStopped as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        assert box.close("has failed", cause) == [queued[1]]  # the one that nobody waits for
        for envelope in queued:
            assert envelope.state is State.SETTLED
            assert isinstance(envelope.error, ActorStopped)
            assert not isinstance(envelope.error, ActorStopping)
            assert envelope.error.started is False
            assert envelope.error.__cause__ is cause
        assert box.statistics() == attrs.evolve(box.statistics(), queued=0, parked=0, rejected=2)
    assert [error.__cause__ for error in errors] == [cause]
    assert queued[0].error is not queued[1].error
    with pytest.raises(ActorStopped, match="tree/a has failed"):
        await box.put(mail())
    check_counters(box)


@pytest.mark.rule("M8")
async def test_while_the_owner_is_on_its_way_out_the_error_says_so() -> None:
    """Between a stop and the end, senders get `ActorStopping`; afterwards `ActorStopped`."""
    box = Mailbox("a", MailboxSpec(capacity=2))
    box.close("is stopping", stopping=True)
    with pytest.raises(ActorStopping):
        box.put_nowait(mail())
    box.close("has stopped")
    with pytest.raises(ActorStopped) as caught:
        box.put_nowait(mail())
    assert type(caught.value) is ActorStopped


async def test_senders_get_the_error_of_the_refusal() -> None:
    """The owner may say "the service is closing" in place of the kernel's words, everywhere."""

    def refusal(error: ActorStopped) -> TinkerActorsError:
        closing = ServiceClosing()
        closing.__cause__ = error
        return closing

    box = Mailbox("a", MailboxSpec(capacity=1), refusal)
    queued = mail()
    box.put_nowait(queued)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(ServiceClosing):
                await box.put(mail())

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        box.close("has stopped")
    assert isinstance(queued.error, ServiceClosing)
    with pytest.raises(ServiceClosing):
        box.put_nowait(mail())


async def test_a_refusal_that_fails_is_isolated(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal's own exception is logged, and nobody is left without an outcome."""

    def refusal(error: ActorStopped) -> TinkerActorsError:
        raise RuntimeError("refusal")

    box = Mailbox("a", MailboxSpec(capacity=2), refusal)
    queued = [mail(0), mail(1)]
    for envelope in queued:
        box.put_nowait(envelope)
    box.close("has stopped")
    assert [type(envelope.error) for envelope in queued] == [ActorStopped, ActorStopped]
    assert "the refusal failed" in caplog.text


async def test_drained_is_told_once_however_it_comes_about() -> None:
    """By the last read, by the last withdrawal, or at once if nothing is queued."""
    told: list[str] = []
    empty, withdrawn = Mailbox("a", MailboxSpec(capacity=2)), Mailbox("b", MailboxSpec(capacity=2))
    empty.when_drained(lambda: told.append("empty"))
    withdrawn.when_drained(lambda: told.append("withdrawn"))
    envelope = mail()
    withdrawn.put_nowait(envelope)
    empty.drain("is stopping")
    withdrawn.drain("is stopping")
    assert told == ["empty"]
    withdrawn.withdraw(envelope)
    withdrawn.close("has stopped")
    empty.close("has stopped")
    assert told == ["empty", "withdrawn"]


@pytest.mark.rule("M4")
async def test_many_senders_keep_their_own_order() -> None:
    """Whatever the interleaving, each task's messages are read in the order in which it sent them."""
    box = Mailbox("a", MailboxSpec(capacity=3))
    out: list[Envelope[Any]] = []

    async def send(sender: int) -> None:
        for number in range(30):
            await box.put(mail(100 * sender + number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, box, out)
        async with trio.open_nursery() as senders:
            for sender in range(5):
                senders.start_soon(send, sender)
        box.drain("is stopping")
    for sender in range(5):
        own = [number for number in numbers(out) if number // 100 == sender]
        assert own == [100 * sender + number for number in range(30)]
    assert [envelope.seq for envelope in out] == list(range(150))


@pytest.mark.rule("M8")
def test_errors_of_mailboxes_are_errors_of_actors() -> None:
    """One `except ActorError` catches whatever a mailbox says."""
    assert all(issubclass(kind, ActorError) for kind in (ActorStopped, MailboxFull, Withdrawn))
