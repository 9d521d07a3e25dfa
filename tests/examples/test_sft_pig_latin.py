"""The example: its rule, its files, its errors, and that it learns."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinker_actors.errors import InputError

SCRIPT = Path(__file__).parents[2] / "examples" / "sft_pig_latin.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """Load the script as a module."""
    spec = importlib.util.spec_from_file_location("sft_pig_latin", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> tuple[str, dict[str, Any]]:
    """Run the script; return its output and the JSON object of its last line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("word", "translated"),
    [("hello", "ellohay"), ("apple", "appleway"), ("string", "ingstray"), ("my", "myay"), ("yes", "esyay")],
)
def test_the_rule(example: ModuleType, word: str, translated: str) -> None:
    """Leading consonants go to the end, then "ay"; a leading vowel gets "way"."""
    assert example.pig_latin(word) == translated


def test_the_words_are_some_thousand_plain_words(example: ModuleType) -> None:
    """The committed list is what the README of the data says."""
    examples = example.word_examples()
    words = [one.prompt.removeprefix("pig: ").removesuffix(">") for one in examples]
    assert len(words) == len(set(words)) >= 4000
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_held_out_examples_are_never_trained_on(example: ModuleType) -> None:
    """The split is seeded, disjoint and complete."""
    examples = example.word_examples()
    training, held_out = example.split(examples, 3)
    assert not set(training) & set(held_out)
    assert sorted([*training, *held_out], key=str) == sorted(examples, key=str)
    assert example.split(examples, 3) == (training, held_out) != example.split(examples, 4)


def test_a_quick_run_improves_and_ends_with_json() -> None:
    """A few steps run through evaluation, training and evaluation."""
    output, result = run("--quick", "--steps", "5", "--evaluate", "20")
    assert "before: " in output
    assert "after: " in output
    assert (result["backend"], result["steps"], result["held_out"]) == ("local", 5, 20)
    assert 0 <= result["exact_match_before"] <= 1


@pytest.mark.slow
def test_it_learns_words_it_has_not_seen() -> None:
    """From almost nothing to nearly all of the held-out words."""
    _, result = run()
    assert result["exact_match_before"] < 0.1
    assert result["exact_match_after"] > 0.85


def test_a_file_of_the_users_is_taken(tmp_path: Path) -> None:
    """Any prompts and completions; blank lines are skipped, a missing newline is added."""
    lines = [json.dumps({"prompt": f"q{i}?", "completion": f"a{i}"}) for i in range(30)]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n\n".join(lines), encoding="utf-8")
    _, result = run("--data", str(file), "--steps", "3", "--quick")
    assert (result["examples"], result["held_out"]) == (27, 3)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("{", "mine.jsonl line 2"),
        ('["a"]', "mine.jsonl line 2, prompt"),
        ('{"prompt": "a"}', "mine.jsonl line 2, completion"),
        ('{"prompt": "", "completion": "b"}', "mine.jsonl line 2, prompt"),
        ('{"prompt": "a", "completion": 3}', "mine.jsonl line 2, completion"),
    ],
)
def test_wrong_lines_are_named(example: ModuleType, tmp_path: Path, line: str, field: str) -> None:
    """Line, field and value are in the error."""
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        example.file_examples(file)
    assert caught.value.field == field


def test_signs_the_model_cannot_spell_are_refused(example: ModuleType) -> None:
    """Before anything is trained on question marks."""
    from tinker_actors.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer("tinker-actors/char-100k")
    good, bad = example.Example("a>", "b\n"), example.Example("a>", "é\n")
    example.check_spelling([good], tokenizer)
    with pytest.raises(InputError, match=r"examples\[1\]"):
        example.check_spelling([good, bad], tokenizer)
