"""A service that refuses repeated numbers: what it has carried out counts, although its result is lost."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest
import trio

from tinker_actors.actors.message import RenewSession
from tinker_actors.errors import ConflictError, RequestFailedError, ResultLost
from tinker_actors.protocol.event import ModelLostEvent, ModelRestored, OrphanPossible
from tinker_actors.types import AdamParams

ADAM = AdamParams(learning_rate=1e-3)
MODEL = "tinker-actors/char-100k"
DOWN = httpx.Response(503, json={"detail": "after the work was taken"})


def used(number: int) -> httpx.Response:
    """Refuse a number that was used."""
    detail = f"Sequence conflict: expected {number + 1}, got {number}"
    return httpx.Response(409, json={"detail": detail})


def refuse_the_second(stub: Any, endpoint: str, at: int, *, by_promise: bool) -> None:
    """Have the request number `at` of an endpoint carried out without an answer, and its repetition refused."""

    def rule(body: dict[str, Any], count: int) -> httpx.Response | None:
        if count == at:
            return DOWN
        if count != at + 1:
            return None
        if by_promise:
            return httpx.Response(202, json=stub.promise("refused", used(body["seq_id"])))
        return used(body["seq_id"])

    stub.rules[endpoint] = rule


def happened(events: Any, *kinds: type) -> list[object]:
    """Return the losses and restores among the events so far, or those of other kinds."""
    found: list[object] = []
    with contextlib.suppress(trio.WouldBlock):
        while True:
            found.append(events.receive_nowait())
    return [event for event in found if isinstance(event, kinds or (ModelLostEvent, ModelRestored))]


@pytest.mark.parametrize("by_promise", [False, True])
@pytest.mark.parametrize("endpoint", ["forward_backward", "optim_step"])
async def test_a_lost_result_is_an_outcome_of_its_own(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, endpoint: str, by_promise: bool
) -> None:
    """Its Pending says so; its number is used up; the model is neither poisoned nor restored, and training goes on."""
    refuse_the_second(stub, endpoint, 1, by_promise=by_promise)
    async with open_stub(dedupe="reject") as service:
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        pendings = []
        for i in range(3):
            pendings.append(await training.forward_backward(batch(i), "cross_entropy"))
            pendings.append(await training.optim_step(ADAM))
        hit = 2 if endpoint == "forward_backward" else 3
        for number, pending in enumerate(pendings):
            if number == hit:
                with pytest.raises(ResultLost, match="its result is lost") as caught:
                    await pending
                assert isinstance(caught.value.__cause__, ConflictError)
                assert caught.value.started
            else:
                await pending
        assert happened(events) == []
    sent = stub.wire()
    assert [number for _, number in sent] == [
        1,
        2,
        3,
        *([3] if hit == 2 else []),
        4,
        *([4] if hit == 3 else []),
        5,
        6,
    ]
    assert stub.names().count("create_model") == 1


async def test_a_conflict_without_a_doubtful_send_is_an_ordinary_failure(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Somebody else has used the number."""
    stub.rules["forward_backward"] = lambda body, _: used(body["seq_id"])
    async with open_stub(dedupe="reject") as service:
        training = await service.create_lora_training_client(MODEL)
        pending = await training.forward_backward(batch(1), "cross_entropy")
        with pytest.raises(ConflictError):
            await pending


@pytest.mark.parametrize("by_promise", [False, True])
@pytest.mark.parametrize("dedupe", ["replay", "reject"])
async def test_a_refusal_does_not_end_a_doubt(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, dedupe: str, by_promise: bool
) -> None:
    """A conflict that does not say that the number was used leaves the model unknown: it is made anew."""
    odd = httpx.Response(409, json={"detail": "no"})

    def rule(body: dict[str, Any], count: int) -> httpx.Response | None:
        if count > 1:
            return None
        if count == 1 and by_promise:
            return httpx.Response(202, json=stub.promise("refused", odd))
        return odd if count else DOWN

    stub.rules["optim_step"] = rule
    async with open_stub(dedupe=dedupe) as service:
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1), "cross_entropy")
        await (await training.optim_step(ADAM))
        await forward
        assert [type(event) for event in happened(events)] == [ModelLostEvent, ModelRestored]
    assert stub.names().count("create_model") == 2


async def test_one_lost_part_of_a_batch_loses_the_result_of_the_batch(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The gradient is on the service as a whole, so the step goes on."""
    stub.rules["client/config"] = lambda *_: httpx.Response(200, json={"fwdbwd_max_chunk_len": 1})
    refuse_the_second(stub, "forward_backward", 1, by_promise=True)
    async with open_stub(dedupe="reject") as service:
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1) + batch(2) + batch(3), "cross_entropy")
        optim = await training.optim_step(ADAM)
        with pytest.raises(ResultLost):
            await forward
        assert (await optim).metrics == {"seq": 4.0}
        assert happened(events) == []


async def test_a_part_that_failed_counts_more_than_one_that_is_lost(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """Then the batch has failed, and its step with it."""
    stub.rules["client/config"] = lambda *_: httpx.Response(200, json={"fwdbwd_max_chunk_len": 1})
    refuse_the_second(stub, "forward_backward", 0, by_promise=True)
    stub.results["forward_backward#2"] = {"error": "loss is not finite", "category": "user"}
    async with open_stub(dedupe="reject") as service:
        training = await service.create_lora_training_client(MODEL)
        forward = await training.forward_backward(batch(1) + batch(2), "cross_entropy")
        with pytest.raises(RequestFailedError, match="loss is not finite"):
            await forward


async def test_a_state_whose_loading_is_lost_is_loaded(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """A restore begins with it, also if that restore's own loading has no result."""
    path = "tinker://m/weights/x"
    refuse_the_second(stub, "load_weights", 0, by_promise=False)
    async with open_stub(dedupe="reject") as service:
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(ResultLost):
            await training.load_state_with_optimizer(path)
        refuse_the_second(stub, "load_weights", 2, by_promise=False)
        stub.results["optim_step#0"] = httpx.Response(410, json={"detail": "promise broken"})
        await training.forward_backward(batch(1), "cross_entropy")
        await (await training.optim_step(ADAM))
        restored = happened(events)[-1]
    assert isinstance(restored, ModelRestored)
    assert restored.checkpoint == path
    assert [body["path"] for body in stub.bodies("load_weights")] == [path] * 4


@pytest.mark.parametrize("what", ["create_model", "create_session"])
async def test_what_may_have_been_made_twice_is_told(
    autojump_clock: Any, open_stub: Any, stub: Any, what: str
) -> None:
    """An answer that was lost may leave one that nobody knows; refusals leave none."""
    answers = {0: httpx.Response(429, json={}), 1: DOWN} if what == "create_model" else {1: DOWN}
    stub.rules[what] = lambda _, count: answers.get(count)
    async with open_stub() as service:
        events = service.subscribe()
        await service.create_lora_training_client(MODEL)
        if what == "create_session":
            keeper = service._tree.session.keeper
            await keeper.ask(RenewSession(1))
        found = [event for event in happened(events, OrphanPossible) if isinstance(event, OrphanPossible)]
    expected = (
        OrphanPossible("create_model", "s0", 0) if what == "create_model" else OrphanPossible(what, "", 1)
    )
    assert found == [expected]


@pytest.mark.parametrize("by", ["base model", "path", "training client"])
async def test_a_sampling_session_that_may_have_been_made_twice_is_told(
    autojump_clock: Any, open_stub: Any, stub: Any, by: str
) -> None:
    """However it is opened; one that was refused leaves none."""
    answers = {0: httpx.Response(429, json={}), 1: DOWN}
    stub.rules["create_sampling_session"] = lambda _, count: answers.get(count)
    async with open_stub() as service:
        events = service.subscribe()
        if by == "base model":
            await service.create_sampling_client(base_model=MODEL)
        elif by == "path":
            await service.create_sampling_client("tinker://m/sampler_weights/a")
        else:
            training = await service.create_lora_training_client(MODEL)
            await training.create_sampling_client("tinker://m/sampler_weights/a")
        await service.create_sampling_client(base_model=MODEL)
        found = [event for event in happened(events, OrphanPossible) if isinstance(event, OrphanPossible)]
    assert found == [OrphanPossible("create_sampling_session", "s0", 0)]


LISTED = {
    "checkpoints": [
        {
            "checkpoint_id": f"{kind}/there",
            "checkpoint_type": kind_name,
            "time": "2026-10-21T07:28:00Z",
            "tinker_path": f"tinker://s0:train:0/{kind}/there",
        }
        for kind, kind_name in (("weights", "training"), ("sampler_weights", "sampler"))
    ]
}


@pytest.mark.parametrize("by_promise", [False, True])
@pytest.mark.parametrize("listing", [httpx.Response(200, json=LISTED), httpx.Response(404, json={})])
async def test_a_name_that_is_taken_after_a_doubtful_save_is_looked_up(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any, by_promise: bool, listing: httpx.Response
) -> None:
    """What is there was saved by the first send; what is not, or cannot be seen, is a conflict."""
    taken = httpx.Response(409, json={"detail": "Checkpoint already exists"})

    def rule(body: dict[str, Any], count: int) -> httpx.Response | None:
        if count % 2 == 0:
            return DOWN
        if by_promise:
            return httpx.Response(200, json=stub.promise("refused", taken))
        return taken

    stub.rules["save_weights"] = rule
    stub.rules["training_runs/s0:train:0/checkpoints"] = lambda *_: listing
    async with open_stub(dedupe="none") as service:
        training = await service.create_lora_training_client(MODEL)
        if listing.status_code == 200:
            assert (await training.save_state("there")).path == "tinker://s0:train:0/weights/there"
            with pytest.raises(ConflictError, match="already exists"):
                await training.save_state("elsewhere")
        else:
            with pytest.raises(ConflictError, match="already exists"):
                await training.save_state("there")
        await (await training.forward_backward(batch(1), "cross_entropy"))
        await (await training.optim_step(ADAM))
    assert stub.names().count("create_model") == 1
