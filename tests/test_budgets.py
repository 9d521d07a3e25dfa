"""The sizes of the house: short files, short functions, no cycle of imports, no room for odds and ends."""

from __future__ import annotations

import ast
import graphlib
import math
import statistics
from pathlib import Path

import grimp

import tinker_actors

ROOT = Path(__file__).parents[1]
PACKAGE = Path(tinker_actors.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(
    file for room in ("tests", "examples", "tools", "benchmarks") for file in (ROOT / room).rglob("*.py")
)

MAX_FILE_LINES = 600
MEDIAN_FUNCTION_LINES = 10
P90_FUNCTION_LINES = 40
MAX_FUNCTION_LINES = 80
NAMES_OF_DRAWERS = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "base", "misc"}


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's docstring: explaining more must not cost anything."""
    if ast.get_docstring(function, clean=False) is None:
        return 0
    return function.body[0].end_lineno - function.body[0].lineno + 1


def function_lengths() -> dict[str, int]:
    """Measure every function of the package, from ``def`` to its last line, without its docstring."""
    lengths = {}
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{module.relative_to(PACKAGE)}:{node.lineno} {node.name}"
                lengths[place] = node.end_lineno - node.lineno + 1 - docstring_lines(node)
    return lengths


def test_no_file_is_longer_than_the_limit() -> None:
    """A file that outgrows 600 lines hides a room that is missing."""
    lines = {str(file): len(file.read_text("utf-8").splitlines()) for file in [*MODULES, *SCRIPTS]}
    assert {name: count for name, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    """Half of the functions fit in 10 lines, nine in ten in 40, and none is longer than 80."""
    lengths = function_lengths()
    ordered = sorted(lengths.values())
    too_long = {place: length for place, length in lengths.items() if length > MAX_FUNCTION_LINES}
    assert too_long == {}
    assert statistics.median(ordered) <= MEDIAN_FUNCTION_LINES
    assert ordered[math.ceil(0.9 * len(ordered)) - 1] <= P90_FUNCTION_LINES


def test_every_test_says_what_it_promises() -> None:
    """Each test has a docstring: a failure is read by its promise."""
    silent = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                silent += [] if ast.get_docstring(node) else [f"{file.name}:{node.lineno} {node.name}"]
    assert silent == []


def test_no_import_cycle() -> None:
    """The modules can be put in an order in which each imports only earlier ones."""
    graph = grimp.build_graph("tinker_actors", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    order = list(graphlib.TopologicalSorter(imports).static_order())
    assert set(order) == graph.modules
    assert len(order) >= len(MODULES)


def test_no_module_is_a_drawer() -> None:
    """A module is named after what it holds, never after nothing in particular."""
    names = [module.relative_to(PACKAGE).with_suffix("") for module in MODULES]
    parts = {part.strip("_") for name in names for part in name.parts}
    assert parts & NAMES_OF_DRAWERS == set()
