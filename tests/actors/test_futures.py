"""The FuturesActor: queues, large results, deadlines, bills, dialects."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    APIConnectionError,
    APITimeoutError,
    BillingError,
    ConflictError,
    RequestFailedError,
    UnobservedFailure,
)
from tinker_actors.events import QueueChange, QueueState, WaitEnded, Waiting
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.types import AdamParams, ModelInput, SamplingParams

MODEL = "tinker-actors/char-100k"
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)
TRY_AGAIN = {"type": "try_again", "request_id": "x", "queue_state": "active"}


def scripted(stub: Any, maker: str, *answers: Any) -> None:
    """Answer the first polls of one kind of promise with these; after them comes the result."""
    left = list(answers)

    def rule(body: dict[str, Any], _: int) -> httpx.Response | None:
        if not left or not body["request_id"].startswith(maker):
            return None
        answer = left.pop(0)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    stub.rules["retrieve_future"] = rule


def polls(stub: Any, maker: str) -> list[dict[str, Any]]:
    return [body for body in stub.bodies("retrieve_future") if body["request_id"].startswith(maker)]


@pytest.mark.requirement("R15")
async def test_polls_say_what_they_ask_for_and_how_often(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The kind of the request and the number of the poll are in the headers; protobuf is taken where it exists."""
    scripted(stub, "forward_backward", TRY_AGAIN, TRY_AGAIN)
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.forward_backward(batch(), "cross_entropy"))
        await (await training.optim_step(AdamParams()))
        sampling = await service.create_sampling_client(base_model=MODEL)
        await sampling.sample(PROMPT, 1, PARAMS)
    seen = [
        (headers["x-tinker-request-type"], headers["x-tinker-request-iteration"], headers["accept"])
        for (name, _), headers in zip(stub.log, stub.headers, strict=True)
        if name == "retrieve_future"
    ]
    both = "application/x-protobuf, application/json"
    assert seen == [
        ("CreateModel", "0", "application/json"),
        ("ForwardBackward", "0", both),
        ("ForwardBackward", "1", both),
        ("ForwardBackward", "2", both),
        ("OptimStep", "0", "application/json"),
        ("Sample", "0", both),
    ]


@pytest.mark.requirement("R100", "R151")
@pytest.mark.lesson("D41")
async def test_a_pause_is_an_event_and_so_is_its_end(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Each once, with the reason and how long it was."""

    def pause(seconds: float) -> dict[str, Any]:
        return TRY_AGAIN | {"queue_state": "paused_capacity", "queue_state_reason": "no room"}

    scripted(stub, "optim_step", pause(1), pause(1), TRY_AGAIN, pause(1))
    async with open_stub() as service:
        events = service.ref.subscribe(QueueChange)
        training = await service.create_lora_training_client(MODEL)
        await (await training.optim_step(AdamParams()))
        seen: list[Any] = []
        with pytest.raises(trio.WouldBlock):
            while True:
                seen.append(events.receive_nowait())
    model = stub.bodies("optim_step")[0]["model_id"]
    about: Any = pytest.approx
    assert seen == [
        QueueChange(model, "paused_capacity", "no room", "active", 0.0, "optim_step#0"),
        QueueChange(model, "active", "", "paused_capacity", about(0.1), "optim_step#0"),
        QueueChange(model, "paused_capacity", "no room", "active", 0.0, "optim_step#0"),
        QueueChange(model, "active", "", "paused_capacity", about(0.05), "optim_step#0"),
    ]


@pytest.mark.requirement("R102")
@pytest.mark.lesson("D41")
async def test_paused_samples_are_logged_before_anything_fails(
    autojump_clock: Any, open_stub: Any, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for all who wait, with the reason."""
    rate = TRY_AGAIN | {"queue_state": "paused_rate_limit"}
    scripted(stub, "asample", *[rate] * 12)
    with caplog.at_level(logging.WARNING, "tinker_actors.futures"):
        async with open_stub() as service, trio.open_nursery() as nursery:
            sampling = await service.create_sampling_client(base_model=MODEL)
            for _ in range(4):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
    assert caplog.messages == [
        "Sampling for s0:sample:0 is paused. Reason: concurrent sampler weights limit hit",
        "Sampling for s0:sample:0 goes on after 0 s",
    ]


@pytest.mark.lesson("D59")
async def test_large_results_wait_for_room(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """A service that answers with the size first is asked for the result when there is room; room comes back."""
    fetching: list[float] = []

    def rule(body: dict[str, Any], _: int) -> httpx.Response | None:
        if not body["request_id"].startswith("asample"):
            return None
        if body.get("allow_metadata_only"):
            size = {"status": "complete_metadata", "response_payload_size": 40 * 2**20}
            return httpx.Response(200, json=size)
        fetching.append(trio.current_time())
        return None

    stub.rules["retrieve_future"] = rule
    stub.held["asample"] = trio.Event()
    async with open_stub(capability=CapabilityRecord(newer_fields=True)) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            await trio.sleep(1)
            assert len(fetching) == 2  # the second one stands beyond the budget
            stub.held["asample"].set()
    assert len(fetching) == 3
    flags = [bool(body.get("allow_metadata_only")) for body in polls(stub, "asample")]
    assert sorted(flags) == [False] * 3 + [True] * 3


async def test_a_service_that_is_not_known_is_not_asked_for_sizes(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Strict ones refuse a field they do not know."""
    async with open_stub(capability=CapabilityRecord()) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        await sampling.sample(PROMPT, 1, PARAMS)
    assert not any(body.get("allow_metadata_only") for body in polls(stub, "asample"))


@pytest.mark.requirement("R108")
async def test_endless_waiting_may_have_an_end(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """`promise_timeout` seconds after the promise, with the service's last word; other promises go on."""
    word = TRY_AGAIN | {"queue_state": "paused_capacity", "queue_state_reason": "full"}
    stub.results["asample#0"] = word
    async with open_stub(promise_timeout=90.0) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        started = trio.current_time()
        with pytest.raises(
            APITimeoutError, match=r"asample#0: no result within 90 s.*paused_capacity \(full\)"
        ):
            await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(90)
        await sampling.sample(PROMPT, 1, PARAMS)


@pytest.mark.requirement("R100")
@pytest.mark.lesson("D54")
async def test_a_service_that_does_not_hold_is_not_asked_without_a_pause(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """At most twenty polls a second."""
    stub.results["asample#0"] = TRY_AGAIN
    async with open_stub(promise_timeout=10.0) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(APITimeoutError):
            await sampling.sample(PROMPT, 1, PARAMS)
    assert len(polls(stub, "asample")) == pytest.approx(200, abs=2)


async def test_an_unpaid_account_pauses_polls_until_the_window_is_over(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Five seconds each; then the 402 is the outcome."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(
        200, json={"billing_exception_max_pause_duration_sec": 60}
    )
    scripted(stub, "asample", *[httpx.Response(402, json={"detail": "no money"})] * 3)
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        started = trio.current_time()
        await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(15)
        scripted(stub, "asample", *[httpx.Response(402, json={"detail": "no money"})] * 99)
        with pytest.raises(BillingError, match="no money"):
            await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(60, abs=6)


async def test_a_refused_poll_of_a_sample_holds_other_samples_back(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """The clock is one for submissions and polls."""
    scripted(stub, "asample", httpx.Response(429, headers={"retry-after": "20"}, json={}))
    async with open_stub() as service, trio.open_nursery() as nursery:
        sampling = await service.create_sampling_client(base_model=MODEL)
        started = trio.current_time()
        nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        await trio.sleep(1)
        await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(20)


@pytest.mark.requirement("R132")
async def test_samples_that_make_no_progress_are_given_up(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """When none has ended for two hours; one that ends in between starts the time anew."""
    stub.rules["retrieve_future"] = lambda body, _: (
        httpx.Response(503) if body["request_id"] == "asample#0" else None
    )
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        started = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def stuck() -> None:
                with pytest.raises(APIConnectionError, match=r"No progress made in 7200s"):
                    await sampling.sample(PROMPT, 1, PARAMS)

            nursery.start_soon(stuck)
            await trio.sleep(3600)
            await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(10_800, abs=60)


DIALECTS = {
    "409": (httpx.Response(409, json={"detail": "expected 7, got 6"}), ConflictError),
    "message": (
        httpx.Response(400, json={"type": "RequestFailedResponse", "error_message": "no"}),
        RequestFailedError,
    ),
    "user": (httpx.Response(200, json={"error": "no", "category": "User"}), RequestFailedError),
}


@pytest.mark.requirement("R76")
@pytest.mark.parametrize("name", DIALECTS)
async def test_a_failed_request_reaches_who_waits_once(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, name: str
) -> None:
    """In every dialect; who awaits it has it, and leaving the service does not tell it again."""
    answer, kind = DIALECTS[name]
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        stub.results["forward#0"] = answer
        pending = await training.forward(batch(), "cross_entropy")
        with pytest.raises(kind) as caught:
            await pending
        assert "forward#0" in str(caught.value)
        await training.save_state("b")


@pytest.mark.requirement("R76")
async def test_a_failure_nobody_awaits_is_told_by_the_next_operation(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Once: the operation after it goes out."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        stub.results["forward#0"] = {"error": "no disk", "category": "server"}
        await training.forward(batch(), "cross_entropy")
        await trio.sleep(1)
        with pytest.raises(UnobservedFailure, match="no disk"):
            await training.save_state("b")
        await training.save_state("c")


class Observer:
    """Writes down what it is told, and may fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self.fails = fails

    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        self.seen.append((queue_state.value, queue_state_reason))
        if self.fails:
            raise ValueError("mine")


def paused(state: str, reason: str | None = None) -> dict[str, Any]:
    return TRY_AGAIN | {"queue_state": state, "queue_state_reason": reason}


@pytest.mark.requirement("R101")
async def test_observers_are_told_each_change_once_and_may_fail(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Of one client or of all, until the block ends; one that raises breaks no poll and no other observer."""
    room = [paused("paused_capacity", "no room")] * 3
    scripted(
        stub, "optim_step", *room, paused("paused_capacity", "still none"), paused("paused_odd"), TRY_AGAIN
    )
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        other = await service.create_lora_training_client(MODEL)
        failing, mine, others, over = Observer(fails=True), Observer(), Observer(), Observer()
        with service.ref.observe_queues(over):
            pass
        with (
            service.ref.observe_queues(failing),
            service.ref.observe_queues(mine, of=training),
            service.ref.observe_queues(others, of=other),
        ):
            await (await training.optim_step(AdamParams()))
    assert mine.seen == [
        ("paused_capacity", "no room"),
        ("paused_capacity", "still none"),
        ("unknown", "unknown"),
        ("active", None),
    ]
    assert failing.seen == mine.seen
    assert (others.seen, over.seen) == ([], [])


async def test_samplers_have_observers_of_their_own(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """By the sampling session; all samples of it are one queue."""
    scripted(stub, "asample", *[paused("paused_rate_limit", "too many")] * 4)
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        another = await service.create_sampling_client(base_model=MODEL)
        mine, others = Observer(), Observer()
        with (
            service.ref.observe_queues(mine, of=sampling),
            service.ref.observe_queues(others, of=another),
        ):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
    assert mine.seen == [("paused_rate_limit", "too many"), ("active", None)]
    assert others.seen == []


async def test_who_waits_for_what_can_be_seen(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Subject, work, promise, since when, the queue and why; the oldest first, and nothing once it is over."""
    stub.results["optim_step#0"] = paused("paused_capacity", "no room")
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        sampling = await service.create_sampling_client(base_model=MODEL)
        assert service.waits() == []
        pending = await training.optim_step(AdamParams())
        await trio.sleep(2)
        stub.held["asample"] = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            await trio.sleep(1)
            step, samples = service.waits()
            assert (step.subject, step.what, step.request_id, step.count) == (
                training.model_id,
                "OptimStep",
                "optim_step#0",
                1,
            )
            assert (step.state, step.reason) == ("paused_capacity", "no room")
            assert step.seconds == pytest.approx(3, abs=0.1)
            assert (samples.what, samples.count, samples.state, samples.reason) == ("Sample", 3, "active", "")
            stub.held["asample"].set()
        stub.results["optim_step#0"] = {"metrics": {}}
        await pending
        assert service.waits() == []


async def test_samples_that_stand_in_our_own_line_are_seen(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """After a refusal, with the reason; they are no news, and gone when they are sent."""
    refusals = [httpx.Response(429, headers={"retry-after": "30"}, json={})]
    stub.rules["asample"] = lambda *_: refusals.pop() if refusals else None
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
                await trio.sleep(1)
            rows = [(seen.what, seen.state, seen.reason) for seen in service.waits()]
            assert ("room for a sample", "held_back", "the service has refused samples") in rows
        assert service.waits() == []


async def test_why_there_is_no_answer_is_seen_as_well(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """A service that answers 503 is a reason to wait, until it answers otherwise."""
    stub.rules["retrieve_future"] = lambda body, _: (
        httpx.Response(503) if body["request_id"] == "asample#0" else None
    )
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            await trio.sleep(4)
            (seen,) = service.waits()
            assert (seen.state, seen.reason) == ("active", "status 503")
            stub.rules.clear()


async def test_a_long_wait_is_told_at_both_ends(
    autojump_clock: Any, open_stub: Any, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A model that takes minutes to make: after one, again when that has doubled, and when it is there."""
    stub.held["create_model"] = trio.Event()
    with caplog.at_level(logging.WARNING, "tinker_actors.service"):
        async with open_stub() as service, trio.open_nursery() as nursery:
            events = service.ref.subscribe(Waiting, WaitEnded)
            nursery.start_soon(service.create_lora_training_client, MODEL)
            await trio.sleep(200)
            stub.held["create_model"].set()
    seen = [event async for event in events]
    assert [type(event).__name__ for event in seen] == ["Waiting", "Waiting", "WaitEnded"]
    assert [event.seconds for event in seen] == [
        pytest.approx(60, abs=10),
        pytest.approx(120, abs=10),
        pytest.approx(200, abs=1),
    ]
    assert {(event.subject, event.what, event.request_id) for event in seen} == {
        ("s0", "CreateModel", "create_model#0")
    }
    assert caplog.messages == [str(event) for event in seen]


async def test_a_send_that_hangs_is_seen_and_told(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Also before the service has promised anything; whatever is done about it."""
    stub.gates["optim_step"] = trio.Event()
    async with open_stub() as service:
        events = service.ref.subscribe(Waiting, WaitEnded)
        training = await service.create_lora_training_client(MODEL)
        pending = await training.optim_step(AdamParams())
        await trio.sleep(30)
        (seen,) = service.waits()
        assert (seen.subject, seen.what) == (training.model_id, "sending OptimStep")
        await trio.sleep(50)
        stub.gates["optim_step"].set()
        await pending
    seen_events = [event async for event in events]
    assert [type(event).__name__ for event in seen_events] == ["Waiting", "WaitEnded"]
    assert {event.what for event in seen_events} == {"sending OptimStep"}


async def test_a_service_that_is_away_is_among_the_waits(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """For as long as it is; what waits for it is not lost."""

    def refuse(*_: Any) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with open_stub() as service, trio.open_nursery() as nursery:
        stub.rules["healthz"] = refuse
        cause = APIConnectionError("refused", doubtful=False)
        nursery.start_soon(service._tree.session.reachability.wait, cause)
        await trio.sleep(5)
        (seen,) = service.waits()
        assert (seen.subject, seen.what, seen.state) == ("http://stub", "server", "WAITING_SERVER")
        assert seen.seconds == pytest.approx(5)
        stub.rules.clear()
        await trio.sleep(60)
        assert service.waits() == []
