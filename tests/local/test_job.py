from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import ConflictError, InputError, RateLimitError
from tinker_actors.local.job import Job, JobQueue, SequenceLog


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


def put(queue: JobQueue, number: int, body: bytes = b"") -> str:
    """Accept a request as the service does; returns its request id, or that of its first arrival."""
    digest = body or b"body %d" % number
    first = queue.repeated(number, digest)
    if first is not None:
        return first
    request_id = f"id of {number} {digest!r}"
    queue.put(Job(number, request_id, "forward", nothing), digest)
    return request_id


def taken(queue: JobQueue) -> list[int]:
    numbers = []
    while (job := queue.take()) is not None:
        numbers.append(job.number)
    return numbers


@given(order=st.permutations(range(12)), turns=st.lists(st.booleans(), min_size=12, max_size=12))
def test_jobs_run_in_sequence_whatever_order_they_arrive_in(order: list[int], turns: list[bool]) -> None:
    """Every permutation of arrivals, with the worker looking in at any moments, runs as 0, 1, 2, ..."""
    queue = JobQueue()
    ran: list[int] = []
    for number, look in zip(order, turns, strict=True):
        put(queue, number)
        assert queue.queued + queue.parked + len(ran) <= 12
        if look:
            ran += taken(queue)
            assert queue.queued == 0
    ran += taken(queue)
    assert ran == list(range(12))
    assert (queue.queued, queue.parked) == (0, 0)


@given(arrivals=st.lists(st.integers(0, 7), min_size=1, max_size=40))
def test_repetitions_get_the_first_id_and_run_once(arrivals: list[int]) -> None:
    """However often and late numbers are repeated, each runs once and keeps its first request id."""
    queue, ids, ran = JobQueue(), {}, []
    for number in arrivals:
        assert put(queue, number) == ids.setdefault(number, f"id of {number} b'body {number}'")
        if number % 3 == 0:
            ran += taken(queue)
    ran += taken(queue)
    assert ran == list(range(len(ran)))


@pytest.mark.parametrize("when", ["parked", "queued", "run"])
def test_a_number_with_another_body_is_refused(when: str) -> None:
    """Whether the first request waits or has run, another one under its number is 409."""
    queue = JobQueue()
    number = 5 if when == "parked" else 0
    put(queue, number, b"first")
    if when == "run":
        assert taken(queue) == [0]
    with pytest.raises(ConflictError, match="sequence number was reused") as caught:
        put(queue, number, b"second")
    assert caught.value.status_code == 409
    assert put(queue, number, b"first") == f"id of {number} b'first'"


def test_early_numbers_are_parked_up_to_a_limit() -> None:
    """Beyond the limit early numbers get 429 with a time to come again; the missing one is always welcome."""
    queue = JobQueue(max_parked=2)
    put(queue, 3)
    put(queue, 1)
    with pytest.raises(RateLimitError, match="parked until number 0") as caught:
        put(queue, 2)
    assert caught.value.retry_after == 1
    assert (queue.queued, queue.parked, taken(queue)) == (0, 2, [])
    put(queue, 0)
    assert (queue.queued, queue.parked) == (2, 1)
    put(queue, 2)
    assert taken(queue) == [0, 1, 2, 3]


def test_the_queue_is_bounded() -> None:
    """Beyond `max_queued` jobs the next one gets 429 and has not taken its number."""
    queue = JobQueue(max_queued=3)
    for number in range(3):
        put(queue, number)
    with pytest.raises(RateLimitError, match="3 requests are queued"):
        put(queue, 3)
    assert queue.take() is not None
    put(queue, 3)
    assert taken(queue) == [1, 2, 3]


def test_what_is_no_longer_remembered_is_refused_not_run_again() -> None:
    """A repetition that comes after its first arrival was forgotten is 409."""
    queue = JobQueue(remembered=2)
    for number in range(4):
        put(queue, number)
    assert taken(queue) == [0, 1, 2, 3]
    assert put(queue, 3) == "id of 3 b'body 3'"
    with pytest.raises(ConflictError, match="1 is long done, 4 is due"):
        put(queue, 1)


def test_negative_numbers_are_refused() -> None:
    """Sequences start at 0."""
    with pytest.raises(InputError, match="seq_id = -1"):
        put(JobQueue(), -1)


def test_a_log_forgets_the_oldest() -> None:
    """A log of two entries knows the last two."""
    log = SequenceLog(2)
    for number in range(3):
        log.note(number, b"x", f"id {number}")
    assert [log.repeated(number, b"x") for number in range(3)] == [None, "id 1", "id 2"]
