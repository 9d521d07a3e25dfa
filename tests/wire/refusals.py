"""How a refusal is looked at: what is told, and where."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire.codec import structure


def problems_of(kind: type, value: Any, *, strict: bool) -> list[str]:
    """Return what is told of a JSON value that is none of `kind`."""
    with pytest.raises(DecodeError) as caught:
        structure(kind, value, strict=strict)
    assert caught.value.what == kind.__name__
    return list(caught.value.problems)


def refusal(make: Any, *arguments: Any, **named: Any) -> tuple[str, object]:
    """Return field and value of what is refused on construction."""
    with pytest.raises(InputError) as caught:
        make(*arguments, **named)
    return caught.value.field, caught.value.value
