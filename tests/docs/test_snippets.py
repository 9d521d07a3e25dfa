"""The documents tell the truth: their programs run, and their commands exist.

A ``python`` block of README.md or of a page below docs is a complete program and is run as one, warnings being errors.
A block that cannot be is preceded by ``<!-- test: skip because ... -->``, and pytest shows that reason. Of
``bash`` blocks, every ``make`` target, ``tinker-actors`` command and option, and example must exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TIMEOUT = 120.0
"""Seconds: a program of the documents may train for a while."""

BLOCK = re.compile(
    r"(?:^<!-- test: skip because (?P<reason>[^\n]+?) -->\n+)?"
    r"^```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
CLI = "import sys; from tinker_actors.cli import main; sys.exit(main())"


class Block(NamedTuple):
    """One fenced block of a document."""

    place: str
    language: str
    text: str
    reason: str | None


def blocks(*languages: str) -> list[Block]:
    """Read the blocks in these languages from every document."""
    found = []
    for document in DOCUMENTS:
        content = document.read_text("utf-8")
        for match in BLOCK.finditer(content):
            line = content.count("\n", 0, match.start("text"))
            place = f"{document.relative_to(ROOT)}:{line}"
            found.append(Block(place, match["language"], match["text"], match["reason"]))
    return [block for block in found if block.language in languages]


def commands() -> list[tuple[str, list[str]]]:
    """Read every command of the documents: place and words, without prompt, settings and comment."""
    found = []
    for block in blocks("bash", "sh", "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if block.language == "console" and not line.startswith("$ "):
                continue
            for part in re.split(r"&&|;|\|", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    del words[0]
                if words:
                    found.append((f"{block.place} {' '.join(words)}", words))
    return found


PROGRAMS = blocks("python")
COMMANDS = commands()


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run this Python in ``folder``, with no setting of the user's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TINKER_")}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )


def test_readme_shows_a_program_and_commands() -> None:
    """The README has a program that is run here, and commands that are looked up here."""
    assert any(block.place.startswith("README.md") and block.reason is None for block in PROGRAMS)
    assert any(place.startswith("README.md") for place, _ in COMMANDS)


@pytest.mark.lesson("D21")
@pytest.mark.slow
@pytest.mark.parametrize("block", [pytest.param(one, id=one.place) for one in PROGRAMS if one.reason is None])
def test_program_runs(block: Block, tmp_path: Path) -> None:
    """A program copied from the documents runs to its end without an error or a warning."""
    program = tmp_path / "program.py"
    program.write_text(block.text, "utf-8")
    result = run(["-W", "error", str(program)], tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [pytest.param(one, id=one.place) for one in PROGRAMS if one.reason is not None]
)
def test_program_that_cannot_run_says_why(block: Block) -> None:
    """The reason shows in the report."""
    pytest.skip(str(block.reason))


@pytest.mark.parametrize("words", [pytest.param(words, id=place) for place, words in COMMANDS])
def test_command_exists(words: list[str], tmp_path: Path) -> None:
    """A command of the documents names a make target, a subcommand with its options, or a file that exist."""
    program, *arguments = words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
        assert all(re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE) for target in targets)
    elif program.rpartition("/")[2] == "tinker-actors":
        assert_options_exist(arguments, tmp_path)
    elif program.rpartition("/")[2].startswith("python"):
        scripts = [word for word in arguments if word.endswith(".py") and "/" in word]
        assert all((ROOT / script).is_file() for script in scripts)


def assert_options_exist(arguments: list[str], folder: Path) -> None:
    """Ask the command line for help on a command: it must know it, and list each option used."""
    command = []
    for word in arguments:
        if word.startswith("-"):
            break
        command.append(word)
    result = run(["-c", CLI, *command[:1], "--help"], folder)
    assert result.returncode == 0, result.stderr
    for option in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        assert re.search(rf"(?<!\S){option}\b", result.stdout), f"{option} is not an option of {command}"
