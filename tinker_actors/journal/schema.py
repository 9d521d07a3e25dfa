"""The journal's tables, and the form that operations have in them.

    meta          facts about the run, each a JSON value under its name
    operations    what is held: each operation that a restore from one of the usable saved states would send again, or
                  that has no result
    bodies        where the batches lie
    requests      the requests of operations that have no result, on the present model
    decisions     the steps that were decided, with the state of the user's loop after each
    checkpoints   saved states; those that are `usable` can be restored from
    witnesses     what was computed in the steps that follow saved states

What admits to weights of another account is no part of it: it lives in memory alone.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

import attrs
import numpy as np

from tinker_actors.protocol.journal import Operation
from tinker_actors.protocol.step import OperationKind
from tinker_actors.wire.optimizer import AdamParams, DimuonParams, OptimParams, OptimParamsBase

__all__ = ["DATABASE", "FORMAT", "SCHEMA", "Statement", "operation_of", "written"]

Statement: TypeAlias = tuple[str, tuple[object, ...]]

DATABASE: Final = "journal.sqlite"
"""The file that the tables are in, in the run's directory."""

FORMAT: Final = 1
"""Of the tables; another one is not read."""

SCHEMA: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE operations(
    position INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    plan TEXT NOT NULL,
    body TEXT,
    done INTEGER NOT NULL,
    kept INTEGER NOT NULL
);
CREATE TABLE bodies(
    digest TEXT PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE requests(
    position INTEGER NOT NULL,
    part INTEGER NOT NULL,
    number INTEGER NOT NULL,
    request_id TEXT,
    PRIMARY KEY(position, part)
) WITHOUT ROWID;
CREATE TABLE decisions(
    step INTEGER PRIMARY KEY,
    position INTEGER NOT NULL,
    after BLOB,
    groups TEXT NOT NULL,
    skipped INTEGER NOT NULL,
    tokens INTEGER NOT NULL
);
CREATE TABLE checkpoints(
    position INTEGER PRIMARY KEY,
    name TEXT,
    path TEXT,
    state TEXT NOT NULL,
    usable INTEGER NOT NULL,
    step INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    metric REAL,
    pinned INTEGER NOT NULL,
    time REAL NOT NULL,
    ttl INTEGER
);
CREATE TABLE witnesses(
    position INTEGER PRIMARY KEY, datum INTEGER NOT NULL, loss REAL, logprobs BLOB NOT NULL
);
"""

_PARAMS: Final[dict[str, type[OptimParams]]] = {
    "adam": AdamParams,
    "dimuon": DimuonParams,
    "other": OptimParamsBase,
}
_REMEMBERED: Final = 256  # settings that were read: most operations have those of the one before
_LEFT_OUT: Final = frozenset({"kind", "data", "body", "weights_access_token"})
_NUMPY: Final = (
    "\x00numpy"  # marks a number of numpy's: in JSON some are written shorter than their value as a float
)
_DEFAULTS: Final = {
    field.name: field.default for field in attrs.fields(Operation) if field.name not in _LEFT_OUT
}


def written(operation: Operation) -> str:
    """Return an operation as it is kept, without its kind and its batch.

    Raises:
        TypeError: a setting of the user's that JSON does not hold.
    """
    detail: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        value = getattr(operation, name)
        if value != default:
            detail[name] = value
    params = operation.optim_params
    if params is not None:
        detail["optim_params"] = _written_params(params)
    return json.dumps(detail, default=_scalar, separators=(",", ":")) if detail else "{}"


def _written_params(params: OptimParams) -> dict[str, Any]:
    name = next(name for name, kind in _PARAMS.items() if type(params) is kind)
    return {name: attrs.asdict(params, recurse=False)}


def _scalar(value: object) -> dict[str, Any]:
    if isinstance(value, np.generic):
        return {_NUMPY: [value.dtype.str, value.item()]}
    raise TypeError(f"{value!r} is not JSON")


def operation_of(kind: OperationKind, detail: str, body: str | None) -> Operation:
    """Return an operation as it was written; its batch is read by its `body`. Those without one may be shared."""
    return _bare(kind, detail) if body is None else Operation(kind=kind, body=body, **_fields(detail))


@lru_cache(_REMEMBERED)
def _bare(kind: OperationKind, detail: str) -> Operation:
    return Operation(kind=kind, **_fields(detail))


@lru_cache(_REMEMBERED)
def _fields(detail: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(detail, object_hook=_unscaled if _NUMPY[1:] in detail else None)
    params = fields.get("optim_params")
    if params is not None:
        ((name, settings),) = params.items()
        fields["optim_params"] = _PARAMS[name](**settings)
    if "recipients" in fields:
        fields["recipients"] = tuple(fields["recipients"])
    return fields


def _unscaled(value: dict[str, Any]) -> object:
    scalar = value.get(_NUMPY)
    return value if scalar is None else cast("object", np.dtype(scalar[0]).type(scalar[1]))
