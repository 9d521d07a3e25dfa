"""Whose fault a failure is, and the policy that stands above sampling."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    ConfigError,
    CredentialError,
    InputError,
    ModelLost,
    ModelPoisoned,
    RequestFailedError,
    ResultLost,
    RetryableException,
    status_error_class,
)
from tinker_actors.protocol.policy import RetryConfig, is_retryable, is_user_error

chances = st.floats(0, 1, exclude_max=True)


def status(code: int, should_retry: bool | None = None) -> APIStatusError:
    """Make the error of a status."""
    text = str(code) if should_retry is None else f"{code} should_retry={should_retry}"
    return status_error_class(code)(text, status_code=code, should_retry=should_retry)


class Foreign(Exception):
    """An error of another library, with a status."""

    def __init__(self, status_code: object) -> None:
        self.status_code = status_code


BLAME: list[tuple[BaseException, bool, bool]] = [
    *[(status(code), True, False) for code in (400, 401, 402, 403, 404, 409, 410, 413, 422, 499)],
    *[(status(code), False, True) for code in (408, 429, 500, 502, 503, 504, 599)],
    (status(409, should_retry=True), False, True),
    (status(400, should_retry=True), False, True),
    (status(503, should_retry=False), False, False),
    (status(429, should_retry=False), False, False),
    (RequestFailedError("user", category="user"), True, False),
    (RequestFailedError("server", category="server"), False, True),
    (RequestFailedError("unknown", category="unknown"), False, True),
    (APIConnectionError("x"), False, True),
    (APITimeoutError("x", doubtful=True), False, True),
    (RetryableException("x"), False, True),
    (ResultLost("x"), False, False),
    (APIResponseValidationError("x"), False, False),
    (InputError("field", 1, "no"), True, False),
    (ConfigError("x"), True, False),
    (CredentialError("x"), True, False),
    (ValueError("x"), False, False),
    (Foreign(404), True, False),
    (Foreign(503), False, False),
    (Foreign("404"), False, False),
]


@pytest.mark.lesson("L17", "L30")
@pytest.mark.requirement("R71", "R72", "R74")
@pytest.mark.parametrize(("error", "users", "passing"), BLAME, ids=repr)
def test_who_is_to_blame(error: BaseException, users: bool, passing: bool) -> None:
    """The user for what is wrong with the request; nobody for what passes; never both."""
    assert (is_user_error(error), is_retryable(error)) == (users, passing)


def chained(*links: BaseException, by: str) -> BaseException:
    """Chain errors, the first one outermost."""
    for outer, inner in pairwise(links):
        setattr(outer, by, inner)
    return links[0]


@pytest.mark.requirement("R72")
@pytest.mark.parametrize("by", ["__cause__", "__context__"])
def test_causes_and_contexts_are_asked(by: str) -> None:
    """An error that says nothing itself is judged by what it comes from; the first that speaks decides."""
    assert is_user_error(chained(ValueError(), KeyError(), status(400), by=by))
    assert not is_user_error(chained(ValueError(), KeyError(), status(500), by=by))
    assert not is_user_error(chained(status(503), status(400), by=by))
    assert not is_user_error(chained(ResultLost("x"), status(409), by=by))
    assert not is_user_error(chained(ModelLost("x", model_id="m"), status(404), by=by))
    assert is_user_error(chained(ModelPoisoned("x", model_id="m"), status(400), by=by))


def test_a_cause_speaks_before_a_context() -> None:
    """As a traceback shows it."""
    error = ValueError()
    error.__cause__, error.__context__ = status(500), status(400)
    assert not is_user_error(error)
    error.__cause__, error.__context__ = status(400), status(500)
    assert is_user_error(error)
    error.__cause__, error.__context__ = KeyError(), status(400)
    assert is_user_error(error)


def test_a_circle_of_causes_has_an_end() -> None:
    """However errors are chained."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__context__ = second, first
    first.__context__ = first
    assert not is_user_error(first)


# --- the policy above sampling ---------------------------------------------------------------------------


@pytest.mark.lesson("D30")
@pytest.mark.requirement("R37", "R91", "R92")
def test_the_policys_defaults_are_tinkers() -> None:
    """Names and values of 0.38.0."""
    assert attrs.asdict(RetryConfig()) == {
        "max_connections": 1000,
        "progress_timeout": 7200.0,
        "retry_delay_base": 0.5,
        "retry_delay_max": 10.0,
        "jitter_factor": 0.25,
        "enable_retry_logic": True,
        "enable_stuck_detection": True,
        "retryable_exceptions": (TimeoutError, APIConnectionError, RetryableException),
    }
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RetryConfig().max_connections = 3  # type: ignore[misc]  # refusing it is the test


@pytest.mark.requirement("R37")
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_connections", [0, -1, 1.5, True, "3"]),
        ("progress_timeout", [0, -1.0, math.nan, "1", None, True]),
        ("retry_delay_base", [0, -0.5, math.nan, None, True]),
        ("retry_delay_max", [0, -1, math.nan, None]),
        ("jitter_factor", [-0.1, 1.1, math.nan, None, True]),
        ("enable_retry_logic", [1, None, "yes"]),
        ("enable_stuck_detection", [0, None]),
        ("retryable_exceptions", [None, ValueError, [ValueError], (ValueError(),), (int,), (BaseException,)]),
    ],
)
def test_a_bad_policy_is_refused_with_its_name_and_value(name: str, values: list[Any]) -> None:
    """When it is made, not when something fails."""
    for value in values:
        settings: dict[str, Any] = {name: value}
        with pytest.raises(ConfigError) as caught:
            RetryConfig(**settings)
        assert str(caught.value).startswith(f"{name} = {value!r}: must be ")


@pytest.mark.requirement("R37")
def test_the_first_wait_is_not_longer_than_the_longest() -> None:
    """A policy that contradicts itself is refused; equal is good."""
    with pytest.raises(ConfigError, match=r"retry_delay_base = 3: must not be above retry_delay_max = 2"):
        RetryConfig(retry_delay_base=3, retry_delay_max=2)
    assert RetryConfig(retry_delay_base=2, retry_delay_max=2, max_connections=None).delay(9, 0.5) == 2


@pytest.mark.lesson("L17")
@pytest.mark.requirement("R69", "R74", "R92")
@pytest.mark.parametrize(("error", "users", "passing"), BLAME, ids=repr)
def test_a_policy_never_tries_a_users_error_again(error: BaseException, users: bool, passing: bool) -> None:
    """Not even if everything is retryable; what passes is tried by default; nothing is if it is switched off."""
    everything = RetryConfig(retryable_exceptions=(Exception,))
    assert everything.retries(error) is not users
    assert RetryConfig().retries(error) is passing
    assert not RetryConfig(enable_retry_logic=False, retryable_exceptions=(Exception,)).retries(error)


@pytest.mark.requirement("R92")
def test_a_policy_can_be_extended() -> None:
    """By an error of the user's own, and by raising the one that says so."""

    class Flaky(RetryableException):
        pass

    assert RetryConfig().retries(TimeoutError())
    assert RetryConfig().retries(Flaky("again"))
    assert not RetryConfig().retries(KeyError("x"))
    assert RetryConfig(retryable_exceptions=(KeyError,)).retries(KeyError("x"))


@pytest.mark.requirement("R133")
@given(st.integers(0, 10**9), chances, st.floats(0, 1))
def test_a_policys_delays_stay_in_their_bounds(attempt: int, chance: float, jitter: float) -> None:
    """They double up to the longest, more or less by the jitter, and no attempt is too many."""
    policy = RetryConfig(jitter_factor=jitter)
    full = min(0.5 * 2 ** min(attempt, 30), 10.0)
    assert min(full * (1 - jitter), 10) <= policy.delay(attempt, chance) + 1e-9
    assert policy.delay(attempt, chance) <= min(full * (1 + jitter) + 1e-9, 10.0)


def test_a_patience_that_has_ended_is_not_tried_again() -> None:
    """Though a connection that breaks is; and what a policy never looks at has no end."""
    policy = RetryConfig(progress_timeout=60)
    assert policy.retries(APIConnectionError("broken"))
    assert not policy.retries(APIConnectionError("stuck", retryable=False))
    assert policy.patience == 60
    assert attrs.evolve(policy, enable_stuck_detection=False).patience == math.inf
