"""The border between the kernel and users' functions: what may not cross it, and where Ctrl-C may strike.

Theory of operation. Python raises KeyboardInterrupt between any two instructions. Between "the message has
left the queue" and "its outcome is settled", that would leave a caller waiting for ever. trio decides by the
stack: the innermost function that is marked says whether the interrupt is raised here, or at the main task's
next checkpoint. The kernel's functions that change several things at once are marked as protected, and every
call of a user's function goes through one of the two below, which take the protection off again.

A `Cancelled` belongs to the scope that made it. If a user's function stores one and raises it in another
task, trio takes it for that task's own, and ends the task without any error: work is lost in silence. So a
`Cancelled` that no scope around the call has caused is turned into an error where it crosses the border.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import trio

from tinker_actors.errors import ActorError

__all__ = ["await_user", "call_user", "own_cancellation"]

P = ParamSpec("P")
T = TypeVar("T")


@trio.lowlevel.disable_ki_protection
async def await_user(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Await a user's function. A checkpoint if the function is one.

    Raises:
        ActorError: it raised a `Cancelled` that belongs to another task.
        BaseException: whatever else it raised.
    """
    try:
        return await function(*args, **kwargs)
    except trio.Cancelled as error:  # noqa: ASYNC103 - a stray one must not go on
        stray = own_cancellation(error)
        if stray is None:
            raise
    raise stray


def own_cancellation(error: trio.Cancelled) -> ActorError | None:
    """Return what to raise in place of a `Cancelled`; None if it was caused by a scope around this task."""
    if trio.current_effective_deadline() == -math.inf:
        return None
    return ActorError(f"a Cancelled of another task was raised here: {error}")


@trio.lowlevel.disable_ki_protection
def call_user(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a user's function."""
    return function(*args, **kwargs)
