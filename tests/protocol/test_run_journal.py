"""What a run asks of its journal."""

from __future__ import annotations

import inspect

from tinker_actors.protocol.journal import Journal
from tinker_actors.protocol.run_journal import RunJournal


def test_it_is_a_journal_that_also_knows_the_run() -> None:
    """A model can be given it as its own."""
    own = {name for name in vars(RunJournal) if not name.startswith("_")}
    models = {name for name in vars(Journal) if not name.startswith("_")}
    assert Journal in inspect.getmro(RunJournal)
    assert own.isdisjoint(models)
    assert {"facts", "steps", "loop_state", "checkpoints", "mark", "note"} <= own
