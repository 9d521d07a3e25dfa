"""Ctrl-C and the kernel: it may strike users' code anywhere, the kernel's own code nowhere.

Theory of operation. Python raises KeyboardInterrupt between any two instructions. Between "the message has left
the queue" and "its outcome is settled", that would leave a caller waiting for ever. trio decides by the stack:
the innermost function that is marked says whether the interrupt is raised here, or at the main task's next
checkpoint. The kernel's functions that change several things at once are marked as protected, and every call of
a user's function goes through one of the two below, which take the protection off again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import trio

__all__ = ["call_exposed", "exposed"]

P = ParamSpec("P")
T = TypeVar("T")


@trio.lowlevel.disable_ki_protection
async def exposed(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await a user's function so that Ctrl-C may interrupt it. A checkpoint if the function is one."""
    return await function(*args, **kwargs)


@trio.lowlevel.disable_ki_protection
def call_exposed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a user's function so that Ctrl-C may interrupt it."""
    return function(*args, **kwargs)
