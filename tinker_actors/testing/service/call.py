"""A request on its way through an endpoint's function: its fields, asked for by name."""

from __future__ import annotations

import random
from typing import Any, TypeVar

import attrs

from .reply import Refusal, ServedRequest, missing
from .state import Failure, Promise, ServiceState

__all__ = ["Call"]

T = TypeVar("T")


@attrs.define(eq=False)
class Call:
    """One request, or one of its two deliveries.

    Attributes:
        request: as it came.
        state: the service.
        now: the time.
        rng: chance of this request.
        failure: how its work is to fail; None if it is not.
        promise: what it was answered with.
    """

    request: ServedRequest
    state: ServiceState
    now: float
    rng: random.Random
    failure: Failure | None = None
    promise: Promise | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The body's fields.

        Raises:
            Refusal: it is no JSON object.
        """
        if not isinstance(self.request.body, dict):
            raise Refusal(422, [{"type": "json_invalid", "loc": ["body"], "msg": "JSON decode error"}])
        return self.request.body

    def get(self, field: str, kind: type[T], default: T) -> T:
        """Return a field, or `default` if it is missing or null.

        Raises:
            Refusal: it is of another type.
        """
        value = self.body.get(field)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            text = f"Input should be a valid {kind.__name__}"
            raise Refusal(422, [{"type": f"{kind.__name__}_type", "loc": ["body", field], "msg": text}])
        return value

    def need(self, field: str, kind: type[T]) -> T:
        """Return a field.

        Raises:
            Refusal: it is missing, null, or of another type.
        """
        if self.body.get(field) is None:
            raise missing(field)
        return self.get(field, kind, kind())

    def number(self, field: str = "seq_id") -> int | None:
        """Return a number, or None if there is none."""
        return None if self.body.get(field) is None else self.get(field, int, 0)
