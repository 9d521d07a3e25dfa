"""The test kit as fixtures of pytest; pytest loads this module wherever tinker_actors is installed.

It imports nothing but pytest until a fixture is used, and it needs no pytest-trio: the fixtures are plain ones, so
a test may be run by pytest-trio, by `run_virtual`, or by anything else that runs trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tinker_actors.testing.crash.fixture import CrashPoints
    from tinker_actors.testing.fault import FaultPlan
    from tinker_actors.testing.probe import Probe
    from tinker_actors.testing.system import TestSystem


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes explorations thorough."""
    parser.getgroup("tinker_actors").addoption(
        "--crash-points",
        action="store_true",
        help="tests with the fixture crash_points crash at every I/O point, not at a few that are drawn",
    )


@pytest.fixture
def crash_points(request: pytest.FixtureRequest) -> CrashPoints:
    """Give what runs a programme once for each point at which it can crash; for plain tests, not for async ones."""
    from tinker_actors.testing.crash.fixture import CrashPoints

    return CrashPoints(full=bool(request.config.getoption("--crash-points")))


@pytest.fixture
def test_system() -> Callable[..., AbstractAsyncContextManager[TestSystem]]:
    """Give `open_test_system`, to be used in `async with`."""
    from tinker_actors.testing.system import open_test_system

    return open_test_system


@pytest.fixture
def probe() -> Probe:
    """Give a fresh probe, not started yet: `await probe.start(system.root)`."""
    from tinker_actors.testing.probe import Probe

    return Probe()


@pytest.fixture
def fault_plan() -> FaultPlan:
    """Give an empty fault plan."""
    from tinker_actors.testing.fault import FaultPlan

    return FaultPlan()
