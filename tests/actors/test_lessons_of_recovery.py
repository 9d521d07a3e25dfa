"""What a thin recovery gets wrong, one weakness after the other, and that ours does not."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import httpx
import pytest
import trio

from tests.actors.processes import Process, World, loop
from tests.actors.scripted import ADAM, MODEL, PROMPT, batch, heard, lineage, open_mode, steps
from tinker_actors.errors import (
    BadRequestError,
    ModelPoisoned,
    NotFoundError,
    PermissionDeniedError,
    TinkerActorsError,
)
from tinker_actors.events import ModelRestored
from tinker_actors.protocol.recovery import MAX_RESTORES
from tinker_actors.testing import Fixed, ServiceFaults
from tinker_actors.types import SamplingParams

NOT_LOADED = {"detail": "Model is not loaded"}


def lose_at(lost: set[str]) -> Any:
    """Return a rule that refuses what is sent to models that are lost."""

    def rule(body: dict[str, Any], _: int) -> httpx.Response | None:
        return httpx.Response(400, json=NOT_LOADED) if body["model_id"] in lost else None

    return rule


async def held_restore(service: Any, stub: Any) -> Any:
    """Return a model that is lost, with a saved state whose load is held."""
    lost: set[str] = set()
    stub.rules["forward_backward"] = lose_at(lost)
    training = await service.create_lora_training_client(MODEL)
    await training.save_state("a")
    lost.add(training.model_id)
    stub.held["load_weights"] = trio.Event()
    return training


async def train(training: Any, token: int) -> Any:
    """Put a step in line; return its end."""
    await training.forward_backward(batch(token), "cross_entropy")
    return await training.optim_step(ADAM)


@pytest.mark.lesson("L33", "W1")
async def test_a_restore_that_is_killed_gives_its_place_to_the_next(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Two models may be restored at a time: two whose loads never end are killed, and the third has its turn."""
    lost: set[str] = set()
    stub.rules["forward_backward"] = lose_at(lost)
    async with open_stub() as service:
        models = [await service.create_lora_training_client(MODEL) for _ in range(3)]
        for training in models:
            await (await train(training, 1))
            await training.save_state("a")
        stub.held["load_weights"] = trio.Event()
        lost.update(training.model_id for training in models)
        async with trio.open_nursery() as nursery:

            async def step(training: Any) -> None:
                forward = await training.forward_backward(batch(2), "cross_entropy")
                optim = await training.optim_step(ADAM)
                for pending in (forward, optim):
                    with contextlib.suppress(TinkerActorsError):
                        await pending

            for training in models[:2]:
                nursery.start_soon(step, training)
            await trio.sleep(30.0)
            stuck = [training.model_id for training in models[:2]]
            nursery.start_soon(step, models[2])
            await trio.sleep(30.0)
            assert models[2].model_id in lost  # it waits for a place
            for training in models[:2]:
                await training.ref.stop("kill")
            await trio.sleep(30.0)
            assert stub.names().count("load_weights") == 3  # though none of the loads has ended
            stub.held["load_weights"].set()
        assert set(stuck).isdisjoint(lost)
        assert models[2].model_id not in lost
        assert [body["model_id"] for body in stub.bodies("optim_step")].count(models[2].model_id) == 1


@pytest.mark.lesson("L33", "W2")
async def test_what_will_never_succeed_is_not_tried_again(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """A key that may not, and a state that is gone with none before it, give the model up at once."""
    lost: set[str] = set()
    stub.rules["forward_backward"] = lose_at(lost)
    async with open_stub() as service:
        forbidden = await service.create_lora_training_client(MODEL)
        lost.add(forbidden.model_id)
        stub.rules["create_model"] = lambda _, __: httpx.Response(403, json={"detail": "not yours"})
        before = stub.names().count("create_model")
        with pytest.raises(ModelPoisoned) as caught:
            await (await train(forbidden, 1))
        assert isinstance(caught.value.__cause__, PermissionDeniedError)
        assert stub.names().count("create_model") == before + 1
        del stub.rules["create_model"]
        stub.rules["load_weights"] = lambda _, __: httpx.Response(404, json={"detail": "no such state"})
        gone = await service.create_lora_training_client(MODEL)
        await gone.save_state("a")
        await gone.save_state("b")
        for token in range(3):  # more than the journal goes back
            await gone.save_state(f"later-{token}")
        lost.add(gone.model_id)
        with pytest.raises(ModelPoisoned) as caught:
            await (await train(gone, 1))
        assert isinstance(caught.value.__cause__, NotFoundError)
        assert stub.names().count("load_weights") == 2  # the newest, and the one that can be fallen back on
        assert trio.current_time() < 10.0


@pytest.mark.lesson("L33", "W3")
async def test_a_load_that_fails_leaves_no_model_behind(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Each model that was made for it gives its slot back, and no number is used twice."""
    lost: set[str] = set()
    stub.rules["forward_backward"] = lose_at(lost)
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await train(training, 1))
        await training.save_state("a")
        lost.add(training.model_id)
        stub.rules["load_weights"] = lambda body, count: httpx.Response(500) if count < 12 else None
        await (await train(training, 2))
        numbers = [body["model_seq_id"] for body in stub.bodies("create_model")]
        assert len(numbers) == len(set(numbers)) > 2
        made = {f"s0:train:{number}" for number in numbers}
        assert {body["model_id"] for body in stub.bodies("unload_model")} == made - {training.model_id}


@pytest.mark.lesson("L33", "W4")
async def test_whoever_holds_the_client_goes_on_with_it(autojump_clock: Any) -> None:
    """It stands for the lineage, not for an id; what waited for the old model is not asked for any more."""
    async with open_mode("replay", ServiceFaults(work=Fixed(5.0))) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        await (await train(training, 1))
        pending = await train(training, 2)
        old = training.model_id
        scripted.lose_model(old, trio.current_time())
        await pending
        mark = len(scripted.requests)
        await (await train(training, 3))
        await trio.sleep(120.0)
        assert training.model_id != old
        assert lineage(scripted, training.model_id) == steps(1, 2, 3)
        assert [one for one in scripted.requests[mark:] if old in str(one.body)] == []


@pytest.mark.lesson("L33", "W5")
async def test_a_model_that_was_restored_is_looked_after_like_the_first(autojump_clock: Any) -> None:
    """Its loss is noticed, and answered, as often as it comes."""
    async with open_mode("replay") as (service, scripted):
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        for token in range(4):
            scripted.lose_model(training.model_id, trio.current_time())
            await (await train(training, token))
        assert len(heard(events, ModelRestored)) == 4
        assert lineage(scripted, training.model_id) == steps(0, 1, 2, 3)


@pytest.mark.lesson("L33", "W6")
async def test_a_restore_holds_up_nothing_else(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Other models are made and trained, samples drawn and questions asked, while one is loaded."""
    async with open_stub() as service:
        training = await held_restore(service, stub)
        pending = await train(training, 1)
        await trio.sleep(10.0)
        began = trio.current_time()
        other = await service.create_lora_training_client(MODEL)
        await (await train(other, 2))
        sampling = await service.create_sampling_client(base_model=MODEL)
        await sampling.sample(PROMPT, 1, SamplingParams(max_tokens=2))
        assert trio.current_time() - began < 1.0
        assert not pending.settled
        stub.held["load_weights"].set()
        await pending


@pytest.mark.lesson("L33", "W7")
async def test_no_step_is_lost_between_the_state_and_the_loss(autojump_clock: Any) -> None:
    """Nor where the loop stands: a second process goes on behind the last decided step."""
    world = World()
    await world.leave_by_kill(loop(5, save_after=(1,)))
    world.service.restart(trio.current_time() + 1e6)

    async def second(process: Process) -> None:
        assert [decision.after for decision in process.journal.decisions][-1] == b"5"
        await loop(7)(process)

    assert await world.process(second)
    assert world.trained == steps(*range(7))


@pytest.mark.lesson("L33", "W8")
async def test_a_state_that_has_expired_is_not_the_end(autojump_clock: Any) -> None:
    """The one before it is loaded; and weights to sample from, which the service refuses as a state, do no harm."""
    async with open_mode("replay") as (service, scripted):
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        await (await train(training, 0))
        lasting = await training.save_state("lasting")
        await (await train(training, 1))
        await training.save_state("passing", ttl_seconds=3600)
        await (await train(training, 2))
        await trio.sleep(4000.0)
        scripted.lose_model(training.model_id, trio.current_time())
        await (await train(training, 3))
        assert lineage(scripted, training.model_id) == steps(0, 1, 2, 3)
        assert heard(events, ModelRestored)[-1].checkpoint == lasting.path
        sampler = await training.save_weights_for_sampler("weights")
        with pytest.raises(BadRequestError):
            await training.load_state(sampler.path)
        await (await train(training, 4))
        assert lineage(scripted, training.model_id) == steps(0, 1, 2, 3, 4)


@pytest.mark.lesson("L33", "W9")
async def test_a_load_that_never_ends_is_given_up(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """After an hour in which the service could be reached, another model is made and loaded."""
    async with open_stub() as service:
        training = await held_restore(service, stub)
        pending = await train(training, 1)
        await trio.sleep(4000.0)
        assert stub.names().count("create_model") == 3
        stub.held["load_weights"].set()
        await pending
        assert training.model_id == "s0:train:2"


@pytest.mark.lesson("L33", "W10")
async def test_restores_that_come_to_nothing_end_at_some_point(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Later and later, and a bounded number of times in a row; then the first cause is told."""
    stub.rules["forward_backward"] = lambda body, _: httpx.Response(400, json=NOT_LOADED)
    times: list[float] = []

    def made(_: dict[str, Any], __: int) -> None:
        times.append(trio.current_time())

    stub.rules["create_model"] = made
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(ModelPoisoned, match="not loaded"):
            await (await training.forward_backward(batch(1), "cross_entropy"))
        assert len(times) == 1 + MAX_RESTORES
        waits = [later - earlier for earlier, later in itertools.pairwise(times[1:])]
        assert waits == sorted(waits)
        assert waits[-1] > 3.0


@pytest.mark.lesson("L33", "W11")
async def test_a_restore_can_be_seen_and_stopped(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """It is among the waits of the service, its end is an event, and who stops the model stops its restore."""
    async with open_stub() as service:
        events = service.subscribe()
        training = await held_restore(service, stub)
        pending = await training.forward_backward(batch(1), "cross_entropy")
        await trio.sleep(60.0)
        assert ("s0:train:1", "LoadWeights") in {(one.subject, one.what) for one in service.waits()}
        await training.ref.stop("kill")
        with pytest.raises(TinkerActorsError):
            await pending
        mark = len(stub.log)
        stub.held["load_weights"].set()
        await trio.sleep(600.0)
        names = {name for name, _ in stub.log[mark:]} - {"session_heartbeat", "client/dynamic_config"}
        assert names <= {"retrieve_future", "telemetry"}
        assert heard(events, ModelRestored) == []


@pytest.mark.lesson("L33", "W11")
async def test_a_restore_that_waits_for_its_place_can_be_stopped_too(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """It never begins: no model is made for whoever is not there any more, when a place is free."""
    lost: set[str] = set()
    stub.rules["forward_backward"] = lose_at(lost)
    async with open_stub() as service:
        models = [await service.create_lora_training_client(MODEL) for _ in range(3)]
        for training in models:
            await training.save_state("a")
        lost.update(training.model_id for training in models)
        stub.held["load_weights"] = trio.Event()
        made = stub.names().count("create_model")
        pending = []
        for training in models:
            pending.append(await training.forward_backward(batch(1), "cross_entropy"))
            await trio.sleep(30.0)
        assert stub.names().count("create_model") == made + 2  # the third one waits
        await models[2].ref.stop("kill")
        with pytest.raises(TinkerActorsError):
            await pending[2]
        stub.held["load_weights"].set()
        for one in pending[:2]:
            await one
        await trio.sleep(600.0)
        assert stub.names().count("create_model") == made + 2


@pytest.mark.lesson("L33", "W12")
async def test_many_models_are_not_restored_in_step(autojump_clock: Any) -> None:
    """Two at a time, and each begins at a moment of its own."""
    async with open_mode("replay", ServiceFaults(work=Fixed(1.0))) as (service, scripted):
        models = [await service.create_lora_training_client(MODEL) for _ in range(6)]
        for training in models:
            await (await train(training, 1))
        mark = len(scripted.requests)
        scripted.lose_session("session-0", trio.current_time())
        async with trio.open_nursery() as nursery:

            async def step(training: Any) -> None:
                await (await train(training, 2))

            for training in models:
                nursery.start_soon(step, training)
        made = [
            one.at
            for one in scripted.requests[mark:]
            if one.endpoint == "create_model" and one.body["session_id"] == "session-1"
        ]
        assert len(made) == len(set(made)) == 6
        assert [sum(abs(one - other) < 0.5 for other in made) <= 2 for one in made] == [True] * 6
        assert all(lineage(scripted, training.model_id) == steps(1, 2) for training in models)


@pytest.mark.lesson("D9")
async def test_a_session_of_an_earlier_process_is_kept_alive_by_this_one(autojump_clock: Any) -> None:
    """Its beats go out on connections of its own."""
    world = World(session_timeout=60.0)
    await world.leave_by_kill(loop(1))

    async def second(process: Process) -> None:
        session_id = process.client.session_id
        await trio.sleep(300.0)
        await loop(2)(process)
        assert process.client.session_id == session_id == "session-0"

    assert await world.process(second)
    assert world.trained == steps(0, 1)
