"""What a model reads: token chunks, and training examples made of them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from tinker_actors.errors import InputError
from tinker_actors.wire.tensor import TensorData, TensorLike, exact_array, tensor_from

__all__ = ["Datum", "EncodedTextChunk", "ModelInput"]


def _token_tuple(tokens: Sequence[int]) -> tuple[int, ...]:
    array = exact_array("tokens", tokens, "int32")  # 32 bits: what a token has in the API's protobuf form
    if array.ndim != 1:
        raise InputError("tokens", tokens, "must be a flat list of integers")
    if array.size and array.min() < 0:
        index = int((array < 0).argmax())
        raise InputError(f"tokens[{index}]", int(array[index]), "token ids are not negative")
    return tuple(array.tolist())


@attrs.frozen
class EncodedTextChunk:
    """A run of token ids.

    Raises:
        InputError: something else than a flat list of integers from 0 to 2**31 - 1.
    """

    tokens: tuple[int, ...] = attrs.field(converter=_token_tuple)
    type: Literal["encoded_text"] = "encoded_text"

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


def _chunk_tuple(chunks: Sequence[EncodedTextChunk]) -> tuple[EncodedTextChunk, ...]:
    given: object = chunks  # it may be anything
    if not isinstance(given, list | tuple):
        raise InputError("chunks", given, "must be a list of EncodedTextChunk")
    for index, chunk in enumerate(given):
        if not isinstance(chunk, EncodedTextChunk):
            why = "must be an EncodedTextChunk; ModelInput.from_ints takes token ids"
            raise InputError(f"chunks[{index}]", chunk, why)
    return tuple(given)


@attrs.frozen
class ModelInput:
    """A prompt or a training sequence, in chunks.

    Raises:
        InputError: something else than a list of chunks.
    """

    chunks: tuple[EncodedTextChunk, ...] = attrs.field(converter=_chunk_tuple)

    @classmethod
    def from_ints(cls, tokens: Sequence[int]) -> "ModelInput":
        """Make an input of one chunk from token ids.

        Raises:
            InputError: see `EncodedTextChunk`.
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


def _model_input(value: ModelInput) -> ModelInput:
    given: object = value  # it may be anything
    if not isinstance(given, ModelInput):
        raise InputError("model_input", given, "must be a ModelInput")
    return given


def _tensor_mapping(values: Mapping[str, TensorLike]) -> dict[str, TensorData]:
    given: object = values  # it may be anything
    if not isinstance(given, Mapping):
        raise InputError("loss_fn_inputs", given, "must map names to tensors, arrays or lists")
    for key in given:
        if not isinstance(key, str):
            raise InputError("loss_fn_inputs", key, "names must be strings")
    return {key: tensor_from(key, value) for key, value in values.items()}


@attrs.frozen
class Datum:
    """One training example.

    Attributes:
        model_input: the tokens the model reads; position i predicts token i + 1, the caller shifts.
        loss_fn_inputs: per-position values of the loss, by name. Lists and arrays become `TensorData`.

    Raises:
        InputError: ragged lists, unknown keys for plain lists, unfit dtypes, no model input.
    """

    model_input: ModelInput = attrs.field(converter=_model_input)
    loss_fn_inputs: dict[str, TensorData] = attrs.field(converter=_tensor_mapping, factory=dict)
