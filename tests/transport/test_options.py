"""What one call may say differently."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from tinker_actors.errors import InputError
from tinker_actors.transport.options import DEFAULT_OPTIONS, NOT_GIVEN, OMIT, RequestOptions, given, is_given


@pytest.mark.requirement("R78")
def test_nothing_none_and_a_value_are_told_apart() -> None:
    """Nothing said, None and a value are three things."""
    assert not is_given(DEFAULT_OPTIONS.timeout)
    assert is_given(RequestOptions(timeout=None).timeout)
    assert RequestOptions(timeout=None).timeout is None
    assert RequestOptions(timeout=2).timeout == 2
    assert given(DEFAULT_OPTIONS.timeout, 60.0) == 60
    assert given(RequestOptions(timeout=None).timeout, 60.0) is None


def test_the_marks_survive_copies_and_are_false() -> None:
    """There is one of each, and neither counts as something."""
    for mark in (NOT_GIVEN, OMIT):
        assert pickle.loads(pickle.dumps(mark)) is mark
        assert copy.deepcopy(mark) is mark
        assert not mark
    assert (repr(NOT_GIVEN), repr(OMIT)) == ("NOT_GIVEN", "OMIT")


@pytest.mark.requirement("R58")
def test_options_do_not_change_with_what_they_were_made_of() -> None:
    """The mappings are copied, and cannot be written to."""
    headers = {"a": "1"}
    options = RequestOptions(headers=headers)
    headers["a"] = "2"
    assert options.headers == {"a": "1"}
    with pytest.raises(TypeError):
        options.headers["a"] = "3"  # type: ignore[index] # that is what is tested
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.timeout = 3  # type: ignore[misc] # that is what is tested


def test_one_set_of_options_lies_over_another() -> None:
    """What is said above holds, mappings are merged, None counts as said."""
    lower = RequestOptions(headers={"a": "1", "b": "2"}, timeout=9, strict=True, query={"q": 1})
    upper = RequestOptions(headers={"b": OMIT}, timeout=None, json={"j": 1})
    both = upper.over(lower)
    assert both.headers == {"a": "1", "b": OMIT}
    assert both.timeout is None
    assert both.strict is True
    assert (both.query, both.json) == ({"q": 1}, {"j": 1})
    assert DEFAULT_OPTIONS.over(lower) == lower


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": True},
        {"timeout": "1"},
        {"max_retries": -1},
        {"max_retries": 1.0},
        {"view": "both"},
        {"headers": {"a": 1}},
        {"idempotency_key": 1},
        {"idempotency_key": ""},
        {"idempotency_key": "schlüssel"},
        {"idempotency_key": "a\r\nx-evil: 1"},
    ],
)
def test_wrong_values_are_refused_by_name(wrong: dict[str, Any]) -> None:
    """A value of another kind is told with its field."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        RequestOptions(**wrong)


def test_secrets_in_headers_are_not_shown() -> None:
    """A repr holds neither headers nor body."""
    assert "hush" not in repr(RequestOptions(headers={"x-token": "hush"}, json={"a": "hush"}))
