"""Asking for many samples at once: the machine behind one stream of completions. Pure.

Theory of operation. A service that offers it tells by one long poll which samples of a sampling session are ready,
in place of one long poll for each. Each answer brings completions and a *cursor*; the next poll says the cursor back
(`prev_cursor`), so that what was read is not sent again, and which results have been fetched (`retrieved`), so that
they may be deleted. A result itself is fetched as ever, with its size known and without waiting.

    there is                                              then
    a failure                                             no poll any more
    somebody who waits                                    a long poll
    a cursor or a fetched result the service does not     a poll that does not wait (`timeout: 0`), only to say it
      know of
    nothing                                               no poll until somebody waits

    a poll failed with            then
    408, 429, 5xx, no answer      again after a second, or what the service asks for, half a minute at most
    400                           again, three times in a row; without a body, or if it may be retried, as 503
    402                           again after a pause, within the billing window
    404, 405                      the service has no such call: everybody polls for himself
    anything else                 a failure: all who wait now or later are told

Fetched ids are repeated until a poll has succeeded; results that nobody waits for any more are told as fetched. A
completion that was recorded wins over a later failure; who asks for it has it once.

Facts: tinker 0.38.0 lib/session_futures_poller.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import attrs

from tinker_actors.errors import APIError, APIStatusError, TinkerError

__all__ = ["Alone", "BatchPoll", "Broken", "Completion", "Found", "Poll", "Ready"]

_BUDGET = 3
_DELAY = 1.0  # seconds
_MAX_DELAY = 30.0  # seconds; as for polls of one promise
_LONG = 45.0  # seconds for a poll that waits
_SHORT = 5.0  # seconds for one that does not


@attrs.frozen
class Completion:
    """A sample that has ended.

    Attributes:
        request_id: which.
        size: bytes of its result, as far as the service says; 0 if it does not, or if it failed.
    """

    request_id: str
    size: int = 0


@attrs.frozen
class Poll:
    """A poll to be sent.

    Attributes:
        prev_cursor: the last cursor that was read.
        retrieved: results that were fetched, sorted.
        waits: the service shall hold the answer back until there is a completion.
    """

    prev_cursor: int
    retrieved: tuple[str, ...]
    waits: bool

    @property
    def deadline(self) -> float:
        """Seconds for the whole exchange."""
        return _LONG if self.waits else _SHORT


@attrs.frozen
class Ready:
    """The result of a sample can be fetched; it has `size` bytes."""

    size: int


@attrs.frozen
class Broken:
    """There will be no completions any more."""

    error: TinkerError


@attrs.frozen
class Alone:
    """The service has no such call: poll for this sample alone."""


Found: TypeAlias = Ready | Broken | Alone


@attrs.define(eq=False)
class BatchPoll:
    """The completions of one sampling session (and clone); see the module."""

    _cursor: int = 0
    _told: int = 0  # the last cursor that the service is known to know
    _waiting: set[str] = attrs.field(factory=set[str])
    _ready: dict[str, Ready] = attrs.field(factory=dict[str, Ready])
    _retrieved: set[str] = attrs.field(factory=set[str])
    _left: set[str] = attrs.field(
        factory=set[str]
    )  # nobody waits for them any more, and they have not ended yet
    _bad_requests: int = 0
    _end: Broken | Alone | None = None

    # --- who waits ---------------------------------------------------------------------------------------

    def wait(self, request_id: str) -> Found | None:
        """Wait for a sample.

        Returns:
            what there is already; None: `answered` or `failed` will say it.
        """
        ready = self._ready.pop(request_id, None)
        if ready is not None:
            return ready
        if self._end is None:
            self._waiting.add(request_id)
            self._left.discard(request_id)
        return self._end

    def leave(self, request_id: str) -> None:
        """Nobody waits for this sample any more: its result may be deleted."""
        if request_id in self._waiting:
            self._waiting.remove(request_id)
            self._left.add(request_id)
        elif self._ready.pop(request_id, None) is not None:
            self.fetched(request_id)

    def fetched(self, request_id: str) -> None:
        """The sample's result was fetched: the service may forget it."""
        if self._end is None:
            self._retrieved.add(request_id)

    # --- polls -------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether there will be no poll any more."""
        return self._end is not None

    def next_poll(self) -> Poll | None:
        """Return the poll to be sent now; None: none until something changes."""
        if self._end is not None:
            return None
        return self._poll(waits=True) if self._waiting else self.last_poll()

    def last_poll(self) -> Poll | None:
        """Return the poll that says what the service does not know of; None if there is nothing of the kind."""
        if self._end is not None or (self._told == self._cursor and not self._retrieved):
            return None
        return self._poll(waits=False)

    def _poll(self, *, waits: bool) -> Poll:
        return Poll(self._cursor, tuple(sorted(self._retrieved)), waits)

    def answered(self, poll: Poll, cursor: int, completions: Sequence[Completion]) -> dict[str, Found]:
        """Take in the answer to a poll; return what there is for those who wait."""
        self._bad_requests = 0
        self._told = poll.prev_cursor
        self._retrieved.difference_update(poll.retrieved)
        self._cursor = cursor
        found: dict[str, Found] = {}
        for completion in completions:
            ready = Ready(completion.size)
            if completion.request_id in self._waiting:
                self._waiting.discard(completion.request_id)
                found[completion.request_id] = ready
            elif completion.request_id in self._left:
                self._left.discard(completion.request_id)
                self._retrieved.add(completion.request_id)
            else:
                self._ready[completion.request_id] = ready
        return found

    def failed(self, error: APIError, *, billing_pause: float | None = None) -> float | dict[str, Found]:
        """Take in the failure of a poll.

        Args:
            error: what came of it.
            billing_pause: for a 402: seconds to pause; None if the window is over.

        Returns:
            seconds until the next poll; or the end, as those who wait shall hear it.
        """
        status = error.status_code if isinstance(error, APIStatusError) else None
        match status:
            case 400 if getattr(error, "should_retry", None):
                return _DELAY
            case 400 if self._bad_requests < _BUDGET:
                self._bad_requests += 1
                return _DELAY
            case 402 if billing_pause is not None:
                return billing_pause
            case 404 | 405:
                return self._finish(Alone())
            case _ if error.retryable:
                return min(getattr(error, "retry_after", None) or _DELAY, _MAX_DELAY)
            case _:
                return self._finish(Broken(_broken(error)))

    def _finish(self, end: Broken | Alone) -> dict[str, Found]:
        self._end = end
        found: dict[str, Found] = dict.fromkeys(self._waiting, end)
        self._waiting.clear()
        self._retrieved.clear()
        return found


def _broken(cause: APIError) -> TinkerError:
    error = TinkerError(f"retrieve_futures: asking for the samples that are ready failed: {cause}")
    error.__cause__ = cause
    return error
