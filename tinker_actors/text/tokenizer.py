"""Finding the tokenizer that belongs to a model."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from tokenizers import Tokenizer

from tinker_actors.errors import ConfigError

__all__ = ["EMBEDDED_PREFIX", "load_tokenizer"]

EMBEDDED_PREFIX = "tinker-actors/"
"""Models with this prefix are the embedded service's; their files lie in this package."""

_HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+(?<!\.json)")  # `name` or `owner/name`; whatever else is a path


def load_tokenizer(tokenizer_id: str) -> Tokenizer:
    """Return the tokenizer of an embedded model, of a local path, or of the Hugging Face hub.

    Reads files and, for the hub, the network: call it in a thread.

    Args:
        tokenizer_id: `tinker-actors/<name>`, a path to a `tokenizer.json` or the folder that holds it, or a
            hub id.

    Raises:
        ConfigError: there is none, or none that can be read.
    """
    try:
        if tokenizer_id.startswith(EMBEDDED_PREFIX):
            return _packaged(tokenizer_id.removeprefix(EMBEDDED_PREFIX))
        path = Path(tokenizer_id)
        if path.is_dir():
            path /= "tokenizer.json"
        if path.is_file():
            return Tokenizer.from_file(str(path))
        if not _HUB_ID.fullmatch(tokenizer_id):
            raise FileNotFoundError("there is no such file, and no model on the hub can have this name")
        return Tokenizer.from_pretrained(tokenizer_id)
    except Exception as error:  # the library raises plain Exception for whatever went wrong
        raise ConfigError(
            f"tokenizer_id = {tokenizer_id!r}: no tokenizer could be loaded: {error}"
        ) from error


def _packaged(name: str) -> Tokenizer:
    resource = files("tinker_actors") / "local" / "models" / name / "tokenizer.json"
    return Tokenizer.from_str(resource.read_text(encoding="utf-8"))
