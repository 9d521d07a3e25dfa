"""Bounds of settings: a wrong number is refused where it is written, with its name and its value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from tinker_actors.errors import InputError

__all__ = ["at_least", "check_count", "within"]

Validator = Callable[[object, "attrs.Attribute[Any]", Any], None]


def check_count(field: str, value: object, low: int) -> None:
    """Refuse what is not a whole number of at least `low`.

    Raises:
        InputError: with the field and the value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(field, value, f"must be a whole number of at least {low}")


def at_least(low: int) -> Validator:
    """Return an attrs validator for whole numbers from `low`."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        check_count(attribute.name, value, low)

    return check


def within(low: float, high: float = math.inf) -> Validator:
    """Return an attrs validator for numbers from `low` to `high`, both included."""

    def check(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
        if not low <= value <= high:  # refuses NaN as well
            raise InputError(attribute.name, value, f"must be between {low} and {high}")

    return check
