"""A journal's contents, made of its tables: the rules do again what they did before."""

from __future__ import annotations

from tinker_actors.journal.catalogue import Catalogue, SavedState
from tinker_actors.journal.contents import Contents
from tinker_actors.journal.line import Line
from tinker_actors.journal.tables import Tables
from tinker_actors.protocol.journal import ModelFacts
from tinker_actors.protocol.journal_rules import Rules

__all__ = ["contents_of"]


def contents_of(tables: Tables) -> Contents:
    """Return what the journal holds."""
    model = tables.meta.get("model")
    if model is not None:
        model = ModelFacts(**model | {"free": tuple(model["free"])})
    return Contents(
        rules=_rules(tables),
        line=Line(model, tables.parts, live=tables.meta.get("live", False)),
        catalogue=Catalogue(tables.states),
        progress=tables.progress,
        witnesses=tables.witnesses,
        facts=tables.meta.get("facts", {}),
        incarnation=tables.incarnation + 1,
        before=tables.station,
        lost_steps=tables.meta.get("lost_steps", 0),
    )


def _rules(tables: Tables) -> Rules:
    """Have the rules see what happened: operations in order, and each usable state after what it holds."""
    states = tables.usable()
    left = list(states)
    rules = Rules(generations=None)
    for position, record in tables.records.items():
        while left and left[0].position < position:
            _take(rules, left.pop(0))
        rules.insert(record)
        if position in tables.kept:
            rules.settle(position, keep=True)
    for state in left:
        _take(rules, state)
    if states and not tables.meta["from_creation"]:
        rules.trim(states[0].position)
    return rules


def _take(rules: Rules, state: SavedState) -> None:
    checkpoint = state.checkpoint()
    rules.checkpointed(checkpoint.position, checkpoint.path)
