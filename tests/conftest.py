"""What every test starts from: no settings of the user's, no chance, no deadline on the real clock."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW_COUNT = "TINKER_ACTORS_SLOW_COUNT"
"""At most so many values in each slow test that tries several; unset means all of them."""

SWITCHES = frozenset({SLOW_COUNT, "TINKER_ACTORS_REQUIRE_CHECKERS"})
"""Settings of the tests themselves; every other TINKER_ variable belongs to the user and is hidden."""

# The same examples in every run, and no verdict by the clock: a test that fails, fails for everybody.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the user's own service, key and settings, so that no test can reach a real service."""
    for name in list(os.environ):
        if name.startswith("TINKER_") and name not in SWITCHES:
            monkeypatch.delenv(name)


PURE = frozenset({"wire", "protocol"})
"""Rooms that do no I/O: their tests need no event loop."""


@pytest.fixture(autouse=True)
def no_event_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to start an event loop in a test of a room that does no I/O."""
    if request.path.relative_to(Path(__file__).parent).parts[0] not in PURE:
        return

    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a test of a room that does no I/O starts an event loop")

    if request.node.get_closest_marker("trio"):  # pytest-trio's own loop
        refuse()
    for owner, name in ((trio, "run"), (asyncio, "run"), (asyncio, "new_event_loop")):
        monkeypatch.setattr(owner, name, refuse)


@pytest.fixture
def slow_count() -> Callable[[int], int]:
    """Say how many of ``full`` values a slow test tries: no more than TINKER_ACTORS_SLOW_COUNT."""
    limit = os.environ.get(SLOW_COUNT)
    return lambda full: full if limit is None else min(full, int(limit))
