"""A context that many are in at once, and that is entered once: for what belongs to the whole process.

Theory of operation. Whoever is in it is counted, in whatever thread. The first one enters the context itself, and the
last one leaves it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager

__all__ = ["SharedContext"]


class SharedContext:
    """Calling it gives a context manager, as often as it is wanted.

    Args:
        make: gives the context itself, each time that somebody comes and nobody is there.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._users = 0
        self._entered = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Generator[None]:
        """Be in the context, with all others."""
        with self._lock:
            if self._users == 0:
                self._entered.enter_context(self._make())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._entered.close()
