"""What a full mailbox does with one more message, and how big messages are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, Literal, TypeAlias

import attrs

from tinker_actors.errors import InputError
from tinker_actors.kernel.border import call_user
from tinker_actors.kernel.bound import check_count
from tinker_actors.kernel.message import Message

__all__ = ["Coalesce", "MailboxSpec", "Overflow", "SizeOf"]

_LOG = logging.getLogger("tinker_actors.kernel")

SizeOf: TypeAlias = Callable[[Message[Any, Any]], int]


@attrs.frozen
class Coalesce:
    """Only the newest `tell` of a key stays in line, at the newest one's place; senders wait if it is full.

    Attributes:
        key: gives a message's key; None for messages that are not coalesced.
    """

    key: Callable[[Message[Any, Any]], Hashable]


Overflow: TypeAlias = Literal["block", "fail", "drop_new", "drop_old"] | Coalesce
"""`block`: senders wait in order. `fail`: they get `MailboxFull`. `drop_new`: the message that comes is dropped.
`drop_old`: the oldest that waits is dropped. The sender of a dropped `ask` or `submit` gets `Dropped`."""

_NAMES = ("block", "fail", "drop_new", "drop_old")


def _check_overflow(_: object, __: object, value: object) -> None:
    if not isinstance(value, Coalesce) and value not in _NAMES:
        raise InputError("overflow", value, f"must be one of {', '.join(_NAMES)}, or a Coalesce")


@attrs.frozen(kw_only=True)
class MailboxSpec:
    """How a mailbox is bounded.

    Attributes:
        capacity: messages it may hold, at least 1. There is no unbounded mailbox.
        max_bytes: bytes it may hold; None if only the count matters. A message that is larger than this is
            admitted when nothing else waits.
        size_of: a message's bytes; needed for `max_bytes`.
        overflow: what is done when it is full.

    Raises:
        InputError: a number out of its bounds, or one of `max_bytes` and `size_of` without the other.
    """

    capacity: int = 64
    max_bytes: int | None = None
    size_of: SizeOf | None = None
    overflow: Overflow = attrs.field(default="block", validator=_check_overflow)

    def __attrs_post_init__(self) -> None:
        check_count("capacity", self.capacity, 1)
        if self.max_bytes is not None:
            check_count("max_bytes", self.max_bytes, 1)
        if (self.max_bytes is None) is not (self.size_of is None):
            raise InputError("max_bytes", self.max_bytes, "goes with size_of: give both or neither")

    def measure(self, message: Message[Any, Any]) -> int:
        """Return a message's bytes; 0 if they do not count, or cannot be told."""
        if self.size_of is None:
            return 0
        try:
            return call_user(self.size_of, message)
        except Exception:  # noqa: BLE001 - a user's function must not keep a message out
            _LOG.exception("size_of failed on %s", type(message).__name__)
            return 0

    def key(self, message: Message[Any, Any]) -> Hashable:
        """Return the key under which a message is coalesced; None if it is not."""
        if not isinstance(self.overflow, Coalesce):
            return None
        try:
            return call_user(self.overflow.key, message)
        except Exception:  # noqa: BLE001 - as above
            _LOG.exception("the key of %s failed", type(message).__name__)
            return None
