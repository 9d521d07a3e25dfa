"""What services say of failures: whose promise is lost, and how foreign words are shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.failure import (
    excerpt,
    explain,
    failed_request,
    printable,
    says_no_route,
    says_promise_lost,
)
from tinker_actors.wire.payload import Payload

LOST = [
    "Unknown request_id req_1",
    "unknown request_id",
    "UNKNOWN REQUEST: req_1",
    "Unknown request 'req_1'",
    "unknown request id",
    "No such request",
    "no such future: req_1",
    "Unknown promise req_1.",
    "Request not found",
    "request req_1 not found",
    "Request 'req_1' was not found",
    "Future req_1 does not exist",
    "request_id req_1 is not known",
    "Promise req_1 has expired",
    "promise is unknown",
    "Traceback (most recent call last):\n  ...\nKeyError: Unknown request_id req_1",
]
OTHER = [
    "",
    "Unknown model: m",
    "unknown loss in request",
    "unknown request type 'x'",
    "no such request parameter: rank",
    "Request body not found",
    "request header not found",
    "request req_2x not found in the table of losses of req_10",
    "the checkpoint was not found; request again later",
    "the requested file does not exist",
    "future work does not exist yet",
    "request failed",
    "too many requests",
]


@pytest.mark.parametrize("text", LOST)
def test_a_text_may_say_that_the_promise_is_not_known(text: str) -> None:
    """In the words of services, in any case of letters, with its id or without."""
    assert says_promise_lost(text, "req_1")


@pytest.mark.parametrize("text", OTHER)
def test_a_text_that_speaks_of_something_else_does_not(text: str) -> None:
    """That a request misses something, or that something of a request is not known, is its failure."""
    assert not says_promise_lost(text, "req_1")


@pytest.mark.parametrize("text", ["unknown request 275", "Future 275 not found"])
def test_ids_may_be_small_numbers(text: str) -> None:
    """As some services give them out; they are looked for as whole words."""
    assert says_promise_lost(text, "275")
    assert not says_promise_lost(text, "27")
    assert not says_promise_lost(text, "")


NO_ROUTE: list[Any] = [
    {"detail": "Not Found"},
    {"detail": "not found."},
    {"error": "Not Found"},
    {"message": "no Route matched with those values"},
    "404 page not found",
    "404: Not Found",
    "Cannot POST /api/v1/forward",
    "<!DOCTYPE html><h1>404</h1>",
    "",
    None,
]
NO_MODEL: list[Any] = [
    {"detail": "Model m not found"},
    {"detail": "Model not found"},
    {"detail": "adapter m does not exist"},
    {"detail": [{"loc": ["path"], "msg": "Not Found"}]},
    {"error": {"message": "session s not found"}},
    {},
    "m not found",
    [],
]


@pytest.mark.parametrize("body", NO_ROUTE, ids=repr)
def test_a_404_may_speak_of_the_call_itself(body: Any) -> None:
    """Frameworks and proxies say it in the same few words, whatever the request was about."""
    assert says_no_route(body)


@pytest.mark.parametrize("body", NO_MODEL, ids=repr)
def test_a_404_that_names_something_speaks_of_that(body: Any) -> None:
    """Of a model, mostly."""
    assert not says_no_route(body)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain text, ü and 中", "plain text, ü and 中"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31mred\x00\x7f", "\\x1b[31mred\\x00\\x7f"),
        ("\u202eright to left\ufeff", "\\u202eright to left\\ufeff"),
    ],
)
def test_what_cannot_be_printed_is_written_in_words(raw: str, shown: str) -> None:
    """A terminal or a log must not obey what a stranger has sent."""
    assert printable(raw) == shown


def test_lines_may_be_kept() -> None:
    """Of a text that is meant for people; all else is written in words."""
    assert printable("Traceback:\n\tx\x1b", lines=True) == "Traceback:\n\tx\\x1b"


@given(st.text())
def test_nothing_that_can_be_printed_is_changed(text: str) -> None:
    """And what is returned can be printed."""
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


def test_binary_is_shown_as_bytes() -> None:
    """In an excerpt each byte that is no text is seen as what it is."""
    assert excerpt(Payload("", b"\xff\xfe\x00a")) == "\\xff\\xfe\\x00a"
    assert excerpt(Payload("", b"")) == "(empty)"


@given(st.binary(max_size=2000))
def test_an_excerpt_can_be_printed_and_is_short(content: bytes) -> None:
    """Whatever was sent."""
    shown = excerpt(Payload("image/png", content))
    assert shown.isprintable()
    assert 0 < len(shown) <= 200


def test_what_a_body_says_is_shown_for_people_and_not_without_end() -> None:
    """Lines stay, control characters do not; of what is long, beginning and end are shown."""
    assert explain({"detail": "a\nb\x1b[0m"}) == "a\nb\\x1b[0m"
    long = explain({"detail": "head" + "x" * 100_000 + "tail"})
    assert len(long) < 10_000
    assert long.startswith("head")
    assert long.endswith("tail")


def test_a_failure_keeps_the_end_of_its_traceback() -> None:
    """There stands what has happened."""
    body = {"error": "Traceback\n" + "  line\n" * 10_000 + "ValueError: \x1b[1mrank", "category": "Server"}
    text = str(failed_request("r", body, 200))
    assert text.endswith("ValueError: \\x1b[1mrank")
    assert text.startswith("request r failed: Traceback\n")
    assert len(text) < 10_000
