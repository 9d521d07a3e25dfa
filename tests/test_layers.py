"""The direction of imports: the contracts of pyproject.toml hold, and each of them can break."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

import tinker_actors

ROOT = Path(__file__).parents[1]
PACKAGE = Path(tinker_actors.__file__).parent
CONFIG = ROOT / "pyproject.toml"
SETTINGS = tomllib.loads(CONFIG.read_text("utf-8"))["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract["name"] for contract in SETTINGS["contracts"]}
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

PLANTS = [
    ("layers", "actors/planted.py", "def later() -> None:\n    import tinker_actors.opening\n"),
    ("layers", "errors/local.py", "import tinker_actors.kernel\n"),
    ("layers", "planted_room.py", '"""A room that no layer names."""\n'),
    ("layers", "transport/planted.py", "import tinker_actors.local\n"),
    ("sans-io", "protocol/planted.py", "import trio\n"),
    ("sans-io", "wire/planted.py", "from httpx import Request\n"),
    ("kernel", "kernel/planted.py", "import tinker_actors.wire\n"),
    ("kernel", "kernel/planted.py", "import numpy\n"),
    ("local", "local/planted.py", "import tinker_actors.transport\n"),
    ("local", "local/planted.py", "import tinker_actors.actors\n"),
    ("rl", "rl/planted.py", "from tinker_actors.wire.input import Datum\n"),
    ("rl", "rl/planted.py", "def later() -> None:\n    import tinker_actors.actors.message\n"),
    ("http", "actors/planted.py", "import httpx\n"),
    ("http", "text/planted.py", "import h11\n"),
    ("served", "transport/planted.py", "import starlette\n"),
]


def lint_imports(package_parent: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over the package in ``package_parent``, with the contracts of pyproject.toml."""
    command = [sys.executable, "-c", LINT, "--no-logo", "--no-cache", "--config", str(CONFIG)]
    return subprocess.run(
        command, cwd=package_parent, capture_output=True, text=True, check=False, timeout=120
    )


def verdicts(output: str) -> dict[str, str]:
    """Read import-linter's report: contract id to KEPT or BROKEN."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    found = {}
    for contract, name in CONTRACTS.items():
        match = re.search(rf"^{re.escape(name)}[^\n]*\b(KEPT|BROKEN)\b", plain, re.MULTILINE)
        if match:
            found[contract] = match.group(1)
    return found


def test_every_contract_is_kept() -> None:
    """The package as it stands breaks none of the contracts, and import-linter judged every one."""
    result = lint_imports(PACKAGE.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    assert verdicts(result.stdout) == dict.fromkeys(CONTRACTS, "KEPT")


def test_every_contract_has_a_plant() -> None:
    """No contract is believed that was never seen to break."""
    assert {contract for contract, _, _ in PLANTS} == set(CONTRACTS)


@pytest.mark.parametrize(("contract", "path", "text"), PLANTS, ids=lambda value: value.split("\n")[0].strip())
def test_a_planted_import_breaks_its_contract(contract: str, path: str, text: str, tmp_path: Path) -> None:
    """A wrong import in a copy of the package is found by the contract that forbids it."""
    copy = tmp_path / "tinker_actors"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "models"))
    file = copy / path
    file.write_text((file.read_text("utf-8") if file.exists() else "") + text, "utf-8")
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert verdicts(result.stdout)[contract] == "BROKEN"


def test_only_rooms_above_the_facades_import_the_package_root() -> None:
    """The root imports the rooms; a room below it that imported the root would close a cycle."""
    graph = grimp.build_graph("tinker_actors", cache_dir=None)
    importers = graph.find_modules_that_directly_import("tinker_actors")
    rooms = {name.split(".")[1] for name in importers}
    assert rooms <= {"rl", "observe", "bridges", "testing", "cli", "__main__"}
