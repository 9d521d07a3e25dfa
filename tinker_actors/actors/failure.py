"""Failures that nobody has awaited.

A failed `Pending` is never silent: if nobody waited for it when it failed and nobody has since, the next
operation of the same client raises it, and so does leaving the service.
"""

from __future__ import annotations

from typing import Any

from tinker_actors.errors import ModelPoisoned, ServiceClosing, StepVoid, UnobservedFailure, Withdrawn
from tinker_actors.kernel import Pending
from tinker_actors.kernel.outcome import Outcome, fresh

__all__ = ["FailureLog"]

# These follow from another failure, or from the caller's own wish, which somebody has been told of.
_DERIVED = (ModelPoisoned, ServiceClosing, StepVoid, Withdrawn)


class FailureLog:
    """The unobserved failures of one client.

    Args:
        client: what it is called in errors.
        logs: those of a service that hold a failure; this one is among them while it does, and is not kept by them
            when its client has gone.
        harmless: what is no failure if nobody waits for it.
    """

    def __init__(
        self, client: str, logs: list[FailureLog], harmless: tuple[type[Exception], ...] = ()
    ) -> None:
        self._client = client
        self._logs = logs
        self._silent = (*_DERIVED, *harmless)
        self._failed: list[Outcome[Any]] = []

    def watch(self, pending: Pending[Any]) -> None:
        """Take note if this fails and nobody waits."""
        pending.outcome.on_failure = self._note

    def _note(self, outcome: Outcome[Any]) -> None:
        if isinstance(outcome.error, self._silent):
            return
        if not self._failed:
            self._logs.append(self)
        self._failed.append(outcome)

    def take(self) -> list[Exception]:
        """Return the failures nobody has seen, oldest first, and forget them."""
        if not self._failed:
            return []
        self._logs.remove(self)
        unseen = [outcome for outcome in self._failed if not outcome.observed]
        self._failed.clear()
        for outcome in unseen:
            outcome.observed = True
        return [fresh(outcome.error) for outcome in unseen if outcome.error is not None]

    def check(self) -> None:
        """Raise the oldest failure nobody has seen; further ones are notes on it.

        Raises:
            UnobservedFailure: there is one.
        """
        failures = self.take()
        if not failures:
            return
        message = f"an earlier operation of {self._client} failed and was never awaited: {failures[0]}"
        error = UnobservedFailure(message)
        for other in failures[1:]:
            error.add_note(f"also: {type(other).__name__}: {other}")
        raise error from failures[0]
