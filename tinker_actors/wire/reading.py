"""From JSON values to the values of fields: nothing is coerced, and long lists are checked as a whole."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.array import exact_array, flat_array
from tinker_actors.wire.field import timestamp
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.optimizer import OptimizerConfigBase, OptimParamsBase
from tinker_actors.wire.problem import missing, wrong
from tinker_actors.wire.tensor import TensorData

__all__ = [
    "WHOLE",
    "Hook",
    "list_of",
    "object_of",
    "open_hook",
    "read_bytes",
    "read_literal",
    "read_stop",
    "read_topk",
    "scalar_hook",
    "tensor_hook",
]

# cattrs hands each hook a value of unknown kind, and types of many shapes beside it.
Hook: TypeAlias = Callable[[Any, Any], Any]


# --- one value -------------------------------------------------------------------------------------------


def scalar_hook(kind: type) -> Hook:
    """Make the hook of booleans, integers, floats or strings."""
    accepted = (int, float) if kind is float else (kind,)

    def hook(value: Any, _: object) -> object:
        if type(value) not in accepted:
            raise wrong(value, kind)
        return kind(value)

    return hook


def read_literal(value: object, kind: object) -> object:
    """Read one of some strings or integers."""
    choices = get_args(kind)
    if not isinstance(value, str) or value not in choices:
        raise InputError("value", value, f"must be one of {', '.join(map(repr, choices))}")
    return value


def read_stop(value: object, _: object) -> object:
    """Read stop conditions."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and set(map(type, value)) in ({str}, {int}, set()):
        return value
    raise InputError("value", value, "must be a string, a list of strings or a list of token ids")


def _config_value(value: object, _: object) -> object:
    if type(value) not in (str, int, float):
        raise wrong(value, float, str)
    return value


def read_bytes(value: object, _: object) -> bytes:
    """Read bytes in base64."""
    if not isinstance(value, str):
        raise wrong(value, str)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not even ASCII
        raise InputError("value", value, "must be base64") from error


def _time(value: object, _: object) -> object:
    if not isinstance(value, str):
        raise wrong(value, str)
    return timestamp(value)


def _time_or_none(value: object, _: object) -> object:
    return None if value is None else _time(value, _)


# --- objects ---------------------------------------------------------------------------------------------


def object_of(value: object) -> dict[str, object]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise wrong(value, dict)
    return value


def _fields(
    value: object, required: Sequence[str], known: Sequence[str], *, strict: bool
) -> dict[str, object]:
    """Return an object with its required fields and, if it is read strictly, no unknown ones."""
    fields = object_of(value)
    absent = [name for name in required if name not in fields]
    if absent:
        raise missing(*absent)
    unknown = sorted(set(fields).difference(required, known))
    if unknown and strict:
        raise TypeError(f"unknown field: {', '.join(unknown)}")
    return fields


def _open_mapping(value: object, _: object) -> dict[str, object]:
    return object_of(value)


def _text_mapping(value: object, _: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise wrong(value, dict)
    for name, text in value.items():
        if type(text) is not str:
            raise wrong(text, str, name=f"value[{name!r}]")
    return value


def _metrics(value: object, _: object) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, number in object_of(value).items():
        if number is not None and type(number) not in (int, float):
            raise wrong(number, float, type(None), name=f"value[{name!r}]")
        metrics[name] = np.nan if number is None else float(cast("float", number))
    return metrics


def open_hook(kind: type[OptimizerConfigBase] | type[OptimParamsBase]) -> Hook:
    """Make the hook of a class that keeps what it does not know."""

    def hook(value: object, _: object) -> object:
        fields = _fields(value, ("type",), (), strict=False)
        name, extra = fields["type"], {key: item for key, item in fields.items() if key != "type"}
        if type(name) is not str:
            raise wrong(name, str, name="type")
        return kind(name, extra)

    return hook


# --- lists -----------------------------------------------------------------------------------------------


def list_of(value: object, *kinds: type, name: str = "value") -> list[Any]:  # of what, `kinds` says
    """Return a JSON list; with `kinds`, one whose elements are all of these."""
    if not isinstance(value, list):
        raise wrong(value, list, name=name)
    if kinds and not set(map(type, value)).issubset(kinds):
        index, item = next((at, item) for at, item in enumerate(value) if type(item) not in kinds)
        raise wrong(item, *kinds, name=f"{name}[{index}]")
    return value


def _integers(value: object, name: str, dtype: type[np.signedinteger] = np.int64) -> Any:
    """Return a list of integers as an array of its own; as it is, if they are too large for one."""
    items = list_of(value, name=name)
    array = flat_array(items, dtype)
    if array is not None and array.dtype.kind == "i":
        array.setflags(write=False)  # a copy less
        return array
    return list_of(items, int, name=name)


def _floats(value: object, name: str) -> Any:
    """Return a list of numbers as an array, in which null has become NaN."""
    items = list_of(value, name=name)
    array = flat_array(items)
    if array is not None:
        return array
    list_of(items, float, int, type(None), name=name)
    return np.array(items, np.float64)  # which makes NaN of None


def _token_array(value: object, _: object) -> npt.NDArray[np.int32]:
    return exact_array("value", _integers(value, "value", np.int32), "int32")


def _float_array(value: object, _: object) -> npt.NDArray[np.float32]:
    return exact_array("value", _floats(value, "value"), "float32")


def _string_tuple(value: object, _: object) -> tuple[str, ...]:
    return tuple(list_of(value, str))


def read_topk(value: object, _: object) -> TopkLogprobs:
    """Read a list of rows, each null or a list of pairs."""
    rows = list_of(value, list, type(None))
    pairs = list_of(list(chain.from_iterable([row for row in rows if row is not None])), list, name="pairs")
    if not set(map(len, pairs)).issubset({2}):
        raise TypeError("expected pairs of a token id and a log probability")
    list_of([token for token, _ in pairs], int, name="token ids")
    list_of([logprob for _, logprob in pairs], float, int, type(None), name="log probabilities")
    return TopkLogprobs.from_lists(rows)


def tensor_hook(*, strict: bool) -> Hook:
    """Make the hook of tensors."""

    def hook(value: object, _: object) -> TensorData:
        fields = _fields(value, ("data", "dtype"), ("shape", *_INDICES), strict=strict)
        dtype: Any = fields["dtype"]  # the class checks it, and the shape
        data = fields["data"]
        numbers = _floats(data, "data") if dtype == "float32" else _integers(data, "data")
        shape: Any = fields.get("shape")
        crow, col = (None if fields.get(name) is None else _integers(fields[name], name) for name in _INDICES)
        return TensorData(numbers, dtype, shape, crow, col)

    return hook


_INDICES = ("sparse_crow_indices", "sparse_col_indices")

WHOLE: Mapping[object, Hook] = {
    datetime | str: _time,
    datetime | str | None: _time_or_none,
    dict[str, float]: _metrics,
    float | str: _config_value,
    Mapping[str, object]: _open_mapping,
    Mapping[str, str]: _text_mapping,
    npt.NDArray[np.float32]: _float_array,
    npt.NDArray[np.int32]: _token_array,
    tuple[str, ...]: _string_tuple,
}
"""What is read as a whole, without a look at cattrs' own ways."""
