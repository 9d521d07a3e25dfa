"""Samples that nobody waits for any more: telling the service, if it wants to know. Pure.

The service says whether it does, and how many it takes at once (`client/dynamic_config`). It is a courtesy: what
cannot be told is dropped. Facts: tinker 0.38.0 lib/internal_client_holder.py.
"""

from __future__ import annotations

import attrs

__all__ = ["CancelQueue"]

_MAX_QUEUED = 10_000  # a service that answers none of them must not fill the memory


@attrs.define(eq=False)
class CancelQueue:
    """Promises that are to be cancelled.

    Attributes:
        enabled: the service wants to be told.
        max_batch: how many are told at once.
        dropped: how many were forgotten because there were too many.
    """

    enabled: bool = False
    max_batch: int = 64
    dropped: int = 0
    _ids: dict[str, None] = attrs.field(factory=dict[str, None])

    def add(self, request_id: str) -> bool:
        """Take in a promise; return whether it is to be told."""
        if not self.enabled:
            return False
        if len(self._ids) >= _MAX_QUEUED:
            self.dropped += 1
            return False
        self._ids[request_id] = None
        return True

    def take(self) -> tuple[str, ...]:
        """Return the next batch, oldest first; empty if there is none."""
        batch = tuple(self._ids)[: max(1, self.max_batch)]
        for request_id in batch:
            del self._ids[request_id]
        return batch
