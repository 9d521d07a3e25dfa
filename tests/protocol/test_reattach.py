"""Whether a model of an earlier process is gone on with: one row of the table after the other."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from tinker_actors.protocol.journal import Operation, PartSent, Record
from tinker_actors.protocol.reattach import (
    Attach,
    Facts,
    Restore,
    Resumption,
    decide,
    decided,
    in_doubt,
    is_of_use,
    undecided,
)

GOOD = Facts(
    resumption=Resumption(same_machine=True, gap=79.0, session_limit=100.0), live=True, dedupe="none"
)


@pytest.mark.parametrize("dedupe", ["replay", "reject", "none"])
def test_a_model_is_gone_on_with_if_nothing_speaks_against_it(dedupe: Any) -> None:
    """In every mode."""
    assert decide(attrs.evolve(GOOD, dedupe=dedupe)) == Attach()


def test_what_a_service_says_of_its_sessions_counts_more_than_what_is_assumed() -> None:
    """One that keeps them for longer is gone on with after a longer time."""
    late = attrs.evolve(GOOD, resumption=attrs.evolve(GOOD.resumption, gap=700.0))
    assert isinstance(decide(late), Restore)
    assert decide(attrs.evolve(late, session_timeout=1000.0)) == Attach()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"live": False}, "being restored"),
        ({"resumption": attrs.evolve(GOOD.resumption, same_backend=False)}, "another backend"),
        ({"resumption": attrs.evolve(GOOD.resumption, same_machine=False)}, "another machine"),
        ({"resumption": attrs.evolve(GOOD.resumption, is_copy=True)}, "is a copy"),
        ({"resumption": attrs.evolve(GOOD.resumption, gap=80.0)}, "stood still"),
        ({"resumption": attrs.evolve(GOOD.resumption, gap=-1.0)}, "stood still"),
        ({"resumption": attrs.evolve(GOOD.resumption, gap=float("nan"))}, "stood still"),
        ({"session_timeout": 98.0}, "stood still"),
        ({"session_kept": False}, "session"),
        ({"stray": True}, "not decided"),
        ({"doubtful": True}, "not known"),
        ({"answers": False}, "does not know"),
        ({"corrupted": True}, "corrupted"),
        ({"unguarded": True}, "set back"),
    ],
)
def test_one_thing_against_it_is_enough(change: dict[str, Any], why: str) -> None:
    """And it is said which."""
    verdict = decide(attrs.evolve(GOOD, **change))
    assert isinstance(verdict, Restore)
    assert why in verdict.why


@pytest.mark.parametrize("dedupe", ["replay", "reject"])
def test_doubt_is_resolved_by_services_that_remember_numbers(dedupe: Any) -> None:
    """The same number and bytes go out again, and they say what became of the first."""
    assert decide(attrs.evolve(GOOD, dedupe=dedupe, doubtful=True)) == Attach()


def record(position: int, kind: Any, **fields: Any) -> Record:
    return Record(position, Operation(kind=kind, **fields))


def test_gradients_behind_the_last_step_were_never_decided() -> None:
    """Whatever else stands between them; what a step or a load has ended is decided."""
    step = [record(0, "forward_backward"), record(1, "optim_step")]
    assert undecided(step) == []
    assert undecided([]) == []
    tail = [record(2, "forward_backward"), record(3, "save_state", name="a"), record(4, "forward_backward")]
    assert [one.position for one in undecided([*step, *tail])] == [2, 4]
    assert undecided([*step, *tail, record(5, "load_state")]) == []


def test_a_step_that_was_decided_is_known_as_a_whole() -> None:
    """By each of its parts, whatever stands between them; what ends it otherwise, or not at all, makes none."""
    records = [
        record(0, "forward_backward"),
        record(1, "load_state"),
        record(2, "forward_backward"),
        record(3, "forward"),
        record(4, "forward_backward"),
        record(5, "optim_step"),
        record(6, "optim_step"),
        record(7, "forward_backward"),
    ]
    found = {at: [one.position for one in step] for at, step in decided(records).items()}
    assert found == {2: [2, 4, 5], 4: [2, 4, 5], 5: [2, 4, 5], 6: [6]}


def test_only_what_changes_the_model_is_in_doubt() -> None:
    """A save under the same name, or a forward pass, may be sent again in every mode."""
    sent, unsent = PartSent(number=1, request_id="r"), PartSent(number=2, request_id=None)
    gradient = record(0, "forward_backward")
    assert not in_doubt([(gradient, (sent, sent))])
    assert in_doubt([(gradient, (sent, unsent))])
    assert not in_doubt([(record(1, "save_state", name="a"), (unsent,)), (record(2, "forward"), (unsent,))])


def test_a_new_model_is_not_sent_what_nobody_waits_for() -> None:
    """What was computed, or published without a name, was for a process that is gone; what has a name is found."""
    assert not is_of_use(record(0, "forward"))
    assert not is_of_use(record(1, "save_for_sampler"))
    for kind, fields in (
        ("save_for_sampler", {"name": "a"}),
        ("save_state", {"name": "a"}),
        ("optim_step", {}),
    ):
        assert is_of_use(record(2, kind, **fields))
