"""Plain calls: what goes out, what is refused before, and what the answers mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
from trio.testing import assert_checkpoints

from tests.actors.recorder import Call, Recorder, rest_on
from tinker_actors.actors.deletion import delete_each
from tinker_actors.errors import (
    APIConnectionError,
    ConflictError,
    CredentialError,
    DeletionFailed,
    InputError,
    InternalServerError,
    NotFoundError,
    RequestFailedError,
)
from tinker_actors.testing import ServiceFaults, open_scripted_service
from tinker_actors.testing.service.session import make_jwt
from tinker_actors.transport.config import Config
from tinker_actors.types import AdamParams, Datum, ModelInput
from tinker_actors.wire.session import SessionActive, SessionSearchRequest

MODEL = "tinker-actors/char-100k"
DATA = [Datum(ModelInput.from_ints([1]), {"target_tokens": [1], "weights": [1.0]})]
PATH = "tinker://f00d:train:0/weights/0001"
RUN = {
    "training_run_id": "f00d:train:0",
    "base_model": "b",
    "model_owner": "o",
    "is_lora": True,
    "last_request_time": "2026-03-04T05:06:07Z",
}
CURSOR = {"offset": 0, "limit": 20, "total_count": 0}
AT = "/api/v1/training_runs/f00d:train:0"


CALLS: dict[str, tuple[Call, str, Any, Any]] = {
    # name: the call, what goes out, its body, what is answered
    "capabilities": (
        lambda rest: rest.get_server_capabilities(),
        "GET /api/v1/get_server_capabilities",
        None,
        {"supported_models": []},
    ),
    "health": (lambda rest: rest.health_check(), "GET /api/v1/healthz", None, {"status": "ok"}),
    "run": (
        lambda rest: rest.get_training_run("f00d:train:0"),
        f"GET {AT}?access_scope=owned",
        None,
        RUN,
    ),
    "run by path": (
        lambda rest: rest.get_training_run_by_tinker_path(PATH, "accessible"),
        f"GET {AT}?access_scope=accessible",
        None,
        RUN,
    ),
    "weights info": (
        lambda rest: rest.get_weights_info_by_tinker_path(PATH),
        "POST /api/v1/weights_info",
        {"tinker_path": PATH},
        {"base_model": "b", "is_lora": True, "lora_rank": 4},
    ),
    "runs": (
        lambda rest: rest.list_training_runs(),
        "GET /api/v1/training_runs?limit=20&offset=0&access_scope=owned",
        None,
        {"training_runs": [RUN], "cursor": CURSOR},
    ),
    "runs of a project": (
        lambda rest: rest.list_training_runs(5, 10, "accessible", "p"),
        "GET /api/v1/training_runs?limit=5&offset=10&access_scope=accessible&project_id=p",
        None,
        {"training_runs": [], "cursor": CURSOR},
    ),
    "checkpoints": (
        lambda rest: rest.list_checkpoints("f00d:train:0"),
        f"GET {AT}/checkpoints",
        None,
        {"checkpoints": []},
    ),
    "user checkpoints": (
        lambda rest: rest.list_user_checkpoints(),
        "GET /api/v1/checkpoints?limit=100&offset=0",
        None,
        {"checkpoints": []},
    ),
    "external urls": (
        lambda rest: rest.get_external_weights_urls("tinker://f00d:train:0/external_weights/a"),
        f"GET {AT}/checkpoints/external_weights/a/external_weights_urls",
        None,
        {"urls": {"a": "https://x"}, "expires": "2026-03-04T05:06:07Z"},
    ),
    "delete": (
        lambda rest: rest.delete_checkpoint("f00d:train:0", "weights/0001"),
        f"DELETE {AT}/checkpoints/weights/0001",
        None,
        None,
    ),
    "delete by path": (
        lambda rest: rest.delete_checkpoint_from_tinker_path(PATH),
        f"DELETE {AT}/checkpoints/weights/0001",
        None,
        None,
    ),
    "publish": (
        lambda rest: rest.publish_checkpoint_from_tinker_path(PATH),
        f"POST {AT}/checkpoints/weights/0001/publish",
        None,
        None,
    ),
    "unpublish": (
        lambda rest: rest.unpublish_checkpoint_from_tinker_path(PATH),
        f"DELETE {AT}/checkpoints/weights/0001/publish",
        None,
        None,
    ),
    "ttl": (
        lambda rest: rest.set_checkpoint_ttl_from_tinker_path(PATH, 3600),
        f"PUT {AT}/checkpoints/weights/0001/ttl",
        {"ttl_seconds": 3600},
        None,
    ),
    "no ttl": (
        lambda rest: rest.set_checkpoint_ttl_from_tinker_path(PATH, None),
        f"PUT {AT}/checkpoints/weights/0001/ttl",
        {"ttl_seconds": None},
        None,
    ),
    "archive": (
        lambda rest: rest.get_checkpoint_archive_url("f00d:train:0", "weights/0001"),
        f"GET {AT}/checkpoints/weights/0001/archive",
        None,
        {"url": "https://x"},
    ),
    "archive by path": (
        lambda rest: rest.get_checkpoint_archive_url_from_tinker_path(PATH),
        f"GET {AT}/checkpoints/weights/0001/archive",
        None,
        {"url": "https://x"},
    ),
    "copy": (
        lambda rest: rest.copy_weights(PATH, "p", ttl_seconds=3600),
        "POST /api/v1/copy_weights",
        {"source_path": PATH, "destination_project_id": "p", "ttl_seconds": 3600},
        {"tinker_path": "tinker://c/weights/0001"},
    ),
    "session": (
        lambda rest: rest.get_session("s"),
        "GET /api/v1/sessions/s?access_scope=owned",
        None,
        {"training_run_ids": [], "sampler_ids": []},
    ),
    "sessions": (
        lambda rest: rest.list_sessions(),
        "GET /api/v1/sessions?limit=20&offset=0&access_scope=owned",
        None,
        {"sessions": []},
    ),
    "search": (
        lambda rest: rest.search_sessions(SessionSearchRequest(display_name="x")),
        "POST /api/v1/sessions/search",
        {"display_name": "x", "limit": 50, "owner": {"type": "own"}, "user_metadata": {}},
        {"sessions": []},
    ),
    "project": (
        lambda rest: rest.assign_session_project("s", "p"),
        "PUT /api/v1/sessions/s/project",
        {"project_id": "p"},
        None,
    ),
    "trace": (
        lambda rest: rest.export_session_trace("s"),
        "GET /api/v1/sessions/s/trace_export",
        None,
        {"status": "ready", "url": "https://x"},
    ),
    "sampler": (
        lambda rest: rest.get_sampler("s:sample:0"),
        "GET /api/v1/samplers/s:sample:0",
        None,
        {"sampler_id": "s:sample:0", "base_model": "b"},
    ),
}


@pytest.mark.requirement("R153")
@pytest.mark.lesson("D1", "D2", "D29")
@pytest.mark.parametrize("name", CALLS)
async def test_each_call_goes_out_as_documented(name: str) -> None:
    """Its method, its path with nothing over-encoded, its whole query with the official defaults, and its body."""
    call, line, body, answer = CALLS[name]
    method, target = line.split(" ", 1)
    recorder = Recorder({f"{method} {target.partition('?')[0]}": answer or httpx.Response(204)})
    async with rest_on(recorder) as rest:
        with assert_checkpoints():
            await call(rest)
    assert recorder.sent == [(method, target, body)]


@pytest.mark.lesson("D25")
@pytest.mark.parametrize("answer", [httpx.Response(204), httpx.Response(200, text=""), {}, {"deleted": True}])
async def test_an_answer_that_says_nothing_is_fine(answer: Any) -> None:
    """Deleting may be answered without a body, or with anything."""
    recorder = Recorder({f"DELETE {AT}/checkpoints/weights/0001": answer})
    async with rest_on(recorder) as rest:
        await rest.delete_checkpoint_from_tinker_path(PATH)


@pytest.mark.lesson("D18")
@pytest.mark.requirement("R7")
async def test_capabilities_name_the_models() -> None:
    """Models come as objects, with all that is said of them."""
    models = [{"model_name": "org/m", "max_context_length": 7, "trainable": True}, {"model_id": "odd"}]
    recorder = Recorder({"GET /api/v1/get_server_capabilities": {"supported_models": models}})
    async with rest_on(recorder) as rest:
        first, second = (await rest.get_server_capabilities()).supported_models
    assert (first.model_name, first.max_context_length, first.trainable) == ("org/m", 7, True)
    assert second.model_name is None


BAD_PATHS: dict[str, Call] = {
    "get_training_run_by_tinker_path": lambda rest: rest.get_training_run_by_tinker_path("tinker://r/x/1"),
    "get_weights_info_by_tinker_path": lambda rest: rest.get_weights_info_by_tinker_path("tinker://r/x/1"),
    "delete_checkpoint_from_tinker_path": lambda rest: rest.delete_checkpoint_from_tinker_path(
        "tinker://r/x/1"
    ),
    "delete_checkpoints": lambda rest: rest.delete_checkpoints([PATH, "tinker://r/x/1"]),
    "publish": lambda rest: rest.publish_checkpoint_from_tinker_path("tinker://r/x/1"),
    "unpublish": lambda rest: rest.unpublish_checkpoint_from_tinker_path("tinker://r/x/1"),
    "ttl": lambda rest: rest.set_checkpoint_ttl_from_tinker_path("tinker://r/x/1", 3),
    "archive": lambda rest: rest.get_checkpoint_archive_url_from_tinker_path("tinker://r/x/1"),
    "external": lambda rest: rest.get_external_weights_urls("tinker://r/x/1"),
    "copy_weights": lambda rest: rest.copy_weights("tinker://r/x/1", "p"),
}


@pytest.mark.requirement("R154")
@pytest.mark.parametrize("name", BAD_PATHS)
async def test_each_path_is_looked_at_before_anything_is_sent(name: str) -> None:
    """What is no checkpoint's path is refused here, with the field and the value; nothing goes out at all."""
    recorder = Recorder()
    async with rest_on(recorder) as rest:
        with pytest.raises(InputError, match="tinker://r/x/1") as caught:
            await BAD_PATHS[name](rest)
    assert (caught.value.field, caught.value.value) == (
        "path" if name == "copy_weights" else "tinker_path",
        "tinker://r/x/1",
    )
    assert (recorder.sent, recorder.asked_for_flags) == ([], 0)


BAD_VALUES: dict[str, Call] = {
    "limit": lambda rest: rest.list_training_runs(limit=0),
    "offset": lambda rest: rest.list_user_checkpoints(offset=-1),
    "access_scope": lambda rest: rest.get_session("s", "mine"),  # type: ignore[arg-type]
    "ttl_seconds": lambda rest: rest.set_checkpoint_ttl_from_tinker_path(PATH, 0),
    "destination_project_id": lambda rest: rest.copy_weights(PATH),
    "tinker_path": lambda rest: rest.get_external_weights_urls(PATH),
    "training_run_id": lambda rest: rest.get_training_run("a/b"),
    "checkpoint_id": lambda rest: rest.delete_checkpoint("r", "0001"),
    "session_id": lambda rest: rest.get_session(""),
    "sampler_id": lambda rest: rest.get_sampler(None),  # type: ignore[arg-type]
    "tinker_paths": lambda rest: rest.delete_checkpoints(PATH),
    "request": lambda rest: rest.search_sessions("mine"),  # type: ignore[arg-type]
    "page_size": lambda rest: rest.training_runs(page_size="9"),  # type: ignore[arg-type, return-value]
}


@pytest.mark.parametrize("field", BAD_VALUES)
async def test_values_are_looked_at_before_anything_is_sent(field: str) -> None:
    """A value that cannot be is refused here under its name."""
    recorder = Recorder()
    async with rest_on(recorder) as rest:
        with pytest.raises(InputError) as caught:
            await BAD_VALUES[field](rest)
    assert caught.value.field == field
    assert recorder.sent == []


@pytest.mark.parametrize("path", ["twinkle://m/weights/1", "/weights/1"])
async def test_what_is_sent_whole_may_be_another_services_path(path: str) -> None:
    """Only what is taken apart must have parts."""
    recorder = Recorder(
        {
            "POST /api/v1/weights_info": {"base_model": "b", "is_lora": True},
            "POST /api/v1/copy_weights": {"tinker_path": PATH},
        }
    )
    async with rest_on(recorder, project_id="mine") as rest:
        assert (await rest.get_weights_info_by_tinker_path(path)).base_model == "b"
        assert await rest.copy_weights(path) == PATH
    assert recorder.sent[1][2] == {"source_path": path, "destination_project_id": "mine"}


async def test_a_token_for_others_weights_goes_into_a_header() -> None:
    """It admits to weights, so it stands in no body and no error."""
    recorder = Recorder({"POST /api/v1/copy_weights": {"tinker_path": PATH}})
    async with rest_on(recorder) as rest:
        await rest.copy_weights(PATH, "p", weights_access_token="hush")
    assert "hush" not in json.dumps(recorder.sent)
    assert recorder.headers[0]["x-tinker-weights-access-token"] == "hush"


# ------------------------------------------------------------------------------------------------------- opening


@pytest.mark.requirement("R6")
async def test_a_client_is_made_without_a_word() -> None:
    """Nothing is sent before the first call, which asks for the flags once, however many calls there are."""
    recorder = Recorder({"GET /api/v1/healthz": {"status": "ok"}}, flags={"sequence_dedupe": "replay"})
    async with rest_on(recorder) as rest:
        await trio.testing.wait_all_tasks_blocked()
        assert (recorder.sent, recorder.asked_for_flags) == ([], 0)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(rest.health_check)
    assert (len(recorder.sent), recorder.asked_for_flags) == (5, 1)


async def test_flags_that_could_not_be_had_are_asked_for_again(autojump_clock: Any) -> None:
    """The call that needed them fails as they did; a service that comes back is asked again."""
    recorder = Recorder({"GET /api/v1/healthz": {"status": "ok"}}, flags={})
    down = True
    plain = recorder.handle_async_request

    async def handle(request: httpx.Request) -> httpx.Response:
        if down:
            raise httpx.ConnectError("down")
        return await plain(request)

    recorder.handle_async_request = handle  # type: ignore[method-assign]
    async with rest_on(recorder, max_retries=0) as rest:
        with pytest.raises(APIConnectionError):
            await rest.health_check()
        down = False
        assert (await rest.health_check()).status == "ok"


async def test_a_key_is_exchanged_where_the_service_says_so() -> None:
    """A client alone knows how to identify itself, and who it is."""
    token = make_jwt("user-7", 0, 4e9)
    recorder = Recorder(
        {"GET /api/v1/healthz": {"status": "ok"}, "POST /api/v1/auth/token": {"jwt": token}},
        flags={"pjwt_auth_enabled": True},
    )
    async with rest_on(recorder, api_key="tml-key") as rest:
        await rest.health_check()
        assert recorder.headers[-1]["x-api-key"] == token
        calls = len(recorder.sent)
        who = await rest.whoami()
    assert (who.user_urn, who.org_urn, who.email) == ("user-7", "tml:organization:org", None)
    assert len(recorder.sent) == calls


async def test_a_plain_key_does_not_say_who_one_is() -> None:
    """Without a token there is nothing to read; the error does not show the key."""
    async with rest_on(Recorder(), api_key="tml-hush") as rest:
        with pytest.raises(CredentialError) as caught:
            await rest.whoami()
    assert "hush" not in str(caught.value)


async def test_the_official_async_names_lead_to_the_plain_ones() -> None:
    """There is one name for each call; asking for the other one tells it."""
    async with rest_on(Recorder()) as rest:
        with pytest.raises(AttributeError, match="use 'get_session'"):
            _ = rest.get_session_async
        assert repr(rest) == "<RestClient http://stub>"


# ------------------------------------------------------------------------------------------ on a scripted service


async def save(service: Any, *names: str) -> list[str]:
    """Train a model and save it under some names."""
    training = await service.create_lora_training_client(MODEL, rank=8, user_metadata={"who": "me"})
    await training.forward_backward(DATA, "cross_entropy")
    await training.optim_step(AdamParams())
    return [(await training.save_state(name)).path for name in names]


@pytest.mark.requirement("R1", "R6", "R7", "R153", "R156")
async def test_everything_about_a_run_can_be_had(autojump_clock: Any) -> None:
    """The run, its checkpoints, what they were made of, its session and its samplers."""
    async with open_scripted_service() as (service, scripted):
        calls = len(scripted.requests)
        rest = service.create_rest_client()
        assert rest is service.rest
        assert len(scripted.requests) == calls
        first, second = await save(service, "a", "b")
        assert (await service.get_server_capabilities()).supported_models[0].model_name == MODEL
        assert (await service.health_check()).status == "ok"
        run = await rest.get_training_run_by_tinker_path(second)
        assert (run.base_model, run.lora_rank, run.user_metadata) == (MODEL, 8, {"who": "me"})
        assert run.last_checkpoint is not None
        assert run.last_checkpoint.tinker_path == second
        assert [one.training_run_id async for one in rest.training_runs()] == [run.training_run_id]
        listed = await rest.list_checkpoints(run.training_run_id)
        assert [one.tinker_path for one in listed.checkpoints] == [first, second]
        assert [one.checkpoint_id async for one in rest.user_checkpoints()] == ["weights/a", "weights/b"]
        pages = [page.total_count async for page in rest.iter_user_checkpoints(page_size=1)]
        assert pages == [2, 2]
        info = await rest.get_weights_info_by_tinker_path(first)
        assert (info.base_model, info.is_lora, info.lora_rank, info.train_mlp) == (MODEL, True, 8, True)
        sampling = await service.create_sampling_client(base_model=MODEL)
        assert sampling is not None
        session = await rest.get_session(service.session_id)
        assert session.training_run_ids == (run.training_run_id,)
        assert (await rest.get_sampler(session.sampler_ids[0])).base_model == MODEL
        assert [one async for one in rest.sessions()] == [service.session_id]
        found = await rest.search_sessions(SessionSearchRequest(session_id=service.session_id))
        assert [one.session_id for one in found.sessions] == [service.session_id]
        assert isinstance(found.sessions[0].status, SessionActive)
        assert service.get_console_url().endswith(f"/sessions/{service.session_id}")


async def test_checkpoints_are_published_kept_and_copied(autojump_clock: Any) -> None:
    """Published once, hidden once, kept for a while; a copy has a path of its own."""
    config = Config(base_url="http://scripted", heartbeat="loop", telemetry=False, project_id="mine")
    async with open_scripted_service(config=config) as (service, _):
        rest = service.rest
        (path,) = await save(service, "a")
        await rest.publish_checkpoint_from_tinker_path(path)
        assert [one.public async for one in rest.user_checkpoints()] == [True]
        with pytest.raises(ConflictError):
            await rest.publish_checkpoint_from_tinker_path(path)
        await rest.unpublish_checkpoint_from_tinker_path(path)
        with pytest.raises(ConflictError):
            await rest.unpublish_checkpoint_from_tinker_path(path)
        copy = await service.copy_weights(path)
        assert copy.startswith("tinker://")
        assert copy != path
        await rest.delete_checkpoint_from_tinker_path(copy)
        await rest.set_checkpoint_ttl_from_tinker_path(path, 3600)
        assert [one.expires_at is None async for one in rest.user_checkpoints()] == [False]
        await rest.set_checkpoint_ttl_from_tinker_path(path, None)
        assert [one.expires_at async for one in rest.user_checkpoints()] == [None]
        await rest.set_checkpoint_ttl_from_tinker_path(path, 3600)
        await trio.sleep(3601)
        assert [one async for one in rest.user_checkpoints()] == []


@pytest.mark.parametrize("verb", ["publish", "unpublish"])
async def test_a_publication_whose_answer_was_lost_is_one(autojump_clock: Any, verb: str) -> None:
    """Sent again, it is told that it is so already; it is, by the first one."""
    faults = ServiceFaults().drop("body", of=f"{verb}_checkpoint", nth=1)
    async with open_scripted_service(faults) as (service, _):
        (path,) = await save(service, "a")
        if verb == "unpublish":
            await service.rest.publish_checkpoint_from_tinker_path(path)
        await getattr(service.rest, f"{verb}_checkpoint_from_tinker_path")(path)
        assert [one.public async for one in service.rest.user_checkpoints()] == [verb == "publish"]


@pytest.mark.requirement("R155")
async def test_an_archive_is_where_the_redirect_leads() -> None:
    """Its address is the redirect's, whole also where it is told short, and so is the time until which it holds."""
    moved = httpx.Response(
        302, headers={"location": "/files/a.tar?signature=x", "expires": "Wed, 04 Mar 2026 05:06:07 GMT"}
    )
    recorder = Recorder({f"GET {AT}/checkpoints/weights/0001/archive": moved})
    async with rest_on(recorder) as rest:
        found = await rest.get_checkpoint_archive_url_from_tinker_path(PATH)
    assert found.url == "http://stub/files/a.tar?signature=x"
    assert str(found.expires) == "2026-03-04 05:06:07+00:00"
    assert "signature" not in repr(found)


@pytest.mark.requirement("R159")
async def test_deleting_twice_is_deleting(autojump_clock: Any) -> None:
    """By ids and by path is the same; what is not there is deleted, also if the first answer got lost."""
    faults = ServiceFaults().drop("body", of="delete_checkpoint", nth=3)
    async with open_scripted_service(faults) as (service, scripted):
        first, second, third = await save(service, "a", "b", "c")
        run = first.removeprefix("tinker://").partition("/")[0]
        await service.rest.delete_checkpoint(run, "weights/a")
        await service.rest.delete_checkpoint_from_tinker_path(first)
        assert scripted.checkpoints == (second, third)
        await service.rest.delete_checkpoint_from_tinker_path(second)
        assert scripted.checkpoints == (third,)
        assert scripted.count("delete_checkpoint") == 4


@pytest.mark.parametrize("text", ['{"detail":"Not Found"}', "", "<html>"])
async def test_a_service_that_deletes_nothing_has_not_deleted(text: str) -> None:
    """A 404 that speaks of no checkpoint says that there is no such call."""
    recorder = Recorder({f"DELETE {AT}/checkpoints/weights/0001": httpx.Response(404, text=text)})
    async with rest_on(recorder) as rest:
        with pytest.raises(NotFoundError):
            await rest.delete_checkpoint_from_tinker_path(PATH)


@pytest.mark.requirement("R159")
async def test_many_are_deleted_and_failures_told_together(autojump_clock: Any) -> None:
    """Each path once; a failure keeps no other from being deleted, and the error tells all."""
    faults = ServiceFaults()
    for nth in (2, 4):
        faults = faults.refuse(500, of="delete_checkpoint", nth=nth)
    async with open_scripted_service(
        faults, config=Config(base_url="http://scripted", heartbeat="loop", telemetry=False, max_retries=0)
    ) as (service, scripted):
        paths = await save(service, *"abcdef")
        with pytest.raises(DeletionFailed, match="2 of 6 checkpoints were not deleted") as caught:
            await service.rest.delete_checkpoints([*paths, paths[0]])
        failed = caught.value.failed
        assert scripted.checkpoints == tuple(failed)
        assert len(failed) == 2
        assert all(isinstance(error, InternalServerError) for error in failed.values())
        assert caught.value.deleted == tuple(path for path in paths if path not in failed)
        assert caught.value.retryable
        assert await service.rest.delete_checkpoints(paths) == tuple(paths)
        assert scripted.checkpoints == ()
        assert await service.rest.delete_checkpoints([]) == ()


async def test_deletions_go_a_few_at_a_time(autojump_clock: Any) -> None:
    """A thousand checkpoints are no thousand requests at once."""
    now = most = 0

    async def delete(_: str) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await trio.sleep(1)
        now -= 1

    await delete_each([str(number) for number in range(100)], delete)
    assert most == 8


# ------------------------------------------------------------------------------------------------------- traces


def trace(*statuses: str | dict[str, Any]) -> Callable[[httpx.Request], Any]:
    """Return a service that has got so far with a trace, each time it is asked."""
    steps = iter(statuses)

    def answer(_: httpx.Request) -> Any:
        step = next(steps)
        return {"status": step} if isinstance(step, str) else step

    return answer


async def test_a_trace_is_waited_for(autojump_clock: Any) -> None:
    """Every five seconds the service is asked how far it is."""
    ready = {"status": "ready", "url": "https://x"}
    recorder = Recorder({"GET /api/v1/sessions/s/trace_export": trace("pending", "pending", ready)})
    async with rest_on(recorder) as rest:
        began = trio.current_time()
        assert await rest.export_session_trace("s") == "https://x"
    assert trio.current_time() - began == 10


@pytest.mark.parametrize("end", [{"status": "failed", "error": "too large"}, "lost"])
async def test_a_trace_that_fails_is_told(autojump_clock: Any, end: Any) -> None:
    """With the service's reason, or its word for it."""
    recorder = Recorder({"GET /api/v1/sessions/s/trace_export": trace("pending", end)})
    async with rest_on(recorder) as rest:
        with pytest.raises(RequestFailedError, match=r"session .s. was not exported: .*(too large|lost)"):
            await rest.export_session_trace("s")


async def test_waiting_for_a_trace_can_be_left(autojump_clock: Any) -> None:
    """It has no limit of its own, and whoever has enough cancels it."""
    recorder = Recorder({"GET /api/v1/sessions/s/trace_export": {"status": "pending"}})
    async with rest_on(recorder) as rest:
        with trio.move_on_after(12):
            await rest.export_session_trace("s")
    assert len(recorder.sent) == 3
