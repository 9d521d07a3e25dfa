from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.wire.protobuf.schema import OFFICIAL
from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire.chunk import EncodedTextChunk, ImageAssetPointerChunk, ImageChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.protobuf import decode, decode_training, encode
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardRequest, ForwardRequest

ROW = np.array([1, 2], np.int64)


def request(*data: Datum, config: Any = None, **fields: Any) -> ForwardBackwardRequest:
    given = {"model_id": "m", "seq_id": 1, **fields}
    return ForwardBackwardRequest(ForwardBackwardInput(data, "ppo", config), **given)


def official(value: Any) -> Any:
    return OFFICIAL["ForwardBackwardRequest"].FromString(encode(value))


def problem(**fields: Any) -> str:
    data = OFFICIAL["ForwardBackwardRequest"](**fields).SerializeToString()
    with pytest.raises(DecodeError) as caught:
        decode_training(data)
    (found,) = caught.value.problems
    return found


def test_numbers_of_the_configuration_are_written_to_both_maps() -> None:
    """Older servers read the first map, which has no place for text."""
    message = official(request(config={"beta": 0.05, "n": 3, "loss_id": "l"}))
    assert dict(message.loss_fn_config) == {"beta": 0.05, "n": 3.0}
    assert {name: value.WhichOneof("value") for name, value in message.loss_fn_config_v2.items()} == {
        "beta": "number",
        "n": "number",
        "loss_id": "text",
    }


def test_the_second_map_is_preferred() -> None:
    """The first one counts only where there is no second."""
    message = OFFICIAL["ForwardBackwardRequest"](loss_fn="ppo", loss_fn_config={"beta": 1.0})
    old = decode(ForwardBackwardRequest, message.SerializeToString())
    assert old.forward_backward_input.loss_fn_config == {"beta": 1.0}
    message.loss_fn_config_v2["mode"].text = ""
    new = decode(ForwardBackwardRequest, message.SerializeToString())
    assert new.forward_backward_input.loss_fn_config == {"mode": ""}


def test_forward_requests_have_the_flag() -> None:
    """It is what tells both kinds apart."""
    forward = ForwardRequest(ForwardBackwardInput([], "ppo"), "m", 1)
    assert official(forward).forward_only
    assert not official(request()).forward_only


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (
            lambda: request(Datum(ModelInput([ImageAssetPointerChunk("png", "asset://1")]))),
            "forward_backward_input.data[0].model_input.chunks[0]",
        ),
        (
            lambda: ForwardRequest(
                ForwardBackwardInput(
                    [
                        Datum(ModelInput.empty()),
                        Datum(ModelInput([EncodedTextChunk([1]), ImageChunk(b"", "png", 2**31)])),
                    ],
                    "ppo",
                ),
                "m",
                1,
            ),
            "forward_input.data[1].model_input.chunks[1].expected_tokens",
        ),
        (lambda: request(seq_id=2**31), "seq_id"),
        (lambda: request(model_id="\udc00"), "model_id"),
        (lambda: request(config={"a": "\udc00"}), "forward_backward_input.loss_fn_config['a']"),
        (lambda: request(config={"b": 10**999}), "forward_backward_input.loss_fn_config['b']"),
        (
            lambda: request(Datum(ModelInput.empty(), {"\udc00": ROW})),
            "forward_backward_input.data[0].loss_fn_inputs",
        ),
    ],
)
def test_what_cannot_be_written_is_named(make: Any, field: str) -> None:
    """The error has the whole path, and nothing was written."""
    with pytest.raises(InputError) as caught:
        encode(make())
    assert caught.value.field == field


def test_arrays_of_any_layout_are_written_row_by_row() -> None:
    """Columns, strides and scalars come out as their values in order; two shapes of one name do not mix."""
    matrix = np.arange(6, dtype=np.int64).reshape(2, 3)
    for array in (matrix.T, matrix[:, ::2], np.asfortranarray(matrix), matrix[0], np.array(3)):
        value = request(Datum(ModelInput.empty(), {"x": array}), Datum(ModelInput.empty(), {"x": ROW}))
        assert decode(ForwardBackwardRequest, encode(value)) == value


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"data": [{"model_input": [{}]}]}, "a chunk of an unknown kind @ $.data[0].model_input[0]"),
        (
            {"data": [{}, {"model_input": [{"encoded_text": {"tokens": b"\xff\xff\xff\xff"}}]}]},
            "tokens[0] = -1: token ids are not negative @ $.data[1].model_input[0]",
        ),
        (
            {"data": [{"model_input": [{"encoded_text": {"tokens": b"\xff"}}]}]},
            "1 bytes do not hold whole values of 4 @ $.data[0].model_input[0]",
        ),
        (
            {"data": [{"model_input": [{"image": {"format": "gif"}}]}]},
            "format = 'gif': must be one of 'png', 'jpeg' @ $.data[0].model_input[0]",
        ),
        (
            {"data": [{"loss_fn_inputs": {"w": {"dense": b"1234", "dtype": 1, "shape": [2]}}}]},
            "[2] does not hold 1 values @ $.data[0].loss_fn_inputs['w'].shape",
        ),
        ({"data": [{"loss_fn_inputs": {"w": {}}}]}, "unknown dtype 0 @ $.data[0].loss_fn_inputs['w'].dtype"),
        (
            {"data": [{"model_input_spans": [{}]}]},
            "a span of an unknown kind @ $.data[0].model_input_spans[0]",
        ),
        (
            {"data": [{"loss_fn_input_spans": [{"prompt_tokens": {"length": 1}}]}]},
            "sequence_id = '': must be a string that is not empty @ $.data[0].loss_fn_input_spans[0]",
        ),
        (
            {"data": [{"model_input_spans": [{"prompt_tokens": {"sequence_id": "a", "length": 1}}]}]},
            "@ $.data[0]",
        ),
        ({"loss_fn_config_v2": {"a": {}}}, "there is no value @ $.loss_fn_config_v2['a']"),
    ],
)
def test_what_is_no_request_is_refused_with_its_place(fields: Any, where: str) -> None:
    """Each problem says what is wrong, and where."""
    assert problem(**fields).endswith(where)


def test_values_that_a_class_refuses_are_a_problem(monkeypatch) -> None:
    """Whatever the batch's class refuses, one day, is a DecodeError as well."""

    def refuse(*_: object) -> None:
        raise InputError("loss_fn", "x", "must be known")

    monkeypatch.setattr("tinker_actors.wire.protobuf.request.ForwardBackwardInput", refuse)
    assert problem() == "loss_fn = 'x': must be known @ $"


def test_fields_that_are_not_known_are_skipped() -> None:
    """A newer client's fields, of whatever wire type, do not disturb, and neither do known numbers of another type."""
    value = request(Datum(ModelInput.from_ints([1]), {"x": TensorData(ROW, "int64")}))
    unknown = b"\xf8\x07\x01\xfa\x07\x02hi\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4) + b"\x08\x05\x12\x01x"
    assert decode(ForwardBackwardRequest, unknown + encode(value) + unknown) == value
