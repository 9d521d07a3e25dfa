from __future__ import annotations

import pytest

from tinker_actors.errors import InputError
from tinker_actors.wire.protobuf.message import Message, utf8, varint, write_integer


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xff\xff\x7f"),
        (2_097_152, b"\x80\x80\x80\x01"),
        (2**64 - 1, b"\xff" * 9 + b"\x01"),
        (-1, b"\xff" * 9 + b"\x01"),
    ],
)
def test_integers_take_seven_bits_to_the_byte(value: int, written: bytes) -> None:
    """The lowest come first, and every byte but the last has its high bit set."""
    assert varint(value) == written


@pytest.mark.parametrize(
    ("value", "bits"), [(2**31, 32), (-(2**31) - 1, 32), (2**63, 64), (1.0, 32), (None, 32)]
)
def test_integers_that_do_not_fit_are_refused(value: int, bits: int) -> None:
    """The error names the field and how many bits there are; what is no integer is refused alike."""
    with pytest.raises(InputError, match=f"must be an integer of {bits} bits") as caught:
        write_integer("seq_id", value, bits)
    assert (caught.value.field, caught.value.value) == ("seq_id", value)
    assert write_integer("seq_id", 2 ** (bits - 1) - 1, bits) == varint(2 ** (bits - 1) - 1)


@pytest.mark.parametrize("value", ["\ud800", 3, None])
def test_text_that_is_none_is_refused(value: str) -> None:
    """Half a surrogate pair has no UTF-8, and neither has what is no string."""
    with pytest.raises(InputError, match="must be a string of Unicode characters"):
        utf8("model_id", value)


@pytest.mark.parametrize("value", [10**400, None, "x"])
def test_numbers_that_are_no_doubles_are_refused(value: float) -> None:
    """An integer beyond every double, and what is no number."""
    with pytest.raises(InputError, match="must be a number within float64"):
        Message().double(9, value, "metrics['a']")


def test_what_readers_assume_anyway_is_left_out() -> None:
    """Empty strings and zeros take no bytes; bytes, doubles and submessages say that they are there."""
    message = Message()
    message.text(10, "", "name")
    message.integer(8, varint(0))
    assert message.join() == b""
    message.octets(10, b"")
    message.double(17, 0.0, "value")
    message.message(26, Message())
    assert message.join() == b"\x0a\x00\x11" + bytes(8) + b"\x1a\x00"
    assert message.size == 13
