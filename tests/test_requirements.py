"""Each requirement has a test that says it proves it, and each mark names a requirement that there is."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
REQUIREMENTS: dict[str, str] = tomllib.loads((TESTS / "requirements.toml").read_text("utf-8"))["requirements"]


def marks(file: Path) -> Iterator[tuple[str, str]]:
    """Yield requirement and test for every mark `requirement` in a file."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Call):
            continue
        decorators = [node] if isinstance(node, ast.Call) else node.decorator_list
        for call in decorators:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.requirement":
                name = getattr(node, "name", file.name)
                yield from ((str(ast.literal_eval(argument)), name) for argument in call.args)


PROVEN = {requirement for file in TESTS.rglob("test_*.py") for requirement, _ in marks(file)}


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
    """A requirement of the list is named by a test."""
    assert sorted(set(REQUIREMENTS) - PROVEN) == []
