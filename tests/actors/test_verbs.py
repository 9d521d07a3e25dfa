"""Each verb of a client sends exactly the documented message, or makes exactly the documented calls; all checkpoint."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs
import pytest
import trio
from trio.testing import assert_checkpoints

from tests.actors.verbs import (
    ADAM,
    ADMIN,
    AROUND,
    DATA,
    MODEL,
    OUTPUT,
    PARAMS,
    PROMPT,
    PUBLISHING,
    REST,
    REST_REST,
    SAME,
    SAMPLED,
    SAMPLING,
    SAMPLING_REST,
    SERVICE,
    SERVICE_REST,
    SIGNATURES,
    STATE,
    STEP_VERBS,
    STEPPED,
    TRAINING,
    TRAINING_REST,
    UNNAMED,
    WEIGHTS,
)
from tinker_actors.actors import message as messages
from tinker_actors.actors.admin import AdminClient
from tinker_actors.actors.message import ForwardBackward, OptimStep, Sample, Sampling, Training
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.sampling_client import SamplingClient
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.errors import APIStatusError
from tinker_actors.kernel import Message, Pending
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.testing import Probe, ScriptedService, open_scripted_service, open_test_system
from tinker_actors.transport.config import Config


def public(kind: type) -> set[str]:
    """Return the public names of a client class."""
    own = {name for base in kind.__mro__ if base is not object for name in vars(base)}
    return {name for name in own if not name.startswith("_")}


def verbs(*tables: Any) -> set[str]:
    """Return the verbs that tables have rows for."""
    return {name.partition(":")[0] for table in tables for name in table}


# --- the tables are whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "tables"),
    [
        (TrainingClient, (TRAINING, PUBLISHING, TRAINING_REST)),
        (SamplingClient, (SAMPLING, SAMPLING_REST)),
        (ServiceClient, (SERVICE, SERVICE_REST)),
        (RestClient, (REST, REST_REST)),
        (AdminClient, (ADMIN,)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_public_name_has_its_row(kind: type, tables: Any) -> None:
    """What a client can do stands in one of the tables, and nothing else does."""
    assert sorted(public(kind) - verbs(*tables)) == [], "has no row"
    assert sorted(verbs(*tables) - public(kind)) == [], "has a row, and is not there"
    assert sum(len(verbs(table)) for table in tables) == len(verbs(*tables))


@pytest.mark.requirement("R2", "R5", "R8", "R13", "R80")
@pytest.mark.parametrize("kind", SIGNATURES, ids=lambda kind: kind.__name__)
def test_arguments_have_their_names_and_defaults(kind: type) -> None:
    """Those of Tinker, and our own where there are more."""
    text = re.sub(r"\n +", " ", SIGNATURES[kind].strip())
    rows = [line.split(maxsplit=1) for line in text.splitlines()]
    wanted = {name: arguments[0] if arguments else "" for name, *arguments in rows}
    methods = {name: getattr(kind, name) for name in public(kind)}
    found = {name: written(method) for name, method in methods.items() if inspect.isfunction(method)}
    assert sorted(found.items() - wanted.items()) == [], "is not as the table has it"
    assert sorted(wanted.items() - found.items()) == []


def written(method: Any) -> str:
    """Return the arguments of a method as the table writes them."""
    parameters = list(inspect.signature(method).parameters.values())
    if parameters and parameters[0].name == "self":
        del parameters[0]
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    words, was_keyword = [], False
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and not was_keyword:
            words.append("*")
        was_keyword = was_keyword or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        default = "" if one.default is one.empty else f"={one.default!r}"
        words.append(f"{stars.get(one.kind, '')}{one.name}{default}")
    return ", ".join(words)


def test_the_documented_messages_are_these() -> None:
    """The table of docs/channels.md names for each verb the message of its row, and no other verb."""
    page = (Path(__file__).parents[2] / "docs/channels.md").read_text("utf-8")
    told = dict(re.findall(r"^\| `((?:training|sampling)\.\w+)` +\| `(\w+)`", page, re.MULTILINE))
    rows = {**TRAINING, **PUBLISHING}
    sent = {f"training.{name.partition(':')[0]}": type(row[1]).__name__ for name, row in rows.items()}
    assert told == sent | {f"sampling.{name}": "Sample" for name in verbs(SAMPLING)}


TYPED = "".join(
    file.read_text("utf-8") for file in sorted(Path(__file__).parents[1].glob("typing/verbs_*.py"))
)
"""What type checkers are shown."""


@pytest.mark.parametrize("kind", SIGNATURES, ids=lambda kind: kind.__name__)
def test_every_verb_is_shown_to_type_checkers(kind: type) -> None:
    """What it gives stands in tests/typing; so does everything else that is public."""
    assert [name for name in sorted(public(kind)) if not re.search(rf"\.{name}\b", TYPED)] == []


@pytest.mark.parametrize("role", [Training, Sampling])
def test_every_message_is_shown_to_type_checkers(role: type) -> None:
    """Asked for and submitted, with the reply that it promises."""
    kinds = [kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Message)]
    named = [kind.__name__ for kind in kinds if role_of(kind) is role and not kind.__name__.startswith("_")]
    assert named
    for way in ("ask", "submit"):
        assert [name for name in named if not re.search(rf"ref\.{way}\(\s*{name}\(", TYPED)] == []


def role_of(kind: type) -> object:
    """Return the role that a message is addressed to."""
    bases = [base for one in kind.__mro__ for base in getattr(one, "__orig_bases__", ())]
    return next((get_args(base)[0] for base in bases if get_origin(base) is Message), None)


# --- messages ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("R9", "R11", "R14")
@pytest.mark.parametrize("row", TRAINING)
async def test_a_training_verb_sends_its_message(autojump_clock: Any, open_stub: Any, row: str) -> None:
    """That one and no other; the reply is what it gives; `submit` and `ask` with the message give it too."""
    call, message, reply, gives = TRAINING[row]
    async with open_stub() as service, open_test_system() as system:
        training, probe = await service.create_lora_training_client(MODEL), Probe()
        training.ref = await probe.start(system.root)
        probe.reply_with(type(message), reply)
        with assert_checkpoints():
            result = await call(training)
        assert isinstance(result, Pending) is (row.partition(":")[0] in STEP_VERBS)
        result = await result if isinstance(result, Pending) else result
        assert probe.received == [message]
        assert result == (reply if gives is SAME else gives)
        assert await (await training.submit(message)) == reply
        assert await training.ref.ask(message) == reply
        assert probe.received == [message] * 3


async def test_a_step_sends_its_messages_when_its_body_ends(autojump_clock: Any, open_stub: Any) -> None:
    """In the order of the calls, and none of them if the body raises."""
    messages = [ForwardBackward(DATA, "cross_entropy"), OptimStep(ADAM)]
    async with open_stub() as service, open_test_system() as system:
        training, probe = await service.create_lora_training_client(MODEL), Probe()
        training.ref = await probe.start(system.root)
        for message, reply in zip(messages, (OUTPUT, STEPPED), strict=True):
            probe.reply_with(type(message), reply)
        async with training.step() as step:
            forward = step.forward_backward(DATA, "cross_entropy")
            optim = step.optim_step(ADAM)
            await probe.expect_none()
        assert (await forward, await optim) == (OUTPUT, STEPPED)
        with pytest.raises(KeyError):
            async with training.step() as step:
                step.optim_step(ADAM)
                raise KeyError
        await trio.sleep(1)
        assert probe.received == messages


@pytest.mark.requirement("R112")
async def test_all_verbs_of_a_model_share_one_counter(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Each request that has a number has the next one, whichever verb it comes from."""
    stub.results["save_weights_external#0"] = {"path": WEIGHTS}
    rows = {name: row[0] for name, row in [*TRAINING.items(), *PUBLISHING.items()] if name != "unload"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        for call in rows.values():
            result = await call(training)
            if isinstance(result, Pending):
                await result
    names, numbers = zip(*stub.wire(), strict=True)
    assert list(numbers) == list(range(1, len(numbers) + 1))
    assert len(set(names)) >= 5


@pytest.mark.requirement("R11", "R12")
@pytest.mark.lesson("L6")
@pytest.mark.parametrize("row", PUBLISHING)
async def test_publishing_sends_its_message_and_gives_a_client(
    autojump_clock: Any, open_stub: Any, row: str
) -> None:
    """Of the sampling session that the actor has replied, though there is no path."""
    call, message = PUBLISHING[row]
    async with open_stub() as service, open_test_system() as system:
        training, probe = await service.create_lora_training_client(MODEL), Probe()
        training.ref = await probe.start(system.root)
        probe.reply_with(type(message), UNNAMED)
        sampling: Any = await call(training)
        assert probe.received == [message]
        assert sampling.target.sampling_session_id == "session-7"
        assert sampling.base_model == MODEL


@pytest.mark.requirement("R13", "R14")
@pytest.mark.parametrize("row", SAMPLING)
async def test_a_sampling_verb_sends_its_message(autojump_clock: Any, open_stub: Any, row: str) -> None:
    """One `Sample` for the client's own target; `submit` and `ask` with the message give the reply too."""
    call, fields, gives = SAMPLING[row]
    async with open_stub() as service, open_test_system() as system:
        probe = Probe()
        client = await service.create_sampling_client(base_model=MODEL)
        sampling = attrs.evolve(client, ref=await probe.start(system.root))
        message = Sample(target=sampling.target, **fields)
        probe.reply_with(Sample, SAMPLED)
        with assert_checkpoints():
            result = await call(sampling)
        assert result == (SAMPLED if gives is SAME else gives)
        assert probe.received == [message]
        assert await sampling.ref.ask(message) == SAMPLED
        assert await (await sampling.ref.submit(message)) == SAMPLED


@pytest.mark.requirement("R5")
@pytest.mark.lesson("D11")
async def test_what_a_sampling_client_is_set_to_travels_in_its_messages(
    autojump_clock: Any, open_stub: Any
) -> None:
    """Its retries, what the service is to record, and its lane; who published weights says it as well."""
    retries = RetryConfig(progress_timeout=60.0)
    async with open_stub() as service, open_test_system() as system:
        training, probe = await service.create_lora_training_client(MODEL), Probe()
        await probe.start(system.root)
        probe.reply_with(Sample, SAMPLED)
        clients = [
            await service.create_sampling_client(None, MODEL, retries, True),
            await training.save_weights_and_get_sampling_client(
                retry_config=retries, record_stability_info=True
            ),
            await training.create_sampling_client(STATE, retries, True),
        ]
        for client in clients:
            for one, lane in ((client, "training"), (client.evaluation(), "evaluation")):
                await attrs.evolve(one, ref=probe.ref).sample(PROMPT, 1, PARAMS)
                sent = await probe.expect(Sample)
                assert (sent.retry_config, sent.record_stability_info, sent.priority) == (retries, True, lane)
                assert sent.target is client.target
        assert clients[0].evaluation().ref is not clients[0].ref


@pytest.mark.requirement("R16", "R119")
def test_only_step_verbs_give_a_pending_and_all_say_when_they_return() -> None:
    """One convention: a step verb returns when it is in line, and says so; everything else gives its result."""
    for name in verbs(TRAINING, PUBLISHING):
        method = getattr(TrainingClient, name)
        gives = str(inspect.signature(method).return_annotation)
        assert gives.startswith("Pending[") is (name in STEP_VERBS), name
        assert bool(re.match(r"Put .* in line", method.__doc__)) is (name in STEP_VERBS), name
    assert "return when their message is in line" in inspect.getmodule(TrainingClient).__doc__  # type: ignore[operator, union-attr]  # it has one


# --- calls of the service ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def kept() -> AsyncIterator[tuple[ServiceClient, ScriptedService]]:
    """Open a client of a project, on a scripted service on which a state and weights have been saved."""
    config = Config(base_url="http://scripted", heartbeat="loop", telemetry=False, project_id="p")
    async with open_scripted_service(config=config) as (client, service):
        training = await client.create_lora_training_client("base")
        await training.save_state("a")
        yield client, service


@pytest.mark.requirement("R1")
@pytest.mark.parametrize("row", SERVICE)
async def test_a_verb_of_the_service_makes_its_calls(autojump_clock: Any, row: str) -> None:
    """Those and no others, in this order."""
    call, calls = SERVICE[row]
    async with kept() as (client, service):
        assert await calls_of(service, lambda: call(client)) == calls


@pytest.mark.requirement("R1", "R153")
@pytest.mark.lesson("D29")
@pytest.mark.parametrize("row", [*REST, *ADMIN])
async def test_a_plain_call_goes_where_the_table_says(autojump_clock: Any, row: str) -> None:
    """One request, with the documented defaults; what the service refuses is asked for all the same."""
    call, calls = {**REST, **ADMIN}[row]
    async with kept() as (client, service):
        assert client.create_rest_client() is client.rest
        one = client.rest if row in REST else client.admin

        async def made() -> None:
            with contextlib.suppress(APIStatusError):
                await call(one)

        assert await calls_of(service, made) == calls


async def test_a_sampler_of_saved_weights_is_a_call(autojump_clock: Any) -> None:
    """A TrainingClient opens it as the service's client does."""
    async with open_scripted_service() as (client, service):
        training = await client.create_lora_training_client("base")
        path = (await training.save_weights_for_sampler("a")).path
        made = await calls_of(service, lambda: training.create_sampling_client(path))
        assert made == ["POST create_sampling_session"]
        assert service.requests[-1].body["model_path"] == path


async def calls_of(service: Any, call: Callable[[], Awaitable[object]]) -> list[str]:
    """Return what is called while something is done: method and path below the API's own."""
    before = len(service.requests)
    with assert_checkpoints():
        await call()
    return [
        f"{request.method} {request.path.removeprefix('/api/v1/')}{'?' * bool(request.query)}{request.query}"
        for request in service.requests[before:]
        if request.endpoint not in AROUND
    ]
