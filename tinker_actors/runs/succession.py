"""What a process takes over from the one that had the run before it."""

from __future__ import annotations

from typing import Final

from tinker_actors.actors.session import Adoption
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.protocol.reattach import Resumption

__all__ = ["adoption_of", "resumption_of"]

_NUMBERS: Final = 10_000  # models, and as many sampling sessions, that a process may make in a session
# Seconds that a session lives without a beat on a service that does not say it; SkyRL tinker/config.py.
_SESSION_LIMIT: Final = 300.0


def adoption_of(journal: DurableJournal, *, moved: bool = False) -> Adoption:
    """Say what an earlier process has left; each process has numbers of its own in its session.

    A run without a model and without a decided step has only begun, however often it was tried: it fails if its service
    is not there. All others wait for it.

    A copy of a run takes no session over: whoever opens the other one may use the same numbers in it.

    Args:
        journal: of the run.
        moved: it is opened on another backend: a session of that name would be somebody else's.
    """
    model = None if moved or _is_copy(journal) else journal.model
    session_id = "" if model is None else model.session_id
    return Adoption(
        session_id=session_id,
        first_number=_NUMBERS * (journal.incarnation - 1),
        waits=journal.steps > 0 or journal.model is not None,
    )


def resumption_of(journal: DurableJournal, *, moved: bool = False) -> Resumption | None:
    """Say what is known of the time since an earlier process; None if there was none."""
    before, here = journal.before, journal.here
    if before is None:
        return None
    restarted = (before.host, before.boot) != (here.host, here.boot) or not here.boot
    return Resumption(
        same_machine=before.synced or not restarted,
        is_copy=_is_copy(journal),
        gap=here.time - before.time,
        session_limit=_SESSION_LIMIT,
        same_backend=not moved,
    )


def _is_copy(journal: DurableJournal) -> bool:
    return journal.before is not None and journal.before.file != journal.here.file
