"""How often Python hands its lock to another thread.

Theory of operation. That is every 5 ms unless told otherwise. A thread with many short calls (numpy's, or a socket's)
asks for the lock after each of them, and would starve beside a loop that computes. While anybody has such a thread the
interval is shorter. It belongs to the whole process, so whoever wants it short shares it with the others.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager

from tinker_actors.kernel.shared import SharedContext

__all__ = ["SWITCH_INTERVAL", "short_switch_interval"]

SWITCH_INTERVAL = 0.0005  # seconds


@contextlib.contextmanager
def _short() -> Generator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


_shared = SharedContext(_short)


def short_switch_interval() -> AbstractContextManager[None]:
    """Make Python's threads take turns more often; the last one to leave restores what was there before."""
    return _shared()
