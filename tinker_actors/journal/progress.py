"""How far a run has come: the steps that were decided, and where its loop stands after the last one."""

from __future__ import annotations

import json
from collections.abc import Iterable

import attrs

from tinker_actors.journal.schema import Statement
from tinker_actors.protocol.journal import Decision
from tinker_actors.wire.chunk import DmelChunk, EncodedTextChunk
from tinker_actors.wire.input import Datum

__all__ = ["Progress", "batch_tokens", "decision_row"]


@attrs.frozen(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        steps: how many steps were decided.
        loop_state: where the user's loop stands, as JSON; None before the first step.
        tokens: how many were trained in these steps.
        loss_fn: the loss that was named last with one of them.
    """

    steps: int = 0
    loop_state: bytes | None = None
    tokens: int = 0
    loss_fn: str | None = None

    @classmethod
    def after(cls, decision: Decision, *, tokens: int, loss_fn: str | None = None) -> Progress:
        """Return how far it has come with a decision."""
        return cls(steps=decision.step + 1, loop_state=decision.after, tokens=tokens, loss_fn=loss_fn)


def decision_row(decision: Decision, position: int, tokens: int) -> Statement:
    """Return the row of a decision.

    Args:
        decision: what was decided.
        position: of the last operation of the step.
        tokens: trained up to its end.
    """
    values = (
        decision.step,
        position,
        decision.after,
        json.dumps(decision.groups),
        decision.skipped,
        tokens,
    )
    return "INSERT OR REPLACE INTO decisions VALUES(?, ?, ?, ?, ?, ?)", values


def batch_tokens(data: Iterable[Datum]) -> int:
    """Return how many tokens a batch has, as far as that is known here: images are as long as they are expected."""
    total = 0
    for datum in data:
        for chunk in datum.model_input.chunks:
            match chunk:
                case EncodedTextChunk():
                    total += chunk.tokens_np.size
                case DmelChunk():
                    pass
                case _:
                    total += chunk.expected_tokens or 0
    return total
