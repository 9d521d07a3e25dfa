"""The duty to answer a message, as a thing that can be kept and passed on."""

from __future__ import annotations

import contextlib
from typing import Any, Generic, TypeVar

import trio

from tinker_actors.errors import InFlightLost
from tinker_actors.kernel.envelope import Envelope

__all__ = ["ReplyToken"]

R = TypeVar("R")


class ReplyToken(Generic[R]):
    """The right, and the duty, to answer one message after its handler has returned.

    A handler takes it from `Context.detach_reply` and returns it in place of a reply. If the incarnation (or,
    for a surviving token, the actor) ends before it was used, or if nobody keeps it any more, the runtime
    answers `InFlightLost`.
    """

    __slots__ = ("__weakref__", "_actor", "_loop", "_registry", "envelope")

    def __init__(self, envelope: Envelope[R], registry: dict[Envelope[Any], None], actor: str = "") -> None:
        self.envelope: Envelope[R] = envelope
        self._actor = actor
        self._registry = registry
        self._loop = trio.lowlevel.current_trio_token()
        registry[envelope] = None

    @property
    def settled(self) -> bool:
        """Whether the message has its outcome."""
        return self.envelope.settled

    def belongs_to(self, envelope: Envelope[Any]) -> bool:
        """Whether it is the answer to this message."""
        return self.envelope is envelope

    @trio.lowlevel.enable_ki_protection
    def settle(self, value: R) -> bool:
        """Answer with a value; False, and nothing else, if there was an answer already."""
        self._registry.pop(self.envelope, None)
        return self.envelope.settle(value)

    @trio.lowlevel.enable_ki_protection
    def fail(self, error: Exception) -> bool:
        """Answer with an error; False, and nothing else, if there was an answer already."""
        self._registry.pop(self.envelope, None)
        return self.envelope.fail(error)

    def __del__(self) -> None:
        if not self.envelope.settled:
            with contextlib.suppress(trio.RunFinishedError):  # then nobody is left who could wait
                # The collector may run in any thread, so the loop is asked to do it.
                self._loop.run_sync_soon(_forsake, self.envelope, self._registry, self._actor)


def _forsake(envelope: Envelope[Any], registry: dict[Envelope[Any], None], actor: str) -> None:
    registry.pop(envelope, None)
    if not envelope.settled:
        text = f"{actor} dropped the reply token of {type(envelope.message).__name__} without an answer"
        envelope.fail(InFlightLost(text, actor=actor, started=True), reason="lost")
