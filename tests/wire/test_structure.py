from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.wire.examples import PROMPT, TENSORS
from tests.wire.refusals import problems_of
from tinker_actors.wire import codec
from tinker_actors.wire.codec import encode, structure, unstructure
from tinker_actors.wire.future import FutureFailed, RetrieveFuturesResponse
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.model import CreateModelRequest, LoraConfig
from tinker_actors.wire.optimizer import AdamParams
from tinker_actors.wire.run import Checkpoint
from tinker_actors.wire.sampling import SampleRequest, SampleResponse, SamplingParams
from tinker_actors.wire.session import (
    FinishReason,
    SessionClientFinished,
    SessionSearchResponse,
    SessionStatus,
    SessionSummary,
)
from tinker_actors.wire.structure import _renamed
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardOutput

DATUM_JSON: dict[str, Any] = {"model_input": PROMPT, "loss_fn_inputs": TENSORS}


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (AdamParams, {"lr": 1.0}, "unknown field: lr @ $"),
        (AdamParams, {"lr": 1.0, "b": 2}, "unknown field: b, lr @ $"),
        (
            CreateModelRequest,
            {"session_id": "s", "model_seq_id": 0, "base_model": "b", "lora_config": {"rank": 1, "x": 2}},
            "unknown field: x @ $.lora_config",
        ),
        (
            ForwardBackwardInput,
            {"data": [DATUM_JSON, {**DATUM_JSON, "spans": []}], "loss_fn": "ppo"},
            "unknown field: spans @ $.data[1]",
        ),
        (
            Datum,
            {"model_input": PROMPT, "loss_fn_inputs": {"w": {"data": [], "dtype": "int64", "x": 1}}},
            "unknown field: x @ $.loss_fn_inputs['w']",
        ),
        (
            ModelInput,
            {"chunks": [{"tokens": [1], "type": "encoded_text", "x": None}]},
            "unknown field: x @ $.chunks[0]",
        ),
        (
            SampleResponse,
            {"sequences": [{"stop_reason": "stop", "tokens": [], "mood": "a"}]},
            "unknown field: mood @ $.sequences[0]",
        ),
    ],
)
def test_unknown_fields_are_refused_strictly_and_ignored_tolerantly(
    kind: type, value: dict[str, Any], problem: str
) -> None:
    """Strict decoding names the field and its path; tolerant decoding takes the rest."""
    assert problems_of(kind, value, strict=True) == [problem]
    assert isinstance(structure(kind, value, strict=False), kind)


@pytest.mark.requirement("R79", "R94", "R20")
@pytest.mark.parametrize(
    "kind", [SampleResponse, CreateModelRequest, Checkpoint], ids=lambda kind: kind.__name__
)
def test_an_unknown_argument_is_refused(kind: Any) -> None:
    """A misspelt field of a request is an error where it is written, not a field that has no effect."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'modle'"):
        kind(modle=1)


# --- unions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"type": "encoded_text", "tokens": [1]},
        {"type": "image", "data": "AAE=", "format": "png"},
        {"type": "image_asset_pointer", "format": "jpeg", "location": "here"},
        {"type": "dmel", "dmel": "AAE="},
    ],
    ids=lambda value: value["type"],
)
def test_a_chunk_is_known_by_its_tag_and_without_it_by_its_fields(value: dict[str, Any]) -> None:
    """Clients of before 0.18 leave tags out, or write null for them."""
    whole = structure(ModelInput, {"chunks": [value]}, strict=True)
    untagged = {name: item for name, item in value.items() if name != "type"}
    assert structure(ModelInput, {"chunks": [untagged]}, strict=True) == whole
    assert structure(ModelInput, {"chunks": [{**value, "type": None}]}, strict=True) == whole
    assert orjson.loads(encode(whole)) == {"chunks": [value]}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            {"type": "smell"},
            "type = 'smell': must be one of 'encoded_text', 'image', 'image_asset_pointer', 'dmel'",
        ),
        ({"type": 1}, "type = 1: must be one of 'encoded_text', 'image', 'image_asset_pointer', 'dmel'"),
        ({}, "required field missing: type"),
        ({"tokens": [1], "dmel": ""}, "required field missing: type"),
        (3, "value = 3: must be an object"),
        (None, "value = None: must be an object"),
    ],
)
def test_a_chunk_of_no_kind_is_refused(value: Any, problem: str) -> None:
    """The known tags are named; what may be one or the other wants a tag."""
    for strict in (True, False):
        assert problems_of(ModelInput, {"chunks": [value]}, strict=strict) == [f"{problem} @ $.chunks[0]"]


@pytest.mark.requirement("R94")
def test_what_services_may_have_more_kinds_of_is_kept_as_it_came() -> None:
    """A status that this package does not know is a mapping, also strictly; null is no status."""
    summary = {
        "session_id": "s",
        "created_at": "2026-01-02T03:04:05Z",
        "owner": "o",
        "project_id": None,
        "status": {"type": "asleep", "until": None},
        "checkpoints_count": 1,
    }
    found = structure(SessionSearchResponse, {"sessions": [summary]}, strict=True).sessions[0]
    assert found.status == {"type": "asleep", "until": None}
    assert structure(SessionSummary, {**summary, "status": None}, strict=True).status is None
    assert orjson.loads(encode(found))["status"] == summary["status"]


@pytest.mark.requirement("R94", "R175")
def test_an_end_of_a_kind_that_nobody_knows_does_not_lose_the_page() -> None:
    """The three known ends are classes; another one is a mapping, and goes out again as it came."""
    for reason in ("success", "errored", "interrupted"):
        status = structure(SessionClientFinished, {"reason": {"type": reason}}, strict=True)
        assert status == SessionClientFinished(reason=FinishReason(reason))
    body = {"type": "client_finished", "reason": {"type": "evicted", "by": "us"}}
    status = structure(SessionClientFinished, body, strict=True)
    assert status == SessionClientFinished(reason={"type": "evicted", "by": "us"})
    assert orjson.loads(encode(status)) == body


def test_a_union_may_be_null_without_a_default() -> None:
    """Then null is None, and no object without a tag."""
    assert codec._STRICT.structure(None, SessionStatus | None) is None


def test_a_completion_is_known_by_its_state() -> None:
    """The tag of completions is `state`; what is of another state is kept as it is."""
    answer = {"completions": [{"state": "failed", "request_id": "a"}], "cursor": 1}
    (failed,) = structure(RetrieveFuturesResponse, answer, strict=True).completions
    assert failed == FutureFailed(request_id="a")
    answer["completions"] = [{"state": "lost", "request_id": "a"}]
    assert structure(RetrieveFuturesResponse, answer, strict=True).completions == (
        {"state": "lost", "request_id": "a"},
    )


# --- null ------------------------------------------------------------------------------------------------


@pytest.mark.requirement("R77")
def test_null_stands_for_what_is_absent_but_is_no_number() -> None:
    """Older clients write None as null. An infinite number is written as null as well, and is not a default."""
    request = {"session_id": "s", "model_seq_id": 0, "base_model": "b"}
    nulls = {"user_metadata": None, "lora_config": None, "optimizer_config": None, "type": None}
    whole = structure(CreateModelRequest, request, strict=True)
    assert structure(CreateModelRequest, {**request, **nulls}, strict=True) == whole
    assert problems_of(AdamParams, {"learning_rate": None}, strict=False) == [
        "value = None: must be a number @ $.learning_rate"
    ]
    assert problems_of(LoraConfig, {"rank": 1, "typo": None}, strict=True) == ["unknown field: typo @ $"]


def test_a_result_of_another_kind_is_not_taken_for_a_batch_without_outputs() -> None:
    """The outputs have a default in Python, and are nevertheless wanted in JSON."""
    assert problems_of(ForwardBackwardOutput, {"metrics": {}}, strict=False) == [
        "required field missing: loss_fn_outputs @ $"
    ]


# --- fields that only newer services know ----------------------------------------------------------------


def test_newer_fields_are_written_where_they_are_wanted_or_say_something() -> None:
    """A field of after 0.24 that has its default is left out, unless the service wants it."""
    request = CreateModelRequest(session_id="s", model_seq_id=0, base_model="b")
    assert "optimizer_config" not in orjson.loads(encode(request))
    assert orjson.loads(encode(request, newer=True))["optimizer_config"] == {"type": "adamw"}
    sample = SampleRequest(
        prompt=ModelInput.empty(), sampling_params=SamplingParams(), topk_sample_logprobs=2
    )
    assert orjson.loads(encode(sample))["topk_sample_logprobs"] == 2
    assert "prompt_alt_tokens_k" not in orjson.loads(encode(sample))
    assert orjson.loads(encode(sample, newer=True))["prompt_alt_tokens_k"] == 0


def test_the_json_value_says_the_same_as_the_bytes() -> None:
    """Also of newer fields."""
    request = CreateModelRequest(session_id="s", model_seq_id=0, base_model="b")
    for newer in (False, True):
        assert unstructure(request, newer=newer) == orjson.loads(encode(request, newer=newer))


def test_only_the_notes_of_fields_are_put_into_the_names_of_the_wire() -> None:
    """What somebody else has noted on an error stays as it is."""
    assert _renamed("seen at dawn", {"dawn": "dusk"}) == "seen at dawn"
