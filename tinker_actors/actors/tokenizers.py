"""Tokenizers for the clients: loaded off the loop, each once."""

from __future__ import annotations

from collections.abc import Callable

import trio

from tinker_actors.text.tokenizer import Tokenizer, load_tokenizer

__all__ = ["Tokenizers"]


class Tokenizers:
    """Loads tokenizers off the loop, each once: who asks while one is being loaded waits for it.

    Args:
        load: loads one by its id, in a thread.
    """

    def __init__(self, load: Callable[[str], Tokenizer] = load_tokenizer) -> None:
        self._load = load
        self._loaded: dict[str, Tokenizer] = {}
        self._locks: dict[str, trio.Lock] = {}

    async def get(self, tokenizer_id: str) -> Tokenizer:
        """Return the tokenizer of a resolved id. Checkpoints.

        Raises:
            ConfigError: there is none.
        """
        async with self._locks.setdefault(tokenizer_id, trio.Lock()):
            if tokenizer_id not in self._loaded:
                self._loaded[tokenizer_id] = await trio.to_thread.run_sync(self._load, tokenizer_id)
            return self._loaded[tokenizer_id]
