"""The JSON codec: wire types to bytes and back.

Theory of operation. Converters of cattrs over orjson. Two read: the strict one what we, or a client of the
embedded service, send: an unknown field is an error with its path. The tolerant one reads services' answers:
unknown fields are ignored, so a newer service does not break an older client. Two write: one leaves fields out
that only newer services know, while they have their default; the other, for services that want them, does not.
Both leave out None, but where a field is said to be written as null (`field.null`). Values are never coerced:
`"3"` is not 3, `true` is not 1 and 1.5 is not an integer; only an integer may stand where a float is wanted. Long
lists (tokens, log probabilities, tensors) are checked as a whole, without a Python call for each element.

JSON has no NaN and no infinity. In tensors, log probabilities and metrics both are written as null, and null
is read as NaN. Bytes are base64, times RFC 3339.

`reading` and `writing` have the hooks of single values, `structure` those of classes, unions and lists.
"""

from typing import TypeAlias, TypeVar, cast

import cattrs
import orjson

from tinker_actors.errors import DecodeError
from tinker_actors.wire import reading, writing
from tinker_actors.wire import structure as shapes
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.optimizer import OptimizerConfigBase, OptimParamsBase, OptimStepRequest
from tinker_actors.wire.problem import problems_of
from tinker_actors.wire.tensor import TensorData

__all__ = ["JsonValue", "decode", "encode", "structure", "unstructure"]

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"
_T = TypeVar("_T")


def encode(value: object, *, newer: bool = False) -> bytes:
    """Write a wire object as JSON.

    Args:
        value: the object.
        newer: also write fields that came after version 0.24 of the official client while they have their
            default.

    Raises:
        TypeError: something in it has no JSON form.
    """
    return orjson.dumps(_writer(newer=newer).unstructure(value), option=orjson.OPT_SERIALIZE_NUMPY)


def decode(kind: type[_T], data: bytes | bytearray | memoryview, *, strict: bool) -> _T:
    """Read a wire object from JSON.

    Args:
        kind: the wire class expected.
        data: the bytes.
        strict: refuse unknown fields.

    Raises:
        DecodeError: not JSON, or not that class; `problems` names each place.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise DecodeError(kind.__name__, [f"not JSON: {error}"]) from error
    return structure(kind, value, strict=strict)


def structure(kind: type[_T], value: JsonValue, *, strict: bool) -> _T:
    """Make a wire object of a JSON value; see `decode`."""
    converter = _STRICT if strict else _TOLERANT
    try:
        return converter.structure(value, kind)
    except Exception as error:  # cattrs raises groups of whatever the hooks raised
        raise DecodeError(kind.__name__, problems_of(error)) from error


def unstructure(value: object, *, newer: bool = False) -> JsonValue:
    """Return the JSON value of a wire object; arrays stay numpy arrays."""
    return cast("JsonValue", _writer(newer=newer).unstructure(value))


# --- the converters --------------------------------------------------------------------------------------


def _is_read_whole(kind: object) -> bool:
    return kind in reading.WHOLE


def _is_written_whole(kind: object) -> bool:
    return kind in writing.WRITERS


def _reader(*, strict: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=strict, detailed_validation=True)
    # Of two hooks that fit, the one that was registered last is taken.
    converter.register_structure_hook_factory(shapes.is_list, lambda kind: shapes.list_hook(converter, kind))
    converter.register_structure_hook_factory(
        shapes.is_class, lambda kind: shapes.class_hook(converter, kind, strict=strict)
    )
    converter.register_structure_hook_factory(
        shapes.is_union, lambda kind: shapes.union_hook(converter, kind)
    )
    converter.register_structure_hook_func(shapes.is_literal, reading.read_literal)
    converter.register_structure_hook_func(shapes.is_stop, reading.read_stop)
    converter.register_structure_hook_factory(_is_read_whole, lambda kind: reading.WHOLE[kind])
    for kind in (bool, float, int, str):
        converter.register_structure_hook(kind, reading.scalar_hook(kind))
    converter.register_structure_hook(bytes, reading.read_bytes)
    converter.register_structure_hook(TensorData, reading.tensor_hook(strict=strict))
    converter.register_structure_hook(TopkLogprobs, reading.read_topk)
    for open_kind in (OptimizerConfigBase, OptimParamsBase):
        converter.register_structure_hook(open_kind, reading.open_hook(open_kind))
    converter.register_structure_hook(OptimStepRequest, shapes.step_hook(converter, strict=strict))
    return converter


def _new_writer(*, newer: bool) -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_unstructure_hook_factory(
        shapes.is_class, lambda kind: shapes.class_writer(converter, kind, newer=newer)
    )
    converter.register_unstructure_hook_func(shapes.is_stop, writing.same)
    converter.register_unstructure_hook_factory(_is_written_whole, lambda kind: writing.WRITERS[kind])
    converter.register_unstructure_hook(bytes, writing.write_bytes)
    converter.register_unstructure_hook(TensorData, writing.write_tensor)
    converter.register_unstructure_hook(TopkLogprobs, TopkLogprobs.json_value)
    for open_kind in (OptimizerConfigBase, OptimParamsBase):
        converter.register_unstructure_hook(open_kind, writing.write_open)
    converter.register_unstructure_hook(OptimStepRequest, shapes.step_writer(converter, newer=newer))
    return converter


def _writer(*, newer: bool) -> cattrs.Converter:
    return _NEWER if newer else _PLAIN


_STRICT = _reader(strict=True)
_TOLERANT = _reader(strict=False)
_PLAIN = _new_writer(newer=False)
_NEWER = _new_writer(newer=True)
