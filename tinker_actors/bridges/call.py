"""One call into the trio loop of a portal: a future for the thread that waits, a task for the loop."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from tinker_actors.errors import PortalClosed

__all__ = ["Call"]

T = TypeVar("T")


class Call(concurrent.futures.Future[T]):
    """A call that is under way in a portal.

    It is a `concurrent.futures.Future`, with one difference: `cancel` asks the trio task to end, and the future is
    done when that has cleaned up. It is then cancelled, unless the task gave a value or an error all the same.
    Callbacks run in the portal's thread.

    Args:
        function: what the task runs.
        soon: has a plain function called in the loop's thread; raises PortalClosed when the loop has ended.
    """

    def __init__(
        self, function: Callable[[], Awaitable[T]], soon: Callable[[Callable[[], object]], None]
    ) -> None:
        super().__init__()
        self._function = function
        self._soon = soon
        self._scope = trio.CancelScope()
        self._begun = False

    def cancel(self) -> bool:
        """Ask the trio task to end; False if the call has ended otherwise."""
        if self.done():
            return self.cancelled()
        try:
            self._soon(self._cancel_in_trio)
        except PortalClosed as error:
            self.refuse(error)
        return True

    def _cancel_in_trio(self) -> None:
        self._scope.cancel(reason="its future was cancelled")
        if not self._begun:
            self._settle_cancelled()

    async def run(self) -> None:
        """Run the function, in the task."""
        self._begun = True
        if self.done():
            return
        try:
            with self._scope:
                value = await self._function()
                self.set_result(value)
        except trio.Cancelled:
            self.refuse(PortalClosed("the portal was closed before the call had ended"))
            raise
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised again in the thread that waits
            self.set_exception(error)
        if not self.done():
            self._settle_cancelled()

    def refuse(self, error: PortalClosed) -> None:
        """Settle the call with this error, if nothing else has; in any thread."""
        error.started = self._begun
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.set_exception(error)

    def _settle_cancelled(self) -> None:
        if super().cancel():
            self.set_running_or_notify_cancel()  # `concurrent.futures.wait` wants to hear of it
