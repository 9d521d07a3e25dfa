"""What every transaction says of where and when it was written, and by whom.

Theory of operation. What a process is told of the one before it, such as that the machine died since then, speaks
against going on with the model that is there. It does so until there is another model, however many processes were
started meanwhile and got no further. So the stamp stays that of an earlier process until this one has made a model, or
recorded something for the one that is there, and changes in the transaction that says so.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from tinker_actors.journal.contents import Station
from tinker_actors.journal.ledger import meta
from tinker_actors.journal.schema import Statement

__all__ = ["Stamp"]


class Stamp:
    """Gives the row that goes with every transaction; of the writer.

    Args:
        before: where the journal was written last; None if it is new.
        here: where it is opened.
        now: the time, in seconds since 1970.
    """

    def __init__(self, before: Station | None, here: Station, now: Callable[[], float]) -> None:
        self._before = before
        self._here = here
        self._now = now

    def __call__(self) -> Statement:
        """Return the row."""
        return meta("written", attrs.asdict(self._before or attrs.evolve(self._here, time=self._now())))

    def take_over(self) -> None:
        """Say from now on where it is written by this process."""
        self._before = None
