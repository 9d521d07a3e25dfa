"""What a tokenizer's settings say beside its vocabulary: special tokens and chat templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import attrs
import orjson

from tinker_actors.text.files import ModelFiles

__all__ = ["TokenizerSettings", "read_settings"]

# The names that chat templates know; transformers 5 tokenization_utils_base.py
_SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


@attrs.frozen
class TokenizerSettings:
    """Special tokens and chat templates.

    Attributes:
        special: special tokens by their names, such as `eos_token`.
        templates: chat templates by their names; the usual one is `default`.
    """

    special: Mapping[str, str] = attrs.field(factory=dict[str, str])
    templates: Mapping[str, str] = attrs.field(factory=dict[str, str])


def read_settings(files: ModelFiles) -> TokenizerSettings:
    """Read the settings beside a tokenizer; a model without any has none.

    Raises:
        ValueError: a file that is not what it should be.
    """
    text = files.read("tokenizer_config.json")
    config = {} if text is None else _mapping("tokenizer_config.json", orjson.loads(text))
    templates = _templates(config.get("chat_template"))
    alone = files.read("chat_template.jinja")
    if alone is not None:  # the newer place wins
        templates["default"] = alone
    special = {name: token for name in _SPECIAL if (token := _token(config.get(name))) is not None}
    return TokenizerSettings(special, templates)


def _mapping(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no object")  # noqa: TRY004 - a file's contents are a value
    return cast("dict[str, object]", value)


def _token(value: object) -> str | None:
    """Return a special token, which stands there as a text or with its properties."""
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("content")
    return value if isinstance(value, str) else None


def _templates(value: object) -> dict[str, str]:
    """Return the templates by name; one alone is the default."""
    if isinstance(value, str):
        return {"default": value}
    if not isinstance(value, list):
        return {}
    named = (_mapping("chat_template", one) for one in cast("list[object]", value))
    return {str(one["name"]): str(one["template"]) for one in named}
