"""When samples are drawn anew: every field of a RetryConfig has its effect, and silence is told of."""

from __future__ import annotations

import itertools
from typing import Any

import httpx
import pytest
import trio

from tinker_actors.actors.message import Sample
from tinker_actors.errors import (
    APIConnectionError,
    APIStatusError,
    BadRequestError,
    InputError,
    InternalServerError,
    RetryableException,
    SessionGoneError,
)
from tinker_actors.protocol.event import SamplingSlow, ServerBack, ServerUnreachable
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.transport.options import Hooks
from tinker_actors.types import ModelInput, SamplingParams

MODEL = "tinker-actors/char-100k"
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)
GONE = httpx.Response(410, json={"detail": "broken"})


def numbers(stub: Any) -> list[int]:
    return [body["seq_id"] for body in stub.bodies("asample")]


@pytest.mark.lesson("D11")
async def test_attempts_are_not_counted(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """A service that fails fifty times is asked a fifty-first time, with the same number."""
    stub.rules["asample"] = lambda _, count: httpx.Response(503) if count < 50 else None
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        await sampling.sample(PROMPT, 1, PARAMS)
    assert numbers(stub) == [0] * 51


async def test_lost_promises_are_not_counted_either(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Each new one has a new number."""
    for number in range(12):
        stub.results[f"asample#{number}"] = GONE
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        await sampling.sample(PROMPT, 1, PARAMS)
    assert numbers(stub) == list(range(13))


@pytest.mark.requirement("R131")
@pytest.mark.parametrize("where", ["submit", "poll", "connection"])
async def test_without_retries_the_first_error_surfaces(
    autojump_clock: Any, open_stub: Any, stub: Any, where: str
) -> None:
    """Wherever it comes from; other clients of the service go on as they were set."""

    def rule(_: dict[str, Any], count: int) -> httpx.Response | None:
        if count == 0 and where == "connection":
            raise httpx.ConnectError("no")
        return httpx.Response(500) if count == 0 and where == "submit" else None

    stub.rules["asample"] = rule
    if where == "poll":
        stub.results["asample#0"] = GONE
    errors = {"submit": InternalServerError, "poll": SessionGoneError, "connection": APIConnectionError}
    async with open_stub() as service:
        proud = await service.create_sampling_client(
            base_model=MODEL, retry_config=RetryConfig(enable_retry_logic=False)
        )
        with pytest.raises(errors[where]):
            await proud.sample(PROMPT, 1, PARAMS)
        await proud.sample(PROMPT, 1, PARAMS)
    assert numbers(stub) == [0, 1]


async def test_a_refusal_for_the_moment_is_no_failure(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """A 429 is waited out, a second each, also by clients without retries; the number stays."""
    stub.rules["asample"] = lambda _, count: httpx.Response(429, json={}) if count < 2 else None
    async with open_stub() as service:
        sampling = await service.create_sampling_client(
            base_model=MODEL, retry_config=RetryConfig(enable_retry_logic=False)
        )
        started = trio.current_time()
        await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(2)
    assert numbers(stub) == [0, 0, 0]


@pytest.mark.requirement("R133")
async def test_delays_are_the_clients(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Doubled from the first to the longest, without jitter if there is to be none; by default half a second to ten."""
    times: list[float] = []

    def rule(_: dict[str, Any], count: int) -> httpx.Response | None:
        times.append(trio.current_time())
        return httpx.Response(503) if count % 7 < 6 else None

    stub.rules["asample"] = rule
    exact = RetryConfig(retry_delay_base=1.0, retry_delay_max=4.0, jitter_factor=0.0)
    async with open_stub() as service:
        for config in (exact, None):
            sampling = await service.create_sampling_client(base_model=MODEL, retry_config=config)
            await sampling.sample(PROMPT, 1, PARAMS)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[:6] == pytest.approx([1, 2, 4, 4, 4, 4])
    for pause, full in zip(pauses[7:], [0.5, 1, 2, 4, 8, 10], strict=True):
        assert 0.75 * full <= pause <= min(10, 1.25 * full)
    assert len(set(pauses[7:])) == 6


class MyError(Exception):
    """Of a user's own hook."""


async def test_errors_of_the_users_own_can_be_retried(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """What is named is tried again, RetryableException always; what is the user's fault never is."""
    troubles: list[Exception] = [MyError("1"), RetryableException("2"), MyError("3")]

    async def prepare(request: httpx.Request) -> None:
        await trio.lowlevel.checkpoint()
        if request.url.path.endswith("asample") and troubles:
            raise troubles.pop(0)

    config = RetryConfig(retryable_exceptions=(MyError, APIStatusError))
    async with open_stub(hooks=Hooks(prepare_request=prepare)) as service:
        sampling = await service.create_sampling_client(base_model=MODEL, retry_config=config)
        await sampling.sample(PROMPT, 1, PARAMS)
        assert not troubles
        stub.rules["asample"] = lambda _, __: httpx.Response(400, json={"detail": "no"})
        with pytest.raises(BadRequestError):
            await sampling.sample(PROMPT, 1, PARAMS)
    assert numbers(stub) == [0, 1]


async def test_a_policy_that_is_none_is_refused(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Before anything is sent."""
    async with open_stub() as service:
        with pytest.raises(InputError) as caught:
            await service.create_sampling_client(base_model=MODEL, retry_config={"progress_timeout": 3})
        assert caught.value.field == "retry_config"
    assert "create_sampling_session" not in stub.names()


@pytest.mark.requirement("R127")
async def test_a_client_may_have_fewer_in_flight_than_the_service(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Its own limit holds nobody else back, and holds on both lanes together."""
    stub.held["asample"] = trio.Event()
    async with open_stub() as service, trio.open_nursery() as nursery:
        narrow = await service.create_sampling_client(
            base_model=MODEL, retry_config=RetryConfig(max_connections=3)
        )
        for _ in range(10):
            nursery.start_soon(narrow.sample, PROMPT, 1, PARAMS)
            nursery.start_soon(narrow.evaluation().sample, PROMPT, 1, PARAMS)
        wide = await service.create_sampling_client(base_model=MODEL)
        for _ in range(10):
            nursery.start_soon(wide.sample, PROMPT, 1, PARAMS)
        await trio.sleep(1)
        sent = [body["sampling_session_id"] for body in stub.bodies("asample")]
        assert (sent.count("s0:sample:0"), sent.count("s0:sample:1")) == (3, 10)
        stub.held["asample"].set()
    assert len(stub.bodies("asample")) == 30


# --- silence ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("R132")
@pytest.mark.parametrize("together", [False, True])
async def test_each_client_has_a_patience_of_its_own(
    autojump_clock: Any, open_stub: Any, stub: Any, together: bool
) -> None:
    """One is stuck after a minute, another never; that samples of the other end does not help the first."""
    flowing = ModelInput.from_ints([7])

    def submit(body: dict[str, Any], count: int) -> httpx.Response:
        name = "fast" if body["prompt"]["chunks"][0]["tokens"] == [7] else "slow"
        return httpx.Response(200, json=stub.promise(f"{name}#{count}", stub._result("asample", body)))

    async def polls(body: dict[str, Any]) -> httpx.Response:
        await trio.sleep(20)
        fast = [one for one in stub.results if one.startswith("fast")]
        cursor = body.get("prev_cursor", 0)
        news = [{"state": "finished", "request_id": one} for one in fast[cursor:]]
        return httpx.Response(200, json={"completions": news, "cursor": len(fast)})

    inner = stub._answer

    async def answer(name: str, body: dict[str, Any], count: int) -> httpx.Response:
        if name == "retrieve_futures":
            return await polls(body)
        if name == "retrieve_future" and body["request_id"].startswith("slow") and not released:
            await trio.sleep(20)
            return httpx.Response(408, json={})
        response: httpx.Response = await inner(name, body, count)
        return response

    stub._answer = answer
    stub.rules["asample"] = submit
    released: list[bool] = []
    async with open_stub(batch_polls=together) as service, trio.open_nursery() as nursery:
        hasty = await service.create_sampling_client(
            base_model=MODEL, retry_config=RetryConfig(progress_timeout=60)
        )
        patient = await service.create_sampling_client(
            base_model=MODEL, retry_config=RetryConfig(progress_timeout=60, enable_stuck_detection=False)
        )
        ended: list[float] = []

        async def stuck() -> None:
            with pytest.raises(APIConnectionError, match="No progress made in 60s"):
                await hasty.sample(PROMPT, 1, PARAMS)
            ended.append(trio.current_time() - started)

        started = trio.current_time()
        for _ in range(3):
            nursery.start_soon(stuck)
        waits = trio.CancelScope()

        async def wait() -> None:
            with waits:
                await patient.sample(PROMPT, 1, PARAMS)

        nursery.start_soon(wait)
        for _ in range(4):
            await patient.sample(flowing, 1, PARAMS)
            await trio.sleep(30)
        assert ended == pytest.approx([60, 60, 60], abs=21)
        await hasty.sample(flowing, 1, PARAMS)  # what comes later has its own time
        await trio.sleep(20_000)
        assert waits.cancelled_caught is False
        released.append(True)
        waits.cancel()


async def test_a_retry_without_progress_has_an_end(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Failures that are tried again are no progress; the last of them is the cause."""
    stub.rules["asample"] = lambda _, __: httpx.Response(503)
    async with open_stub() as service:
        sampling = await service.create_sampling_client(
            base_model=MODEL, retry_config=RetryConfig(progress_timeout=1000)
        )
        started = trio.current_time()
        with pytest.raises(APIConnectionError, match="No progress made in 1000s") as caught:
            await sampling.sample(PROMPT, 1, PARAMS)
        assert isinstance(caught.value.__cause__, InternalServerError)
        assert trio.current_time() - started == pytest.approx(1000, abs=60)


async def test_silence_is_told_of_long_before_the_end(
    autojump_clock: Any, open_stub: Any, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """After five minutes, ten, twenty, with how many wait and what the service said last."""
    paused = {"type": "try_again", "queue_state": "paused_capacity", "queue_state_reason": "busy"}
    inner = stub._answer

    async def answer(name: str, body: dict[str, Any], count: int) -> httpx.Response:
        if name == "retrieve_future" and trio.current_time() - started < 1500:
            await trio.sleep(30)
            return httpx.Response(200, json=paused)
        response: httpx.Response = await inner(name, body, count)
        return response

    stub._answer = answer
    started = trio.current_time()
    async with open_stub() as service:
        slow = service.ref.subscribe(SamplingSlow)
        sampling = await service.create_sampling_client(base_model=MODEL)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        told = [slow.receive_nowait() for _ in range(3)]
        with pytest.raises(trio.WouldBlock):
            slow.receive_nowait()
    assert [event.seconds for event in told] == pytest.approx([300, 600, 1200], abs=31)
    assert {event.waiting for event in told} == {4}
    assert {event.sampling_session_id for event in told} == {"s0:sample:0"}
    assert "paused_capacity (busy)" in told[0].why
    assert "no sample of s0:sample:0 has ended for 300 s; 4 wait" in caplog.text


async def test_an_absent_service_is_waited_for(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """For five hours: it is no silence of the samples, and one of them knows when it is back."""

    def away(_: dict[str, Any], __: int) -> None:
        if trio.current_time() - started < 18_000:
            raise httpx.ConnectError("no")

    async with open_stub() as service:
        events = service.ref.subscribe(ServerUnreachable, ServerBack)
        sampling = await service.create_sampling_client(base_model=MODEL)
        started = trio.current_time()
        stub.rules["asample"] = stub.rules["healthz"] = away
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        assert isinstance(events.receive_nowait(), ServerUnreachable)
        assert isinstance(events.receive_nowait(), ServerBack)
        assert 18_000 <= trio.current_time() - started <= 18_100
    assert len(stub.bodies("asample")) <= 20


async def test_a_message_brings_its_own_policy(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Who sends messages himself is no worse off; without one it is as the service says."""
    stub.results["asample#0"] = GONE
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        message = Sample(
            target=sampling.target,
            prompt=PROMPT,
            num_samples=1,
            sampling_params=PARAMS,
            retry_config=RetryConfig(enable_retry_logic=False),
        )
        with pytest.raises(SessionGoneError):
            await sampling.ref.ask(message)
