from __future__ import annotations

import math
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tinker_actors.protocol.aimd import AdaptiveLimit
from tinker_actors.protocol.backoff import SampleBackoff
from tinker_actors.protocol.throttle import (
    DISPATCH_BYTES,
    INFLIGHT_RESPONSE_BYTES,
    SAMPLE_DISPATCH_BYTES,
    BytesSemaphore,
    Priority,
    SampleThrottle,
    Ticket,
    sample_bytes,
)
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageAssetPointerChunk, ImageChunk
from tinker_actors.wire.input import ModelInput

SHORT = settings(max_examples=150, stateful_step_count=30)

# --- bytes -----------------------------------------------------------------------------------------------


def test_the_budgets_are_tinkers() -> None:
    """Of 0.38.0, where the service sets no others."""
    assert SAMPLE_DISPATCH_BYTES == 10_485_760
    assert INFLIGHT_RESPONSE_BYTES == 52_428_800
    assert DISPATCH_BYTES == 50_000_000


def test_one_request_may_stand_beyond_the_budget() -> None:
    """The next ones wait until it is no longer negative, and then go in order."""
    budget = BytesSemaphore(10)
    assert budget.take(100)
    assert not budget.take(0)
    first, second, third = (budget.enqueue(size) for size in (20, 1, 1))
    assert budget.waiting == 3
    assert budget.give(89) == []
    assert budget.give(1) == [first]
    assert (first.weight, budget.free) == (20, -20)
    assert not budget.take(1)
    assert budget.give(30) == [second, third]
    assert (budget.free, budget.waiting) == (8, 0)


def test_nobody_overtakes_who_waits_for_bytes() -> None:
    """Not even with a small request when there would be room."""
    budget = BytesSemaphore(0)
    budget.take(1)
    waiting = budget.enqueue(5)
    budget.free = 3  # as if room had come and nobody had been told yet
    assert not budget.take(1)
    assert budget.leave(waiting) == []
    assert budget.take(1)


def test_who_leaves_makes_room() -> None:
    """From the line, or with what it was given in the meantime."""
    budget = BytesSemaphore(0)
    budget.take(1)
    gone, second = budget.enqueue(5), budget.enqueue(7)
    assert budget.leave(gone) == []
    assert budget.give(1) == [second]
    third = budget.enqueue(1)
    assert budget.leave(second) == [third]
    assert budget.free == -1


class BytesModel(RuleBasedStateMachine):
    """A budget against the plainest model of it: a number, a list of holders and a queue."""

    @initialize(size=st.integers(0, 50))
    def start(self, size: int) -> None:
        self.size = size
        self.budget = BytesSemaphore(size)
        self.held: list[int] = []
        self.line: deque[Ticket] = deque()

    def expect(self, admitted: list[Ticket]) -> None:
        for ticket in admitted:
            assert ticket is self.line.popleft()  # first in, first out
            assert ticket.admitted
            assert self.size - sum(self.held) >= 0
            self.held.append(ticket.weight)
        if self.line:  # nobody who has room is left waiting
            assert self.size - sum(self.held) < 0

    @rule(size=st.integers(0, 80))
    def take(self, size: int) -> None:
        could = self.size - sum(self.held) >= 0 and not self.line
        assert self.budget.take(size) is could
        if could:
            self.held.append(size)
        else:
            self.line.append(self.budget.enqueue(size))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        size = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.expect(self.budget.give(size))

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = self.line[data.draw(st.integers(0, len(self.line) - 1))]
        self.line.remove(ticket)
        self.expect(self.budget.leave(ticket))

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "budget"):
            return
        assert self.budget.free == self.size - sum(self.held)
        assert self.budget.waiting == len(self.line)
        assert sum(sorted(self.held)[:-1]) <= self.size or self.size - sum(self.held) >= -max(self.held)


def test_a_budget_is_its_model() -> None:
    """Never beyond by more than one request, first in first out, no lost wake-up."""
    run_state_machine_as_test(BytesModel, settings=SHORT)


# --- samples ---------------------------------------------------------------------------------------------


def throttle(free: int = SAMPLE_DISPATCH_BYTES, most: int = 10**6) -> SampleThrottle:
    return SampleThrottle(SampleBackoff(), AdaptiveLimit(most), free)


@pytest.mark.lesson("D24")
def test_what_a_sample_is_taken_to_weigh() -> None:
    """Ten bytes a token; images and audio weigh their bytes, pointers their text."""
    chunks = [
        EncodedTextChunk([1, 2, 3]),
        ImageChunk(b"12345", "png"),
        ImageAssetPointerChunk("png", "a://b"),
        DmelChunk(b"1234567"),
    ]
    assert sample_bytes(ModelInput(chunks)) == 30 + 5 + 5 + 7


@pytest.mark.requirement("R127")
def test_four_hundred_are_submitted_at_once() -> None:
    """The next one goes when one of them is done."""
    gate = throttle()
    weights = [gate.enter(1000, now=0.0) for _ in range(400)]
    assert set(weights) == {1000}
    assert gate.enter(1000, now=0.0) is None
    ticket = gate.enqueue(1000)
    assert (gate.first, gate.waiting) == (ticket, 1)
    assert gate.admit(now=0.0) == []
    assert gate.next_change(now=0.0) == math.inf
    gate.leave(1000)
    assert gate.admit(now=0.0) == [ticket]
    assert (gate.running, ticket.weight, gate.first) == (400, 1000, None)


@pytest.mark.lesson("L11")
def test_after_a_refusal_ten_go_and_each_weighs_more() -> None:
    """From the end of the pause on, for ten seconds."""
    gate = throttle()
    gate.backoff.refused(now=100.0, retry_after=5.0)
    assert gate.enter(1, now=104.9) is None
    assert gate.is_throttled(104.9)
    assert gate.next_change(now=104.9) == 105.0
    assert [gate.enter(7, now=105.0) for _ in range(11)] == [140] * 10 + [None]
    assert gate.next_change(now=105.0) == 115.0
    assert gate.enter(7, now=114.9) is None
    assert not gate.is_throttled(115.0)
    assert gate.enter(7, now=115.0) == 7
    assert gate.next_change(now=115.0) == math.inf


def test_bytes_hold_samples_back_too() -> None:
    """One may stand beyond the budget, and the weight of a throttled time is given back as it was taken."""
    gate = throttle(100)
    gate.backoff.refused(now=0.0, retry_after=1.0)
    weight = gate.enter(6, now=1.0)
    assert weight == 120
    assert gate.enter(0, now=1.0) is None
    gate.leave(weight)
    assert gate.free == 100


@pytest.mark.requirement("R127")
def test_nobody_overtakes_a_waiting_sample() -> None:
    """Room that came back belongs to who came first."""
    gate = throttle(0)
    assert gate.enter(5, now=0.0) == 5
    first, second = gate.enqueue(5), gate.enqueue(5)
    gate.leave(5)
    assert gate.enter(0, now=0.0) is None
    gate.give_up(first)
    assert gate.admit(now=0.0) == [second]
    gate.give_up(second)
    assert (gate.running, gate.free) == (0, 0)


def test_a_sample_holds_its_place_until_it_has_ended() -> None:
    """Being submitted and being in flight are two things; a sample that was not submitted is neither."""
    gate = throttle(most=2)
    first, second = gate.enter(5, now=0.0), gate.enter(5, now=0.0)
    assert first == second == 5
    gate.submitted(5)
    assert (gate.running, gate.in_flight) == (1, 2)
    assert gate.enter(5, now=0.0) is None
    ticket = gate.enqueue(5)
    gate.leave(5)
    assert (gate.running, gate.in_flight) == (0, 1)
    assert gate.admit(now=0.0) == [ticket]
    gate.submitted(5)
    gate.ended()
    gate.ended()
    assert (gate.running, gate.in_flight, gate.free) == (0, 0, SAMPLE_DISPATCH_BYTES)


def test_refusals_and_pauses_lower_the_limit() -> None:
    """A refusal also moves the clock; what had been promised counts, and so does what is promised later."""
    gate = throttle(most=100)
    for _ in range(40):
        gate.enter(1, now=0.0)
    for _ in range(20):
        gate.submitted(1)
    gate.refused(1, now=0.0, retry_after=3.0, generation=0)
    assert (gate.limit.allowed, gate.backoff.until) == (18, 3.0)
    gate.leave(1)
    for _ in range(10):
        gate.submitted(1)
    assert gate.limit.allowed == 27
    for _ in range(30):
        gate.ended()
    assert gate.limit.allowed == 27  # nobody had to wait
    gate.paused()
    assert gate.limit.allowed == 1


def test_who_comes_back_waits_before_those_who_were_never_sent() -> None:
    """In order among themselves."""
    gate = throttle(0)
    assert gate.enter(1, now=0.0) == 1
    fresh = [gate.enqueue(0) for _ in range(2)]
    back = [gate.enqueue(0, again=True) for _ in range(2)]
    assert gate.waiting == 4
    gate.give_up(back[0])
    gate.leave(1)
    assert gate.admit(now=0.0) == [back[1], *fresh]


def test_evaluations_go_first_and_training_does_not_starve() -> None:
    """After three evaluations that were preferred, one sample of training goes; alone, each lane goes as it comes."""
    gate = throttle(0)
    gate.enter(1, now=0.0)
    for lane in ("training", "evaluation"):
        for _ in range(8):
            gate.enqueue(0, "evaluation" if lane == "evaluation" else "training")
    gate.leave(1)
    lanes = "".join(ticket.lane[0] for ticket in gate.admit(now=0.0))
    assert lanes == "eeeteeeteetttttt"
    assert gate.first is None


class ThrottleModel(RuleBasedStateMachine):
    """The throttle under any events: bounded, in order, and nobody waits who could go."""

    @initialize(free=st.integers(0, 300), most=st.integers(1, 30) | st.just(1000))
    def start(self, free: int, most: int) -> None:
        self.gate = throttle(free, most)
        self.size = free
        self.now = 0.0
        self.held: list[int] = []
        self.promised = 0
        self.lines: dict[tuple[str, bool], deque[Ticket]] = {
            (lane, again): deque() for lane in ("training", "evaluation") for again in (True, False)
        }

    def waiting(self, lane: str) -> list[Ticket]:
        return [*self.lines[lane, True], *self.lines[lane, False]]

    def limit(self) -> int:
        return 10 if self.gate.is_throttled(self.now) else 400

    def settle(self) -> None:
        for ticket in self.gate.admit(now=self.now):
            assert ticket is self.waiting(ticket.lane)[0]
            self.forget(ticket)
            self.took(ticket.weight, ticket.size)

    def forget(self, ticket: Ticket) -> None:
        next(line for line in self.lines.values() if ticket in line).remove(ticket)

    def took(self, weight: int, size: int) -> None:
        assert self.now >= self.gate.backoff.until
        assert len(self.held) < self.limit()
        assert self.size - sum(self.held) >= 0
        assert weight == size * (20 if self.limit() == 10 else 1)
        self.held.append(weight)

    @rule(
        sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30),
        lane=st.sampled_from(["training", "evaluation"]),
        again=st.booleans(),
    )
    def enter(self, sizes: list[int], lane: Priority, again: bool) -> None:
        for size in sizes:
            weight = None if again else self.gate.enter(size, now=self.now)
            if weight is None:
                self.lines[lane, again].append(self.gate.enqueue(size, lane, again=again))
            else:
                assert not any(self.lines.values())
                self.took(weight, size)
        self.settle()

    @precondition(lambda self: self.held)
    @rule(count=st.integers(1, 20), refused=st.none() | st.floats(0, 20))
    def leave(self, count: int, refused: float | None) -> None:
        if refused is not None:
            generation = self.gate.limit.generation
            self.gate.refused(1, now=self.now, retry_after=refused, generation=generation)
        for _ in range(min(count, len(self.held))):
            self.gate.leave(self.held.pop(0))
        self.settle()

    @precondition(lambda self: self.held)
    @rule(count=st.integers(1, 20))
    def submitted(self, count: int) -> None:
        for _ in range(min(count, len(self.held))):
            self.gate.submitted(self.held.pop(0))
            self.promised += 1
        self.settle()

    @precondition(lambda self: self.promised)
    @rule(count=st.integers(1, 20))
    def ended(self, count: int) -> None:
        for _ in range(min(count, self.promised)):
            self.gate.ended()
            self.promised -= 1
        self.settle()

    @rule()
    def paused(self) -> None:
        self.gate.paused()

    @precondition(lambda self: any(self.lines.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiting = self.waiting("training") + self.waiting("evaluation")
        ticket = data.draw(st.sampled_from(waiting))
        self.forget(ticket)
        self.gate.give_up(ticket)
        self.settle()

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        """Let time pass as a driver does: from one change to the next."""
        end = self.now + seconds
        while (change := self.gate.next_change(now=self.now)) <= end:
            assert change > self.now
            self.now = change
            self.settle()
        self.now = end

    @invariant()
    def nobody_waits_who_could_go(self) -> None:
        if not hasattr(self, "gate"):
            return
        gate = self.gate
        waiting = self.waiting("training") + self.waiting("evaluation")
        assert (gate.running, gate.waiting) == (len(self.held), len(waiting))
        assert gate.in_flight == len(self.held) + self.promised
        assert gate.free == self.size - sum(self.held)
        if not waiting:
            assert gate.first is None
            return
        assert gate.first in [line[0] for lane in ("training", "evaluation") if (line := self.waiting(lane))]
        held_back = self.now < gate.backoff.until
        full = gate.in_flight >= gate.limit.allowed
        assert held_back or full or gate.free < 0 or len(self.held) >= self.limit()


def test_the_throttle_is_its_model() -> None:
    """Never over a limit, first in first out, no lost wake-up."""
    run_state_machine_as_test(ThrottleModel, settings=SHORT)
