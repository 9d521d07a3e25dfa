"""Timers of one incarnation: messages it sends to itself, later.

Theory of operation. A timer is a task of the incarnation, so it ends with it: no fire of an old incarnation
reaches a new one. A fire goes before users' messages, as a signal. Per key there is one timer and at most one
fire under way: setting a timer again, or cancelling it, also takes back a fire that has not been handled yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Protocol

import trio

from tinker_actors.errors import InputError
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.message import Message
from tinker_actors.kernel.ticker import next_tick

__all__ = ["Signals", "Timers"]


class Signals(Protocol):
    """The line of signals of an incarnation."""

    def post(self, envelope: Envelope[Any]) -> None:
        """Put a signal in line and wake a reader."""
        ...

    def take_back(self, envelope: Envelope[Any]) -> bool:
        """Remove a signal that has not been taken; False if it has."""
        ...

    def spawn(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task that ends with the incarnation."""
        ...


class Timers:
    """The timers of one incarnation, by key."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._scopes: dict[Hashable, trio.CancelScope] = {}
        self._fired: dict[Hashable, Envelope[Any]] = {}

    def set(
        self, key: Hashable, delay: float, message: Message[Any, Any], *, period: float | None = None
    ) -> None:
        """Send `message` after `delay` seconds, and every `period` seconds after that, if there is one.

        Raises:
            InputError: a negative delay, or a period that is not positive.
        """
        if period is not None and not period > 0:
            raise InputError("period", period, "must be positive")
        if not delay >= 0:
            raise InputError("delay", delay, "must not be negative")
        self.cancel(key)
        scope = self._scopes[key] = trio.CancelScope()
        self._signals.spawn(self._run, key, scope, trio.current_time() + delay, message, period)

    def cancel(self, key: Hashable) -> bool:
        """Stop a timer and take back its fire; False if there is no such timer."""
        fired = self._fired.pop(key, None)
        taken_back = fired is not None and self._signals.take_back(fired)
        scope = self._scopes.pop(key, None)
        if scope is not None:
            scope.cancel(reason="the timer was cancelled or set again")
        return taken_back or scope is not None

    async def _run(
        self,
        key: Hashable,
        scope: trio.CancelScope,
        due: float,
        message: Message[Any, Any],
        period: float | None,
    ) -> None:
        first = due
        with scope:  # cancelled, it also stops a timer that was due in this very tick
            while True:
                await trio.sleep_until(due)
                if period is None:
                    del self._scopes[key]
                self._fire(key, message)
                if period is None:
                    return
                due = next_tick(first, period, trio.current_time())

    def _fire(self, key: Hashable, message: Message[Any, Any]) -> None:
        last = self._fired.get(key)
        if last is not None:
            self._signals.take_back(last)  # an older fire that nobody has seen yet says nothing more
        envelope = self._fired[key] = Envelope(message, asked=False)
        self._signals.post(envelope)
