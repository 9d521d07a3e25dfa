from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.local.model import load_base_model
from tinker_actors.local.sample import stop_rule

BASE = load_base_model("tinker-actors/char-100k")


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_a_string_stops_exactly_when_it_first_appears(text: str, stops: list[str]) -> None:
    """Fed character by character, the rule is met at the first place where the text contains a stop string."""
    rule = stop_rule(stops, BASE)
    found = next((end for end in range(1, len(text) + 1) if rule.met(-1, text[:end], text[end - 1])), None)
    wanted = next((end for end in range(1, len(text) + 1) if any(stop in text[:end] for stop in stops)), None)
    assert found == wanted


def test_a_stop_string_may_end_inside_a_token() -> None:
    """Tokens of several characters are searched whole."""
    rule = stop_rule(["lo w"], BASE)
    assert rule.met(-1, "hello world", "lo world")
    assert rule.met(-1, "hello world", " world")
    assert not rule.met(-1, "hello w orld", "orld")


@pytest.mark.parametrize(("stop", "stopping"), [(None, {1}), ([], set()), ([5, 7], {5, 7}), (["a"], set())])
def test_token_ids_that_stop(stop: list[int] | None, stopping: set[int]) -> None:
    """The end token by default, none for an empty list or strings, else those given."""
    rule = stop_rule(stop, BASE)
    assert {token for token in range(100) if rule.met(token, "", "")} == stopping
