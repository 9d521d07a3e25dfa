"""How a service ends: what is said of it, what is still carried out, and that nothing is left."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from tests.actors.scripted import ADAM, GREEDY, MODEL, PROMPT, batch, lineage, steps
from tinker_actors.actors.heartbeat import HeartbeatActor
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.errors import InFlightLost, InputError, ServiceClosing
from tinker_actors.testing import (
    Fixed,
    ScriptedService,
    ServiceFaults,
    no_leaked_tasks,
    open_scripted_service,
)
from tinker_actors.transport.config import Config
from tinker_actors.transport.heartbeat import Gone

IN_LOOP = Config(base_url="http://scripted", heartbeat="loop", telemetry=False)


def lost_in_an_outage() -> ServiceFaults:
    """Return a plan in which the session is lost and no new one can be had: the service is away but for its beats."""
    faults = ServiceFaults().lose_session("410", of="session_heartbeat", nth=3)
    return faults.drop("connect", of=("create_session", "healthz"), start=10, end=1e6)


def told(scripted: ScriptedService) -> list[Any]:
    """Return what the service was told of the end of its session."""
    return [
        (one.body["reason"]["type"], one.body.get("detail"))
        for one in scripted.requests
        if one.endpoint == "finish_session" and one.body is not None
    ]


@pytest.mark.requirement("R18")
async def test_the_body_that_returns_has_succeeded(autojump_clock: Any) -> None:
    """What stands in line is carried out first."""
    async with no_leaked_tasks(), open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        await training.forward_backward(batch(1), "cross_entropy")
        await training.optim_step(ADAM)
    assert told(scripted) == [("success", None)]
    assert lineage(scripted, training.model_id) == steps(1)


@pytest.mark.requirement("R18")
async def test_what_was_put_in_line_has_the_time_it_takes(autojump_clock: Any) -> None:
    """A body that returns is not in a hurry: `grace` is for one that raises, is cancelled, or closes the service."""
    faults = attrs.evolve(ServiceFaults(), work=Fixed(1000.0))
    async with trio.open_nursery() as nursery:
        async with open_scripted_service(faults) as (service, scripted):
            training = await service.create_lora_training_client(MODEL)
            sampling = await service.create_sampling_client(base_model=MODEL)
            await training.forward_backward(batch(1), "cross_entropy")
            await training.optim_step(ADAM)
            nursery.start_soon(sampling.sample, PROMPT, 1, GREEDY)
            await trio.sleep(1)
        assert told(scripted) == [("success", None)]
        assert lineage(scripted, training.model_id) == steps(1)


@pytest.mark.requirement("R18")
@pytest.mark.parametrize("grace", [10.0, 60.0])
async def test_early_ends_have_their_grace(autojump_clock: Any, grace: float) -> None:
    """A sample that takes 50 seconds is had within a grace of 60, and told to be lost after one of 10."""
    faults = attrs.evolve(ServiceFaults(), work=Fixed(50.0))
    async with open_scripted_service(faults, config=attrs.evolve(IN_LOOP, grace=grace)) as (service, _):
        sampling = await service.create_sampling_client(base_model=MODEL)
        answers: list[object] = []

        async def sample() -> None:
            try:
                answers.append(await sampling.sample(PROMPT, 1, GREEDY))
            except InFlightLost as error:
                answers.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sample)
            await trio.sleep(1)
            start = trio.current_time()
            await service.close("errored")
            assert trio.current_time() - start <= min(grace, 50) + 1
    assert isinstance(answers[0], InFlightLost) == (grace < 50)


@pytest.mark.requirement("R18")
async def test_the_body_that_raises_has_failed(autojump_clock: Any) -> None:
    """The service is told the kind of the exception, and nothing of what it says; the exception wins."""
    scripted: ScriptedService | None = None
    with pytest.raises(ValueError, match="secret"):
        async with no_leaked_tasks(), open_scripted_service() as (service, scripted):
            await service.create_lora_training_client(MODEL)
            raise ValueError("secret")
    assert scripted is not None
    assert told(scripted) == [("errored", "ValueError")]


@pytest.mark.requirement("R18", "R146")
async def test_the_body_that_is_cancelled_was_interrupted(autojump_clock: Any) -> None:
    """What was sent is waited for, no longer than `grace`; what was not sent is refused."""
    faults = attrs.evolve(ServiceFaults(), work=Fixed(1e5))
    config = Config(base_url="http://scripted", heartbeat="loop", telemetry=False, grace=20.0)
    start = trio.current_time()
    scripted: ScriptedService | None = None
    with trio.move_on_after(100) as scope:
        async with no_leaked_tasks(), open_scripted_service(faults, config=config) as (service, scripted):
            await service.create_sampling_client(base_model=MODEL)
            sampling = await service.create_sampling_client(base_model=MODEL)
            await sampling.sample(PROMPT, 1, GREEDY)
    assert scope.cancelled_caught
    assert 100 <= trio.current_time() - start < 130
    assert scripted is not None
    assert told(scripted) == [("interrupted", None)]


@pytest.mark.requirement("R18")
@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (None, ("interrupted", None)),
        (KeyboardInterrupt(), ("interrupted", None)),
        (ValueError("secret"), ("errored", "ValueError")),
    ],
)
async def test_a_group_of_exceptions_counts_as_what_is_in_it(
    autojump_clock: Any, raised: BaseException | None, status: Any
) -> None:
    """A nursery in the body wraps what ends it: a cancellation, an interrupt and an error are told as such."""
    scripted: ScriptedService | None = None
    with contextlib.suppress(BaseExceptionGroup), trio.move_on_after(50):
        async with open_scripted_service() as (_, scripted), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            if raised is not None:
                await trio.sleep(1)
                raise raised
    assert scripted is not None
    assert told(scripted) == [status]


@pytest.mark.requirement("R18")
@pytest.mark.parametrize("status", ["success", "errored", "interrupted"])
async def test_a_service_can_be_closed_early(autojump_clock: Any, status: Any) -> None:
    """The first word counts, twice is once, and what comes after it is refused before it starts."""
    async with open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        sampling = await service.create_sampling_client(base_model=MODEL)
        await (await training.forward_backward(batch(1), "cross_entropy"))
        await service.close(status, "enough")
        await service.close("success", "again")
        beats = scripted.count("session_heartbeat")
        for attempt in (
            lambda: training.forward_backward(batch(2), "cross_entropy"),
            lambda: sampling.sample(PROMPT, 1, GREEDY),
            lambda: service.create_lora_training_client(MODEL),
            lambda: service.create_sampling_client(base_model=MODEL),
        ):
            with pytest.raises(ServiceClosing) as refused:
                await attempt()
            assert refused.value.started is False
        await trio.sleep(100)
        assert scripted.count("session_heartbeat") == beats
    assert told(scripted) == [(status, "enough")]


async def test_another_status_is_refused(autojump_clock: Any) -> None:
    """Before anything ends."""
    async with open_scripted_service() as (service, scripted):
        with pytest.raises(InputError, match="status"):
            await service.close("fine")  # type: ignore[arg-type]  # what is tested
        assert scripted.count("finish_session") == 0


@pytest.mark.requirement("R146")
@pytest.mark.parametrize("how", ["404", "absent", "silent"])
async def test_a_service_that_does_not_hear_of_the_end_holds_nobody_up(autojump_clock: Any, how: str) -> None:
    """An older one without the call, one that has gone, and one that does not answer."""
    plan = ServiceFaults()
    faults = {
        "404": plan.refuse(404, of="finish_session"),
        "absent": plan.drop("connect", start=50, end=1e6),
        "silent": plan.stall("request", of="finish_session", nth=None),
    }[how]
    async with no_leaked_tasks(), open_scripted_service(faults):
        await trio.sleep(60)
        leaving = trio.current_time()
    assert trio.current_time() - leaving <= 45


@pytest.mark.requirement("R18", "R146")
@pytest.mark.parametrize("is_lost", [False, True], ids=["outage", "lost-session"])
async def test_what_is_being_made_in_an_outage_is_refused_when_the_service_is_closed(
    autojump_clock: Any, is_lost: bool
) -> None:
    """Whoever waits for the service to come back, or for a new session, hears of the end and does not hang."""
    faults = ServiceFaults().drop("connect", start=19, end=1e6)
    if is_lost:
        faults = lost_in_an_outage()
    refused: list[ServiceClosing] = []

    async def make(create: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ServiceClosing) as caught:
            await create()
        refused.append(caught.value)

    with trio.fail_after(1000):
        async with no_leaked_tasks(), open_scripted_service(faults, config=IN_LOOP) as (service, _):
            await trio.sleep(25)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(make, lambda: service.create_sampling_client(base_model=MODEL))
                nursery.start_soon(make, lambda: service.create_lora_training_client(MODEL))
                await trio.sleep(5)
                await service.close("errored")
    assert len(refused) == 2


@pytest.mark.requirement("R18", "R146")
async def test_leaving_does_not_wait_for_a_session_that_nobody_needs(autojump_clock: Any) -> None:
    """A session that was lost is nobody's business any more once the work has ended, and has no end to be told."""
    async with (
        no_leaked_tasks(),
        open_scripted_service(lost_in_an_outage(), config=IN_LOOP) as (
            service,
            scripted,
        ),
    ):
        await service.create_lora_training_client(MODEL)
        await trio.sleep(25)
        leaving = trio.current_time()
    assert trio.current_time() - leaving <= 2
    assert told(scripted) == []


async def test_who_waits_for_a_session_outside_hears_that_the_service_was_left(autojump_clock: Any) -> None:
    """A task that outlives the service's body is refused like one that comes later."""

    async def make(service: ServiceClient) -> None:
        with pytest.raises(ServiceClosing):
            await service.create_sampling_client(base_model=MODEL)

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 1000
        async with open_scripted_service(lost_in_an_outage(), config=IN_LOOP) as (service, _):
            await trio.sleep(25)
            nursery.start_soon(make, service)
            await trio.sleep(5)
    assert not nursery.cancel_scope.cancelled_caught


async def test_a_close_that_is_given_up_is_gone_on_with(autojump_clock: Any) -> None:
    """The next call, or leaving, ends what it began, and its word counts."""
    faults = attrs.evolve(ServiceFaults(), work=Fixed(50.0))
    config = attrs.evolve(IN_LOOP, grace=200.0)
    async with no_leaked_tasks(), open_scripted_service(faults, config=config) as (service, scripted):
        sampling = await service.create_sampling_client(base_model=MODEL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sampling.sample, PROMPT, 1, GREEDY)
            await trio.sleep(1)
            with trio.move_on_after(5) as scope:
                await service.close("success", "first")
            assert scope.cancelled_caught
            await service.close("interrupted", "second")
    assert told(scripted) == [("success", "first")]


@pytest.mark.requirement("R142", "R146")
@pytest.mark.lesson("D4", "D7")
async def test_no_beat_follows_the_end_and_no_thread_is_left() -> None:
    """The session is finished before its beats stop, and the thread that beats has ended with the service."""
    scripted = ScriptedService()
    from tinker_actors.testing import serve_scripted

    async with serve_scripted(scripted) as url:
        import random

        from tinker_actors.actors.service_client import open_client

        before = set(threading.enumerate())
        config = Config(
            base_url=url, heartbeat_period=0.02, telemetry=False, tags=("a",), user_metadata={"b": "c"}
        )
        async with open_client(config, rng=random.Random(0), backend=url, chosen="x"):
            with trio.fail_after(20):
                while scripted.count("session_heartbeat") < 3:  # noqa: ASYNC110 - the service tells nobody
                    await trio.sleep(0.02)
        beats = scripted.count("session_heartbeat")
        await trio.sleep(0.1)
        assert scripted.count("session_heartbeat") == beats >= 3
        beating = [one.name for one in set(threading.enumerate()) - before if "Trio" not in one.name]
        assert beating == []
    created = next(one.body for one in scripted.requests if one.endpoint == "create_session")
    assert created is not None
    assert (list(created["tags"]), created["user_metadata"]) == (["a"], {"b": "c"})
    assert created["sdk_version"]


@pytest.mark.lesson("D4", "D7")
async def test_a_beat_that_meets_a_finished_session_says_nothing(autojump_clock: Any) -> None:
    """Its 410 may come when the session's actor takes nothing any more; that happens outside of any task."""

    class Closed:
        """A keeper that takes nothing any more."""

        def tell_nowait(self, _: object) -> None:
            raise ServiceClosing

    async with open_scripted_service() as (service, _):
        session = service._tree.session
        actor = HeartbeatActor(Config(base_url="http://scripted"), session, None, service._tree.events)
        keeper, session.keeper = session.keeper, cast("Any", Closed())
        try:
            actor._take(Gone(session.session_id, 410))
        finally:
            session.keeper = keeper
