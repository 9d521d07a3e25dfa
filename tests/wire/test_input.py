from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.refusals import refusal
from tests.wire.strategies import text_chunks, token_lists
from tinker_actors.errors import InputError
from tinker_actors.wire.chunk import EncodedTextChunk, ImageChunk
from tinker_actors.wire.codec import encode, structure
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.provenance import PromptProvenanceSpan, SampledProvenanceSpan
from tinker_actors.wire.tensor import TensorData


@given(token_lists, st.sampled_from([list, tuple, np.array]))
def test_tokens_come_back_as_plain_integers(tokens: list[int], form: Any) -> None:
    """Lists, tuples and arrays give the same chunk, of Python's own integers."""
    given_tokens = form(tokens)
    model_input = ModelInput.from_ints(given_tokens)
    assert model_input.to_ints() == tokens
    assert all(type(token) is int for token in model_input.to_ints())
    assert model_input.length == model_input.chunks[0].length == len(tokens)


@given(st.lists(text_chunks, max_size=4), text_chunks, st.integers(0, 2**31 - 1))
def test_appending_makes_a_longer_input(
    parts: list[EncodedTextChunk], chunk: EncodedTextChunk, token: int
) -> None:
    """The old input stays as it was; the tokens of the new one are the old and the new ones."""
    before = ModelInput(parts)
    tokens = before.to_ints()
    longer = before.append(chunk)
    assert longer.to_ints() == [*tokens, *chunk.tokens]
    assert longer.chunks[-1] == chunk
    one_more = before.append_int(token)
    assert one_more.to_ints() == [*tokens, token]
    assert len(one_more.chunks) == max(1, len(parts))
    assert before.to_ints() == tokens
    assert ModelInput.empty() == ModelInput([])


@pytest.mark.parametrize(
    ("tokens", "field", "value"),
    [
        ([1, -2], "tokens[1]", -2),
        ([1, 2**31], "tokens[1]", 2**31),
        ([1, True], "tokens[1]", True),
        ([1, 2.0], "tokens[1]", 2.0),
        (["1"], "tokens[0]", "1"),
        ("12", "tokens", "12"),
        (None, "tokens", None),
        (5, "tokens", 5),
        ([[1, 2]], "tokens", [[1, 2]]),
        ([[1], [2, 3]], "tokens", [[1], [2, 3]]),
        ([[]], "tokens", [[]]),
    ],
)
def test_what_is_no_list_of_token_ids_is_refused(tokens: Any, field: str, value: object) -> None:
    """The field names the element, if it is one element that is wrong."""
    with pytest.raises(InputError) as caught:
        EncodedTextChunk(tokens)
    assert (caught.value.field, caught.value.value) == (field, value)


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (lambda: ModelInput([1, 2]), "chunks[0]", 1),  # type: ignore[list-item]  # wrong on purpose
        (lambda: ModelInput("ab"), "chunks", "ab"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Datum([1, 2]), "model_input", [1, 2]),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Datum(ModelInput.empty(), [1]), "loss_fn_inputs", [1]),  # type: ignore[arg-type]  # wrong on purpose
        (lambda: Datum(ModelInput.empty(), {1: [1]}), "loss_fn_inputs", 1),  # type: ignore[dict-item]  # wrong on purpose
        (lambda: Datum(ModelInput.empty(), {"weights": [[1], []]}), "loss_fn_inputs['weights']", [[1], []]),
    ],
    ids=["tokens as chunks", "text as chunks", "tokens as input", "list of inputs", "key", "ragged"],
)
def test_mistaken_types_are_told_where_they_happen(make: Any, field: str, value: object) -> None:
    """Not by an AttributeError in the depth, later."""
    with pytest.raises(InputError) as caught:
        make()
    assert (caught.value.field, caught.value.value) == (field, value)


def test_a_datum_turns_lists_and_arrays_into_tensors() -> None:
    """And has a mapping of its own, which the caller's does not change."""
    weights = np.array([0.0, 1.0])
    inputs: dict[str, Any] = {"target_tokens": [2, 3], "weights": weights}
    datum = Datum(ModelInput.from_ints([1, 2]), inputs)
    inputs.clear()
    weights[:] = 7.0
    assert datum.loss_fn_inputs == {
        "target_tokens": TensorData([2, 3], "int64"),
        "weights": TensorData([0.0, 1.0], "float32"),
    }
    assert Datum(ModelInput.empty()).loss_fn_inputs == {}


def test_a_model_input_is_one_array_of_tokens() -> None:
    """That of its chunk if there is one, else a new one; both cannot be written."""
    first, second = EncodedTextChunk([1, 2]), EncodedTextChunk([3])
    assert ModelInput([first]).to_numpy() is first.tokens_np
    both = ModelInput([first, second]).to_numpy()
    assert (both.tolist(), both.dtype, both.flags.writeable) == ([1, 2, 3], np.int32, False)
    assert ModelInput.empty().to_numpy().dtype == np.int32


def test_images_have_no_token_ids() -> None:
    """The first of them is named; the length is that which is expected."""
    mixed = ModelInput([EncodedTextChunk([1]), ImageChunk(b"x", "png", 4)])
    assert mixed.length == 5
    assert mixed.append_int(2).chunks[2] == EncodedTextChunk([2])
    assert refusal(mixed.to_ints)[0] == "chunks[1]"


PROMPT = PromptProvenanceSpan(sequence_id="q", length=2)
SAMPLED = SampledProvenanceSpan(sequence_id="q", offset=1, length=1)


def test_the_tokens_of_an_example_come_from_somewhere() -> None:
    """The spans of the input cover the input, those of the loss the target tokens."""
    datum = Datum(ModelInput.from_ints([1, 2, 3]), {"target_tokens": [2, 3, 4]})
    known = datum.with_provenance(model_input=[PROMPT, SAMPLED], loss_fn_inputs=[SAMPLED, PROMPT])
    assert known.model_input_spans == (PROMPT, SAMPLED)
    assert known.loss_fn_input_spans == (SAMPLED, PROMPT)
    assert (known.model_input, known.loss_fn_inputs) == (datum.model_input, datum.loss_fn_inputs)
    assert datum.model_input_spans is None
    assert structure(Datum, orjson.loads(encode(known)), strict=True) == known


def test_a_target_of_two_dimensions_is_covered_by_any_spans() -> None:
    """Its length is not looked at, and neither is that of no target."""
    targets = np.zeros((3, 2), np.int64)
    for inputs in ({"target_tokens": targets}, {}):
        datum = Datum(ModelInput.from_ints([1, 2]), inputs)
        assert datum.with_provenance(model_input=[PROMPT], loss_fn_inputs=[SAMPLED]).loss_fn_input_spans


@pytest.mark.parametrize(
    ("of_input", "of_loss", "field", "value"),
    [
        ([PROMPT], [PROMPT, SAMPLED], "model_input_spans", (PROMPT,)),
        ([PROMPT, SAMPLED], [PROMPT, PROMPT], "loss_fn_input_spans", (PROMPT, PROMPT)),
        ([PROMPT, "q"], [PROMPT, SAMPLED], "model_input_spans[1]", "q"),
        (None, [PROMPT, SAMPLED], "model_input_spans", None),
        ([PROMPT, SAMPLED], None, "loss_fn_input_spans", None),
    ],
    ids=["short", "long", "no span", "no input", "no loss"],
)
def test_spans_that_do_not_cover_their_field_are_refused(
    of_input: Any, of_loss: Any, field: str, value: object
) -> None:
    """Too few, too many, something else, or one list without the other."""
    inputs = {"target_tokens": [2, 3, 4]}
    assert refusal(Datum, ModelInput.from_ints([1, 2, 3]), inputs, of_input, of_loss) == (field, value)
