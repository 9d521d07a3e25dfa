from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tinker_actors.local.model import load_tokenizer
from tinker_actors.local.tokenizer import (
    EOS_TOKEN,
    PAD_TOKEN,
    UNKNOWN_TOKEN,
    character_tokenizer,
    token_texts,
)

TOKENIZER = character_tokenizer()
PRINTABLE = "".join(map(chr, range(32, 127))) + "\n\t"


@given(st.text(alphabet=PRINTABLE))
def test_printable_ascii_comes_back_exactly(text: str) -> None:
    """Every text of printable ASCII, newlines and tabs survives the round trip, one token per character."""
    ids = TOKENIZER.encode(text).ids
    assert len(ids) == len(text)
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("text", ["", "  two  spaces  ", "<eos>", "[UNK]", "<pad>12+7=19\n", " .,!?'s n't"])
def test_nothing_is_normalized_or_mistaken_for_a_special(text: str) -> None:
    """Spaces before punctuation stay, and what looks like a special token elsewhere is plain text here."""
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


def test_specials_have_fixed_ids_and_are_skipped_in_decoding() -> None:
    """Padding, end and unknown are tokens 0, 1 and 2, and never show in decoded text."""
    assert [TOKENIZER.token_to_id(token) for token in (PAD_TOKEN, EOS_TOKEN, UNKNOWN_TOKEN)] == [0, 1, 2]
    assert TOKENIZER.encode("a" + EOS_TOKEN).ids == [TOKENIZER.token_to_id("a"), 1]
    assert TOKENIZER.decode([TOKENIZER.token_to_id("a"), 1]) == "a"


def test_other_characters_become_the_unknown_token() -> None:
    """A character outside the vocabulary is one unknown token, not an error and not nothing."""
    assert TOKENIZER.encode("né").ids == [TOKENIZER.token_to_id("n"), 2]


def test_token_texts_lists_every_token_by_id() -> None:
    """The table that stop strings are matched with agrees with decoding."""
    texts = token_texts(TOKENIZER)
    assert len(texts) == TOKENIZER.get_vocab_size() == 100
    assert texts[:4] == (PAD_TOKEN, EOS_TOKEN, UNKNOWN_TOKEN, "\n")
    assert "".join(texts[index] for index in TOKENIZER.encode(PRINTABLE).ids) == PRINTABLE


def test_the_stored_tokenizer_is_the_built_one() -> None:
    """The file beside the shipped weights and the code that builds tokenizers agree."""
    stored: Tokenizer = load_tokenizer("tinker-actors/char-100k")
    assert stored.to_str() == TOKENIZER.to_str()
