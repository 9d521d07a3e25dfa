"""The files that lie beside a model: in this package, in a folder of this machine, or on the Hugging Face hub."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, Protocol

import attrs

from tinker_actors.text.resolution import REVISIONS

__all__ = ["EMBEDDED_PREFIX", "ModelFiles", "find_files"]

EMBEDDED_PREFIX: Final = "tinker-actors/"
"""Models with this prefix are the embedded service's; their files lie in this package."""

_PRIVATE = ("TML/", "thinkingmachines/")  # tinker 0.38.0 lib/public_interfaces/sampling_client.py
_HUB_ID = re.compile(r"(?:[\w.-]+/)?[\w.-]+(?<!\.json)")  # `name` or `owner/name`; whatever else is a path


class ModelFiles(Protocol):
    """Reads a model's files."""

    def read(self, name: str) -> str | None:
        """Return the text of a file; None if there is no such file.

        Raises:
            OSError: it cannot be read.
        """
        ...


@attrs.frozen
class _Folder:
    """A folder; `tokenizer` is the tokenizer's own file, if it has another name."""

    folder: Traversable
    tokenizer: Traversable | None = None

    def read(self, name: str) -> str | None:
        file = self.folder / name
        if name == "tokenizer.json" and self.tokenizer is not None:
            file = self.tokenizer
        return file.read_text(encoding="utf-8") if file.is_file() else None


@attrs.frozen
class _Hub:
    """A model on the hub; what was fetched once is read from the hub's own cache on this machine."""

    name: str

    def read(self, name: str) -> str | None:
        # These load slowly, and only the hub needs them.
        from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        revision = REVISIONS.get(self.name, "main")
        try:
            path = hf_hub_download(self.name, name, revision=revision)
        except LocalEntryNotFoundError:  # no network, and no such file in the cache
            if try_to_load_from_cache(self.name, name, revision=revision) is _CACHED_NO_EXIST:
                return None  # the hub has said so, when there was a network
            raise
        except EntryNotFoundError:
            return None
        return Path(path).read_text(encoding="utf-8")


def find_files(tokenizer_id: str) -> ModelFiles:
    """Return where a tokenizer's files are.

    Args:
        tokenizer_id: see `text.tokenizer.load_tokenizer`.

    Raises:
        FileNotFoundError: a path that does not exist, or a tokenizer that is not public.
    """
    if tokenizer_id.startswith(EMBEDDED_PREFIX):
        folder = files("tinker_actors") / "local" / "models"
        name = tokenizer_id.removeprefix(EMBEDDED_PREFIX)
        if not name or not (folder / name / "tokenizer.json").is_file():
            raise FileNotFoundError(f"the embedded service has no model of this name: {name!r}")
        return _Folder(folder / name)
    path = Path(tokenizer_id).expanduser()
    if path.is_dir():
        return _Folder(path)
    if path.is_file():
        return _Folder(path.parent, path)
    if not _HUB_ID.fullmatch(tokenizer_id):
        raise FileNotFoundError("there is no such file, and no model on the hub can have this name")
    if tokenizer_id.startswith(_PRIVATE):
        raise FileNotFoundError(
            "its tokenizer is not public; `tml_tokenizers`, which has it, is not read here"
        )
    return _Hub(tokenizer_id)
