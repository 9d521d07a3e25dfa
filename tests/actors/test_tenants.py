"""Eight services at once in one process: each request has its own client's key, host, session and settings."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import trio

from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.testing import (
    ScriptedService,
    ScriptedTransport,
    ServedRequest,
    ServiceFaults,
    serve_scripted,
)
from tinker_actors.transport.config import Config
from tinker_actors.types import AdamParams, Datum, ModelInput, SamplingParams

PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=2)
WHERE_AND_KEY = [
    *((f"host{n}", f"tml-key{n}") for n in range(6)),
    ("host0", "tml-key6"),
    ("host7", "tml-key0"),
]
"""Two have one URL and two keys, and two have one key and two URLs."""


@attrs.frozen
class Tenant:
    """One of the clients.

    Attributes:
        number: goes along with each of its requests, in a header.
        place: the service it uses; two may use one.
        key: its key.
        model: the model it trains.
    """

    number: int
    place: str
    key: str

    @property
    def model(self) -> str:
        return f"owner{self.number}/model"


TENANTS = [Tenant(number, place, key) for number, (place, key) in enumerate(WHERE_AND_KEY)]


def config_of(tenant: Tenant, url: str, **settings: Any) -> Config:
    """Return how a tenant's client is configured; nothing but its header tells it from the others."""
    return Config(
        base_url=url,
        api_key=tenant.key,
        headers={"x-tenant": str(tenant.number)},
        telemetry=True,
        user_metadata={"tenant": str(tenant.number)},
        **settings,
    )


def ids_in(body: Any) -> Iterator[str]:
    """Yield the ids of sessions, models, samplers and promises in a body."""
    names = ("session_id", "model_id", "sampling_session_id", "model_path", "request_id")
    return (body[name] for name in names if isinstance(body, dict) and body.get(name))


async def work(service: ServiceClient, tenant: Tenant, loads: list[tuple[int, str]]) -> None:
    """Train, save, sample, ask and wait, as any harness would."""
    service._tree.tokenizers._load = lambda name: loads.append((tenant.number, name)) or object()  # type: ignore[func-returns-value, return-value, assignment]  # a stand-in that is never used
    training = await service.create_lora_training_client(tenant.model)
    samplers = [await training.save_weights_and_get_sampling_client()]
    samplers.append(await service.create_sampling_client(base_model=tenant.model))
    for step in range(3):
        tokens = [tenant.number, step, 1]
        data = [Datum(ModelInput.from_ints(tokens), {"target_tokens": tokens, "weights": [1.0] * 3})]
        forward = await training.forward_backward(data, "cross_entropy")
        await (await training.optim_step(AdamParams(learning_rate=1e-3)))
        await forward
    await training.save_state("a")
    await training.get_tokenizer()
    await samplers[1].get_tokenizer()
    async with trio.open_nursery() as nursery:
        for sampling in samplers:
            for _ in range(4):
                nursery.start_soon(sampling.sample, PROMPT, 1, PARAMS)
        nursery.start_soon(service.get_server_capabilities)
        nursery.start_soon(service.rest.list_user_checkpoints)
        nursery.start_soon(service.rest.get_training_run, training.model_id)


def judge(services: dict[str, ScriptedService], urls: dict[str, str]) -> None:
    """See that each request came from the client whose key, host and ids it has, and that all kinds came from each."""
    for place, service in services.items():
        owner: dict[str, int] = {}
        for request in service.requests:
            number = int(request.header("x-tenant") or "-1")
            tenant = TENANTS[number]
            assert (tenant.place, tenant.key) == (place, request.header("x-api-key"))
            assert request.header("host") == urlsplit(urls[place]).netloc
            for one in ids_in(request.body):
                assert owner.setdefault(root_of(one), number) == number, one
            if request.endpoint == "get_training_run":
                assert owner[root_of(request.path.rpartition("/")[2])] == number
    for tenant in TENANTS:
        kinds = {request.endpoint for request in requests_of(services, tenant)}
        assert kinds >= {
            *(
                "client_config",
                "create_session",
                "session_heartbeat",
                "telemetry",
                "create_model",
                "get_info",
            ),
            *(
                "forward_backward",
                "optim_step",
                "save_weights",
                "save_weights_for_sampler",
                "retrieve_future",
            ),
            *("create_sampling_session", "asample", "get_server_capabilities", "finish_session"),
            *("list_user_checkpoints", "get_training_run"),
        }
        sessions = {
            request.body["user_metadata"]["tenant"]
            for request in requests_of(services, tenant)
            if request.endpoint == "create_session"
        }
        assert sessions == {str(tenant.number)}


def root_of(one: str) -> str:
    """Return the session that an id or a path begins with, or the id itself."""
    return re.split(r"[:/]", one.removeprefix("tinker://"))[0]


def requests_of(services: dict[str, ScriptedService], tenant: Tenant) -> list[ServedRequest]:
    """Return what came from one client."""
    of_place = services[tenant.place].requests
    return [request for request in of_place if request.header("x-tenant") == str(tenant.number)]


def open_in_memory(tenant: Tenant, service: ScriptedService) -> Any:
    """Open a client on a service without a socket, on virtual time."""

    @contextlib.asynccontextmanager
    async def borrowed() -> AsyncIterator[ScriptedTransport]:
        await trio.lowlevel.checkpoint()
        yield ScriptedTransport(service)

    return open_client(
        config_of(tenant, f"http://{tenant.place}", heartbeat="loop", heartbeat_period=5),
        rng=random.Random(tenant.number),
        backend=tenant.place,
        chosen=tenant.place,
        through=ScriptedTransport(service),
        beat_through=borrowed,
    )


@pytest.mark.requirement("R30", "R31", "R32", "R135")
@pytest.mark.lesson("D65")
async def test_eight_services_at_once_never_mix(autojump_clock: Any) -> None:
    """Training, samples, other calls, telemetry and beats of each have its key, host, session and header."""
    services = {tenant.place: ScriptedService(seed=tenant.number) for tenant in TENANTS}
    loads: list[tuple[int, str]] = []

    async def be(tenant: Tenant) -> None:
        async with open_in_memory(tenant, services[tenant.place]) as service:
            await work(service, tenant, loads)
            await trio.sleep(30)

    async with trio.open_nursery() as nursery:
        for tenant in TENANTS:
            nursery.start_soon(be, tenant)
    judge(services, {tenant.place: f"http://{tenant.place}" for tenant in TENANTS})
    assert sorted(loads) == [(tenant.number, tenant.model) for tenant in TENANTS]


@pytest.mark.requirement("R30", "R31", "R135")
async def test_eight_services_at_once_never_mix_on_sockets() -> None:
    """The same over connections, with beats from threads: none is shared by two."""
    services = {tenant.place: ScriptedService(seed=tenant.number) for tenant in TENANTS}
    loads: list[tuple[int, str]] = []
    async with contextlib.AsyncExitStack() as stack:
        urls = {
            place: await stack.enter_async_context(serve_scripted(one)) for place, one in services.items()
        }

        async def be(tenant: Tenant) -> None:
            config = config_of(tenant, urls[tenant.place], heartbeat_period=0.05)
            async with open_client(
                config, rng=random.Random(tenant.number), backend=tenant.place, chosen=tenant.place
            ) as service:
                await work(service, tenant, loads)
                await beats_of(services, tenant, 2)

        async with trio.open_nursery() as nursery:
            for tenant in TENANTS:
                nursery.start_soon(be, tenant)
        judge(services, urls)
    assert sorted(loads) == [(tenant.number, tenant.model) for tenant in TENANTS]


async def beats_of(services: dict[str, ScriptedService], tenant: Tenant, count: int) -> None:
    """Wait until a client has beaten so often."""
    with trio.fail_after(30):
        while sum(one.endpoint == "session_heartbeat" for one in requests_of(services, tenant)) < count:  # noqa: ASYNC110 - a real thread beats
            await trio.sleep(0.01)


@pytest.mark.requirement("R32", "R38", "R128")
@pytest.mark.lesson("D31", "D63")
async def test_a_refusal_of_one_key_at_one_service_holds_nobody_else_back(autojump_clock: Any) -> None:
    """Of the eight one is throttled for half a minute, in all its clients, though these were opened in one moment.

    Those with the same URL, or the same key, are not.
    """
    throttled = ServiceFaults().refuse(429, retry_after=30.0, of={"asample"}, nth=1)
    services = {tenant.place: ScriptedService() for tenant in TENANTS}
    services["host0"] = ScriptedService(throttled)
    waited: dict[int, list[float]] = {tenant.number: [] for tenant in TENANTS}

    async def be(tenant: Tenant, at: float) -> None:
        async with open_in_memory(tenant, services[tenant.place]) as service:
            sampling = await service.create_sampling_client(base_model=tenant.model)
            await trio.sleep_until(at)
            await sampling.sample(PROMPT, 1, PARAMS)
            waited[tenant.number].append(trio.current_time() - at)

    at = trio.current_time() + 60
    async with trio.open_nursery() as nursery:
        nursery.start_soon(be, TENANTS[0], at)
        for tenant in [*TENANTS, *[TENANTS[0]] * 20]:
            nursery.start_soon(be, tenant, at + 1)
    assert sorted(waited.pop(0)) == pytest.approx([29] * 21 + [30], abs=0.5)
    assert [seconds for (seconds,) in waited.values()] == pytest.approx([0] * 7, abs=0.5)


@pytest.mark.requirement("R140")
@pytest.mark.lesson("L25")
async def test_a_service_that_holds_beats_back_delays_no_other(autojump_clock: Any) -> None:
    """Each session has its own heart: seven beat every five seconds while the beats of one are never answered."""
    services = {tenant.place: ScriptedService() for tenant in TENANTS}
    services["host1"] = ScriptedService(ServiceFaults().stall("request", of={"session_heartbeat"}, nth=None))

    async def be(tenant: Tenant) -> None:
        async with open_in_memory(tenant, services[tenant.place]):
            await trio.sleep(61)

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for tenant in TENANTS:
            nursery.start_soon(be, tenant)
    assert trio.current_time() - started < 90
    for tenant in TENANTS:
        beats = [one.at for one in requests_of(services, tenant) if one.endpoint == "session_heartbeat"]
        if tenant.place != "host1":
            assert beats[:12] == pytest.approx([5 * beat for beat in range(12)], abs=0.1)
