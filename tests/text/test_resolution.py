from __future__ import annotations

import pytest

from tinker_actors.text.resolution import REVISIONS, resolve_tokenizer_id

LLAMA_3 = "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"


@pytest.mark.lesson("D17", "D28")
@pytest.mark.requirement("R162")
@pytest.mark.parametrize(
    ("model_name", "named", "expected"),
    [
        ("Qwen/Qwen3-8B", None, "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B", "", "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B:peft:128k", None, "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B", "owner/tokenizer:v2", "owner/tokenizer"),
        ("meta-llama/Llama-3.1-8B-Instruct", None, LLAMA_3),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Llama-2-7b", None, "meta-llama/Llama-2-7b"),
        ("openai/gpt-oss-20b/fast", None, "openai/gpt-oss-20b"),
        ("a/b/c/d", None, "a/b/c/d"),
        ("moonshotai/Kimi-K2.5-Text-Only", None, "moonshotai/Kimi-K2.5"),
        ("tinker-actors/char-100k", None, "tinker-actors/char-100k"),
        ("/models/tiny", None, "/models/tiny"),
        ("./models/tiny", None, "./models/tiny"),
        ("Qwen/Qwen3-8B", "/models/a:b", "/models/a:b"),
    ],
)
def test_a_model_has_its_tokenizer(model_name: str, named: str | None, expected: str) -> None:
    """What the service names wins; else overrides, variants and suffixes are resolved; paths stay."""
    assert resolve_tokenizer_id(model_name, named) == expected


def test_a_resolved_id_resolves_to_itself() -> None:
    """It names the tokenizer wherever it turns up again."""
    for name in ("Qwen/Qwen3-8B:x", "meta-llama/Llama-3-8B", "moonshotai/Kimi-K2.5-Text-Only", "a/b/c"):
        resolved = resolve_tokenizer_id(name)
        assert resolve_tokenizer_id(resolved) == resolved


def test_revisions_are_commits() -> None:
    """A tokenizer whose repository moves on is taken from one commit, and its id is a resolved one."""
    for name, commit in REVISIONS.items():
        assert resolve_tokenizer_id(name) == name
        assert len(commit) == 40
        assert set(commit) <= set("0123456789abcdef")
