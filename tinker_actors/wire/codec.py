"""The JSON codec: wire types to bytes and back.

Theory of operation. Two cattrs converters over orjson. The strict one reads what we, or a client of the
embedded service, send: an unknown field is an error with its path. The tolerant one reads services' answers:
unknown fields are ignored, so a newer service does not break an older client. Writing leaves fields that are
None out. Numbers are never coerced: `"3"` is not 3. Long lists (tokens, log probabilities) are taken as they
are, not walked element by element; their classes check them with one numpy call.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast, get_origin

import attrs
import cattrs
import numpy as np
import orjson
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire.sampling import SampledSequence, SamplingParams
from tinker_actors.wire.tensor import TENSOR_DTYPES, TensorData

__all__ = ["JsonValue", "decode", "encode", "structure", "unstructure"]

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"
_T = TypeVar("_T")
_Hook: TypeAlias = Callable[[Any, Any], Any]

_SCALARS: Mapping[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}


def encode(value: object) -> bytes:
    """Write a wire object as JSON.

    Raises:
        TypeError: something in it is not a wire type.
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


def _problems(error: Exception) -> list[str]:
    return cattrs.transform_error(error, format_exception=_explain)


def _explain(error: BaseException, kind: type | None) -> str:
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, KeyError):
        return f"required field missing: {error.args[0]}"
    if type(error) in (TypeError, Exception):
        return str(error)
    return cattrs.v.format_exception(error, kind)


def _scalar_hook(kind: type) -> _Hook:
    accepted = _SCALARS[kind]

    def hook(value: object, _: object) -> object:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        return kind(value)

    return hook


def _array_of(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value


def _numbers(value: object, dtype: str) -> np.ndarray[Any, Any]:
    items = _array_of(value)
    try:
        array = np.asarray(items, dtype=None if items else dtype)
        if dtype.startswith("float") and array.dtype == object:
            array = np.array([np.nan if item is None else item for item in items])  # JSON has no NaN
        if array.dtype.kind not in ("iuf" if dtype.startswith("float") else "iu"):
            raise TypeError(f"expected {dtype} numbers")
        return array.astype(dtype)
    except ValueError as error:
        raise TypeError(f"expected a flat list of {dtype} numbers") from error


def _tensor(value: object, _: object) -> TensorData:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    unknown = sorted(set(value) - {"data", "dtype", "shape"})
    if unknown:
        raise TypeError(f"unsupported tensor fields: {', '.join(unknown)}")
    dtype = value["dtype"]
    if dtype not in TENSOR_DTYPES:
        raise InputError("dtype", dtype, f"must be one of {', '.join(TENSOR_DTYPES)}")
    array = _numbers(value["data"], dtype)
    shape = value.get("shape")
    return TensorData(array, dtype, array.shape if shape is None else tuple(_array_of(shape)))


def _sequence(value: object, _: object) -> SampledSequence:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    reason = value["stop_reason"]
    if reason not in ("length", "stop"):
        raise InputError("stop_reason", reason, "must be 'length' or 'stop'")
    logprobs = value.get("logprobs")
    return SampledSequence(
        reason, _numbers(value["tokens"], "int32"), None if logprobs is None else _numbers(logprobs, "float32")
    )


def _tensor_value(tensor: TensorData) -> dict[str, object]:
    return {"data": tensor.data.reshape(-1), "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _sequence_value(sequence: SampledSequence) -> dict[str, object]:
    value: dict[str, object] = {"stop_reason": sequence.stop_reason, "tokens": sequence.tokens_np}
    if sequence.logprobs_np is not None:
        value["logprobs"] = sequence.logprobs_np
    return value


def _stop(value: object, _: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and (
        all(isinstance(item, str) for item in value)
        or all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    ):
        return value
    raise TypeError("expected a string, a list of strings or a list of token ids")


def _config_value(value: object, _: object) -> object:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    raise TypeError(f"expected a number or a string, got {type(value).__name__}")


def _flat_tuple(value: object, _: object) -> tuple[object, ...]:
    return tuple(_array_of(value))


def _is_flat_tuple(kind: object) -> bool:
    return kind in (tuple[int, ...], tuple[float | None, ...], tuple[str, ...])


def _is_open_mapping(kind: object) -> bool:
    return kind == Mapping[str, object]


def _drop_none(write: Callable[[Any], dict[str, object]]) -> Callable[[Any], dict[str, object]]:
    def hook(value: object) -> dict[str, object]:
        return {key: item for key, item in write(value).items() if item is not None}

    return hook


def _same(value: object) -> object:
    return value


def _open_mapping(value: object, _: object) -> object:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def _converter(*, strict: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=strict, detailed_validation=True)
    for kind in _SCALARS:
        converter.register_structure_hook(kind, _scalar_hook(kind))
    converter.register_structure_hook_func(_is_flat_tuple, _flat_tuple)
    converter.register_structure_hook_func(_is_open_mapping, _open_mapping)
    converter.register_structure_hook_func(lambda kind: kind == (float | str), _config_value)
    converter.register_structure_hook(TensorData, _tensor)
    converter.register_structure_hook(SampledSequence, _sequence)
    converter.register_unstructure_hook(TensorData, _tensor_value)
    converter.register_unstructure_hook(SampledSequence, _sequence_value)
    converter.register_unstructure_hook_func(_is_flat_tuple, _same)
    converter.register_unstructure_hook_func(lambda kind: _names_sequence(kind), _same)
    converter.register_unstructure_hook_factory(
        _is_plain_class, lambda kind: _drop_none(make_dict_unstructure_fn(kind, converter))
    )
    converter.register_structure_hook(
        SamplingParams,
        make_dict_structure_fn(
            SamplingParams,
            converter,
            _cattrs_forbid_extra_keys=strict,
            stop=override(struct_hook=_stop),
        ),
    )
    return converter


def _names_sequence(kind: object) -> bool:
    """Whether `kind` is the union that stop conditions are written as; it is sent as it is."""
    return isinstance(kind, types.UnionType) and any(
        get_origin(member) is Sequence for member in kind.__args__
    )


def _is_plain_class(kind: Any) -> bool:
    return isinstance(kind, type) and attrs.has(kind) and kind not in (TensorData, SampledSequence)


_STRICT = _converter(strict=True)
_TOLERANT = _converter(strict=False)
