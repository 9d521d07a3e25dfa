from __future__ import annotations

import math
from typing import cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.retry import (
    Again,
    DedupeMode,
    Failure,
    backoff_delay,
    decide,
    parse_retry_after,
)
from tinker_actors.wire.endpoint import OnDoubt

FAILURES = {
    "no-connection": Failure(sent=False),
    "cut-off": Failure(sent=True),
    "408": Failure(sent=True, status=408),
    "429": Failure(sent=True, status=429),
    "500": Failure(sent=True, status=500),
    "599": Failure(sent=True, status=599),
    "500+true": Failure(sent=True, status=500, should_retry=True),
    "400+true": Failure(sent=True, status=400, should_retry=True),
    "500+false": Failure(sent=True, status=500, should_retry=False),
    "429+false": Failure(sent=True, status=429, should_retry=False),
    "400": Failure(sent=True, status=400),
    "401": Failure(sent=True, status=401),
    "402": Failure(sent=True, status=402),
    "404": Failure(sent=True, status=404),
    "409": Failure(sent=True, status=409),
    "410": Failure(sent=True, status=410),
    "422": Failure(sent=True, status=422),
    "unreadable": Failure(sent=True, status=200),
}
COLUMNS: list[tuple[OnDoubt, DedupeMode]] = [
    ("resend", "none"),
    ("numbered", "replay"),
    ("numbered", "reject"),
    ("numbered", "none"),
    ("give_up", "replay"),
]
#                resend   numbered, numbered, numbered, give_up
#                         replay    reject    none
TABLE = """
no-connection    again    again     again     again     again
cut-off          again    again     raise     raise     raise
408              again    again     raise     raise     raise
429              again    again     again     again     again
500              again    again     raise     raise     raise
599              again    again     raise     raise     raise
500+true         again    again     again     again     again
400+true         again    again     again     again     again
500+false        raise    raise     raise     raise     raise
429+false        raise    raise     raise     raise     raise
400              raise    raise     raise     raise     raise
401              raise    raise     raise     raise     raise
402              raise    raise     raise     raise     raise
404              raise    raise     raise     raise     raise
409              raise    raise     raise     raise     raise
410              raise    raise     raise     raise     raise
422              raise    raise     raise     raise     raise
unreadable       raise    raise     raise     raise     raise
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]

failures = st.builds(
    Failure,
    sent=st.booleans(),
    status=st.none() | st.integers(100, 599),
    retry_after=st.none() | st.floats(0, allow_infinity=False),
    should_retry=st.none() | st.booleans(),
)
modes = st.sampled_from(cast("tuple[DedupeMode, ...]", get_args(DedupeMode)))
doubts = st.sampled_from(cast("tuple[OnDoubt, ...]", get_args(OnDoubt)))
chances = st.floats(0, 1, exclude_max=True)


def test_the_table_has_every_failure() -> None:
    """No row is missing."""
    assert [name for name, *_ in ROWS] == list(FAILURES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_happens_is_what_the_table_says(row: list[str]) -> None:
    """Refusals are tried again; what is doubtful only where that cannot do harm; the rest is final."""
    name, *expected = row
    for (on_doubt, dedupe), word in zip(COLUMNS, expected, strict=True):
        verdict = decide(FAILURES[name], attempt=0, retries=1, on_doubt=on_doubt, dedupe=dedupe, chance=0.0)
        assert ("raise" if verdict is None else "again") == word, (on_doubt, dedupe)


@given(failures, doubts, modes, chances, st.integers(0, 20), st.integers(0, 20))
def test_never_more_than_the_retries_allowed(
    failure: Failure, on_doubt: OnDoubt, dedupe: DedupeMode, chance: float, retries: int, extra: int
) -> None:
    """Whatever happened, after `retries` further attempts the failure is raised."""
    spent = retries + extra
    assert (
        decide(failure, attempt=spent, retries=retries, on_doubt=on_doubt, dedupe=dedupe, chance=chance)
        is None
    )


@given(failures, doubts, modes, chances, st.integers(0, 10_000))
def test_a_doubtful_send_is_repeated_only_where_it_may_be(
    failure: Failure, on_doubt: OnDoubt, dedupe: DedupeMode, chance: float, attempt: int
) -> None:
    """Nothing is sent twice that the service may have done and would do again."""
    verdict = decide(
        failure, attempt=attempt, retries=20_000, on_doubt=on_doubt, dedupe=dedupe, chance=chance
    )
    if failure.doubtful and not failure.refused:
        by_mode = on_doubt in ("numbered", "named")
        harmless = on_doubt in ("resend", "create") or (by_mode and dedupe == "replay")
        assert (verdict is not None) == (harmless and failure.should_retry is not False)
    if verdict is not None:
        assert isinstance(verdict, Again)
        assert 0 < verdict.delay <= 60


@given(st.none() | st.text(max_size=12), st.none() | st.text(max_size=12), st.integers(0, 10_000), chances)
def test_no_header_makes_a_delay_wrong(
    milliseconds: str | None, seconds: str | None, attempt: int, chance: float
) -> None:
    """Any text in the headers gives a number of seconds or nothing, and a delay between 0 and 60 s."""
    asked = parse_retry_after(milliseconds, seconds)
    assert asked is None or (asked >= 0 and math.isfinite(asked))
    assert 0 < backoff_delay(attempt, asked, chance) <= 60


@given(st.integers(0, 10_000), chances)
def test_delays_grow_to_ten_seconds_with_a_quarter_of_jitter(attempt: int, chance: float) -> None:
    """Half a second, doubled each time, less at most a quarter."""
    full = min(0.5 * 2 ** min(attempt, 10), 10.0)
    assert 0.75 * full <= backoff_delay(attempt, None, chance) <= full
    assert backoff_delay(attempt, None, 0.0) == full


def test_the_delays_in_numbers() -> None:
    """As the official client waits, without jitter."""
    assert [backoff_delay(n, None, 0.0) for n in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@pytest.mark.parametrize(
    ("asked", "delay"),
    [(0.05, 0.05), (60.0, 60.0), (60.1, 0.5), (0.0, 0.5), (-1.0, 0.5), (math.inf, 0.5), (math.nan, 0.5)],
)
def test_what_the_service_asks_for_counts_within_a_minute(asked: float, delay: float) -> None:
    """Nothing, a nonsense and more than a minute leave it to the doubling."""
    assert backoff_delay(0, asked, 0.0) == delay


@pytest.mark.parametrize(
    ("milliseconds", "seconds", "value"),
    [
        (None, None, None),
        ("50", None, 0.05),
        (None, "0.1", 0.1),
        ("50", "7", 0.05),
        ("soon", "7", 7.0),
        ("-1", "7", 7.0),
        (None, "0", 0.0),
        (None, "inf", None),
        (None, "nan", None),
        (None, "-3", None),
        (None, "1e400", None),
        (None, "Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("", "", None),
    ],
)
def test_headers_are_read_as_numbers(
    milliseconds: str | None, seconds: str | None, value: float | None
) -> None:
    """Milliseconds come first; what is no finite number of seconds is as if it were not there."""
    assert parse_retry_after(milliseconds, seconds) == value


def test_doubtful_and_refused_exclude_each_other() -> None:
    """A send that the service may have carried out is no refusal."""
    assert [name for name, failure in FAILURES.items() if failure.doubtful and failure.refused] == []
    assert [name for name, failure in FAILURES.items() if failure.doubtful] == [
        "cut-off",
        "408",
        "500",
        "599",
        "500+false",
    ]
