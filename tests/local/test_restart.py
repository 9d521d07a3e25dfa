"""What a service has after a restart: it is asked over HTTP, in the same process."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

import tinker_actors as ta
from tinker_actors.errors import ConfigError, NotFoundError
from tinker_actors.local.state import FILE, ServiceState
from tinker_actors.local.store import CheckpointStore
from tinker_actors.protocol.recovery import classify
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, LoraConfig, UnloadModelRequest
from tinker_actors.wire.sampling import CreateSamplingSessionRequest
from tinker_actors.wire.session import (
    CreateSessionRequest,
    FinishReason,
    FinishSessionRequest,
    SessionHeartbeatRequest,
)
from tinker_actors.wire.weights import (
    CopyWeightsRequest,
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
)

WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
RUNS = "/api/v1/training_runs"


@pytest.fixture
def disk(tmp_path: Path) -> Any:
    """Give a function that copies a directory as it is now: what a kill at this moment would leave."""

    def copy(directory: Path, name: str) -> Path:
        return Path(shutil.copytree(directory, tmp_path / "copies" / name))

    return copy


async def status(caller: Any, request: object, **path: str) -> int:
    return (await caller.send(request, **path)).status_code


def save(model_id: str, number: int, name: str = "a", **options: Any) -> SaveWeightsRequest:
    return SaveWeightsRequest(model_id=model_id, path=name, seq_id=number, **options)


def creation(session_id: str, number: int = 0, seed: int | None = 1) -> CreateModelRequest:
    return CreateModelRequest(
        session_id=session_id,
        model_seq_id=number,
        base_model="tiny",
        lora_config=LoraConfig(rank=4, seed=seed),
    )


async def test_sessions_live_on(autojump_clock, make_service, connect, tmp_path: Path) -> None:
    """With what came with them; the time without a service is no silence, and silence ends them as ever."""
    async with connect(make_service(state=tmp_path)) as caller:
        request = CreateSessionRequest(
            tags=["a"], user_metadata={"user": "x"}, sdk_version="test", display_name="name"
        )
        alive = (await caller.ask(request)).session_id
        finished = await caller.open()
        reason = FinishReason("success")
        await caller.send(FinishSessionRequest(reason), session_id=finished)
        expired = await caller.open()
        for _ in range(3):
            await trio.sleep(200)
            await caller.ask(SessionHeartbeatRequest(alive))
        await trio.sleep(200)
    await trio.sleep(1000)
    async with connect(make_service(state=tmp_path)) as caller:
        for gone, why in ((finished, "has finished"), (expired, "has expired")):
            response = await caller.send(SessionHeartbeatRequest(gone))
            assert (response.status_code, why in response.text) == (410, True)
        about = (await caller.http.get(f"/api/v1/sessions/{alive}")).json()
        assert (about["user_metadata"], about["display_name"]) == ({"user": "x"}, "name")
        listed = (await caller.http.get("/api/v1/sessions")).json()["sessions"]
        assert listed[0] == alive
        assert set(listed) == {alive, finished, expired}
        await trio.sleep(299)
        await caller.ask(SessionHeartbeatRequest(alive))
        await trio.sleep(301)
        assert await status(caller, SessionHeartbeatRequest(alive)) == 410


async def test_models_are_not_loaded_and_are_said_to_be_lost(
    make_service, connect, kit, tmp_path: Path
) -> None:
    """Whatever is asked of them is answered in words by which a client knows that it has to restore."""
    async with connect(make_service(state=tmp_path)) as caller:
        model_id = await caller.create_model()
    async with connect(make_service(state=tmp_path)) as caller:
        for request in (
            kit.forward_backward(model_id, 1),
            kit.optim_step(model_id, 1),
            save(model_id, 1),
            GetInfoRequest(model_id),
            UnloadModelRequest(model_id),
        ):
            response = await caller.send(request)
            assert (response.status_code, "is not loaded" in response.text) == (404, True)
            error = NotFoundError(response.text, status_code=404)
            assert classify(error, "forward_backward") == "gone"
            assert classify(error, "load_state") == "gone"


async def test_an_id_never_means_another_model(make_service, connect, kit, tmp_path: Path) -> None:
    """A number used before the restart makes a new model, under an id with the boot; the old id stays lost."""
    async with connect(make_service(state=tmp_path)) as caller:
        session_id = await caller.open()
        first = await caller.ask(creation(session_id))
        await caller.poll(first.request_id)
    async with connect(make_service(state=tmp_path)) as caller:
        second = await caller.ask(creation(session_id))
        assert second.request_id != first.request_id
        assert await caller.ask(creation(session_id)) == second
        assert await status(caller, creation(session_id, seed=2)) == 409
        made = (await caller.poll(second.request_id)).json()
        assert made["model_id"] == second.model_id == f"{session_id}:train:0.b2"
        assert (await caller.poll(first.request_id)).status_code == 410
        assert await status(caller, GetInfoRequest(first.model_id)) == 404
        await caller.run(kit.forward_backward(second.model_id, 1))
        await caller.run(kit.optim_step(second.model_id, 2))
        path = (await caller.run(save(second.model_id, 3)))["path"]
        assert path == f"tinker://{session_id}:train:0.b2/weights/a"
        assert "adapter_model.safetensors" in await caller.archive(path)
        run = (await caller.http.get(f"{RUNS}/{second.model_id}")).json()
        assert run["last_checkpoint"]["tinker_path"] == path
        loaded = LoadWeightsRequest(path=path, optimizer=True, model_id=second.model_id, seq_id=4)
        assert (await caller.run(loaded))["model_id"] == second.model_id
        copied = await caller.ask(CopyWeightsRequest(source_path=path, session_id=session_id, model_seq_id=9))
        assert copied.tinker_path == f"tinker://{session_id}:train:9.b2/weights/a"
    async with connect(make_service(state=tmp_path)) as caller:
        third = (await caller.ask(creation(session_id))).model_id
        assert third == f"{session_id}:train:0.b3"
        about = (await caller.http.get(f"/api/v1/sessions/{session_id}")).json()
        assert about["training_run_ids"] == [first.model_id, second.model_id, third]


async def test_promises_are_answered_or_broken(make_service, connect, kit, tmp_path: Path, disk) -> None:
    """Saves and loads that were answered are answered again; of everything else it is said that it is lost."""
    directory = tmp_path / "service"
    async with connect(make_service(state=directory)) as caller:
        model_id = await caller.create_model()
        requests = [
            kit.forward_backward(model_id, 1),
            kit.optim_step(model_id, 2),
            save(model_id, 3),
            SaveWeightsForSamplerRequest(model_id=model_id, path="s", seq_id=4),
            SaveWeightsExternalRequest(model_id=model_id, path="e", seq_id=5),
            LoadWeightsRequest(
                path=f"tinker://{model_id}/weights/a", optimizer=True, model_id=model_id, seq_id=6
            ),
            SaveWeightsForSamplerRequest(model_id=model_id, sampling_session_seq_id=0, seq_id=7),
            save(model_id, 9, "never"),
            kit.sample(base_model="tiny"),
        ]
        ids = [(await caller.ask(request)).request_id for request in requests]
        before = [(await caller.poll(one)).json() for one in ids[:7]]
        await caller.poll(ids[8])
        killed = disk(directory, "killed")
    async with connect(make_service(state=killed, poll_hold=0)) as caller:
        after = [await caller.send(RetrieveFutureRequest(one)) for one in ids]
        assert [response.json() for response in after[2:6]] == before[2:6]
        for response in after[:2] + after[6:]:
            assert response.status_code == 410
            assert "is broken: the service was restarted" in response.text
        for unknown in ("nobody", "nobody:train:0:1", f"{model_id}x:1", "life:sample:1"):
            assert await status(caller, RetrieveFutureRequest(unknown)) == 404
        assert await caller.create_model() == f"{caller.session_id}:train:0.b2"


async def test_what_is_saved_is_on_disk_when_it_is_answered(
    make_service, connect, kit, tmp_path: Path, disk
) -> None:
    """A copy of the disk after each answer has everything that was answered: a kill there loses nothing."""
    directory = tmp_path / "service"
    copies: list[tuple[Path, dict[str, Any]]] = []
    saved: dict[str, Any] = {}
    async with connect(make_service(state=directory)) as caller:
        model_id = await caller.create_model()
        for number in range(1, 6):
            promise = await caller.ask(save(model_id, number, f"n{number}", user_metadata={"n": str(number)}))
            saved[promise.request_id] = (await caller.poll(promise.request_id)).json()
            copies.append((disk(directory, str(number)), dict(saved)))
    for copy, expected in copies:
        async with connect(make_service(state=copy)) as caller:
            for request_id, result in expected.items():
                assert (await caller.poll(request_id)).json() == result
                assert "optimizer.safetensors" in await caller.archive(result["path"])
            listed = (await caller.http.get(f"{RUNS}/{model_id}/checkpoints")).json()["checkpoints"]
            assert {one["tinker_path"] for one in listed} == {one["path"] for one in expected.values()}
            assert {one["user_metadata"]["n"] for one in listed} == {str(n + 1) for n in range(len(expected))}


async def test_a_kill_in_the_middle_of_a_save(
    make_service, connect, tmp_path: Path, disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each change of the disk a copy is made: in none is there half a checkpoint, or a result without one."""
    directory = tmp_path / "service"
    copies: list[Path] = []

    def before(owner: Any, name: str) -> None:
        change = getattr(owner, name)

        def copied(*arguments: Any, **options: Any) -> Any:
            copies.append(disk(directory, str(len(copies))))
            return change(*arguments, **options)

        monkeypatch.setattr(owner, name, copied)

    async with connect(make_service(state=directory)) as caller:
        model_id = await caller.create_model()
        first = await caller.ask(save(model_id, 1, "first"))
        await caller.poll(first.request_id)
        for owner, name in ((os, "fsync"), (Path, "rename"), (ServiceState, "_write")):
            before(owner, name)
        second = await caller.ask(save(model_id, 2, "second"))
        await caller.poll(second.request_id)
        again = await caller.ask(save(model_id, 3, "second", overwrite=True))
        await caller.poll(again.request_id)
        monkeypatch.undo()
    assert len(copies) > 15
    for copy in copies:
        async with connect(make_service(state=copy)) as caller:
            listed = (await caller.http.get("/api/v1/checkpoints")).json()["checkpoints"]
            paths = [one["tinker_path"] for one in listed]
            for path in paths:
                assert "optimizer.safetensors" in await caller.archive(path)
            for promise in (first, second, again):
                response = await caller.poll(promise.request_id)
                assert response.status_code == 410 or response.json()["path"] in paths
            assert (await caller.poll(first.request_id)).status_code == 200
            assert sorted(path.name for path in copy.iterdir() if path.name.startswith(".")) == []


async def test_runs_and_checkpoints_are_listed_as_they_were(
    autojump_clock, make_service, connect, kit, tmp_path: Path
) -> None:
    """With their times, what their users kept with them, and their ends, which come by the calendar meanwhile."""
    day = [WHEN]
    async with connect(make_service(state=tmp_path, utc_now=lambda: day[0])) as caller:
        model_id = await caller.create_model(rank=6)
        await trio.sleep(5)
        await caller.run(save(model_id, 1, "kept", user_metadata={"step": "1"}))
        await caller.run(save(model_id, 2, "short", ttl_seconds=60))
        await caller.run(save(model_id, 3, "long", ttl_seconds=7200))
        await caller.http.put(
            f"{RUNS}/{model_id}/checkpoints/weights/kept/ttl", json={"ttl_seconds": 24 * 3600}
        )
        await trio.sleep(20)
        await caller.run(kit.optim_step(model_id, 4))
        before = (await caller.http.get(f"{RUNS}/{model_id}")).json()
        listed = (await caller.http.get(f"{RUNS}/{model_id}/checkpoints")).json()["checkpoints"]
        idle = await caller.create_model(number=1)
        both = [run["training_run_id"] for run in (await caller.http.get(RUNS)).json()["training_runs"]]
        assert both == [idle, model_id]
    day[0] = WHEN + timedelta(hours=1)
    async with connect(make_service(state=tmp_path, utc_now=lambda: day[0])) as caller:
        after = (await caller.http.get(f"{RUNS}/{model_id}")).json()
        assert after["last_request_time"] == before["last_request_time"] == "2026-03-04T05:06:32Z"
        assert (after["lora_rank"], after["base_model"]) == (6, "tiny")
        assert (await caller.http.get(RUNS)).json()["training_runs"][0]["training_run_id"] == idle
        now = (await caller.http.get(f"{RUNS}/{model_id}/checkpoints")).json()["checkpoints"]
        assert now == [one for one in listed if one["checkpoint_id"] != "weights/short"]
        assert {one["checkpoint_id"]: one["expires_at"] for one in now} == {
            "weights/kept": "2026-03-05T05:06:12Z",
            "weights/long": "2026-03-04T07:06:12Z",
        }
        await trio.sleep(3606)
        left = (await caller.http.get("/api/v1/checkpoints")).json()["checkpoints"]
        assert [one["checkpoint_id"] for one in left] == ["weights/kept"]


async def test_the_time_of_the_last_request_survives_a_kill_nearly(
    autojump_clock, make_service, connect, kit, tmp_path: Path, disk
) -> None:
    """It is written down when ten seconds have passed since it last was, and not for each request."""
    directory = tmp_path / "service"
    async with connect(make_service(state=directory, utc_now=lambda: WHEN)) as caller:
        model_id = await caller.create_model()
        for number in range(1, 28):
            await caller.run(kit.optim_step(model_id, number))
            await trio.sleep(1)
        killed = disk(directory, "killed")
    async with connect(make_service(state=killed)) as caller:
        run = (await caller.http.get(f"{RUNS}/{model_id}")).json()
        assert run["last_request_time"] == "2026-03-04T05:06:27Z"


async def test_nothing_is_written_for_a_step(
    make_service, connect, kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients, optimizer steps, samples, beats and polls leave the file alone; a save writes what it has to."""
    written: list[str] = []
    write = ServiceState._write

    def counted(self: ServiceState, statement: str, *values: Any) -> None:
        written.append(statement.partition(" (")[0])
        write(self, statement, *values)

    monkeypatch.setattr(ServiceState, "_write", counted)
    async with connect(make_service(state=tmp_path)) as caller:
        model_id = await caller.create_model()
        written.clear()
        for step in range(5):
            await caller.run(kit.forward_backward(model_id, 2 * step + 1))
            await caller.run(kit.optim_step(model_id, 2 * step + 2))
            await caller.run(kit.sample(base_model="tiny"))
            await caller.ask(SessionHeartbeatRequest(caller.session_id))
        assert written == []
        await caller.run(save(model_id, 11))
        assert [statement.split()[0] for statement in written] == ["INSERT", "DELETE"]
        written.clear()


async def test_places_to_sample_from_are_there_again(make_service, connect, kit, tmp_path: Path) -> None:
    """Those of base models and of paths give the same samples; weights without a name are gone, and so is their id."""
    async with connect(make_service(state=tmp_path)) as caller:
        model_id = await caller.create_model()
        await caller.run(kit.forward_backward(model_id, 1))
        await caller.run(kit.optim_step(model_id, 2, learning_rate=1.0))
        named = SaveWeightsForSamplerRequest(model_id=model_id, path="s", seq_id=3)
        path = (await caller.run(named))["path"]
        unnamed = SaveWeightsForSamplerRequest(model_id=model_id, sampling_session_seq_id=2, seq_id=4)
        lost = (await caller.run(unnamed))["sampling_session_id"]
        session_id = caller.session_id
        opened = [
            CreateSamplingSessionRequest(
                session_id=session_id, sampling_session_seq_id=number, base_model=base, model_path=of
            )
            for number, base, of in ((0, "tiny", None), (1, None, path), (10, None, path))
        ]
        samplers = [(await caller.ask(request)).sampling_session_id for request in opened]
        before = [(await caller.run(kit.sample(sampling_session_id=one))) for one in samplers]
        assert before[0] != before[1] == before[2]
    for boot in (2, 3):
        async with connect(make_service(state=tmp_path)) as caller:
            about = (await caller.http.get(f"/api/v1/sessions/{session_id}")).json()
            assert about["sampler_ids"] == samplers
            described = (await caller.http.get(f"/api/v1/samplers/{samplers[1]}")).json()
            assert (described["base_model"], described["model_path"]) == ("tiny", path)
            assert [(await caller.run(kit.sample(sampling_session_id=one))) for one in samplers] == before
            assert [(await caller.ask(request)).sampling_session_id for request in opened] == samplers
            assert await status(caller, kit.sample(sampling_session_id=lost)) == 404
            caller.session_id = session_id
            model_id = await caller.create_model(number=boot)
            unnamed = SaveWeightsForSamplerRequest(model_id=model_id, sampling_session_seq_id=2, seq_id=1)
            assert (await caller.run(unnamed))["sampling_session_id"] == f"{session_id}:sample:2.b{boot}"
    async with connect(make_service(state=tmp_path)) as caller:
        await caller.http.delete(f"{RUNS}/{path.split('/')[2]}/checkpoints/sampler_weights/s")
        response = await caller.send(kit.sample(sampling_session_id=samplers[1]))
        assert (response.status_code, path in response.text) == (404, True)
        await caller.send(FinishSessionRequest(FinishReason("success")), session_id=session_id)
    async with connect(make_service(state=tmp_path)) as caller:
        assert await status(caller, kit.sample(sampling_session_id=samplers[0])) == 410


async def test_what_the_service_draws_goes_on(make_service, connect, kit, tmp_path: Path) -> None:
    """Adapters and samples without a seed are others than those before the restart."""
    seen: list[bytes] = []
    for _ in range(2):
        async with connect(make_service(state=tmp_path, seed=1)) as caller:
            model_id = await caller.create_model(seed=None)
            seen.append(await caller.weights_of(model_id, 1))
            seen.append(await caller.run(kit.sample(base_model="tiny", seed=None, max_tokens=20)))
    assert seen[0] != seen[2]
    assert seen[1] != seen[3]


async def test_a_second_service_is_refused_and_the_first_unharmed(
    make_service, connect, kit, tmp_path: Path
) -> None:
    """It is told that the directory is in use, and touches nothing in it."""
    draft = tmp_path / ".draft-at-work"
    async with connect(make_service(state=tmp_path)) as caller:
        model_id = await caller.create_model()
        draft.mkdir()
        with pytest.raises(ConfigError, match="is in use"):
            async with make_service(state=tmp_path).running():
                pass
        assert draft.is_dir()
        await caller.run(save(model_id, 1))
    async with connect(make_service(state=tmp_path)) as caller:
        assert not draft.exists()
        assert (await caller.http.get(f"{RUNS}/{model_id}")).status_code == 200


async def test_a_directory_of_checkpoints_alone_is_taken_over(
    make_service, connect, kit, tmp_path: Path
) -> None:
    """What a service without a state has saved is listed and loaded, and the state is new."""
    async with connect(make_service(store=tmp_path)) as caller:
        model_id = await caller.create_model()
        path = (await caller.run(save(model_id, 1)))["path"]
        old = await caller.archive(path)
    assert not (tmp_path / FILE).exists()
    async with connect(make_service(state=tmp_path)) as caller:
        runs = (await caller.http.get(RUNS)).json()["training_runs"]
        assert [run["training_run_id"] for run in runs] == [model_id]
        assert await caller.archive(path) == old
        new = await caller.create_model()
        assert new == f"{caller.session_id}:train:0"  # the first boot
        await caller.run(LoadWeightsRequest(path=path, optimizer=True, model_id=new, seq_id=1))
        assert await caller.weights_of(new, 2) == old["adapter_model.safetensors"]


async def test_checkpoints_may_lie_elsewhere(make_service, connect, kit, tmp_path: Path) -> None:
    """A store that is given is used, and nothing is cleaned up where others may be at work."""
    store = CheckpointStore(tmp_path / "shared")
    (tmp_path / "shared" / ".draft-of-others").mkdir(parents=True)
    async with connect(make_service(store=store, state=tmp_path / "state")) as caller:
        model_id = await caller.create_model()
        await caller.run(save(model_id, 1))
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == [FILE]
    assert (tmp_path / "shared" / ".draft-of-others").is_dir()
    assert len(CheckpointStore(tmp_path / "shared").kept(0)) == 1


async def test_the_next_process_goes_on_with_its_embedded_service(make_service, tmp_path: Path) -> None:
    """A client on the same directory finds run and checkpoint, and trains on from there as if nothing had been."""

    async def step(training: ta.TrainingClient, number: int) -> None:
        inputs = {"target_tokens": [11, 12 + number, 13], "weights": [1.0] * 3}
        await training.forward_backward(
            [ta.Datum(ta.ModelInput.from_ints([10, 11, 12]), inputs)], "cross_entropy"
        )
        await training.optim_step(ta.AdamParams(learning_rate=1e-2))

    async def end(service: ta.ServiceClient, training: ta.TrainingClient, name: str) -> bytes:
        path = (await training.save_state("end")).path
        files = await service.rest.download_checkpoint(path, tmp_path / name, extract=True)
        return (files / "adapter_model.safetensors").read_bytes()

    def opened() -> AbstractAsyncContextManager[ta.ServiceClient]:
        embedded = make_service(state=tmp_path / "service")
        return ta.open_service(backend="local", embedded=embedded, heartbeat="loop")

    async with opened() as service:
        training = await service.create_lora_training_client("tiny", rank=4, seed=1, user_metadata={"n": "1"})
        first = training.model_id
        await step(training, 0)
        path = (await training.save_state("half")).path
        await step(training, 1)
        expected = await end(service, training, "first")
    async with opened() as service:
        run = await service.rest.get_training_run(first)
        assert (run.user_metadata, run.last_checkpoint.checkpoint_id) == ({"n": "1"}, "weights/end")
        training = await service.create_training_client_from_state_with_optimizer(path)
        assert training.model_id.endswith(":train:0.b2")
        await step(training, 1)
        assert await end(service, training, "second") == expected


async def test_a_disk_that_refuses_refuses_requests(
    autojump_clock, make_service, connect, kit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What must be kept and cannot be is not acknowledged; training and the service go on."""
    service = make_service(state=tmp_path)
    async with connect(service) as caller:
        model_id = await caller.create_model()
        session_id = caller.session_id
        service._engine._state._connection.execute("PRAGMA query_only = ON")
        request = CreateSessionRequest(tags=[], user_metadata={}, sdk_version="test")
        response = await caller.send(request)
        assert (response.status_code, "service.sqlite" in response.text) == (500, True)
        assert await status(caller, creation(session_id, 1)) == 500
        promise = await caller.ask(save(model_id, 1))
        failed = (await caller.poll(promise.request_id)).json()
        assert (failed["category"], "service.sqlite" in failed["error"]) == ("server", True)
        await trio.sleep(20)
        await caller.run(kit.optim_step(model_id, 2))
        await trio.sleep(400)  # the sessions expire, and that cannot be kept either
        assert await status(caller, SessionHeartbeatRequest(session_id)) == 410
        assert await status(caller, SessionHeartbeatRequest("nobody")) == 404
    assert "not kept" in caplog.text
    async with connect(make_service(state=tmp_path)) as caller:
        assert await status(caller, SessionHeartbeatRequest(session_id)) == 200
        assert (await caller.poll(promise.request_id)).status_code == 410


async def test_ends_that_cannot_be_kept_free_everything(
    autojump_clock, make_service, connect, tmp_path: Path
) -> None:
    """Of all sessions that end together, also if the disk refuses to keep that of the first."""
    service = make_service(state=tmp_path)
    async with connect(service) as caller:
        for number in range(2):
            session_id = await caller.open()
            await caller.run(creation(session_id, number))
        assert service.statistics().models == 2
        service._engine._state._connection.execute("PRAGMA query_only = ON")
        await trio.sleep(400)
        assert service.statistics().models == 0
