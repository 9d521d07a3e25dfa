"""The state of a user's loop comes back as it was, or is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import InputError
from tinker_actors.protocol.loop_state import MAX_STATE, check_groups, read_state, write_state

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"))
states = st.recursive(leaves | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner))


@given(states)
def test_it_comes_back_as_it_was(state: Any) -> None:
    """Numbers of any size, text of any kind, and None."""
    assert read_state(write_state(state)) == state


def test_a_run_without_one_has_none() -> None:
    """There is nothing to read."""
    assert read_state(None) is None


def test_tuples_come_back_as_lists() -> None:
    """The state of a generator is full of them."""
    assert read_state(write_state({"rng": (3, (1, 2), None)})) == {"rng": [3, [1, 2], None]}


def circle() -> list[Any]:
    """Make a list that holds itself."""
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("state", "field"),
    [
        ({"x": {1, 2}}, "after"),
        (math.nan, "after"),
        ({"x": [math.inf]}, "after"),
        (circle(), "after"),
        ("\ud800", "after"),
        ({1: 2}, "after"),
        ({"a": [0, {"b": {2: 3}}]}, r"after\['a'\]\[1\]\['b'\]"),
        (b"bytes", "after"),
    ],
)
def test_what_would_not_come_back_is_refused(state: object, field: str) -> None:
    """The place of it is named."""
    with pytest.raises(InputError, match=rf"^{field} = "):
        write_state(state)


def test_it_has_room_for_64_kib() -> None:
    """That many bytes are taken, one more is not."""
    assert len(write_state("x" * (MAX_STATE - 2))) == MAX_STATE
    with pytest.raises(InputError, match="must be at most 65536 bytes of JSON, not 65537"):
        write_state("x" * (MAX_STATE - 1))


def test_groups_are_a_list_of_ids() -> None:
    """Of any kind of list."""
    assert check_groups(["a", "b"]) == ("a", "b")
    assert check_groups(()) == ()


@pytest.mark.parametrize(
    ("groups", "field"),
    [("abc", "groups"), (3, "groups"), (["a", ""], r"groups\[1\]"), ([1], r"groups\[0\]")],
)
def test_groups_without_ids_are_refused(groups: object, field: str) -> None:
    """The place of it is named."""
    with pytest.raises(InputError, match=rf"^{field} = "):
        check_groups(groups)
