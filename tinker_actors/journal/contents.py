"""What a journal holds when it has been opened, and where it was written."""

from __future__ import annotations

import attrs

from tinker_actors.journal.catalogue import Catalogue
from tinker_actors.journal.line import Line
from tinker_actors.journal.progress import Progress
from tinker_actors.journal.witness import Kept
from tinker_actors.protocol.journal_rules import Rules
from tinker_actors.wire.codec import JsonValue

__all__ = ["Contents", "Station"]


@attrs.frozen(kw_only=True)
class Station:
    """Where a journal is, or was, written.

    Attributes:
        host: the machine's name.
        boot: which of its starts; empty where the system does not say.
        time: of the last write, in seconds since 1970.
        file: which file of that machine it is, whatever its name: a copy is another one.
        synced: everything was on the medium before it counted, so that a machine that dies loses none of it.
    """

    host: str
    boot: str
    time: float
    file: str = ""
    synced: bool = False


@attrs.define(eq=False, kw_only=True)
class Contents:
    """What a journal holds, as it was read.

    Attributes:
        rules: the operations.
        line: the present model and the open requests.
        catalogue: the saved states.
        progress: the steps.
        witnesses: results that are kept, by position.
        facts: what the run noted, by name.
        incarnation: how often it has been opened, this time included.
        before: what it says of where it was written; None if it is new.
        lost_steps: decided steps of which a torn tail has left nothing, since the last one was decided.
    """

    rules: Rules
    line: Line
    catalogue: Catalogue
    progress: Progress
    witnesses: dict[int, Kept]
    facts: dict[str, JsonValue]
    incarnation: int
    before: Station | None
    lost_steps: int = 0
