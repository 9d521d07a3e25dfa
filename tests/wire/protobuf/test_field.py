from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.protobuf.schema import OFFICIAL
from tinker_actors.wire.protobuf.field import (
    FLOAT32,
    Malformed,
    array,
    integer,
    integers,
    message_key,
    oneof,
    scan,
    text,
    varint_key,
)
from tinker_actors.wire.protobuf.message import varint


def why(data: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        scan(data, 0, len(data))
    return caught.value.why


def test_fields_are_found_by_key_and_in_order() -> None:
    """Of every wire type it is noted where the value lies; an integer's value is noted itself."""
    data = b"\x08\x96\x01\x12\x02hi\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x08\x02" + b"\x12\x00"
    assert scan(data, 0, len(data)) == {
        0x08: [(150, 1), (2, 22)],
        0x12: [(5, 7), (25, 25)],
        0x19: [(8, 16)],
        0x25: [(17, 21)],
    }
    assert scan(data, 3, 7) == {0x12: [(5, 7)]}
    assert scan(data, 3, 3) == {}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x08", "truncated: a varint has no end"),
        (b"\x08\x80", "truncated: a varint has no end"),
        (b"\x08" + b"\x80" * 10 + b"\0", "a varint is too long"),
        (b"\x12", "truncated: a varint has no end"),
        (b"\x12\x80", "truncated: a varint has no end"),
        (b"\x12\x03hi", "truncated: field 2 ends 1 bytes beyond the message"),
        (b"\x12\x80\x80\x01hi", "truncated: field 2 ends 16382 bytes beyond the message"),
        (b"\x19\0\0", "truncated: field 3 ends 6 bytes beyond the message"),
        (b"\x25\0", "truncated: field 4 ends 3 bytes beyond the message"),
        (b"\x0b\x0c", "groups are not supported"),
        (b"\x0c", "groups are not supported"),
        (b"\x0e", "6 is no wire type"),
        (b"\x00\x00", "0 is no field number"),
        (b"\x80\x80\x80\x80\x10\x00", "536870912 is no field number"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, what: str) -> None:
    """Lengths beyond the end, endless numbers, groups, and keys that no field can have."""
    assert why(data) == what


def test_nothing_is_read_beyond_the_end_of_a_submessage() -> None:
    """Bytes that follow a message are none of its own, whatever its last field claims."""
    data = b"\x12\x05hello\x08\x81\x01"
    for end in (1, 4, 8, 9):
        with pytest.raises(Malformed):
            scan(data, 0, end)


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_are_written_and_read_as_protobuf_does_it(value: int) -> None:
    """All sizes come back in 64 bits, and in 32 the lower half does, as the official package reads them."""
    data = b"\x08" + varint(value)
    wide = integer(scan(data, 0, len(data)), varint_key(1), 64)
    assert (wide - value) % 2**64 == 0
    official = OFFICIAL["ForwardBackwardRequest"].FromString(b"\x10" + varint(value))
    assert integer(scan(data, 0, len(data)), varint_key(1)) == official.seq_id
    official = OFFICIAL["ArrayRecord"].FromString(b"\x18" + varint(value))
    assert wide == official.num_datums


@given(
    st.lists(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3) | st.integers(-(2**63), 2**63 - 1), max_size=4
    )
)
def test_lists_of_integers_are_packed_or_single_or_both(runs: list[Any]) -> None:
    """Whichever way they were written, they are read in the order they came in."""
    data = b""
    for run in runs:
        if isinstance(run, int):
            data += b"\x20" + varint(run)
        else:
            packed = b"".join(map(varint, run))
            data += b"\x22" + varint(len(packed)) + packed
    expected = list(OFFICIAL["Tensor"].FromString(data).shape)
    assert integers(data, scan(data, 0, len(data)), message_key(4), ".shape") == expected


def test_a_packed_list_that_ends_within_a_number_is_refused() -> None:
    """The path says which list it was."""
    data = b"\x22\x01\x80"
    with pytest.raises(Malformed) as caught:
        integers(data, scan(data, 0, 3), message_key(4), ".shape")
    assert caught.value.path == ".shape"


def test_of_a_oneof_the_last_member_counts() -> None:
    """Occurrences of the last member are merged as far back as no other one stands between."""
    data = b"\x0a\x01a\x12\x01b\x0a\x01c\x0a\x01d"
    assert oneof(scan(data, 0, len(data)), 0x0A, 0x12) == (0x0A, [(8, 9), (11, 12)])
    assert oneof(scan(data, 0, 6), 0x0A, 0x12) == (0x12, [(5, 6)])
    assert oneof({}, 0x0A) is None


def test_text_is_utf8() -> None:
    """The last of several counts; what is not UTF-8 is refused, with its place."""
    data = b"\x0a\x01a\x0a\x02\xc3\xa9"
    assert text(data, scan(data, 0, 7), 0x0A, ".name") == "é"
    assert text(data, {}, 0x0A, ".name") == ""
    with pytest.raises(Malformed) as caught:
        text(b"\xc3(", {0x0A: [(0, 2)]}, 0x0A, ".name")
    assert (caught.value.why, caught.value.path) == ("not UTF-8: invalid continuation byte", ".name")


@pytest.mark.parametrize("size", [0, 4, 4096, 4100, 40_000])
def test_arrays_are_aligned_and_read_only_wherever_they_lie(size: int) -> None:
    """Values are the bytes', for every position in the message."""
    for start in range(8):
        data = bytes(start) + bytes(range(1, 5)) * (size // 4) + b"tail"
        values = array(data, start, start + size, FLOAT32)
        assert values.tobytes() == data[start : start + size]
        assert values.flags.aligned
        assert not values.flags.writeable


@pytest.mark.parametrize("size", [1, 4099])
def test_a_part_of_a_value_is_refused(size: int) -> None:
    """Neither small nor large arrays end within a value."""
    with pytest.raises(Malformed, match=f"{size} bytes do not hold whole values of 4"):
        array(bytes(size), 0, size, np.dtype("<f4"))
