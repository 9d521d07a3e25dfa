"""Tokenizers: text to ids and back.

A tokenizer does nothing else: it adds no roles, no turns and no chat template. Who trains or samples a chat model
applies its template with a renderer (`text.renderer`), or renders ids by other means.

`load_tokenizer` reads what lies beside a model: `tokenizer.json`, and, where they are there, `tokenizer_config.json`
(which signs begin and end a text, and the chat template) and `chat_template.jinja`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import attrs
import tokenizers

from tinker_actors.errors import ConfigError
from tinker_actors.text.files import EMBEDDED_PREFIX, ModelFiles, find_files
from tinker_actors.text.settings import TokenizerSettings, read_settings

__all__ = ["EMBEDDED_PREFIX", "Tokenizer", "load_tokenizer"]


@attrs.frozen(eq=False, slots=False)
class Tokenizer:
    """Text to ids and back, with the method names that users of `transformers` know.

    It may be used in any thread, and in several at once.

    Attributes:
        tokenizer_id: where it comes from, see `load_tokenizer`.
        backend: the `tokenizers.Tokenizer` underneath, for whatever is not offered here.
        settings: special tokens and chat templates.
    """

    tokenizer_id: str
    backend: tokenizers.Tokenizer = attrs.field(repr=False)
    settings: TokenizerSettings = attrs.field(factory=TokenizerSettings, repr=False)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a text.

        Args:
            text: any text.
            add_special_tokens: add what the tokenizer itself adds around a text, such as a sign for its beginning.
        """
        return self.backend.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """Return the ids of several texts; faster than one by one."""
        encoded = self.backend.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        return [one.ids for one in encoded]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids.

        Args:
            token_ids: ids below `vocab_size`.
            skip_special_tokens: leave special tokens out.
        """
        return self.backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def token_to_id(self, token: str) -> int | None:
        """Return the id of one token; None if there is no such token."""
        return self.backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """Return the token of an id as the vocabulary writes it; None if there is none."""
        return self.backend.id_to_token(token_id)

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, added ones included."""
        return self.backend.get_vocab_size()

    @cached_property
    def special_tokens(self) -> Mapping[int, str]:
        """The special tokens by their ids."""
        added = self.backend.get_added_tokens_decoder()
        return {token_id: token.content for token_id, token in added.items() if token.special}

    @property
    def bos_token(self) -> str | None:
        """What begins a text; None if nothing does."""
        return self.settings.special.get("bos_token")

    @property
    def bos_token_id(self) -> int | None:
        """The id of `bos_token`."""
        return self._id_of("bos_token")

    @property
    def eos_token(self) -> str | None:
        """What ends a text; None if nothing does."""
        return self.settings.special.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id of `eos_token`."""
        return self._id_of("eos_token")

    @property
    def chat_template(self) -> str | None:
        """The model's chat template, as Jinja; None if it has none."""
        return self.settings.templates.get("default")

    def _id_of(self, name: str) -> int | None:
        token = self.settings.special.get(name)
        return None if token is None else self.backend.token_to_id(token)


def load_tokenizer(tokenizer_id: str) -> Tokenizer:
    """Return the tokenizer of an embedded model, of a local path, or of the Hugging Face hub.

    Reads files and, for the hub, the network: call it in a thread.

    Args:
        tokenizer_id: `tinker-actors/<name>`, a path to a `tokenizer.json` or the folder that holds it, or a
            hub id (see `resolution.resolve_tokenizer_id`).

    Raises:
        ConfigError: there is none, or none that can be read.
    """
    try:
        files = find_files(tokenizer_id)
        return Tokenizer(tokenizer_id, _backend(files), read_settings(files))
    except Exception as error:  # the library raises plain Exception for whatever went wrong
        raise ConfigError(
            f"tokenizer_id = {tokenizer_id!r}: no tokenizer could be loaded: {error}"
        ) from error


def _backend(files: ModelFiles) -> tokenizers.Tokenizer:
    text = files.read("tokenizer.json")
    if text is None:
        raise FileNotFoundError("it has no tokenizer.json")
    backend = tokenizers.Tokenizer.from_str(text)
    # A file keeps how its author last used it; a text is encoded as it is.
    backend.no_truncation()
    backend.no_padding()
    return backend
