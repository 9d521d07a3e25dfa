"""The JSON codec: wire types to bytes and back.

Theory of operation. Two cattrs converters over orjson. The strict one reads what we, or a client of the
embedded service, send: an unknown field is an error with its path. The tolerant one reads services' answers:
unknown fields are ignored, so a newer service does not break an older client. Writing leaves fields that are
None out. Values are never coerced: `"3"` is not 3, `true` is not 1 and 1.5 is not an integer; only an integer may
stand where a float is wanted. Long lists (tokens, log probabilities, tensors) are checked as a whole, without a
Python call for each element.

JSON has no NaN and no infinity. In tensors, log probabilities and metrics both are written as null, and null
is read as NaN.
"""

import math
import types
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
import numpy as np
import orjson
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire.sampling import SampledSequence
from tinker_actors.wire.tensor import TensorData, exact_array, flat_array

__all__ = ["JsonValue", "decode", "encode", "structure", "unstructure"]

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"
_T = TypeVar("_T")
# cattrs hands each hook a value of unknown kind, and types of many shapes beside it.
_Hook: TypeAlias = Callable[[Any, Any], Any]

_TopkLogprobs: TypeAlias = tuple[tuple[tuple[int, float], ...] | None, ...]

_WORDS: Mapping[type, str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "a string",
    type(None): "null",
}


def encode(value: object) -> bytes:
    """Write a wire object as JSON.

    Raises:
        TypeError: something in it has no JSON form.
    """
    return orjson.dumps(_TOLERANT.unstructure(value), option=orjson.OPT_SERIALIZE_NUMPY)


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
        raise DecodeError(kind.__name__, _problems(error)) from error


def unstructure(value: object) -> JsonValue:
    """Return the JSON value of a wire object; arrays stay numpy arrays."""
    return cast("JsonValue", _TOLERANT.unstructure(value))


# --- problems --------------------------------------------------------------------------------------------


def _problems(error: Exception) -> list[str]:
    return cattrs.transform_error(error, format_exception=_explain)


def _explain(error: BaseException, kind: type | None) -> str:
    match error:
        case InputError():
            return str(error)
        case KeyError():
            return "required field missing"
        case cattrs.ForbiddenExtraKeysError():
            return f"unknown field: {', '.join(sorted(error.extra_fields))}"
        case AttributeError():  # where a mapping was expected
            return f"must be {_WORDS[dict]}"
        case TypeError():
            return str(error)
        case _:
            return cattrs.v.format_exception(error, kind)


def _wrong(value: object, *kinds: type, name: str = "value") -> InputError:
    words = [_WORDS[kind] for kind in kinds if kind is not int or float not in kinds]
    return InputError(name, value, f"must be {' or '.join(words)}")


# --- reading ---------------------------------------------------------------------------------------------


def _scalar_hook(kind: type) -> _Hook:
    accepted = (int, float) if kind is float else (kind,)

    def hook(value: Any, _: object) -> object:
        if type(value) not in accepted:
            raise _wrong(value, kind)
        return kind(value)

    return hook


def _literal(value: object, kind: object) -> object:
    choices = get_args(kind)
    if not isinstance(value, str) or value not in choices:
        raise InputError("value", value, f"must be one of {', '.join(map(repr, choices))}")
    return value


def _object_of(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(value, dict)
    return value


def _list_of(
    value: object, *kinds: type, name: str = "value"
) -> list[Any]:  # of what, the caller says by `kinds`
    """Return a JSON list; with `kinds`, one whose elements are all of these."""
    if not isinstance(value, list):
        raise _wrong(value, list, name=name)
    if kinds and not set(map(type, value)).issubset(kinds):
        index, item = next((at, item) for at, item in enumerate(value) if type(item) not in kinds)
        raise _wrong(item, *kinds, name=f"{name}[{index}]")
    return value


def _integers(value: object, name: str = "value") -> Any:
    """Return a list of integers as an array; as it is, if they are too large for one."""
    items = _list_of(value, name=name)
    array = flat_array(items)
    if array is not None and (array.dtype.kind == "i" or not items):
        return array
    return _list_of(items, int, name=name)


def _floats(value: object, name: str) -> Any:
    """Return a list of numbers as an array, in which null has become NaN."""
    items = _list_of(value, name=name)
    array = flat_array(items)
    if array is not None:
        return array
    _list_of(items, float, int, type(None), name=name)
    return [math.nan if item is None else item for item in items]


def _fields(
    value: object, required: Sequence[str], known: Sequence[str], *, strict: bool
) -> dict[str, object]:
    """Return an object with its required fields and, if it is read strictly, no unknown ones."""
    fields = _object_of(value)
    missing = [name for name in required if name not in fields]
    if missing:
        raise TypeError(f"required field missing: {', '.join(missing)}")
    unknown = sorted(set(fields).difference(required, known))
    if unknown and strict:
        raise TypeError(f"unknown field: {', '.join(unknown)}")
    return fields


def _tensor_hook(*, strict: bool) -> _Hook:
    sparse = ("sparse_crow_indices", "sparse_col_indices")

    def hook(value: object, _: object) -> TensorData:
        fields = _fields(value, ("data", "dtype"), ("shape", *sparse), strict=strict)
        for name in sparse:  # the listed values of a sparse tensor are not those of a dense one
            if fields.get(name) is not None:
                raise InputError(name, fields[name], "sparse tensors are not supported")
        dtype: Any = fields["dtype"]  # the class checks it, and the shape
        data = fields["data"]
        numbers = _floats(data, "data") if dtype == "float32" else _integers(data, "data")
        shape: Any = fields.get("shape")
        return TensorData(numbers, dtype, shape)

    return hook


def _sequence_hook(*, strict: bool) -> _Hook:
    def hook(value: object, _: object) -> SampledSequence:
        fields = _fields(value, ("stop_reason", "tokens"), ("logprobs",), strict=strict)
        reason = fields["stop_reason"]
        if reason not in ("length", "stop"):
            raise InputError("stop_reason", reason, "must be 'length' or 'stop'")
        logprobs = fields.get("logprobs")
        return SampledSequence(
            reason,
            exact_array("tokens", _integers(fields["tokens"], "tokens"), "int32"),
            None if logprobs is None else exact_array("logprobs", _floats(logprobs, "logprobs"), "float32"),
        )

    return hook


def _stop(value: object, _: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and set(map(type, value)) in ({str}, {int}, set()):
        return value
    raise InputError("value", value, "must be a string, a list of strings or a list of token ids")


def _config_value(value: object, _: object) -> object:
    if type(value) not in (str, int, float):
        raise _wrong(value, float, str)
    return value


def _metrics(value: object, _: object) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, number in _object_of(value).items():
        if number is not None and type(number) not in (int, float):
            raise _wrong(number, float, type(None), name=f"value[{name!r}]")
        metrics[name] = math.nan if number is None else float(cast("float", number))
    return metrics


def _token_list(value: object, _: object) -> object:
    return _integers(value)  # the class makes it a tuple


def _string_tuple(value: object, _: object) -> tuple[str, ...]:
    return tuple(_list_of(value, str))


def _logprob_tuple(value: object, _: object) -> tuple[float | None, ...]:
    items = _list_of(value, float, int, type(None))
    return tuple([None if item is None else float(item) for item in items])


def _topk(value: object, _: object) -> _TopkLogprobs:
    rows = _list_of(value, list, type(None))
    pairs = _list_of(list(chain.from_iterable([row for row in rows if row is not None])), list, name="pairs")
    if not set(map(len, pairs)).issubset({2}):
        raise TypeError("expected pairs of a token id and a log probability")
    _list_of([token for token, _ in pairs], int, name="token ids")
    _list_of([logprob for _, logprob in pairs], float, int, name="log probabilities")
    return tuple([None if row is None else tuple(map(tuple, row)) for row in rows])


def _open_mapping(value: object, _: object) -> dict[str, object]:
    return _object_of(value)


_WHOLE: Mapping[object, _Hook] = {
    tuple[int, ...]: _token_list,
    tuple[str, ...]: _string_tuple,
    tuple[float | None, ...]: _logprob_tuple,
    _TopkLogprobs: _topk,
    dict[str, float]: _metrics,
    Mapping[str, object]: _open_mapping,
    float | str: _config_value,
}
"""What is read as a whole, and written as it is."""


def _is_whole(kind: object) -> bool:
    return kind in _WHOLE


def _is_literal(kind: object) -> bool:
    origin: object = get_origin(kind)
    return origin is Literal


def _is_list(kind: object) -> bool:
    return get_origin(kind) is Sequence or (get_origin(kind) is tuple and get_args(kind)[1:] == (...,))


def _is_stop(kind: object) -> bool:
    """Whether `kind` is the union that stop conditions are; it is sent as it is."""
    return isinstance(kind, types.UnionType) and any(
        get_origin(member) is Sequence for member in kind.__args__
    )


def _list_hook(converter: cattrs.Converter, kind: Any) -> _Hook:  # kinds have many shapes, as above
    items = cast("Any", list)[get_args(kind)[0]]
    read = converter.get_structure_hook(items)

    def hook(value: object, _: object) -> tuple[object, ...]:
        return tuple(read(_list_of(value), items))

    return hook


def _class_hook(converter: cattrs.Converter, kind: Any, *, strict: bool) -> _Hook:
    read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=strict)

    def hook(value: object, _: object) -> object:
        return read(_object_of(value), kind)

    return hook


# --- writing ---------------------------------------------------------------------------------------------


def _tensor_value(tensor: TensorData) -> dict[str, object]:
    return {"data": tensor.data.reshape(-1), "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _sequence_value(sequence: SampledSequence) -> dict[str, object]:
    value: dict[str, object] = {
        "stop_reason": sequence.stop_reason,
        "tokens": np.ascontiguousarray(sequence.tokens_np),
    }
    if sequence.logprobs_np is not None:
        value["logprobs"] = np.ascontiguousarray(sequence.logprobs_np)
    return value


def _same(value: object) -> object:
    return value


def _class_value(converter: cattrs.Converter, kind: Any) -> Callable[[Any], dict[str, object]]:
    write = make_dict_unstructure_fn(kind, converter)

    def hook(value: object) -> dict[str, object]:
        return {name: item for name, item in write(value).items() if item is not None}

    return hook


# --- the converters --------------------------------------------------------------------------------------


def _is_class(kind: Any) -> bool:
    return isinstance(kind, type) and attrs.has(kind)


def _converter(*, strict: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=strict, detailed_validation=True)
    # Of two hooks that fit, the one that was registered last is taken.
    converter.register_structure_hook_factory(_is_list, lambda kind: _list_hook(converter, kind))
    converter.register_structure_hook_factory(
        _is_class, lambda kind: _class_hook(converter, kind, strict=strict)
    )
    converter.register_structure_hook_func(_is_literal, _literal)
    converter.register_structure_hook_func(_is_stop, _stop)
    converter.register_structure_hook_factory(_is_whole, lambda kind: _WHOLE[kind])
    for kind in (bool, float, int, str):
        converter.register_structure_hook(kind, _scalar_hook(kind))
    converter.register_structure_hook(TensorData, _tensor_hook(strict=strict))
    converter.register_structure_hook(SampledSequence, _sequence_hook(strict=strict))
    converter.register_unstructure_hook_factory(_is_class, lambda kind: _class_value(converter, kind))
    converter.register_unstructure_hook_func(_is_stop, _same)
    converter.register_unstructure_hook_func(_is_whole, _same)
    converter.register_unstructure_hook(TensorData, _tensor_value)
    converter.register_unstructure_hook(SampledSequence, _sequence_value)
    return converter


_STRICT = _converter(strict=True)
_TOLERANT = _converter(strict=False)
