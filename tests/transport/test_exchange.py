"""One logical call: what goes out, retries, deadlines, cancellation, polls, and both ways."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, cast

import httpx
import pytest
import trio

from tests.transport.script import INFO, STEP, Script, call, calls, config
from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BillingError,
    ConflictError,
    InternalServerError,
    RateLimitError,
    ResultLost,
)
from tinker_actors.protocol.retry import Look, Sends, Stop
from tinker_actors.transport.lanes import LANE_LIMITS
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.options import DEFAULT_OPTIONS, Hooks, RequestOptions
from tinker_actors.wire.endpoints import (
    ASAMPLE,
    CAPABILITIES,
    ENDPOINTS,
    FINISH_SESSION,
    GET_INFO,
    OPTIM_STEP,
    SAVE_WEIGHTS,
    TELEMETRY,
)
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.model import GetInfoRequest
from tinker_actors.wire.service import Empty
from tinker_actors.wire.session import FinishReason, FinishSessionRequest
from tinker_actors.wire.weights import SaveWeightsRequest


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


@pytest.mark.lesson("L15")
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


@pytest.mark.parametrize(
    ("answer", "attempts"),
    [
        (httpx.Response(400), 2),
        (httpx.Response(400, headers={"content-length": "0"}), 2),
        (httpx.Response(400, headers={"x-should-retry": "false"}), 1),
        (httpx.Response(400, json={}), 1),
        (httpx.Response(400, text="bad"), 1),
        (httpx.Response(404), 1),
    ],
    ids=["empty", "empty-and-says-so", "final", "json", "text", "404"],
)
async def test_a_400_without_a_body_is_no_word_of_the_services(
    autojump_clock: Any, answer: httpx.Response, attempts: int
) -> None:
    """What stands before the service turned the request away: a step is sent again, under its number."""
    promise = httpx.Response(200, json={"request_id": "r"})
    script = Script(lambda attempt: answer if attempt == 0 else promise)
    with contextlib.nullcontext() if attempts == 2 else pytest.raises(APIStatusError) as caught:
        await call(script, OPTIM_STEP, STEP)
    assert len(script.requests) == attempts
    assert len({request.content for request in script.requests}) == 1
    if caught is not None:
        assert caught.value.status_code == answer.status_code


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


@pytest.mark.lesson("L30")
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
