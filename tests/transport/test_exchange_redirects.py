"""Where redirects lead, and what goes along."""

from __future__ import annotations

import random
from typing import Any

import attrs
import httpx
import pytest

from tests.transport.script import STEP, Pieces, Script, call, calls, config
from tinker_actors.errors import (
    APIConnectionError,
    APIStatusError,
)
from tinker_actors.transport.config import Config
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import DEFAULT_OPTIONS, RequestOptions
from tinker_actors.wire.endpoints import (
    ASAMPLE,
    CAPABILITIES,
    OPTIM_STEP,
)
from tinker_actors.wire.service import Empty


def redirect(places: dict[str, str]) -> Script:
    """Answer some URLs with another one."""
    script = Script(lambda _: None)

    def answer(_: int) -> httpx.Response:
        target = places.get(str(script.requests[-1].url))
        if target is None:
            return httpx.Response(200, stream=Pieces([b"a", b"b"]))
        return httpx.Response(302, headers={"location": target})

    script.answer = answer
    return script


async def download(script: Script, url: str = "x", **settings: Any) -> bytes:
    """Download from a script."""
    async with (
        open_transport(
            config(api_key="tml-hush", headers={"cf-access-client-secret": "hush"}, **settings),
            rng=random.Random(0),
            through=script,
        ) as transport,
        transport.open_url(url) as response,
    ):
        return b"".join([piece async for piece in response.iter_bytes()])


@pytest.mark.requirement("R34")
async def test_a_redirect_to_another_origin_is_followed_without_our_key() -> None:
    """Storage services get neither our key nor anything else that says who we are; nor on the way back."""
    script = redirect(
        {
            "http://script/base/x": "http://script/base/y",
            "http://script/base/y": "https://storage/z?signature=s",
            "https://storage/z?signature=s": "http://script/base/back",
        }
    )
    assert await download(script) == b"ab"
    keyed = ["hush" in str(request.headers.raw) for request in script.requests]
    assert keyed == [True, True, False, False]
    assert set(script.requests[2].headers) <= {"host", "accept", "accept-encoding", "user-agent"}
    assert script.requests[2].headers["host"] == "storage"


@pytest.mark.requirement("R34")
async def test_a_key_goes_along_from_http_to_https() -> None:
    """A service that insists on TLS is the same service."""
    script = redirect({"http://script/base/x": "https://script/base/x"})
    await download(script)
    assert [request.headers.get("x-api-key") for request in script.requests] == ["tml-hush", "tml-hush"]


@pytest.mark.requirement("R34")
async def test_an_absolute_url_elsewhere_gets_no_key() -> None:
    """What the caller names is fetched, and learns nothing of us."""
    script = redirect({})
    await download(script, "https://elsewhere/x?y=1", auth=httpx.BasicAuth("me", "hush"), query={"own": 1})
    (request,) = script.requests
    assert request.url.host == "elsewhere"
    assert "hush" not in str(request.headers.raw)
    assert "authorization" not in request.headers


async def test_redirects_end(autojump_clock: Any) -> None:
    """A circle is an error, and so is a redirect that leads out of the service where it must not."""
    circle = redirect({"http://script/base/x": "http://script/base/x"})
    with pytest.raises(APIConnectionError, match="20 redirects"):
        await download(circle)
    out = Script(lambda _: httpx.Response(307, headers={"location": "https://elsewhere/"}))
    with pytest.raises(APIStatusError, match="307"):
        await calls(out, DEFAULT_OPTIONS)
    assert len(out.requests) == 1
    with pytest.raises(APIStatusError, match="307"):
        await call(out, ASAMPLE, STEP)


async def test_a_hot_call_follows_a_redirect_as_well() -> None:
    """A service that has moved a path gets the whole request there."""
    answers = [
        httpx.Response(307, headers={"location": "/moved"}),
        httpx.Response(200, json={"request_id": "r"}),
    ]
    script = Script(lambda attempt: answers[0] if attempt < 2 else answers[1])
    assert (await call(script, ASAMPLE, STEP)).request_id == "r"
    assert str(script.requests[-1].url) == "http://script/moved"
    assert script.requests[-1].content == script.requests[0].content


async def test_a_redirect_can_be_the_answer() -> None:
    """Where it leads and until when is the value."""
    moved = {"location": "https://storage/x", "expires": "Wed, 21 Oct 2026 07:28:00 GMT"}
    script = Script(
        lambda attempt: httpx.Response(302, headers=moved if attempt == 0 else {"location": "https://s/"})
    )
    endpoint = attrs.evolve(CAPABILITIES, reply=dict, redirects="answer")
    assert await calls(script, DEFAULT_OPTIONS, DEFAULT_OPTIONS, endpoint=endpoint) == [
        {"url": "https://storage/x", "expires": "2026-10-21T07:28:00+00:00"},
        {"url": "https://s/"},
    ]


@pytest.mark.requirement("R50")
async def test_a_host_with_an_underscore_is_asked_for_by_another_name() -> None:
    """On both ways the name for TLS is told to what carries the request."""
    script = Script(lambda _: httpx.Response(200, json={"request_id": "r"}))
    settings = Config(base_url="https://my_service")
    async with open_transport(settings, rng=random.Random(0), through=script) as transport:
        await transport.call(ASAMPLE, STEP)
        await transport.call(OPTIM_STEP, STEP)
        await transport.call(CAPABILITIES, Empty(), options=RequestOptions(cast_to=dict))
    assert [request.extensions["sni_hostname"] for request in script.requests] == ["my-service"] * 3


@pytest.mark.parametrize("downloads", [False, True])
async def test_a_redirect_to_no_place_of_http_is_not_followed(downloads: bool) -> None:
    """It is the answer, told once; its connection is given back though nobody read it."""
    body = Pieces([b"a"])
    script = Script(lambda _: httpx.Response(302, headers={"location": "ftp://elsewhere/x"}, stream=body))
    with pytest.raises(APIStatusError) as caught:
        await (download(script) if downloads else call(script, CAPABILITIES, Empty()))
    assert caught.value.status_code == 302
    assert len(script.requests) == 1
    assert body.closed
