"""What mypy and pyright must accept, and what they must refuse.

The files of tests/typing/ are checked, never run. In a file named ``*_errors.py`` a comment on the line says
what is expected there, ``# E: mypy[arg-type] pyright[reportArgumentType]``; any other finding, or a missing
one, is a failure. All other files must be clean. The checkers come with the extra ``check``: `make types` and
`make test-slow` install it. Where TINKER_ACTORS_REQUIRE_CHECKERS is set, a missing checker is a failure.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "typing"
FILES = sorted(FOLDER.glob("*.py"))
EXPECTED = re.compile(r"# E: (.*)$", re.MULTILINE)
FINDING = re.compile(r"(mypy|pyright)\[([\w-]+)\]")

Finding = tuple[str, int, str]
"""File name, line counted from 1, code of the rule."""

pytestmark = pytest.mark.slow


def expected(checker: str) -> set[Finding]:
    """Read what the comments of all files expect of one checker."""
    found = set()
    for file in FILES:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            comment = EXPECTED.search(line)
            codes = [code for name, code in FINDING.findall(comment[1]) if name == checker] if comment else []
            found |= {(file.name, number, code) for code in codes}
    return found


def run_checker(checker: str, *arguments: str) -> str:
    """Run a checker of this environment over the files and give what it printed."""
    if importlib.util.find_spec(checker) is None:
        reason = f"{checker} is not installed: `make types` and `make test-slow` install it"
        if os.environ.get("TINKER_ACTORS_REQUIRE_CHECKERS"):
            pytest.fail(reason)
        pytest.skip(reason)
    command = [sys.executable, "-m", checker, *arguments]
    result = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode in {0, 1}, result.stdout + result.stderr
    return result.stdout


def test_mypy_finds_exactly_what_is_wrong(tmp_path: Path) -> None:
    """Under --strict, mypy reports each marked line with its code and nothing else."""
    options = ["--strict", "--config-file=", "--output=json", f"--cache-dir={tmp_path}"]
    lines = run_checker("mypy", *options, *map(str, FILES)).splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    errors = [record for record in records if record["severity"] == "error"]
    found = {(Path(error["file"]).name, error["line"], error["code"]) for error in errors}
    assert found == expected("mypy"), errors


def test_pyright_finds_exactly_what_is_wrong(tmp_path: Path) -> None:
    """In strict mode, pyright reports each marked line with its rule and nothing else."""
    config = tmp_path / "pyrightconfig.json"
    folder = os.path.relpath(FOLDER, tmp_path)  # pyright takes no absolute path here
    config.write_text(json.dumps({"typeCheckingMode": "strict", "include": [folder]}), "utf-8")
    options = ["--outputjson", "--pythonpath", sys.executable, "--project", str(config)]
    report = json.loads(run_checker("pyright", *options))
    errors = report["generalDiagnostics"]
    places = [(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in errors]
    found = {(*place, error["rule"]) for place, error in zip(places, errors, strict=True)}
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    assert found == expected("pyright"), errors


def test_only_files_of_errors_expect_errors() -> None:
    """Files of correct use mark no line, and files of wrong use mark at least one for each checker."""
    for file in FILES:
        comments = EXPECTED.findall(file.read_text("utf-8"))
        marked = {name for comment in comments for name, _ in FINDING.findall(comment)}
        assert marked == ({"mypy", "pyright"} if file.stem.endswith("_errors") else set()), file.name
    assert FILES
