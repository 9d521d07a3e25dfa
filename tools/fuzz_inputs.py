"""Inputs for `fuzz`: JSON values that are nearly of a type, and ways to break values and bytes."""

from __future__ import annotations

import base64
import copy
import functools
import json
import random
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias

import attrs
import orjson

__all__ = ["Json", "broken", "disturbed", "document", "specimen"]

# ---------------------------------------------------------------------------------------------- breaking bytes


def broken(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes that are a little, or very, different."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(_BREAKS)(rng, data, others)
    return data


def _flip(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data or b"\0")
    for __ in range(rng.choice((1, 1, 2, 16))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    first, last = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    return rng.choice((data[:first], data[first:], data[:first] + data[last:]))


def _repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    first = rng.randint(0, len(data))
    piece = data[first : first + rng.choice((1, 4, 32))]
    return data[:first] + piece * rng.choice((2, 3, 300)) + data[first:]


def _insert(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    place = rng.randint(0, len(data))
    odd = (
        rng.randbytes(rng.choice((1, 2, 9))),
        b"\xff" * 10,
        b"\x80" * 9 + b"\x01",
        b"\0" * 4,
        b"\xed\xa0\x80",
    )
    return data[:place] + rng.choice(odd) + data[place:]


def _splice(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else data
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def _noise(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return rng.randbytes(rng.randint(0, max(1, len(data))))


_BREAKS = (_flip, _flip, _cut, _cut, _repeat, _insert, _splice, _noise)


# ------------------------------------------------------------------------------------------ making JSON values

Json: TypeAlias = Any  # whatever JSON holds

_TEXTS = (
    *("", "a", "stop", "length", "try_again", "tinker://r/weights/1", "float32", "int64"),
    *("\0", "\u00e9\u2028\U0001d11e", "9" * 400),
)
_ODD: tuple[Json, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64 - 1, 1e308, -0.0, 1.5, 1e-320),
    *([], {}, [[]], [None], {"": {}}, [1, 2.5, None], ["a"], [[1, 2], [3]], [0] * 500, {"a": [{"b": None}]}),
)


def anything(rng: random.Random, depth: int = 0) -> Json:
    """Return some JSON value."""
    if depth < 3 and rng.random() < 0.3:
        if rng.random() < 0.5:
            return [anything(rng, depth + 1) for _ in range(rng.randint(0, 4))]
        return {rng.choice(_TEXTS): anything(rng, depth + 1) for _ in range(rng.randint(0, 4))}
    return rng.choice(_TEXTS) if rng.random() < 0.4 else copy.deepcopy(rng.choice(_ODD))


# What a type is made of has many shapes; each is looked at below.
def specimen(rng: random.Random, kind: Any, depth: int = 0) -> Json:
    """Return a JSON value that is more or less of a type."""
    if isinstance(kind, type) and attrs.has(kind):
        return _object(rng, kind, depth)
    if isinstance(kind, type) and kind in _SCALARS:
        return _SCALARS[kind](rng)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return rng.choice(args)
    if origin in (typing.Union, types.UnionType):
        return specimen(rng, rng.choice(args), depth)
    if origin is typing.Annotated:
        return specimen(rng, args[0], depth)
    if origin is tuple and args[-1:] != (...,):
        return [specimen(rng, part, depth + 1) for part in args]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {rng.choice(_TEXTS): specimen(rng, args[-1], depth + 1) for _ in range(rng.randint(0, 3))}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [specimen(rng, args[0], depth + 1) for _ in range(rng.randint(0, 0 if depth > 6 else 3))]
    return (
        anything(rng)
        if "ndarray" not in str(kind)
        else [rng.randint(0, 99) for _ in range(rng.randint(0, 4))]
    )


_SCALARS: dict[type, Callable[[random.Random], Json]] = {
    str: lambda rng: rng.choice(_TEXTS),
    int: lambda rng: rng.choice((0, 1, 3, rng.randint(0, 100_000))),
    float: lambda rng: rng.choice((0, 0.5, -1.25, rng.uniform(-9, 9))),
    bool: lambda rng: rng.random() < 0.5,
    bytes: lambda rng: base64.b64encode(rng.randbytes(rng.randint(0, 9))).decode(),
    datetime: lambda _: "2026-01-01T00:00:00Z",
    type(None): lambda _: None,
    object: anything,
}


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):
        return {}


def _object(rng: random.Random, kind: type, depth: int) -> Json:
    known = _KNOWN.get(kind.__name__)
    if known is not None and rng.random() < 0.7:
        return json.loads(rng.choice(known))
    value = {}
    for field in attrs.fields(kind):
        required = field.default is attrs.NOTHING
        if required or (depth < 6 and rng.random() < 0.6):
            name = field.metadata.get("wire", field.name.removesuffix("_np"))
            value[name] = specimen(rng, _hints(kind).get(field.name, object), depth + 1)
    return value


_SAMPLE = (
    '{"type":"sample","sequences":[{"stop_reason":"length","tokens":[1],"logprobs":[-1]}],'
    '"prompt_logprobs":[null,-1.5],"topk_prompt_logprobs":[null,[[3,-0.1],[4,-2.0]]]}'
)
_OUTPUT = (
    '{"loss_fn_output_type":"ArrayRecord","loss_fn_outputs":[{"logprobs":{"data":[-1.5,-2.0],"dtype":"float32",'
    '"shape":[2]}}],"metrics":{"loss:sum":1.5}}'
)
# Classes whose JSON is not simply their fields.
_KNOWN = {
    "TensorData": (
        '{"data":[1,2,3],"dtype":"int64","shape":[3]}',
        '{"data":[0.5,null,-1.0],"dtype":"float32"}',
        '{"data":[5],"dtype":"int64","shape":[1,3],"sparse_crow_indices":[0,1],"sparse_col_indices":[2]}',
    ),
    "SampledSequence": (
        '{"stop_reason":"length","tokens":[1,2],"logprobs":[-0.5,-0.25]}',
        '{"stop_reason":"stop","tokens":[],"topk_logprobs":[[[1,-0.5]],null]}',
    ),
    "EncodedTextChunk": ('{"type":"encoded_text","tokens":[1,2,3]}',),
    "ImageChunk": ('{"type":"image","data":"aGk=","format":"png","expected_tokens":3}',),
    "SampleResponse": (_SAMPLE,),
    "ForwardBackwardOutput": (_OUTPUT,),
}


def disturbed(rng: random.Random, value: Json) -> Json:
    """Return a JSON value in which one place is another; the given one is changed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.2:
        return anything(rng)
    if isinstance(value, list):
        place = rng.randrange(len(value))
        value[place] = disturbed(rng, value[place])
        return value + copy.deepcopy(value) if rng.random() < 0.2 else value
    name = rng.choice(list(value))
    match rng.randrange(4):
        case 0:
            del value[name]
        case 1:
            value[name + rng.choice(("x", "_", "\0"))] = value[name]
        case _:
            value[name] = disturbed(rng, value[name])
    return value


def document(rng: random.Random, kind: type) -> bytes:
    """Return JSON that is nearly that of a class."""
    value = specimen(rng, kind)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 5))):
        value = disturbed(rng, value)
    data = orjson.dumps(value)
    if rng.random() < 0.3:
        data = broken(rng, data, (b"[" * 2000, b'{"a":' * 500, b"NaN", b"1e999", b'"\\ud800"'))
    return data
