from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.refusals import refusal
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk, ImageAssetPointerChunk, ImageChunk
from tinker_actors.wire.codec import decode, encode
from tinker_actors.wire.input import ModelInput


def test_tokens_are_held_as_an_array_that_nobody_can_change() -> None:
    """One copy of what can be written, none of what cannot; the tuple is made when it is asked for."""
    own = np.array([1, 2, 3], np.int32)
    chunk = EncodedTextChunk(own)
    own[0] = 9
    assert chunk.tokens == (1, 2, 3)
    assert chunk.tokens_np.dtype == np.int32
    assert not chunk.tokens_np.flags.writeable
    own.setflags(write=False)
    assert EncodedTextChunk(own).tokens_np is own
    assert EncodedTextChunk([1, 2]).tokens_np.dtype == np.int32


def test_chunks_are_compared_by_their_tokens_and_can_be_keys() -> None:
    """Equal chunks have equal hashes."""
    assert EncodedTextChunk([1, 2]) == EncodedTextChunk(np.array([1, 2]))
    assert EncodedTextChunk([1, 2]) != EncodedTextChunk([1, 3])
    assert hash(ModelInput.from_ints([1, 2])) == hash(ModelInput.from_ints((1, 2)))


@pytest.mark.lesson("D24")
@pytest.mark.requirement("R81", "R49")
@given(st.binary(), st.sampled_from(["png", "jpeg"]))
def test_an_image_is_bytes_in_memory_and_base64_in_json(data: bytes, kind: Any) -> None:
    """There is no upload of files: the image travels in the request."""
    image = ImageChunk(bytearray(data), kind, 7)
    assert (image.data, type(image.data), image.length) == (data, bytes, 7)
    body = orjson.loads(encode(image))
    assert set(body) == {"data", "format", "expected_tokens", "type"}
    assert (body["format"], body["type"]) == (kind, "image")
    assert decode(ImageChunk, encode(image), strict=True) == image


@pytest.mark.requirement("R82")
def test_a_pointer_has_a_location() -> None:
    """Its tag is `image_asset_pointer`."""
    pointer = ImageAssetPointerChunk("png", "asset://1", 3)
    assert pointer.length == 3
    assert orjson.loads(encode(pointer)) == {
        "format": "png",
        "location": "asset://1",
        "expected_tokens": 3,
        "type": "image_asset_pointer",
    }


def test_bytes_are_not_shown() -> None:
    """A message of the log does not grow with the image."""
    assert repr(ImageChunk(b"secret picture", "png")) == (
        "ImageChunk(data=<14 bytes>, format='png', expected_tokens=None, type='image')"
    )
    assert "<3 bytes>" in repr(DmelChunk(b"abc"))


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (lambda: ImageChunk("text", "png"), "data", "text"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: ImageChunk(b"", "gif"), "format", "gif"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: ImageChunk(b"", "png", -1), "expected_tokens", -1),
        (lambda: ImageChunk(b"", "png", True), "expected_tokens", True),
        (lambda: ImageChunk(b"", "png").length, "expected_tokens", None),
        (lambda: ImageAssetPointerChunk("png", 3), "location", 3),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: ImageAssetPointerChunk(["png"], ""), "format", ["png"]),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: ImageAssetPointerChunk("png", "").length, "expected_tokens", None),
        (lambda: DmelChunk([1]), "dmel", [1]),  # type: ignore[arg-type]  # wrong on purpose
    ],
    ids=range(9),
)
def test_what_is_no_image_or_audio_is_refused(make: Any, field: str, value: object) -> None:
    """By the field; the length of an image of unknown length as well."""
    assert refusal(make) == (field, value)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"\x00\x01\x05", 5),
        (b"\xfe\x07\x02\x80\x01\x03 and the rest", 128),
        (b"\x03\x02\x00\x09", 0),
        (b"\x03\x01" + b"\xff" * 8 + b"\x7f", 2**63 - 1),
    ],
)
def test_audio_is_as_long_as_its_first_dimension(header: bytes, length: int) -> None:
    """Read from the header: marker, dtype, number of dimensions, dimensions."""
    assert DmelChunk(header).length == length


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"", "it is empty"),
        (b"\xfe", "it ends after the marker"),
        (b"\x08\x01\x01", "there is no dtype 8"),
        (b"\xfe\xfe", "there is no dtype 254"),
        (b"\x00", "it ends within the number of dimensions"),
        (b"\x00\x80\x80", "it ends within the number of dimensions"),
        (b"\x00" + b"\x80" * 9 + b"\x01", "the number of dimensions has more than 63 bits"),
        (b"\x00\x00\x05", "it has no dimension"),
        (b"\x00\x02", "it ends within the first dimension"),
        (b"\x00\x01" + b"\xff" * 9, "the first dimension has more than 63 bits"),
    ],
)
def test_what_is_no_audio_is_refused_when_its_length_is_asked_for(header: bytes, why: str) -> None:
    """Each with what is wrong about its header."""
    chunk = DmelChunk(header)
    with pytest.raises(ValueError, match=f"is no tensor container: {why}"):
        _ = chunk.length


@given(st.binary(max_size=24))
def test_any_bytes_have_a_length_or_are_refused(data: bytes) -> None:
    """Nothing but InputError comes out of the header's reader."""
    chunk = DmelChunk(data)
    try:
        assert chunk.length >= 0
    except ValueError as error:
        assert type(error).__name__ == "InputError"  # noqa: PT017 - there may be none
