"""What was there before is kept out of garbage collections.

Theory of operation. A full collection stops every thread for as long as it takes to look at each object that is alive,
and most of them are modules, classes and functions, which never become garbage: on a busy machine that is a tenth of a
second in which nothing moves. While anybody has something that must be on time, what was alive when the first one began
is left out (`gc.freeze`). It is freed all the same when its last reference goes; only cycles among these objects wait
for the last one to leave. A heap that the program itself has frozen before is left alone. The heap belongs to the
process, so whoever wants this is counted, in whatever thread.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Generator

__all__ = ["frozen_heap"]


class _Heap:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._is_ours = False

    def freeze(self) -> None:
        with self._lock:
            if self._users == 0 and gc.get_freeze_count() == 0:
                gc.freeze()
                self._is_ours = True
            self._users += 1

    def restore(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._is_ours:
                gc.unfreeze()
                self._is_ours = False


_heap = _Heap()


@contextlib.contextmanager
def frozen_heap() -> Generator[None]:
    """Keep what is alive now out of garbage collections, until the last one leaves."""
    _heap.freeze()
    try:
        yield
    finally:
        _heap.restore()
