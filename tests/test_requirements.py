"""Each requirement, and each lesson, has a test that says it proves it; each mark names one that there is."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
ASKED = tomllib.loads((TESTS / "requirements.toml").read_text("utf-8"))
LEARNED = tomllib.loads((TESTS / "lessons.toml").read_text("utf-8"))
REQUIREMENTS: dict[str, str] = ASKED["requirements"]
LESSONS: dict[str, str] = LEARNED["lessons"]
IMPOSSIBLE: dict[str, str] = LEARNED["impossible"]
LATER: frozenset[str] = frozenset([*ASKED["later"], *LEARNED["later"]])


def marks(file: Path, mark: str = "requirement") -> Iterator[tuple[str, str]]:
    """Yield id and test for every such mark in a file."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Call):
            continue
        decorators = [node] if isinstance(node, ast.Call) else node.decorator_list
        for call in decorators:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == f"pytest.mark.{mark}":
                name = getattr(node, "name", file.name)
                yield from ((str(ast.literal_eval(argument)), name) for argument in call.args)


PROVEN = {requirement for file in TESTS.rglob("test_*.py") for requirement, _ in marks(file)}
SHOWN = {lesson for file in TESTS.rglob("test_*.py") for lesson, _ in marks(file, "lesson")}


def test_marks_are_found(tmp_path: Path) -> None:
    """A mark counts on a test, on a class and in a module's pytestmark."""
    file = tmp_path / "test_example.py"
    file.write_text(
        'pytestmark = pytest.mark.requirement("R1")\n'
        '@pytest.mark.requirement("R2", "R3")\nasync def test_it(): ...\n'
        '@pytest.mark.requirement("R4")\nclass TestIt: ...\n'
    )
    assert {requirement for requirement, _ in marks(file)} == {"R1", "R2", "R3", "R4"}


def test_every_mark_names_a_requirement() -> None:
    """A requirement that is named by a test stands in the list."""
    assert PROVEN - set(REQUIREMENTS) == set()


def test_every_requirement_is_proven() -> None:
    """A requirement of the list is named by a test, or stands among those that are still to come."""
    assert sorted(set(REQUIREMENTS) - PROVEN - LATER) == []


def test_what_is_proven_is_not_still_to_come() -> None:
    """What has a test does not stand in the lists of what is still to come."""
    assert sorted((PROVEN | SHOWN) & LATER) == []


def test_every_lesson_is_learned() -> None:
    """A lesson has a test, or a line that says why it cannot occur; never both, and no other lesson is named."""
    assert sorted(set(LESSONS) - SHOWN - set(IMPOSSIBLE) - LATER) == []
    assert sorted((SHOWN | set(IMPOSSIBLE)) - set(LESSONS)) == []
    assert sorted(SHOWN & set(IMPOSSIBLE)) == []
