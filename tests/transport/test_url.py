"""Where a request goes."""

from __future__ import annotations

import pytest

from tinker_actors.errors import InputError
from tinker_actors.transport.head import Origin
from tinker_actors.transport.url import Places


@pytest.mark.requirement("R34")
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/api/v1/x", "http://host/base/api/v1/x"),
        ("api/v1/x", "http://host/base/api/v1/x"),
        ("x?a=1", "http://host/base/x?a=1"),
        ("", "http://host/base/"),
        ("//elsewhere/x", "http://host/base/elsewhere/x"),
        ("http://host/other", "http://host/other"),
        ("https://elsewhere:8443/x?y=1", "https://elsewhere:8443/x?y=1"),
        ("a b", "http://host/base/a%20b"),
        ("session:train:0", "http://host/base/session:train:0"),
    ],
)
def test_relative_goes_below_the_base_and_absolute_passes_through(url: str, expected: str) -> None:
    """The base URL has a slash at its end; what is relative goes below it, whatever it begins with."""
    for base in ("http://host/base", "http://host/base/"):
        places = Places(base)
        assert places.base_url == "http://host/base/"
        assert str(places.find(url).url) == expected


@pytest.mark.requirement("R34")
@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("/x", True),
        ("//elsewhere/x", True),
        ("https://host/x", True),
        ("https://host:443/x", True),
        ("https://HOST/x", True),
        ("http://host/x", False),
        ("https://host:444/x", False),
        ("https://host.elsewhere/x", False),
        ("https://elsewhere/x", False),
    ],
)
def test_another_origin_is_told_apart(url: str, ours: bool) -> None:
    """Scheme, host and port decide who may see the key; the usual port may be written or not."""
    assert Places("https://host/base").find(url).ours is ours


def test_queries_are_added() -> None:
    """A query is put behind what the URL has."""
    places = Places("http://host:81/base")
    assert places.find("x", "a=1").target == b"/base/x?a=1"
    assert places.find("x?b=2", "a=1").target == b"/base/x?b=2&a=1"
    assert places.below("/api/x", "a=1").target == b"/base/api/x?a=1"
    assert places.below("/api/x").host == "host:81"
    assert places.below("/api/x").origin == Origin("http", "host", 81)


@pytest.mark.requirement("R50")
def test_a_host_with_an_underscore_has_another_name_in_tls() -> None:
    """Certificates have no underscores; other hosts are asked for by their name."""
    assert Places("https://my_host/").below("x").sni == "my-host"
    assert Places("https://my_host/").below("x").host == "my_host"
    assert Places("https://host/").below("x").sni is None


@pytest.mark.parametrize("url", ["ftp://host/x", "http://a:b:c/", "http:///x"])
def test_what_cannot_be_reached_is_refused(url: str) -> None:
    """What is no URL, or not one of HTTP, is told before anything is sent."""
    with pytest.raises(InputError, match="url"):
        Places("http://host").find(url)


def test_an_address_in_brackets_stays_in_them() -> None:
    """An IPv6 address is written in a URL and a header as it must be."""
    place = Places("http://[::1]:8000/base").below("x")
    assert str(place.url) == "http://[::1]:8000/base/x"
    assert (place.host, place.origin.host) == ("[::1]:8000", "::1")
