"""The sampling pool: limits, backoff, cancellation, lost promises."""

from __future__ import annotations

import contextlib
import gc
import random
import weakref
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing

from tinker_actors.actors.message import SampleTarget
from tinker_actors.actors.sampling import shared_backoff
from tinker_actors.actors.service_client import open_client
from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    BadRequestError,
    BillingError,
    ConfigError,
    InputError,
    RequestFailedError,
    SessionGoneError,
)
from tinker_actors.protocol.backoff import SampleBackoff
from tinker_actors.transport.config import Config
from tinker_actors.types import ModelInput, SamplingParams

MODEL = "tinker-actors/char-100k"
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4, temperature=0.7, stop=["\n"], seed=11)


@pytest.mark.requirement("R13")
@pytest.mark.lesson("D65")
async def test_a_sample_is_asked_for_as_it_was_given(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Every parameter reaches the wire, and the sequences come back as arrays and lists."""
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        reply = await sampling.sample(PROMPT, 2, PARAMS, include_prompt_logprobs=True, topk_prompt_logprobs=3)
    assert [sequence.tokens for sequence in reply.sequences] == [[1, 2], [1, 2]]
    assert reply.sequences[0].logprobs == [-0.5, -0.25]
    assert stub.bodies("asample") == [
        {
            "prompt": {"chunks": [{"tokens": [1, 2, 3], "type": "encoded_text"}]},
            "sampling_params": {
                "max_tokens": 4,
                "seed": 11,
                "stop": ["\n"],
                "temperature": 0.7,
                "top_k": -1,
                "top_p": 1,
            },
            "num_samples": 2,
            "sampling_session_id": "s0:sample:0",
            "seq_id": 0,
            "prompt_logprobs": True,
            "topk_prompt_logprobs": 3,
            "type": "sample",
        }
    ]


@pytest.mark.requirement("R127")
async def test_no_more_samples_are_in_flight_than_allowed(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """One limiter bounds the whole pool, and everybody is served."""
    stub.held["asample"] = trio.Event()
    async with open_stub(max_samples=12, sampling_actors=3) as service, trio.open_nursery() as nursery:
        sampling = await service.create_sampling_client(base_model=MODEL)
        for _ in range(100):
            nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        await trio.sleep(1)
        assert stub.names().count("asample") == 12
        stub.held["asample"].set()
    assert sorted(body["seq_id"] for body in stub.bodies("asample")) == list(range(100))


async def test_the_services_own_limit_counts_if_it_is_lower(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A service that takes 5 samples at once is not sent a sixth, whatever the client was set to."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(
        200, json={"sample_max_concurrent_requests": 5}
    )
    stub.held["asample"] = trio.Event()
    async with open_stub(max_samples=12) as service, trio.open_nursery() as nursery:
        sampling = await service.create_sampling_client(base_model=MODEL)
        for _ in range(20):
            nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        await trio.sleep(1)
        assert stub.names().count("asample") == 5
        stub.held["asample"].set()


@pytest.mark.lesson("D58")
async def test_a_sample_that_was_turned_away_before_the_service_is_sent_again(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A 400 without a body is no word of the service's; the number stays, for nobody has seen it."""
    stub.rules["asample"] = lambda _, count: httpx.Response(400) if count == 0 else None
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        await sampling.sample(PROMPT, 1, PARAMS)
    assert [body["seq_id"] for body in stub.bodies("asample")] == [0, 0]


@pytest.mark.lesson("L15")
async def test_a_refusal_holds_everybody_back_and_is_never_shortened(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """After a 429 with Retry-After nothing is sent until then; a later, shorter one changes nothing."""
    times: list[float] = []

    def refuse(_: dict[str, Any], count: int) -> httpx.Response | None:
        times.append(trio.current_time() - start)
        if count == 0:
            return httpx.Response(429, headers={"retry-after": "30"}, json={})
        return httpx.Response(429, headers={"retry-after": "5"}, json={}) if count == 1 else None

    stub.rules["asample"] = refuse
    async with open_stub() as service, trio.open_nursery() as nursery:
        sampling = await service.create_sampling_client(base_model=MODEL)
        start = trio.current_time()
        nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        await trio.sleep(1)
        for _ in range(5):
            nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
    assert times[0] == pytest.approx(0)
    assert times[1] == pytest.approx(30)
    assert all(time >= 30 for time in times[1:])
    numbers = [body["seq_id"] for body in stub.bodies("asample")]
    assert sorted(set(numbers)) == list(range(6))
    assert len(numbers) == 8  # the two that were refused went out again under their own numbers
    assert numbers.count(0) >= 2


@pytest.mark.lesson("D63")
@pytest.mark.requirement("R32", "R33", "R38")
async def test_one_service_and_key_have_one_clock_however_many_ask() -> None:
    """The same service under another spelling is the same; another service or key is not."""
    found: list[SampleBackoff] = []

    async def ask(url: str, key: str) -> None:
        await trio.lowlevel.checkpoint()
        found.append(shared_backoff(Config(base_url=url, api_key=key)))

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ask, ("http://prod", "HTTP://Prod:80", "http://prod/")[number % 3], "tml-a")
    assert len({id(clock) for clock in found}) == 1
    for url, key in (("http://prod", "tml-b"), ("http://staging", "tml-a"), ("http://prod:81", "tml-a")):
        await ask(url, key)
    assert len({id(clock) for clock in found}) == 4


@pytest.mark.lesson("D31")
@pytest.mark.requirement("R32", "R128")
async def test_services_with_one_key_share_the_backoff_and_others_do_not(
    autojump_clock: Any, stub: Any
) -> None:
    """(base URL, key) is what is held back."""
    quiet: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    refused: list[str] = []

    def rule(body: dict[str, Any], _: int) -> httpx.Response | None:
        who = {3: "a", 4: "b", 5: "c"}[body["prompt"]["chunks"][0]["tokens"][0]]
        quiet[who].append(trio.current_time() - start)
        if who == "a" and not refused:
            refused.append(who)
            return httpx.Response(429, headers={"retry-after": "20"}, json={})
        return None

    stub.rules["asample"] = rule
    start = trio.current_time()

    async def use(key: str, token: int, delay: float) -> None:
        @contextlib.asynccontextmanager
        async def borrowed() -> Any:
            yield stub

        config = Config(base_url="http://stub", api_key=key, heartbeat="loop")
        async with open_client(
            config, rng=random.Random(0), backend="x", chosen="x", through=stub, beat_through=borrowed
        ) as service:
            sampling = await service.create_sampling_client(base_model=MODEL)
            await trio.sleep_until(start + delay)
            await sampling.sample(ModelInput.from_ints([token]), 1, PARAMS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, "tml-one", 3, 1)
        nursery.start_soon(use, "tml-one", 4, 2)
        nursery.start_soon(use, "tml-two", 5, 2)
    assert quiet["a"] == pytest.approx([1, 21])
    assert quiet["b"] == pytest.approx([21])
    assert quiet["c"] == pytest.approx([2])


@pytest.mark.requirement("R105")
@pytest.mark.lesson("L34")
async def test_a_caller_that_leaves_takes_its_sample_with_it(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """The poll under way is ended, queued ones never start, and the place is free again."""
    stub.held["asample"] = trio.Event()
    async with open_stub(max_samples=1, sampling_actors=1) as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
            await trio.testing.wait_all_tasks_blocked()
            assert stub.active["retrieve_future"] == 1
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert stub.active["retrieve_future"] == 0
        assert stub.names().count("asample") == 1
        stub.held["asample"].set()
        await sampling.sample(PROMPT, 1, PARAMS)


@pytest.mark.requirement("R109")
@pytest.mark.lesson("D42")
async def test_a_lost_promise_is_asked_for_again_with_a_new_number(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """410 on the poll: the whole sample once more."""
    stub.results["asample#0"] = httpx.Response(410, json={"detail": "broken"})
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        reply = await sampling.sample(PROMPT, 1, PARAMS)
    assert len(reply.sequences) == 1
    assert [body["seq_id"] for body in stub.bodies("asample")] == [0, 1]


@pytest.mark.lesson("L26")
async def test_a_doubtful_send_is_repeated_with_the_same_number(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A lost answer costs money at worst."""

    def lose(_: dict[str, Any], count: int) -> None:
        if count < 3:
            raise httpx.ReadError("lost")

    stub.rules["asample"] = lose
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        await sampling.sample(PROMPT, 1, PARAMS)
    assert [body["seq_id"] for body in stub.bodies("asample")] == [0, 0, 0, 0]


@pytest.mark.requirement("R54")
@pytest.mark.parametrize(
    ("status", "should_retry", "submits"), [(500, "false", 1), (409, "true", 2), (409, "", 1)]
)
async def test_what_the_service_says_of_retries_holds_for_samples(
    autojump_clock: Any, open_stub: Any, stub: Any, status: int, should_retry: str, submits: int
) -> None:
    """`x-should-retry` wins over the status."""
    stub.rules["asample"] = lambda _, count: (
        httpx.Response(status, headers={"x-should-retry": should_retry}) if count == 0 else None
    )
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(APIStatusError) if submits == 1 else contextlib.nullcontext():
            await sampling.sample(PROMPT, 1, PARAMS)
    assert [body["seq_id"] for body in stub.bodies("asample")] == [0] * submits


async def test_endless_trouble_ends_in_a_typed_error(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """A service that never answers a submit does not hang its caller."""

    def lose(_: dict[str, Any], __: int) -> None:
        raise httpx.ReadError("lost")

    stub.rules["asample"] = lose
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(APIConnectionError):
            await sampling.sample(PROMPT, 1, PARAMS)


@pytest.mark.parametrize(
    ("rule", "result", "error"),
    [
        (httpx.Response(400, json={"detail": "no"}), None, BadRequestError),
        (None, {"error": "bad prompt", "category": "user"}, RequestFailedError),
        (None, {"sequences": "x"}, APIResponseValidationError),
    ],
)
async def test_final_failures_reach_the_caller_alone(
    autojump_clock: Any, open_stub: Any, stub: Any, rule: Any, result: Any, error: Any
) -> None:
    """One sample's failure is that sample's; the pool goes on without a restart."""
    stub.rules["asample"] = lambda _, count: rule if count == 0 else None
    if result is not None:
        stub.results["asample#0"] = result
    async with open_stub() as service:
        events = service.subscribe()
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(error):
            await sampling.sample(PROMPT, 1, PARAMS)
        await sampling.sample(PROMPT, 1, PARAMS)
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()


@pytest.mark.requirement("R12")
@pytest.mark.lesson("L6")
async def test_versions_count_publications(autojump_clock: Any, open_stub: Any) -> None:
    """Each published client knows how many there were; a client is a value and costs no task."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        clients = [await training.save_weights_and_get_sampling_client() for _ in range(3)]
        assert [client.version for client in clients] == [1, 2, 3]
        assert len({client.target for client in clients}) == 3
        tasks = trio.lowlevel.current_statistics().tasks_living
        many = [training._samplers.make(SampleTarget(f"x{i}"), MODEL, MODEL, i) for i in range(10_000)]
        assert len(set(many)) == 10_000
        assert trio.lowlevel.current_statistics().tasks_living == tasks


@pytest.mark.requirement("R136")
async def test_every_sampling_session_counts_for_itself(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Numbers start at 0 in each, are taken by all clients of it, and end with its target."""
    async with open_stub() as service:
        one, other = [await service.create_sampling_client(base_model=MODEL) for _ in range(2)]
        for client in (one, other, attrs.evolve(one, version=7), other):
            await client.sample(PROMPT, 1, PARAMS)
        gone = weakref.ref(one.target)
        del one, client
        gc.collect()
        assert gone() is None
    numbers = [(body["sampling_session_id"], body["seq_id"]) for body in stub.bodies("asample")]
    assert numbers == [(f"s0:sample:{n}", k) for n, k in ((0, 0), (1, 0), (0, 1), (1, 1))]


async def test_a_client_of_a_path_alone_says_what_its_tokenizer_needs(
    autojump_clock: Any, open_stub: Any
) -> None:
    """A path does not tell the model; named beside it, the model's tokenizer is there."""
    async with open_stub() as service:
        alone = await service.create_sampling_client("tinker://a/weights/b")
        with pytest.raises(ConfigError, match="base_model = None"):
            await alone.get_tokenizer()
        named = await service.create_sampling_client("tinker://a/weights/b", base_model=MODEL)
        assert (await named.get_tokenizer()).encode("ab")
        assert named.get_base_model() == MODEL


async def test_wrong_samples_are_refused_locally(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Nothing is sent; the error names the field."""
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        for arguments, field in [
            ((ModelInput.empty(), 1, PARAMS), "prompt"),
            ((PROMPT, 0, PARAMS), "num_samples"),
            ((PROMPT, 1, PARAMS, False, -1), "topk_prompt_logprobs"),
            ((PROMPT, 1, SamplingParams(temperature=-1.0)), "sampling_params.temperature"),
            ((PROMPT, 1, SamplingParams(top_p=0.0)), "sampling_params.top_p"),
        ]:
            with pytest.raises(InputError) as caught:
                await sampling.sample(*arguments)
            assert caught.value.field == field
    assert "asample" not in stub.names()


@pytest.mark.requirement("R13")
async def test_prompt_logprobs_come_back(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """compute_logprobs gives one value per prompt token; a service that sends none is told apart."""
    sequence = {"stop_reason": "length", "tokens": [1]}
    stub.results["asample#0"] = {"sequences": [sequence], "prompt_logprobs": [None, -1.0, -2.0]}
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        assert await sampling.compute_logprobs(PROMPT) == [None, -1.0, -2.0]
        with pytest.raises(APIResponseValidationError, match="prompt_logprobs"):
            await sampling.compute_logprobs(PROMPT)


async def test_sequences_are_named_as_the_promise_says(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """By their index; older services have no names, and one that has too few names some."""
    names = {0: ["n0", "n1"], 1: ["n2"]}

    def rule(body: dict[str, Any], count: int) -> httpx.Response | None:
        if count not in names:
            return None
        promise = stub.promise(f"asample#{count}", stub._result("asample", body))
        return httpx.Response(200, json=promise | {"sample_sequence_ids": names[count]})

    stub.rules["asample"] = rule
    seen = []
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        for _ in range(3):
            reply = await sampling.sample(PROMPT, 2, PARAMS)
            seen.append([sequence.sequence_id for sequence in reply.sequences])
    assert seen == [["n0", "n1"], ["n2", None], [None, None]]


@pytest.mark.requirement("R74")
@pytest.mark.parametrize(("category", "tries"), [("user", 1), ("server", 4), ("odd", 4)])
async def test_a_failure_that_is_not_the_users_is_drawn_anew(
    autojump_clock: Any, open_stub: Any, stub: Any, category: str, tries: int
) -> None:
    """A few times, each with a new number and after a pause; then it is told."""
    for number in range(9):
        stub.results[f"asample#{number}"] = {"error": "no luck", "category": category}
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(RequestFailedError, match="no luck"):
            await sampling.sample(PROMPT, 1, PARAMS)
    assert [body["seq_id"] for body in stub.bodies("asample")] == list(range(tries))


async def test_a_service_may_ask_for_no_retries(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Then a lost promise is told at once."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(200, json={"sample_no_retries": True})
    stub.results["asample#0"] = httpx.Response(410, json={"detail": "broken"})
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(SessionGoneError):
            await sampling.sample(PROMPT, 1, PARAMS)
    assert stub.names().count("asample") == 1


async def test_an_unpaid_account_holds_samples_back_within_its_window(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """The same number is sent again every second; when the window is over the 402 is told."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(
        200, json={"billing_exception_max_pause_duration_sec": 10}
    )
    stub.rules["asample"] = lambda _, count: None if count == 3 else httpx.Response(402, json={})
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        started = trio.current_time()
        await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(3)
        with pytest.raises(BillingError):
            await sampling.sample(PROMPT, 1, PARAMS)
        assert trio.current_time() - started == pytest.approx(10, abs=2)
    assert {body["seq_id"] for body in stub.bodies("asample")} == {0, 1}


async def test_large_prompts_are_submitted_a_few_at_a_time(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """The bytes being submitted are bounded; who polls does not count."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(
        200, json={"sample_dispatch_bytes_semaphore_size": 50}
    )
    stub.gates["asample"] = trio.Event()
    async with open_stub() as service, trio.open_nursery() as nursery:
        sampling = await service.create_sampling_client(base_model=MODEL)
        for _ in range(6):
            nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)  # 3 tokens, 30 bytes
        await trio.sleep(1)
        assert stub.active["asample"] == 2
        stub.gates["asample"].set()
