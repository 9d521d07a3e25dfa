"""What the embedded service keeps, listed and changed over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from tinker_actors.local.store import CheckpointPath
from tinker_actors.wire.sampling import CreateSamplingSessionRequest
from tinker_actors.wire.session import CreateSessionRequest
from tinker_actors.wire.weights import (
    CopyWeightsRequest,
    LoadWeightsRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    WeightsInfoRequest,
)

WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
RUNS = "/api/v1/training_runs"


async def get(caller: Any, path: str) -> Any:
    """Ask for something that must be there."""
    response = await caller.http.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def put(caller: Any, method: str, path: str, status: int = 200, **options: Any) -> Any:
    """Do something that is answered with a status."""
    response = await caller.http.request(method, path, **options)
    assert response.status_code == status, response.text
    return response.json()


async def save(caller: Any, model_id: str, number: int, name: str, **options: Any) -> str:
    """Save a model under a name."""
    request = SaveWeightsRequest(model_id=model_id, path=name, seq_id=number, **options)
    path: str = (await caller.run(request))["path"]
    return path


async def test_a_run_is_listed_with_its_checkpoints(autojump_clock: Any, make_service, connect) -> None:
    """What it was made of, when it was used, its latest checkpoints of both kinds; times are of the calendar."""
    async with connect(make_service(utc_now=lambda: WHEN)) as caller:
        model_id = await caller.create_model(rank=6)
        await trio.sleep(10)
        path = await save(caller, model_id, 1, "a", user_metadata={"step": "1"})
        await trio.sleep(10)
        sampler = SaveWeightsForSamplerRequest(model_id=model_id, path="s", seq_id=2, ttl_seconds=60)
        await caller.run(sampler)
        run = await get(caller, f"{RUNS}/{model_id}")
        assert run["base_model"] == "tiny"
        assert (run["lora_rank"], run["is_lora"], run["corrupted"]) == (6, True, False)
        assert run["last_request_time"] == "2026-03-04T05:06:27Z"
        last = run["last_checkpoint"]
        assert (last["tinker_path"], last["checkpoint_id"], last["checkpoint_type"]) == (
            path,
            "weights/a",
            "training",
        )
        assert (last["time"], last["user_metadata"], last["public"]) == (
            "2026-03-04T05:06:17Z",
            {"step": "1"},
            False,
        )
        assert last["size_bytes"] > 1000
        assert run["last_sampler_checkpoint"]["expires_at"] == "2026-03-04T05:07:27Z"
        listed = await get(caller, f"{RUNS}/{model_id}/checkpoints")
        assert [one["checkpoint_id"] for one in listed["checkpoints"]] == ["sampler_weights/s", "weights/a"]
        for unknown in (f"{RUNS}/nobody", f"{RUNS}/nobody/checkpoints"):
            await put(caller, "GET", unknown, 404)


async def test_lists_come_in_pages(make_service, connect) -> None:
    """The latest first, by limit and offset, with the number of all; a limit that is none is refused."""
    async with connect(make_service()) as caller:
        models = [await caller.create_model(number=number) for number in range(3)]
        page = await get(caller, f"{RUNS}?limit=2&offset=1")
        assert [run["training_run_id"] for run in page["training_runs"]] == models[1::-1]
        assert page["cursor"] == {"offset": 1, "limit": 2, "total_count": 3}
        assert len((await get(caller, RUNS))["training_runs"]) == 3
        assert (await get(caller, f"{RUNS}?project_id=p"))["training_runs"] == []
        for name in "abc":
            await save(caller, models[0], ord(name) - 96, name)
        kept = await get(caller, "/api/v1/checkpoints?limit=2")
        assert [one["checkpoint_id"] for one in kept["checkpoints"]] == ["weights/c", "weights/b"]
        assert kept["cursor"]["total_count"] == 3
        for bad in ("limit=0", "limit=x", "offset=-1", "limit=" + "9" * 5000, f"offset={2**64}", "limit=١"):
            await put(caller, "GET", f"{RUNS}?{bad}", 400)


async def test_a_checkpoint_is_changed_and_deleted(autojump_clock: Any, make_service, connect) -> None:
    """Published and hidden once, kept for a while, deleted; what is gone is 404 in every way."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model()
        await save(caller, model_id, 1, "a")
        place = f"{RUNS}/{model_id}/checkpoints/weights/a"
        assert await put(caller, "POST", f"{place}/publish") == {}
        await put(caller, "POST", f"{place}/publish", 409)
        await put(caller, "DELETE", f"{place}/publish")
        await put(caller, "DELETE", f"{place}/publish", 409)
        await put(caller, "PUT", f"{place}/ttl", json={"ttl_seconds": 60})
        await put(caller, "PUT", f"{place}/ttl", json={"ttl_seconds": None})
        await trio.sleep(100)
        assert len((await get(caller, "/api/v1/checkpoints"))["checkpoints"]) == 1
        await put(caller, "PUT", f"{place}/ttl", 400, json={"ttl_seconds": 0})
        await put(caller, "DELETE", place)
        await put(caller, "DELETE", place, 404)
        for method, rest in (("POST", "publish"), ("DELETE", "publish"), ("GET", "archive")):
            await put(caller, method, f"{place}/{rest}", 404)
        await put(caller, "PUT", f"{place}/ttl", 404, json={"ttl_seconds": 9})
        await put(caller, "DELETE", f"{RUNS}/{model_id}/checkpoints/other/a", 400)
        assert await save(caller, model_id, 2, "a")


async def test_what_weights_were_made_of(make_service, connect) -> None:
    """Enough to make a model that can load them."""
    async with connect(make_service()) as caller:
        model_id = await caller.create_model(rank=6, train_mlp=False)
        path = await save(caller, model_id, 1, "a")
        info = await caller.ask(WeightsInfoRequest(path))
        assert (info.base_model, info.is_lora, info.lora_rank) == ("tiny", True, 6)
        assert (info.train_attn, info.train_mlp, info.train_unembed) == (True, False, True)
        assert (await caller.send(WeightsInfoRequest(f"tinker://{model_id}/weights/b"))).status_code == 404
        assert (await caller.send(WeightsInfoRequest("tinker://b"))).status_code == 400


@pytest.mark.parametrize("on_disk", [False, True])
async def test_weights_are_copied(make_service, connect, tmp_path: Path, on_disk: bool) -> None:
    """A copy is a run of its own that can be loaded and outlives the source; the same request makes one copy."""
    async with connect(make_service(store=tmp_path if on_disk else None)) as caller:
        model_id = await caller.create_model()
        path = await save(caller, model_id, 1, "a", user_metadata={"a": "b"})
        request = CopyWeightsRequest(source_path=path, destination_project_id="p", ttl_seconds=3600)
        copy = (await caller.ask(request)).tinker_path
        assert (await caller.ask(request)).tinker_path == copy
        assert copy != path
        assert copy.endswith("/weights/a")
        place = path.removeprefix(f"tinker://{model_id}/")
        await put(caller, "DELETE", f"{RUNS}/{model_id}/checkpoints/{place}")
        loaded = LoadWeightsRequest(model_id=model_id, seq_id=2, path=copy, optimizer=True)
        assert (await caller.run(loaded))["path"] == copy
        runs = await get(caller, RUNS)
        assert [run["training_run_id"] for run in runs["training_runs"]] == [
            model_id,
            CheckpointPath.parse(copy).run,
        ]
        assert runs["training_runs"][1]["last_checkpoint"]["user_metadata"] == {"a": "b"}
        mine = CopyWeightsRequest(source_path=copy, session_id=caller.session_id, model_seq_id=7)
        assert (await caller.ask(mine)).tinker_path == f"tinker://{caller.session_id}:train:7/weights/a"
        assert (await caller.send(mine)).status_code == 409
        nowhere = CopyWeightsRequest(source_path=path, destination_project_id="p")
        assert (await caller.send(nowhere)).status_code == 404


async def test_sessions_and_samplers_are_listed(make_service, connect) -> None:
    """What belongs to a session, what a sampler samples from; ended sessions are remembered."""
    async with connect(make_service()) as caller:
        request = CreateSessionRequest(
            tags=(), user_metadata={"who": "me"}, sdk_version="1", display_name="mine"
        )
        first = (await caller.ask(request)).session_id
        model_id = await caller.create_model()
        path = await save(caller, model_id, 1, "a")
        session_id = caller.session_id
        based = CreateSamplingSessionRequest(
            session_id=session_id, sampling_session_seq_id=0, base_model="tiny"
        )
        saved = CreateSamplingSessionRequest(
            session_id=session_id, sampling_session_seq_id=1, model_path=path
        )
        samplers = [(await caller.ask(one)).sampling_session_id for one in (based, saved)]
        unnamed = SaveWeightsForSamplerRequest(model_id=model_id, sampling_session_seq_id=2, seq_id=2)
        samplers.append((await caller.run(unnamed))["sampling_session_id"])
        assert (await get(caller, "/api/v1/sessions"))["sessions"] == [session_id, first]
        assert (await get(caller, "/api/v1/sessions?limit=1&offset=1"))["sessions"] == [first]
        told = await get(caller, f"/api/v1/sessions/{first}")
        assert (told["user_metadata"], told["display_name"]) == ({"who": "me"}, "mine")
        told = await get(caller, f"/api/v1/sessions/{session_id}?access_scope=accessible")
        assert (told["training_run_ids"], told["sampler_ids"]) == ([model_id], samplers)
        paths = [(await get(caller, f"/api/v1/samplers/{one}")).get("model_path") for one in samplers]
        assert paths == [None, path, None]
        await put(
            caller, "POST", f"/api/v1/sessions/{session_id}/finish", json={"reason": {"type": "success"}}
        )
        assert (await get(caller, "/api/v1/sessions"))["sessions"] == [first, session_id]
        assert (await get(caller, f"/api/v1/sessions/{session_id}"))["sampler_ids"] == []
        for unknown in ("/api/v1/sessions/nobody", f"/api/v1/samplers/{samplers[0]}"):
            await put(caller, "GET", unknown, 404)


async def test_what_lies_in_a_directory_is_listed_by_the_next_service(
    make_service, connect, tmp_path: Path
) -> None:
    """Runs of an earlier life are known by their checkpoints; one whose only checkpoint is damaged is left out."""
    async with connect(make_service(store=tmp_path)) as caller:
        model_id = await caller.create_model(rank=5)
        path = await save(caller, model_id, 1, "a")
        await put(caller, "POST", f"{RUNS}/{model_id}/checkpoints/weights/a/publish")
    damaged = tmp_path / "other" / "weights" / "x"
    damaged.mkdir(parents=True)
    async with connect(make_service(store=tmp_path)) as caller:
        (run,) = (await get(caller, RUNS))["training_runs"]
        assert (run["training_run_id"], run["base_model"], run["lora_rank"]) == (model_id, "tiny", 5)
        assert run["last_checkpoint"]["tinker_path"] == path
        assert run["last_checkpoint"]["public"]
        assert run["last_request_time"] == run["last_checkpoint"]["time"]
        listed = await get(caller, f"{RUNS}/{model_id}/checkpoints")
        assert [one["tinker_path"] for one in listed["checkpoints"]] == [path]
