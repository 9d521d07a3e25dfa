"""Writes down what a service does: its events, and once a second what its actors do and who waits for what.

Theory of operation. A task of the tree looks at it every second and gives what is new to a sink, which writes it in a
thread of its own. A look costs as much as the tree is large, so the next one waits until looking takes no more than
one part in two hundred of the time. What single messages do is not traced: mailboxes remember those that ended last,
which costs a message a microsecond. Dead letters come in floods, so that between two looks only some are told of one by
one, and the others counted. Nothing here ends what it looks at: if a look fails, there is no further one.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import cast

import attrs
import trio

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.waits import Waits
from tinker_actors.kernel import (
    ActorEnded,
    ActorReady,
    ActorSnapshot,
    ActorStuck,
    DeadLetter,
    KernelEvent,
    PastMessage,
    RunningMessage,
    Supervisor,
    SupervisorSnapshot,
)
from tinker_actors.protocol import event_line as lines
from tinker_actors.protocol.event_line import EventSink
from tinker_actors.protocol.telemetry import scrubbed
from tinker_actors.protocol.tree_seen import (
    MOST_PAST,
    ActorSeen,
    MailboxSeen,
    PastSeen,
    RunningSeen,
    SupervisorSeen,
    TreeDifference,
    TreeSeen,
)
from tinker_actors.protocol.wait import WaitSeen

__all__ = ["Recorder", "see"]

_LOG = logging.getLogger("tinker_actors.service")

PERIOD = 1.0
"""Seconds between two looks."""
WHOLE_EVERY = 60
"""Looks between two pictures in which nothing is left out."""
_SHARE = 0.005  # of the time, that looking may take
_MOST_LETTERS = 20  # told of one by one between two looks
_MOST_RUNNING = 8  # messages in hand that are shown of each actor
_MOST_WAITS = 100
_MOST_TEXT = 500  # characters of a failure


class Recorder:
    """Looks at a tree and listens to it.

    Args:
        sink: takes what there is to write.
        root: the tree.
        waits: who waits for what.
        secrets: gives the texts that must not be written.
    """

    def __init__(
        self,
        sink: EventSink,
        root: Supervisor,
        waits: Waits,
        secrets: Callable[[], Iterable[str]],
    ) -> None:
        self._sink = sink
        self._root = root
        self._waits = waits
        self._secrets = secrets
        self._difference = TreeDifference()
        self._looks = 0
        self._letters: Counter[str] = Counter()
        self._offset = 0.0  # from trio's time to wall time
        self._known: tuple[str, ...] = ()  # secrets, as of the last look
        self._clean = functools.lru_cache(maxsize=100)(self._scrub)

    def begin(self, events: EventHub, sightings: list[Callable[[KernelEvent], object]]) -> None:
        """Listen from now on, and look once a second, until everything in the tree has ended.

        Args:
            events: of the service.
            sightings: what the kernel reports is told to all in this list.
        """
        self._hide()
        self._root.remember(MOST_PAST)
        self._root.on_stopped(self._look_once_more)
        events.listen(self._sink.write)
        sightings.append(self._sight)
        self._root.attend(self._run)

    @trio.lowlevel.enable_ki_protection  # a Ctrl-C is for the user's code
    async def _run(self) -> None:
        period = PERIOD
        while True:
            await trio.sleep(period)
            began = trio.current_time()
            if not self._look():
                return
            period = max(PERIOD, (trio.current_time() - began) / _SHARE)

    def _look_once_more(self) -> None:
        self._look()

    def _look(self) -> bool:
        try:
            self._write_picture()
        except Exception:  # noqa: BLE001 - see above: whatever it is, it must not end the tree
            _LOG.exception("the tree of actors is not written down any more")
            return False
        return True

    def _hide(self) -> None:
        """Learn what must not be written; what was cleaned before may have something of it that is new."""
        known = tuple(dict.fromkeys(self._secrets()))
        self._sink.hide(known)
        if known != self._known:
            self._known = known
            self._clean.cache_clear()

    def _write_picture(self) -> None:
        self._hide()
        counts = {
            reason: count - _MOST_LETTERS for reason, count in self._letters.items() if count > _MOST_LETTERS
        }
        if counts:
            self._sink.write(lines.MessagesLost(counts))
        self._letters.clear()
        whole = self._sink.wants_whole() or self._looks % WHOLE_EVERY == 0
        if whole:
            self._looks = 0
            self._offset = self._sink.now() - trio.current_time()
        self._looks += 1
        seen = see(self._root.snapshot(), self._offset, self._clean)
        waits = tuple(attrs.evolve(wait, reason=self._clean(wait.reason)) for wait in self._shown_waits())
        self._sink.write(self._difference.after(attrs.evolve(seen, waits=waits), whole=whole))

    def _shown_waits(self) -> list[WaitSeen]:
        return self._waits.look()[:_MOST_WAITS]

    def _scrub(self, text: str) -> str:
        return cast("str", scrubbed(text, self._known))[:_MOST_TEXT]

    def _sight(self, event: KernelEvent) -> None:
        match event:
            case ActorReady():
                self._sink.write(lines.ActorReady(event.actor, event.incarnation))
            case ActorEnded():
                self._sink.write(lines.ActorEnded(event.actor, event.incarnation, event.failed))
            case ActorStuck():
                self._sink.write(lines.ActorHangs(event.actor, event.incarnation, event.stack))
            case DeadLetter():
                self._letters[event.reason] += 1
                if self._letters[event.reason] <= _MOST_LETTERS:
                    self._sink.write(lines.MessageLost(event.actor, event.reason, event.kind, event.seq))
            case _:
                pass  # a crash is told of as an event of the service


# --- pictures --------------------------------------------------------------------------------------------


@attrs.define
class _Parts:
    offset: float
    clean: Callable[[str], str]
    supervisors: list[SupervisorSeen] = attrs.field(factory=list)
    actors: list[ActorSeen] = attrs.field(factory=list)
    mailboxes: dict[str, MailboxSeen] = attrs.field(factory=dict)

    def take(self, node: SupervisorSnapshot | ActorSnapshot) -> None:
        if isinstance(node, ActorSnapshot):
            self._take_actor(node)
            return
        seen = SupervisorSeen(
            path=node.path, strategy=node.strategy, restarts=node.restarts, stopping=node.stopping
        )
        self.supervisors.append(seen)
        for child in node.children:
            self.take(child)

    def _take_actor(self, node: ActorSnapshot) -> None:
        actor = ActorSeen(
            path=node.path,
            life=node.life,
            incarnation=node.incarnation,
            restarts=node.restarts,
            restart_at=None if node.next_restart_at is None else self._wall(node.next_restart_at),
            mailbox=node.line,
            running=self._running(node.running),
            failure=None if node.last_failure is None else self.clean(node.last_failure),
        )
        self.actors.append(actor)
        if node.line not in self.mailboxes:
            self.mailboxes[node.line] = self._mailbox(node)

    def _mailbox(self, node: ActorSnapshot) -> MailboxSeen:
        counts = node.mailbox
        return MailboxSeen(
            path=node.line,
            queued=counts.queued,
            parked=counts.parked,
            capacity=counts.capacity,
            running=counts.running,
            admitted=counts.admitted,
            handled=counts.handled,
            failed=counts.failed,
            dropped=counts.abandoned + counts.expired + counts.dropped + counts.rejected,
            past=tuple(self._past(one) for one in node.recent),
        )

    def _running(self, running: tuple[RunningMessage, ...]) -> tuple[RunningSeen, ...]:
        oldest = sorted(running, key=lambda one: one.seq)[:_MOST_RUNNING]
        return tuple(
            RunningSeen(
                message=one.kind,
                seq=one.seq,
                since=None if one.since is None else self._wall(one.since),
                waiting_on=one.waiting_on,
            )
            for one in oldest
        )

    def _past(self, one: PastMessage) -> PastSeen:
        outcome = one.error or "value" if one.state == "settled" else one.state
        return PastSeen(
            message=one.kind, seq=one.seq, at=self._wall(one.ended_at), seconds=one.seconds, outcome=outcome
        )

    def _wall(self, at: float) -> float:
        return round(at + self.offset, 3)


def see(snapshot: SupervisorSnapshot, offset: float, clean: Callable[[str], str]) -> TreeSeen:
    """Return a snapshot as it is written down.

    Args:
        snapshot: what the kernel shows.
        offset: seconds from trio's time to wall time.
        clean: masks what must not be written in a text.
    """
    parts = _Parts(offset, clean)
    parts.take(snapshot)
    return TreeSeen(
        number=0,
        whole=True,
        supervisors=tuple(parts.supervisors),
        actors=tuple(parts.actors),
        mailboxes=tuple(parts.mailboxes.values()),
    )
