from __future__ import annotations

import gc
import sys
from types import FrameType, ModuleType
from typing import Any

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.examples import EXAMPLES, MODEL, PROMPT, TENSORS
from tests.wire.strategies import json_values
from tests.wire.strategies_around import EVERYTHING
from tinker_actors.errors import DecodeError
from tinker_actors.wire import (
    billing,
    chunk,
    codec,
    future,
    likeliest,
    model,
    optimizer,
    provenance,
    run,
    sampling,
    service,
    session,
    telemetry,
    tensor,
    training,
    weights,
)
from tinker_actors.wire import input as wire_input
from tinker_actors.wire.chunk import EncodedTextChunk
from tinker_actors.wire.codec import decode, encode, structure, unstructure
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, LoraConfig
from tinker_actors.wire.optimizer import AdamParams, OptimStepResponse
from tinker_actors.wire.sampling import (
    SampledSequence,
    SampleRequest,
    SampleResponse,
    SampleSubmitted,
    SamplingParams,
)
from tinker_actors.wire.service import GetServerCapabilitiesResponse
from tinker_actors.wire.session import CreateSessionRequest
from tinker_actors.wire.telemetry import TelemetrySendRequest
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardOutput, ForwardBackwardRequest

TYPE_MODULES: tuple[ModuleType, ...] = (
    billing,
    chunk,
    future,
    likeliest,
    model,
    optimizer,
    provenance,
    run,
    sampling,
    service,
    session,
    telemetry,
    tensor,
    training,
    weights,
    wire_input,
)


def kind_name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else ""


def problems_of(kind: type, value: Any, *, strict: bool) -> list[str]:
    with pytest.raises(DecodeError) as caught:
        structure(kind, value, strict=strict)
    assert caught.value.what == kind.__name__
    return list(caught.value.problems)


# --- round trips -----------------------------------------------------------------------------------------


def test_every_wire_class_has_a_strategy() -> None:
    """A class that is added without a strategy would not be tested below."""
    found = {
        item
        for module in TYPE_MODULES
        for item in vars(module).values()
        if isinstance(item, type) and attrs.has(item) and item.__module__ == module.__name__
    }
    assert set(EVERYTHING) == found


@pytest.mark.parametrize("kind", EVERYTHING, ids=kind_name)
@settings(max_examples=25)
@given(drawn=st.data())
def test_what_is_written_is_read_back(kind: type, drawn: st.DataObject) -> None:
    """Strict or tolerant, decoding gives an object equal to the one that was encoded."""
    value = drawn.draw(EVERYTHING[kind])
    data = encode(value)
    assert decode(kind, data, strict=True) == value
    assert decode(kind, memoryview(data), strict=False) == value
    assert orjson.dumps(unstructure(value), option=orjson.OPT_SERIALIZE_NUMPY) == data


@pytest.mark.parametrize("kind", EVERYTHING, ids=kind_name)
@settings(max_examples=15)
@given(value=json_values)
def test_any_json_is_read_or_refused(kind: type, value: Any) -> None:
    """Whatever JSON comes, it is an object of the class or a DecodeError with a path for each problem."""
    problems: tuple[str, ...] = ()
    try:
        assert isinstance(structure(kind, value, strict=False), kind)
    except DecodeError as error:
        problems = error.problems or ("none told",)
    assert [problem for problem in problems if " @ $" not in problem] == []


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_float32_values_survive_exactly(values: list[float]) -> None:
    """Every float32, also the smallest and the largest, comes back with the same bits."""
    array = np.array([*values, 3.4028235e38, 1e-45, -0.0], np.float32)
    got = decode(TensorData, encode(TensorData.from_numpy(array)), strict=True)
    assert got.to_numpy().tobytes() == array.tobytes()
    sequence = SampledSequence("stop", np.zeros(0, np.int32), array)
    read = decode(SampledSequence, encode(sequence), strict=True).logprobs_np
    assert read is not None
    assert read.dtype == np.float32
    assert read.tobytes() == array.tobytes()


def test_int64_extremes_survive_exactly() -> None:
    """No integer goes through a float on its way."""
    values = [-(2**63), -(2**53) - 1, -1, 0, 2**53 + 1, 2**63 - 1]
    written = encode(TensorData(values, "int64"))
    assert b"-9223372036854775808,-9007199254740993" in written
    assert decode(TensorData, written, strict=True).tolist() == values


def test_what_json_does_not_have_is_null() -> None:
    """NaN and infinity are written as null; null is NaN in tensors, log probabilities and metrics."""
    written = encode(TensorData([1.0, np.nan, np.inf], "float32"))
    assert orjson.loads(written)["data"] == [1.0, None, None]
    assert np.isnan(decode(TensorData, written, strict=True).to_numpy()).tolist() == [False, True, True]
    sequence: Any = {"stop_reason": "stop", "tokens": [1, 2], "logprobs": [None, -0.5]}
    logprobs = structure(SampledSequence, sequence, strict=True).logprobs
    assert logprobs is not None
    assert np.isnan(logprobs).tolist() == [True, False]
    output = ForwardBackwardOutput("x", [], {"loss:sum": float("nan"), "n:sum": 2.0})
    assert orjson.loads(encode(output))["metrics"] == {"loss:sum": None, "n:sum": 2.0}
    metrics = decode(ForwardBackwardOutput, encode(output), strict=False).metrics
    assert [np.isnan(metrics["loss:sum"]), metrics["n:sum"]] == [True, 2.0]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3).T,
        np.arange(6)[::-2],
        np.arange(6).astype(">i8"),
        np.zeros((0, 3), np.float32),
        np.float32(3),
    ],
    ids=["transposed", "strided", "big-endian", "empty", "scalar"],
)
def test_any_layout_in_memory_is_written_in_order(array: np.ndarray) -> None:
    """Transposed, strided, foreign-endian and empty arrays arrive as they look."""
    got = decode(TensorData, encode(TensorData.from_numpy(array)), strict=True).to_numpy()
    assert got.shape == array.shape
    assert got.tolist() == array.tolist()


def test_a_sequence_may_lie_anywhere_in_memory() -> None:
    """Every second element of an array is written as well as an array of its own."""
    sequence = SampledSequence(
        "stop", np.arange(6, dtype=np.int32)[::2], np.arange(6, dtype=np.float32)[::-2]
    )
    got = decode(SampledSequence, encode(sequence), strict=True)
    assert (got.tokens, got.logprobs) == ([0, 2, 4], [5.0, 3.0, 1.0])


def test_an_integer_may_stand_for_a_float() -> None:
    """JSON writers drop a final .0; the value is a float again."""
    rate = structure(AdamParams, {"learning_rate": 1}, strict=True).learning_rate
    assert (rate, type(rate)) == (1.0, float)
    response = structure(SampleResponse, {"sequences": [], "prompt_logprobs": [None, 0]}, strict=True)
    assert response.prompt_logprobs == [None, 0.0]
    assert structure(TensorData, {"data": [1, 2.5], "dtype": "float32"}, strict=True).tolist() == [1.0, 2.5]


# --- the exact JSON --------------------------------------------------------------------------------------


def canonical(value: object) -> bytes:
    """Bytes in which 1 and 1.0, and true and 1, differ."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda n: f"{n}-{type(EXAMPLES[n][0]).__name__}")
def test_requests_have_exactly_this_json(number: int) -> None:
    """Defaults are written, None is left out, numbers keep their kind."""
    value, expected = EXAMPLES[number]
    assert canonical(orjson.loads(encode(value))) == canonical(expected)
    assert structure(type(value), expected, strict=True) == value


def test_every_request_of_the_table_has_an_example() -> None:
    """No endpoint's body goes out without having been looked at."""
    assert {endpoint.request for endpoint in ENDPOINTS} - {service.Empty} == {
        type(one) for one, _ in EXAMPLES
    }


def test_what_services_answer_is_understood() -> None:
    """The captured answers decode, the fields we do not know included."""
    promise = b'{"request_id":"sess-0001:1","model_id":"sess-0001:train:0","queue":3}'
    assert decode(UntypedAPIFuture, promise, strict=False) == UntypedAPIFuture("sess-0001:1", MODEL)
    info = (
        b'{"type":"get_info","model_id":"m","model_data":{"arch":"qwen3","model_name":"Q","tokenizer_id":"Q",'
        b'"vocab":1},"is_lora":true,"lora_rank":32,"model_name":"Q","optimizer_config":{"type":"adamw"}}'
    )
    assert decode(model.GetInfoResponse, info, strict=False).model_data.tokenizer_id == "Q"
    result = (
        b'{"loss_fn_output_type":"ArrayRecord","loss_fn_outputs":[{"logprobs":{"data":[-1.0,-2],"dtype":'
        b'"float32","shape":null,"sparse_crow_indices":null,"sparse_col_indices":null}}],"metrics":{"loss:sum":3}}'
    )
    output = decode(ForwardBackwardOutput, result, strict=False)
    assert output.loss_fn_outputs[0]["logprobs"].tolist() == [-1.0, -2.0]
    assert output.metrics == {"loss:sum": 3.0}
    sample = (
        b'{"type":"sample","sequences":[{"stop_reason":"length","tokens":[10,11],"logprobs":[-0.5,-0.25],'
        b'"sequence_id":"a"}],"prompt_logprobs":[null,-1],"topk_prompt_logprobs":[null,[[3,-0.1],[4,-2]]]}'
    )
    response = decode(SampleResponse, sample, strict=False)
    assert response.sequences[0].tokens == [10, 11]
    assert response.sequences[0].logprobs == [-0.5, -0.25]
    assert response.prompt_logprobs == [None, -1.0]
    assert response.topk_prompt_logprobs == [None, [(3, float(np.float32(-0.1))), (4, -2.0)]]


# --- strict and tolerant ---------------------------------------------------------------------------------

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


# --- no coercion, and what is wrong ----------------------------------------------------------------------


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


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b"1e400", b"\xff", b"'a'", b'{"a":1}x', b"[" * 5000])
def test_what_is_no_json_is_a_decode_error(data: bytes) -> None:
    """Broken, foreign or hopelessly nested bytes are refused in the same way."""
    with pytest.raises(DecodeError, match="not a AdamParams: not JSON: ") as caught:
        decode(AdamParams, data, strict=True)
    assert isinstance(caught.value.__cause__, orjson.JSONDecodeError)


def test_what_has_no_json_form_cannot_be_written() -> None:
    """An object that is no wire type is a TypeError, not an odd string."""
    with pytest.raises(TypeError):
        encode(object())
    with pytest.raises(TypeError):
        encode({"a": {1, 2}})


# --- long lists ------------------------------------------------------------------------------------------


def calls_during(act: Any) -> int:
    """Count the Python functions that are entered."""
    count = 0

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    gc.disable()  # others have Python functions called by the collector
    sys.setprofile(profile)
    try:
        act()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def long_objects(length: int) -> list[object]:
    tokens = list(range(length))
    logprobs = [-0.5] * length
    prompt = ModelInput.from_ints(tokens)
    datum = Datum(prompt, {"target_tokens": tokens, "weights": logprobs})
    sequence = SampledSequence("stop", np.array(tokens, np.int32), np.array(logprobs, np.float32))
    topk = TopkLogprobs.from_lists([None, *[[(1, -0.5), (2, -1.5)]] * length])
    return [
        ForwardBackwardRequest(ForwardBackwardInput([datum], "cross_entropy"), "m", 1),
        SampleRequest(prompt=prompt, sampling_params=SamplingParams(stop=tokens)),
        SampleResponse((sequence,), np.array([np.nan, *logprobs], np.float32), topk),
        ForwardBackwardOutput("x", [{"logprobs": TensorData(logprobs, "float32")}]),
        SampleSubmitted("a", tuple(map(str, tokens))),
    ]


def test_long_lists_cost_no_python_call_for_each_element() -> None:
    """Reading and writing 5,000 elements enters exactly as many functions as 5 do."""
    for small, large in zip(long_objects(5), long_objects(5000), strict=True):
        for value in (small, large):  # cattrs builds its functions on first use
            decode(type(value), encode(value), strict=True)
        data = encode(small), encode(large)
        assert calls_during(lambda one=small: encode(one)) == calls_during(lambda one=large: encode(one))
        few, many = (
            calls_during(lambda one=one, kind=type(small): decode(kind, one, strict=True)) for one in data
        )
        assert few == many
        assert few > 0


def test_both_converters_are_made_once() -> None:
    """Hooks are built per class, not per message."""
    first = codec._STRICT.get_structure_hook(AdamParams)
    structure(AdamParams, {}, strict=True)
    assert codec._STRICT.get_structure_hook(AdamParams) is first
