"""What a model reads: chunks in a row, and training examples made of them."""

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.chunk import (
    DmelChunk,
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInputChunk,
    Tokens,
)
from tinker_actors.wire.provenance import PromptProvenanceSpan, ProvenanceSpan, SampledProvenanceSpan
from tinker_actors.wire.tensor import TensorData, TensorLike, tensor_from

__all__ = ["Datum", "ModelInput"]

_CHUNKS = (EncodedTextChunk, ImageChunk, ImageAssetPointerChunk, DmelChunk)
_NO_TOKENS = EncodedTextChunk(())


def _chunk_tuple(chunks: Sequence[ModelInputChunk]) -> tuple[ModelInputChunk, ...]:
    given: object = chunks  # it may be anything
    if not isinstance(given, list | tuple):
        raise InputError("chunks", given, "must be a list of chunks")
    for index, chunk in enumerate(given):
        if not isinstance(chunk, _CHUNKS):
            why = "must be a chunk, such as EncodedTextChunk; ModelInput.from_ints takes token ids"
            raise InputError(f"chunks[{index}]", chunk, why)
    return tuple(given)


@attrs.frozen
class ModelInput:
    """A prompt or a training sequence, in chunks.

    Raises:
        InputError: something else than a list of chunks.
    """

    chunks: tuple[ModelInputChunk, ...] = attrs.field(converter=_chunk_tuple)

    @classmethod
    def from_ints(cls, tokens: Tokens) -> "ModelInput":
        """Make an input of one chunk from token ids.

        Raises:
            InputError: see `EncodedTextChunk`.
        """
        return cls((EncodedTextChunk(tokens),))

    @classmethod
    def empty(cls) -> "ModelInput":
        """Make an input without tokens."""
        return cls(())

    def to_numpy(self) -> npt.NDArray[np.int32]:
        """Return all token ids in order: int32, shape (n,), read-only.

        Raises:
            InputError: there is something else than tokens among the chunks.
        """
        for index, chunk in enumerate(self.chunks):
            if not isinstance(chunk, EncodedTextChunk):
                raise InputError(f"chunks[{index}]", chunk, "has no token ids")
        parts = [chunk.tokens_np for chunk in self.chunks if isinstance(chunk, EncodedTextChunk)]
        if len(parts) == 1:
            return parts[0]
        tokens = np.concatenate([_NO_TOKENS.tokens_np, *parts])
        tokens.setflags(write=False)
        return tokens

    def to_ints(self) -> list[int]:
        """Return all token ids in order.

        Raises:
            InputError: there is something else than tokens among the chunks.
        """
        tokens: list[int] = self.to_numpy().tolist()
        return tokens

    @property
    def length(self) -> int:
        """Number of tokens.

        Raises:
            InputError: there is an image of unknown length, or audio that is none.
        """
        return sum([chunk.length for chunk in self.chunks])

    def append(self, chunk: ModelInputChunk) -> "ModelInput":
        """Return a new input with `chunk` at the end."""
        return ModelInput((*self.chunks, chunk))

    def append_int(self, token: int) -> "ModelInput":
        """Return a new input with one more token."""
        *before, last = self.chunks or (_NO_TOKENS,)
        if not isinstance(last, EncodedTextChunk):
            return self.append(EncodedTextChunk((token,)))
        (new,) = EncodedTextChunk((token,)).tokens_np
        return ModelInput((*before, EncodedTextChunk(np.append(last.tokens_np, new))))


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


def _span_tuple(spans: Sequence[ProvenanceSpan] | None) -> tuple[ProvenanceSpan, ...] | None:
    return spans if spans is None else tuple(spans)


def _check_spans(field: str, spans: Sequence[object], length: int | None) -> None:
    """Want spans that cover a field of `length` tokens one after the other, without a gap."""
    covered = 0
    for index, span in enumerate(spans):
        if not isinstance(span, PromptProvenanceSpan | SampledProvenanceSpan):
            raise InputError(
                f"{field}[{index}]", span, "must be a PromptProvenanceSpan or a SampledProvenanceSpan"
            )
        covered += span.length
    if length is not None and covered != length:
        raise InputError(field, spans, f"cover {covered} tokens of {length}")


@attrs.frozen
class Datum:
    """One training example.

    Attributes:
        model_input: the tokens the model reads; position i predicts token i + 1, the caller shifts.
        loss_fn_inputs: per-position values of the loss, by name. Lists and arrays become `TensorData`.
        model_input_spans: where the tokens of the input come from; together the spans have its length.
        loss_fn_input_spans: where the target tokens come from, likewise.

    Raises:
        InputError: ragged lists, unknown keys for plain lists, unfit dtypes, no model input; spans that do not
            cover their field, or one list of them without the other.
    """

    model_input: ModelInput = attrs.field(converter=_model_input)
    loss_fn_inputs: dict[str, TensorData] = attrs.field(converter=_tensor_mapping, factory=dict)
    model_input_spans: tuple[ProvenanceSpan, ...] | None = attrs.field(converter=_span_tuple, default=None)
    loss_fn_input_spans: tuple[ProvenanceSpan, ...] | None = attrs.field(converter=_span_tuple, default=None)

    def __attrs_post_init__(self) -> None:
        of_input, of_loss = self.model_input_spans, self.loss_fn_input_spans
        if of_input is None and of_loss is None:
            return
        if of_input is None or of_loss is None:
            missing = "model_input_spans" if of_input is None else "loss_fn_input_spans"
            raise InputError(missing, None, "spans must be given for both the model's input and the loss's")
        _check_spans("model_input_spans", of_input, self.model_input.length)
        target = self.loss_fn_inputs.get("target_tokens")
        flat = target is not None and len(target.shape) == 1
        _check_spans("loss_fn_input_spans", of_loss, target.shape[0] if target is not None and flat else None)

    def with_provenance(
        self, *, model_input: Sequence[ProvenanceSpan], loss_fn_inputs: Sequence[ProvenanceSpan]
    ) -> "Datum":
        """Return this example with the sources of its tokens.

        Args:
            model_input: the sources of the tokens that the model reads, in order.
            loss_fn_inputs: the sources of the target tokens, in order.

        Raises:
            InputError: the spans do not cover their field.
        """
        return attrs.evolve(self, model_input_spans=model_input, loss_fn_input_spans=loss_fn_inputs)
