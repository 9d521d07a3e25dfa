"""Saved states that one process does without, and the next one finds again."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.journal.doing import abandon, killed, opened, saved, step
from tinker_actors.journal.durable import DurableJournal


def tokens_of(journal: DurableJournal) -> list[int]:
    """Return the batches that would be sent again, each by its token."""
    found = []
    for record in journal.replay():
        if record.operation.kind == "forward_backward":
            operation = trio.run(journal.read, record)
            found.append(operation.data[0].model_input.to_ints()[0])
    return found


def test_it_is_out_of_this_process_and_in_the_next(tmp_path: Path) -> None:
    """The one before it takes its place, with all that came since; in the table it is as it was."""
    journal = opened(tmp_path)
    for number, name in enumerate("ab"):
        step(journal, number)
        saved(journal, name, verified=True)
    step(journal, 2)
    assert journal.fall_back(gone=False)
    assert [one and one.path for one in journal.starts] == ["tinker://a"]
    assert tokens_of(journal) == [1, 2]
    assert [one.state for one in journal.checkpoints] == ["verified", "verified"]
    journal.describe("b", metric=1.0)
    journal = killed(journal, tmp_path)
    assert [one and one.path for one in journal.starts] == ["tinker://a", "tinker://b"]
    assert tokens_of(journal) == [2]
    assert journal.fall_back(gone=False)
    assert tokens_of(journal) == [1, 2]
    abandon(journal)


def test_later_states_do_not_count_it_as_one_of_the_two(tmp_path: Path) -> None:
    """What is used stays until two newer ones of use are verified; then what was left out goes as well."""
    journal = opened(tmp_path)
    for number, name in enumerate("ab"):
        step(journal, number)
        saved(journal, name, verified=True)
    assert journal.fall_back(gone=False)
    for number, name in ((2, "c"), (3, "d")):
        step(journal, number)
        saved(journal, name, verified=True)
        paths = [one and one.path for one in journal.starts]
        assert paths == (["tinker://a", "tinker://c"] if name == "c" else ["tinker://c", "tinker://d"])
    journal = killed(journal, tmp_path)
    assert [one and one.path for one in journal.starts] == ["tinker://c", "tinker://d"]
    abandon(journal)


@pytest.mark.parametrize("what", ["older", "step"])
def test_it_goes_when_something_before_it_does(tmp_path: Path, what: str) -> None:
    """An older state whose operations went with it, or a step that came to nothing when it was sent again."""
    journal = opened(tmp_path)
    positions: list[int] = []
    for number, name in enumerate("abc"):
        positions = step(journal, number)
        saved(journal, name, verified=name < "c")
    assert journal.fall_back(gone=False)
    if what == "older":
        step(journal, 3)
        saved(journal, "d")
        assert journal.mark("b", "gone")
        assert journal.mark("a", "gone")
    else:
        journal.strike(positions[0])
        journal.strike(positions[1])
    journal = killed(journal, tmp_path)
    paths = [one and one.path for one in journal.starts]
    assert paths == (["tinker://d"] if what == "older" else ["tinker://a", "tinker://b"])
    assert tokens_of(journal) == []
    abandon(journal)


class Program:
    """Does at random what a run does, and knows which steps are in which state."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.journal = opened(folder)
        self.steps: list[int] = []  # the tokens of those that count
        self.held: dict[str, list[int]] = {}  # what each state holds
        self.positions: dict[int, list[int]] = {}
        self.number = 0

    def step(self) -> None:
        self.positions[self.number] = step(self.journal, self.number)
        self.steps.append(self.number)
        self.number += 1

    def save(self) -> None:
        name = f"s{len(self.held)}"
        saved(self.journal, name, verified=self.rng.random() < 0.5)
        self.held[f"tinker://{name}"] = list(self.steps)

    def verify(self) -> None:
        for one in self.journal.checkpoints:
            if one.state == "done" and self.rng.random() < 0.5:
                self.journal.mark(one.name, "verified")

    def fall_back(self) -> None:
        self.journal.fall_back(gone=self.rng.random() < 0.3)

    def lose(self) -> None:
        there = [one.name for one in self.journal.checkpoints if one.state != "gone"]
        if there:
            self.journal.mark(self.rng.choice(there), "gone")

    def strike(self) -> None:
        """Have a step fail that is sent again."""
        again = tokens_of(self.journal)
        if again:
            token = self.rng.choice(again)
            for position in self.positions[token]:
                self.journal.strike(position)
            self.steps.remove(token)

    def die(self) -> None:
        self.journal = killed(self.journal, self.folder)

    def check(self) -> None:
        """Each state that a restore can start from leads to the same steps."""
        again = killed(self.journal, self.folder)
        while True:
            start = again.checkpoint
            before = [] if start is None else self.held[start.path]
            assert before + tokens_of(again) == self.steps
            if not again.fall_back(gone=False):
                break
        self.journal = killed(again, self.folder)


@pytest.mark.parametrize("seed", range(12))
def test_each_state_leads_to_the_same_steps(tmp_path: Path, seed: int) -> None:
    """Whatever was left out, given up, verified and sent again, in one process or the other."""
    program = Program(tmp_path, seed)
    deeds: list[Callable[[], None]] = [
        *[program.step] * 3,
        *[program.save] * 3,
        program.verify,
        *[program.fall_back] * 2,
        program.lose,
        program.strike,
        program.die,
    ]
    for _ in range(25):
        program.rng.choice(deeds)()
        if program.rng.random() < 0.1:
            program.check()
    program.check()
    abandon(program.journal)
