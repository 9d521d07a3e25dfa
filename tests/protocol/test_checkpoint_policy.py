"""When a checkpoint is due, and what it is called."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import InputError
from tinker_actors.protocol.batch import check_name
from tinker_actors.protocol.checkpoint_policy import (
    CheckpointPolicy,
    Unsaved,
    checkpoint_name,
    due,
    run_name,
)

NEVER = CheckpointPolicy(steps=None, seconds=None)


def unsaved(steps: int = 1, seconds: float = 0.0, tokens: int = 0, filled: float = 0.0) -> Unsaved:
    """Say what has been decided since the last checkpoint."""
    return Unsaved(steps=steps, seconds=seconds, tokens=tokens, filled=filled)


@pytest.mark.parametrize(
    ("policy", "since", "why"),
    [
        (CheckpointPolicy(steps=5), unsaved(steps=4), None),
        (CheckpointPolicy(steps=5), unsaved(steps=5), "5 steps"),
        (CheckpointPolicy(tokens=100), unsaved(tokens=99), None),
        (CheckpointPolicy(tokens=100), unsaved(tokens=120), "120 tokens"),
        (CheckpointPolicy(seconds=60.0), unsaved(seconds=59.9), None),
        (CheckpointPolicy(seconds=60.0), unsaved(seconds=61.0), "61 seconds"),
        (CheckpointPolicy(steps=2, tokens=1, seconds=1), unsaved(steps=2, tokens=2, seconds=2), "2 steps"),
        (NEVER, unsaved(steps=10**6, seconds=1e9, tokens=10**9, filled=0.49), None),
        (NEVER, unsaved(filled=0.5), "50% of the journal's room"),
    ],
)
def test_it_is_due_by_whichever_comes_first(
    policy: CheckpointPolicy, since: Unsaved, why: str | None
) -> None:
    """Steps, tokens, seconds and a half-filled journal each make a checkpoint due, and say so."""
    assert due(policy, since) == why


def test_nothing_new_is_never_saved_again() -> None:
    """However long ago the last one was, a checkpoint without a step since holds nothing new."""
    assert due(CheckpointPolicy(steps=1, seconds=1, tokens=1), unsaved(0, 1e9, 10**9, 1.0)) is None


def test_the_usual_policy_bounds_a_replay() -> None:
    """Without a word from the user a restore sends a hundred steps again at most, and half an hour's."""
    assert due(CheckpointPolicy(), unsaved(steps=99, seconds=1799.0)) is None
    assert due(CheckpointPolicy(), unsaved(steps=100)) is not None
    assert due(CheckpointPolicy(), unsaved(seconds=1800.0)) is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("steps", value) for value in (0, -1, True, 2.5, "9")],
        *[("tokens", value) for value in (0, -1, True, 2.5)],
        *[("seconds", value) for value in (0, -1.0, math.inf, math.nan, True, "9")],
    ],
)
def test_a_policy_of_nothing_is_refused(field: str, value: object) -> None:
    """A count or a time that is not positive is named with its field."""
    with pytest.raises(InputError, match=rf"^checkpoints\.{field} = "):
        CheckpointPolicy(**{field: value})  # type: ignore[arg-type]  # of a wrong type on purpose


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("addition", "addition"),
        ("My run, the 2nd!", "My-run-the-2nd"),
        ("", "run"),
        ("..", "run"),
        ("é", "run"),
        ("x" * 300, "x" * 80),
    ],
)
def test_a_checkpoint_is_called_after_its_run(directory: str, name: str) -> None:
    """The directory's name stands in it, in signs that can stand in a path."""
    assert run_name(directory) == name
    assert checkpoint_name(name, 120) == f"{name}-000120"


@given(st.text(), st.integers(0, 10**9))
def test_every_name_can_be_saved_under(directory: str, step: int) -> None:
    """Whatever the directory is called, services take the checkpoint's name."""
    check_name("name", checkpoint_name(run_name(directory), step))
