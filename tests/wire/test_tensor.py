from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.refusals import problems_of, refusal
from tests.wire.strategies import sparse_arrays, tensor_arrays
from tinker_actors.errors import InputError
from tinker_actors.wire.codec import encode, structure
from tinker_actors.wire.tensor import INPUT_DTYPES, TensorData, TensorDtype, tensor_from


@pytest.mark.requirement("R95")
@given(tensor_arrays())
def test_a_tensor_holds_what_it_was_given(array: np.ndarray) -> None:
    """Values, dtype and shape of an array of either kind come back unchanged."""
    tensor = TensorData.from_numpy(array)
    assert (tensor.dtype, tensor.shape) == (array.dtype.name, array.shape)
    assert tensor.to_numpy().tobytes() == array.tobytes()
    assert tensor.tolist() == array.tolist()
    assert tensor == TensorData(array.reshape(-1), tensor.dtype, array.shape)


def test_a_tensor_is_read_only_and_apart_from_the_callers_array() -> None:
    """What is in line cannot change: not through the caller's array, and not through the tensor's."""
    array = np.array([1.0, 2.0], np.float32)
    for tensor in (
        TensorData.from_numpy(array),
        TensorData(array, "float32"),
        tensor_from("weights", array),
    ):
        array[0] = 5.0
        assert tensor.tolist() == [1.0, 2.0]
        for view in (tensor.data, tensor.to_numpy(), tensor.to_numpy().reshape(2, 1)):
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 7.0
        array[0] = 1.0
    integers = np.array([1, 2], np.int64)
    same_dtype = TensorData(integers, "int64", (2, 1))
    integers[0] = 9
    assert same_dtype.to_numpy().tolist() == [[1], [2]]


def test_the_shape_is_that_of_the_data_unless_another_is_given() -> None:
    """None takes the data's; a list becomes a tuple; the same values may be arranged anew."""
    assert TensorData([[1, 2], [3, 4]], "int64").shape == (2, 2)
    assert TensorData([[1, 2], [3, 4]], "int64", [4]).tolist() == [1, 2, 3, 4]
    assert TensorData(3, "int64").shape == ()
    assert TensorData([], "float32").to_numpy().dtype == np.float32


def test_floats_are_rounded_to_float32_and_nothing_else_changes() -> None:
    """Rounding is the one loss; NaN and infinity stay for the check of the batch to refuse."""
    tensor = TensorData([0.1, float("nan"), float("inf"), 3.4028235e38], "float32")
    assert tensor.to_numpy()[[0, 3]].tolist() == [float(np.float32(0.1)), float(np.finfo(np.float32).max)]
    assert np.isnan(tensor.to_numpy()[1])
    assert np.isposinf(tensor.to_numpy()[2])
    assert TensorData([1, 2], "float32").tolist() == [1.0, 2.0]


NOT_NUMBERS: list[tuple[Any, str, str, object]] = [
    ([True, False], "int64", "data[0]", True),
    ([True, False], "float32", "data[0]", True),
    ([1, True], "int64", "data[1]", True),
    ([1.0, False], "float32", "data[1]", False),
    ([[1, 2], [3, True]], "int64", "data[1][1]", True),
    (["3"], "int64", "data[0]", "3"),
    (["3.5"], "float32", "data[0]", "3.5"),
    ([1, 1.5], "int64", "data[1]", 1.5),
    ([2.0], "int64", "data[0]", 2.0),
    ([1, None], "float32", "data[1]", None),
    ([1, 2**63], "int64", "data[1]", 2**63),
    ([-(2**63) - 1], "int64", "data[0]", -(2**63) - 1),
    ([0.0, 1e300], "float32", "data[1]", 1e300),
    ([3.4028235e38, 3.5e38], "float32", "data[1]", 3.5e38),
    ([10**400], "float32", "data[0]", 10**400),
    ([1j], "float32", "data[0]", 1j),
    ("abc", "int64", "data", "abc"),
    (None, "float32", "data", None),
    ([[1], [2, 3]], "float32", "data", [[1], [2, 3]]),
    ([[1, 2], 3], "int64", "data", [[1, 2], 3]),
]


@pytest.mark.requirement("R20")
@pytest.mark.parametrize(("values", "dtype", "field", "value"), NOT_NUMBERS)
def test_nothing_is_coerced(values: Any, dtype: Any, field: str, value: object) -> None:
    """Booleans, strings, halves as integers, too large and ragged values are refused by their place."""
    assert refusal(TensorData, values, dtype) == (field, value)


@pytest.mark.parametrize(
    ("array", "dtype", "field"),
    [
        (np.array([1.5]), "int64", "data[0]"),
        (np.array([True]), "int64", "data[0]"),
        (np.array([1, 2**63], np.uint64), "int64", "data[1]"),
        (np.array([[0.0, 1e39]]), "float32", "data[0][1]"),
        (np.array(["1"]), "float32", "data[0]"),
    ],
)
def test_arrays_are_held_to_the_same_rules(array: np.ndarray, dtype: Any, field: str) -> None:
    """An array is refused where its list would be."""
    assert refusal(TensorData, array, dtype)[0] == field


@pytest.mark.parametrize(
    ("dtype", "shape", "field", "value"),
    [
        ("float64", None, "dtype", "float64"),
        (np.dtype("int64"), None, "dtype", np.dtype("int64")),
        (["int64"], None, "dtype", ["int64"]),
        ("int64", (3,), "shape", [3]),
        ("int64", (-1, -2), "shape[0]", -1),
        ("int64", (2.0,), "shape[0]", 2.0),
        ("int64", (True, 2), "shape[0]", True),
        ("int64", "2", "shape", "2"),
        ("int64", 7, "shape", 7),
    ],
)
def test_a_wrong_dtype_or_shape_is_refused(dtype: Any, shape: Any, field: str, value: object) -> None:
    """The field and the value are those that were given."""
    assert refusal(TensorData, [1, 2], dtype, shape) == (field, value)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.zeros(1, np.float64), "float32"),
        (np.zeros(1, np.float16), "float32"),
        (np.zeros(1, np.int8), "int64"),
        (np.zeros(1, ">i4"), "int64"),
        ([0, 1], "int64"),
        ([0.5], "float32"),
    ],
)
def test_from_numpy_takes_signed_integers_and_floats(array: Any, dtype: str) -> None:
    """Floats of every width become float32, signed integers int64."""
    assert TensorData.from_numpy(array).dtype == dtype


@pytest.mark.parametrize("kind", ["uint8", "bool", "complex128", "datetime64[s]", "object", "<U1"])
def test_from_numpy_refuses_other_kinds(kind: str) -> None:
    """Unsigned integers and booleans among them: their meaning on the other side is not settled."""
    assert refusal(TensorData.from_numpy, np.zeros(1, kind)) == ("dtype", kind)


# --- sparse tensors --------------------------------------------------------------------------------------


def sparse(**fields: Any) -> TensorData:
    """Make a tensor of [[0, 5, 0], [7, 0, 9]], or one that is wrong."""
    parts = {
        "data": [5, 7, 9],
        "dtype": "int64",
        "shape": (2, 3),
        "sparse_crow_indices": [0, 1, 3],
        "sparse_col_indices": [1, 0, 2],
    }
    return TensorData(**{**parts, **fields})


def test_a_sparse_tensor_lists_its_values_by_row() -> None:
    """Indices are int64 and cannot be written; what is not listed is the pad value."""
    tensor = sparse()
    assert tensor.is_sparse
    assert tensor.tolist() == [[0, 5, 0], [7, 0, 9]]
    assert tensor.to_numpy(-1).tolist() == [[-1, 5, -1], [7, -1, 9]]
    assert not tensor.to_numpy().flags.writeable
    for indices in (tensor.sparse_crow_indices, tensor.sparse_col_indices):
        assert indices is not None
        assert (indices.dtype, indices.flags.writeable) == (np.int64, False)
    assert tensor == sparse()
    assert tensor != sparse(sparse_col_indices=[2, 0, 2])
    assert tensor != TensorData.from_numpy(tensor.to_numpy())
    assert not TensorData([1], "int64").is_sparse


@pytest.mark.requirement("R95")
def test_a_sparse_tensor_crosses_the_network_with_its_indices() -> None:
    """Beside its values, its dtype and its shape."""
    body = {
        "data": [5, 7, 9],
        "dtype": "int64",
        "shape": [2, 3],
        "sparse_crow_indices": [0, 1, 3],
        "sparse_col_indices": [1, 0, 2],
    }
    assert orjson.loads(encode(sparse())) == body
    assert structure(TensorData, body, strict=True) == sparse()
    del body["shape"]
    assert problems_of(TensorData, body, strict=False) == ["shape = None: must be a list of dimensions @ $"]


@given(sparse_arrays(), st.sampled_from([0, -1]))
def test_a_mostly_empty_matrix_becomes_sparse_and_comes_back(array: np.ndarray, pad: int) -> None:
    """It is sparse if its indices take less room than what is left out, by the rule of tinker 0.38.0."""
    tensor = TensorData.from_sparse(array, pad)
    assert tensor.to_numpy(pad).tobytes() == array.tobytes() or not np.array_equal(array, array)
    rows, columns = array.shape
    assert tensor.is_sparse == (rows + 1 + 2 * int((array != pad).sum()) < rows * columns)


def test_only_matrices_become_sparse() -> None:
    """Whatever has another number of dimensions stays dense."""
    assert not TensorData.from_sparse(np.zeros(100)).is_sparse
    assert not TensorData.from_sparse(np.zeros((2, 50, 1), np.int64)).is_sparse
    assert TensorData.from_sparse(np.zeros((2, 50))).is_sparse


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"shape": None}, "shape", None),
        ({"shape": (6,)}, "shape", [6]),
        ({"shape": (2, -3)}, "shape[1]", -3),
        ({"sparse_crow_indices": None}, "sparse_crow_indices", None),
        ({"sparse_col_indices": None}, "sparse_col_indices", None),
        ({"sparse_crow_indices": [0, 3]}, "sparse_crow_indices", 2),
        ({"sparse_col_indices": [1, 0]}, "sparse_col_indices", 2),
        ({"sparse_col_indices": [[1, 0, 2]]}, "sparse_col_indices", [[1, 0, 2]]),
        ({"sparse_col_indices": [1, 0, 3]}, "sparse_col_indices[2]", 3),
        ({"sparse_col_indices": [1, -1, 0]}, "sparse_col_indices[1]", -1),
        ({"sparse_col_indices": [1, 0.5, 0]}, "sparse_col_indices[1]", 0.5),
    ],
    ids=range(11),
)
def test_a_sparse_tensor_that_does_not_fit_together_is_refused(
    fields: Any, field: str, value: object
) -> None:
    """A shape without rows and columns, too few or too many indices, indices beyond the shape."""
    assert refusal(sparse, **fields) == (field, value)


@pytest.mark.parametrize("crow", [[1, 2, 3], [0, 1, 2], [0, 4, 3]])
def test_the_rows_of_a_sparse_tensor_hold_its_values(crow: list[int]) -> None:
    """They begin at the first value, end at the last, and none ends before it begins."""
    field, value = refusal(sparse, sparse_crow_indices=crow)
    assert field == "sparse_crow_indices"
    assert np.array_equal(np.asarray(value), crow)


@pytest.mark.parametrize("pad", [True, 0.0, "0", None])
def test_the_pad_value_is_an_integer(pad: Any) -> None:
    """Nothing that only looks like one."""
    assert refusal(TensorData.from_sparse, np.zeros((2, 2)), pad) == ("pad_value", pad)


def test_tensors_can_be_keys() -> None:
    """Equal tensors have equal hashes."""
    assert hash(TensorData([1], "int64")) == hash(TensorData(np.array([1]), "int64"))


# --- what users write under a key ------------------------------------------------------------------------


@pytest.mark.lesson("D37")
@pytest.mark.parametrize(("key", "dtype"), INPUT_DTYPES.items())
def test_a_list_gets_the_dtype_of_its_key(key: str, dtype: TensorDtype) -> None:
    """Integers are weights as well as targets."""
    assert tensor_from(key, [0, 1]) == TensorData([0, 1], dtype)


@pytest.mark.lesson("D37")
def test_the_keys_with_a_dtype_are_these() -> None:
    """The table of tinker 0.38.0: targets are integers, everything else is a float."""
    assert dict(INPUT_DTYPES) == {
        "target_tokens": "int64",
        "weights": "float32",
        "advantages": "float32",
        "logprobs": "float32",
        "clip_low_threshold": "float32",
        "clip_high_threshold": "float32",
        "sequence_ratio_mask": "float32",
    }


def test_tensors_stay_and_arrays_keep_their_kind() -> None:
    """Only a plain list is told its dtype by the key."""
    tensor = TensorData([1], "int64")
    assert tensor_from("weights", tensor) is tensor
    assert tensor_from("anything", np.zeros(2)).dtype == "float32"
    assert tensor_from("weights", np.zeros(2, np.int32)).dtype == "int64"


@pytest.mark.parametrize(
    ("key", "value", "field", "shown"),
    [
        ("target_tokens", [1, 1.5], "loss_fn_inputs['target_tokens'][1]", 1.5),
        ("weights", ["a"], "loss_fn_inputs['weights'][0]", "a"),
        ("weights", [[1], [2, 3]], "loss_fn_inputs['weights']", [[1], [2, 3]]),
        ("weights", None, "loss_fn_inputs['weights']", None),
        ("weights", np.array([True]), "loss_fn_inputs['weights'].dtype", "bool"),
        ("weights", np.array([[0.0, 1e39]]), "loss_fn_inputs['weights'][0][1]", 1e39),
        ("mine", [1], "loss_fn_inputs['mine']", [1]),
    ],
)
def test_a_wrong_input_is_named_by_its_key(key: str, value: Any, field: str, shown: object) -> None:
    """The place is that in `loss_fn_inputs`, down to the element."""
    assert refusal(tensor_from, key, value) == (field, shown)


class Foreign:
    """What of a torch tensor is used: it lies elsewhere, has a gradient, and perhaps a kind of float numpy lacks."""

    def __init__(self, values: Any, floating: bool, steps: tuple[str, ...] = ()) -> None:
        self.values, self.floating, self.steps = values, floating, steps

    def _next(self, step: str) -> Foreign:
        return Foreign(self.values, self.floating, (*self.steps, step))

    def detach(self) -> Foreign:
        return self._next("detach")

    def cpu(self) -> Foreign:
        return self._next("cpu")

    def float(self) -> Foreign:
        return self._next("float")

    def is_floating_point(self) -> bool:
        return self.floating

    def numpy(self) -> np.ndarray:
        assert self.steps == (("detach", "cpu", "float") if self.floating else ("detach", "cpu"))
        return np.array(self.values, np.float32 if self.floating else np.int32)


def test_tensors_of_torch_are_taken_under_tinkers_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read by their own methods, so that torch need not be there."""
    assert TensorData.from_torch(Foreign([1.5, 2], floating=True)) == TensorData([1.5, 2], "float32")
    assert TensorData.from_torch(Foreign([3], floating=False)) == TensorData([3], "int64")
    assert tensor_from("anything", Foreign([0.5], floating=True)) == TensorData([0.5], "float32")
    rows = [[0, 0, 0, 0, 5], [0, 0, 0, 0, 0]]
    assert TensorData.from_torch_sparse(Foreign(rows, floating=False)) == TensorData.from_sparse(rows)
    with pytest.raises(InputError, match="must be a tensor of torch"):
        TensorData.from_torch([1])  # type: ignore[arg-type]
    taken: list[np.ndarray] = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(from_numpy=taken.append))
    TensorData.from_sparse(rows).to_torch(pad_value=-1)
    assert taken[0].tolist() == [[-1, -1, -1, -1, 5], [-1] * 5]
    assert taken[0].flags.writeable
