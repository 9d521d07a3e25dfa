"""Broken inputs: a few hundred for each reader, and that the tool finds what it looks for."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tinker_actors.errors import DecodeError

TOOLS = Path(__file__).parents[2] / "tools"
NAMES = ("sse", "json", "protobuf", "compression", "retry_headers", "poll_answers", "secrets")


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load tools/fuzz.py: scripts lie beside each other, not in a package."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("fuzz")


def planted(fuzz: ModuleType, run) -> list[tuple[str, str]]:
    """Return what 20 inputs of a target that does this come to."""
    target = fuzz.Target("planted", 100, lambda rng: (rng.randbytes(4),), run)
    found = [fuzz.attempt(target, 0, number) for number in range(20)]
    return [(type(failure.error).__name__, str(failure.error)) for failure in found if failure is not None]


@pytest.mark.parametrize("name", NAMES)
def test_broken_inputs_raise_only_our_own_errors(fuzz, name) -> None:
    """Nothing else comes out of any reader, none hangs, and none takes much memory."""
    failures = fuzz.run(300, 2, [name])
    assert [(failure.number, failure.error) for failure in failures] == []


def test_every_target_is_tried_here(fuzz) -> None:
    """A target that is added gets its quick run as well, and the shares add up to the whole."""
    assert tuple(target.name for target in fuzz.TARGETS) == NAMES
    assert sum(target.weight for target in fuzz.TARGETS) == 100
    assert sum(part for _, part in fuzz.shares(12_345, [])) == 12_345


def test_an_input_is_made_of_seed_and_number_alone(fuzz) -> None:
    """So a failure is found again, whatever came before it."""
    for target in fuzz.TARGETS:
        cases = [repr(target.make(random.Random("1:x:7"))) for _ in range(2)]
        assert cases[0] == cases[1]


def test_an_error_that_is_not_ours_is_a_failure(fuzz) -> None:
    """And one that is ours is none."""

    def fail(case: tuple[bytes]) -> None:
        raise (DecodeError("x", ["y"]) if case[0][0] % 2 else KeyError("foreign"))

    found = planted(fuzz, fail)
    assert 0 < len(found) < 20
    assert {name for name, _ in found} == {"KeyError"}


def test_an_input_that_hangs_is_a_failure(fuzz, monkeypatch) -> None:
    """It is ended when it has used up its time of the processor."""
    monkeypatch.setattr(fuzz, "LIMIT", 0.02)
    target = fuzz.Target("planted", 100, lambda rng: (), spin)
    monkeypatch.setattr(fuzz, "TARGETS", (target,))
    assert [type(failure.error).__name__ for failure in fuzz.run(2, 0)] == ["Hung", "Hung"]


def spin(_: object) -> None:
    while True:
        pass


def test_an_input_that_takes_much_memory_is_a_failure(fuzz) -> None:
    """Of every so many inputs one is measured, the first among them."""
    found = planted(fuzz, lambda case: len(bytes(64 << 20)))
    assert [name for name, _ in found] == ["Broken", "Broken"]
    assert "MiB" in found[0][1]


def test_the_last_line_of_the_command_is_a_summary() -> None:
    """JSON with the inputs and failures of each target; the status is 0 if there were none."""
    command = [sys.executable, str(TOOLS / "fuzz.py"), "--count", "50", "--seed", "3"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    line = json.loads(result.stdout.splitlines()[-1])
    assert (line["inputs"], line["failures"]) == (50, 0)
    assert tuple(line["by_target"]) == NAMES
