from __future__ import annotations

import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "select_words.py"
select = runpy.run_path(str(TOOL))["select"]


def test_only_plain_words_are_kept() -> None:
    """Names, hyphens, words without a vowel, too short or long ones and tripled letters fall out."""
    entries = [
        "Aaron",
        "self-made",
        "hmm",
        "ox",
        "hippopotamus",
        "baaad",
        "café",
        "bone",
        "cone",
        "tone",
        "zone",
    ]
    assert set(select(entries, 2)) <= {"bone", "cone", "tone", "zone"}


def test_usual_spellings_win() -> None:
    """Of a heap of alike words and one odd one, the odd one falls out."""
    alike = [f"{first}{second}one" for first in "bcdt" for second in "rlw"]
    assert "zyxvuq" not in select([*alike, "zyxvuq"], 6)


def test_the_selection_is_of_the_size_wanted_sorted_and_without_repeats() -> None:
    """And if there are not enough words, that is said."""
    entries = [f"{a}{b}{c}e" for a in "bcdfgh" for b in "aeiou" for c in "lmnrst"] * 2
    words = select(entries, 50)
    assert len(words) == len(set(words)) == 50
    assert words == sorted(words)
    with pytest.raises(ValueError, match="only 90 words left"):
        select(entries, 91)


def test_the_command_writes_one_word_per_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a program on a small list."""
    source, target = tmp_path / "web2", tmp_path / "words.txt"
    source.write_text("".join(f"{a}{b}ne\n" for a in "bcdlmt" for b in "aeiou"), encoding="ascii")
    monkeypatch.setattr(sys, "argv", ["select_words.py", str(source), str(target), "--count", "10"])
    runpy.run_path(str(TOOL), run_name="__main__")
    assert len(target.read_text(encoding="ascii").split()) == 10


def test_the_committed_words_are_as_the_rule_says() -> None:
    """6,000 sorted words of 3 to 9 letters with a vowel, spread over the alphabet."""
    words = (ROOT / "examples" / "data" / "words.txt").read_text(encoding="ascii").splitlines()
    assert len(words) == len(set(words)) == 6000
    assert words == sorted(words)
    assert all(
        3 <= len(word) <= 9 and word.isalpha() and word.islower() and set(word) & set("aeiou")
        for word in words
    )
    assert len(Counter(word[0] for word in words)) == 26
