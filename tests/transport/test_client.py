"""`AsyncTinker`: the calls of the API by name, and those that have none."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from tests.transport.script import INFO, STEP, Pieces, Script, config
from tinker_actors.errors import APIConnectionError, ConfigError, InputError, NotFoundError
from tinker_actors.transport.client import AsyncTinker
from tinker_actors.transport.config import Config
from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.response import APIResponse
from tinker_actors.transport.stream import Stream
from tinker_actors.wire.endpoint import Endpoint
from tinker_actors.wire.endpoints import ENDPOINTS, GET_INFO, OPTIM_STEP
from tinker_actors.wire.future import CancelFutureRequest
from tinker_actors.wire.model import GetInfoRequest, GetInfoResponse
from tinker_actors.wire.weights import CopyWeightsRequest

PROMISE = {"request_id": "r"}


@asynccontextmanager
async def client(answer: Any, **settings: Any) -> AsyncIterator[tuple[AsyncTinker, Script]]:
    """Open a client whose requests are answered by a script."""
    script = Script(answer if callable(answer) else lambda _: answer)
    async with AsyncTinker.open(config(**settings), rng=random.Random(0), through=script) as opened:
        yield opened, script


@pytest.mark.requirement("R177")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_every_method_can_be_called_on_every_path(method: str) -> None:
    """Known or not, relative or not; the answer is read as it is told."""
    async with client(httpx.Response(200, json={"a": 1})) as (opened, script):
        call = getattr(opened, method.lower())
        assert await call("some/path?x=1", cast_to=dict, query={"y": [1, 2]}) == {"a": 1}
    (request,) = script.requests
    assert (request.method, str(request.url)) == (method, "http://script/base/some/path?x=1&y=1%2C2")
    assert request.content == b""
    assert ("x-idempotency-key" in request.headers) is (method != "GET")


@pytest.mark.requirement("R177")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_body_is_sent_as_what_it_is(method: str) -> None:
    """Mappings and wire objects as JSON, bytes as bytes."""
    async with client(httpx.Response(200, json=1)) as (opened, script):
        call = getattr(opened, method.lower())
        assert await call("x", cast_to=int, body={"a": None}) == 1
        await call("x", cast_to=object, body=GetInfoRequest("m"))
        await call("x", cast_to=bytes, body=b"raw")
    assert [(request.content, request.headers["content-type"]) for request in script.requests] == [
        (b'{"a":null}', "application/json"),
        (b'{"model_id":"m","type":"get_info"}', "application/json"),
        (b"raw", "application/octet-stream"),
    ]


@pytest.mark.requirement("R48")
async def test_files_make_a_form() -> None:
    """The content type is the form's own, boundary included, whatever the client's headers say."""
    async with client(httpx.Response(200, json={}), headers={"x-a": "1"}) as (opened, script):
        await opened.post("upload", cast_to=dict, body={"name": "n"}, files={"file": ("f.bin", b"\x00")})
        await opened.post("upload", cast_to=dict, files={"file": b"\x01"})
        with pytest.raises(InputError, match="body"):
            await opened.post("upload", cast_to=dict, body=[1], files={"file": b""})
    kinds = [request.headers["content-type"] for request in script.requests]
    assert all(kind.startswith("multipart/form-data; boundary=") for kind in kinds)
    assert kinds[0].rpartition("=")[2].encode() in script.requests[0].content
    assert b"\x01" in script.requests[1].content


GONE = {
    ("POST", "/api/v1/forward"): "0.25.0",
    ("POST", "/api/v1/unload_model"): "<=0.26.0",
    ("GET", "/api/v1/training_runs/a/checkpoints/a/archive"): "<=0.36.0",
}
"""What the official client had once, and since when it has it no longer."""


@pytest.mark.requirement("R160", "R177")
@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.name)
async def test_every_path_of_the_table_can_be_called_by_its_path(row: Endpoint[Any, Any]) -> None:
    """With its own method, those that are gone as well; the answer is read as it is told."""
    path = row.path.format(**dict.fromkeys(row.places, "a"))
    async with client(httpx.Response(200, json={"any": "thing"})) as (opened, script):
        body = {} if row.method == "GET" else {"body": {"a": 1}}
        assert await getattr(opened, row.method.lower())(path, cast_to=dict, **body) == {"any": "thing"}
    (request,) = script.requests
    assert (request.method, request.url.path) == (row.method, f"/base{path}")
    assert GONE.get((row.method, path)) == row.until


async def test_a_known_path_keeps_its_rules(autojump_clock: Any) -> None:
    """A gradient step that is made by its path is not sent twice either, and its time is its row's."""
    async with client(lambda _: httpx.ReadError("lost")) as (opened, script):
        with pytest.raises(APIConnectionError):
            await opened.post(OPTIM_STEP.path, cast_to=dict, body=STEP)
        assert len(script.requests) == 1
        with pytest.raises(APIConnectionError):
            await opened.post("/api/v1/client/config", cast_to=dict, body={})
    assert script.requests[-1].headers["x-stainless-read-timeout"] == "10"


@pytest.mark.requirement("R34")
async def test_an_absolute_url_gets_no_key_elsewhere() -> None:
    """Below our own origin it does."""
    async with client(httpx.Response(200, json={}), api_key="tml-hush") as (opened, script):
        await opened.get("http://script/other", cast_to=dict)
        await opened.get("https://elsewhere/x", cast_to=dict, options=RequestOptions(headers={"x-own": "1"}))
        await opened.post("https://elsewhere/x", cast_to=dict, body={"a": 1})
    ours, *theirs = script.requests
    assert ours.headers["x-api-key"] == "tml-hush"
    assert all("hush" not in str(request.headers.raw) for request in theirs)
    assert theirs[0].headers["x-own"] == "1"
    assert theirs[1].content == b'{"a":1}'
    assert not any(
        name.startswith(("x-stainless", "x-idem")) for request in theirs for name in request.headers
    )


@pytest.mark.parametrize("token", [None, "hush"])
async def test_the_key_to_somebody_elses_weights_is_a_header(token: str | None) -> None:
    """It stands where services keep it out of their logs, and not in the body; what the caller adds stays."""
    request = CopyWeightsRequest(
        source_path="tinker://r/weights/a", destination_project_id="p", weights_access_token=token
    )
    options = RequestOptions(headers={"x-own": "1"})
    async with client(httpx.Response(200, json={"tinker_path": "tinker://s/weights/a"})) as (opened, script):
        await opened.weights.copy(request, options=options)
        await opened.weights.with_raw_response.copy(request)
    for sent in script.requests:
        assert sent.headers.get("x-tinker-weights-access-token") == token
        assert orjson.loads(sent.content) == {
            "source_path": "tinker://r/weights/a",
            "destination_project_id": "p",
        }
    assert script.requests[0].headers["x-own"] == "1"


@pytest.mark.requirement("R67", "R68", "R177")
async def test_lists_are_gone_through_page_by_page() -> None:
    """Limit and offset go into the query; a short page is the last."""

    def answer(_: int) -> httpx.Response:
        params = script.requests[-1].url.params
        first, limit = int(params["offset"]), int(params["limit"])
        return httpx.Response(200, json={"runs": list(range(first, min(first + limit, 5)))})

    async with client(answer) as (opened, script):
        runs = opened.get_api_list("runs", items="runs", limit=2, query={"owner": "me"})
        assert [run async for run in runs] == [0, 1, 2, 3, 4]
        assert [str(request.url.params) for request in script.requests] == [
            f"owner=me&limit=2&offset={offset}" for offset in (0, 2, 4)
        ]
        page = await opened.get_api_list("runs", items="runs", limit=2, offset=1)
        assert (page.items, page.has_next_page()) == ((1, 2), True)


@pytest.mark.requirement("R22")
@pytest.mark.parametrize(
    "name", ["service", "training", "models", "weights", "sampling", "futures", "telemetry"]
)
async def test_each_resource_is_made_once_and_late(name: str) -> None:
    """When it is asked for, and then kept."""
    async with client(None) as (opened, _):
        assert name not in vars(opened)
        assert getattr(opened, name) is getattr(opened, name)


@pytest.mark.requirement("R22")
async def test_resources_are_made_when_they_are_asked_for() -> None:
    """Each once for a client, and apart from each other."""
    async with client(httpx.Response(200, json=PROMISE)) as (opened, script):
        assert "training" not in vars(opened)
        assert opened.training is opened.training
        assert (await opened.training.optim_step(STEP)).request_id == "r"
    assert script.requests[0].url.path == "/base/api/v1/optim_step"


@pytest.mark.requirement("R24", "R176")
async def test_a_view_gives_whole_answers() -> None:
    """By name, by endpoint and by path; the client itself goes on giving values."""
    async with client(
        lambda attempt: httpx.Response(200, json=PROMISE, headers={"x-turn": str(attempt)})
    ) as (
        opened,
        script,
    ):
        raw = opened.with_raw_response
        for response in (await raw.training.optim_step(STEP), await raw.call(OPTIM_STEP, STEP)):
            assert isinstance(response, APIResponse)
            assert (await response.parse()).request_id == "r"
        response = await opened.training.with_raw_response.optim_step(STEP)
        assert (await response.parse()).request_id == "r"
        response = await raw.get("x", cast_to=dict, options=RequestOptions(headers={"x-a": "1"}))
        assert (response.headers["x-turn"], await response.parse()) == ("3", PROMISE)
        assert (await opened.training.optim_step(STEP)).request_id == "r"
    assert script.requests[3].headers["x-a"] == "1"


@pytest.mark.requirement("R24", "R166", "R176")
async def test_a_streaming_view_gives_answers_with_open_bodies() -> None:
    """By name and by path, in `async with`, which gives the connection back."""
    bodies = [Pieces([orjson.dumps(PROMISE)]) for _ in range(4)]
    async with client(lambda attempt: httpx.Response(200, stream=bodies[attempt])) as (opened, _):
        streaming = opened.with_streaming_response
        async with streaming.training.optim_step(STEP) as response:
            assert (response.status_code, bodies[0].taken) == (200, 0)
            assert (await response.parse()).request_id == "r"
        async with streaming.post("x", cast_to=dict, body={}) as response:
            assert [line async for line in response.iter_lines()] == ['{"request_id":"r"}']
        async with streaming.call(OPTIM_STEP, STEP):
            pass
        async with opened.training.with_streaming_response.optim_step(STEP) as response:
            assert await response.json() == PROMISE
    assert all(body.closed for body in bodies)


@pytest.mark.requirement("R174")
async def test_events_can_be_asked_for_by_path() -> None:
    """The type of the answer says that it is a stream of events."""
    async with client(httpx.Response(200, stream=Pieces([b'data: {"a": 1}\n\n']))) as (opened, _):
        kind: Any = Stream[dict[str, int]]
        async with await opened.get("events", cast_to=kind) as events:
            assert [event async for event in events] == [{"a": 1}]


async def test_a_copy_for_another_place_takes_no_other_secret_along() -> None:
    """What says who we are stays behind, in headers and beside them; what is given with the place goes there."""
    settings = {
        "headers": {"CF-Access-Client-Secret": "hush", "x-a": "1"},
        "auth": httpx.BasicAuth("me", "hush"),
    }
    async with client(httpx.Response(200, json={}), **settings) as (opened, script):
        await opened.copy(base_url="http://other/base").get("x", cast_to=dict)
        await opened.copy(base_url="http://other/base", headers={"authorization": "b"}).get("x", cast_to=dict)
        await opened.copy(base_url="http://script/base").get("x", cast_to=dict)
    names = ("cf-access-client-secret", "authorization", "x-a")
    seen = [[request.headers.get(name) for name in names] for request in script.requests]
    assert seen == [
        [None, None, "1"],
        [None, "b", "1"],
        ["hush", httpx.BasicAuth("me", "hush")._auth_header, "1"],
    ]


@pytest.mark.requirement("R23")
async def test_a_copy_differs_in_what_is_said_and_nothing_else() -> None:
    """The original stays as it is; headers and query are merged or replaced; connections are shared."""
    settings = {"headers": {"x-a": "1"}, "query": {"a": 1}, "timeout": 9.0}
    async with client(httpx.Response(200, json=INFO), api_key="tml-one", **settings) as (opened, script):
        before = opened.config
        merged = opened.copy(
            headers={"x-b": "2"}, query={"b": 2}, api_key="tml-two", max_retries=1, strict=True
        )
        replaced = opened.with_options(set_headers={}, set_query={}, timeout=None)
        for one in (merged, replaced, opened):
            assert isinstance(await one.call(GET_INFO, GetInfoRequest("m")), GetInfoResponse)
    assert opened.config is before
    seen = [
        {name: request.headers.get(name) for name in ("x-a", "x-b", "x-api-key", "x-stainless-read-timeout")}
        for request in script.requests
    ]
    assert [list(one.values()) for one in seen] == [
        ["1", "2", "tml-two", "9"],
        [None, None, "tml-one", None],
        ["1", None, "tml-one", "9"],
    ]
    assert [request.url.query for request in script.requests] == [b"a=1&b=2", b"", b"a=1"]
    assert (merged.config.max_retries, merged.config.strict) == (1, True)


@pytest.mark.requirement("R23")
async def test_a_copy_for_another_place_takes_no_key_along() -> None:
    """Unless one is given; nor does a command's."""
    async with client(httpx.Response(200, json={}), api_key="tml-one") as (opened, script):
        other = opened.copy(base_url="http://other/base/")
        assert (opened.base_url, other.base_url) == ("http://script/base/", "http://other/base/")
        await other.get("x", cast_to=dict)
        await other.copy(api_key="tml-two").get("x", cast_to=dict)
        await opened.copy(api_key=None).get("x", cast_to=dict)
        await opened.copy(base_url="http://script/base").get("x", cast_to=dict)
    keys = [request.headers.get("x-api-key") for request in script.requests]
    assert keys == [None, "tml-two", None, "tml-one"]
    assert script.requests[0].url.host == "other"


@pytest.mark.requirement("R23")
@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": {}, "set_headers": {}},
        {"query": {}, "set_query": {}},
        {"base_url": "ftp://x"},
        {"timeout": 0},
        {"max_retries": -1},
        {"api_key": "hush"},
    ],
)
async def test_a_copy_is_checked_as_its_original_was(wrong: dict[str, Any]) -> None:
    """A wrong setting is told, a key is not shown."""
    async with client(None) as (opened, _):
        with pytest.raises((ConfigError, InputError)) as caught:
            opened.copy(**wrong)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda opened, options: opened.service.health_check(options=options),
        lambda opened, options: opened.with_raw_response.service.health_check(options=options),
        lambda opened, options: opened.futures.cancel(CancelFutureRequest("p"), options=options),
        lambda opened, options: opened.get("x", cast_to=dict, options=options),
    ],
    ids=["by name", "raw", "post", "by path"],
)
async def test_options_that_are_none_are_refused(call: Any) -> None:
    """By name, before anything is sent; what they hold may be a secret, and is not shown."""
    async with client(None) as (opened, script):
        with pytest.raises(InputError, match=r"^options = 'dict': must be RequestOptions"):
            await call(opened, {"headers": {"x-token": "hush"}})
    assert script.requests == []


async def test_a_client_shows_where_it_goes() -> None:
    """And no secret."""
    async with AsyncTinker.open(Config(base_url="http://script/base", api_key="tml-hush")) as opened:
        assert repr(opened) == "<AsyncTinker http://script/base/>"
        assert opened.config.base_url == "http://script/base"


async def test_an_unknown_path_has_its_name_in_errors() -> None:
    """Method and path stand in for the name of the call."""
    async with client(httpx.Response(404, json={"detail": "why"})) as (opened, _):
        with pytest.raises(NotFoundError, match="GET /some/path: Error code: 404"):
            await opened.get("some/path?x=1", cast_to=dict)
