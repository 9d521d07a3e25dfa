"""What a user's loop says with each step: where it stands after it, and what the step was made of. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, cast

from tinker_actors.errors import InputError
from tinker_actors.wire.codec import JsonValue

__all__ = ["MAX_STATE", "check_groups", "read_state", "write_state"]

MAX_STATE: Final = 65_536  # bytes
_FIELD: Final = "after"


def write_state(after: object) -> bytes:
    """Return a loop's state as it is written; tuples become lists.

    Raises:
        InputError: something that JSON does not hold and give back alike, such as a number as a key, or NaN; or more
            than 64 KiB of it.
    """
    try:
        text = json.dumps(after, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        written = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(_FIELD, after, f"must be JSON: {error}") from error
    if len(written) > MAX_STATE:
        why = f"must be at most {MAX_STATE} bytes of JSON, not {len(written)}: keep what is large in a file of its own"
        raise InputError(_FIELD, after, why)
    _check_keys(after, _FIELD)
    return written


def _check_keys(value: object, field: str) -> None:
    """Refuse keys that would come back as text: the loop would not find them again."""
    if isinstance(value, dict):
        for key, one in cast("dict[object, object]", value).items():
            if not isinstance(key, str):
                raise InputError(field, key, "keys must be strings: JSON gives others back as such")
            _check_keys(one, f"{field}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, one in enumerate(cast("list[object]", value)):
            if not isinstance(one, int | float | str):  # long lists of these are common
                _check_keys(one, f"{field}[{index}]")


def read_state(written: bytes | None) -> JsonValue:
    """Return a loop's state as it was written; None if there is none."""
    return None if written is None else cast("JsonValue", json.loads(written))


def check_groups(groups: object) -> tuple[str, ...]:
    """Return the ids of what a step was made of.

    Raises:
        InputError: no list of strings.
    """
    if isinstance(groups, str) or not isinstance(groups, Sequence):
        raise InputError("groups", groups, "must be a list of ids")
    for index, one in enumerate(cast("Sequence[object]", groups)):
        if not isinstance(one, str) or not one:
            raise InputError(f"groups[{index}]", one, "must be an id: a string that is not empty")
    return tuple(cast("Sequence[str]", groups))
