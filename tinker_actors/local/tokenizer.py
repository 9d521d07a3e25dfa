"""The character tokenizer of the embedded base model, built with the `tokenizers` library.

A token is one character: the 95 printable ASCII characters, newline and tab, and three specials. The specials
are characters themselves, from Unicode's control pictures, so no ASCII text is ever mistaken for one, and
every text of printable ASCII comes back from its tokens exactly. Any other character becomes `UNKNOWN_TOKEN`.
"""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

__all__ = ["EOS_TOKEN", "PAD_TOKEN", "UNKNOWN_TOKEN", "character_tokenizer", "token_texts"]

PAD_TOKEN = "\u2400"  # SYMBOL FOR NULL
EOS_TOKEN = "\u2404"  # SYMBOL FOR END OF TRANSMISSION: ends a text
UNKNOWN_TOKEN = "\ufffd"  # REPLACEMENT CHARACTER
SPECIAL_TOKENS = (PAD_TOKEN, EOS_TOKEN, UNKNOWN_TOKEN)
CHARACTERS = "\n\t" + "".join(map(chr, range(ord(" "), ord("~") + 1)))


def character_tokenizer() -> Tokenizer:
    """Build the tokenizer: specials first, then newline, tab and printable ASCII in order of code."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN_TOKEN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def token_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return the text of every token by its id; specials have theirs too."""
    return tuple(
        tokenizer.decode([index], skip_special_tokens=False) for index in range(tokenizer.get_vocab_size())
    )
