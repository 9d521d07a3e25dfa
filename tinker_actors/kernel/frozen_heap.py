"""What was there before is kept out of garbage collections.

Theory of operation. A full collection stops every thread for as long as it takes to look at each object that is alive,
and most of them are modules, classes and functions, which never become garbage: on a busy machine that is a tenth of a
second in which nothing moves. While anybody has something that must be on time, what was alive when the first one began
is left out (`gc.freeze`). It is freed all the same when its last reference goes; only cycles among these objects wait
for the last one to leave. A heap that the program itself has frozen before is left alone. The heap belongs to the
process, so whoever wants this shares it with the others.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator
from contextlib import AbstractContextManager

from tinker_actors.kernel.shared import SharedContext

__all__ = ["frozen_heap"]


@contextlib.contextmanager
def _frozen() -> Generator[None]:
    is_ours = gc.get_freeze_count() == 0
    if is_ours:
        gc.freeze()
    try:
        yield
    finally:
        if is_ours:
            gc.unfreeze()


_shared = SharedContext(_frozen)


def frozen_heap() -> AbstractContextManager[None]:
    """Keep what is alive now out of garbage collections, until the last one leaves."""
    return _shared()
