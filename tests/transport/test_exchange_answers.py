"""What a call gives: values, whole answers, and errors."""

from __future__ import annotations

import gzip
import random
from typing import Any

import httpx
import orjson
import pytest

from tests.transport.script import INFO, Pieces, Script, calls, config
from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BillingError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SessionGoneError,
    UnprocessableEntityError,
)
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import DEFAULT_OPTIONS, RequestOptions
from tinker_actors.transport.response import APIResponse
from tinker_actors.wire.endpoints import (
    GET_INFO,
)
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.model import GetInfoRequest, GetInfoResponse, ModelData


@pytest.mark.requirement("R60", "R61")
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, BillingError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, SessionGoneError),
        (418, APIStatusError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        (500, InternalServerError),
        (503, InternalServerError),
        (302, APIStatusError),
    ],
)
async def test_each_status_has_its_error(status: int, error: type[APIStatusError]) -> None:
    """An error tells the status, the body, the request and the answer, and its text has the official form."""
    script = Script(lambda _: httpx.Response(status, json={"detail": "why"}))
    with pytest.raises(error, match="get_info: Error code") as caught:
        await calls(script, RequestOptions(max_retries=0), api_key="tml-hush")
    got = caught.value
    assert type(got) is error
    assert f"Error code: {status} - {{'detail': 'why'}}" in str(got)
    assert "self." not in str(got)
    assert (got.status_code, got.body) == (status, {"detail": "why"})
    assert isinstance(got.request, httpx.Request)
    assert isinstance(got.response, httpx.Response)
    assert (got.request.method, str(got.request.url)) == ("POST", "http://script/base/api/v1/get_info")
    assert (got.response.status_code, got.response.json()) == (status, {"detail": "why"})
    assert "hush" not in repr(got.request.headers) + repr(got.response.request.headers)


@pytest.mark.requirement("R61")
async def test_a_body_that_is_no_json_is_told_as_text() -> None:
    """A proxy's page is shown up to a length; no body is said to be none."""
    script = Script(lambda attempt: httpx.Response(404, text="<html>" + "x" * 5000 if attempt == 0 else ""))
    for text in ("<html>", "no body"):
        with pytest.raises(NotFoundError, match=text) as caught:
            await calls(script, DEFAULT_OPTIONS)
        assert len(str(caught.value)) < 3000
    assert caught.value.body == ""


@pytest.mark.requirement("R61")
async def test_a_strangers_page_cannot_steer_a_terminal() -> None:
    """What cannot be printed is written as in source code; the body itself is as it came."""
    script = Script(lambda _: httpx.Response(404, content=b"\x1b[2Jgone\r\n\x00"))
    with pytest.raises(NotFoundError) as caught:
        await calls(script, DEFAULT_OPTIONS)
    assert str(caught.value) == "get_info: Error code: 404 - \\x1b[2Jgone\\r\\n\\x00"
    assert caught.value.body == "\x1b[2Jgone\r\n\x00"


@pytest.mark.requirement("R61")
@pytest.mark.parametrize("is_compressed", [False, True])
async def test_a_service_that_repeats_the_key_does_not_make_us_tell_it(is_compressed: bool) -> None:
    """The key is masked in text, body and answer, also in one that came compressed."""
    content = b'{"detail": "no such key: tml-hush"}'
    headers = {"content-encoding": "gzip"} if is_compressed else {}
    raw = gzip.compress(content) if is_compressed else content
    script = Script(lambda _: httpx.Response(403, headers=headers, stream=Pieces([raw])))
    with pytest.raises(PermissionDeniedError) as caught:
        await calls(script, DEFAULT_OPTIONS, api_key="tml-hush")
    assert "hush" not in f"{caught.value} {caught.value.body} {caught.value.response.text}"  # type: ignore[attr-defined] # httpx's
    assert "***" in str(caught.value)


@pytest.mark.requirement("R61")
async def test_a_compressed_result_that_repeats_the_key_does_not_tell_it() -> None:
    """A failure that is told by a promise is masked as any other."""
    packed = gzip.compress(b'{"error": "no such key: tml-hush", "category": "user"}')
    script = Script(lambda _: httpx.Response(200, content=packed, headers={"content-encoding": "gzip"}))
    async with open_transport(config(api_key="tml-hush"), rng=random.Random(0), through=script) as transport:
        answer = await transport.poll(RetrieveFutureRequest("r"))
    assert answer.payload is not None
    assert b"no such key: ***" in answer.payload.content


@pytest.mark.requirement("R59", "R61")
async def test_a_broken_exchange_tells_its_request(autojump_clock: Any) -> None:
    """There is no answer to tell, but there is what was sent, without the key."""
    with pytest.raises(APIConnectionError) as caught:
        await calls(
            Script(lambda _: httpx.ReadError("lost")), RequestOptions(max_retries=0), api_key="tml-hush"
        )
    assert isinstance(caught.value.request, httpx.Request)
    assert caught.value.response is None
    assert caught.value.request.headers["x-api-key"] == "***"


@pytest.mark.requirement("R59")
async def test_a_carrier_with_errors_of_its_own_is_translated(autojump_clock: Any) -> None:
    """What a transport of the user's raises about a connection becomes our error, with the cause."""
    with pytest.raises(APIConnectionError) as caught:
        await calls(Script(lambda _: ConnectionResetError("gone")), RequestOptions(max_retries=0))
    assert isinstance(caught.value.__cause__, ConnectionResetError)


@pytest.mark.requirement("R62")
async def test_an_answer_of_another_shape_comes_with_the_error() -> None:
    """The request and the answer are told."""
    script = Script(lambda _: httpx.Response(200, json={"model_id": 3}))
    with pytest.raises(APIResponseValidationError) as caught:
        await calls(script, DEFAULT_OPTIONS)
    assert isinstance(caught.value.response, httpx.Response)
    assert isinstance(caught.value.request, httpx.Request)
    assert caught.value.response.json() == {"model_id": 3}


@pytest.mark.requirement("R175")
async def test_strictness_is_set_for_the_client_or_a_call() -> None:
    """Unknown fields are ignored, unless the client or the call is strict; the call wins."""
    script = Script(lambda _: httpx.Response(200, json={**INFO, "new": 1}))
    await calls(script, DEFAULT_OPTIONS)
    await calls(script, RequestOptions(strict=False), strict=True)
    for options, settings in ((DEFAULT_OPTIONS, {"strict": True}), (RequestOptions(strict=True), {})):
        with pytest.raises(APIResponseValidationError, match="new"):
            await calls(script, options, **settings)


@pytest.mark.requirement("R174")
@pytest.mark.parametrize(
    ("kind", "value"),
    [(dict, INFO), (object, INFO), (bytes, orjson.dumps(INFO))],
)
async def test_the_type_of_an_answer_can_be_chosen(kind: Any, value: object) -> None:
    """The call reads its answer as what it was told; nothing of that goes out."""
    script = Script(lambda _: httpx.Response(200, content=orjson.dumps(INFO)))
    assert await calls(script, RequestOptions(cast_to=kind), DEFAULT_OPTIONS) == [
        value,
        GetInfoResponse(model_id="m", model_data=ModelData()),
    ]
    chosen, usual = (
        [name for name in request.headers if name != "x-idempotency-key"] for request in script.requests
    )
    assert chosen == usual


class Mine(APIResponse[Any]):
    """A class of responses of a user's."""


@pytest.mark.requirement("R24", "R174")
async def test_a_whole_answer_can_be_had() -> None:
    """Raw, as a class of the user's, or as httpx's own; our switches are no headers."""
    script = Script(lambda attempt: httpx.Response(200, json=INFO, headers={"x-a": "1"}))
    raw, mine, plain = await calls(
        script,
        RequestOptions(view="raw"),
        RequestOptions(cast_to=Mine),
        RequestOptions(cast_to=httpx.Response),
    )
    assert type(raw) is APIResponse
    assert type(mine) is Mine
    assert isinstance(plain, httpx.Response)
    assert (raw.status_code, raw.headers["x-a"], raw.retries_taken) == (200, "1", 0)
    assert await raw.parse() == await mine.parse() == GetInfoResponse(model_id="m", model_data=ModelData())
    assert plain.json() == INFO
    for request in script.requests:
        assert not any("raw" in name or "override" in name for name in request.headers)


@pytest.mark.requirement("R24")
async def test_failed_attempts_are_counted_in_the_answer(autojump_clock: Any) -> None:
    """A whole answer tells how many attempts failed before it."""
    script = Script(lambda attempt: httpx.Response(503 if attempt < 2 else 200, json=INFO))
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        response = await transport.respond(GET_INFO, GetInfoRequest("m"))
    assert response.retries_taken == 2
    assert (await response.parse()).model_id == "m"


async def test_compressed_answers_are_undone_on_both_ways() -> None:
    """An answer is read whatever its encoding; the header stays to be seen."""
    packed = gzip.compress(orjson.dumps(INFO))
    script = Script(lambda _: httpx.Response(200, content=packed, headers={"content-encoding": "gzip"}))
    raw, value = await calls(script, RequestOptions(view="raw"), DEFAULT_OPTIONS)
    assert value.model_id == "m"
    assert await raw.json() == INFO
    assert raw.headers["content-encoding"] == "gzip"
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        answer = await transport.poll(RetrieveFutureRequest("r"), accept_protobuf=True, request_type="Sample")
    assert answer.payload is not None
    assert orjson.loads(answer.payload.content) == INFO
    assert "gzip" in script.requests[-1].headers["accept-encoding"]


@pytest.mark.lesson("L36")
async def test_an_answer_that_cannot_be_undone_is_a_typed_error() -> None:
    """On every way; an error of a status says so, and its response has the bytes."""
    bad = {"content-encoding": "gzip"}
    script = Script(
        lambda attempt: httpx.Response(404 if attempt == 2 else 200, stream=Pieces([b"zip?"]), headers=bad)
    )
    with pytest.raises(APIResponseValidationError, match="gzip"):
        await calls(script, DEFAULT_OPTIONS)
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        answer = await transport.poll(RetrieveFutureRequest("r"))
        assert (answer.status, answer.payload) == (None, None)
        with pytest.raises(NotFoundError, match="zip") as caught:
            await transport.call(GET_INFO, GetInfoRequest("m"))
    assert isinstance(caught.value.response, httpx.Response)
    assert caught.value.response.content == b"zip?"


@pytest.mark.lesson("L36")
async def test_a_refusal_that_cannot_be_decompressed_says_so() -> None:
    """The error of the status is raised all the same, and does not pass compressed bytes off as a text."""
    garbage = gzip.compress(b'{"detail": "no"}')[:12]
    headers = {"content-encoding": "gzip"}
    script = Script(lambda _: httpx.Response(400, headers=headers, stream=Pieces([garbage])))
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        with pytest.raises(
            BadRequestError, match="Error code: 400 - the body cannot be decompressed"
        ) as caught:
            await transport.call(GET_INFO, GetInfoRequest("m"))
    assert str(caught.value).isprintable()
