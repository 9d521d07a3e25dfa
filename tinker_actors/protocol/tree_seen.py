"""What a tree of actors did at one moment, as it is written down once a second: only what has changed. Pure.

Theory of operation. A `TreeSeen` is a picture of the tree or, between two whole ones, what is new since the one before
it. `TreeDifference` makes the differences where they are written, `TreePicture` puts them together where they are read;
what the one makes, the other makes whole again. All times are wall times, so that a message that runs looks the same in
every picture for as long as it runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol, TypeVar

import attrs

from tinker_actors.protocol.wait import WaitSeen

__all__ = [
    "MOST_PAST",
    "ActorSeen",
    "MailboxSeen",
    "PastSeen",
    "RunningSeen",
    "SupervisorSeen",
    "TreeDifference",
    "TreePicture",
    "TreeSeen",
]

MOST_PAST = 10
"""So many of the messages that ended last are shown of each mailbox."""


@attrs.frozen(kw_only=True)
class RunningSeen:
    """A message whose handler runs.

    Attributes:
        message: name of its type.
        seq: its place in line; -1 for a message of the runtime.
        since: wall time of its beginning; None if nobody has measured it.
        waiting_on: paths of the actors that its handler waits on.
    """

    message: str
    seq: int
    since: float | None = None
    waiting_on: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class PastSeen:
    """A message that has ended.

    Attributes:
        message: name of its type.
        seq: its place in line.
        at: wall time of its end.
        seconds: how long it ran; None if it never began, or began before anybody measured it.
        outcome: `value`, `abandoned`, `expired`, or the name of the error's type.
    """

    message: str
    seq: int
    at: float
    seconds: float | None = None
    outcome: str = "value"


@attrs.frozen(kw_only=True)
class MailboxSeen:
    """A mailbox: of an actor, or of a pool whose workers share it.

    Attributes:
        path: of the actor or the pool.
        queued: messages that wait.
        parked: senders that wait for room.
        capacity: messages it may hold.
        running: messages whose handlers run.
        admitted: messages that got a place in line so far.
        handled: messages that ended in a value.
        failed: messages that ended in an error, or were lost, after they had begun.
        dropped: all others that have ended: abandoned, expired, dropped, or handed back before they began.
        past: those that ended last, oldest first, at most `MOST_PAST`; in a difference, those that are new.
    """

    path: str
    queued: int = 0
    parked: int = 0
    capacity: int = 0
    running: int = 0
    admitted: int = 0
    handled: int = 0
    failed: int = 0
    dropped: int = 0
    past: tuple[PastSeen, ...] = ()


@attrs.frozen(kw_only=True)
class ActorSeen:
    """An actor.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
        life: where it is in its life: `running`, `restarting`, `failed` and so on.
        incarnation: which life it lives.
        restarts: restarts within its window.
        restart_at: wall time of its next start, if it waits for one by the clock.
        mailbox: path of the mailbox it reads: its own, or its pool's.
        running: what its handlers do, oldest first; of many, the oldest.
        failure: what ended its last incarnation, if that crashed.
    """

    path: str
    life: str
    incarnation: int = 0
    restarts: int = 0
    restart_at: float | None = None
    mailbox: str = ""
    running: tuple[RunningSeen, ...] = ()
    failure: str | None = None


@attrs.frozen(kw_only=True)
class SupervisorSeen:
    """A supervisor.

    Attributes:
        path: names of its supervisors and its own, joined by `/`.
        strategy: who is restarted with a child that ended.
        restarts: restarts of its children within its window.
        stopping: it is on its way out.
    """

    path: str
    strategy: str
    restarts: int = 0
    stopping: bool = False


@attrs.frozen(kw_only=True)
class TreeSeen:
    """The tree, or what of it has changed since the picture before.

    Attributes:
        number: one more than that of the picture before.
        whole: nothing is left out; else what is not here is as it was.
        supervisors: those that have changed.
        actors: those that have changed.
        mailboxes: those that have changed.
        gone: paths of what is no more; also of what has gone and come back meanwhile, which is then here as a whole.
        waits: who waits for what, the longest wait first: always all, or the first hundred.
    """

    number: int
    whole: bool = False
    supervisors: tuple[SupervisorSeen, ...] = ()
    actors: tuple[ActorSeen, ...] = ()
    mailboxes: tuple[MailboxSeen, ...] = ()
    gone: tuple[str, ...] = ()
    waits: tuple[WaitSeen, ...] = ()


class _Seen(Protocol):
    @property
    def path(self) -> str: ...


S = TypeVar("S", bound=_Seen)


class TreeDifference:
    """Makes of each whole picture what is new in it."""

    def __init__(self) -> None:
        self._last = TreeSeen(number=0, whole=True)

    def after(self, seen: TreeSeen, *, whole: bool = False) -> TreeSeen:
        """Return what is to be written of a picture.

        Args:
            seen: the whole picture; its number does not matter.
            whole: leave nothing out; so it is with the first one.
        """
        last, number = self._last, self._last.number + 1
        self._last = attrs.evolve(seen, number=number, whole=True, gone=())
        if whole or number == 1:
            return self._last
        old = {one.path: one for one in last.mailboxes}
        anew = {box.path for box in seen.mailboxes if box.path in old and _is_another(old[box.path], box)}
        return attrs.evolve(
            seen,
            number=number,
            whole=False,
            supervisors=_changed(last.supervisors, seen.supervisors, anew),
            actors=_changed(last.actors, seen.actors, anew),
            mailboxes=tuple(
                attrs.evolve(box, past=_new_of(old[box.path].past, box.past)) if box.path in old else box
                for box in _changed(last.mailboxes, seen.mailboxes)
            ),
            gone=tuple(sorted(_paths(last) - _paths(seen) | anew)),
        )


def _changed(before: Iterable[S], now: Iterable[S], anew: Collection[str] = ()) -> tuple[S, ...]:
    known = {one.path: one for one in before}
    return tuple(one for one in now if known.get(one.path) != one or one.path in anew)


def _is_another(before: MailboxSeen, now: MailboxSeen) -> bool:
    """Whether a mailbox has taken the place of one of that path: what has ended there was neither pushed out nor stays.

    So many messages that none of the old ones is left say nothing, and need not.
    """
    return bool(before.past) and before.past[-1] not in now.past and len(now.past) < MOST_PAST


def _paths(seen: TreeSeen) -> set[str]:
    return {one.path for part in (seen.supervisors, seen.actors, seen.mailboxes) for one in part}


def _new_of(before: tuple[PastSeen, ...], now: tuple[PastSeen, ...]) -> tuple[PastSeen, ...]:
    """Return what came after the last one that was known."""
    if not before or before[-1] not in now:
        return now
    return now[now.index(before[-1]) + 1 :]


class TreePicture:
    """Puts what was written together again.

    Attributes:
        number: of the last picture; None before the first whole one.
        supervisors: by path, in the order in which they came.
        actors: likewise.
        mailboxes: likewise.
        waits: who waits for what, the longest wait first.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.supervisors: dict[str, SupervisorSeen] = {}
        self.actors: dict[str, ActorSeen] = {}
        self.mailboxes: dict[str, MailboxSeen] = {}
        self.waits: tuple[WaitSeen, ...] = ()

    def add(self, seen: TreeSeen) -> bool:
        """Take in the next picture; False if it does not fit, and only a whole one helps."""
        if not seen.whole and (self.number is None or seen.number != self.number + 1):
            return False
        if seen.whole:
            for part in (self.supervisors, self.actors, self.mailboxes):
                part.clear()
        for path in seen.gone:
            for known in (self.supervisors, self.actors, self.mailboxes):
                known.pop(path, None)
        self.number = seen.number
        self.supervisors |= _by_path(seen.supervisors)
        self.actors |= _by_path(seen.actors)
        for box in seen.mailboxes:
            before = self.mailboxes.get(box.path)
            past = ((*before.past, *box.past) if before is not None else box.past)[-MOST_PAST:]
            self.mailboxes[box.path] = attrs.evolve(box, past=past)
        self.waits = seen.waits
        return True

    def whole(self) -> TreeSeen:
        """Return it as one picture.

        Raises:
            ValueError: there was none yet.
        """
        if self.number is None:
            raise ValueError("no whole picture was taken in yet")
        return TreeSeen(
            number=self.number,
            whole=True,
            supervisors=tuple(self.supervisors.values()),
            actors=tuple(self.actors.values()),
            mailboxes=tuple(self.mailboxes.values()),
            waits=self.waits,
        )


def _by_path(seen: Iterable[S]) -> Mapping[str, S]:
    return {one.path: one for one in seen}
