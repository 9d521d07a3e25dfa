"""What a TrainingClient makes of its arguments and of the replies, beside the messages in the table of verbs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tinker_actors.actors.message import (
    LoadState,
    OptimStep,
    SaveState,
    SaveWeightsExternal,
    SaveWeightsForSampler,
)
from tinker_actors.errors import APIResponseValidationError, InputError, NotFoundError
from tinker_actors.types import AdamParams, CustomLoss, Datum, ModelInput, SamplingParams
from tinker_actors.wire.optimizer import DimuonParams, OptimParamsBase

MODEL = "tinker-actors/char-100k"


@pytest.mark.requirement("R20")
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "optim_params"),
        ({"optim_params": AdamParams(), "adam_params": AdamParams()}, "adam_params"),
        ({"optim_params": {"learning_rate": 1.0}}, "optim_params"),
        ({"adam_params": AdamParams(beta1=2.0)}, "adam_params.beta1"),
    ],
)
async def test_an_optim_step_has_one_set_of_settings(
    autojump_clock: Any, open_stub: Any, stub: Any, arguments: Any, field: str
) -> None:
    """None or two of them are refused before anything is in line."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(InputError) as caught:
            await training.optim_step(**arguments)
        assert caught.value.field == field
    assert "optim_step" not in stub.names()


@pytest.mark.parametrize(
    ("params", "name", "sent"),
    [
        (AdamParams(learning_rate=0.5), "adam_params", {"learning_rate": 0.5}),
        (DimuonParams(learning_rate=0.5), "optimizer_params", {"type": "dimuon", "learning_rate": 0.5}),
        (OptimParamsBase("lion", {"lr": 0.5}), "optimizer_params", {"type": "lion", "lr": 0.5}),
    ],
)
async def test_each_optimizers_settings_have_their_place_in_the_body(
    autojump_clock: Any, open_stub: Any, stub: Any, params: Any, name: str, sent: Any
) -> None:
    """Adam's stand where they always have; what the user has not confirmed is not sent otherwise."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        await (await training.optim_step(params))
    (body,) = stub.bodies("optim_step")
    assert {key for key in body if key.endswith("params")} == {name}
    assert sent.items() <= body[name].items()


MAKERS: list[tuple[type, dict[str, Any], str]] = [
    (OptimStep, {"optim_params": None}, "optim_params"),
    (SaveState, {"name": "a/b"}, "name"),
    (SaveState, {"name": "a", "ttl_seconds": 60}, "ttl_seconds"),
    (SaveState, {"name": "a", "user_metadata": {"k": 1}}, "user_metadata['k']"),
    (SaveWeightsForSampler, {"name": ""}, "name"),
    (SaveWeightsForSampler, {"name": "a", "ttl_seconds": 1}, "ttl_seconds"),
    (SaveWeightsForSampler, {"kind": "frozen"}, "kind"),
    (SaveWeightsForSampler, {"name": "a", "kind": "inflight"}, "kind"),
    (SaveWeightsForSampler, {"ttl_seconds": 3600, "kind": "inflight"}, "kind"),
    (SaveWeightsExternal, {"name": "a", "ttl_seconds": 1}, "ttl_seconds"),
    (
        SaveWeightsExternal,
        {"name": "a", "age_encryption_recipients": ["k"] * 11},
        "age_encryption_recipients",
    ),
    (LoadState, {"path": "weights/a", "optimizer": True}, "path"),
]


@pytest.mark.requirement("R20")
@pytest.mark.parametrize(("kind", "fields", "field"), MAKERS, ids=lambda value: str(value)[:60])
def test_messages_check_themselves_when_they_are_made(kind: Any, fields: Any, field: str) -> None:
    """So nothing wrong is ever in line, whichever way it is sent."""
    with pytest.raises(InputError) as caught:
        kind(**fields)
    assert caught.value.field == field


def test_a_token_of_access_is_not_shown() -> None:
    """Neither by the message nor by what is recorded of it."""
    assert "secret" not in repr(
        LoadState("tinker://r/weights/a", optimizer=True, weights_access_token="secret")
    )


@pytest.mark.lesson("D19")
async def test_weights_for_samplers_have_a_name(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """Without one another thing would be done: a sampling session opened."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(InputError, match="name"):
            await training.save_weights_for_sampler(None)
    assert "save_weights_for_sampler" not in stub.names()


@pytest.mark.requirement("R12")
async def test_publishing_on_an_older_service_opens_a_session_for_its_path(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """It saves under a name of its own; the version counts all the same."""
    path = "tinker://m/sampler_weights/made-up"
    stub.rules["save_weights_for_sampler"] = lambda _, count: httpx.Response(
        200, json=stub.promise(f"save_weights_for_sampler#{count}", {"path": path})
    )
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        clients = [await training.save_weights_and_get_sampling_client() for _ in range(2)]
        assert [client.version for client in clients] == [1, 2]
        await clients[0].sample(ModelInput.from_ints([1]), 1, SamplingParams(max_tokens=1))
    assert [body.get("model_path") for body in stub.bodies("create_sampling_session")] == [path, path]
    assert stub.bodies("asample")[0]["sampling_session_id"] == clients[0].target.sampling_session_id


async def test_a_reply_without_anything_to_sample_from_is_a_typed_error(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """Neither a session nor a path."""
    stub.results["save_weights_for_sampler#0"] = {"type": "save_weights_for_sampler"}
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(APIResponseValidationError, match="neither"):
            await training.save_weights_and_get_sampling_client()


async def test_a_name_for_an_ephemeral_sampler_has_no_meaning_any_more(
    autojump_clock: Any, open_stub: Any, stub: Any
) -> None:
    """It is not sent, and whoever gives one is warned."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.warns(DeprecationWarning, match="name"):
            await training.save_weights_and_get_sampling_client("old")
    (body,) = stub.bodies("save_weights_for_sampler")
    assert "path" not in body


async def test_a_service_that_saves_nothing_for_elsewhere_keeps_its_model(
    autojump_clock: Any, batch: Any, open_stub: Any, stub: Any
) -> None:
    """The call that is missing is the caller's error, and no model is taken for lost."""
    stub.rules["save_weights_external"] = lambda _, __: httpx.Response(404, json={"detail": "Not Found"})
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(NotFoundError):
            await training.save_weights_external("e")
        await (await training.forward_backward(batch(1), "cross_entropy"))
    assert stub.names().count("create_model") == 1
    assert stub.wire()[-1] == ("forward_backward", 1)


async def test_the_console_shows_the_run(autojump_clock: Any, open_stub: Any) -> None:
    """Under the model's present id."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        assert training.get_console_url().endswith("/training_runs/s0%3Atrain%3A0")


@pytest.mark.requirement("R20")
async def test_yes_and_no_are_true_and_false(autojump_clock: Any, open_stub: Any, stub: Any) -> None:
    """A text such as "no" would count as yes; it is refused by its name, and nothing is in line."""
    prompt, params = ModelInput.from_ints([1]), SamplingParams(max_tokens=1)
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        sampling = await service.create_sampling_client(base_model=MODEL)
        before = stub.names()
        for field, call in (
            ("confirm", lambda no: training.optim_step(AdamParams(), confirm=no)),
            ("overwrite", lambda no: training.save_state("a", overwrite=no)),
            ("train_mlp", lambda no: service.create_lora_training_client(MODEL, train_mlp=no)),
            ("include_prompt_logprobs", lambda no: sampling.sample(prompt, 1, params, no)),
            (
                "record_stability_info",
                lambda no: service.create_sampling_client(base_model=MODEL, record_stability_info=no),
            ),
            (
                "record_stability_info",
                lambda no: training.create_sampling_client("tinker://a/weights/b", None, no),
            ),
            (
                "record_stability_info",
                lambda no: training.save_weights_and_get_sampling_client(record_stability_info=no),
            ),
        ):
            with pytest.raises(InputError, match=f"{field} = 'no': must be True or False"):
                await call("no")
        assert stub.names() == before


@pytest.mark.requirement("R20")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("data", "cross_entropy", "abc"), "loss_fn_config = 'abc': must map names"),
        (("data", "cross_entropy", [("a", 1.0)]), "loss_fn_config = .*: must map names"),
        (("data", print), "loss_fn = .*: a loss of your own goes to forward_backward_custom"),
        (("data", ["ppo"]), r"loss_fn = \['ppo'\]: must be one of cross_entropy"),
    ],
)
async def test_other_losses_and_settings_are_refused_by_name(
    autojump_clock: Any, open_stub: Any, arguments: Any, told: str
) -> None:
    """A loss function given where a name belongs is told where it goes."""
    data = [Datum(ModelInput.from_ints([1]), {"target_tokens": [1], "weights": [1.0]})]
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        for verb in (training.forward, training.forward_backward):
            with pytest.raises(InputError, match=told):
                await verb(data, *arguments[1:])


async def test_what_is_no_message_is_refused(autojump_clock: Any, open_stub: Any) -> None:
    """Nothing of it is in line."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(InputError, match="message = 'OptimStep': must be a message"):
            await training.submit("OptimStep")


async def test_the_type_of_a_losses_input_is_taken_and_means_nothing(
    autojump_clock: Any, open_stub: Any
) -> None:
    """Programs for older versions of Tinker name it."""
    data = [Datum(ModelInput.from_ints([1]), {"target_tokens": [1]})]

    def loss_fn(_: Any, logprobs: Any) -> CustomLoss:
        return CustomLoss(0.0, [one * 0 for one in logprobs])

    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        with pytest.raises(InputError, match="loss_type_input = 'logits': must be 'logprobs' or None"):
            await training.forward_backward_custom(data, loss_fn, loss_type_input="logits")
        with pytest.warns(DeprecationWarning, match="has no meaning"):
            pending = await training.forward_backward_custom(data, loss_fn, loss_type_input="logprobs")
        await pending.withdraw()
