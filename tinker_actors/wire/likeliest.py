"""Tokens and their log probabilities at many positions, as two matrices: the likeliest ones, and draws."""

import types
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeAlias, cast

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.array import exact_array
from tinker_actors.wire.field import ARRAY
from tinker_actors.wire.tensor import TensorData

__all__ = ["EMPTY_LOGPROB", "EMPTY_TOKEN", "PromptAltTokens", "TopkList", "TopkLogprobs"]

# tinker 0.38.0 types/topk_logprobs.py: what stands where there is no further token
EMPTY_TOKEN = 0
EMPTY_LOGPROB = -99999.0

TopkRow: TypeAlias = Sequence[Sequence[float | None]]
TopkList: TypeAlias = list[list[tuple[int, float]] | None]


def _token_ids(values: npt.ArrayLike) -> npt.NDArray[np.int32]:
    return exact_array("token_ids", values, "int32")


def _logprobs(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return exact_array("logprobs", values, "float32")


@attrs.frozen
class TopkLogprobs:
    """The k likeliest tokens at each of n positions.

    Attributes:
        token_ids: int32, shape (n, k).
        logprobs: their log probabilities, float32, shape (n, k). A cell without a token holds token 0 and
            -99999.0.

    Raises:
        InputError: matrices of different shapes, or none.
    """

    token_ids: npt.NDArray[np.int32] = attrs.field(converter=_token_ids, eq=ARRAY, hash=False)
    logprobs: npt.NDArray[np.float32] = attrs.field(converter=_logprobs, eq=ARRAY, hash=False)

    def __attrs_post_init__(self) -> None:
        if self.token_ids.ndim != 2 or self.token_ids.shape != self.logprobs.shape:
            shapes = (self.token_ids.shape, self.logprobs.shape)
            raise InputError(
                "token_ids", shapes, "token ids and log probabilities must be matrices of one shape"
            )

    @classmethod
    def from_lists(cls, rows: Sequence[TopkRow | None]) -> "TopkLogprobs":
        """Make the matrices of one row per position: pairs of a token id and a log probability, or None.

        A log probability that is None becomes NaN.

        Raises:
            InputError: pairs that are none, or what is no token id or no number in them.
        """
        lengths = np.fromiter(map(len, [row or () for row in rows]), np.int64, len(rows))
        pairs = list(chain.from_iterable([row for row in rows if row]))
        if not set(map(len, pairs)).issubset({2}):
            raise InputError("pairs", None, "must be pairs of a token id and a log probability")
        ids, logprobs = zip(*pairs, strict=True) if pairs else ((), ())
        width = int(lengths.max(initial=0))
        there = np.arange(width) < lengths[:, None]
        matrix_of_ids = np.full(there.shape, EMPTY_TOKEN, np.int32)
        matrix_of_logprobs = np.full(there.shape, EMPTY_LOGPROB, np.float32)
        matrix_of_ids[there] = _token_ids(ids)
        matrix_of_logprobs[there] = _logprobs(_with_nan(logprobs))
        return cls(matrix_of_ids, matrix_of_logprobs)

    def tolist(self) -> TopkList:
        """Return one row per position, without its empty cells; None for a row that begins with one."""
        return self._rows(self.logprobs.tolist())

    def json_value(self) -> TopkList:
        """Return the same with log probabilities of numpy's, which are written with the digits of a float32."""
        return self._rows(self.logprobs)

    def _rows(self, logprobs: Iterable[Iterable[float]]) -> TopkList:
        rows: TopkList = list(map(list, map(zip, self.token_ids.tolist(), logprobs)))
        empty = (self.token_ids == EMPTY_TOKEN) & (self.logprobs == EMPTY_LOGPROB)
        if not empty.any():
            return rows if self.token_ids.shape[1] else [None] * len(rows)
        lengths = _filled_lengths(empty)
        return [row[:length] if row and length else None for row, length in zip(rows, lengths, strict=True)]


def _filled_lengths(empty: npt.NDArray[np.bool_]) -> list[int]:
    """Return how long each row is without the empty cells at its end; 0 if its first cell is empty."""
    width = empty.shape[1]
    lengths = width - np.argmin(empty[:, ::-1], axis=1)
    lengths[empty[:, 0]] = 0
    result: list[int] = lengths.tolist()
    return result


def _with_nan(values: tuple[float | None, ...]) -> npt.ArrayLike:
    kinds = set(map(type, values))
    if types.NoneType in kinds and kinds <= {int, float, types.NoneType}:
        return np.array(values, np.float64)  # which makes NaN of None
    return cast("npt.ArrayLike", values)


@attrs.frozen
class PromptAltTokens:
    """Tokens that could have stood in the prompt, drawn at each position but the first.

    Attributes:
        tokens: the drawn tokens, int64, shape (prompt length - 1, k); row i is for position i + 1.
        logprobs: their log probabilities, float32, of the same shape.
    """

    tokens: TensorData
    logprobs: TensorData
