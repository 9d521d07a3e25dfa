from __future__ import annotations

import numpy as np
import pytest
import trio
import trio.testing

from tinker_actors.local.model import load_base_model
from tinker_actors.wire.input import ModelInput
from tinker_actors.wire.sampling import CreateSamplingSessionRequest
from tinker_actors.wire.session import FinishReason, FinishSessionRequest
from tinker_actors.wire.weights import SaveWeightsForSamplerRequest, SaveWeightsRequest


async def publish(caller, model_id: str, seq_id: int, number: int) -> str:
    """Save a model's weights as a sampling session."""
    request = SaveWeightsForSamplerRequest(model_id=model_id, seq_id=seq_id, sampling_session_seq_id=number)
    return (await caller.run(request))["sampling_session_id"]


async def base_sampler(caller, number: int = 0, base: str = "tiny") -> str:
    """Open a sampling session for a base model."""
    if not caller.session_id:
        await caller.open()
    request = CreateSamplingSessionRequest(
        session_id=caller.session_id, sampling_session_seq_id=number, base_model=base
    )
    return (await caller.ask(request)).sampling_session_id


@pytest.mark.parametrize("compute", ["inline", "thread"])
async def test_a_sample_does_not_depend_on_its_company(make_service, connect, kit, compute: str) -> None:
    """Alone and beside 31 others, a request over HTTP gives the same tokens and log-probabilities."""
    base = load_base_model("tinker-actors/char-100k")
    async with connect(make_service(base_models=[base], compute=compute)) as caller:
        target = await base_sampler(caller, base=base.name)
        rng = np.random.default_rng(0)
        prompts = [ModelInput.from_ints(rng.integers(3, 90, 3 + n)) for n in range(32)]
        requests = [
            kit.sample(
                sampling_session_id=target, prompt=prompt, seed=n, num_samples=1 + n % 3, max_tokens=5 + n % 7
            )
            for n, prompt in enumerate(prompts)
        ]
        alone = [await caller.run(request) for request in requests[::8]]
        together: dict[int, object] = {}

        async def one(index: int) -> None:
            together[index] = await caller.run(requests[index])

        async with trio.open_nursery() as nursery:
            for index in range(32):
                nursery.start_soon(one, index)
    assert [together[index] for index in range(0, 32, 8)] == alone
    assert len({str(result) for result in together.values()}) == 32


async def test_prompt_logprobs_and_the_likeliest_tokens(make_service, connect, kit) -> None:
    """They are given where asked for, nothing for the first token, and agree with each other."""
    async with connect(make_service()) as caller:
        target = await base_sampler(caller)
        plain = await caller.run(kit.sample(sampling_session_id=target))
        full = await caller.run(
            kit.sample(sampling_session_id=target, prompt_logprobs=True, topk_prompt_logprobs=100)
        )
    assert set(plain) == {"sequences", "type"}
    logprobs, topk = full["prompt_logprobs"], full["topk_prompt_logprobs"]
    assert logprobs[0] is None
    assert topk[0] is None
    assert [dict(map(tuple, row))[token] for row, token in zip(topk[1:], (11, 12), strict=True)] == logprobs[
        1:
    ]
    assert full["sequences"] == plain["sequences"]


async def test_repeated_numbers_get_the_first_answer(make_service, connect, kit) -> None:
    """The same request under the same number runs once; another one under it is 409."""
    service = make_service()
    async with connect(service) as caller:
        target = await base_sampler(caller)
        request = kit.sample(sampling_session_id=target, seq_id=5, num_samples=2)
        first = await caller.ask(request)
        assert await caller.ask(request) == first
        assert first.sample_sequence_ids == (f"{first.request_id}:0", f"{first.request_id}:1")
        await caller.poll(first.request_id)
        assert await caller.ask(request) == first
        response = await caller.send(kit.sample(sampling_session_id=target, seq_id=5, num_samples=3))
        assert response.status_code == 409
        assert "sequence number was reused" in response.json()["detail"]
        assert (
            await caller.ask(kit.sample(sampling_session_id=target, seq_id=2))
        ).request_id != first.request_id
        other = await base_sampler(caller, 1)
        again = await caller.ask(kit.sample(sampling_session_id=other, seq_id=5, num_samples=2))
        assert again.request_id != first.request_id
        await caller.poll(again.request_id)
    assert service.statistics().sequences == 2 + 1 + 2


async def test_a_full_service_answers_429(make_service, connect, kit) -> None:
    """Beyond `max_samples` a request is told when to come again, and takes neither number nor seed."""
    service = make_service(max_samples=2)
    async with connect(service) as caller:
        target = await base_sampler(caller)
        long = {
            "num_samples": 300,
            "max_tokens": 29,
        }  # more than the decoder can do while three requests arrive
        requests = [kit.sample(sampling_session_id=target, seq_id=n, seed=None, **long) for n in range(3)]
        async with trio.open_nursery() as nursery:
            statuses: dict[int, object] = {}

            async def one(n: int) -> None:
                response = await caller.send(requests[n])
                statuses[n] = (response.status_code, response.headers.get("retry-after"))

            for n in range(3):
                nursery.start_soon(one, n)
        assert sorted(statuses.values(), key=str) == [(200, None), (200, None), (429, "1")]
        (refused,) = [n for n, status in statuses.items() if status[0] == 429]
        while service.statistics().samples_open:
            await trio.lowlevel.checkpoint()
        assert (await caller.run(requests[refused]))["sequences"]


async def test_without_a_seed_the_services_own_stream_decides(make_service, connect, kit) -> None:
    """Requests without a seed differ, and are the same in another service of the same seed."""

    async def three(seed: int) -> list[object]:
        async with connect(make_service(seed=seed)) as caller:
            target = await base_sampler(caller)
            return [
                (await caller.run(kit.sample(sampling_session_id=target, seed=None)))["sequences"]
                for _ in range(3)
            ]

    first = await three(1)
    assert len({str(result) for result in first}) == 3
    assert await three(1) == first
    assert await three(2) != first


async def test_every_way_to_name_the_weights_gives_the_same_sample(make_service, connect, kit) -> None:
    """Unnamed weights, named ones, a training checkpoint, with a sampling session or without: one model."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        await caller.run(kit.forward_backward(model_id, 1))
        await caller.run(kit.optim_step(model_id, 2, learning_rate=0.5))
        unnamed = await publish(caller, model_id, 3, 0)
        named = await caller.run(SaveWeightsForSamplerRequest(model_id=model_id, seq_id=4, path="s"))
        saved = await caller.run(SaveWeightsRequest(model_id=model_id, seq_id=5, path="t"))
        assert named["path"] == f"tinker://{model_id}/sampler_weights/s"
        request = CreateSamplingSessionRequest(
            session_id=caller.session_id, sampling_session_seq_id=1, model_path=named["path"]
        )
        session = (await caller.ask(request)).sampling_session_id
        assert (unnamed, session) == (f"{caller.session_id}:sample:0", f"{caller.session_id}:sample:1")
        targets = [
            {"sampling_session_id": unnamed},
            {"sampling_session_id": session},
            {"model_path": named["path"]},
            {"model_path": saved["path"]},
        ]
        results = [(await caller.run(kit.sample(**target)))["sequences"] for target in targets]
        base = (await caller.run(kit.sample(base_model="tiny")))["sequences"]
    assert all(result == results[0] for result in results)
    assert base != results[0]


async def test_a_path_saved_again_gives_the_new_weights(make_service, connect, kit, autojump_clock) -> None:
    """After a checkpoint has expired and its name was used anew, nothing of the old weights is sampled."""
    async with connect(make_service(session_timeout=1e6)) as caller:
        model_id = await caller.create_model()
        results = []
        for number in (1, 4):
            await caller.run(kit.forward_backward(model_id, number))
            await caller.run(kit.optim_step(model_id, number + 1, learning_rate=0.5))
            save = SaveWeightsForSamplerRequest(
                model_id=model_id, seq_id=number + 2, path="s", ttl_seconds=60
            )
            path = (await caller.run(save))["path"]
            results.append(await caller.run(kit.sample(model_path=path)))
            await trio.sleep(61)
            assert (await caller.send(kit.sample(model_path=path))).status_code == 404
    assert results[0] != results[1]


async def test_samplers_outlive_their_model(make_service, connect, kit) -> None:
    """What was published goes on after its model is dropped, with the weights it was published with."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model()
        target = await publish(caller, model_id, 1, 0)
        before = await caller.run(kit.sample(sampling_session_id=target))
        await caller.run(kit.forward_backward(model_id, 2))
        await caller.run(kit.optim_step(model_id, 3, learning_rate=1.0))
        service.drop_model(model_id)
        assert await caller.run(kit.sample(sampling_session_id=target)) == before


async def test_idle_decoders_are_dropped_and_come_back(make_service, connect, kit) -> None:
    """Only so many decoders stay in memory; a sampler whose decoder was dropped samples as before."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model()
        targets = [await publish(caller, model_id, number + 1, number) for number in range(12)]
        first = await caller.run(kit.sample(sampling_session_id=targets[0]))
        for target in targets[1:]:
            await caller.run(kit.sample(sampling_session_id=target))
        await trio.testing.wait_all_tasks_blocked()
        assert service.statistics().decoders == 8
        assert await caller.run(kit.sample(sampling_session_id=targets[0])) == first


async def test_only_so_many_unnamed_weights_are_kept(make_service, connect, kit) -> None:
    """Of more unnamed weights than the limit, the least recently used are gone, with 404; named ones stay."""
    service = make_service()
    service._engine.samplers._max_snapshots = 2
    async with connect(service) as caller:
        model_id = await caller.create_model()
        await base_sampler(caller, 100)
        targets = [await publish(caller, model_id, 1, 0), await publish(caller, model_id, 2, 1)]
        await caller.run(kit.sample(sampling_session_id=targets[0]))
        targets.append(await publish(caller, model_id, 3, 2))
        statuses = [
            (await caller.send(kit.sample(sampling_session_id=target))).status_code for target in targets
        ]
        assert statuses == [200, 404, 200]
        assert await caller.run(kit.sample(sampling_session_id=f"{caller.session_id}:sample:100"))


async def test_a_sessions_end_ends_its_samplers(make_service, connect, kit) -> None:
    """Samples under way break with 410, and so does every later request to its sampling sessions."""
    service = make_service()
    async with connect(service) as caller:
        target = await base_sampler(caller)
        pending = await caller.ask(kit.sample(sampling_session_id=target, num_samples=500, max_tokens=29))
        assert service.statistics().samples_open == 1
        finish = await caller.send(
            FinishSessionRequest(FinishReason("success")), session_id=caller.session_id
        )
        assert finish.status_code == 200
        assert (await caller.poll(pending.request_id)).status_code == 410
        assert (await caller.send(kit.sample(sampling_session_id=target))).status_code == 410
        await trio.testing.wait_all_tasks_blocked()
        statistics = service.statistics()
        assert (statistics.samples_open, statistics.sampling_sessions, statistics.sequences) == (0, 0, 0)


async def test_sampling_sessions_have_numbers_of_their_own(make_service, connect) -> None:
    """The same request gives the same id; the number of another sampling session is 409."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        target = await base_sampler(caller)
        assert await base_sampler(caller) == target
        unnamed = SaveWeightsForSamplerRequest(model_id=model_id, seq_id=1, sampling_session_seq_id=0)
        response = await caller.send(unnamed)
        assert response.status_code == 409
        assert await publish(caller, model_id, 1, 1) == f"{caller.session_id}:sample:1"


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"sampling_session_id": "s:sample:0"}, 404, "Session 's' is not known"),
        ({"sampling_session_id": "{session}:sample:9"}, 404, "does not exist"),
        ({"sampling_session_id": "{session}:sample:0", "base_model": "tiny"}, 400, "excludes 'tiny'"),
        ({}, 400, "one of base_model and model_path must be given"),
        (
            {"base_model": "tiny", "model_path": "tinker://a/weights/b"},
            400,
            "one of base_model and model_path",
        ),
        ({"base_model": "huge"}, 400, "base_model = 'huge': the embedded service has tiny"),
        ({"model_path": "weights/b"}, 400, "path = 'weights/b'"),
        ({"model_path": "tinker://a/weights/b"}, 404, "Checkpoint 'tinker://a/weights/b' does not exist"),
        ({"base_model": "tiny", "max_tokens": 30}, 400, "sampling_params.max_tokens = 30"),
        ({"base_model": "tiny", "num_samples": 0}, 400, "num_samples = 0"),
        ({"base_model": "tiny", "top_p": 0.0}, 400, "sampling_params.top_p = 0.0"),
        ({"base_model": "tiny", "stop": "no such", "temperature": -1.0}, 400, "temperature = -1.0"),
        ({"base_model": "tiny", "prompt": ModelInput.from_ints([5000])}, 400, "prompt[0] = 5000"),
    ],
)
async def test_wrong_requests_are_refused(
    make_service, connect, kit, fields, status: int, detail: str
) -> None:
    """The answer names the field and the value, or what does not exist."""
    async with connect(make_service()) as caller:
        await base_sampler(caller)
        given = {
            key: value.format(session=caller.session_id) if isinstance(value, str) else value
            for key, value in fields.items()
        }
        response = await caller.send(kit.sample(**given))
    assert response.status_code == status
    assert detail in response.json()["detail"]


async def test_a_model_out_of_its_mind_fails_its_samples(make_service, connect, kit, caplog) -> None:
    """Weights whose probabilities are no numbers fail the requests to them as the user's, and no others."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        await caller.run(kit.forward_backward(model_id, 1))
        await caller.run(kit.optim_step(model_id, 2, learning_rate=1e30))
        target = await publish(caller, model_id, 3, 0)
        failed = await caller.poll((await caller.ask(kit.sample(sampling_session_id=target))).request_id)
        assert failed.json()["category"] == "user"
        assert "not finite" in failed.json()["error"]
        assert await caller.run(kit.sample(base_model="tiny"))
    assert caplog.records == []


async def test_a_decoder_that_crashes_fails_its_samples(
    make_service, connect, kit, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours is the server's, is logged, and the next request starts a fresh decoder."""
    async with connect(make_service()) as caller:
        with monkeypatch.context() as patch:
            patch.setattr("tinker_actors.local.sampler.Decoder.step", lambda _: 1 / 0)
            failed = await caller.poll((await caller.ask(kit.sample(base_model="tiny"))).request_id)
        assert failed.json() == {"error": "division by zero", "category": "server"}
        assert "ZeroDivisionError" in caplog.text
        assert await caller.run(kit.sample(base_model="tiny"))
