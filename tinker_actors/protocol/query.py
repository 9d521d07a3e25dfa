"""How a query string is written. Pure.

value                    written as
None                     left out, also inside lists
True, False              true, false
list or tuple            its parts with commas between: `a=1,2`
mapping                  one part per member: `a[b]=1`
"" (and nothing else)    left out
anything else            its text
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import cast
from urllib.parse import urlencode

from tinker_actors.errors import InputError

__all__ = ["merge", "stringify"]


def stringify(values: Mapping[str, object]) -> str:
    """Write a query string without its question mark; empty if there is nothing to say.

    Raises:
        InputError: a list holds a list or a mapping, which has no form with commas.
    """
    return urlencode([pair for name, value in values.items() for pair in _pairs(name, value)])


def merge(*layers: Mapping[str, object]) -> dict[str, object]:
    """Return the layers in one, the later over the earlier."""
    return {name: value for layer in layers for name, value in layer.items()}


def _pairs(name: str, value: object) -> Iterator[tuple[str, str]]:
    # tinker 0.38.0 _qs.py, array_format="comma", nested_format="brackets"
    if isinstance(value, Mapping):
        for member, inner in cast("Mapping[object, object]", value).items():
            yield from _pairs(f"{name}[{member}]", inner)
    elif isinstance(value, list | tuple):
        parts = cast("list[object] | tuple[object, ...]", value)
        yield name, ",".join(_text(name, part) for part in parts if part is not None)
    elif text := _text(name, value):
        yield name, text


def _text(name: str, value: object) -> str:
    if isinstance(value, list | tuple | Mapping):
        raise InputError(
            f"query[{name!r}]", cast("object", value), "a list in a query holds plain values only"
        )
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.value) if isinstance(value, enum.Enum) else str(value)
