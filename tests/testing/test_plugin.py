from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import trio

import tinker_actors.testing
from tinker_actors.testing import FaultPlan, Probe, open_test_system, plugin

USER_TESTS = """
import pytest
from tinker_actors.testing import TestSystem, run_virtual

def test_kit(test_system, probe, fault_plan):
    async def run():
        async with test_system() as system:
            assert isinstance(system, TestSystem)
            await probe.start(system.root)
            await system.start(fault_plan.wrap(probe.factory), "faulty")
            await probe.expect_none(within=3600)
    run_virtual(run)
"""


def run_python(*arguments: str, folder: Path) -> str:
    """Run this Python, every warning being an error, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pytest_finds_the_plugin() -> None:
    """The installed distribution names it where pytest looks."""
    (entry,) = metadata.entry_points(group="pytest11", name="tinker_actors")
    assert entry.load() is plugin


@pytest.mark.slow
@pytest.mark.parametrize("off", [[], ["-p", "no:trio"], ["-p", "no:trio", "-p", "no:hypothesispytest"]])
def test_fixtures_work_in_a_project_of_the_users(off: list[str], tmp_path: Path) -> None:
    """With and without pytest-trio and Hypothesis' plugin, no settings, and no warning; `TestSystem` is no test."""
    (tmp_path / "test_user.py").write_text(USER_TESTS, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    assert "1 passed" in run_python("-m", "pytest", "-q", *off, folder=tmp_path)


def test_the_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    """Projects that only have tinker_actors installed pay nothing for it."""
    heavy = "('trio', 'attrs', 'hypothesis', 'pytest_trio', 'tinker_actors.kernel', 'tinker_actors.errors')"
    code = (
        f"import sys, tinker_actors.testing.plugin; print([name for name in {heavy} if name in sys.modules])"
    )
    loaded = eval(run_python("-c", f"import pytest; {code}", folder=tmp_path))
    before = eval(
        run_python(
            "-c", f"import sys, pytest; print([n for n in {heavy} if n in sys.modules])", folder=tmp_path
        )
    )
    assert loaded == before


def test_the_kit_needs_no_pytest(tmp_path: Path) -> None:
    """All its names load without pytest; only the plugin imports it."""
    hidden = "import sys; sys.modules['pytest'] = None"
    code = "import tinker_actors.testing as kit; [getattr(kit, name) for name in kit.__all__]"
    run_python("-c", f"{hidden}; {code}", folder=tmp_path)


def test_every_name_loads() -> None:
    """Each lazy name leads to the thing of this name, and an unknown one is an attribute error."""
    names = tinker_actors.testing.__all__
    assert names == sorted(names) == dir(tinker_actors.testing)
    assert all(getattr(tinker_actors.testing, name).__name__ == name for name in names)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tinker_actors.testing.nothing  # noqa: B018 - reading it is the test


async def test_fixtures_in_a_trio_test(
    test_system: Any, probe: Any, fault_plan: Any, cast: Any, autojump_clock: trio.abc.Clock
) -> None:
    """They are plain ones, fresh for each test, so a test on virtual time uses them like any other."""
    assert test_system is open_test_system
    assert isinstance(probe, Probe)
    assert isinstance(fault_plan, FaultPlan)
    async with test_system() as system:
        ref = await system.start(fault_plan.delay(3600).wrap(cast.CounterActor))
        assert await ref.ask(cast.Add(1)) == 1


@pytest.mark.slow
def test_the_pages_example_passes(tmp_path: Path) -> None:
    """The test file of docs/kernel/testing.md passes as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "kernel" / "testing.md").read_text("utf-8")
    (program,) = re.findall(r"^```python\n(# test_counter\.py\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "test_counter.py").write_text(program, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n", "utf-8")
    assert "2 passed" in run_python("-m", "pytest", "-q", folder=tmp_path)
