"""Opening, leaving, cancelling: nothing is left behind, and the body's exception leaves as itself."""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tinker_actors.actors.message import SaveState
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    InputError,
    NotFoundError,
    ServiceClosing,
)
from tinker_actors.local.service import EmbeddedService
from tinker_actors.opening import open_service
from tinker_actors.types import AdamParams, Datum, ModelInput, SamplingParams

MODEL = "tinker-actors/char-100k"
ADAM = AdamParams()
DATA = [Datum(ModelInput.from_ints([1, 2]), {"target_tokens": [2, 3], "weights": [1.0, 1.0]})]
ENDPOINTS = (
    "client/config",
    "client/dynamic_config",
    "create_session",
    "session_heartbeat",
    "create_model",
    "retrieve_future",
    "get_info",
    "forward",
    "forward_backward",
    "optim_step",
    "save_weights",
    "save_weights_for_sampler",
    "create_sampling_session",
    "asample",
    "telemetry",
    "unload_model",
    "finish",
)


async def whole_job(service: ServiceClient) -> None:
    """Touch every endpoint."""
    training = await service.create_lora_training_client(MODEL)
    forward = await training.forward(DATA, "cross_entropy")
    backward = await training.forward_backward(DATA, "cross_entropy")
    optim = await training.optim_step(ADAM)
    await training.save_state("a")
    sampling = await training.save_weights_and_get_sampling_client()
    base = await service.create_sampling_client(base_model=MODEL)
    for one in (sampling, base):
        await one.sample(ModelInput.from_ints([1]), 2, SamplingParams(max_tokens=2))
    for pending in (forward, backward, optim):
        await pending


def open_files() -> list[str]:
    """Return what this process has open."""
    folder = Path("/proc/self/fd")
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def busy_heartbeat_threads() -> int:
    """Count threads that are beating."""
    stacks = sys._current_frames()
    names = []
    for top in stacks.values():
        frame: FrameType | None = top
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
    return names.count("_thread_main")


async def test_the_whole_job_touches_every_endpoint(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """The list that the stalls below go through is complete, and the job ends."""
    async with open_stub(telemetry=True) as service:
        await whole_job(service)
        await trio.sleep(11)
    assert {name for name in stub.names() if name != "telemetry"} == set(ENDPOINTS) - {"telemetry"}


@pytest.mark.requirement("R105", "R146")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_cancelling_at_any_await_leaves_nothing_behind(
    autojump_clock: Any, open_stub: Any, stub: Any, endpoint: str
) -> None:
    """Whatever the service never answers, a cancellation ends everything within the grace period."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    files = open_files()
    stub.gates[endpoint] = trio.Event()
    with trio.move_on_after(20) as scope:
        async with open_stub(telemetry=True, grace=10) as service:
            await whole_job(service)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline <= 10 + 2 * 5  # grace, and two clean-up hooks
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert open_files() == files
    assert not any(stub.active.values())


async def test_cancelling_before_anything_has_happened(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A service that is opened in a cancelled scope sends nothing."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_stub():
            raise AssertionError("unreachable")
    assert scope.cancelled_caught
    assert "create_session" not in stub.names()


@pytest.mark.requirement("R146")
@pytest.mark.lesson("D7")
@pytest.mark.parametrize("stage", range(6))
async def test_a_real_service_leaves_no_thread_at_work(stage: int) -> None:
    """Cancelled at different moments, the embedded service leaves no beating thread, no task, no file."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    files = open_files()
    with trio.CancelScope() as scope:
        async with open_service("local", seed=1) as service:
            if stage == 0:
                scope.cancel()
            training = await service.create_lora_training_client(MODEL, rank=2)
            if stage == 1:
                scope.cancel()
            forward = await training.forward_backward(DATA, "cross_entropy")
            if stage == 2:
                scope.cancel()
            await training.optim_step(ADAM)
            await forward
            if stage == 3:
                scope.cancel()
            sampling = await training.save_weights_and_get_sampling_client()
            if stage == 4:
                scope.cancel()
            await sampling.sample(ModelInput.from_ints([5]), 4, SamplingParams(max_tokens=50, seed=1))
    assert scope.cancelled_caught == (stage < 5)
    assert busy_heartbeat_threads() == 0
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert open_files() == files
    assert sys.getswitchinterval() == pytest.approx(0.005)
    assert threading.current_thread() is threading.main_thread()


async def test_the_bodys_exception_leaves_as_itself(autojump_clock: Any, open_stub: Any) -> None:
    """Not in an exception group, and the very same object."""
    mine = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with open_stub() as service:
            training = await service.create_lora_training_client(MODEL)
            await training.forward_backward(DATA, "cross_entropy")
            raise mine
    assert caught.value is mine


async def test_the_bodys_exception_leaves_the_real_service_as_itself() -> None:
    """The embedded service adds no group of its own either."""
    mine = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with open_service("local"):
            raise mine
    assert caught.value is mine


@pytest.mark.requirement("R18")
async def test_a_body_that_returns_has_everything_carried_out(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """What was put in line runs to its end before the session is finished."""
    stub.held["forward_backward"] = trio.Event()

    async def release_later() -> None:
        await trio.sleep(7)
        stub.held["forward_backward"].set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release_later)
        async with open_stub() as service:
            training = await service.create_lora_training_client(MODEL)
            pendings = [await training.forward_backward(DATA, "cross_entropy") for _ in range(20)]
    assert [(await pending).metrics["loss:sum"] for pending in pendings] == [1.0] * 20
    assert stub.names()[-1] == "finish"
    assert stub.bodies("finish") == [{"reason": {"type": "success"}, "detail": None}]


@pytest.mark.requirement("R18")
async def test_a_body_that_raises_closes_the_doors(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """What has not begun ends in ServiceClosing; what was sent gets its result within the grace period."""
    stub.gates["save_weights"] = trio.Event()
    stub.held["forward_backward"] = trio.Event()
    pendings: dict[str, Any] = {}

    async def release_later() -> None:
        await trio.sleep(3)
        stub.gates["save_weights"].set()
        stub.held["forward_backward"].set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release_later)
        with pytest.raises(KeyError):
            async with open_stub() as service:
                training = await service.create_lora_training_client(MODEL)
                pendings["sent"] = await training.forward_backward(DATA, "cross_entropy")
                pendings["sending"] = await training.submit(SaveState("a"))
                await trio.testing.wait_all_tasks_blocked()
                pendings["waiting"] = await training.optim_step(ADAM)
                raise KeyError
    assert (await pendings["sent"]).metrics["loss:sum"] == 1.0
    assert (await pendings["sending"]).path.endswith("/a")
    with pytest.raises(ServiceClosing) as closing:
        await pendings["waiting"]
    assert closing.value.started is False
    assert "optim_step" not in stub.names()
    assert stub.bodies("finish") == [{"reason": {"type": "errored"}, "detail": "KeyError"}]


async def test_nothing_is_admitted_after_the_service_was_left(autojump_clock: Any, open_stub: Any) -> None:
    """A client that is kept too long gets ServiceClosing."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        sampling = await training.save_weights_and_get_sampling_client()
    with pytest.raises(ServiceClosing):
        await training.optim_step(ADAM)
    with pytest.raises(ServiceClosing):
        await sampling.sample(ModelInput.from_ints([1]), 1, SamplingParams(max_tokens=1))


async def test_the_session_is_finished_while_it_is_still_kept_alive(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Stop is reverse start: work, then the session's finish, then the heartbeat."""
    stub.gates["finish"] = trio.Event()
    async with open_stub(heartbeat_period=1):
        await trio.sleep(2)
    after = stub.names()[stub.names().index("finish") :]
    assert after.count("session_heartbeat") >= 4  # finish was given up after 5 s of clean-up


# --- what users get wrong ----------------------------------------------------------------------------------------


async def test_an_unreachable_url_is_named(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """The error has the type and names the URL; opening gives up after three attempts."""

    def refuse(_: dict[str, Any], __: int) -> None:
        raise httpx.ConnectError("connection refused")

    stub.rules["client/config"] = refuse
    with pytest.raises(APIConnectionError, match="base_url = 'http://stub': cannot connect") as caught:
        async with open_stub():
            raise AssertionError("unreachable")
    assert caught.value.doubtful is False
    assert caught.value.attempts == 3


async def test_a_service_that_does_not_answer_is_a_timeout(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Opening gives up with a typed error."""
    stub.gates["client/config"] = trio.Event()
    with pytest.raises(APITimeoutError, match="client_config"):
        async with open_stub():
            raise AssertionError("unreachable")


async def test_a_refused_key_is_an_authentication_error(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """401 at the door leaves as AuthenticationError, at once."""
    stub.rules["client/config"] = lambda _, __: httpx.Response(401, json={"detail": "bad key"})
    with pytest.raises(AuthenticationError, match="bad key"):
        async with open_stub(api_key="tml-secret-key"):
            raise AssertionError("unreachable")
    assert stub.names() == ["client/config"]


async def test_an_unknown_model_says_which_backend_was_asked(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """The service's refusal comes out as itself, with the chosen backend as a note."""
    stub.rules["create_model"] = lambda _, __: httpx.Response(404, json={"detail": "Unknown model 'x'"})
    async with open_stub() as service:
        with pytest.raises(NotFoundError, match="Unknown model 'x'") as caught:
            await service.create_lora_training_client("x")
    assert caught.value.__notes__ == ["using the stub"]
    assert stub.names().count("create_session") == 1


@pytest.mark.lesson("D32")
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": True}, "rank"),
        ({"rank": "8"}, "rank"),
        ({"rank": 8.0}, "rank"),
        ({"base_model": None}, "base_model"),
        ({"base_model": ""}, "base_model"),
        ({"seed": "7"}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": -1}, "seed"),
        ({"train_mlp": False, "train_attn": False, "train_unembed": False}, "train_mlp"),
    ],
)
async def test_a_wrong_model_is_refused_locally(
    autojump_clock: Any, open_stub: Any, stub: Any, arguments: dict[str, Any], field: str
) -> None:
    """Nothing is sent, and the error names the field."""
    async with open_stub() as service:
        with pytest.raises(InputError) as caught:
            await service.create_lora_training_client(**{"base_model": MODEL, **arguments})
    assert caught.value.field.startswith(field)
    assert "create_model" not in stub.names()


@pytest.mark.requirement("R5")
@pytest.mark.parametrize(
    ("path", "text"),
    [
        (MODEL, "must start with tinker://; a base model is given as base_model="),
        (7, "must start with tinker://"),
    ],
)
async def test_what_is_no_path_is_refused_locally(
    autojump_clock: Any, open_stub: Any, stub: Any, path: Any, text: str
) -> None:
    """Who passes the name of a base model in its place is told how it is given."""
    async with open_stub() as service:
        with pytest.raises(InputError, match=f"^model_path = {path!r}: {text}"):
            await service.create_sampling_client(path)
    assert "create_sampling_session" not in stub.names()


@pytest.mark.requirement("R20", "R122")
@pytest.mark.lesson("D47", "L4")
async def test_wrong_batches_are_refused_locally_and_lose_nothing(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Each names field and value; the client goes on as if nothing had been asked."""
    long = Datum(ModelInput.from_ints([1, 2]), {"target_tokens": [1, 2, 3], "weights": [1.0] * 3})
    nan = Datum(ModelInput.from_ints([1, 2]), {"target_tokens": [1, 2], "weights": [1.0, float("nan")]})
    cases: list[tuple[Any, str, str]] = [
        ([], "cross_entropy", "data = (): the batch is empty"),
        (DATA, "crossentropy", "loss_fn = 'crossentropy'"),
        ([long], "cross_entropy", r"data[0].loss_fn_inputs['target_tokens'].shape = (3,)"),
        ([nan], "cross_entropy", r"data[0].loss_fn_inputs['weights'][1] = nan"),
        (DATA, "ppo", "data[0].loss_fn_inputs = "),
        (3, "cross_entropy", "data = 3"),
    ]
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        for data, loss_fn, shown in cases:
            with pytest.raises(InputError) as caught:
                await training.forward_backward(data, loss_fn)
            assert shown in str(caught.value)
        with pytest.raises(InputError, match="learning_rate"):
            await training.optim_step(AdamParams(learning_rate=float("nan")))
        with pytest.raises(InputError, match="name"):
            await training.save_state("a/b")
        with pytest.raises(InputError, match="tinker://"):
            await training.load_state("weights/a")
        with pytest.raises(InputError, match="model_path"):
            await service.create_sampling_client()
        assert [name for name in stub.names() if name in ENDPOINTS[7:]] == []
        await (await training.forward_backward(DATA, "cross_entropy"))
    assert stub.bodies("forward_backward")[0]["seq_id"] == 1


@pytest.mark.requirement("R178")
async def test_async_twins_point_to_the_plain_names(autojump_clock: Any, open_stub: Any) -> None:
    """`forward_backward_async` raises and names `forward_backward`; other unknown names raise plainly."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(AttributeError, match="'forward_backward'"):
            training.forward_backward_async  # noqa: B018 - reading it is the test
        with pytest.raises(AttributeError, match="no attribute 'forwards'"):
            training.forwards  # noqa: B018 - reading it is the test
        with pytest.raises(AttributeError, match="'create_lora_training_client'"):
            service.create_lora_training_client_async  # noqa: B018 - reading it is the test


async def test_a_model_on_the_embedded_service_answers_wrong_ranks_and_names() -> None:
    """The real service's refusals come out typed as well."""
    service_side = EmbeddedService(seed=random.Random(1).getrandbits(8))
    async with open_service(embedded=service_side) as service:
        with pytest.raises(BadRequestError, match="char-100k") as caught:
            await service.create_lora_training_client("no-such-model")
        assert "embedded" in "".join(caught.value.__notes__)
