"""Promises: what was asked for, and what became of it.

Theory of operation. A request that takes time is answered at once with the id of a promise. Whoever wants the
result asks for it with that id, and is kept waiting for up to `hold` seconds; then he is told to ask again.

    pending ──resolve──> resolved     the result is there
    pending ──fail─────> failed       the request ran and failed
    pending ──break────> broken       there will be no result: its model or session is gone

The three ends are final: what comes later is ignored, so that a model may be dropped while it works.
Results may be read any number of times. They are kept within two limits: of those that were read, and of
those that nobody has asked for, the oldest are dropped first, and their ids are unknown from then on.
Pending promises are never dropped. A reader who leaves takes nothing with him. What is not known here may be of an
earlier life of the service: then it has a result that was kept, or is broken.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Literal

import attrs
import trio

from tinker_actors.wire.future import RequestFailed, TryAgain

from .refusal import refusal

__all__ = ["Category", "Promise", "PromiseState", "PromiseTable"]

Category = Literal["unknown", "server", "user"]


class PromiseState(enum.Enum):
    """Where a promise is in its life."""

    PENDING = "pending"
    RESOLVED = "resolved"
    FAILED = "failed"
    BROKEN = "broken"


@attrs.define(eq=False)
class Promise:
    """One promise.

    Attributes:
        request_id: its name.
        owner: the model or session it dies with.
        state: where it is in its life.
        result: the reply of a resolved one, a `RequestFailed` of a failed one.
        why: the reason of a broken one.
        settled: set when it is no longer pending.
    """

    request_id: str
    owner: str
    state: PromiseState = PromiseState.PENDING
    result: object = None
    why: str = ""
    settled: trio.Event = attrs.field(factory=trio.Event)

    @classmethod
    def ended(cls, request_id: str, *, result: object = None, why: str = "") -> Promise:
        """Return a promise that is resolved, or broken for a reason."""
        promise = cls(request_id, "", PromiseState.BROKEN if why else PromiseState.RESOLVED, result, why)
        promise.settled.set()
        return promise


class PromiseTable:
    """All promises of a service.

    Args:
        hold: seconds a reader waits for a result before he is told to ask again.
        kept_read: results kept after they were read.
        kept_unread: results kept that nobody has asked for.
        earlier: finds a promise that is not known here.
    """

    def __init__(
        self,
        *,
        hold: float,
        kept_read: int = 1024,
        kept_unread: int = 10_000,
        earlier: Callable[[str], Promise | None] = lambda _: None,
    ) -> None:
        self._earlier = earlier
        self._hold = hold
        self._waits: set[trio.CancelScope] = set()
        self._kept_read = kept_read
        self._kept_unread = kept_unread
        self._promises: dict[str, Promise] = {}
        self._pending: dict[str, set[str]] = {}  # by owner
        self._unread: dict[str, None] = {}  # oldest first, as is the next
        self._read: dict[str, None] = {}

    def open(self, request_id: str, owner: str) -> Promise:
        """Make a promise; its id must be new."""
        assert request_id not in self._promises, request_id
        self._promises[request_id] = promise = Promise(request_id, owner)
        self._pending.setdefault(owner, set()).add(request_id)
        return promise

    def resolve(self, request_id: str, result: object) -> None:
        """Keep a promise; ignored if it is not pending."""
        self._settle(request_id, PromiseState.RESOLVED, result)

    def fail(self, request_id: str, error: str, category: Category) -> None:
        """Say that the request ran and failed; ignored if the promise is not pending."""
        self._settle(request_id, PromiseState.FAILED, RequestFailed(error, category))

    def break_owned(self, owner: str, why: str) -> list[str]:
        """Break every pending promise of an owner and return their ids."""
        broken = sorted(self._pending.get(owner, ()))
        for request_id in broken:
            self._promises[request_id].why = why
            self._settle(request_id, PromiseState.BROKEN, None)
        return broken

    def find(self, request_id: str) -> Promise:
        """Return a promise.

        Raises:
            NotFoundError: there is none of this id, or its result was dropped.
        """
        promise = self._promises.get(request_id) or self._earlier(request_id)
        if promise is None:
            raise refusal(404, f"Promise {request_id!r} is not known")
        return promise

    async def wait(self, promise: Promise) -> None:
        """Wait until a promise has ended, but no longer than `hold` seconds. Checkpoints."""
        with trio.move_on_after(self._hold) as waiting:
            self._waits.add(waiting)
            try:
                await promise.settled.wait()
            finally:
                self._waits.discard(waiting)

    def outcome(self, promise: Promise) -> object:
        """Return the reply, a `RequestFailed`, or a `TryAgain` if the promise is pending.

        Raises:
            SessionGoneError: the promise is broken.
        """
        if promise.state is PromiseState.PENDING:
            return TryAgain(promise.request_id)
        self._mark_read(promise.request_id)
        if promise.state is PromiseState.BROKEN:
            raise refusal(410, f"Promise {promise.request_id!r} is broken: {promise.why}")
        return promise.result

    def stop_holding(self) -> None:
        """Let every reader go, and keep none waiting from now on: the service is about to close."""
        self._hold = 0.0
        for waiting in self._waits:
            waiting.cancel(reason="the service is closing")

    @property
    def pending_count(self) -> int:
        """Promises that are pending."""
        return sum(map(len, self._pending.values()))

    @property
    def kept_count(self) -> int:
        """Promises that have ended and can still be read."""
        return len(self._unread) + len(self._read)

    def _settle(self, request_id: str, state: PromiseState, result: object) -> None:
        promise = self._promises.get(request_id)
        if promise is None or promise.state is not PromiseState.PENDING:
            return
        promise.state, promise.result = state, result
        owned = self._pending[promise.owner]
        owned.discard(request_id)
        if not owned:
            del self._pending[promise.owner]
        self._unread[request_id] = None
        self._trim(self._unread, self._kept_unread)
        promise.settled.set()

    def _mark_read(self, request_id: str) -> None:
        if request_id in self._unread:
            del self._unread[request_id]
            self._read[request_id] = None
            self._trim(self._read, self._kept_read)

    def _trim(self, order: dict[str, None], limit: int) -> None:
        while len(order) > limit:
            oldest = next(iter(order))
            del order[oldest], self._promises[oldest]
