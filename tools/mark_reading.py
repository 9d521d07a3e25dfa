"""Read which tests say that they prove something, by their marks: `@pytest.mark.rule("M3")` and the like.

A mark counts on a test, on its class, on one of its parameters, and as `pytestmark` of a class or module. Tests are
read, not run or imported, so that this takes no time and needs nothing installed.

A proof is a test that runs. What pytest would not collect is no test; and a test that is, or under some condition
may be, skipped or expected to fail proves nothing, whatever its marks say: `skip`, `skipif` and `xfail` as marks,
`pytest.skip()`, `pytest.xfail()` and `pytest.importorskip()` in the test, in a fixture of its file that it asks for,
or at the level of its module. With that, and a suite that passes, what is marked is proven.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

UNSURE_MARKS = frozenset({"pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"})
UNSURE_CALLS = frozenset({"pytest.skip", "pytest.xfail", "pytest.importorskip"})


class Proof(NamedTuple):
    """One marked test.

    Attributes:
        file: its file, from the root of the project.
        test: its name, after that of its class if it has one.
        named: mark to what the marks of that name give, once each.
        is_sure: it runs wherever the suite runs, and must pass.
    """

    file: str
    test: str
    named: Mapping[str, tuple[object, ...]]
    is_sure: bool

    @property
    def place(self) -> str:
        """How pytest calls it."""
        return f"{self.file}::{self.test}"


def read_proofs(root: Path, folders: Iterable[str], marks: Collection[str]) -> list[Proof]:
    """Read every test below these folders that has one of these marks, in order of file and line."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("test_*.py"))]
    return [
        proof
        for file in files
        for proof in proofs_in(file.read_text("utf-8"), file.relative_to(root).as_posix(), marks)
    ]


def proofs_in(source: str, file: str, marks: Collection[str]) -> list[Proof]:
    """Read the marked tests of one file."""
    module = ast.parse(source)
    fixtures = {node.name for node in module.body if isinstance(node, _Function) and _may_leave(node)}
    may_leave = any(
        _may_leave(node) for node in module.body if not isinstance(node, _Function | ast.ClassDef)
    )
    found = []
    for test, name, around in _tests(module.body, "", []):
        named = {mark: _named(around, mark) for mark in marks}
        if any(named.values()):
            asked = {argument.arg for argument in (*test.args.args, *test.args.kwonlyargs)}
            unsure = may_leave or _may_leave(test) or _has(around, UNSURE_MARKS) or asked & fixtures
            found.append(Proof(file, name, named, not unsure))
    return found


def _tests(
    body: Sequence[ast.stmt], above: str, marks: list[ast.expr]
) -> Iterator[tuple[_Function, str, list[ast.expr]]]:
    """Yield what pytest collects of a module or class: test, name, and the marks on it and around it."""
    marks = [*marks, *(node.value for node in body if isinstance(node, ast.Assign) and _is_pytestmark(node))]
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _tests(node.body, f"{above}{node.name}::", [*marks, *node.decorator_list])
        elif isinstance(node, _Function) and node.name.startswith("test"):
            yield node, above + node.name, [*marks, *node.decorator_list]


def _is_pytestmark(node: ast.Assign) -> bool:
    return any(isinstance(name, ast.Name) and name.id == "pytestmark" for name in node.targets)


def _named(nodes: Iterable[ast.expr], mark: str) -> tuple[object, ...]:
    """Return what the marks of one kind name, once each; what is no literal names nothing."""
    calls = [node for top in nodes for node in ast.walk(top) if isinstance(node, ast.Call)]
    named = [
        argument
        for call in calls
        if ast.unparse(call.func) == f"pytest.mark.{mark}"
        for argument in call.args
    ]
    return tuple(dict.fromkeys(n.value if isinstance(n, ast.Constant) else _source(n) for n in named))


def _source(node: ast.expr) -> str:
    return f"<{ast.unparse(node)}>"


def _has(nodes: Iterable[ast.AST], names: Collection[str]) -> bool:
    inner = [node for top in nodes for node in ast.walk(top) if isinstance(node, ast.Attribute)]
    return any(ast.unparse(node) in names for node in inner)


def _may_leave(node: ast.AST) -> bool:
    return _has([node], UNSURE_CALLS)
