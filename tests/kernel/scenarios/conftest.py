"""What the scenarios share: books that must balance, callers that may leave, and a count of the scheduler's passes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import attrs
import pytest
import trio

from tinker_actors.kernel import ActorRef, Supervisor

_PLACES = ("handled", "failed", "abandoned", "expired", "dropped", "rejected", "queued", "running")
_COUNTERS = ("admitted", *_PLACES, "parked", "refused", "late_replies", "duplicate_replies")


Send = Callable[[ActorRef[Any], Any], Awaitable[object]]

SENDS: dict[str, Send] = {
    "ask": lambda ref, message: ref.ask(message),
    "tell": lambda ref, message: ref.tell(message),
    "submit": lambda ref, message: ref.submit(message),
    "submit_many": lambda ref, message: ref.submit_many([message]),
}


@attrs.define(eq=False)
class Caller:
    """Sends one message in a scope of its own, and notes how and when that ended."""

    send: Send
    scope: trio.CancelScope
    reply: object = None
    error: Exception | None = None
    left_at: float | None = None

    async def run(self, ref: ActorRef[Any], message: Any) -> None:
        """Send."""
        with self.scope:
            try:
                self.reply = await self.send(ref, message)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.error = error
        self.left_at = trio.current_time()

    @property
    def got(self) -> tuple[object, Exception | None, bool]:
        """Its reply, its error, and whether its own cancellation ended it."""
        return self.reply, self.error, self.scope.cancelled_caught


@attrs.define(eq=False)
class Books:
    """The actors of a test, whose counters must add up at any time, and be at rest when they have ended."""

    stage: Any
    refs: list[ActorRef[Any]] = attrs.field(factory=list)

    async def start(self, tree: Supervisor, name: str = "a", **settings: Any) -> ActorRef[Any]:
        """Start a puppet, or with `factory` another actor, and keep books on it."""
        self.refs.append(await self.stage.start(tree, name, **settings))
        return self.refs[-1]

    def caller(self, send: str = "ask", deadline: float = math.inf) -> Caller:
        """Return somebody who sends one message by the method of this name."""
        return Caller(SENDS[send], trio.CancelScope(deadline=deadline))

    def counts(self, ref: ActorRef[Any]) -> dict[str, int]:
        """Return the counters of a mailbox that are not 0."""
        self.check()
        statistics = ref.statistics()
        return {name: count for name in _COUNTERS if (count := getattr(statistics, name))}

    def check(self) -> None:
        """Hold every admission against the places where messages are counted."""
        for ref in self.refs:
            statistics = ref.statistics()
            assert statistics.admitted == sum(getattr(statistics, place) for place in _PLACES), ref.path
            if ref.stopped:
                at_rest = (statistics.queued, statistics.running, statistics.parked)
                assert at_rest == (0, 0, 0), ref.path


@pytest.fixture
def books(stage: Any) -> Iterator[Books]:
    """Give books that are checked when the test has ended."""
    books = Books(stage)
    yield books
    assert books.refs, "the test keeps no books"
    books.check()


class Ticks(trio.abc.Instrument):
    """Counts the passes of the scheduler: what happens between two passes happens in one tick."""

    def __init__(self) -> None:
        self.now = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count one more."""
        self.now += 1


@pytest.fixture
async def ticks() -> AsyncIterator[Ticks]:  # noqa: ASYNC124 - so it runs in the test's run
    """Count the ticks of this test's run."""
    ticks = Ticks()
    trio.lowlevel.add_instrument(ticks)
    yield ticks
    trio.lowlevel.remove_instrument(ticks)
