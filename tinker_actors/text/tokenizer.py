"""Loading a tokenizer by its id.

A tokenizer turns text into ids and back, and does nothing else: it adds no roles, no turns and no chat template. Who
trains or samples a chat model writes its template into the text, or renders ids by other means.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from tokenizers import Tokenizer

from tinker_actors.errors import ConfigError
from tinker_actors.text.resolution import REVISIONS

__all__ = ["EMBEDDED_PREFIX", "load_tokenizer"]

EMBEDDED_PREFIX = "tinker-actors/"
"""Models with this prefix are the embedded service's; their files lie in this package."""

_PRIVATE = ("TML/", "thinkingmachines/")  # tinker 0.38.0 lib/public_interfaces/sampling_client.py
_HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+(?<!\.json)")  # `name` or `owner/name`; whatever else is a path


def load_tokenizer(tokenizer_id: str) -> Tokenizer:
    """Return the tokenizer of an embedded model, of a local path, or of the Hugging Face hub.

    Reads files and, for the hub, the network: call it in a thread. What it returns may be used in any thread, and in
    several at once.

    Args:
        tokenizer_id: `tinker-actors/<name>`, a path to a `tokenizer.json` or the folder that holds it, or a
            hub id (see `resolution.resolve_tokenizer_id`).

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
        if tokenizer_id.startswith(_PRIVATE):
            raise FileNotFoundError(
                "its tokenizer is not public; `tml_tokenizers`, which has it, is not read here"
            )
        return Tokenizer.from_pretrained(tokenizer_id, revision=REVISIONS.get(tokenizer_id, "main"))
    except Exception as error:  # the library raises plain Exception for whatever went wrong
        raise ConfigError(
            f"tokenizer_id = {tokenizer_id!r}: no tokenizer could be loaded: {error}"
        ) from error


def _packaged(name: str) -> Tokenizer:
    resource = files("tinker_actors") / "local" / "models" / name / "tokenizer.json"
    return Tokenizer.from_str(resource.read_text(encoding="utf-8"))
