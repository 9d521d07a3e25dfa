from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.text.templates import byte_tokenizer
from tinker_actors.errors import ConfigError
from tinker_actors.text.tokenizer import Tokenizer, load_tokenizer


def saved(folder: Path, config: Any = None, template: str | None = None) -> Tokenizer:
    """Save a tokenizer with its settings, and load it."""
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_bytes(orjson.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    return load_tokenizer(str(folder))


def test_special_tokens_are_read_in_both_forms(tmp_path: Path) -> None:
    """As a text, and with their properties."""
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "pad_token": None}
    tokenizer = saved(tmp_path, config)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.id_to_token(tokenizer.bos_token_id or 0) == "<s>"
    assert tokenizer.special_tokens[tokenizer.eos_token_id or 0] == "</s>"
    assert tokenizer.decode(tokenizer.encode("a</s>"), skip_special_tokens=True) == "a"
    assert tokenizer.decode(tokenizer.encode("a</s>")) == "a</s>"


def test_a_tokenizer_without_settings_has_none(tmp_path: Path) -> None:
    """Whatever is not said is None."""
    tokenizer = saved(tmp_path)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == (None, None)
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.chat_template) == (None, None, None)
    assert tokenizer.encode_batch(["a", "b"]) == [tokenizer.encode("a"), tokenizer.encode("b")]


def test_chat_templates_are_read_in_all_places(tmp_path: Path) -> None:
    """In the settings, in a list of named ones, and in a file of its own, which wins."""
    assert saved(tmp_path, {"chat_template": "one"}).chat_template == "one"
    named = [{"name": "default", "template": "two"}, {"name": "tool_use", "template": "three"}]
    tokenizer = saved(tmp_path, {"chat_template": named})
    assert tokenizer.settings.templates == {"default": "two", "tool_use": "three"}
    assert saved(tmp_path, {"chat_template": named}, template="four").chat_template == "four"


def test_settings_that_are_none_are_told(tmp_path: Path) -> None:
    """With the tokenizer's id."""
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json holds no object"):
        saved(tmp_path, ["no"])
