"""The moments at which a life can end, and what ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import attrs
import trio

from tinker_actors.errors import InputError

__all__ = ["CrashPoint", "Crashed", "Fuse", "ServiceFuse", "Where"]

Where: TypeAlias = Literal["request", "answer", "disk", "torn"]
"""Before a request reaches the service; when it was carried out, before its answer is there; before something reaches
the disk; when half of it has."""

_WORDS: Final = {
    "request": "before {} reaches the service",
    "answer": "after {} was carried out, before its answer is there",
    "disk": "before {}",
    "torn": "halfway through {}",
}
_READING: Final = frozenset(
    {
        "client_config",
        "client_dynamic_config",
        "session_heartbeat",
        "get_info",
        "retrieve_future",
        "weights_info",
        "telemetry",
    }
)  # endpoints that leave the scripted service as it is, but for the time of the last beat
_MOST: Final = 5_000  # a life with more points than this goes on and on


class Crashed(BaseException):
    """What unwinds a life that has ended. Nobody should catch it; who does can neither send nor write any more."""


@attrs.frozen
class CrashPoint:
    """A moment at which something is about to leave a life, or its answer is about to come.

    Attributes:
        index: how many came before it in its life, and one more.
        where: between which two things it lies.
        what: the endpoint of the request, or what is written.
        changes: how often what outlives the life had changed before. Points with as many leave the same behind.
    """

    index: int
    where: Where
    what: str
    changes: int = attrs.field(default=0, repr=False)

    @property
    def is_change(self) -> bool:
        """Whether what outlives the life changes if it goes on from here."""
        return self.where in ("disk", "torn") or (self.where == "request" and self.what not in _READING)

    def __str__(self) -> str:
        return f"point {self.index}, {_WORDS[self.where].format(self.what)}"


class Fuse:
    """Counts the points of one life, and ends it at one of them.

    Attributes:
        points: those that were reached, in order.
        blown: the life has ended.
        endless: it was ended because it went on and on.

    Args:
        at: the index of the point to end at; None never.

    Raises:
        InputError: an index below 1.
    """

    def __init__(self, at: int | None = None) -> None:
        if at is not None and at < 1:
            raise InputError("at", at, "must be 1 or more, or None")
        self.points: list[CrashPoint] = []
        self.blown = False
        self.endless = False
        self._at = at
        self._burnt: Callable[[], object] = lambda: None

    def when_blown(self, call: Callable[[], object]) -> None:
        """Have a function called at the moment the life ends."""
        self._burnt = call

    def reach(self, where: Where, what: str) -> None:
        """Note a point.

        Raises:
            Crashed: the life ends here, or has ended before.
        """
        if self.blown:
            raise Crashed
        before = self.points[-1] if self.points else None
        changes = 0 if before is None else before.changes + before.is_change
        self.points.append(CrashPoint(len(self.points) + 1, where, what, changes))
        self.endless = len(self.points) > _MOST
        if len(self.points) == self._at or self.endless:
            self.blown = True
            self._burnt()
            raise Crashed

    @property
    def choices(self) -> tuple[int, ...]:
        """Where it could blow."""
        return tuple(point.index for point in self.points)

    @property
    def distinct(self) -> tuple[int, ...]:
        """The same, but of points at which a crash leaves the same behind only the first."""
        before = (None, *(point.changes for point in self.points))
        pairs = zip(self.points, before, strict=False)
        return tuple(point.index for point, changes in pairs if point.changes != changes)


class ServiceFuse(Fuse):
    """Has the service die at points of a life that lives on: whoever sends something there loses the connection.

    It dies at requests and answers only; how far it is to a death is counted from the one before.

    Attributes:
        struck: where the service has died.

    Args:
        schedule: for each death how far it is.
    """

    def __init__(self, schedule: Sequence[int]) -> None:
        super().__init__()
        self.struck: list[CrashPoint] = []
        self._schedule = list(schedule)
        self._since = 0

    def reach(self, where: Where, what: str) -> None:
        """Note a point.

        Raises:
            trio.BrokenResourceError: the service dies here.
        """
        super().reach(where, what)
        if where not in ("request", "answer"):
            return
        self._since += 1
        if self._schedule and self._since == self._schedule[0]:
            del self._schedule[0]
            self._since = 0
            self.struck.append(self.points[-1])
            self._burnt()
            raise trio.BrokenResourceError("the service has died")

    @property
    def choices(self) -> tuple[int, ...]:
        """How far it could be from the latest death to the next."""
        return tuple(range(1, self._since + 1))

    @property
    def distinct(self) -> tuple[int, ...]:
        """The same: who sends is another one each time, and lives on."""
        return self.choices
