"""A session that is lost: one new one, models restored in it, samplers bound to it; nobody who waits notices more."""

from __future__ import annotations

from typing import Any, Literal

import attrs
import pytest
import trio

from tests.actors.scripted import ADAM, GREEDY, MODEL, MODES, PROMPT, batch, heard, lineage, open_mode, steps
from tinker_actors.errors import AuthenticationError, BadRequestError, ModelPoisoned, SamplerLost
from tinker_actors.protocol.event import ActorFailed, ModelRestored, SamplerRebound, SessionRenewed
from tinker_actors.testing import Fixed, ServiceFaults, open_scripted_service
from tinker_actors.transport.config import Config

EVERY_MODE = pytest.mark.parametrize("mode", list(MODES))


async def train(training: Any, *tokens: int) -> list[Any]:
    """Take one step for each token, and return the Pendings."""
    pendings = []
    for token in tokens:
        pendings.append(await training.forward_backward(batch(token), "cross_entropy"))
        pendings.append(await training.optim_step(ADAM))
    return pendings


@EVERY_MODE
@pytest.mark.requirement("R141", "R109")
@pytest.mark.lesson("D42", "D8")
@pytest.mark.parametrize("form", ["410", "404", "500", "silent"])
async def test_three_models_and_two_samplers_outlive_their_session(
    autojump_clock: Any, mode: str, form: Literal["410", "404", "500", "silent"]
) -> None:
    """Each model has each step once, in a new model; a sampler of saved weights and one of published ones go on.

    The session is lost at a beat; what is in flight then, what stands in line, and what idles goes on alike. A service
    that says nothing of it loses the models, and that shows at the next request to them.
    """
    faults = attrs.evolve(ServiceFaults().lose_session(form, of="session_heartbeat", nth=4), work=Fixed(2.0))
    async with open_mode(mode, faults) as (service, scripted):
        events = service.subscribe()
        models = [await service.create_lora_training_client(MODEL) for _ in range(3)]
        saved = await models[0].save_weights_for_sampler("s")
        named = await service.create_sampling_client(model_path=saved.path)
        for pending in [*await train(models[0], 1, 2), *await train(models[1], 3)]:
            await pending
        published = await models[0].save_weights_and_get_sampling_client()
        await trio.sleep_until(29.0)
        in_flight = [*await train(models[1], 4), *await train(models[2], 5)]
        await trio.sleep(60)
        for model, token in zip(models, (6, 7, 8), strict=True):
            in_flight += await train(model, token)
        with trio.fail_after(600):
            for pending in in_flight:
                await pending
            if form != "silent":
                await named.sample(PROMPT, 1, GREEDY)
                await published.sample(PROMPT, 1, GREEDY)
        assert lineage(scripted, models[0].model_id) == steps(1, 2, 6)
        assert lineage(scripted, models[1].model_id) == steps(3, 4, 7)
        assert lineage(scripted, models[2].model_id) == steps(5, 8)
        told = heard(events, SessionRenewed, ModelRestored, SamplerRebound, ActorFailed)
        if form != "silent":
            assert [event.epoch for event in told if isinstance(event, SessionRenewed)] == [2]
            assert len(scripted.sessions) == 1
            assert len([event for event in told if isinstance(event, SamplerRebound)]) == 2
            assert published.target.sampling_session_id.startswith(scripted.sessions[0])
        assert len([event for event in told if isinstance(event, ModelRestored)]) == 3


async def test_models_are_restored_two_at_a_time_and_not_in_step(autojump_clock: Any) -> None:
    """Twenty models that are lost together begin at different moments, and two are made at once at most."""
    faults = attrs.evolve(
        ServiceFaults().lose_session("410", of="session_heartbeat", nth=4),
        work=Fixed(1.0),
        latency=Fixed(0.1),
    )
    async with open_scripted_service(faults) as (service, scripted):
        for _ in range(20):
            await service.create_lora_training_client(MODEL)
        made = scripted.count("create_model")
        await trio.sleep(60)
        times = [one.at for one in scripted.requests if one.endpoint == "create_model"][made:]
        assert len(times) == 20
        assert all(times[at + 2] - times[at] >= 1.0 for at in range(18))
        assert len(set(times)) == 20


async def test_a_lost_session_costs_no_restart(autojump_clock: Any) -> None:
    """Ten sessions lost one after the other: the model is restored each time, and never given up."""
    async with open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        for token in range(10):
            for pending in await train(training, token):
                await pending
            scripted.lose_session(scripted.sessions[-1], trio.current_time())
            await trio.sleep(0.5)
        for pending in await train(training, 10):
            await pending
        assert lineage(scripted, training.model_id) == steps(*range(11))
        assert service.session_id == "session-10"


async def test_a_model_lost_again_and_again_is_restored_each_time(autojump_clock: Any) -> None:
    """Losses are the service's, not crashes of ours: as long as a restore succeeds they are not counted."""
    async with open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        for token in range(20):
            for pending in await train(training, token):
                await pending
            scripted.lose_model(training.model_id, trio.current_time())
        for pending in await train(training, 20):
            await pending
        assert lineage(scripted, training.model_id) == steps(*range(21))


async def test_a_refused_session_is_told_to_those_who_wait(autojump_clock: Any) -> None:
    """If the service no longer takes the key, the models are poisoned with that, at once, and nothing hangs."""
    faults = ServiceFaults().lose_session("410", of="session_heartbeat", nth=2)
    faults = faults.refuse(401, of="create_session", start=5, end=1e6)
    with trio.fail_after(200):
        async with open_scripted_service(faults) as (service, _):
            training = await service.create_lora_training_client(MODEL)
            for pending in await train(training, 1):
                await pending
            await trio.sleep(15)
            with pytest.raises(ModelPoisoned) as poisoned:
                await (await training.optim_step(ADAM))
            assert isinstance(poisoned.value.__cause__, AuthenticationError)


def without_new_session(end: float) -> ServiceFaults:
    """Return a plan in which the session is lost after 20 seconds, and a new one is refused until `end`."""
    faults = ServiceFaults().lose_session("410", of="session_heartbeat", nth=3)
    return faults.refuse(400, of="create_session", start=10, end=end, text="no room")


async def test_a_session_that_is_refused_for_ever_ends_the_work(autojump_clock: Any) -> None:
    """Models are poisoned after five restores that came to nothing, samples fail; all share what is tried for them."""
    with trio.fail_after(2000):
        async with open_scripted_service(without_new_session(1e6)) as (service, scripted):
            models = [await service.create_lora_training_client(MODEL) for _ in range(4)]
            samplings = [await service.create_sampling_client(base_model=MODEL) for _ in range(20)]
            await trio.sleep(25)

            async def step(training: Any) -> None:
                with pytest.raises(ModelPoisoned):
                    await (await training.optim_step(ADAM))

            async def sample(sampling: Any) -> None:
                with pytest.raises(BadRequestError, match="no room"):
                    await sampling.sample(PROMPT, 1, GREEDY)

            async with trio.open_nursery() as nursery:
                for training in models:
                    nursery.start_soon(step, training)
                for sampling in samplings:
                    nursery.start_soon(sample, sampling)
            assert scripted.count("create_session") < 100
            assert len(scripted.requests) < 400


async def test_a_session_that_was_refused_for_a_while_is_had_later(autojump_clock: Any) -> None:
    """Whoever needs one has it tried again: a sampler is not dead because of a refusal that has passed."""
    async with open_scripted_service(without_new_session(500)) as (service, _):
        sampling = await service.create_sampling_client(base_model=MODEL)
        await trio.sleep(25)
        with pytest.raises(BadRequestError, match="no room"):
            await sampling.sample(PROMPT, 1, GREEDY)
        await trio.sleep_until(600)
        await sampling.sample(PROMPT, 1, GREEDY)
        training = await service.create_lora_training_client(MODEL)
        assert training.model_id.startswith(service.session_id)
        assert service.session_id != "session-0"


async def test_an_outage_while_the_session_is_renewed_is_waited_out(autojump_clock: Any) -> None:
    """A session lost with its service: the new one is opened, and the model restored, when the service is back."""
    faults = ServiceFaults().lose_session("410", of="session_heartbeat", nth=3)
    faults = faults.drop("connect", of=("create_session", "healthz"), start=10, end=3000)
    async with open_scripted_service(faults) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        pendings = await train(training, 1)
        await trio.sleep(25)
        pendings += await train(training, 2)
        for pending in pendings:
            await pending
        assert trio.current_time() > 2900
        assert lineage(scripted, training.model_id) == steps(1, 2)


# --- samplers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["path", "base"])
async def test_a_sampling_session_that_is_lost_alone_is_opened_anew_once(
    autojump_clock: Any, origin: str
) -> None:
    """A hundred samples find it gone; one of them opens it, with new numbers, and all are drawn."""
    async with open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        saved = await training.save_weights_for_sampler("s")
        sampling = await (
            service.create_sampling_client(model_path=saved.path)
            if origin == "path"
            else service.create_sampling_client(base_model=MODEL)
        )
        await sampling.sample(PROMPT, 1, GREEDY)
        scripted.lose_sampler(sampling.target.sampling_session_id)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(sampling.sample, PROMPT, 1, GREEDY)
        assert scripted.count("create_sampling_session") == 2
        assert service.session_id == "session-0"


async def test_published_weights_wait_for_their_place_in_the_line(autojump_clock: Any) -> None:
    """A published sampler draws from the weights it had, though its model has trained on since."""
    async with open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        for pending in await train(training, 1, 2):
            await pending
        published = await training.save_weights_and_get_sampling_client()
        for pending in await train(training, 3):
            await pending
        before = await published.sample(PROMPT, 1, GREEDY)
        scripted.lose_session(service.session_id, trio.current_time())
        assert (await published.sample(PROMPT, 1, GREEDY)).sequences[0].tokens == before.sequences[0].tokens
        assert scripted.samplers[published.target.sampling_session_id] == 2
        assert lineage(scripted, training.model_id) == steps(1, 2, 3)


async def test_published_weights_that_nobody_samples_from_are_not_published_again(
    autojump_clock: Any,
) -> None:
    """A sampler that is gone costs nothing in a restore."""
    async with open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        kept = None
        for token in range(5):
            for pending in await train(training, token):
                await pending
            kept = await training.save_weights_and_get_sampling_client()
        published = scripted.count("save_weights_for_sampler")
        scripted.lose_session(service.session_id, trio.current_time())
        assert kept is not None
        await kept.sample(PROMPT, 1, GREEDY)
        assert published == 5
        assert scripted.count("save_weights_for_sampler") == 6


async def test_published_weights_behind_a_checkpoint_end_with_their_session(autojump_clock: Any) -> None:
    """What was published before the state that is loaded cannot be had again: that is said, and nothing waits."""
    async with open_scripted_service() as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        old = await training.save_weights_and_get_sampling_client()
        for pending in await train(training, 1):
            await pending
        same = await training.save_weights_and_get_sampling_client()
        await training.save_state("a")
        scripted.lose_session(service.session_id, trio.current_time())
        await same.sample(PROMPT, 1, GREEDY)
        with pytest.raises(SamplerLost, match="before the state"):
            await old.sample(PROMPT, 1, GREEDY)


async def test_published_weights_end_with_their_model(autojump_clock: Any) -> None:
    """If the model cannot be restored, its sampler says so in time."""
    faults = ServiceFaults().refuse(400, of="create_model", start=10, end=1e6, text="no room")
    config = Config(base_url="http://scripted", heartbeat="loop", telemetry=False)
    async with open_scripted_service(faults, config=config) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        published = await training.save_weights_and_get_sampling_client()
        await trio.sleep(12)
        scripted.lose_session(service.session_id, trio.current_time())
        with trio.fail_after(600), pytest.raises(SamplerLost, match="not used any more") as lost:
            await published.sample(PROMPT, 1, GREEDY)
        assert isinstance(lost.value.__cause__, ModelPoisoned)


@EVERY_MODE
async def test_published_weights_that_are_lost_with_their_model_come_back_with_it(
    autojump_clock: Any, mode: str
) -> None:
    """A restarted service may know the session, but neither model nor sampler: who samples has the model restored."""
    async with open_mode(mode) as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        for pending in await train(training, 1, 2):
            await pending
        published = await training.save_weights_and_get_sampling_client()
        await published.sample(PROMPT, 1, GREEDY)
        scripted.restart(trio.current_time())
        scripted.lose_sampler(published.target.sampling_session_id)
        with trio.fail_after(600):
            await published.sample(PROMPT, 1, GREEDY)
        assert lineage(scripted, training.model_id) == steps(1, 2)
        assert scripted.samplers == {published.target.sampling_session_id: 2}
        assert len(scripted.sessions) == 1


async def test_published_weights_that_are_dropped_alone_are_gone(autojump_clock: Any) -> None:
    """Their model is looked for, is there, and has gone on since."""
    async with open_mode("replay") as (service, scripted):
        training = await service.create_lora_training_client(MODEL)
        published = await training.save_weights_and_get_sampling_client()
        scripted.lose_sampler(published.target.sampling_session_id)
        with trio.fail_after(600), pytest.raises(SamplerLost, match="has dropped it"):
            await published.sample(PROMPT, 1, GREEDY)
        for pending in await train(training, 1):
            await pending
        assert lineage(scripted, training.model_id) == steps(1)
