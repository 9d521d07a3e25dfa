from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import numpy as np
import orjson
import pytest

from tests.wire.refusals import refusal
from tinker_actors.errors import InputError
from tinker_actors.wire.codec import encode, structure
from tinker_actors.wire.field import ARRAY, count, filled, named, null, octets, since, timestamp
from tinker_actors.wire.session import FinishReason, FinishSessionRequest
from tinker_actors.wire.training import LOSS_FNS, ForwardBackwardInput


@attrs.frozen
class Sample:
    """A class with a field of each mark."""

    plain: int | None = None
    told: int | None = attrs.field(default=None, metadata=null())
    newer: int = attrs.field(default=3, metadata=since("0.30.0"))
    attribute: str = attrs.field(default="", metadata=named("wire"))


@pytest.mark.lesson("D62")
@pytest.mark.requirement("R77")
def test_what_is_said_of_a_field_is_how_it_is_written() -> None:
    """None is left out or null, a default may be too new, a name may be another."""
    assert orjson.loads(encode(Sample())) == {"told": None, "wire": ""}
    assert orjson.loads(encode(Sample(), newer=True)) == {"told": None, "newer": 3, "wire": ""}
    full = Sample(1, 2, 4, "a")
    assert orjson.loads(encode(full)) == {"plain": 1, "told": 2, "newer": 4, "wire": "a"}
    assert structure(Sample, {"plain": 1, "told": 2, "newer": 4, "wire": "a"}, strict=True) == full


@pytest.mark.lesson("D62")
@pytest.mark.requirement("R77")
def test_the_reason_of_a_finish_is_null_if_there_is_none() -> None:
    """The official client writes it so."""
    assert encode(FinishSessionRequest(FinishReason("success"))).endswith(b'"detail":null}')


def test_a_name_in_an_error_is_that_on_the_wire() -> None:
    """Whoever wrote the JSON does not know our attributes."""
    with pytest.raises(Exception, match=r"@ \$\.wire"):
        structure(Sample, {"wire": 3}, strict=False)


def test_arrays_are_compared_by_shape_and_values() -> None:
    """Missing numbers are equal, an array is not equal to none."""

    def same(one: object, other: object) -> bool:
        return bool(ARRAY(one) == ARRAY(other))

    nan = np.array([np.nan, 1.0], np.float32)
    assert same(nan, nan.copy())
    assert not same(nan, np.array([0.0, 1.0], np.float32))
    assert not same(np.zeros((1, 2)), np.zeros((2, 1)))
    assert same(None, None)
    assert not same(nan, None)


def test_bytes_are_ones_own() -> None:
    """A buffer that is changed later changes nothing."""
    buffer = bytearray(b"ab")
    copy = octets("data", memoryview(buffer))
    buffer[0] = 0
    assert copy == b"ab"
    assert refusal(octets, "data", "ab") == ("data", "ab")


def test_a_time_is_aware() -> None:
    """Naive ones are UTC, texts are read, zones are kept."""
    naive = datetime(2026, 1, 2)  # noqa: DTZ001 - it is what this is about
    assert timestamp(naive) == datetime(2026, 1, 2, tzinfo=UTC)
    there = datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=3)))
    assert timestamp(there) is there
    assert timestamp("2026-01-02T00:00:00+03:00") == there
    assert timestamp("whenever") == "whenever"


def test_a_choice_is_named_with_its_choices() -> None:
    """What is no string is no choice."""
    for value in ("mood", ["ppo"]):
        assert refusal(ForwardBackwardInput, [], value) == ("loss_fn", value)
    assert ForwardBackwardInput([], LOSS_FNS[0]).loss_fn == LOSS_FNS[0]  # type: ignore[arg-type]  # it is one
    assert callable(filled)


@attrs.frozen
class Counted:
    """Something with a count."""

    times: int = attrs.field(validator=count)


@pytest.mark.parametrize("times", [0, 3, np.int64(3), np.uint8(0)])
def test_a_count_may_be_an_integer_of_numpy(times: int) -> None:
    """They come out of arrays."""
    assert Counted(times).times == times


@pytest.mark.parametrize("times", [-1, np.int64(-1), True, 1.0, "1", None])
def test_what_is_no_count_is_refused_by_its_name(times: Any) -> None:
    """Negative numbers, truth values, fractions and texts."""
    with pytest.raises(InputError, match=r"times = .*: must be an integer that is not negative"):
        Counted(times)
