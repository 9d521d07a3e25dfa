"""What a model reads: token chunks, and training examples made of them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs
import numpy as np

from tinker_actors.errors import InputError
from tinker_actors.wire.tensor import TensorData, TensorLike, tensor_from

__all__ = ["Datum", "EncodedTextChunk", "ModelInput"]


def _token_tuple(tokens: Sequence[int]) -> tuple[int, ...]:
    array = np.asarray(tokens)
    if array.size == 0:
        return ()
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError("tokens", tokens, "must be a flat list of integers")
    if int(array.min()) < 0:
        raise InputError("tokens", int(array.min()), "token ids are not negative")
    return tuple(array.tolist())


@attrs.frozen
class EncodedTextChunk:
    """A run of token ids."""

    tokens: tuple[int, ...] = attrs.field(converter=_token_tuple)
    type: Literal["encoded_text"] = "encoded_text"

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


def _chunk_tuple(chunks: Sequence[EncodedTextChunk]) -> tuple[EncodedTextChunk, ...]:
    return tuple(chunks)


@attrs.frozen
class ModelInput:
    """A prompt or a training sequence, in chunks."""

    chunks: tuple[EncodedTextChunk, ...] = attrs.field(converter=_chunk_tuple)

    @classmethod
    def from_ints(cls, tokens: Sequence[int]) -> "ModelInput":
        """Make an input of one chunk from token ids.

        Raises:
            InputError: something else than a flat list of non-negative integers.
        """
        return cls([EncodedTextChunk(tokens)])

    @classmethod
    def empty(cls) -> "ModelInput":
        """Make an input without tokens."""
        return cls([])

    def to_ints(self) -> list[int]:
        """Return all token ids in order."""
        return [token for chunk in self.chunks for token in chunk.tokens]

    @property
    def length(self) -> int:
        """Number of tokens."""
        return sum(chunk.length for chunk in self.chunks)

    def append(self, chunk: EncodedTextChunk) -> "ModelInput":
        """Return a new input with `chunk` at the end."""
        return ModelInput([*self.chunks, chunk])

    def append_int(self, token: int) -> "ModelInput":
        """Return a new input with one more token."""
        if not self.chunks:
            return ModelInput.from_ints([token])
        last = EncodedTextChunk([*self.chunks[-1].tokens, token])
        return ModelInput([*self.chunks[:-1], last])


def _tensor_mapping(values: Mapping[str, TensorLike]) -> dict[str, TensorData]:
    return {key: tensor_from(key, value) for key, value in values.items()}


@attrs.frozen
class Datum:
    """One training example.

    Attributes:
        model_input: the tokens the model reads; position i predicts token i + 1, the caller shifts.
        loss_fn_inputs: per-position values of the loss, by name. Lists and arrays become `TensorData`.

    Raises:
        InputError: ragged lists, unknown keys for plain lists, unfit dtypes.
    """

    model_input: ModelInput
    loss_fn_inputs: dict[str, TensorData] = attrs.field(converter=_tensor_mapping, factory=dict)
