from __future__ import annotations

import orjson
import pytest
import trio
import trio.testing
from safetensors.numpy import load

from tinker_actors.local.store import CheckpointPath
from tinker_actors.wire.training import ForwardRequest
from tinker_actors.wire.weights import (
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
)


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


@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "directory"])
async def test_a_name_may_be_used_again_if_that_is_said(
    make_service, connect, kit, tmp_path, in_memory
) -> None:
    """The state, its metadata and its time to live are the new ones; without the word the name is taken."""
    service = make_service() if in_memory else make_service(store=tmp_path)
    async with connect(service) as caller:
        model_id = await caller.create_model()
        first = SaveWeightsRequest(model_id=model_id, path="a", seq_id=1, user_metadata={"n": "1"})
        path = (await caller.run(first))["path"]
        await caller.run(kit.forward_backward(model_id, 2))
        await caller.run(kit.optim_step(model_id, 3))
        again = SaveWeightsRequest(
            model_id=model_id, path="a", seq_id=4, overwrite=True, user_metadata={"n": "2"}
        )
        assert (await caller.run(again))["path"] == path
        files = service.store.load(CheckpointPath.parse(path), 0.0)
        assert load(files["optimizer.safetensors"])["optimizer.t"] == 1
        assert [kept.note.user_metadata for kept in service.store.kept(0.0)] == [{"n": "2"}]
        status = (await caller.send(SaveWeightsRequest(model_id=model_id, path="a", seq_id=5))).status_code
        assert status == 409


async def test_weights_for_use_elsewhere_have_the_files_of_peft(make_service, connect, kit) -> None:
    """The adapter and its configuration, no optimizer; who can read them cannot be said here."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model(rank=4)
        saved = await caller.run(SaveWeightsExternalRequest(model_id=model_id, path="e", seq_id=1))
        assert saved["path"] == f"tinker://{model_id}/external_weights/e"
        files = service.store.load(CheckpointPath.parse(saved["path"]), 0.0)
        assert sorted(files) == ["adapter_config.json", "adapter_model.safetensors"]
        assert saved["size_bytes"] == sum(map(len, files.values()))
        config = orjson.loads(files["adapter_config.json"])
        assert (config["peft_type"], config["r"]) == ("LORA", 4)
        encrypted = SaveWeightsExternalRequest(
            model_id=model_id, path="f", seq_id=2, age_encryption_recipients=("age1x",)
        )
        answer = await caller.send(encrypted)
        assert answer.status_code == 400
        assert answer.json()["field"] == "age_encryption_recipients"


async def test_a_model_is_made_of_a_checkpoint_in_one_request(make_service, connect, kit) -> None:
    """Of its shape, with its weights; a repetition makes no second one."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model(number=0, rank=4)
        await caller.run(kit.forward_backward(model_id, 1))
        await caller.run(kit.optim_step(model_id, 2))
        path = (await caller.run(SaveWeightsRequest(model_id=model_id, path="a", seq_id=3)))["path"]
        session = model_id.partition(":")[0]
        load_new = LoadWeightsRequest(session_id=session, model_seq_id=1, path=path, optimizer=True)
        made = await caller.run(load_new)
        assert made["model_id"] == f"{session}:train:1"
        assert await caller.run(load_new) == made
        assert await caller.weights_of(made["model_id"], 1) == await caller.weights_of(model_id, 4)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"path": "tinker://x/weights/none"}, 404),
        ({"base_model": "another"}, 400),
        ({"path": "sampler", "optimizer": True}, 400),
        ({"session_id": "session-none"}, 404),
    ],
)
async def test_what_cannot_be_made_of_a_checkpoint_is_refused(make_service, connect, changes, status) -> None:
    """Before a model takes its place."""
    service = make_service()
    async with connect(service) as caller:
        model_id = await caller.create_model(number=0)
        saved = await caller.run(SaveWeightsForSamplerRequest(model_id=model_id, path="s", seq_id=1))
        whole = await caller.run(SaveWeightsRequest(model_id=model_id, path="a", seq_id=2))
        session = model_id.partition(":")[0]
        fields = {
            "session_id": session,
            "model_seq_id": 1,
            "path": whole["path"],
            "optimizer": False,
        } | changes
        if fields["path"] == "sampler":
            fields["path"] = saved["path"]
        assert (await caller.send(LoadWeightsRequest(**fields))).status_code == status
        assert service.statistics().models == 1
