"""Which headers a request carries."""

from __future__ import annotations

import platform
import random
import re

import pytest

from tinker_actors.errors import InputError
from tinker_actors.transport import headers
from tinker_actors.transport.headers import (
    HeaderPlan,
    default_headers,
    idempotency_key,
    merge_headers,
    platform_headers,
    shown_headers,
)
from tinker_actors.transport.options import OMIT
from tinker_actors.version import __version__


@pytest.mark.requirement("R41")
def test_later_layers_win_without_regard_to_case() -> None:
    """A header keeps its place and takes the last value; OMIT takes it away."""
    merged = merge_headers(
        {"Accept": "a", "X-Key": "1", "x-gone": "g"}, {"x-key": "2"}, {"X-KEY": "3", "X-Gone": OMIT}
    )
    assert merged == {"accept": "a", "x-key": "3"}


@pytest.mark.requirement("R42")
def test_every_request_says_what_it_takes_and_who_sends_it() -> None:
    """Accept, Accept-Encoding and User-Agent lie below all else."""
    assert default_headers("application/json", "gzip") == {
        "accept": "application/json",
        "accept-encoding": "gzip",
        "user-agent": f"tinker_actors/{__version__}",
    }


@pytest.mark.requirement("R43")
def test_the_platform_is_told() -> None:
    """Version, system, architecture, interpreter, its version, and the async library."""
    told = platform_headers()
    assert set(told) == {
        f"x-stainless-{name}"
        for name in ("package-version", "os", "arch", "runtime", "runtime-version", "async")
    }
    assert told["x-stainless-async"] == "async:trio"
    assert told["x-stainless-runtime-version"] == platform.python_version()
    assert told["x-stainless-runtime"] == platform.python_implementation()


@pytest.mark.requirement("R43")
@pytest.mark.parametrize(
    ("machine", "word"),
    [
        ("x86_64", "x64"),
        ("AMD64", "x64"),
        ("aarch64", "arm64"),
        ("arm64", "arm64"),
        ("", "unknown"),
        ("s390", "other:s390"),
    ],
)
def test_architectures_have_the_official_words(machine: str, word: str) -> None:
    """What the system calls its processor is told in the words of the official client."""
    assert headers._architecture(machine) == word
    assert headers._system("Darwin") == "MacOS"
    assert headers._system("") == "Unknown"


@pytest.mark.parametrize(
    ("name", "value"),
    [("x y", "1"), ("", "1"), ("x:", "1"), ("ü", "1"), ("x-a", "hush\r\nhost: b"), ("x-a", "hüsh")],
)
def test_what_http_cannot_carry_is_refused(name: str, value: str) -> None:
    """A name or a value with forbidden characters is told by its name, without the value."""
    with pytest.raises(InputError, match="headers") as caught:
        merge_headers({name: value})
    assert "sh" not in str(caught.value).replace("should", "")


def test_how_a_body_is_framed_is_not_the_callers_business() -> None:
    """Length and transfer encoding are those of the body that goes out."""
    assert merge_headers({"content-length": "3", "Transfer-Encoding": "chunked", "a": " b "}) == {"a": "b"}


@pytest.mark.requirement("R51")
def test_keys_are_drawn_and_differ() -> None:
    """A key names us, is a random UUID, and comes from the generator that was passed in."""
    first, second = idempotency_key(random.Random(1)), idempotency_key(random.Random(2))
    assert first != second
    assert first == idempotency_key(random.Random(1))
    assert re.fullmatch(
        r"tinker-actors-retry-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first
    )


@pytest.mark.requirement("R44")
def test_what_changes_comes_after_what_is_kept() -> None:
    """Host first; key, number of the attempt and length last, unless a layer has set them."""
    plan = HeaderPlan.of("host", {"a": "1"}, keyed=True, counted=True)
    assert plan.headers(b"k", 2, 5) == [
        (b"host", b"host"),
        (b"a", b"1"),
        (b"x-idempotency-key", b"k"),
        (b"x-stainless-retry-count", b"2"),
        (b"content-length", b"5"),
    ]
    own = HeaderPlan.of(
        "host", {"x-idempotency-key": "mine", "x-stainless-retry-count": "9"}, keyed=True, counted=True
    )
    assert own.headers(b"k", 0, None) == [
        (b"host", b"host"),
        (b"x-idempotency-key", b"mine"),
        (b"x-stainless-retry-count", b"9"),
    ]
    assert plan.headers(None, 0, None)[-1] == (b"x-stainless-retry-count", b"0")


def test_secrets_are_masked_for_show() -> None:
    """The key, tokens and passwords are not in what is shown."""
    shown = shown_headers([(b"X-Api-Key", b"hush"), (b"authorization", b"hush"), (b"accept", b"a")])
    assert shown == [(b"X-Api-Key", b"***"), (b"authorization", b"***"), (b"accept", b"a")]
