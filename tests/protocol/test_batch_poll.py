from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    TinkerError,
    status_error_class,
)
from tinker_actors.protocol.batch_poll import Alone, BatchPoll, Broken, Completion, Poll, Ready


def status(code: int, retry_after: float | None = None) -> APIStatusError:
    retryable = code in (408, 429) or code >= 500
    return status_error_class(code)("no", status_code=code, retryable=retryable, retry_after=retry_after)


def long_poll(machine: BatchPoll) -> Poll:
    poll = machine.next_poll()
    assert poll is not None
    assert poll.waits
    return poll


# --- cursors and acknowledgements -------------------------------------------------------------------------


def test_nothing_is_asked_while_nobody_waits() -> None:
    """The first sample is what begins it."""
    machine = BatchPoll()
    assert machine.next_poll() is None
    assert machine.last_poll() is None
    assert machine.wait("a") is None
    assert machine.next_poll() == Poll(0, (), waits=True)
    assert long_poll(machine).deadline == 45.0


def test_each_poll_says_back_the_last_cursor() -> None:
    """From 0 on."""
    machine = BatchPoll()
    machine.wait("a")
    assert machine.answered(long_poll(machine), 7, []) == {}
    assert machine.next_poll() == Poll(7, (), waits=True)
    assert machine.answered(long_poll(machine), 9, [Completion("a", 100)]) == {"a": Ready(100)}


def test_one_poll_acknowledges_when_nobody_waits_any_more() -> None:
    """It does not wait; after it there is none."""
    machine = BatchPoll()
    machine.wait("a")
    machine.answered(long_poll(machine), 3, [Completion("a")])
    acknowledgement = machine.next_poll()
    assert acknowledgement is not None
    assert acknowledgement == Poll(3, (), waits=False)
    assert acknowledgement.deadline == 5.0
    assert machine.answered(acknowledgement, 3, []) == {}
    assert machine.next_poll() is None


def test_fetched_results_are_told_until_a_poll_has_succeeded() -> None:
    """Sorted, once, and again after a failure; what is fetched meanwhile goes with the next."""
    machine = BatchPoll()
    machine.wait("a")
    machine.fetched("z")
    machine.fetched("b")
    poll = long_poll(machine)
    assert poll.retrieved == ("b", "z")
    assert machine.failed(status(503)) == 1.0
    assert long_poll(machine).retrieved == ("b", "z")
    poll = long_poll(machine)
    machine.fetched("c")
    machine.answered(poll, 0, [])
    assert long_poll(machine).retrieved == ("c",)


def test_a_last_poll_says_what_the_service_does_not_know() -> None:
    """Also while somebody waits: it is sent when the client leaves."""
    machine = BatchPoll()
    machine.wait("a")
    assert machine.last_poll() is None
    machine.fetched("b")
    assert machine.last_poll() == Poll(0, ("b",), waits=False)


# --- who waits --------------------------------------------------------------------------------------------


def test_a_completion_before_anybody_asked_is_kept_and_given_once() -> None:
    """The answer to the submission may come after that of the poll."""
    machine = BatchPoll()
    machine.wait("a")
    machine.answered(long_poll(machine), 1, [Completion("b", 5)])
    assert machine.wait("b") == Ready(5)
    assert machine.wait("b") is None


def test_a_waiter_that_is_not_served_is_served_by_a_later_poll() -> None:
    """However many others were."""
    machine = BatchPoll()
    machine.wait("a")
    machine.wait("b")
    assert machine.answered(long_poll(machine), 1, [Completion("a")]) == {"a": Ready(0)}
    assert machine.answered(long_poll(machine), 2, [Completion("b")]) == {"b": Ready(0)}


def test_what_nobody_waits_for_may_be_deleted() -> None:
    """Whether it ends before or after the last one has left; one who comes back is waited for again."""
    machine = BatchPoll()
    machine.wait("a")
    machine.wait("c")
    machine.leave("a")
    machine.leave("c")
    machine.leave("unknown")
    assert machine.next_poll() is None
    machine.wait("c")
    news = [Completion("a"), Completion("b"), Completion("c")]
    assert machine.answered(long_poll(machine), 1, news) == {"c": Ready(0)}
    machine.leave("b")
    assert machine.next_poll() == Poll(1, ("a", "b"), waits=False)
    assert machine.wait("b") is None


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        (status(408), 1.0),
        (status(429), 1.0),
        (status(429, 7.0), 7.0),
        (status(429, 1e300), 30.0),
        (status(500), 1.0),
        (APIConnectionError("cut", doubtful=True), 1.0),
    ],
    ids=["408", "429", "429-asking", "429-asking-too-much", "500", "cut"],
)
def test_passing_trouble_is_waited_out(error: Any, delay: float) -> None:
    """However long it lasts."""
    machine = BatchPoll()
    machine.wait("a")
    for _ in range(50):
        assert machine.failed(error) == delay
    assert not machine.ended
    assert machine.answered(long_poll(machine), 1, [Completion("a")]) == {"a": Ready(0)}


def test_a_400_that_may_be_tried_again_is_no_bad_request() -> None:
    """It comes from something before the service, and is waited out as a 503 is."""
    machine = BatchPoll()
    machine.wait("a")
    turned_away = status_error_class(400)("no", status_code=400, should_retry=True)
    assert [machine.failed(turned_away) for _ in range(10)] == [1.0] * 10
    assert not machine.ended


def test_three_bad_requests_are_forgiven() -> None:
    """In a row; the fourth is the end."""
    machine = BatchPoll()
    machine.wait("a")
    assert [machine.failed(status(400)) for _ in range(3)] == [1.0] * 3
    machine.answered(long_poll(machine), 1, [])
    assert [machine.failed(status(400)) for _ in range(3)] == [1.0] * 3
    end = machine.failed(status(400))
    assert isinstance(end, dict)
    assert isinstance(end["a"], Broken)


def test_an_account_that_cannot_be_charged_pauses_or_ends_it() -> None:
    """As long as the window is open."""
    machine = BatchPoll()
    machine.wait("a")
    assert machine.failed(status(402), billing_pause=5.0) == 5.0
    assert isinstance(machine.failed(status(402), billing_pause=None), dict)
    assert machine.ended


@pytest.mark.requirement("R76")
@pytest.mark.parametrize("error", [status(403), APIResponseValidationError("odd", ["x"])], ids=str)
def test_any_other_failure_is_told_to_all(error: Any) -> None:
    """To who waits now and who comes later; a completion that was recorded wins, once."""
    machine = BatchPoll()
    for name in ("a", "b"):
        machine.wait(name)
    machine.answered(long_poll(machine), 1, [Completion("c", 3)])
    end = machine.failed(error)
    assert isinstance(end, dict)
    assert set(end) == {"a", "b"}
    told = end["a"]
    assert isinstance(told, Broken)
    assert isinstance(told.error, TinkerError)
    assert told.error.__cause__ is error
    assert machine.wait("late") is told
    assert machine.wait("c") == Ready(3)
    assert machine.wait("c") is told
    machine.fetched("c")
    assert (machine.next_poll(), machine.last_poll(), machine.ended) == (None, None, True)


@pytest.mark.parametrize("code", [404, 405])
def test_a_service_without_the_call_leaves_everybody_to_himself(code: int) -> None:
    """It is no failure of a sample."""
    machine = BatchPoll()
    machine.wait("a")
    assert machine.failed(status(code)) == {"a": Alone()}
    assert machine.wait("b") == Alone()


# --- any sequence -----------------------------------------------------------------------------------------

NAMES = st.sampled_from([f"r{i}" for i in range(6)])


class PollModel(RuleBasedStateMachine):
    """The machine against a service that forgets nothing until it is told to, and a network that loses answers."""

    @initialize()
    def start(self) -> None:
        self.machine = BatchPoll()
        self.log: list[str] = []  # the service's completions; the cursor counts them
        self.acknowledged = 0
        self.deleted: set[str] = set()
        self.waiting: set[str] = set()
        self.served: set[str] = set()
        self.fetched: set[str] = set()
        self.gone: set[str] = set()  # who left does not come back here

    @rule(name=NAMES)
    def wait(self, name: str) -> None:
        if name in self.waiting | self.served | self.deleted | self.gone:
            return
        found = self.machine.wait(name)
        if found is None:
            self.waiting.add(name)
        else:
            assert found == Ready(len(name))
            assert name in self.log
            self.served.add(name)

    @precondition(lambda self: self.waiting)
    @rule()
    def leave(self) -> None:
        name = min(self.waiting)
        self.machine.leave(name)
        self.waiting.remove(name)
        self.gone.add(name)

    @rule(name=NAMES)
    def complete(self, name: str) -> None:
        if name not in self.log:
            self.log.append(name)

    @rule(arrives=st.booleans(), returns=st.booleans())
    def poll(self, arrives: bool, returns: bool) -> None:
        poll = self.machine.next_poll()
        if poll is None:
            assert not self.waiting
            assert self.deleted >= self.fetched
            return
        assert poll.waits is bool(self.waiting)
        assert list(poll.retrieved) == sorted(set(poll.retrieved))
        if arrives:
            assert poll.prev_cursor >= self.acknowledged  # it never goes back
            self.acknowledged = poll.prev_cursor
            self.deleted.update(poll.retrieved)
            assert self.deleted.isdisjoint(self.served - self.fetched)
            assert self.deleted.isdisjoint(self.waiting)
        if not (arrives and returns):
            self.machine.failed(status(503))
            return
        news = [Completion(name, len(name)) for name in self.log[poll.prev_cursor :]]
        found = self.machine.answered(poll, len(self.log), news)
        assert set(found) == {one.request_id for one in news} & self.waiting
        self.waiting -= set(found)
        self.served |= set(found)

    @precondition(lambda self: self.served - self.fetched)
    @rule()
    def fetch(self) -> None:
        name = min(self.served - self.fetched)
        assert name not in self.deleted  # the service was not told before it was fetched
        self.machine.fetched(name)
        self.fetched.add(name)

    def teardown(self) -> None:
        """Everybody whose sample ends is served, and in the end the service knows everything."""
        for _ in range(3):
            self.poll(arrives=True, returns=True)
        assert self.waiting.isdisjoint(self.log)
        for name in self.served - self.fetched:
            self.machine.fetched(name)
        last = self.machine.last_poll()
        if last is not None:
            self.deleted.update(last.retrieved)
            assert last.prev_cursor <= len(self.log)
        assert self.served <= self.deleted <= self.served | self.gone


def test_every_sample_that_ends_is_found_once() -> None:
    """Whatever is lost on the way; nothing is deleted before it was fetched, and in the end everything is."""
    run_state_machine_as_test(PollModel, settings=settings(max_examples=100, stateful_step_count=30))
