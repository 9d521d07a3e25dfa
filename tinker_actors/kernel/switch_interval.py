"""How often Python hands its lock to another thread.

Theory of operation. That is every 5 ms unless told otherwise. A thread with many short calls (numpy's, or a socket's)
asks for the lock after each of them, and would starve beside a loop that computes. While anybody has such a thread the
interval is shorter. It belongs to the whole process, so whoever wants it short is counted, in whatever thread, and the
last one to leave restores what was there before.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Generator

__all__ = ["SWITCH_INTERVAL", "short_switch_interval"]

SWITCH_INTERVAL = 0.0005  # seconds


class _SwitchInterval:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 0.0

    def shorten(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_INTERVAL)
            self._users += 1

    def restore(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                sys.setswitchinterval(self._before)


_switch_interval = _SwitchInterval()


@contextlib.contextmanager
def short_switch_interval() -> Generator[None]:
    """Make Python's threads take turns more often; the last one to leave restores what was there before."""
    _switch_interval.shorten()
    try:
        yield
    finally:
        _switch_interval.restore()
