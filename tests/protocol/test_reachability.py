"""What counts as an absent service, and how often it is asked whether it is back."""

from __future__ import annotations

import pytest

from tinker_actors.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    ModelLost,
    NotFoundError,
    RateLimitError,
    RequestFailedError,
    status_error_class,
)
from tinker_actors.protocol.reachability import Probing, answers, cannot_reach, may_pass


def status(code: int, *, should_retry: bool | None = None) -> APIStatusError:
    """Return the error of a status."""
    return status_error_class(code)("no", status_code=code, should_retry=should_retry)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (APIConnectionError("refused"), True),
        (APIConnectionError("broke off", doubtful=True), True),
        (APITimeoutError("no answer", doubtful=True), True),
        (APIConnectionError("stuck", doubtful=True, retryable=False), False),
        (status(408), True),
        (status(500), True),
        (status(503), True),
        (status(503, should_retry=False), False),
        (AuthenticationError("no", status_code=401), False),
        (status(403), False),
        (NotFoundError("no", status_code=404), False),
        (RateLimitError("later", status_code=429), False),
        (RequestFailedError("ran and failed"), False),
        (ModelLost("gone", model_id="m"), False),
    ],
)
def test_what_counts_as_an_absent_service(error: Exception, expected: bool) -> None:
    """No connection, 408 and 5xx are outages; refusals, and above all those of the key, are told at once."""
    assert cannot_reach(error) is expected


def test_a_500_of_a_healthy_service_does_not_pass() -> None:
    """500 is a defect of what was asked for; everything else may pass."""
    assert not may_pass(status(500))
    assert may_pass(status(503))
    assert may_pass(APIConnectionError("refused"))


@pytest.mark.parametrize(
    ("code", "expected"), [(None, False), (200, True), (404, True), (408, False), (502, False)]
)
def test_any_answer_but_408_and_5xx_is_one(code: int | None, expected: bool) -> None:
    """A service without the call for its health is there, too."""
    assert answers(code) is expected


@pytest.mark.lesson("D50")
def test_probes_become_rarer_up_to_half_a_minute() -> None:
    """The delays double from one second to thirty, for ever, and chance takes off up to a quarter."""
    probing = Probing()
    probing.begin(0.0)
    assert [probing.delay(0.0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert probing.delay(1.0) == 22.5
    for _ in range(5000):
        assert probing.delay(0.0) == 30


def test_an_outage_close_upon_another_goes_on_where_that_was() -> None:
    """A service that comes and goes is not asked more often; after a calm minute it is a new outage."""
    probing = Probing()
    probing.begin(0.0)
    first = [probing.delay(0.0), probing.delay(0.0)]
    probing.end(10.0)
    probing.begin(20.0)
    assert [*first, probing.delay(0.0)] == [1, 2, 4]
    probing.end(30.0)
    probing.begin(91.0)
    assert probing.delay(0.0) == 1
