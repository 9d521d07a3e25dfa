"""What the tests run on: interpreters, warnings, and the oldest releases that are admitted."""

from __future__ import annotations

import re
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import trio
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.mark.scenario(51)
def test_warnings_are_errors() -> None:
    """A deprecated call, or a coroutine nobody awaited, fails the test in which it happens."""
    assert PROJECT["tool"]["pytest"]["filterwarnings"] == ["error"]
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


@pytest.mark.scenario(51)
def test_the_running_releases_are_admitted() -> None:
    """Interpreter and trio are at least what pyproject.toml says, and the floor of trio has what the kernel calls."""
    assert sys.version_info >= (3, 11)
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    floors = {
        Requirement(line).name: Requirement(line).specifier for line in PROJECT["project"]["dependencies"]
    }
    assert str(floors["trio"]) == ">=0.34"
    assert Version(trio.__version__) in floors["trio"]


@pytest.mark.scenario(51)
def test_every_interpreter_that_is_named_has_a_target() -> None:
    """Each version among the classifiers is the main one or has a `make test-py...` of its own."""
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    targets = re.findall(r"^test-py(3)(\d+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    assert sorted(named) == sorted(["3.11", *(".".join(target) for target in targets)])
