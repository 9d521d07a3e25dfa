"""Write pages of docs that are made from code and tests, or check that they are what would be written."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mark_reading import Proof


class Pages(NamedTuple):
    """The pages that one tool writes.

    Attributes:
        folder: where they lie, from the root of the project.
        again: the command that writes them.
        texts: name to what it should read.
    """

    folder: str
    again: str
    texts: Mapping[str, str]


def outdated(pages: Pages, root: Path) -> list[str]:
    """Return a line for each page that does not read as it should."""
    folder = root / pages.folder
    return [
        f"{pages.folder}/{name} is out of date; write it again with `{pages.again}`"
        for name, text in pages.texts.items()
        if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text
    ]


def write(pages: Pages, root: Path) -> None:
    """Write them all."""
    (root / pages.folder).mkdir(parents=True, exist_ok=True)
    for name, text in pages.texts.items():
        (root / pages.folder / name).write_text(text, "utf-8")


def run(
    arguments: Sequence[str] | None,
    pages: Pages,
    root: Path,
    *,
    amiss: Iterable[str] = (),
    unproven: Callable[[], Iterable[str]] = list,
) -> int:
    """Be the program: write the pages, or check them with `--check`; return the exit status.

    Args:
        arguments: of the command line.
        pages: what should be there.
        root: of the project.
        amiss: a line for each thing that is wrong, whether the pages are written or checked.
        unproven: gives further such lines, when they are checked.
    """
    parser = argparse.ArgumentParser(
        description=f"Write the pages of {pages.folder} made from code and tests."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if anything is amiss")
    lines = list(amiss)
    if parser.parse_args(arguments).check:
        lines += [*unproven(), *outdated(pages, root)]
    else:
        write(pages, root)
    print("".join(f"{line}\n" for line in lines), end="", file=sys.stderr)
    return 1 if lines else 0


def entry(name: str, text: str, proofs: Sequence[Proof], *, up: str, otherwise: str = "no test yet") -> str:
    """Return a sentence and its tests, those of one file together; the page would be too long for single ones.

    Args:
        name: of the rule, requirement or whatever it is.
        text: the sentence.
        proofs: the tests that prove it.
        up: the way from the page to the root of the project, such as `../..`.
        otherwise: what stands there where there is no test.
    """
    files: dict[str, list[str]] = {}
    for proof in proofs:
        files.setdefault(proof.file, []).append(f"`{proof.test}`")
    tests = [
        f"[{file.removeprefix('tests/')}]({up}/{file}): {', '.join(names)}" for file, names in files.items()
    ]
    return f"**{name}.** {text}\n\n- {'; '.join(tests) or otherwise}\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns stand under each other in a terminal as well."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)
