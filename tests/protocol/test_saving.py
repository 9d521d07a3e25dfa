from __future__ import annotations

from typing import Any

import pytest

from tinker_actors.errors import InputError
from tinker_actors.protocol.saving import (
    MAX_TTL,
    MIN_TTL,
    check_recipients,
    check_state_path,
    check_ttl,
    metadata,
)


@pytest.mark.parametrize("seconds", [None, 3600, 86_400, 315_360_000])
def test_an_hour_to_ten_years_or_for_ever(seconds: int | None) -> None:
    """Both ends of the range are in it."""
    check_ttl(seconds)
    assert (MIN_TTL, MAX_TTL) == (3600, 315_360_000)


@pytest.mark.requirement("R20")
@pytest.mark.parametrize("seconds", [0, -1, 3599, 315_360_001, 2**70, 3600.0, "3600", True, float("nan")])
def test_other_times_to_live_are_refused(seconds: Any) -> None:
    """Field and value are told."""
    with pytest.raises(InputError) as caught:
        check_ttl(seconds)
    assert caught.value.field == "ttl_seconds"
    assert caught.value.value is seconds


def test_metadata_is_copied() -> None:
    """What the caller changes later does not travel."""
    given = {"run": "a", "": "ü"}
    own = metadata(given)
    assert own == given
    assert own is not given
    assert metadata(None) is None
    assert metadata({}) == {}


@pytest.mark.requirement("R20")
@pytest.mark.parametrize(
    ("value", "field", "told"),
    [
        ([("a", "b")], "user_metadata", [("a", "b")]),
        ({1: "b"}, "user_metadata", 1),
        ({"\ud800": "b"}, "user_metadata", "\ud800"),
        ({"a": 1}, "user_metadata['a']", 1),
        ({"a": None}, "user_metadata['a']", None),
        ({"a": "\ud800"}, "user_metadata['a']", "\ud800"),
    ],
)
def test_metadata_maps_strings_to_strings(value: Any, field: str, told: Any) -> None:
    """Anything else is refused before it is sent."""
    with pytest.raises(InputError) as caught:
        metadata(value)
    assert (caught.value.field, caught.value.value) == (field, told)


def test_up_to_ten_may_read_what_is_encrypted() -> None:
    """None is everybody."""
    check_recipients(None)
    check_recipients(["age1x"] * 10)
    check_recipients(("age1x",))


@pytest.mark.requirement("R20")
@pytest.mark.parametrize(
    ("keys", "field", "told"),
    [
        ([], "age_encryption_recipients", 0),
        (["age1x"] * 11, "age_encryption_recipients", 11),
        ("age1x", "age_encryption_recipients", "age1x"),
        (["age1x", ""], "age_encryption_recipients[1]", ""),
        ([3], "age_encryption_recipients[0]", 3),
    ],
)
def test_other_recipients_are_refused(keys: Any, field: str, told: Any) -> None:
    """No list, nobody at all, too many, or no key."""
    with pytest.raises(InputError) as caught:
        check_recipients(keys)
    assert (caught.value.field, caught.value.value) == (field, told)


@pytest.mark.parametrize("path", ["", "weights/a", "tinker:/x", "tinker://", None, 3])
def test_weights_come_from_where_a_service_keeps_them(path: Any) -> None:
    """A path of any service; nothing else is sent."""
    for good in ("tinker://run:train:0/weights/a", "tinker://run/a", "twinkle://run/weights/a", "/weights/a"):
        check_state_path("path", good)
    with pytest.raises(InputError) as caught:
        check_state_path("model_path", path)
    assert (caught.value.field, caught.value.value) == ("model_path", path)
