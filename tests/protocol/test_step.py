from __future__ import annotations

from typing import cast, get_args

import pytest

from tinker_actors.protocol.step import OperationKind, Step, judge

STEPS = {
    "empty": Step(),
    "gradients": Step(gradients=2),
    "closed": Step(closed=True),
    "closed with gradients": Step(gradients=1, closed=True),
}
KINDS = cast("tuple[OperationKind, ...]", get_args(OperationKind))
ONLY_IT = ["fail", "fail", "fail", "fail"]

# operation, taken by the service: the consequence for each of STEPS
TABLE: dict[tuple[OperationKind, bool], list[str]] = {
    ("forward_backward", False): ["void", "poison", "poison", "poison"],
    ("forward_backward", True): ["void", "poison", "poison", "poison"],
    ("optim_step", False): ["fail", "hold", "fail", "hold"],
    ("optim_step", True): ["poison", "poison", "poison", "poison"],
    ("forward", False): ONLY_IT,
    ("forward", True): ONLY_IT,
    ("save_state", False): ONLY_IT,
    ("save_state", True): ONLY_IT,
    ("save_for_sampler", False): ONLY_IT,
    ("save_for_sampler", True): ONLY_IT,
    ("save_external", False): ONLY_IT,
    ("save_external", True): ONLY_IT,
    ("load_state", False): ONLY_IT,
    ("load_state", True): ONLY_IT,
}


def test_the_table_has_every_operation() -> None:
    """Refused and taken, each of them."""
    assert set(TABLE) == {(kind, taken) for kind in KINDS for taken in (False, True)}


@pytest.mark.parametrize(("kind", "taken"), TABLE, ids=str)
def test_what_follows_from_a_failure(kind: OperationKind, taken: bool) -> None:
    """No partial gradient is kept: what cannot be taken back poisons, what was not sent is void."""
    found = [judge(kind, step, taken=taken, certain=True) for step in STEPS.values()]
    assert found == TABLE[kind, taken]


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_have_changed_the_model_poisons_it(kind: OperationKind) -> None:
    """If nobody can tell whether it was carried out, nothing is built on it; what changes nothing only fails."""
    poisons = kind in ("forward_backward", "optim_step", "load_state")
    expected = ["poison" if poisons else "fail"] * len(STEPS)
    assert [judge(kind, step, taken=True, certain=False) for step in STEPS.values()] == expected
