"""What a model's line asks of who looks whether the model is what it should be; see `actors.verifying`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tinker_actors.actors.submission import Accepted
from tinker_actors.protocol.journal import Record
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["Watcher"]


class Watcher(Protocol):
    """Looks whether a model is what it should be; each may end the incarnation."""

    @property
    def suspicious(self) -> bool:
        """Whether the service may have been restarted since anybody has made sure."""
        ...

    @property
    def knows_creation(self) -> bool:
        """Whether a rollback shows also in the first step after the latest saved state, as it leads to the creation."""
        ...

    async def check(self, excused: Callable[[], bool] = ...) -> None:
        """Make sure that it was not rolled back, if that may have been, and as long as one is not excused."""
        ...

    def doubt(self) -> None:
        """Let what was looked at count for nothing: the model had more than was known."""
        ...

    async def between(self, before: Accepted | None) -> None:
        """The same while numbers are taken that have not been sent, so that nothing can be computed on all services.

        Args:
            before: the latest request that was taken before.
        """
        ...

    def sent(self, record: Record) -> None:
        """Take note of what the service has taken, in order."""
        ...

    def had(self, record: Record, reply: object) -> None:
        """Take note of a result."""
        ...

    def compare(self, record: Record, output: ForwardBackwardOutput) -> None:
        """Compare what was computed again with what was computed before."""
        ...

    def revived(self) -> None:
        """Take note that it has all that came before."""
        ...
