"""How a query string is written."""

from __future__ import annotations

import enum
from typing import Any
from urllib.parse import parse_qsl

import pytest

from tinker_actors.errors import InputError
from tinker_actors.protocol.query import merge, stringify


class Color(enum.Enum):
    RED = "red"


@pytest.mark.requirement("R46")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2, 3], [("a", "1,2,3")]),
        (("x", None, "y"), [("a", "x,y")]),
        ([True, False], [("a", "true,false")]),
        ([], [("a", "")]),
        (True, [("a", "true")]),
        (0, [("a", "0")]),
        (1.5, [("a", "1.5")]),
        (None, []),
        ("", []),
        (Color.RED, [("a", "red")]),
        ("a b&c=d", [("a", "a b&c=d")]),
        ({"b": 1, "c": {"d": [1, 2]}}, [("a[b]", "1"), ("a[c][d]", "1,2")]),
    ],
)
def test_each_kind_of_value_has_its_form(value: Any, expected: list[tuple[str, str]]) -> None:
    """Lists have commas, booleans are lower case, None is left out, mappings are nested by brackets."""
    assert parse_qsl(stringify({"a": value}), keep_blank_values=True) == expected


def test_signs_are_escaped_as_the_official_client_does() -> None:
    """A comma, a bracket and a space have their escapes."""
    assert stringify({"a": [1, 2], "b": {"c": "x y"}}) == "a=1%2C2&b%5Bc%5D=x+y"


@pytest.mark.parametrize("value", [[[1]], [{"a": 1}]])
def test_a_list_of_lists_is_refused(value: Any) -> None:
    """What has no form with commas is not guessed; the name is told."""
    with pytest.raises(InputError, match="query\\['a'\\]"):
        stringify({"a": value})


@pytest.mark.requirement("R47")
def test_the_later_layer_wins() -> None:
    """A default query is merged with that of the request."""
    assert merge({"a": 1, "b": 2}, {"b": 3}, {}) == {"a": 1, "b": 3}
