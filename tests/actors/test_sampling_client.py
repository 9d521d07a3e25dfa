"""SamplingClients: every option, handles for other processes, and nothing left of them when they are gone."""

from __future__ import annotations

import base64
import copy
import gc
import json
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import httpx
import numpy as np
import pytest
import trio

from tinker_actors.actors.message import Sample, SampleTarget
from tinker_actors.actors.sampling_client import SamplingClient
from tinker_actors.errors import InputError, NotFoundError, NotPicklable, ServiceTooOld
from tinker_actors.testing import ServiceDialect, open_scripted_service
from tinker_actors.types import ModelInput, SamplingParams, TensorData

MODEL = "tinker-actors/char-100k"
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)
SEQUENCE = {"stop_reason": "length", "tokens": [1]}

# --- options ----------------------------------------------------------------------------------------------


@pytest.mark.requirement("R13")
@pytest.mark.lesson("D14")
async def test_options_go_out_only_if_they_are_set(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Older services refuse fields that they do not know, and nulls."""
    alternatives = {
        "tokens": {"data": [1, 2], "dtype": "int64", "shape": [2, 1]},
        "logprobs": {"data": [-1.0, -2.0], "dtype": "float32", "shape": [2, 1]},
    }
    stub.results["asample#1"] = {"sequences": [SEQUENCE], "prompt_alt_tokens": alternatives}
    async with open_stub(capability="skyrl-0.3.0") as service:
        plain = await service.create_sampling_client(base_model=MODEL)
        await plain.sample(PROMPT, 1, PARAMS)
        recorded = await service.create_sampling_client(base_model=MODEL, record_stability_info=True)
        await recorded.sample(
            PROMPT,
            1,
            PARAMS,
            include_prompt_logprobs=True,
            topk_sample_logprobs=2,
            target_prompt_logprobs=TensorData.from_numpy(np.array([[5], [-1]])),
            prompt_alt_tokens_k=1,
            prompt_logprobs_last_n=1,
        )
    bare, full = stub.bodies("asample")
    common = {"prompt", "sampling_params", "num_samples", "sampling_session_id", "seq_id", "type"}
    assert set(bare) - {"topk_prompt_logprobs"} == common
    assert None not in bare.values()
    assert full["topk_sample_logprobs"] == 2
    assert full["target_prompt_logprobs"] == {"data": [5, -1], "dtype": "int64", "shape": [2, 1]}
    assert full["prompt_alt_tokens_k"] == 1
    assert full["prompt_logprobs_last_n"] == 1
    assert full["record_stability_info"] is True


async def test_what_cannot_be_asked_for_is_never_sent(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """The error names the argument."""
    cases: list[tuple[str, dict[str, Any]]] = [
        ("target_prompt_logprobs", {"target_prompt_logprobs": TensorData.from_numpy(np.zeros(2))}),
        ("prompt_alt_tokens_k", {"prompt_alt_tokens_k": -1}),
        ("prompt_logprobs_last_n", {"prompt_logprobs_last_n": 1}),
        ("prompt_logprobs_last_n", {"prompt_logprobs_last_n": 0, "include_prompt_logprobs": True}),
        ("topk_sample_logprobs", {"topk_sample_logprobs": -1}),
    ]
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        for field, options in cases:
            with pytest.raises(InputError) as caught:
                await sampling.sample(PROMPT, 1, PARAMS, **options)
            assert caught.value.field == field
        with pytest.raises(InputError, match="priority"):
            Sample(target=sampling.target, prompt=PROMPT, num_samples=1, sampling_params=PARAMS, priority="x")  # type: ignore[arg-type]  # that is the point
    assert "asample" not in stub.names()


async def test_a_service_that_is_too_old_is_named_as_such(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """It ignores what it does not know; the answer shows that. It is not asked again."""
    stub.results["asample#1"] = {"sequences": [SEQUENCE], "prompt_logprobs": [None, -1.0, -2.0]}
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(ServiceTooOld, match="prompt_alt_tokens_k"):
            await sampling.sample(PROMPT, 1, PARAMS, prompt_alt_tokens_k=2)
        with pytest.raises(ServiceTooOld) as caught:
            await sampling.compute_logprobs(PROMPT, prompt_logprobs_last_n=1)
        assert caught.value.field == "prompt_logprobs_last_n"
    assert len(stub.bodies("asample")) == 2


@pytest.mark.requirement("R13")
@pytest.mark.parametrize("values", [[None, -1.0, -2.0], [-1.0, -2.0], [-9.0, -1.0, -2.0]])
async def test_log_probabilities_begin_with_none(
    autojump_clock: Any, open_stub: Any, stub: Any, values: Any
) -> None:
    """Also where the service leaves the first one out, or makes one up."""
    stub.results["asample#0"] = {"sequences": [SEQUENCE], "prompt_logprobs": values}
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        assert await sampling.compute_logprobs(PROMPT) == [None, -1.0, -2.0]
    (body,) = stub.bodies("asample")
    assert (body["num_samples"], body["sampling_params"]["max_tokens"], body["prompt_logprobs"]) == (
        1,
        1,
        True,
    )


async def test_the_service_is_asked_for_the_model_of_a_path(autojump_clock: Any) -> None:
    """Where it knows: then there is a tokenizer too."""
    async with open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client("tinker-actors/char-100k")
        path = (await training.save_weights_for_sampler("a")).path
        sampling = await service.create_sampling_client(path)
        assert sampling.get_base_model() == "tinker-actors/char-100k"
        await sampling.get_tokenizer()
        assert scripted.count("get_sampler") == 1
    async with open_scripted_service(dialect=ServiceDialect(lacks=frozenset({"get_sampler"}))) as (
        service,
        _,
    ):
        sampling = await service.create_sampling_client(base_model="base")
        assert sampling.get_base_model() == "base"


# --- creation ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("R5")
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "model_path"),
        ({"base_model": ""}, "base_model"),
        ({"base_model": 3}, "base_model"),
        ({"model_path": "weights/a"}, "model_path"),
        ({"model_path": 3}, "model_path"),
    ],
)
async def test_a_client_of_nothing_is_refused(
    autojump_clock: Any, open_stub: Any, stub: Any, arguments: Any, field: str
) -> None:
    """Before any request."""
    async with open_stub() as service:
        with pytest.raises(InputError) as caught:
            await service.create_sampling_client(**arguments)
        assert caught.value.field == field
    assert "create_sampling_session" not in stub.names()


@pytest.mark.requirement("R137", "R138")
async def test_creations_are_side_by_side(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Eight, as many as there are connections for this, take as long as one; each may be used at once."""
    inner = stub._answer

    async def answer(name: str, body: dict[str, Any], count: int) -> httpx.Response:
        if name == "create_sampling_session":
            await trio.sleep(0.5)
        response: httpx.Response = await inner(name, body, count)
        return response

    stub._answer = answer
    async with open_stub() as service:
        started = trio.current_time()

        async def create() -> None:
            await (await service.create_sampling_client(base_model=MODEL)).sample(PROMPT, 1, PARAMS)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(create)
        assert trio.current_time() - started == pytest.approx(0.5, abs=0.1)
    assert len({body["sampling_session_id"] for body in stub.bodies("asample")}) == 8


# --- nothing is left --------------------------------------------------------------------------------------


def ours() -> Counter[str]:
    """Count the objects of this package that are alive, by kind."""
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("tinker_actors."))


async def use_and_drop(service: Any, count: int, *, fail: bool) -> None:
    """Make clients, draw with each, and let go of them; some samples are given up, some fail."""
    for number in range(count):
        sampling = await service.create_sampling_client(base_model=MODEL)
        with trio.move_on_after(0.0 if number % 3 == 0 else 100):
            await sampling.sample(PROMPT, 1, PARAMS)
        if fail and number % 3 == 1:
            with pytest.raises(InputError):
                await sampling.sample(PROMPT, 0, PARAMS)


@pytest.mark.requirement("R136")
@pytest.mark.lesson("D43")
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_clients_come_and_go_and_leave_nothing(
    autojump_clock: Any,
    open_stub: Any,
    stub: Any,
    slow_count: Callable[[int], int],
    count: int,
    together: bool,
) -> None:
    """No task, and no object of ours, whether samples ended, failed or were given up; also with batch polls."""
    ended: dict[str, list[str]] = {}

    def submit(body: dict[str, Any], serial: int) -> httpx.Response:
        name = f"asample#{serial}"
        ended.setdefault(body["sampling_session_id"], []).append(name)
        return httpx.Response(200, json=stub.promise(name, stub._result("asample", body)))

    async def polls(body: dict[str, Any]) -> httpx.Response:
        await trio.sleep(0.1)
        mine = ended[body["target"]["sampling_session_id"]]
        news = [{"state": "finished", "request_id": one} for one in mine[body["prev_cursor"] :]]
        return httpx.Response(200, json={"completions": news, "cursor": len(mine)})

    inner = stub._answer

    async def answer(name: str, body: dict[str, Any], serial: int) -> httpx.Response:
        response: httpx.Response = await (
            polls(body) if name == "retrieve_futures" else inner(name, body, serial)
        )
        return response

    stub._answer = answer
    stub.rules["asample"] = submit
    async with open_stub(batch_polls=together) as service:

        async def settled() -> tuple[Counter[str], int]:
            await trio.sleep(60)
            stub.log.clear()
            stub.headers.clear()
            stub.results.clear()
            ended.clear()
            return ours(), trio.lowlevel.current_statistics().tasks_living

        await use_and_drop(service, 30, fail=True)
        before, tasks = await settled()
        await use_and_drop(service, slow_count(count), fail=True)
        after, tasks_after = await settled()
        grown = {kind: after[kind] - before[kind] for kind in after if after[kind] > before[kind] + 2}
        assert grown == {}
        assert tasks_after == tasks
        assert before["SampleTarget"] == before["BatchPoll"] == 0


async def test_many_clients_are_many_values(autojump_clock: Any, open_stub: Any) -> None:
    """Ten thousand of them add no task, and are told apart."""
    async with open_stub() as service:
        one = await service.create_sampling_client(base_model=MODEL)
        tasks = trio.lowlevel.current_statistics().tasks_living
        many = [attrs.evolve(one, target=SampleTarget(f"x{number}")) for number in range(10_000)]
        assert len(set(many)) == 10_000
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert attrs.evolve(one) == one
        assert one.evaluation() != one
        assert one.evaluation().target is one.target


# --- other processes --------------------------------------------------------------------------------------


async def test_a_handle_makes_a_client_of_the_same_weights(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """With numbers of its own, without a new session; there is no key in it."""
    async with open_stub(api_key="tml-secret") as service, open_stub(api_key="tml-other") as other:
        sampling = await service.create_sampling_client(base_model=MODEL, record_stability_info=True)
        handle = sampling.get_sampler_handle()
        assert "secret" not in base64.urlsafe_b64decode(handle).decode()
        clones = [await other.from_sampler_handle(handle) for _ in range(2)]
        clones.append(await SamplingClient.from_sampler_handle(handle, service=other))
        for client in (sampling, *clones, clones[0]):
            await client.sample(PROMPT, 1, PARAMS)
        assert clones[0].get_base_model() == MODEL
        assert clones[0].get_sampler_handle() == handle  # and on to a third process
    bodies = stub.bodies("asample")
    assert {body["sampling_session_id"] for body in bodies} == {"s0:sample:0"}
    assert all(body["record_stability_info"] for body in bodies)
    numbers = [body["seq_id"] for body in bodies]
    assert numbers[0] == 0
    assert [number % 10**9 for number in numbers] == [0, 0, 0, 0, 1]
    assert len({number // 10**9 for number in numbers}) == 4
    assert stub.names().count("create_sampling_session") == 1


async def test_clones_ask_who_they_are_where_the_service_knows(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """The count is where their numbers begin, and polls for all samples say it."""
    polls: list[dict[str, Any]] = []

    def poll(body: dict[str, Any], _: int) -> httpx.Response:
        polls.append(body)
        done = [{"state": "finished", "request_id": "asample#0"}]
        return httpx.Response(200, json={"completions": done, "cursor": 1})

    flags = {"sample_join_sampling_session": True, "sample_use_retrieve_futures": True}
    stub.rules["client/config"] = lambda _, __: httpx.Response(200, json=flags)
    stub.rules["join_sampling_session"] = lambda _, __: httpx.Response(200, json={"client_counter": 7})
    stub.rules["retrieve_futures"] = poll
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        clone = await service.from_sampler_handle(sampling.get_sampler_handle())
        await clone.sample(PROMPT, 1, PARAMS)
    assert stub.bodies("join_sampling_session") == [
        {"sampling_session_id": "s0:sample:0", "type": "join_sampling_session"}
    ]
    assert stub.bodies("asample")[0]["seq_id"] == 7_000_000_000
    assert polls[0]["target"] == {
        "type": "sampling_session",
        "sampling_session_id": "s0:sample:0",
        "cloned_sampler_id": 7,
    }


@pytest.mark.parametrize("status", [404, 405])
async def test_a_service_may_not_know_how_to_join(
    autojump_clock: Any, open_stub: Any, stub: Any, status: int
) -> None:
    """Without the call a number is drawn; a sampling session that it does not know is an error."""
    flags = {"sample_join_sampling_session": True}
    stub.rules["client/config"] = lambda _, __: httpx.Response(200, json=flags)
    stub.rules["join_sampling_session"] = lambda _, __: httpx.Response(status, json={"detail": "no"})
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        handle = sampling.get_sampler_handle()
        if status == 404:
            with pytest.raises(NotFoundError):
                await service.from_sampler_handle(handle)
        else:
            assert (await service.from_sampler_handle(handle)).target.clone > 0


async def test_a_handle_of_another_service_is_refused(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """So that no key goes where it does not belong."""
    fields = {"session_id": "s", "sampling_session_id": "t", "base_url": "http://elsewhere"}
    async with open_stub() as service:
        with pytest.raises(InputError, match="another service") as caught:
            await service.from_sampler_handle(base64.urlsafe_b64encode(json.dumps(fields).encode()).decode())
        assert caught.value.field == "handle"
        with pytest.raises(InputError, match="must come from get_sampler_handle"):
            await service.from_sampler_handle("x")


async def test_a_client_is_not_pickled(autojump_clock: Any, open_stub: Any) -> None:
    """The error says what to send in its place; within the process a copy is the client itself."""
    async with open_stub() as service:
        sampling = await service.create_sampling_client(base_model=MODEL)
        with pytest.raises(NotPicklable, match="get_sampler_handle"):
            pickle.dumps({"policy": sampling})
        assert copy.copy(sampling) is sampling
        assert copy.deepcopy([sampling]) == [sampling]
