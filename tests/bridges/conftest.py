"""What the tests of the bridges start from: real threads and real loops, and Ctrl-C as Python has it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.bridges.portals import portal_threads


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also where the tests run in the background and it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Each test begins and ends without a portal's thread."""
    assert portal_threads() == []
    yield
    assert portal_threads() == []
