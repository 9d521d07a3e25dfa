"""One logical call: headers, bodies, both ways, retries, error mapping, deadlines, cancellation."""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import attrs
import httpx
import orjson
import pytest
import trio

from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BillingError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResultLost,
    SessionGoneError,
    UnprocessableEntityError,
)
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.protocol.retry import Look, Sends, Stop
from tinker_actors.transport.config import Config
from tinker_actors.transport.exchange import open_transport
from tinker_actors.transport.headers import platform_headers
from tinker_actors.transport.lanes import LANE_LIMITS
from tinker_actors.transport.options import DEFAULT_OPTIONS, OMIT, Hooks, RequestOptions
from tinker_actors.transport.response import APIResponse
from tinker_actors.wire import protobuf
from tinker_actors.wire.compression import decompress
from tinker_actors.wire.endpoints import (
    ASAMPLE,
    CAPABILITIES,
    CLIENT_CONFIG,
    ENDPOINTS,
    FINISH_SESSION,
    FORWARD,
    GET_INFO,
    OPTIM_STEP,
    RETRIEVE_FUTURE,
    SAVE_WEIGHTS,
    TELEMETRY,
)
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.model import GetInfoRequest, GetInfoResponse, ModelData
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest
from tinker_actors.wire.service import Empty
from tinker_actors.wire.session import FinishReason, FinishSessionRequest
from tinker_actors.wire.weights import SaveWeightsRequest

INFO = {"model_id": "m", "model_data": {}}
STEP = OptimStepRequest(AdamParams(), "m", 1)


class Script(httpx.AsyncBaseTransport):
    """Answers by a function of the attempt's number; notes what came and when."""

    def __init__(self, answer: Callable[[int], httpx.Response | Exception | None]) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self.answer(len(self.requests) - 1)
        if answer is None:
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = iter(pieces)
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self.pieces:
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


def config(**settings: Any) -> Config:
    """Make a config for the script."""
    return Config(base_url="http://script/base", **settings)


async def call(script: Script, endpoint: Any, request: Any, **settings: Any) -> Any:
    """Make one call through a script."""
    async with open_transport(config(**settings), rng=random.Random(0), through=script) as transport:
        return await transport.call(endpoint, request)


@pytest.mark.requirement("R42", "R45")
async def test_a_call_has_its_path_headers_and_body() -> None:
    """Base path, key, content type and JSON are as the service expects; GET has no body."""
    script = Script(lambda _: httpx.Response(200, json=INFO))
    reply = await call(script, GET_INFO, GetInfoRequest("m"), api_key="tml-key")
    assert reply.model_id == "m"
    (request,) = script.requests
    assert str(request.url) == "http://script/base/api/v1/get_info"
    assert request.headers["x-api-key"] == "tml-key"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("tinker_actors/")
    assert request.content == b'{"model_id":"m","type":"get_info"}'
    assert request.headers["content-length"] == str(len(request.content))
    script = Script(lambda _: httpx.Response(200, json={"supported_models": []}))
    await call(script, CAPABILITIES, Empty())
    assert (script.requests[0].method, script.requests[0].content) == ("GET", b"")
    for absent in ("x-api-key", "content-type", "content-length", "x-idempotency-key"):
        assert absent not in script.requests[0].headers


async def test_path_parts_are_filled_in() -> None:
    """`{session_id}` in a path comes from the caller."""
    script = Script(lambda _: httpx.Response(204))
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        request = FinishSessionRequest(FinishReason("success"))
        await transport.call(FINISH_SESSION, request, path={"session_id": "s1"})
    assert script.requests[0].url.path == "/base/api/v1/sessions/s1/finish"


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AuthenticationError), (409, ConflictError), (418, APIStatusError)],
)
async def test_final_statuses_are_raised_at_once(autojump_clock: Any, status: int, error: type) -> None:
    """Errors carry status, body and attempts, and are not tried again."""
    script = Script(lambda _: httpx.Response(status, json={"detail": "why"}))
    with pytest.raises(error, match="why") as caught:
        await call(script, GET_INFO, GetInfoRequest("m"))
    assert caught.value.status_code == status
    assert caught.value.body == {"detail": "why"}
    assert caught.value.attempts == 1
    assert len(script.requests) == 1


@pytest.mark.requirement("R56")
async def test_a_refusal_is_tried_again_when_the_service_said(autojump_clock: Any) -> None:
    """429 waits for Retry-After; the same bytes go out again."""
    answers = [
        httpx.Response(429, headers={"retry-after": "7"}, json={}),
        httpx.Response(429, headers={"retry-after-ms": "250"}, json={}),
        httpx.Response(200, json=INFO),
    ]
    script = Script(lambda attempt: answers[attempt])
    await call(script, GET_INFO, GetInfoRequest("m"))
    waits = [b - a for a, b in pairwise(script.times)]
    assert waits == pytest.approx([7, 0.25])
    assert len({request.content for request in script.requests}) == 1


@pytest.mark.requirement("R57")
async def test_the_budget_ends(autojump_clock: Any) -> None:
    """After the endpoint's retries the last error is raised and tells the attempts."""
    script = Script(lambda _: httpx.Response(429, json={}))
    with pytest.raises(RateLimitError) as caught:
        await call(script, GET_INFO, GetInfoRequest("m"))
    assert caught.value.attempts == len(script.requests) == GET_INFO.retries + 1


@pytest.mark.requirement("R70")
async def test_sampling_and_telemetry_have_no_retries(autojump_clock: Any) -> None:
    """429 of a sample is the pool's business."""
    for endpoint in (ASAMPLE, TELEMETRY):
        script = Script(lambda _: httpx.Response(429, json={}))
        with pytest.raises(RateLimitError):
            await call(script, endpoint, STEP)
        assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("dedupe", "attempts"),
    [("replay", OPTIM_STEP.retries + 1), ("reject", OPTIM_STEP.retries + 1), ("none", 1), (None, 1)],
)
async def test_doubtful_sends_of_training_depend_on_the_service(
    autojump_clock: Any, dedupe: Any, attempts: int
) -> None:
    """Only a service that does not carry a repeated number out again is sent the bytes again."""
    for answer in (httpx.ReadError("lost"), httpx.Response(503, json={})):
        script = Script(lambda _, answer=answer: answer)
        with pytest.raises((APIConnectionError, InternalServerError)):
            await call(script, OPTIM_STEP, STEP, dedupe=dedupe)
        assert len(script.requests) == attempts


async def test_a_used_number_after_a_doubtful_send_was_carried_out(autojump_clock: Any) -> None:
    """A service that refuses repeated numbers says by its 409 that the first send had arrived."""
    used = httpx.Response(409, json={"detail": "Sequence conflict: expected 2, got 1"})
    script = Script(lambda attempt: httpx.ReadError("lost") if attempt == 0 else used)
    with pytest.raises(ResultLost, match="expected 2, got 1") as caught:
        await call(script, OPTIM_STEP, STEP, dedupe="reject")
    assert isinstance(caught.value.__cause__, ConflictError)
    assert caught.value.__cause__.attempts == 2
    assert caught.value.started
    assert len({request.content for request in script.requests}) == 1


async def test_a_used_number_without_a_doubtful_send_is_a_conflict(autojump_clock: Any) -> None:
    """Somebody else has used it."""
    script = Script(lambda _: httpx.Response(409, json={"detail": "Sequence conflict: expected 2, got 1"}))
    with pytest.raises(ConflictError):
        await call(script, OPTIM_STEP, STEP, dedupe="reject")


async def test_who_calls_may_know_what_became_of_the_sends(autojump_clock: Any) -> None:
    """A conflict about a name after a doubtful send says: look; a doubt stays after an answer."""
    conflict = httpx.Response(409, json={"detail": "already there"})
    script = Script(lambda attempt: httpx.ReadError("lost") if attempt == 0 else conflict)
    sends = Sends()
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        with pytest.raises(ConflictError):
            await transport.call(
                SAVE_WEIGHTS, SaveWeightsRequest(model_id="m", path="name", seq_id=3), sends=sends
            )
        assert sends.verdict == Look()
        script.answer = lambda attempt: (
            httpx.Response(503) if attempt == 2 else httpx.Response(200, json=INFO)
        )
        sends = Sends()
        await transport.call(GET_INFO, GetInfoRequest("m"), sends=sends)
        assert (sends.attempts, sends.doubtful) == (1, True)
        sends = Sends()
        script.answer = lambda _: httpx.Response(503)
        with pytest.raises(InternalServerError):
            await transport.call(OPTIM_STEP, STEP, sends=sends)
    assert sends.verdict == Stop(fence=True)


async def test_an_account_that_cannot_be_charged_pauses_the_work(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """402 is asked again every 5 s, whatever the budget, for an hour in all; a warning comes once a minute."""
    script = Script(
        lambda attempt: httpx.Response(402, json={}) if attempt < 30 else httpx.Response(200, json=INFO)
    )
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        await transport.call(GET_INFO, GetInfoRequest("m"))
        assert [b - a for a, b in pairwise(script.times)] == pytest.approx([5.0] * 30)
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
        script.answer = lambda _: httpx.Response(402, json={})
        with pytest.raises(BillingError) as caught:
            await transport.call(GET_INFO, GetInfoRequest("m"))
        assert script.times[-1] - script.times[0] == pytest.approx(3600)
        with pytest.raises(BillingError):
            await transport.call(cast("Any", ASAMPLE), STEP)  # what samples do is the pool's business
    assert caught.value.attempts == 691


async def test_a_date_in_retry_after_is_read_by_the_clock_given(autojump_clock: Any) -> None:
    """It says how long to wait."""
    later = httpx.Response(429, headers={"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, json={})
    script = Script(lambda attempt: later if attempt == 0 else httpx.Response(200, json=INFO))
    opened = open_transport(
        config(),
        rng=random.Random(0),
        through=script,
        utc_now=lambda: datetime(2026, 10, 21, 7, 28, 10, tzinfo=UTC),
    )
    async with opened as transport:
        await transport.call(GET_INFO, GetInfoRequest("m"))
    assert script.times[1] - script.times[0] == pytest.approx(20)


@pytest.mark.requirement("R54")
async def test_x_should_retry_wins(autojump_clock: Any) -> None:
    """The service's own word about trying again counts in both directions."""
    yes = httpx.Response(400, headers={"x-should-retry": "true"}, json={})
    script = Script(lambda attempt: yes if attempt == 0 else httpx.Response(200, json=INFO))
    await call(script, GET_INFO, GetInfoRequest("m"))
    assert len(script.requests) == 2
    no = httpx.Response(429, headers={"x-should-retry": "false"}, json={})
    script = Script(lambda _: no)
    with pytest.raises(RateLimitError):
        await call(script, GET_INFO, GetInfoRequest("m"))
    assert len(script.requests) == 1


@pytest.mark.requirement("R59")
@pytest.mark.parametrize(
    ("raised", "error", "doubtful"),
    [
        (httpx.ConnectError("refused"), APIConnectionError, False),
        (httpx.ConnectTimeout("slow"), APITimeoutError, False),
        (httpx.ReadError("lost"), APIConnectionError, True),
        (httpx.WriteError("lost"), APIConnectionError, True),
        (httpx.RemoteProtocolError("garbage"), APIConnectionError, True),
        (httpx.ReadTimeout("slow"), APITimeoutError, True),
    ],
)
async def test_httpx_errors_end_at_the_border(
    autojump_clock: Any, raised: Exception, error: type, doubtful: bool
) -> None:
    """Whether a byte may have been written is known; the cause is kept; the URL is named."""
    script = Script(lambda _: raised)
    with pytest.raises(error, match="http://script/base") as caught:
        await call(script, TELEMETRY, STEP)
    assert type(caught.value) is error
    assert caught.value.doubtful is doubtful
    assert caught.value.__cause__ is raised


async def test_the_whole_exchange_has_one_deadline(autojump_clock: Any) -> None:
    """A service that never answers is a timeout after the endpoint's time, and doubtful."""
    script = Script(lambda _: None)
    started = trio.current_time()
    with pytest.raises(APITimeoutError) as caught:
        await call(script, TELEMETRY, STEP)
    assert trio.current_time() - started == pytest.approx(TELEMETRY.timeout)
    assert caught.value.doubtful is True


@pytest.mark.requirement("R62")
@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"model_id": 3, "model_data": {}}'])
async def test_garbage_is_a_typed_error(body: bytes) -> None:
    """An answer that cannot be read names what is wrong and is not tried again."""
    script = Script(lambda _: httpx.Response(200, content=body))
    with pytest.raises(APIResponseValidationError) as caught:
        await call(script, GET_INFO, GetInfoRequest("m"))
    assert caught.value.problems
    assert len(script.requests) == 1


async def test_a_poll_never_raises_what_the_table_decides(autojump_clock: Any) -> None:
    """Statuses and broken connections are answers; the time it took is told."""
    answers: list[httpx.Response | Exception] = [
        httpx.Response(200, json={"type": "try_again", "request_id": "r"}),
        httpx.Response(408, json={"queue_state": "paused_capacity"}),
        httpx.Response(503, headers={"retry-after": "3"}, text="down"),
        httpx.ReadError("lost"),
        httpx.Response(200, content=b"garbage"),
    ]
    script = Script(lambda attempt: answers[attempt])
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        got = [await transport.poll(RetrieveFutureRequest("r")) for _ in answers]
    assert [answer.status for answer in got] == [200, 408, 503, None, 200]
    assert [answer.payload is None for answer in got] == [False, False, False, True, False]
    assert got[1].payload is not None
    assert got[1].payload.content == b'{"queue_state":"paused_capacity"}'
    assert isinstance(got[3].error, APIConnectionError)
    assert got[2].retry_after == 3


async def test_cancelled_callers_give_their_places_back(autojump_clock: Any) -> None:
    """However many waiters are cancelled, the lane goes on serving."""
    script = Script(lambda attempt: None if attempt < 400 else httpx.Response(200, json=INFO))
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        with trio.move_on_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(400):
                    nursery.start_soon(transport.call, GET_INFO, GetInfoRequest("m"))
        script.answer = lambda _: httpx.Response(200, json=INFO)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(transport.call, GET_INFO, GetInfoRequest("m"))


def test_the_table_names_lanes_that_exist() -> None:
    """Every endpoint's lane has connections."""
    assert {endpoint.lane for endpoint in ENDPOINTS} <= set(LANE_LIMITS)


# --- what a call may say differently -----------------------------------------------------------------------


async def calls(
    script: Script, *options: RequestOptions, endpoint: Any = GET_INFO, **settings: Any
) -> list[Any]:
    """Make a call for each of some options, over one transport."""
    async with open_transport(config(**settings), rng=random.Random(0), through=script) as transport:
        request = GetInfoRequest("m") if endpoint is GET_INFO else Empty()
        return [await transport.call(endpoint, request, options=one) for one in options]


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


@pytest.mark.requirement("R43")
async def test_every_request_tells_its_platform() -> None:
    """The six headers go with each request, that of a GET as well."""
    script = Script(lambda _: httpx.Response(200, json={"supported_models": []}))
    await calls(script, DEFAULT_OPTIONS, endpoint=CAPABILITIES)
    assert platform_headers().items() <= dict(script.requests[0].headers).items()


# --- hooks and authentication ------------------------------------------------------------------------------


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


# --- errors ------------------------------------------------------------------------------------------------


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
async def test_a_service_that_repeats_the_key_does_not_make_us_tell_it() -> None:
    """The key is masked in text, body and answer."""
    script = Script(lambda _: httpx.Response(403, json={"detail": "no such key: tml-hush"}))
    with pytest.raises(PermissionDeniedError) as caught:
        await calls(script, DEFAULT_OPTIONS, api_key="tml-hush")
    assert "hush" not in f"{caught.value} {caught.value.body} {caught.value.response.text}"  # type: ignore[attr-defined] # httpx's
    assert "***" in str(caught.value)


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


# --- answers in other shapes -------------------------------------------------------------------------------


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


async def test_an_answer_that_cannot_be_undone_is_a_typed_error() -> None:
    """On every way, and for an error's body the bytes are shown instead."""
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


# --- polls -------------------------------------------------------------------------------------------------


async def test_a_poll_says_what_it_waits_for(autojump_clock: Any) -> None:
    """The type of request, the number of the poll, and the forms of answers that are understood."""
    script = Script(lambda _: httpx.Response(200, json={}))
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        await transport.poll(
            RetrieveFutureRequest("r"), request_type="Sample", iteration=3, accept_protobuf=True
        )
        await transport.poll(RetrieveFutureRequest("r"))
        script.answer = lambda _: None
        started = trio.current_time()
        assert (await transport.poll(RetrieveFutureRequest("r"), timeout=5)).status is None
        assert trio.current_time() - started == pytest.approx(5)
    first, second, third = (request.headers for request in script.requests)
    assert first["accept"] == "application/x-protobuf, application/json"
    assert (first["x-tinker-request-type"], first["x-tinker-request-iteration"]) == ("Sample", "3")
    assert second["accept"] == "application/json"
    assert "x-tinker-request-type" not in second
    assert third["x-stainless-read-timeout"] == "5"


# --- redirects and downloads -------------------------------------------------------------------------------


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
        transport.stream(url) as pieces,
    ):
        return b"".join([piece async for piece in pieces])


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


# --- what a service says of itself -------------------------------------------------------------------------


async def test_a_note_about_the_end_of_a_call_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """As a warning, or as an error if the service says that it is one."""
    headers = {"x-deprecation-note": "use another call"}
    script = Script(lambda _: httpx.Response(200, json=INFO, headers=headers))
    await calls(script, DEFAULT_OPTIONS, DEFAULT_OPTIONS)
    headers["x-deprecation-level"] = "error"
    await calls(script, DEFAULT_OPTIONS)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "get_info: use another call"),
        ("ERROR", "get_info: use another call"),
    ]


async def test_a_form_that_is_not_taken_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 415 to a gradient request is answered with the other form, at once and from then on."""
    monkeypatch.setattr(protobuf, "MESSAGES", frozenset({GetInfoRequest}))
    monkeypatch.setattr(protobuf, "encode", lambda value: b"proto")
    answers = [415, 200, 200, 415]
    script = Script(lambda attempt: httpx.Response(answers[attempt], json=INFO))
    async with open_transport(config(), rng=random.Random(0), through=script) as transport:
        for _ in range(2):
            await transport.call(GET_INFO, GetInfoRequest("m"))
        with pytest.raises(APIStatusError, match="415"):
            await transport.call(GET_INFO, GetInfoRequest("m"))
    kinds = [request.headers["content-type"] for request in script.requests]
    assert kinds == ["application/json"] + ["application/x-protobuf"] * 3
    assert script.requests[1].content == b"proto"


async def test_forward_goes_where_gradients_go_as_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf has one message for both; long ones are compressed if the service wants that."""
    monkeypatch.setattr(protobuf, "MESSAGES", frozenset({GetInfoRequest}))
    monkeypatch.setattr(protobuf, "encode", lambda value: b"p" * 5000)
    script = Script(lambda _: httpx.Response(200, json={"request_id": "r"}))
    record = CapabilityRecord(training_body="protobuf", compression=True)
    async with open_transport(config(capability=record), rng=random.Random(0), through=script) as transport:
        await transport.call(FORWARD, GetInfoRequest("m"))
    (request,) = script.requests
    assert request.url.path == "/base/api/v1/forward_backward"
    assert request.headers["content-encoding"] == "zstd"
    assert decompress(request.content, "zstd", limit=10_000) == b"p" * 5000


# --- both ways ---------------------------------------------------------------------------------------------


async def _nothing(request: httpx.Request) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
async def test_both_ways_carry_the_same_request(endpoint: Any) -> None:
    """A hook sends a call by httpx's client; method, address, headers and body are as without."""
    sent = []
    for settings in ({}, {"hooks": Hooks(prepare_request=_nothing)}):
        script = Script(lambda _: httpx.Response(200, json={}))
        request = Empty() if endpoint.request is Empty else {"a": 1}
        path = dict.fromkeys(endpoint.places, "weights/1")
        path = {name: "weights/1" if name == "checkpoint_id" else "id" for name in path}
        async with open_transport(config(**settings), rng=random.Random(0), through=script) as transport:
            options = RequestOptions(cast_to=object)
            await transport.call(endpoint, request, path=path, options=options)
        (one,) = script.requests
        sent.append((one.method, one.url.raw_path, one.headers.raw, one.content))
    assert sent[0] == sent[1]
    assert sent[0][0] == endpoint.method
