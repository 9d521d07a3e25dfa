"""Which bytes of an archive are asked for, what came, whether to try again, and what may be taken out."""

from __future__ import annotations

import pytest

from tinker_actors.protocol.archive import (
    Answered,
    Known,
    Patience,
    judge,
    most_unpacked,
    range_headers,
    refused_member,
    requested_part,
)
from tinker_actors.protocol.retry import Failure

HALF = Known(done=50, total=100, tag='"a"', modified="Wed, 04 Mar 2026 05:06:07 GMT")


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("lines=1-2", None),
        ("bytes=1-2,4-5", None),
        ("bytes=5-2", None),
        ("bytes=" + "9" * 80, None),
        ("bytes=0-", range(100)),
        ("bytes=10-19", range(10, 20)),
        (" Bytes = 10 - 19 ", range(10, 20)),
        ("bytes=90-999", range(90, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-999", range(100)),
        ("bytes=100-", range(100, 100)),
        ("bytes=200-300", range(100, 100)),
        ("bytes=-0", range(100, 100)),
    ],
)
def test_a_part_is_read_from_a_request(asked: str | None, part: range | None) -> None:
    """One part, within what there is; what cannot be read asks for the whole."""
    got = requested_part(asked, 100)
    assert (got is None) == (part is None)
    assert got is None or list(got) == list(part or [])


@pytest.mark.parametrize(
    ("known", "headers"),
    [
        (Known(), {}),
        (Known(done=0, tag='"a"'), {}),
        (HALF, {"range": "bytes=50-", "if-range": '"a"'}),
        (Known(done=50), {}),
        (Known(done=50, tag='W/"a"'), {"range": "bytes=50-"}),
        (Known(done=50, tag='W/"a"', modified="then"), {"range": "bytes=50-", "if-range": "then"}),
        (Known(done=50, total=99), {"range": "bytes=50-"}),
    ],
)
def test_the_rest_is_asked_for_only_of_the_same(known: Known, headers: dict[str, str]) -> None:
    """By its tag, if that is a strong one, else by its time, or its length; without any of these, not at all."""
    assert range_headers(known) == headers
    assert known.certain == ("if-range" in headers or (known.done == 0 and known.tag is not None))


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        ({}, Known()),
        ({"content-length": "100", "etag": '"b"'}, Known(total=100, tag='"b"')),
        ({"content-length": "x", "last-modified": "then"}, Known(modified="then")),
        ({"content-length": "9" * 21}, Known()),
        ({"content-length": "100", "content-encoding": "identity"}, Known(total=100)),
        # the length and the tag are those of the compressed bytes, of which no part can be used
        (
            {"content-length": "100", "content-encoding": "gzip", "etag": '"b"', "last-modified": "then"},
            Known(),
        ),
    ],
)
def test_a_whole_begins_anew(headers: dict[str, str], known: Known) -> None:
    """Whatever was there before, an answer 200 is the whole, and says what is known of it."""
    assert judge(HALF, 200, headers) == Answered("whole", known)


@pytest.mark.parametrize(
    ("before", "headers", "after"),
    [
        (HALF, {"content-range": "bytes 50-99/100", "etag": '"a"'}, HALF),
        (HALF, {"content-range": "bytes 50-99/100"}, HALF),
        (HALF, {"content-range": "bytes 50-99/*"}, HALF),
        (Known(done=5), {"content-range": "bytes 5-9/10", "etag": '"b"'}, Known(done=5, total=10, tag='"b"')),
    ],
)
def test_a_rest_that_fits_is_gone_on_with(before: Known, headers: dict[str, str], after: Known) -> None:
    """It begins where we are, and its tag and length are those of what we have, if they are told."""
    assert judge(before, 206, headers) == Answered("rest", after)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (416, {"content-range": "bytes */40"}),
        (206, {}),
        (206, {"content-range": "bytes 40-99/100"}),
        (206, {"content-range": "bytes 50-98/99"}),
        (206, {"content-range": "bytes 50-99/100", "etag": '"b"'}),
        (206, {"content-range": "bytes */100"}),
        (206, {"content-range": "bytes 50-99/100", "content-encoding": "gzip"}),
    ],
)
def test_a_rest_that_does_not_fit_is_left(status: int, headers: dict[str, str]) -> None:
    """The whole is asked for once more, and nothing of what was known holds."""
    assert judge(HALF, status, headers) == Answered("again", Known())


MAKING = Failure(sent=True, status=503)
CUT = Failure(sent=True)


@pytest.mark.lesson("D60")
def test_an_archive_that_is_being_made_is_waited_for() -> None:
    """Six times thirty seconds, or as long as the service says, within reason."""
    patience = Patience(retries=3)
    assert [patience.failed(MAKING, locating=True, chance=0) for _ in range(7)] == [30.0] * 6 + [None]
    for said, waited in ((7.0, 7.0), (86_400.0, 300.0)):
        asked = Failure(sent=True, status=503, retry_after=said)
        assert Patience(retries=3).failed(asked, locating=True, chance=0) == waited


def test_attempts_are_counted_since_it_last_got_further() -> None:
    """Each failure waits longer; bytes that are new begin the count anew, and bytes that came before do not."""
    patience = Patience(retries=2)
    assert patience.failed(CUT, locating=False, chance=0) == 0.5
    patience.got_to(10)
    assert [patience.failed(CUT, locating=False, chance=0) for _ in range(2)] == [0.5, 1.0]
    patience.got_to(10)
    assert patience.failed(CUT, locating=False, chance=0) is None


@pytest.mark.parametrize(
    ("failure", "locating", "again"),
    [
        (Failure(sent=False), True, True),
        (Failure(sent=True, status=429), True, True),
        (Failure(sent=True, status=500), True, True),
        (Failure(sent=True, status=503), False, True),
        (Failure(sent=True, status=404), True, False),
        (Failure(sent=True, status=401), True, False),
        (Failure(sent=True, status=403), False, True),
        (Failure(sent=True, status=404), False, True),
        (Failure(sent=True, status=402), False, False),
        (Failure(sent=True, status=503, should_retry=False), True, False),
        (Failure(sent=True, status=404, should_retry=True), True, True),
    ],
)
def test_what_passes_is_tried_again(failure: Failure, locating: bool, again: bool) -> None:
    """No connection, 408, 429, 5xx; and an address that has run out, for a new one. The service has the last word."""
    wait = Patience(retries=3).failed(failure, locating=locating, chance=0.5)
    assert (wait is not None) == again


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a/b/c.safetensors",
        "./a",
        "a//b",
        "dir/",
        "ä",
        "..a",
        "a..",
        "...",
        "a b",
        "-rf",
        "b/c:d",
        "x" * 255,
        "x/" * 31 + "x",
    ],
)
def test_usual_members_are_taken_out(name: str) -> None:
    """Files below the directory, however they are written."""
    kind = "directory" if name.endswith("/") else "file"
    assert refused_member(name, kind) is None  # type: ignore[arg-type]  # it is one of the kinds


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("../x", "file", "leads out"),
        ("a/../../x", "file", "leads out"),
        ("a/..", "directory", "leads out"),
        ("/etc/passwd", "file", "absolute"),
        ("C:/x", "file", "another system"),
        ("a\\..\\x", "file", "another system"),
        ("a\n", "file", "cannot be"),
        ("a\0b", "file", "cannot be"),
        ("\udc80", "file", "cannot be"),
        ("x/" * 31 + "x" * 970, "file", "cannot be"),
        ("x" * 256, "file", "cannot be"),
        ("ä" * 128, "directory", "cannot be"),
        ("x/" * 32 + "x", "file", "too deep"),
        ("", "file", "of a directory"),
        (".", "file", "of a directory"),
        ("a/", "file", "of a directory"),
        ("a", "link", "a link"),
        ("a", "other", "neither"),
    ],
)
def test_what_could_do_harm_is_refused(name: str, kind: str, why: str) -> None:
    """Names that lead elsewhere, links, devices, and what no file is called."""
    assert why in (refused_member(name, kind) or "")  # type: ignore[arg-type]  # it is one of the kinds


@pytest.mark.parametrize(
    ("packed", "max_bytes", "most"),
    [(0, None, 64 << 20), (1 << 20, None, 100 << 20), (1 << 30, 5, 5), (1, 1 << 40, 1 << 40)],
)
def test_what_comes_of_an_archive_is_bounded(packed: int, max_bytes: int | None, most: int) -> None:
    """By its size, so that zeros may be packed tightly; or by what the user says, be it more or less."""
    assert most_unpacked(packed, max_bytes) == most
