"""What both fronts share: from a request to the plan of its answer, on trio's clock."""

from __future__ import annotations

import trio

from .reply import Held, ReplyPlan, ServedRequest
from .service import ScriptedService

__all__ = ["Front"]


class Front:
    """Asks a service, and waits with what it holds. The service's time begins with its first front."""

    def __init__(self, service: ScriptedService) -> None:
        self._service = service
        self._changed = trio.Event()
        self._origin: float | None = None

    @property
    def now(self) -> float:
        """Seconds since the service began."""
        if self._origin is None:
            self._origin = self._service.begin(trio.current_time())
            self._service.listen(self._wake)
        return trio.current_time() - self._origin

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def plan(self, request: ServedRequest) -> ReplyPlan:
        """Return the plan of an answer, and wait while it is held; the plan's own delay is left to the caller."""
        step = self._service.handle(request, self.now)
        while isinstance(step, Held):
            changed = self._changed
            with trio.move_on_at(self._origin_plus(step.until)) as waiting:
                await changed.wait()
            # The sum above is rounded: what is due at a time must not be asked for a hair before it, again and again.
            step = step.resume(max(self.now, step.until) if waiting.cancelled_caught else self.now)
        return step

    def _origin_plus(self, until: float) -> float:
        assert self._origin is not None  # `now` was asked for
        return self._origin + until
