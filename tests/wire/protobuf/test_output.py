from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.wire.protobuf.schema import OFFICIAL
from tinker_actors.errors import DecodeError, InputError
from tinker_actors.wire.protobuf import decode, encode
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput


def read(**fields: Any) -> ForwardBackwardOutput:
    data = OFFICIAL["ForwardBackwardOutput"](**fields).SerializeToString()
    return decode(ForwardBackwardOutput, data)


def batch(size: int, *offsets: int, dtype: int = 1, **fields: Any) -> dict[str, Any]:
    return {"data": bytes(size), "offsets": np.array(offsets, "<i8").tobytes(), "dtype": dtype, **fields}


def record(count: int | None = None, **fields: Any) -> dict[str, Any]:
    return {"fields": fields} if count is None else {"fields": fields, "num_datums": count}


def problem(*records: Any, **fields: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        read(loss_fn_outputs=records, **fields)
    (found,) = caught.value.problems
    return found


def test_the_count_of_a_record_is_authoritative() -> None:
    """Datums may come back without fields; where nobody counted, the first field does."""
    assert read(loss_fn_outputs=[record(3), record(1)]).loss_fn_outputs == ({}, {}, {}, {})
    uncounted = read(loss_fn_outputs=[record(a=batch(8, 0, 4, 8))])
    assert [datum["a"].shape for datum in uncounted.loss_fn_outputs] == [(1,), (1,)]
    assert read(loss_fn_outputs=[record(a=batch(0)), record(a=batch(0, 0))]).loss_fn_outputs == ()


def test_narrow_dtypes_are_widened_by_values() -> None:
    """Offsets count the bytes of the wire, whatever the values become."""
    ints = batch(12, 0, 4, 12, dtype=3)
    halves = batch(6, 0, 2, 6, dtype=4)
    first, second = read(loss_fn_outputs=[record(2, a=ints, b=halves)]).loss_fn_outputs
    assert (first["a"].shape, second["a"].shape, second["a"].dtype) == ((1,), (2,), "int64")
    assert (first["b"].shape, second["b"].shape, second["b"].dtype) == ((1,), (2,), "float32")


@pytest.mark.requirement("R89")
def test_the_type_is_what_stands_behind_the_last_colon() -> None:
    """A service's modules are not the caller's business; outputs without a type are records."""
    assert read(loss_fn_output_type="a.b:c:Scores").loss_fn_output_type == "Scores"
    assert read().loss_fn_output_type == "ArrayRecord"
    assert decode(ForwardBackwardOutput, encode(ForwardBackwardOutput())).loss_fn_output_type == "ArrayRecord"


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([record(2, a=batch(4, 0, 4))], "1 datums of 2 @ $.loss_fn_outputs[0].fields['a']"),
        (
            [record(1), record(a=batch(4, 0, 4), b=batch(4, 0, 2, 4, dtype=4))],
            "@ $.loss_fn_outputs[1].fields['",
        ),
        ([record(-1)], "-1 datums @ $.loss_fn_outputs[0].num_datums"),
        ([record(1, a=batch(4, 0, 4, dtype=0))], "unknown dtype 0 @ $.loss_fn_outputs[0].fields['a'].dtype"),
        ([record(1, a=batch(5, 0, 4))], "5 bytes do not hold whole values of 4"),
        ([record(1, a=batch(4, -4, 4))], "must rise within 4 bytes, by whole values of 4"),
        ([record(1, a=batch(4, 0, 8))], "must rise within 4 bytes"),
        ([record(2, a=batch(8, 4, 0, 8))], "must rise within 8 bytes"),
        ([record(2, a=batch(8, 0, 2, 8))], "@ $.loss_fn_outputs[0].fields['a'].offsets"),
        ([record(1, a={"dtype": 1, "offsets": b"1234567"})], "7 bytes do not hold whole values of 8"),
        ([record(1, a=batch(12, 0, 12, trailing_shape=[2]))], "[1, 2] does not hold 3 values"),
        ([record(1, a=batch(8, 0, 8, trailing_shape=[-2]))], ".trailing_shape of datum 0"),
        ([record(1, a=batch(4, 0, 4, trailing_shape=[0]))], "[0, 0] does not hold 1 values"),
        ([record(1, a=batch(0, 0, 0, trailing_shape=[2**62, 2**62]))], ".trailing_shape of datum 0"),
        ([record(65_537)], "65537 datums without fields, at most 65536 @ $.loss_fn_outputs[0].num_datums"),
        ([record(2**62)], "datums without fields"),
        ([record(60_000), record(a=batch(0)), record(60_000)], "@ $.loss_fn_outputs[2].num_datums"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(records: Any, what: str) -> None:
    """Counts, offsets and shapes that do not agree; and datums that cost no bytes are not made by the million."""
    assert what in problem(*records)


def test_neighbours_share_a_record_if_they_fit() -> None:
    """Of other names, dtypes or further dimensions there is another record; the first dimension may differ."""

    def tensor(*shape: int, dtype: str = "float32") -> TensorData:
        return (
            TensorData(np.ones(shape), dtype)
            if dtype == "float32"
            else TensorData(np.ones(shape, int), "int64")
        )

    outputs = [
        {"a": tensor(2)},
        {"a": tensor(3)},
        {"a": tensor(3, dtype="int64")},
        {"a": tensor(2, 2)},
        {"a": tensor(1, 2), "b": tensor(1)},
        {"b": tensor(2), "a": tensor(4, 2)},
        {},
    ]
    output = ForwardBackwardOutput("T", outputs)
    message = OFFICIAL["ForwardBackwardOutput"].FromString(encode(output))
    assert [held.num_datums for held in message.loss_fn_outputs] == [2, 1, 1, 2, 1]
    assert [held.type_tag for held in message.loss_fn_outputs] == ["T"] * 5
    assert decode(ForwardBackwardOutput, encode(output)) == output


def test_a_tensor_without_dimensions_arrives_with_one() -> None:
    """The wire gives every tensor a first dimension."""
    output = ForwardBackwardOutput("T", [{"a": TensorData(np.float32(2.0), "float32")}])
    (datum,) = decode(ForwardBackwardOutput, encode(output)).loss_fn_outputs
    assert datum["a"] == TensorData([2.0], "float32")


@pytest.mark.parametrize(
    "tensor",
    [TensorData([5], "int64", [1, 3], [0, 1], [2]), TensorData(np.zeros((3, 0)), "float32")],
    ids=["sparse", "rows without values"],
)
def test_what_an_output_cannot_hold_is_named(tensor: TensorData) -> None:
    """Sparse tensors, and rows that no value shows."""
    with pytest.raises(InputError) as caught:
        encode(ForwardBackwardOutput("T", [{}, {"a": tensor}]))
    assert caught.value.field == "loss_fn_outputs[1]['a']"


def test_metrics_may_be_anything_that_a_double_can_be() -> None:
    """NaN and infinity have a form here, unlike in JSON."""
    output = ForwardBackwardOutput("T", [], {"nan": float("nan"), "inf": float("inf"), "": -0.0})
    read_back = decode(ForwardBackwardOutput, encode(output)).metrics
    assert list(map(repr, read_back.values())) == ["nan", "inf", "-0.0"]
