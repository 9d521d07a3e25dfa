"""The runner, loaded by its path: test folders are no packages."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load(name: str) -> ModuleType:
    """Load a module of this folder, to be imported as `chaos_<name>`."""
    spec = importlib.util.spec_from_file_location(f"chaos_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def runner() -> ModuleType:
    """Give the module that plays programs from seeds."""
    load("world")
    return load("runner")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Log nothing: to format the traceback of every crash would take most of the time."""
    caplog.set_level(logging.CRITICAL + 1, logger="tinker_actors.kernel")
