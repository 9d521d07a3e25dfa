"""How services say that a request failed, in five shapes. Pure.

    status                body
    200                   `{"error": ..., "category": ...}`; the category in any case of letters
    400                   `{"type": "RequestFailedResponse", "error_message": ...}`
    400, 404, 409, 422    `{"detail": "..."}`
    422                   `{"detail": [{"loc": [...], "msg": ...}, ...]}`, as pydantic writes it
    500                   plain text

The first two say that the request ran and failed; the others are errors of their status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from tinker_actors.errors import RequestFailedError
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.payload import Payload

__all__ = ["excerpt", "explain", "failed_request"]

_Category: TypeAlias = Literal["unknown", "server", "user"]
_CATEGORIES: Mapping[str, _Category] = {"server": "server", "user": "user"}
_EXCERPT = 200  # characters of a text nobody expected


def failed_request(request_id: str, body: JsonValue, status: int) -> RequestFailedError | None:
    """Return the failure of a request, if that is what a body tells.

    Only where `retryable` is set may the same succeed later: the service does not blame the user.
    """
    if not isinstance(body, dict):
        return None
    text = _failure_text(body, status)
    if text is None:
        return None
    named = str(body.get("category", "")).lower()  # some services write it with a capital letter
    category = _CATEGORIES.get(named, "unknown")
    error = RequestFailedError(
        f"request {request_id} failed: {text}", request_id=request_id, category=category
    )
    error.retryable = category != "user"
    return error


def _failure_text(body: dict[str, JsonValue], status: int) -> str | None:
    error = body.get("error")
    if error is not None and (status == 200 or "category" in body):
        return _text(error)
    if body.get("type") == "RequestFailedResponse" or body.get("error_message") is not None:
        return _text(body.get("error_message"))
    if status == 200 and body.get("status") == "failed":
        return "the service gives no reason"
    return None


def _text(value: JsonValue) -> str:
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        return str(value["message"])
    return str(value)


def explain(body: JsonValue) -> str:
    """Return what an error's body says, in one line for people."""
    detail = body.get("detail") if isinstance(body, dict) else None
    said = body if detail is None else detail
    return "; ".join(map(_problem, said)) if isinstance(said, list) else str(said)


def _problem(item: JsonValue) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("msg"), str):
        return str(item)
    place = item.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"{where}: {item['msg']}" if where else str(item["msg"])


def excerpt(payload: Payload) -> str:
    """Return the beginning of a body that should have been something else."""
    text = payload.content[: 4 * _EXCERPT].decode("utf-8", "replace") or "(empty)"
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"
