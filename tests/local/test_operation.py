from __future__ import annotations

import trio
import trio.testing

from tinker_actors.wire.training import ForwardRequest
from tinker_actors.wire.weights import LoadWeightsRequest, SaveWeightsForSamplerRequest, SaveWeightsRequest


async def test_forward_computes_the_same_and_accumulates_nothing(make_service, connect, kit) -> None:
    """A forward gives the loss and log-probabilities of forward_backward, and leaves the gradient alone."""
    async with connect(make_service()) as caller:
        one, other = [await caller.create_model(number=number) for number in range(2)]
        train = kit.forward_backward(one, 1)
        looked = await caller.run(ForwardRequest(train.forward_backward_input, other, 1))
        assert looked == await caller.run(train)
        assert len(looked["loss_fn_outputs"][0]["logprobs"]["data"]) == 4
        norms = [
            (await caller.run(kit.optim_step(model_id, 2)))["metrics"]["grad_norm"]
            for model_id in (one, other)
        ]
    assert norms[0] > 0
    assert norms[1] == 0


async def test_training_goes_on_from_a_checkpoint_bit_for_bit(make_service, connect, kit) -> None:
    """Saved in the middle and loaded with optimizer into a new model, training ends in the same bytes."""
    async with connect(make_service()) as caller:

        async def train(model_id: str, seq_id: int, steps: range) -> int:
            for step in steps:
                await caller.run(kit.forward_backward(model_id, seq_id, shift=step))
                await caller.run(kit.optim_step(model_id, seq_id + 1))
                seq_id += 2
            return seq_id

        straight = await caller.create_model(number=0)
        number = await train(straight, 1, range(3))
        saved = await caller.run(SaveWeightsRequest(model_id=straight, path="half", seq_id=number))
        number = await train(straight, number + 1, range(3, 6))
        expected = await caller.weights_of(straight, number)

        results = {}
        for index, optimizer in enumerate((True, False), start=1):
            model_id = await caller.create_model(number=index, seed=99)
            await caller.run(kit.forward_backward(model_id, 1))  # its gradient must not survive the loading
            load = LoadWeightsRequest(model_id=model_id, path=saved["path"], optimizer=optimizer, seq_id=2)
            assert (await caller.run(load))["path"] == saved["path"]
            results[optimizer] = await caller.weights_of(model_id, await train(model_id, 3, range(3, 6)))
    assert results[True] == expected
    assert results[False] != expected


async def test_the_same_weights_give_the_same_archive(make_service, connect, kit) -> None:
    """Two models with one history and two names have equal archives; training changes the bytes."""
    async with connect(make_service()) as caller:
        archives = []
        for number in range(2):
            model_id = await caller.create_model(number=number)
            await caller.run(kit.forward_backward(model_id, 1))
            await caller.run(kit.optim_step(model_id, 2))
            saved = await caller.run(SaveWeightsRequest(model_id=model_id, path=f"n{number}", seq_id=3))
            archives.append(await caller.archive(saved["path"]))
        assert archives[0] == archives[1]
        assert set(archives[0]) - {"tar"} == {
            "adapter_model.safetensors",
            "adapter_config.json",
            "optimizer.safetensors",
        }
        await caller.run(kit.optim_step(model_id, 4))
        sampler = SaveWeightsForSamplerRequest(model_id=model_id, path="n2", seq_id=5)
        later = await caller.archive((await caller.run(sampler))["path"])
        assert later["adapter_model.safetensors"] != archives[0]["adapter_model.safetensors"]
        assert set(later) - {"tar"} == {"adapter_model.safetensors", "adapter_config.json"}
        missing = await caller.http.get(kit.archive_url(f"tinker://{model_id}/weights/none"))
        assert missing.status_code == 404
        wrong = await caller.http.get(kit.archive_url(f"tinker://{model_id}/other/none"))
        assert wrong.status_code == 400


async def test_a_name_is_taken_when_the_request_is_accepted(make_service, connect, kit) -> None:
    """A second save under a name is refused while the first one still waits for its turn."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        waiting = await caller.ask(SaveWeightsRequest(model_id=model_id, path="a", seq_id=2))
        second = await caller.send(SaveWeightsRequest(model_id=model_id, path="a", seq_id=3))
        assert second.status_code == 409
        sampler = SaveWeightsForSamplerRequest(model_id=model_id, path="a", seq_id=3)
        assert (await caller.send(sampler)).status_code == 200
        await caller.run(kit.optim_step(model_id, 1))
        assert (await caller.poll(waiting.request_id)).json()["path"] == f"tinker://{model_id}/weights/a"


async def test_a_checkpoint_fits_only_models_of_its_shape(make_service, connect) -> None:
    """Loading into another rank fails with both shapes named, and as the user's mistake."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        saved = await caller.run(SaveWeightsRequest(model_id=model_id, path="a", seq_id=1))
        other = await caller.create_model(number=1, rank=8, train_mlp=False)
        load = LoadWeightsRequest(model_id=other, path=saved["path"], optimizer=False, seq_id=1)
        failed = (await caller.poll((await caller.ask(load)).request_id)).json()
        assert failed["category"] == "user"
        assert (
            "rank 4 on attn, mlp, unembed; this model is tiny with rank 8 on attn, unembed" in failed["error"]
        )


async def test_checkpoints_may_expire(make_service, connect, kit, autojump_clock) -> None:
    """A checkpoint with a time to live is there until then, and gone afterwards."""
    async with connect(make_service(session_timeout=1e6)) as caller:
        model_id = await caller.create_model()
        await caller.run(SaveWeightsRequest(model_id=model_id, path="a", seq_id=1, ttl_seconds=60))
        where = kit.archive_url(f"tinker://{model_id}/weights/a")
        await trio.sleep(59)
        assert (await caller.http.get(where)).status_code == 302
        await trio.sleep(2)
        assert (await caller.http.get(where)).status_code == 404


async def test_a_store_serves_one_service_after_another(make_service, connect, kit, tmp_path) -> None:
    """What one service saved into a directory another one loads."""
    async with connect(make_service(store=tmp_path)) as caller:
        model_id = await caller.create_model()
        await caller.run(kit.forward_backward(model_id, 1))
        await caller.run(kit.optim_step(model_id, 2))
        expected = await caller.weights_of(model_id, 3)
    async with connect(make_service(store=tmp_path)) as caller:
        second = await caller.create_model(seed=50)
        path = f"tinker://{model_id}/weights/final"
        await caller.run(LoadWeightsRequest(model_id=second, path=path, optimizer=True, seq_id=1))
        assert await caller.weights_of(second, 2) == expected
