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

from tests.wire.examples import EXAMPLES, MODEL
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
from tinker_actors.wire.codec import decode, encode, structure, unstructure
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.future import UntypedAPIFuture
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.optimizer import AdamParams
from tinker_actors.wire.sampling import (
    SampledSequence,
    SampleRequest,
    SampleResponse,
    SampleSubmitted,
    SamplingParams,
)
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


# --- what cannot be read or written ----------------------------------------------------------------------


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
