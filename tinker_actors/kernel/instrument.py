"""What the kernel tells an observer, as frozen facts.

An observer is a plain callable; None costs nothing. Its exceptions are logged and never reach an actor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

__all__ = ["ActorCrashed", "ActorEnded", "ActorReady", "KernelEvent", "Observer"]


@attrs.frozen
class ActorReady:
    """An incarnation has started and takes messages."""

    actor: str
    incarnation: int


@attrs.frozen
class ActorCrashed:
    """An incarnation raised.

    Attributes:
        cause: what it raised.
        delay: seconds until it is started again; None if it is not.
    """

    actor: str
    incarnation: int
    cause: BaseException
    delay: float | None


@attrs.frozen
class ActorEnded:
    """An actor has ended for good; `failed` if its supervisor gave it up."""

    actor: str
    incarnation: int
    failed: bool


KernelEvent: TypeAlias = ActorReady | ActorCrashed | ActorEnded
Observer: TypeAlias = Callable[[KernelEvent], None]
