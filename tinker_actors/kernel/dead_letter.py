"""Dead letters: what was lost, and why. No message disappears without a trace.

Theory of operation. One `DeadLetters` serves a whole tree. It counts by reason, keeps the newest letters (without
their messages, which may be large), tells subscribers at once, and logs the first letter of each reason and
then one line for every doubling, so that a flood of them stays readable.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import attrs
import trio

from tinker_actors.kernel.border import call_user
from tinker_actors.kernel.message import Message

__all__ = ["DeadLetter", "DeadLetters", "Reason"]

_LOG = logging.getLogger("tinker_actors.kernel")
_KEPT = 1000

Reason: TypeAlias = Literal[
    "stopped",
    "dropped",
    "coalesced",
    "expired",
    "unhandled",
    "failed",
    "crashed",
    "lost",
    "poison",
    "late_reply",
    "duplicate_reply",
    "unobserved",
]
"""Why a letter is dead.

`stopped`: nobody waits for it and the actor stopped before it began. `dropped`: by the overflow policy.
`coalesced`: a newer one of its key took over. `expired`: its deadline passed before it began. `unhandled`: no
handler for its type. `failed`, `crashed`, `lost`: nobody waits for it and its handler raised a declared error,
crashed, or was ended with its incarnation. `poison`: it crashed its actor too often. `late_reply`,
`duplicate_reply`: not the message but an answer to it was lost. `unobserved`: its `Pending` was thrown away
and it failed.
"""


@attrs.frozen
class DeadLetter:
    """One loss.

    Attributes:
        actor: path of the actor it was for.
        reason: see `Reason`.
        kind: name of the message's type.
        seq: its place in line; -1 if it never had one.
        at: trio time in seconds.
        message: the message; None in `DeadLetters.recent`, which would keep it alive.
    """

    actor: str
    reason: Reason
    kind: str
    seq: int
    at: float
    message: Message[Any, Any] | None = None


class DeadLetters:
    """The dead letters of a tree; `observe` is called with each, and must not raise."""

    def __init__(self, observe: Callable[[DeadLetter], None]) -> None:
        self._observe = observe
        self._recent: deque[DeadLetter] = deque(maxlen=_KEPT)
        self._counts: Counter[str] = Counter()
        self._subscribers: list[Callable[[DeadLetter], None]] = []

    @property
    def recent(self) -> tuple[DeadLetter, ...]:
        """The newest letters, at most 1000, oldest first, without their messages."""
        return tuple(self._recent)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many there were of each reason."""
        return MappingProxyType(self._counts)

    @contextlib.contextmanager
    def subscribe(self, callback: Callable[[DeadLetter], None]) -> Generator[None]:
        """Call `callback` with every letter, message included; what it raises is logged."""
        self._subscribers.append(callback)
        try:
            yield
        finally:
            self._subscribers.remove(callback)

    @trio.lowlevel.enable_ki_protection
    def bury(self, actor: str, message: Message[Any, Any], seq: int, reason: Reason) -> None:
        """Take note of a loss."""
        letter = DeadLetter(actor, reason, type(message).__name__, seq, trio.current_time(), message)
        self._counts[reason] += 1
        self._recent.append(attrs.evolve(letter, message=None))
        self._observe(letter)
        count = self._counts[reason]
        if count & (count - 1) == 0:  # 1, 2, 4, 8, ...
            _LOG.warning("dead letter (%s, number %d): %s for %s", reason, count, letter.kind, actor)
        for callback in list(self._subscribers):
            try:
                call_user(callback, letter)
            except Exception:  # noqa: BLE001 - a user's function must not end an actor
                _LOG.exception("a subscriber of dead letters failed on %r", letter)
