"""The pieces of what a model reads: token ids, images, audio."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.array import exact_array
from tinker_actors.wire.field import ARRAY, choice, count, named, octets, text

__all__ = [
    "DmelChunk",
    "EncodedTextChunk",
    "ImageAssetPointerChunk",
    "ImageChunk",
    "ImageFormat",
    "ModelInputChunk",
    "Tokens",
]

Tokens: TypeAlias = Sequence[int] | npt.NDArray[np.integer]
"""Token ids as users write them."""

ImageFormat = Literal["png", "jpeg"]


def _tokens(tokens: Tokens) -> npt.NDArray[np.int32]:
    array = exact_array("tokens", tokens, "int32")  # 32 bits: what a token has in the API's protobuf form
    if array.ndim != 1:
        raise InputError("tokens", tokens, "must be a flat list of integers")
    if array.size and array.min() < 0:
        index = int((array < 0).argmax())
        raise InputError(f"tokens[{index}]", int(array[index]), "token ids are not negative")
    return array


@attrs.frozen
class EncodedTextChunk:
    """A run of token ids, given as `tokens`.

    Attributes:
        tokens_np: the token ids, int32, shape (n,), read-only.

    Raises:
        InputError: something else than a flat list, or array, of integers from 0 to 2**31 - 1.
    """

    tokens_np: npt.NDArray[np.int32] = attrs.field(
        alias="tokens", converter=_tokens, eq=ARRAY, hash=False, metadata=named("tokens")
    )
    type: Literal["encoded_text"] = "encoded_text"

    @property
    def tokens(self) -> tuple[int, ...]:
        """The token ids as Python's own integers."""
        return tuple(self.tokens_np.tolist())

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.tokens_np.size


def _image(data: bytes) -> bytes:
    return octets("data", data)


def _short(data: bytes) -> str:
    return f"<{len(data)} bytes>"


def _image_length(expected_tokens: int | None) -> int:
    if expected_tokens is None:
        raise InputError("expected_tokens", None, "how long an image is, only the service knows")
    return expected_tokens


@attrs.frozen
class ImageChunk:
    """An image.

    Attributes:
        data: the file's bytes.
        format: `png` or `jpeg`.
        expected_tokens: how many tokens it is thought to take; the service counts for itself.

    Raises:
        InputError: no bytes, another format, a count that is none.
    """

    data: bytes = attrs.field(converter=_image, repr=_short)
    format: ImageFormat = attrs.field(validator=choice(get_args(ImageFormat)))
    expected_tokens: int | None = attrs.field(default=None, validator=attrs.validators.optional(count))
    type: Literal["image"] = "image"

    @property
    def length(self) -> int:
        """Number of tokens.

        Raises:
            InputError: it was not said how many are expected.
        """
        return _image_length(self.expected_tokens)


@attrs.frozen
class ImageAssetPointerChunk:
    """An image that the service has already. For sampling; training requests cannot hold it.

    Attributes:
        format: `png` or `jpeg`.
        location: where the service finds it.
        expected_tokens: how many tokens it is thought to take; the service counts for itself.

    Raises:
        InputError: another format, no location, a count that is none.
    """

    format: ImageFormat = attrs.field(validator=choice(get_args(ImageFormat)))
    location: str = attrs.field(validator=text)
    expected_tokens: int | None = attrs.field(default=None, validator=attrs.validators.optional(count))
    type: Literal["image_asset_pointer"] = "image_asset_pointer"

    @property
    def length(self) -> int:
        """Number of tokens.

        Raises:
            InputError: it was not said how many are expected.
        """
        return _image_length(self.expected_tokens)


# --- audio -----------------------------------------------------------------------------------------------

_MARKER = 254  # may stand before the header of a container
_DTYPES = 8
_VARINT_BITS = 63


def _dmel(data: bytes) -> bytes:
    return octets("dmel", data)


def _wrong_container(data: bytes, why: str) -> InputError:
    return InputError("dmel", _short(data), f"is no tensor container: {why}")


def _varint(data: bytes, start: int, what: str) -> tuple[int, int]:
    """Read a variable-length integer; return it, and where the next field starts."""
    value = 0
    for shift, at in zip(range(0, _VARINT_BITS, 7), range(start, len(data)), strict=False):
        value |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return value, at + 1
    if len(data) - start >= _VARINT_BITS // 7:
        raise _wrong_container(data, f"{what} has more than {_VARINT_BITS} bits")
    raise _wrong_container(data, f"it ends within {what}")


def _first_dimension(data: bytes) -> int:
    """Read the first dimension from the header: [marker], dtype, number of dimensions, dimensions."""
    if not data:
        raise _wrong_container(data, "it is empty")
    start = 1 if data[0] == _MARKER else 0
    if start == len(data):
        raise _wrong_container(data, "it ends after the marker")
    if data[start] >= _DTYPES:
        raise _wrong_container(data, f"there is no dtype {data[start]}")
    dimensions, start = _varint(data, start + 1, "the number of dimensions")
    if dimensions == 0:
        raise _wrong_container(data, "it has no dimension")
    return _varint(data, start, "the first dimension")[0]


@attrs.frozen
class DmelChunk:
    """Audio, as the frames of a spectrogram.

    Attributes:
        dmel: a serialized tensor container.

    Raises:
        InputError: no bytes.
    """

    dmel: bytes = attrs.field(converter=_dmel, repr=_short)
    type: Literal["dmel"] = "dmel"

    @property
    def length(self) -> int:
        """Number of tokens: the container's first dimension.

        Raises:
            InputError: the bytes are no container; nothing but its header is looked at.
        """
        return _first_dimension(self.dmel)


ModelInputChunk: TypeAlias = EncodedTextChunk | ImageChunk | ImageAssetPointerChunk | DmelChunk
