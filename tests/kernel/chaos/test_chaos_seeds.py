"""Whole trees under random programs, each from a seed; see runner.py for what is promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [
    pytest.mark.scenario(49),
    pytest.mark.rule("A1", "A2", "A3", "A4", "M4", "C1", "K1", "O1", "O3", "N5"),
]


@pytest.mark.requirement("R118")
def test_a_thousand_programs_break_no_promise(runner: Any) -> None:
    """Whatever is sent, cancelled, crashed, restarted, resized and stopped: every promise is kept."""
    for seed in range(1000):
        runner.play(seed)


@pytest.mark.slow
def test_ten_thousand_more_programs_break_no_promise(runner: Any, slow_count: Callable[[int], int]) -> None:
    """The same promises, for other seeds."""
    for seed in range(1000, 1000 + slow_count(10_000)):
        runner.play(seed)


@pytest.mark.parametrize("seed", [1, 5, 173, 1450, 2613, 11808, 11967])
def test_programs_that_once_broke_a_promise(runner: Any, seed: int) -> None:
    """Seeds under which a message disappeared, lied, was counted twice, or hung, stay in line."""
    runner.play(seed)


@pytest.mark.rule("T4")
def test_a_seed_is_a_run(runner: Any) -> None:
    """Played twice, a seed begins the same messages the same number of times, with the same ends."""
    for seed in range(5):
        first, second = runner.play(seed), runner.play(seed)
        assert first.begun == second.begun
        assert list(map(repr, first.results.items())) == list(map(repr, second.results.items()))
        assert first.letters == second.letters
