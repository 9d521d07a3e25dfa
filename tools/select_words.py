"""Select the example words from a copy of the word list web2.

    python tools/select_words.py path/to/web2 examples/data/words.txt

web2 has 234,937 entries, most of them names and rarities. The rule, which needs no judgement and no second source:

1. Keep entries of 3 to 9 lower-case letters a-z that have a vowel (a, e, i, o, u) and no letter three times in a row.
2. Score each by how usual its spelling is: the mean, over all runs of three letters in `^word$` (the marks for start
   and end counting as letters), of the logarithm of how often the run occurs among the kept words.
3. Keep the better-scoring half.
4. Of these, in alphabetical order, take every k-th, with k the whole number that leaves at least `--count` words,
   and drop what is left over beyond `--count` at even distances.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from pathlib import Path

PLAIN = re.compile(r"(?=.*[aeiou])(?!.*(.)\1\1)[a-z]{3,9}")


def runs(word: str) -> list[str]:
    """Return all runs of three letters of `^word$`."""
    marked = f"^{word}$"
    return [marked[at : at + 3] for at in range(len(marked) - 2)]


def usual_half(words: list[str]) -> list[str]:
    """Return the half of the words whose spelling is more usual, in alphabetical order."""
    counts = Counter(run for word in words for run in runs(word))
    score = {word: sum(math.log(counts[run]) for run in runs(word)) / len(runs(word)) for word in words}
    return sorted(sorted(words, key=lambda word: (-score[word], word))[: len(words) // 2])


def select(entries: list[str], count: int) -> list[str]:
    """Apply the rule of this module's docstring.

    Raises:
        ValueError: fewer than `count` words are left after step 3.
    """
    half = usual_half(sorted({entry for entry in entries if PLAIN.fullmatch(entry)}))
    if len(half) < count:
        raise ValueError(f"only {len(half)} words left, {count} wanted")
    spread = half[:: len(half) // count]
    return [spread[index * len(spread) // count] for index in range(count)]


def main() -> None:
    """Read a word list, write the selection, one word per line."""
    parser = argparse.ArgumentParser(description="Select the example words from web2.")
    parser.add_argument("web2", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=6000)
    arguments = parser.parse_args()
    words = select(arguments.web2.read_text(encoding="ascii").splitlines(), arguments.count)
    arguments.output.write_text("".join(f"{word}\n" for word in words), encoding="ascii")
    print(f"{len(words)} words, {words[0]} to {words[-1]}")


if __name__ == "__main__":
    main()
