"""What one call, or the hooks and the authentication of a client, may do differently."""

from __future__ import annotations

import random
from typing import Any

import httpx
import orjson
import pytest
import trio

from tests.transport.script import INFO, Script, calls, config
from tinker_actors.errors import (
    APITimeoutError,
    AuthenticationError,
    RateLimitError,
)
from tinker_actors.transport.headers import platform_headers
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import DEFAULT_OPTIONS, OMIT, Hooks, RequestOptions
from tinker_actors.wire.endpoints import (
    ASAMPLE,
    CAPABILITIES,
    CLIENT_CONFIG,
    GET_INFO,
    RETRIEVE_FUTURE,
)
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.model import GetInfoRequest


@pytest.mark.requirement("R36", "R41")
async def test_a_call_may_have_headers_and_a_query_of_its_own() -> None:
    """They lie over those of the client, which lie over the rest; OMIT takes a header away."""
    script = Script(lambda _: httpx.Response(200, json=INFO))
    options = RequestOptions(headers={"X-One": "call", "User-Agent": OMIT}, query={"b": [1, 2], "c": None})
    settings = {
        "headers": {"x-one": "client", "x-two": "client", "accept": "mine"},
        "query": {"a": True, "b": 0},
    }
    await calls(script, options, DEFAULT_OPTIONS, **settings)
    first, second = script.requests
    assert (first.headers["x-one"], first.headers["x-two"], first.headers["accept"]) == (
        "call",
        "client",
        "mine",
    )
    assert "user-agent" not in first.headers
    assert dict(first.url.params) == {"a": "true", "b": "1,2"}
    assert second.headers["x-one"] == "client"
    assert second.headers["user-agent"].startswith("tinker_actors/")
    assert dict(second.url.params) == {"a": "true", "b": "0"}


@pytest.mark.requirement("R41")
async def test_each_layer_of_headers_lies_over_the_one_below() -> None:
    """The usual ones, the platform, the key, the client's own, the call's: each is changed by the next that may."""
    names = ("user-agent", "x-stainless-os", "x-api-key")
    settings = {"api_key": "tml-key", "headers": {name.title(): f"client {name}" for name in names}}
    script = Script(lambda _: httpx.Response(200, json=INFO))
    call = RequestOptions(headers={name.upper(): f"call {name}" for name in names})
    await calls(script, DEFAULT_OPTIONS, call, **settings)
    await calls(script, DEFAULT_OPTIONS, api_key="tml-key")
    first, second, third = [[request.headers[name] for name in names] for request in script.requests]
    assert first == [f"client {name}" for name in names]
    assert second == [f"call {name}" for name in names]
    assert third[2] == "tml-key"
    assert all(len(request.headers.get_list(name)) == 1 for request in script.requests for name in names)


@pytest.mark.lesson("D1")
@pytest.mark.requirement("R47")
async def test_the_query_of_a_call_lies_over_that_of_the_client() -> None:
    """What the caller puts behind the path is merged with what every request carries."""
    script = Script(lambda _: httpx.Response(200, json=INFO))
    async with open_transport(
        config(query={"a": 1, "b": 2}), rng=random.Random(0), through=script
    ) as transport:
        await transport.call(GET_INFO, GetInfoRequest("m"), query={"b": 3, "limit": None})
    assert script.requests[0].url.query == b"a=1&b=3"


@pytest.mark.requirement("R35", "R36", "R44")
async def test_time_is_said_by_the_call_the_endpoint_or_the_client(autojump_clock: Any) -> None:
    """The call wins over the endpoint, and the endpoint over the client; the service is told."""
    for settings, options, endpoint, seconds in (
        ({}, DEFAULT_OPTIONS, GET_INFO, 60),
        ({"timeout": 7.0}, DEFAULT_OPTIONS, GET_INFO, 7),
        ({"timeout": 7.0}, RequestOptions(timeout=3), GET_INFO, 3),
        ({"timeout": 7.0}, DEFAULT_OPTIONS, CLIENT_CONFIG, CLIENT_CONFIG.timeout),
    ):
        script = Script(lambda _: None)
        started = trio.current_time()
        one_try = RequestOptions(max_retries=0).over(options)
        with pytest.raises(APITimeoutError):
            await calls(script, one_try, endpoint=endpoint, **settings)
        assert trio.current_time() - started == pytest.approx(seconds)
        assert script.requests[0].headers["x-stainless-read-timeout"] == str(int(seconds))


@pytest.mark.requirement("R78")
async def test_no_limit_is_not_the_same_as_nothing_said(autojump_clock: Any) -> None:
    """A call without a limit waits as long as its caller does."""
    script = Script(lambda _: None)
    with trio.move_on_after(10_000) as scope:
        await calls(script, RequestOptions(timeout=None))
    assert scope.cancelled_caught
    assert "x-stainless-read-timeout" not in script.requests[0].headers


@pytest.mark.requirement("R36", "R57")
@pytest.mark.parametrize(
    ("settings", "options", "attempts"),
    [
        ({}, DEFAULT_OPTIONS, 11),
        ({"max_retries": 2}, DEFAULT_OPTIONS, 3),
        ({"max_retries": 2}, RequestOptions(max_retries=1), 2),
        ({}, RequestOptions(max_retries=0), 1),
    ],
)
async def test_attempts_are_said_by_the_call_or_the_client(
    autojump_clock: Any, settings: Any, options: RequestOptions, attempts: int
) -> None:
    """The budget of a call wins over that of the client."""
    script = Script(lambda _: httpx.Response(429, json={}))
    with pytest.raises(RateLimitError) as caught:
        await calls(script, options, **settings)
    assert caught.value.attempts == len(script.requests) == attempts


@pytest.mark.requirement("R44", "R51", "R58")
async def test_attempts_differ_in_their_number_alone(autojump_clock: Any) -> None:
    """One key for all attempts of a call, another for the next call; the number of the attempt is told."""
    answers = [503, 429, 200, 200]
    script = Script(lambda attempt: httpx.Response(answers[attempt], json=INFO))
    await calls(script, RequestOptions(headers={"x-own": "1"}, json={"more": 1}), DEFAULT_OPTIONS)
    *attempts, other = script.requests
    assert [request.headers["x-stainless-retry-count"] for request in attempts] == ["0", "1", "2"]
    assert len({request.headers["x-idempotency-key"] for request in attempts}) == 1
    assert other.headers["x-idempotency-key"] != attempts[0].headers["x-idempotency-key"]
    rest = [
        [pair for pair in request.headers.raw if pair[0] != b"x-stainless-retry-count"] + [request.content]
        for request in attempts
    ]
    assert rest[0] == rest[1] == rest[2]


@pytest.mark.requirement("R51")
@pytest.mark.parametrize(("key", "sent"), [("mine", "mine"), (None, None)])
async def test_a_call_may_bring_its_key_or_have_none(key: str | None, sent: str | None) -> None:
    """A key of the caller's replaces the drawn one; None sends none."""
    script = Script(lambda _: httpx.Response(200, json=INFO))
    await calls(script, RequestOptions(idempotency_key=key))
    assert script.requests[0].headers.get("x-idempotency-key") == sent


@pytest.mark.requirement("R173")
async def test_a_call_may_add_to_its_body() -> None:
    """Members are merged over those of the typed request."""
    script = Script(lambda _: httpx.Response(200, json=INFO))
    await calls(script, RequestOptions(json={"model_id": "n", "extra": [1]}))
    assert orjson.loads(script.requests[0].content) == {"model_id": "n", "type": "get_info", "extra": [1]}


@pytest.mark.requirement("R43", "R148")
async def test_every_request_tells_its_platform() -> None:
    """The six headers go with each request, that of a GET as well."""
    script = Script(lambda _: httpx.Response(200, json={"supported_models": []}))
    await calls(script, DEFAULT_OPTIONS, endpoint=CAPABILITIES)
    assert platform_headers().items() <= dict(script.requests[0].headers).items()


@pytest.mark.requirement("R52", "R58")
@pytest.mark.parametrize("endpoint", [GET_INFO, RETRIEVE_FUTURE])
async def test_hooks_see_every_attempt(autojump_clock: Any, endpoint: Any) -> None:
    """Options come as the caller gave them each time; the finished request may be signed."""
    seen: list[RequestOptions] = []

    async def prepare_options(options: RequestOptions) -> RequestOptions:
        await trio.lowlevel.checkpoint()
        seen.append(options)
        return RequestOptions(headers={"x-turn": str(len(seen))}, json={"turn": len(seen)}).over(options)

    async def prepare_request(request: httpx.Request) -> None:
        await trio.lowlevel.checkpoint()
        request.headers["x-signature"] = f"signed {request.headers['x-turn']}"

    hooks = Hooks(prepare_options=prepare_options, prepare_request=prepare_request)
    script = Script(lambda attempt: httpx.Response(503 if attempt == 0 else 200, json=INFO))
    given = RequestOptions(headers={"x-own": "1"}, max_retries=1, cast_to=dict)
    async with open_transport(config(hooks=hooks), rng=random.Random(0), through=script) as transport:
        await transport.call(endpoint, GetInfoRequest("m"), options=given)
    assert seen == [given, given]
    assert [request.headers["x-signature"] for request in script.requests] == ["signed 1", "signed 2"]
    assert [orjson.loads(request.content)["turn"] for request in script.requests] == [1, 2]
    assert [request.headers["x-own"] for request in script.requests] == ["1", "1"]


async def test_what_a_hook_raises_leaves_as_it_is() -> None:
    """It is the user's own, and is not taken for a broken connection."""

    async def prepare_request(request: httpx.Request) -> None:
        raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        await calls(Script(lambda _: None), DEFAULT_OPTIONS, hooks=Hooks(prepare_request=prepare_request))


class Bearer(httpx.Auth):
    """Adds a header, and another one after a 401."""

    def __init__(self) -> None:
        self.turns = 0

    def auth_flow(self, request: httpx.Request) -> Any:
        self.turns += 1
        request.headers["authorization"] = "one"
        response = yield request
        if response.status_code == 401:
            request.headers["authorization"] = "two"
            yield request


async def test_an_authentication_of_the_users_runs_on_every_way() -> None:
    """Httpx's flows work for the calls that usually go without its client as well."""
    script = Script(lambda attempt: httpx.Response(401 if attempt % 2 == 0 else 200, json=INFO))
    auth = Bearer()
    async with open_transport(config(auth=auth), rng=random.Random(0), through=script) as transport:
        await transport.call(GET_INFO, GetInfoRequest("m"))
        await transport.poll(RetrieveFutureRequest("r"))
    assert auth.turns == 2
    assert [request.headers["authorization"] for request in script.requests] == [
        "two"
    ] * 4  # the flow's own object


class Keys:
    """Credentials that can be renewed."""

    def __init__(self) -> None:
        self.turn = 0
        self.refused: list[Any] = []
        self.ready = None

    async def headers(self) -> dict[str, str]:
        return {"x-api-key": f"tml-{self.turn}"}

    async def rejected(self, sent: Any) -> bool:
        self.refused.append(sent)
        self.turn += 1
        return self.turn < 2


@pytest.mark.parametrize("endpoint", [GET_INFO, ASAMPLE])
async def test_a_token_that_has_ended_is_renewed_within_the_attempt(endpoint: Any) -> None:
    """The same request goes out once more with the new token, and no more often; it is no retry."""
    ended = httpx.Response(401, headers={"www-authenticate": 'Bearer error="invalid_token"'}, json={})
    script = Script(
        lambda attempt: httpx.Response(200, json={"request_id": "r", **INFO}) if attempt == 1 else ended
    )
    keys = Keys()
    async with open_transport(config(), rng=random.Random(0), through=script, authority=keys) as transport:
        await transport.call(endpoint, GetInfoRequest("m"))
        assert [request.headers["x-api-key"] for request in script.requests] == ["tml-0", "tml-1"]
        assert {request.headers["x-stainless-retry-count"] for request in script.requests} == {"0"}
        assert keys.refused == [{"x-api-key": "tml-0"}]
        with pytest.raises(AuthenticationError):
            await transport.call(endpoint, GetInfoRequest("m"))
    assert len(script.requests) == 3


async def test_a_bare_401_is_final() -> None:
    """A key that is wrong is not renewed."""
    script = Script(lambda _: httpx.Response(401, json={}))
    keys = Keys()
    async with open_transport(config(), rng=random.Random(0), through=script, authority=keys) as transport:
        with pytest.raises(AuthenticationError):
            await transport.call(GET_INFO, GetInfoRequest("m"))
    assert keys.refused == []
    assert len(script.requests) == 1
