"""The mailbox against a plain list: whatever is done to it, it is a queue of units."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import MailboxFull
from tinker_actors.kernel import Message
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.overflow import MailboxSpec
from tinker_actors.kernel.reader import Reader


class Role:
    pass


@attrs.frozen
class Mail(Message[Role, Any]):
    number: int = 0


class Part(Mail):
    unit = "part"


class End(Mail):
    unit = "end"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([Mail, Part, End])),
        st.tuples(st.just("take"), st.none()),
        st.tuples(st.sampled_from(["withdraw", "abandon"]), st.integers(0, 30)),
    ),
    max_size=40,
)


def take(box: Mailbox) -> Envelope[Any] | None:
    """Take the next message, as a reader of its own that stays with it."""
    return box.take(Reader(box, []))


@attrs.define
class Model:
    """What a mailbox must hold, and what it must answer.

    Attributes:
        capacity: of the mailbox.
        queue: what must be queued, in order.
        sent: everything that was ever admitted.
        units: the unit of each message that has one.
        begun: units of which something was taken.
        unit: the open unit.
    """

    capacity: int
    queue: list[Envelope[Any]] = attrs.field(factory=list)
    sent: list[Envelope[Any]] = attrs.field(factory=list)
    units: dict[Envelope[Any], int] = attrs.field(factory=dict)
    begun: set[int] = attrs.field(factory=set)
    unit: int = 0

    def put(self, box: Mailbox, kind: type[Mail]) -> None:
        envelope = Envelope(kind(len(self.sent)))
        if len(self.queue) == self.capacity:
            with pytest.raises(MailboxFull):
                box.put_nowait(envelope)
            return
        box.put_nowait(envelope)
        self.sent.append(envelope)
        self.queue.append(envelope)
        if kind is not Mail:
            self.units[envelope] = self.unit
            self.unit += kind is End

    def take(self, box: Mailbox, _: None) -> None:
        taken = take(box)
        assert taken is (self.queue.pop(0) if self.queue else None)
        if taken in self.units:
            self.begun.add(self.units[taken])

    def withdraw(self, box: Mailbox, which: int) -> None:
        if self.sent:
            envelope = self.sent[which % len(self.sent)]
            unit = self.units.get(envelope)
            possible = envelope in self.queue and unit not in self.begun
            group = (
                [envelope]
                if unit is None
                else [other for other in self.queue if self.units.get(other) == unit]
            )
            self._take_back(possible, group)
            assert box.withdraw(envelope) is possible

    def abandon(self, box: Mailbox, which: int) -> None:
        if self.sent:
            envelope = self.sent[which % len(self.sent)]
            possible = envelope in self.queue and envelope not in self.units
            self._take_back(possible, [envelope])
            assert box.abandon(envelope) is possible

    def _take_back(self, possible: bool, group: list[Envelope[Any]]) -> None:
        if possible:
            self.queue = [other for other in self.queue if other not in group]


def check_counters(box: Mailbox) -> None:
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


@pytest.mark.rule("M1", "M4")
@given(st.integers(1, 5), STEPS)
def test_a_mailbox_is_a_queue_of_units(capacity: int, steps: list[tuple[str, Any]]) -> None:
    """Order, bound, units and counters are right after every step, and the close settles what is left."""

    async def main() -> None:
        await trio.lowlevel.checkpoint()
        box, model = Mailbox("a", MailboxSpec(capacity=capacity)), Model(capacity)
        for step, argument in steps:
            getattr(model, step)(box, argument)
            assert list(box.line) == model.queue
            check_counters(box)
        box.close("has stopped")
        for envelope in model.sent:
            assert envelope.settled is (envelope.state is not State.RUNNING)
        check_counters(box)

    trio.run(main)
