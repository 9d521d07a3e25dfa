"""What a journal on disk asks of the rules, beside what `test_memory_journal` shows: more than one way back."""

from __future__ import annotations

from tinker_actors.protocol.journal import Operation
from tinker_actors.protocol.journal_rules import Rules

GRADIENT = Operation(kind="forward_backward")
STEP = Operation(kind="optim_step")
SAVE = Operation(kind="save_state", name="s")


def trained(steps: int, *, generations: int | None = None) -> Rules:
    """Each step is a gradient, an optimizer step and a save: positions 3n, 3n + 1 and 3n + 2."""
    rules = Rules(generations=generations)
    for step in range(steps):
        for operation in (GRADIENT, STEP, SAVE):
            rules.settle(rules.add(operation))
        rules.checkpointed(3 * step + 2, f"s{step}")
    return rules


def paths(rules: Rules) -> list[str | None]:
    return [None if one is None else one.path for one in rules.checkpoints]


def replayed(rules: Rules) -> list[int]:
    return [record.position for record in rules.replay()]


def test_there_is_a_way_back_to_each_state_and_to_the_beginning() -> None:
    """As many steps are done again as lie behind it."""
    rules = trained(3)
    assert paths(rules) == [None, "s0", "s1", "s2"]
    ways = [replayed(rules)]
    while rules.fall_back():
        ways.append(replayed(rules))
    assert ways == [[], [6, 7], [3, 4, 6, 7], [0, 1, 3, 4, 6, 7]]
    assert rules.checkpoint is None


def test_a_bound_number_of_ways_back_is_held() -> None:
    """The oldest go first."""
    assert paths(trained(4, generations=2)) == ["s1", "s2", "s3"]
    assert sorted(trained(4, generations=2).held()) == [6, 7, 9, 10]


def test_a_state_that_is_gone_is_passed_over() -> None:
    """What lay before it and what lay behind it are both done again; others are not touched."""
    rules = trained(3)
    rules.lose(5)
    rules.lose(1)
    assert paths(rules) == [None, "s0", "s2"]
    assert rules.fall_back()
    assert (rules.checkpoint and rules.checkpoint.path, replayed(rules)) == ("s0", [3, 4, 6, 7])


def test_behind_the_oldest_state_that_is_gone_there_is_nothing() -> None:
    """What came before it is not held any more."""
    rules = trained(3, generations=2)
    rules.lose(2)
    assert paths(rules) == ["s1", "s2"]
    assert sorted(rules.held()) == [6, 7]


def test_what_is_older_than_a_state_can_be_let_go() -> None:
    """That state stays a way back, and what follows it is held."""
    rules = trained(4)
    rules.trim(5)
    assert paths(rules) == ["s1", "s2", "s3"]
    assert sorted(rules.held()) == [6, 7, 9, 10]
    rules.trim(11)
    assert paths(rules) == ["s3"]
    assert rules.records == rules.held() == {}
    assert not rules.fall_back()
