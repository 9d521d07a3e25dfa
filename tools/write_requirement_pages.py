"""Write docs/requirements.md: what users asked for and what others have learned, with the tests that prove it.

    python tools/write_requirement_pages.py           # writes it
    python tools/write_requirement_pages.py --check   # writes nothing; ends with 1 and says why if anything is amiss

The sentences stand in tests/requirements.toml and tests/lessons.toml, and a test says which it proves by
`@pytest.mark.requirement("R41")` or `@pytest.mark.lesson("D4")`. Amiss is a page that is out of date, a mark that
names nothing, and a line without a test; what counts as one is said in mark_reading.py.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mark_reading import Proof, read_proofs
from page_writing import Pages, entry, run

ROOT = Path(__file__).parents[1]
LISTS = {"requirement": "tests/requirements.toml", "lesson": "tests/lessons.toml"}
PAGES = "docs"
NAME = "requirements.md"
AGAIN = "python tools/write_requirement_pages.py"


class Chapter(NamedTuple):
    """What one list holds.

    Attributes:
        mark: the mark by which tests name its lines.
        lines: name to sentence.
        later: names that need no test yet.
        impossible: name to the reason why what it says cannot occur.
    """

    mark: str
    lines: Mapping[str, str]
    later: Collection[str]
    impossible: Mapping[str, str]


def read_chapters(root: Path) -> list[Chapter]:
    """Read both lists."""
    chapters = []
    for mark, path in LISTS.items():
        data = tomllib.loads((root / path).read_text("utf-8"))
        chapters.append(Chapter(mark, data[f"{mark}s"], data["later"], data.get("impossible", {})))
    return chapters


def read_all_proofs(root: Path) -> list[Proof]:
    """Read every test that names a line of either list."""
    return read_proofs(root, ["tests"], LISTS)


def unknown_marks(chapters: Sequence[Chapter], proofs: Sequence[Proof]) -> list[str]:
    """Return a line for each mark that names nothing."""
    return [
        f"{proof.place} names {name!r}, which is no {chapter.mark} of {LISTS[chapter.mark]}"
        for chapter in chapters
        for proof in proofs
        for name in proof.named[chapter.mark]
        if name not in chapter.lines
    ]


def unproven(chapters: Sequence[Chapter], proofs: Sequence[Proof]) -> list[str]:
    """Return a line for each sentence that no test is marked with, though one should be."""
    return [
        f"{chapter.mark} {name} has no test: {text}"
        for chapter in chapters
        for name, text in chapter.lines.items()
        if name not in chapter.later
        and name not in chapter.impossible
        and not proofs_of(chapter, name, proofs)
    ]


def proofs_of(chapter: Chapter, name: str, proofs: Sequence[Proof]) -> list[Proof]:
    """Return the tests that prove a line; those that may be skipped are none."""
    return [proof for proof in proofs if proof.is_sure and name in proof.named[chapter.mark]]


HEAD = """\
# What is asked for, and what proves it

<!-- Written by tools/write_requirement_pages.py from the lists and marks of the tests. Do not edit. -->

Under each sentence stand the tests that prove it. A test says so by `@pytest.mark.requirement("R41")` or
`@pytest.mark.lesson("D4")`, and counts only if it runs wherever the suite runs: one that may be skipped, or is
expected to fail, proves nothing. So with a suite that passes, what has a test here holds.
`python tools/write_requirement_pages.py` writes this page again, and with `--check` it wants a test for every line.
"""
TITLES = {
    "requirement": "## Requirements\n\nWhat users of such a client asked for.\n",
    "lesson": "## Lessons\n\nDefects that such clients have had, and what shows that they are none of ours.\n",
}
LATER = "## Still to come\n\nThese have no test yet, and need none yet.\n"


def page(chapters: Sequence[Chapter], proofs: Sequence[Proof]) -> str:
    """Return the page."""
    parts = [HEAD]
    for chapter in chapters:
        parts.append(TITLES[chapter.mark])
        parts += [_entry(chapter, name, proofs) for name in chapter.lines if name not in chapter.later]
    later = [(chapter, name) for chapter in chapters for name in chapter.lines if name in chapter.later]
    parts += (
        [LATER, "".join(f"- **{name}.** {chapter.lines[name]}\n" for chapter, name in later)] if later else []
    )
    return "\n".join(parts)


def _entry(chapter: Chapter, name: str, proofs: Sequence[Proof]) -> str:
    reason = chapter.impossible.get(name)
    otherwise = "no test yet" if reason is None else f"It cannot occur here: {reason}"
    return entry(name, chapter.lines[name], proofs_of(chapter, name, proofs), up="..", otherwise=otherwise)


def pages_of(chapters: Sequence[Chapter], proofs: Sequence[Proof]) -> Pages:
    """Return the page, under its name."""
    return Pages(PAGES, AGAIN, {NAME: page(chapters, proofs)})


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the page, or check it; returns the exit status."""
    chapters, proofs = read_chapters(root), read_all_proofs(root)
    return run(
        arguments,
        pages_of(chapters, proofs),
        root,
        amiss=unknown_marks(chapters, proofs),
        unproven=lambda: unproven(chapters, proofs),
    )


if __name__ == "__main__":
    sys.exit(main())
