"""How services say that a request failed, in five shapes. Pure.

    status                body
    200                   `{"error": ..., "category": ...}`; the category in any case of letters
    400                   `{"type": "RequestFailedResponse", "error_message": ...}`
    400, 404, 409, 422    `{"detail": "..."}`
    422                   `{"detail": [{"loc": [...], "msg": ...}, ...]}`, as pydantic writes it
    500                   plain text

The first two say that the request ran and failed; the others are errors of their status.

In each of these shapes a service may also say that it does not know the promise: it has lost the result, or keeps none
that was read once. Then nobody knows how the request went, and it is not the user's fault. A 410 says so by itself, a
404 if it speaks of a promise at all; in any other answer the text has to say it (`_LOST_PROMISE`).

What a service says goes into texts that people read, in terminals and logs, so it is made printable first, and bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from tinker_actors.errors import RequestFailedError, SessionGoneError
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.payload import Payload

__all__ = [
    "excerpt",
    "explain",
    "failed_request",
    "printable",
    "promise_lost",
    "says_no_route",
    "says_promise_lost",
]

_Category: TypeAlias = Literal["unknown", "server", "user"]
_CATEGORIES: Mapping[str, _Category] = {"server": "server", "user": "user"}
_EXCERPT = 200  # characters of a text nobody expected
_LONGEST = 8000  # characters of what a service says of a failure; a traceback, mostly
_LINES = "\n\t"

_PROMISE_WORDS = ("future", "promise", "request")
# How a text says that a promise is not known; in small letters, with `#` in place of its id.
_LOST_PROMISE = (
    # as opentinker has it, "Unknown request_id 3f2a"
    re.compile(r"\b(?:unknown|no such) (?:request|future|promise)[ _]?id\b"),
    re.compile(r"\b(?:unknown|no such) (?:request|future|promise)(?:[ :='\"`(]*#|[\s.!]*$)", re.MULTILINE),
    # as in "Future 275 not found", whatever its status
    re.compile(
        r"\b(?:request|future|promise)(?:[ _]?id)?(?:[ :='\"`(]*#['\"`)]*)?"
        r" (?:is |was |has |does )?(?:not found|not known|unknown|expired|not exist)\b"
    ),
)


# How frameworks and proxies say that there is no such call, in small letters: nothing, a page, or a few set words.
_NO_ROUTE = re.compile(
    r"|<.*|(?:404:? )?(?:page )?not found\.?|cannot (?:get|post) .*|.*\broute\b.*", re.DOTALL
)


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text in which what cannot be printed is written as in source code, such as an escape character.

    Args:
        text: what somebody else has written.
        lines: leave ends of lines and tabs as they are.
    """
    if text.isprintable():
        return text
    kept = _LINES if lines else ""
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode()
        for char in text
    )


def says_promise_lost(text: str, request_id: str) -> bool:
    """Whether a text says that the promise is not known."""
    small = text.lower()
    if request_id:
        small = re.sub(rf"(?<!\w){re.escape(request_id.lower())}(?!\w)", "#", small)
    return any(form.search(small) for form in _LOST_PROMISE)


def promise_lost(
    request_id: str, body: JsonValue, status: int, said: str | None = None
) -> SessionGoneError | None:
    """Return the error of a promise that is not known, if that is what an answer tells; see the module.

    Args:
        request_id: the promise.
        body: the answer's JSON value, else its text.
        status: its status.
        said: what it says, if that is known; else what `explain` finds.
    """
    said = explain(body) if said is None else said
    if status == 404:
        lost = any(word in said.lower() for word in _PROMISE_WORDS)
    else:
        lost = status == 410 or says_promise_lost(said, request_id)
    if not lost:
        return None
    message = f"request {request_id}: the promise is lost - {said}"
    error = SessionGoneError(message, status_code=status, body=body, retryable=True)
    error.request_id = request_id
    return error


def says_no_route(body: JsonValue) -> bool:
    """Whether the body of a 404 says that there is no such call at all; what names something speaks of that."""
    if isinstance(body, dict):
        body = next((body[name] for name in ("detail", "error", "message") if name in body), body)
    said = "" if body is None else str(body)
    return _NO_ROUTE.fullmatch(said.strip().lower()) is not None


def failed_request(
    request_id: str, body: JsonValue, status: int
) -> RequestFailedError | SessionGoneError | None:
    """Return the failure of a request, if that is what a body tells; of one whose promise is lost, that.

    Only where `retryable` is set may the same succeed later: the service does not blame the user.
    """
    if not isinstance(body, dict):
        return None
    text = _failure_text(body, status)
    if text is None:
        return None
    lost = promise_lost(request_id, body, status, text)
    if lost is not None:
        return lost
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
        value = value["message"]
    return _readable(str(value))


def _readable(text: str) -> str:
    """Return a text of a service's that may have lines; of a long one beginning and end, where tracebacks say why."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 4]} … {text[-_LONGEST * 3 // 4 :]}"
    return printable(text, lines=True)


def explain(body: JsonValue) -> str:
    """Return what an error's body says, for people."""
    detail = body.get("detail") if isinstance(body, dict) else None
    said = body if detail is None else detail
    return _readable("; ".join(map(_problem, said)) if isinstance(said, list) else str(said))


def _problem(item: JsonValue) -> str:
    if not isinstance(item, dict) or not isinstance(item.get("msg"), str):
        return str(item)
    place = item.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"{where}: {item['msg']}" if where else str(item["msg"])


def excerpt(payload: Payload) -> str:
    """Return the beginning of a body that should have been something else; what is no text, as in source code."""
    text = printable(payload.content[: 4 * _EXCERPT].decode("utf-8", "backslashreplace")) or "(empty)"
    return text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…"
