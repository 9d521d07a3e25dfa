"""From the values of fields to what orjson can write. Arrays stay arrays."""

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tinker_actors.wire.optimizer import OptimizerConfigBase, OptimParamsBase
from tinker_actors.wire.tensor import TensorData

__all__ = ["WRITERS", "Writer", "same", "write_bytes", "write_open", "write_tensor"]

Writer: TypeAlias = Callable[[Any], Any]


def same(value: object) -> object:
    """Write a value as it is."""
    return value


def write_bytes(value: bytes) -> str:
    """Write bytes in base64."""
    return base64.b64encode(value).decode()


def _time(value: datetime | str | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _mapping(value: Mapping[str, object]) -> dict[str, object]:
    return value if type(value) is dict else dict(value)  # orjson wants no other kind


def _token_array(array: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return np.ascontiguousarray(array, np.int32)


def _float_array(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)


def write_tensor(tensor: TensorData) -> dict[str, object]:
    """Write a tensor; a sparse one has its indices beside its values."""
    value: dict[str, object] = {
        "data": tensor.data.reshape(-1),
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
    }
    if tensor.is_sparse:
        value["sparse_crow_indices"] = tensor.sparse_crow_indices
        value["sparse_col_indices"] = tensor.sparse_col_indices
    return value


def write_open(value: OptimizerConfigBase | OptimParamsBase) -> dict[str, object]:
    """Write what a class does not know beside what it knows."""
    return {"type": value.type, **value.extra}


WRITERS: Mapping[object, Writer] = {
    datetime | str: _time,
    datetime | str | None: _time,
    dict[str, float]: _mapping,
    float | str: same,
    Mapping[str, float | str]: _mapping,
    Mapping[str, object]: _mapping,
    Mapping[str, str]: _mapping,
    npt.NDArray[np.float32]: _float_array,
    npt.NDArray[np.int32]: _token_array,
    tuple[str, ...]: same,
}
"""What is written as a whole, without a look at cattrs' own ways."""
