from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.wire.examples import PROMPT
from tests.wire.refusals import problems_of
from tinker_actors.wire.chunk import EncodedTextChunk
from tinker_actors.wire.codec import structure
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, GetInfoResponse, LoraConfig
from tinker_actors.wire.optimizer import AdamParams, OptimizerConfigBase, OptimStepRequest, OptimStepResponse
from tinker_actors.wire.run import Checkpoint
from tinker_actors.wire.sampling import SampleResponse, SampleSubmitted, SamplingParams
from tinker_actors.wire.service import GetServerCapabilitiesResponse
from tinker_actors.wire.session import CreateSessionRequest
from tinker_actors.wire.telemetry import TelemetrySendRequest
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardInput


def tensor_problem(**fields: Any) -> str:
    value = {"data": [1, 2], "dtype": "int64", "shape": [2], **fields}
    (problem,) = problems_of(Datum, {"model_input": PROMPT, "loss_fn_inputs": {"w": value}}, strict=False)
    text, _, place = problem.rpartition(" @ ")
    assert place == "$.loss_fn_inputs['w']"
    return text


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (LoraConfig, {"rank": "3"}, "value = '3': must be an integer @ $.rank"),
        (LoraConfig, {"rank": True}, "value = True: must be an integer @ $.rank"),
        (LoraConfig, {"rank": 1.5}, "value = 1.5: must be an integer @ $.rank"),
        (LoraConfig, {"rank": 1.0}, "value = 1.0: must be an integer @ $.rank"),
        (LoraConfig, {"rank": None}, "value = None: must be an integer @ $.rank"),
        (LoraConfig, {"rank": 1, "train_mlp": 1}, "value = 1: must be true or false @ $.train_mlp"),
        (LoraConfig, {}, "required field missing @ $.rank"),
        (AdamParams, {"eps": "1e-8"}, "value = '1e-8': must be a number @ $.eps"),
        (AdamParams, {"eps": False}, "value = False: must be a number @ $.eps"),
        (AdamParams, 3, "value = 3: must be an object @ $"),
        (AdamParams, None, "value = None: must be an object @ $"),
        (AdamParams, [], "value = []: must be an object @ $"),
        (GetInfoRequest, {"model_id": 5}, "value = 5: must be a string @ $.model_id"),
        (
            GetInfoRequest,
            {"model_id": "m", "type": "info"},
            "value = 'info': must be one of 'get_info' @ $.type",
        ),
        (
            CreateSessionRequest,
            {"tags": "abc", "user_metadata": {}, "sdk_version": ""},
            "value = 'abc': must be a list @ $.tags",
        ),
        (
            CreateSessionRequest,
            {"tags": ["a", 1], "user_metadata": {}, "sdk_version": ""},
            "value[1] = 1: must be a string @ $.tags",
        ),
        (
            CreateSessionRequest,
            {"tags": [], "user_metadata": {"a": 1}, "sdk_version": ""},
            "value['a'] = 1: must be a string @ $.user_metadata",
        ),
        (
            CreateSessionRequest,
            {"tags": [], "user_metadata": [], "sdk_version": ""},
            "value = []: must be an object @ $.user_metadata",
        ),
        (EncodedTextChunk, {"tokens": [1, True]}, "value[1] = True: must be an integer @ $.tokens"),
        (EncodedTextChunk, {"tokens": [1, 2.0]}, "value[1] = 2.0: must be an integer @ $.tokens"),
        (EncodedTextChunk, {"tokens": [[1]]}, "value[0] = [1]: must be an integer @ $.tokens"),
        (EncodedTextChunk, {"tokens": "123"}, "value = '123': must be a list @ $.tokens"),
        (EncodedTextChunk, {"tokens": [1, -1]}, "tokens[1] = -1: token ids are not negative @ $"),
        (
            EncodedTextChunk,
            {"tokens": [2**31]},
            "value[0] = 2147483648: must be an integer of 32 bits @ $.tokens",
        ),
        (
            ForwardBackwardInput,
            {"data": [], "loss_fn": "ppo", "loss_fn_config": {"a": True}},
            "value = True: must be a number or a string @ $.loss_fn_config['a']",
        ),
        (SamplingParams, {"top_k": 2.0}, "value = 2.0: must be an integer @ $.top_k"),
        (
            SamplingParams,
            {"stop": ["a", 1]},
            "value = ['a', 1]: must be a string, a list of strings or a list of token ids @ $.stop",
        ),
        (
            SamplingParams,
            {"stop": [True]},
            "value = [True]: must be a string, a list of strings or a list of token ids @ $.stop",
        ),
        (
            SampleResponse,
            {"sequences": [{"stop_reason": 1, "tokens": []}]},
            "value = 1: must be a string @ $.sequences[0].stop_reason",
        ),
        (
            SampleResponse,
            {"sequences": [{"stop_reason": "stop"}]},
            "required field missing @ $.sequences[0].tokens",
        ),
        (
            SampleResponse,
            {"sequences": [{"stop_reason": "stop", "tokens": [2**31]}]},
            "value[0] = 2147483648: must be an integer of 32 bits @ $.sequences[0].tokens",
        ),
        (
            SampleResponse,
            {"sequences": [{"stop_reason": "stop", "tokens": [1], "logprobs": ["a"]}]},
            "value[0] = 'a': must be a number or null @ $.sequences[0].logprobs",
        ),
        (
            SampleResponse,
            {"sequences": [], "prompt_logprobs": [None, True]},
            "value[1] = True: must be a number or null @ $.prompt_logprobs",
        ),
        (
            SampleResponse,
            {"sequences": [], "topk_prompt_logprobs": [None, [[1, -1.0], [2]]]},
            "expected pairs of a token id and a log probability @ $.topk_prompt_logprobs",
        ),
        (
            SampleResponse,
            {"sequences": [], "topk_prompt_logprobs": [[[1.5, -1.0]]]},
            "token ids[0] = 1.5: must be an integer @ $.topk_prompt_logprobs",
        ),
        (
            SampleResponse,
            {"sequences": [], "topk_prompt_logprobs": [[[1, "a"]]]},
            "log probabilities[0] = 'a': must be a number or null @ $.topk_prompt_logprobs",
        ),
        (
            SampleSubmitted,
            {"request_id": "a", "sample_sequence_ids": ["b", 1]},
            "value[1] = 1: must be a string @ $.sample_sequence_ids",
        ),
        (
            OptimStepResponse,
            {"metrics": {"a": "1"}},
            "value['a'] = '1': must be a number or null @ $.metrics",
        ),
        (
            GetServerCapabilitiesResponse,
            {"supported_models": {"a": {}}},
            "value = {'a': {}}: must be a list @ $.supported_models",
        ),
        (
            TelemetrySendRequest,
            {"events": [1], "platform": "", "sdk_version": "", "session_id": ""},
            "value = 1: must be an object @ $.events[0]",
        ),
    ],
)
def test_nothing_is_coerced(kind: type, value: Any, problem: str) -> None:
    """A value of another type is refused, with its path and itself, however close it comes."""
    for strict in (True, False):
        assert problems_of(kind, value, strict=strict) == [problem]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"data": ["3", 1]}, "data[0] = '3': must be an integer"),
        ({"data": [1, True]}, "data[1] = True: must be an integer"),
        ({"data": [1, 2.0]}, "data[1] = 2.0: must be an integer"),
        ({"data": [1, None]}, "data[1] = None: must be an integer"),
        ({"data": [[1], [2]]}, "data[0] = [1]: must be an integer"),
        ({"data": None}, "data = None: must be a list"),
        ({"data": [1, 2**63]}, "data[1] = 9223372036854775808: must be an integer of 64 bits"),
        ({"data": ["3", 1], "dtype": "float32"}, "data[0] = '3': must be a number or null"),
        ({"data": [1.0, False], "dtype": "float32"}, "data[1] = False: must be a number or null"),
        ({"data": [1e300, 1], "dtype": "float32"}, "data[0] = 1e+300: must be a number within float32"),
        ({"dtype": "float64"}, "dtype = 'float64': must be one of int64, float32"),
        ({"dtype": ["int64"]}, "dtype = ['int64']: must be one of int64, float32"),
        ({"shape": [3]}, "shape = [3]: does not hold 2 values"),
        ({"shape": [-1, -2]}, "shape[0] = -1: must be an integer that is not negative"),
        ({"shape": [2.0]}, "shape[0] = 2.0: must be an integer that is not negative"),
        ({"shape": [True, 2]}, "shape[0] = True: must be an integer that is not negative"),
        ({"shape": "2"}, "shape = '2': must be a list of dimensions"),
        ({"data": [], "shape": [2**70, 0]}, "shape = [1180591620717411303424, 0]: does not hold 0 values"),
    ],
)
def test_a_wrong_tensor_is_named_by_its_place(fields: dict[str, Any], problem: str) -> None:
    """Field, value and path of the tensor stand in the message."""
    assert tensor_problem(**fields) == problem


def test_a_tensor_without_its_fields_says_which() -> None:
    """Data and dtype are required, the shape is not."""
    assert problems_of(TensorData, {"shape": [1]}, strict=False) == [
        "required field missing: data, dtype @ $"
    ]
    assert structure(TensorData, {"data": [1, 2], "dtype": "int64"}, strict=True).shape == (2,)


def test_every_problem_is_told_at_once() -> None:
    """Whoever mends a body does not have to send it again for each mistake."""
    value = {"session_id": 1, "model_seq_id": "0", "lora_config": {"rank": 1.5}, "x": 1}
    assert problems_of(CreateModelRequest, value, strict=True) == [
        "value = 1: must be a string @ $.session_id",
        "value = '0': must be an integer @ $.model_seq_id",
        "required field missing @ $.base_model",
        "value = 1.5: must be an integer @ $.lora_config.rank",
        "unknown field: x @ $",
    ]


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (
            ModelInput,
            {"chunks": [{"type": "image", "data": "%%%", "format": "png"}]},
            "value = '%%%': must be base64 @ $.chunks[0].data",
        ),
        (
            ModelInput,
            {"chunks": [{"type": "dmel", "dmel": "\u00e4"}]},
            "value = 'ä': must be base64 @ $.chunks[0].dmel",
        ),
        (
            ModelInput,
            {"chunks": [{"type": "dmel", "dmel": [1]}]},
            "value = [1]: must be a string @ $.chunks[0].dmel",
        ),
        (
            ModelInput,
            {"chunks": [{"type": "image", "data": "", "format": "gif"}]},
            "value = 'gif': must be one of 'png', 'jpeg' @ $.chunks[0].format",
        ),
        (
            ModelInput,
            {"chunks": [{"type": "image", "data": "", "format": "png", "expected_tokens": -1}]},
            "expected_tokens = -1: must be an integer that is not negative @ $.chunks[0]",
        ),
        (
            Checkpoint,
            {"checkpoint_id": "", "checkpoint_type": "", "time": 1700000000, "tinker_path": ""},
            "value = 1700000000: must be a string @ $.time",
        ),
        (
            OptimStepRequest,
            {"model_id": "m", "adam_params": {}, "optim_params": {}},
            "one of these must be there, and only one: adam_params, optimizer_params, optim_params @ $",
        ),
        (
            OptimStepRequest,
            {"model_id": "m"},
            "one of these must be there, and only one: adam_params, optimizer_params, optim_params @ $",
        ),
        (
            OptimStepRequest,
            {"model_id": "m", "adam_params": {"eps": "0"}},
            "value = '0': must be a number @ $.adam_params.eps",
        ),
        (
            OptimStepRequest,
            {"model_id": "m", "optimizer_params": {"type": "dimuon"}},
            "required field missing @ $.optimizer_params.learning_rate",
        ),
        (
            OptimStepRequest,
            {"model_id": "m", "optimizer_params": {"type": 3}},
            "type = 3: must be one of 'dimuon' @ $.optimizer_params",
        ),
        (
            GetInfoResponse,
            {"model_id": "m", "model_data": {}, "optimizer_config": {}},
            "required field missing: type @ $.optimizer_config",
        ),
        (Datum, {"model_input": PROMPT, "loss_fn_inputs": []}, "must be an object @ $.loss_fn_inputs"),
        (OptimizerConfigBase, {"type": 3}, "type = 3: must be a string @ $"),
        (AdamParams, {"eps": 10**400}, "int too large to convert to float @ $.eps"),
    ],
)
def test_what_else_is_refused(kind: type, value: Any, problem: str) -> None:
    """Bytes that are not base64, numbers for times, settings under no name or under two."""
    for strict in (True, False):
        assert problems_of(kind, value, strict=strict) == [problem]


def test_rows_of_the_likeliest_tokens_are_read_as_matrices() -> None:
    """Null is a row of empty cells, and a log probability that is null is NaN."""
    topk = structure(TopkLogprobs, [None, [[3, -0.5], [4, None]], [], [[5, -1]]], strict=True)
    assert topk.token_ids.tolist() == [[0, 0], [3, 4], [0, 0], [5, 0]]
    assert topk.logprobs[[0, 2]].tolist() == [[-99999.0] * 2] * 2
    assert np.isnan(topk.logprobs[1]).tolist() == [False, True]
    assert topk.tolist()[3] == [(5, -1.0)]
