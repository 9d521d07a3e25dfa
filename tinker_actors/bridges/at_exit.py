"""What is still open when the program ends is closed then.

Theory of operation. `atexit` is too late for that: Python calls its functions when all threads are joined, and then
starts no new ones, which clean-up may need. `concurrent.futures` has the same problem, and the same answer: the
functions that `threading` calls when the main thread has ended, last registered first, before it joins the others.
Python 3.12.0 to 3.12.2 start no thread even then; what needs one has to be closed by the program itself.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - registers itself, so that its threads still work when ours clean up
import functools
import os
import threading
import traceback
from collections.abc import Callable

__all__ = ["close_at_exit", "closed"]

Close = Callable[[], object]

_OPEN: dict[Close, int] = {}  # in the order of opening; to the process that opened it


def close_at_exit(close: Close) -> None:
    """Call this function at the end of the program, unless it is taken back by `closed`.

    Raises:
        RuntimeError: the program is ending already.
    """
    _register()
    _OPEN[close] = os.getpid()


def closed(close: Close) -> None:
    """Take the function back."""
    _OPEN.pop(close, None)


@functools.cache
def _register() -> None:
    # Private, and there since 3.9; without it, atexit serves programs that need no new thread to clean up.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_close_all)


def _close_all() -> None:
    while _OPEN:
        close, process = _OPEN.popitem()
        if process != os.getpid():
            continue  # what was open before a fork is its parent's to close
        try:
            close()
        except Exception:  # noqa: BLE001 - there is nobody to raise it to, and others are to be closed as well
            traceback.print_exc()
