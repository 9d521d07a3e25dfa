"""Samples that are waited for together, and samples that nobody waits for any more."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from tinker_actors.errors import CredentialError, RequestFailedError, TinkerError
from tinker_actors.protocol.event import ActorFailed
from tinker_actors.types import ModelInput, SamplingParams

MODEL = "tinker-actors/char-100k"
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)


class Together:
    """A service that tells by one poll which samples have ended.

    Attributes:
        ended: request ids in the order in which the samples ended.
        polls: (cursor, retrieved, waits) of each poll.
        fails: what the next polls are answered with in place of completions.
        gives: results are given when they are asked for.
    """

    def __init__(self, stub: Any, *, hold: float = 30.0) -> None:
        self.stub = stub
        self.hold = hold
        self.ended: list[str] = []
        self.polls: list[tuple[int, list[str], bool]] = []
        self.fails: list[httpx.Response] = []
        self.changed = trio.Event()
        self.gives = True
        inner = stub._answer

        async def answer(name: str, body: dict[str, Any], count: int) -> httpx.Response:
            if name == "retrieve_futures":
                return await self.poll(body)
            if name == "retrieve_future" and not self.gives:
                await trio.sleep_forever()
            response: httpx.Response = await inner(name, body, count)
            return response

        stub._answer = answer

    def end(self, *request_ids: str) -> None:
        self.ended += request_ids
        self.changed.set()
        self.changed = trio.Event()

    async def poll(self, body: dict[str, Any]) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        assert body["target"]["type"] == "sampling_session"
        cursor, waits = body["prev_cursor"], body.get("timeout") != 0
        self.polls.append((cursor, body["retrieved_request_ids"], waits))
        if self.fails:
            return self.fails.pop(0)
        if waits and cursor == len(self.ended):
            with trio.move_on_after(self.hold):
                await self.changed.wait()
        news = [
            {"state": "finished", "request_id": one, "response_payload_uncompressed_size": 9}
            for one in self.ended[cursor:]
        ]
        return httpx.Response(200, json={"completions": news, "cursor": len(self.ended)})


async def test_one_poll_waits_for_all_samples_of_a_session(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Results are fetched when they are there, and told as fetched; the last poll acknowledges."""
    together = Together(stub)
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            await trio.sleep(1)
            assert stub.active["retrieve_futures"] == 1
            assert "asample#0" not in [body["request_id"] for body in stub.bodies("retrieve_future")]
            together.end("asample#1")
            await trio.sleep(1)
            together.end("asample#0", "asample#2")
        await trio.sleep(1)
    assert together.polls[0] == (0, [], True)
    assert together.polls[1][0] == 1
    told = [name for _, retrieved, _ in together.polls for name in retrieved]
    assert sorted(told) == ["asample#0", "asample#1", "asample#2"]
    assert together.polls[-1][0] == 3
    fetched = [
        body["request_id"] for body in stub.bodies("retrieve_future") if "asample" in body["request_id"]
    ]
    assert sorted(fetched) == ["asample#0", "asample#1", "asample#2"]


async def test_a_service_that_does_not_hold_polls_is_not_hammered(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """As with polls of one promise, there are at most 20 a second."""
    together = Together(stub, hold=0.001)
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            await trio.sleep(1)
            assert 15 <= len(together.polls) <= 21
            together.end("asample#0")


async def test_it_is_off_unless_the_service_says_so(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """The flag switches it on, and the setting off again."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(
        200, json={"sample_use_retrieve_futures": True}
    )
    together = Together(stub)
    together.end("asample#0")
    async with open_stub() as service:
        await (await service.create_sampling_client(base_model=MODEL)).sample(PROMPT, 1, PARAMS)
    assert together.polls
    together.polls.clear()
    async with open_stub(batch_polls=False) as service:
        await (await service.create_sampling_client(base_model=MODEL)).sample(PROMPT, 1, PARAMS)
    assert not together.polls


@pytest.mark.requirement("R99")
async def test_a_new_word_for_a_state_fails_nobody(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Its sample is asked for, and all others of the same answer have their results."""
    news = [
        {"state": "finished", "request_id": "asample#0"},
        {"state": "moved_on", "request_id": "asample#1"},
        {"state": "resting"},
    ]
    stub.rules["retrieve_futures"] = lambda _, __: httpx.Response(
        200, json={"completions": news, "cursor": 3}
    )
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)


async def test_a_service_without_the_call_is_polled_sample_by_sample(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Its 404 is no failure."""
    stub.rules["retrieve_futures"] = lambda _, __: httpx.Response(404, json={"detail": "Not Found"})
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        for _ in range(3):
            await sampling.sample(PROMPT, 1, PARAMS)
    assert stub.names().count("retrieve_futures") == 1


async def test_trouble_of_the_poll_is_waited_out(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Broken connections, 5xx, 429, an unpaid account, a few bad requests."""
    together = Together(stub)
    together.fails = [httpx.Response(status, json={}) for status in (503, 429, 402, 400, 400, 400)]
    together.end("asample#0")
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        started = trio.current_time()
        await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(10)


@pytest.mark.requirement("R76")
async def test_a_failed_poll_fails_all_who_wait_and_who_come(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """With the reason; nothing hangs."""
    together = Together(stub)
    together.fails = [httpx.Response(403, json={"detail": "not yours"})]
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        for _ in range(2):
            with pytest.raises(TinkerError, match=r"retrieve_futures.*not yours"):
                await sampling.sample(PROMPT, 1, PARAMS)
    assert len(together.polls) == 1


async def test_a_failed_sample_is_fetched_like_a_result(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Its error reaches the caller, and the service may forget it."""
    together = Together(stub)
    together.end("asample#0")
    stub.results["asample#0"] = {"error": "bad prompt", "category": "user"}
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(RequestFailedError, match="bad prompt"):
            await sampling.sample(PROMPT, 1, PARAMS)
        await trio.sleep(1)
    assert ["asample#0"] in [retrieved for _, retrieved, _ in together.polls]


async def test_a_caller_that_leaves_is_forgotten(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """What its sample comes to is told as fetched, and the poll goes on for the others."""
    together = Together(stub)
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with trio.move_on_after(1):
            await sampling.sample(PROMPT, 1, PARAMS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            await trio.sleep(1)
            together.end("asample#0", "asample#1")
        await trio.sleep(1)
    told = {name for _, retrieved, _ in together.polls for name in retrieved}
    assert told == {"asample#0", "asample#1"}


async def test_a_caller_that_leaves_its_result_half_way_is_forgotten(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A result that is on its way when its caller leaves is told as fetched: the service need not keep it."""
    together = Together(stub)
    together.gives = False
    together.end("asample#0")
    async with open_stub(batch_polls=True) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with trio.move_on_after(1):
            await sampling.sample(PROMPT, 1, PARAMS)
        await trio.sleep(1)
    assert ["asample#0"] in [retrieved for _, retrieved, _ in together.polls]


async def test_after_a_crash_samples_are_waited_for_alone(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A completion that was read before the crash does not come again."""
    together = Together(stub)
    crashes = ["asample#1"]

    def rule(body: dict[str, Any], _: int) -> None:
        if body["request_id"] in crashes:
            crashes.clear()
            raise RuntimeError("a bug")

    stub.rules["retrieve_future"] = rule
    stub.held["asample"] = trio.Event()
    async with open_stub(batch_polls=True) as service, trio.open_nursery() as nursery:
        events = service.subscribe()
        sampling = await service.create_sampling_client(base_model=MODEL)
        for name in ("asample#0", "asample#1"):
            nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            await trio.sleep(1)
            together.end(name)
            await trio.sleep(1)
        assert isinstance(events.receive_nowait(), ActorFailed)
        assert stub.active["retrieve_future"] == 2
        stub.held["asample"].set()
    assert not crashes


# --- samples that nobody waits for ------------------------------------------------------------------------


def dynamic(stub: Any, **flags: Any) -> None:
    stub.rules["client/dynamic_config"] = lambda _, __: httpx.Response(200, json=flags)


@pytest.mark.lesson("L34")
@pytest.mark.parametrize("enabled", [True, False])
async def test_a_sample_that_is_left_is_cancelled_where_the_service_wants_it(
    autojump_clock: Any, open_stub: Any, stub: Any, enabled: bool
) -> None:
    """By its promise's id; what fails is let go."""
    dynamic(stub, sample_cancel_enabled=enabled)
    stub.held["asample"] = trio.Event()
    stub.rules["cancel_future"] = lambda _, count: httpx.Response(400, json={}) if count == 0 else None
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        await trio.sleep(1)
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        await trio.sleep(1)
        stub.held["asample"].set()
        await sampling.sample(PROMPT, 1, PARAMS)
    told = sorted(body["request_id"] for body in stub.bodies("cancel_future"))
    assert told == (["asample#0", "asample#1", "asample#2"] if enabled else [])


async def test_a_cancel_without_a_key_is_let_go(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """A token that has run out just then keeps no other cancel from being told."""
    dynamic(stub, sample_cancel_enabled=True, sample_cancel_max_batch_size=1)
    stub.held["asample"] = trio.Event()

    def expired(_: Any, count: int) -> httpx.Response | None:
        if count == 0:
            raise CredentialError("the token has expired")
        return None

    stub.rules["cancel_future"] = expired
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        await trio.sleep(1)
    told = sorted(body["request_id"] for body in stub.bodies("cancel_future"))
    assert told == ["asample#0", "asample#1", "asample#2"]


async def test_cancels_go_in_batches(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """As many at once as the service says, the next ones after them."""
    dynamic(stub, sample_cancel_enabled=True, sample_cancel_max_batch_size=4)
    stub.held["asample"] = trio.Event()
    stub.gates["cancel_future"] = trio.Event()
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        await trio.sleep(1)
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        await trio.sleep(1)
        assert stub.active["cancel_future"] <= 4
        stub.gates["cancel_future"].set()
    assert stub.names().count("cancel_future") == 10
    assert stub.peak["cancel_future"] <= 4


async def test_flags_that_may_change_are_asked_for_again(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """As often as the service says, but not without a pause; a failure keeps what was said, a 404 is the last word."""
    answers = [
        httpx.Response(200, json={"refresh_interval_sec": 1, "sample_cancel_enabled": True}),
        httpx.Response(503, json={}),
        httpx.Response(404, json={}),
    ]
    times: list[float] = []

    def rule(_: dict[str, Any], count: int) -> httpx.Response:
        times.append(trio.current_time() - started)
        return answers[count]

    stub.rules["client/dynamic_config"] = rule
    started = trio.current_time()
    async with open_stub() as service:
        cancels = service._tree.session.cancels
        await trio.sleep(15)
        assert cancels.enabled
        await trio.sleep(1000)
        assert cancels.enabled
    assert times == pytest.approx([0, 10, 20], abs=0.1)
