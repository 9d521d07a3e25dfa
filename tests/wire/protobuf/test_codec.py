"""Both directions of the codec, held against the official package."""

from __future__ import annotations

import base64
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.protobuf import messages, reference
from tests.wire.protobuf.golden import GOLDEN
from tests.wire.protobuf.schema import OFFICIAL
from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire import protobuf
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.payload import PROTOBUF, Payload, read
from tinker_actors.wire.provenance import PromptProvenanceSpan, SampledProvenanceSpan
from tinker_actors.wire.sampling import SampledSequence, SampleResponse
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import (
    ForwardBackwardInput,
    ForwardBackwardOutput,
    ForwardBackwardRequest,
    ForwardRequest,
)

MODEL = "s:train:0"
EMPTY = -99999.0


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def tokens(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


HELD = {
    "G1": ForwardBackwardRequest(
        ForwardBackwardInput(
            [
                Datum(
                    ModelInput.from_ints([1, 2, 3]), {"target_tokens": [2, 3, 4], "weights": [0.0, 1.0, 1.0]}
                )
            ],
            "cross_entropy",
        ),
        MODEL,
        1,
    ),
    "G2": ForwardRequest(
        ForwardBackwardInput(
            [
                Datum(
                    ModelInput.from_ints([7]),
                    {"target_tokens": TensorData([5], "int64", [1, 3], [0, 1], [2])},
                )
            ],
            "ppo",
            {"clip_low_threshold": 0.8, "mode": "x"},
        ),
        MODEL,
        3,
    ),
    "G3": ForwardBackwardRequest(
        ForwardBackwardInput(
            [
                Datum(
                    ModelInput.from_ints([1, 2]),
                    {"target_tokens": [2, 3]},
                    [PromptProvenanceSpan(sequence_id="q", length=2)],
                    [SampledProvenanceSpan(sequence_id="q", offset=1, length=2)],
                )
            ],
            "stable_reinforce",
        ),
        MODEL,
        2,
    ),
    "G4": ForwardBackwardOutput(
        "ArrayRecord",
        [
            {"logprobs": TensorData([-1.0, -2.0, -3.0], "float32")},
            {"logprobs": TensorData([-4.0, -5.0], "float32")},
        ],
        {"loss:sum": 1.5},
    ),
    "G5": SampleResponse(
        (SampledSequence("length", tokens(10, 11), floats(-0.5, -0.25)),),
        floats(np.nan, -1.0),
        TopkLogprobs(tokens([0, 0], [3, 0]), floats([EMPTY, EMPTY], [-0.1, EMPTY])),
        None,
        1,
    ),
}


@pytest.mark.requirement("R95")
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_both_ways(name: str) -> None:
    """What the official encoder wrote is read as what was meant, and is written again byte for byte."""
    data = base64.b64decode(GOLDEN[name])
    held: Any = HELD[name]
    assert protobuf.decode(type(held), data) == held
    assert read(type(held), Payload(PROTOBUF, data)) == held
    assert protobuf.encode(held) == data


@given(messages.requests)
def test_requests_are_those_of_the_official_package(request_: Any) -> None:
    """Ours, parsed by theirs, has equal fields; theirs, read by ours, has equal values."""
    official = reference.request_message(request_)
    assert reference.canonical("ForwardBackwardRequest", protobuf.encode(request_)) == reference.written(
        official
    )
    assert protobuf.decode(type(request_), official.SerializeToString()) == request_
    assert protobuf.decode_training(protobuf.encode(request_)) == request_


@given(messages.outputs)
def test_our_outputs_are_read_by_the_official_package(output: ForwardBackwardOutput) -> None:
    """Whatever records the datums are put into, they come out in their order."""
    official = OFFICIAL["ForwardBackwardOutput"].FromString(protobuf.encode(output))
    assert reference.output_of(official) == output
    assert protobuf.decode(ForwardBackwardOutput, protobuf.encode(output)) == output


@given(st.lists(messages.records(), max_size=3), messages.output_types, messages.metrics)
def test_official_outputs_are_read_by_us(runs: Any, kind: str, metrics: dict[str, float]) -> None:
    """Records are concatenated, whether or not their shapes agree."""
    official = reference.output_message(runs, kind, metrics)
    output = protobuf.decode(ForwardBackwardOutput, official.SerializeToString())
    assert output == ForwardBackwardOutput(kind, [datum for run in runs for datum in run], metrics)


@given(messages.samples)
def test_samples_are_those_of_the_official_package(response: SampleResponse) -> None:
    """Ours, parsed by theirs, has equal fields; theirs, read by ours, has equal values."""
    official = reference.sample_message(response)
    assert reference.canonical("SampleResponse", protobuf.encode(response)) == reference.written(official)
    assert protobuf.decode(SampleResponse, official.SerializeToString()) == response


KINDS = [
    ("ForwardBackwardRequest", messages.requests, reference.request_of, protobuf.decode_training),
    (
        "ForwardBackwardOutput",
        messages.outputs,
        reference.output_of,
        lambda data: protobuf.decode(ForwardBackwardOutput, data),
    ),
    (
        "SampleResponse",
        messages.samples,
        reference.sample_of,
        lambda data: protobuf.decode(SampleResponse, data),
    ),
]


def plain(value: object) -> object:
    """Return what an object holds, such that NaN equals NaN and the order of names does not matter."""
    if attrs.has(type(value)):
        held = {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
        return type(value).__name__, held
    match value:
        case dict():
            return {name: plain(item) for name, item in value.items()}
        case tuple():
            return [plain(item) for item in value]
        case np.ndarray():
            return value.dtype.str, value.shape, value.tobytes()
    return repr(value)


def judged(read_bytes: Any, data: bytes) -> object:
    """What the bytes are read as; None if they are refused."""
    try:
        return read_bytes(data)
    except DecodeError as error:
        if all(" @ $" in problem for problem in error.problems):
            return None
        raise


def official_value(name: str, value_of: Any, data: bytes) -> object:
    """What the official package and the reference read; None if either refuses."""
    try:
        return value_of(OFFICIAL[name].FromString(data))
    except Exception:  # noqa: BLE001 - whatever it does not like
        return None


@pytest.mark.parametrize(
    ("name", "strategy", "value_of", "read_bytes"), KINDS, ids=[kind[0] for kind in KINDS]
)
@settings(max_examples=50)
@given(choice=st.data())
def test_messages_one_behind_the_other_are_merged(name, strategy, value_of, read_bytes, choice) -> None:
    """Two messages' bytes in a row are one message in which the last value counts, lists grow and parts are merged."""
    data = b"".join(protobuf.encode(choice.draw(strategy)) for _ in range(2))
    value = judged(read_bytes, data)
    expected = official_value(name, value_of, data)
    assert (value is None) == (expected is None)
    assert plain(value) == plain(expected)


@pytest.mark.parametrize(
    ("name", "strategy", "value_of", "read_bytes"), KINDS, ids=[kind[0] for kind in KINDS]
)
@given(choice=st.data())
def test_bytes_that_were_tampered_with_are_read_alike_or_refused(
    name, strategy, value_of, read_bytes, choice
) -> None:
    """Where both read something, it is the same; what we do not read raises a DecodeError with a path."""
    data = bytearray(protobuf.encode(choice.draw(strategy)))
    for _ in range(choice.draw(st.integers(1, 4))):
        at = choice.draw(st.integers(0, len(data)))
        data[at : at + choice.draw(st.integers(0, 2))] = choice.draw(st.binary(max_size=2))
    value = judged(read_bytes, bytes(data))
    expected = official_value(name, value_of, bytes(data))
    if value is not None and expected is not None:
        assert plain(value) == plain(expected)


@pytest.mark.parametrize("name", GOLDEN)
def test_every_beginning_and_every_other_byte_is_read_or_refused(name: str) -> None:
    """No message that ends too early, and none with one wrong byte, raises anything but a DecodeError."""
    data = base64.b64decode(GOLDEN[name])
    kind: Any = type(HELD[name])
    for end in range(len(data)):
        judged(lambda part: protobuf.decode(kind, part), data[:end])
    for at in range(len(data)):
        for byte in (0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1):
            judged(lambda part: protobuf.decode(kind, part), data[:at] + bytes([byte]) + data[at + 1 :])


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing but DecodeError comes of bytes that nobody wrote."""
    for _, _, _, read_bytes in KINDS:
        judged(read_bytes, data)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_large_arrays_are_views_and_none_can_be_written(form: Any) -> None:
    """Where they are aligned, values lie in the message; what is read is read-only, also of a buffer that is not."""
    for size in (3, 5000, 5001, 5002, 5003):
        held = SampleResponse((SampledSequence("stop", tokens(*range(size)), floats(*range(size))),))
        data = protobuf.encode(held)
        (sequence,) = protobuf.decode(SampleResponse, form(data)).sequences
        for array in (sequence.tokens_np, sequence.logprobs_np):
            assert array is not None
            assert array.flags.aligned
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                array.setflags(write=True)
        assert sequence == held.sequences[0]
    output = ForwardBackwardOutput("T", [{"x": TensorData(np.zeros(9000), "float32")}] * 4, {"a" * 40: 1.0})
    for pad in range(8):  # whatever stands before the values, one of these is aligned
        data = protobuf.encode(ForwardBackwardOutput("T" * (pad + 1), output.loss_fn_outputs, {}))
        read_output = protobuf.decode(ForwardBackwardOutput, data)
        assert read_output.loss_fn_outputs == output.loss_fn_outputs
        assert not read_output.loss_fn_outputs[0]["x"].data.flags.writeable


def test_classes_that_have_no_such_form() -> None:
    """Both directions name the class; the set says which ones have it."""
    assert {
        ForwardBackwardRequest,
        ForwardRequest,
        ForwardBackwardOutput,
        SampleResponse,
    } == protobuf.MESSAGES
    with pytest.raises(InputError, match="Datum has no protobuf form"):
        protobuf.encode(Datum(ModelInput.empty()))
    with pytest.raises(DecodeError, match="Datum: it has no protobuf form"):
        protobuf.decode(Datum, b"")


def test_a_request_of_the_other_kind_is_refused() -> None:
    """Only a server reads both; whoever wants one of them does not get the other."""
    data = base64.b64decode(GOLDEN["G2"])
    assert isinstance(protobuf.decode_training(data), ForwardRequest)
    with pytest.raises(DecodeError, match=r"it is a ForwardRequest @ \$.forward_only"):
        protobuf.decode(ForwardBackwardRequest, data)
    with pytest.raises(DecodeError, match=r"it is a ForwardBackwardRequest @ \$.forward_only"):
        protobuf.decode(ForwardRequest, base64.b64decode(GOLDEN["G1"]))
