"""The rule of retries: its table row by row, its headers, its billing pause, and who is to blame."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    ConflictError,
    RequestFailedError,
    status_error_class,
)
from tinker_actors.protocol.retry import (
    Again,
    Applied,
    BillingPause,
    DedupeMode,
    Failure,
    Look,
    Rule,
    Sends,
    Stop,
    Verdict,
    backoff_delay,
    decide,
    decide_conflict,
    failure_of,
    parse_retry_after,
    says_early,
    says_used,
)
from tinker_actors.wire.endpoint import OnDoubt
from tinker_actors.wire.endpoints import ENDPOINTS

USED = "Sequence conflict: expected 7, got 6"  # TuFT
EARLY = "Sequence conflict: expected 7, got 8"  # TuFT
REUSED = "sequence number was reused"  # SkyRL
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
    "402+false": Failure(sent=True, status=402, should_retry=False),
    "403": Failure(sent=True, status=403),
    "404": Failure(sent=True, status=404),
    "409": Failure(sent=True, status=409, text="409"),
    "409-used": Failure(sent=True, status=409, text=USED),
    "410": Failure(sent=True, status=410),
    "422": Failure(sent=True, status=422),
    "unreadable": Failure(sent=True, status=200),
}
COLUMNS: list[tuple[OnDoubt, DedupeMode]] = [
    ("resend", "none"),
    ("create", "none"),
    ("named", "none"),
    ("numbered", "replay"),
    ("numbered", "reject"),
    ("numbered", "none"),
    ("give_up", "replay"),
]
#                resend   create   named    numbered, numbered, numbered, give_up
#                                           replay    reject    none
FIRST = """
no-connection    again    again    again    again     again     again     again
cut-off          again    orphan   again    again     again     fence     stop
408              again    orphan   again    again     again     fence     stop
429              again    again    again    again     again     again     again
500              again    orphan   again    again     again     fence     stop
599              again    orphan   again    again     again     fence     stop
500+true         again    again    again    again     again     again     again
400+true         again    again    again    again     again     again     again
500+false        stop     stop     stop     fence     fence     fence     stop
429+false        stop     stop     stop     stop      stop      stop      stop
400              stop     stop     stop     stop      stop      stop      stop
401              stop     stop     stop     stop      stop      stop      stop
402              pause    pause    pause    pause     pause     pause     pause
402+false        stop     stop     stop     stop      stop      stop      stop
403              stop     stop     stop     stop      stop      stop      stop
404              stop     stop     stop     stop      stop      stop      stop
409              stop     stop     stop     stop      stop      stop      stop
409-used         stop     stop     stop     stop      stop      stop      stop
410              stop     stop     stop     stop      stop      stop      stop
422              stop     stop     stop     stop      stop      stop      stop
unreadable       stop     stop     stop     stop      stop      stop      stop
"""
AFTER_A_DOUBTFUL_SEND = """
no-connection    again    again    again    again     again     again     again
429              again    again    again    again     again     again     again
400              stop     stop     stop     fence     fence     fence     stop
401              stop     stop     stop     fence     fence     fence     stop
402              pause    pause    pause    pause     pause     pause     pause
409              stop     stop     look     fence     fence     fence     stop
409-used         stop     stop     look     fence     applied   fence     stop
422              stop     stop     stop     fence     fence     fence     stop
unreadable       stop     stop     stop     fence     fence     fence     stop
"""


def rows(table: str) -> list[list[str]]:
    """Cut a table into its cells."""
    return [line.split() for line in table.strip().splitlines()]


def word(verdict: Verdict) -> str:
    """Return how the tables call a verdict."""
    match verdict:
        case Again(counts=False):
            return "pause"
        case Again(orphan=True):
            return "orphan"
        case Again():
            return "again"
        case Applied():
            return "applied"
        case Look():
            return "look"
        case Stop(fence):
            return "fence" if fence else "stop"


failures = st.builds(
    Failure,
    sent=st.booleans(),
    status=st.none() | st.integers(100, 599),
    retry_after=st.none() | st.floats(0, allow_infinity=False),
    should_retry=st.none() | st.booleans(),
    text=st.sampled_from(["", USED, EARLY, REUSED]),
)
modes = st.sampled_from(cast("tuple[DedupeMode, ...]", get_args(DedupeMode)))
doubts = st.sampled_from(cast("tuple[OnDoubt, ...]", get_args(OnDoubt)))
rules = st.builds(Rule, st.integers(0, 20), doubts, modes)
chances = st.floats(0, 1, exclude_max=True)
pauses = st.sampled_from([None, 5.0])


def test_the_table_has_every_failure() -> None:
    """No row is missing, and no way to treat a doubtful send."""
    assert [name for name, *_ in rows(FIRST)] == list(FAILURES)
    assert {on_doubt for on_doubt, _ in COLUMNS} == set(get_args(OnDoubt))


@pytest.mark.lesson("D15")
@pytest.mark.requirement("R53", "R54", "R69")
@pytest.mark.parametrize("row", rows(FIRST), ids=lambda row: row[0])
def test_what_a_first_failure_means_is_what_the_table_says(row: list[str]) -> None:
    """Refusals are tried again; what is doubtful as far as it does no harm; the rest is final."""
    name, *expected = row
    failure = FAILURES[name]
    for (on_doubt, dedupe), cell in zip(COLUMNS, expected, strict=True):
        verdict = decide(
            failure, Rule(1, on_doubt, dedupe), spent=0, in_doubt=failure.doubtful, pause=5.0, chance=0.0
        )
        assert word(verdict) == cell, (on_doubt, dedupe)


@pytest.mark.requirement("R53")
@pytest.mark.parametrize("row", rows(AFTER_A_DOUBTFUL_SEND), ids=lambda row: row[0])
def test_what_a_failure_means_after_a_doubtful_send(row: list[str]) -> None:
    """A refusal does not take the doubt away; a conflict may."""
    name, *expected = row
    for (on_doubt, dedupe), cell in zip(COLUMNS, expected, strict=True):
        verdict = decide(
            FAILURES[name], Rule(1, on_doubt, dedupe), spent=0, in_doubt=True, pause=5.0, chance=0.0
        )
        assert word(verdict) == cell, (on_doubt, dedupe)


@pytest.mark.requirement("R57")
@given(failures, rules, chances, st.booleans(), st.integers(0, 20))
def test_never_more_than_the_retries_allowed(
    failure: Failure, rule: Rule, chance: float, in_doubt: bool, extra: int
) -> None:
    """Whatever happened, after `retries` further attempts nothing is sent again, but for the billing pause."""
    verdict = decide(failure, rule, spent=rule.retries + extra, in_doubt=in_doubt, pause=5.0, chance=chance)
    assert not isinstance(verdict, Again) or (failure.status == 402 and not verdict.counts)


@pytest.mark.lesson("D49")
@pytest.mark.requirement("R70")
@given(failures, doubts, modes, chances, pauses)
def test_without_a_budget_nothing_is_sent_again(
    failure: Failure, on_doubt: OnDoubt, dedupe: DedupeMode, chance: float, pause: float | None
) -> None:
    """Samples, beats and polls are left to the layer above, 402 and 429 as well."""
    verdict = Sends().failed(failure, Rule(0, on_doubt, dedupe), pause=pause, chance=chance)
    assert isinstance(verdict, Stop)


@given(failures, doubts, modes, chances, st.integers(0, 10_000))
def test_a_doubtful_send_is_repeated_only_where_it_may_be(
    failure: Failure, on_doubt: OnDoubt, dedupe: DedupeMode, chance: float, spent: int
) -> None:
    """Nothing is sent twice that the service may have done and would do again."""
    rule = Rule(20_000, on_doubt, dedupe)
    verdict = decide(failure, rule, spent=spent, in_doubt=failure.doubtful, pause=None, chance=chance)
    if failure.doubtful and not failure.refused:
        harmless = on_doubt != "give_up" and (on_doubt, dedupe) != ("numbered", "none")
        assert isinstance(verdict, Again) == (harmless and failure.should_retry is not False)
    if isinstance(verdict, Again):
        assert 0 < verdict.delay <= 60


@given(st.lists(st.tuples(failures, pauses), max_size=30), rules, chances)
def test_the_sends_of_a_call_add_up(
    story: list[tuple[Failure, float | None]], rule: Rule, chance: float
) -> None:
    """Attempts are counted, a doubt stays, the budget is never overdrawn, and only a create leaves an orphan."""
    sends = Sends()
    counted = 0
    for number, (failure, pause) in enumerate(story):
        verdict = sends.failed(failure, rule, pause=pause, chance=chance)
        counted += isinstance(verdict, Again) and verdict.counts
        assert sends.verdict is verdict
        assert (sends.attempts, sends.spent) == (number + 1, counted)
        assert sends.doubtful == any(past.doubtful for past, _ in story[: number + 1])
        if isinstance(verdict, Applied):
            assert (rule.on_doubt, rule.dedupe, sends.doubtful) == ("numbered", "reject", True)
        if isinstance(verdict, Stop) and verdict.fence:
            assert rule.on_doubt == "numbered"
            assert sends.doubtful
    assert sends.spent <= rule.retries
    assert not sends.orphan or rule.on_doubt == "create"


@pytest.mark.parametrize(
    ("text", "on_doubt", "dedupe", "verdict"),
    [
        (USED, "numbered", "reject", Applied()),
        ("409 - {'detail': 'sequence conflict: EXPECTED 12, GOT 3'}", "numbered", "reject", Applied()),
        (REUSED, "numbered", "reject", Applied()),
        (EARLY, "numbered", "reject", Stop(fence=True)),
        ("Sequence conflict: expected 7, got 7", "numbered", "reject", Stop(fence=True)),
        ("expected " + "9" * 5000 + ", got 1", "numbered", "reject", Stop(fence=True)),
        ("", "numbered", "reject", Stop(fence=True)),
        (REUSED, "numbered", "replay", Stop(fence=True)),
        (USED, "numbered", "none", Stop(fence=True)),
        ("Checkpoint already exists", "named", "none", Look()),
        (USED, "named", "reject", Look()),
        ("already there", "create", "replay", Stop()),
        (USED, "resend", "reject", Stop()),
    ],
)
def test_what_a_conflict_means(text: str, on_doubt: OnDoubt, dedupe: DedupeMode, verdict: Verdict) -> None:
    """A used number says that the first send arrived; an early one does not; a name can be looked up."""
    assert decide_conflict(text, Rule(10, on_doubt, dedupe)) == verdict


def conflict(text: str) -> ConflictError:
    """Make the 409 of a poll."""
    return ConflictError(f"Error code: 409 - {text}", status_code=409, body={"detail": text})


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (conflict(USED), Applied()),
        (conflict(EARLY), Stop(fence=True)),
        (RequestFailedError(USED, category="user"), Applied()),
        (RequestFailedError("loss is not finite"), Stop()),
        (APIConnectionError("cut", doubtful=True), Stop()),
        (ValueError(USED), Stop()),
    ],
    ids=str,
)
def test_a_conflict_may_come_by_the_promise(error: Exception, verdict: Verdict) -> None:
    """TuFT takes every send and refuses a used number later; without a doubtful send it is somebody else's."""
    sends = Sends()
    assert sends.result_failed(error) == Stop()
    rule = Rule(10, "numbered", "reject")
    sends.failed(Failure(sent=False), rule, chance=0.0)
    assert sends.result_failed(error) == Stop()
    sends.failed(Failure(sent=True), rule, chance=0.0)
    assert sends.result_failed(error) == verdict
    assert sends.verdict == verdict
    assert sends.is_fence == (verdict == Stop(fence=True))


@pytest.mark.parametrize(
    ("on_doubt", "dedupe", "matters"),
    [
        ("numbered", "none", True),
        ("numbered", "replay", True),
        ("named", "reject", True),
        ("resend", "replay", True),
        ("named", "none", False),
        ("resend", "none", False),
    ],
)
def test_whether_a_number_is_used_up_may_be_in_doubt(
    on_doubt: OnDoubt, dedupe: DedupeMode, matters: bool
) -> None:
    """After a doubtful send, where the service looks at numbers or the model may have changed."""
    sends, rule = Sends(), Rule(10, on_doubt, dedupe)
    assert not sends.number_in_doubt
    sends.failed(Failure(sent=False), rule, chance=0.0)
    assert not sends.number_in_doubt
    sends.failed(Failure(sent=True), rule, chance=0.0)
    sends.failed(Failure(sent=True, status=422), rule, chance=0.0)
    assert sends.number_in_doubt is matters


@pytest.mark.requirement("R75")
def test_errors_say_what_happened() -> None:
    """Each error of a call is a fact for the decision, and carries what the service asked for."""
    late = status_error_class(429)("no", status_code=429, retry_after=7.0, should_retry=True)
    assert failure_of(late) == Failure(sent=True, status=429, retry_after=7.0, should_retry=True, text="no")
    assert failure_of(APIConnectionError("refused")) == Failure(sent=False)
    assert failure_of(APITimeoutError("slow", doubtful=True)) == Failure(sent=True)
    assert failure_of(APIResponseValidationError("odd")) == Failure(sent=True, status=200)


def test_what_a_service_says_is_not_in_the_repr_of_a_failure() -> None:
    """It may hold anything."""
    assert "hunter2" not in repr(Failure(sent=True, status=409, text="hunter2"))


@pytest.mark.requirement("R53")
def test_every_endpoint_has_its_column() -> None:
    """What changes a model is numbered, what saves is named; sampling and polls have no budget."""
    by_doubt = {kind: {row.name for row in ENDPOINTS if row.on_doubt == kind} for kind in get_args(OnDoubt)}
    assert by_doubt["numbered"] >= {"forward_backward", "optim_step", "load_weights"}
    assert by_doubt["named"] >= {"save_weights", "save_weights_for_sampler"}
    assert by_doubt["create"] >= {"create_model", "create_session"}
    assert by_doubt["resend"] >= {"forward", "get_info", "asample", "retrieve_future"}
    budgets = {row.name: row.retries for row in ENDPOINTS}
    assert [budgets[name] for name in ("asample", "retrieve_future", "session_heartbeat")] == [0, 0, 0]


@given(st.none() | st.text(max_size=12), st.none() | st.text(max_size=12), st.integers(0, 10_000), chances)
def test_no_header_makes_a_delay_wrong(
    milliseconds: str | None, seconds: str | None, attempt: int, chance: float
) -> None:
    """Any text in the headers gives a number of seconds or nothing, and a delay between 0 and 60 s."""
    asked = parse_retry_after(milliseconds, seconds, NOW)
    assert asked is None or (asked >= 0 and math.isfinite(asked))
    assert 0 < backoff_delay(attempt, asked, chance) <= 60


@pytest.mark.lesson("D16", "D50")
@pytest.mark.requirement("R55")
@given(st.integers(0, 10**9), chances)
def test_delays_grow_to_ten_seconds_with_a_quarter_of_jitter(attempt: int, chance: float) -> None:
    """Half a second, doubled each time, less at most a quarter."""
    full = min(0.5 * 2 ** min(attempt, 10), 10.0)
    assert 0.75 * full <= backoff_delay(attempt, None, chance) <= full
    assert backoff_delay(attempt, None, 0.0) == full


@pytest.mark.lesson("D16")
def test_the_delays_in_numbers() -> None:
    """As the official client waits, without jitter."""
    assert [backoff_delay(n, None, 0.0) for n in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@pytest.mark.lesson("L16")
@pytest.mark.requirement("R56")
@pytest.mark.parametrize(
    ("asked", "delay"),
    [(0.05, 0.05), (60.0, 60.0), (60.1, 0.5), (0.0, 0.5), (-1.0, 0.5), (math.inf, 0.5), (math.nan, 0.5)],
)
def test_what_the_service_asks_for_counts_within_a_minute(asked: float, delay: float) -> None:
    """Nothing, a nonsense and more than a minute leave it to the doubling."""
    assert backoff_delay(0, asked, 0.0) == delay


NOW = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)


@pytest.mark.lesson("L16")
@pytest.mark.requirement("R56")
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
        (None, "Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        (None, "Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        (None, "Wed, 21 Oct 2026 07:27:59 GMT", None),
        (None, "Wednesday, 21-Oct-26 07:28:05 GMT", 5.0),
        (None, "Wed, 21 Oct 2026 09:28:05 +0200", 5.0),
        (None, "Wed, 21 Oct 2026 07:28:05 -0000", 5.0),
        (None, "Wed, 31 Feb 2026 07:28:05 GMT", None),
        (None, "Wed, 21 Oct 2026 07:28:05 +9999999", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", None, None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "3", 3.0),
        ("1" * 65, "3", 3.0),
        (None, "1" * 65, None),
        ("", "", None),
    ],
)
def test_headers_are_read_as_numbers_or_dates(
    milliseconds: str | None, seconds: str | None, value: float | None
) -> None:
    """Milliseconds come first; what is neither a finite number nor a date to come is as if it were not there."""
    assert parse_retry_after(milliseconds, seconds, NOW) == value


def test_a_date_needs_a_clock() -> None:
    """Without one it says nothing."""
    assert parse_retry_after(None, "Wed, 21 Oct 2026 07:28:30 GMT", None) is None
    assert parse_retry_after(None, "30", None) == 30.0


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-100, 100_000))
def test_dates_count_in_whole_seconds(now: datetime, ahead: int) -> None:
    """A date says how long to wait on the clock that is passed in."""
    try:
        then = now.replace(microsecond=0) + timedelta(seconds=ahead)
    except OverflowError:
        return
    text = then.strftime("%a, %d %b ") + f"{then.year:04d}" + then.strftime(" %H:%M:%S GMT")
    if then.year < 1000:  # two figures are read as a year near ours
        return
    wait = ahead - now.microsecond / 1e6
    got = parse_retry_after(None, text, now)
    assert got == (None if wait < 0 else pytest.approx(wait, abs=1e-6))


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


# --- the billing pause -----------------------------------------------------------------------------------


def test_402_is_waited_out_for_an_hour() -> None:
    """Five seconds each time, until the incident has lasted for the window."""
    billing = BillingPause()
    pauses = [billing.refused(10.0 + 5.0 * turn) for turn in range(725)]
    assert pauses == [5.0] * 720 + [None] * 5


def test_the_incident_ends_after_five_quiet_minutes() -> None:
    """Then the next 402 has the whole window again."""
    billing = BillingPause(window=100.0)
    assert billing.refused(0.0) == 5.0
    assert billing.refused(99.9) == 5.0
    assert billing.refused(100.0) is None
    assert billing.refused(400.0) is None
    assert billing.refused(700.1) == 5.0


def test_a_warning_is_due_once_a_minute() -> None:
    """However many calls are refused."""
    billing = BillingPause()
    assert [billing.should_warn(now) for now in (0.0, 0.0, 59.9, 60.0, 61.0)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_pause_takes_nothing_from_the_budget() -> None:
    """After any number of them the retries are all there."""
    sends, rule = Sends(), Rule(1, "resend", "none")
    for _ in range(50):
        assert sends.failed(FAILURES["402"], rule, pause=5.0, chance=0.0) == Again(5.0, counts=False)
    assert isinstance(sends.failed(FAILURES["429"], rule, chance=0.0), Again)
    assert sends.failed(FAILURES["429"], rule, chance=0.0) == Stop()
    assert sends.failed(FAILURES["402"], rule, pause=None, chance=0.0) == Stop()
    assert (sends.attempts, sends.spent) == (53, 1)


@pytest.mark.parametrize(
    ("text", "early"),
    [
        ("Sequence conflict: expected 3, got 5", True),
        ("Sequence conflict: expected 5, got 3", False),
        ("sequence number was reused", False),
    ],
)
def test_a_number_that_comes_too_early_is_told_from_one_that_was_used(text: str, early: bool) -> None:
    """The first says that an earlier request has failed, the second that this one was carried out."""
    assert says_early(text) is early
    assert not (early and says_used(text))
