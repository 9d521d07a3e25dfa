"""The benchmarks run and compare as they say. No number is judged here: that would be a test of the machine."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run_kernel(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run benchmarks/kernel.py as its users do."""
    command = [sys.executable, str(BENCHMARKS / "kernel.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pairs() -> Any:
    """Load benchmarks/pairs.py: scripts lie beside each other, not in a package."""
    spec = importlib.util.spec_from_file_location("benchmarks_pairs", BENCHMARKS / "pairs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # attrs looks its classes up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_kernel_prints_a_table_and_ends_with_json() -> None:
    """The last line holds what was asked for, in positive numbers, and the table above has a line for each."""
    done = run_kernel("--quick", "--only", "tell,ask", "--pairs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    *table, last = done.stdout.splitlines()
    found = json.loads(last)
    assert list(found) == ["tell", "ask"]
    assert all(isinstance(ratio, float) and 0 < ratio < math.inf for ratio in found.values())
    assert [line.split()[0] for line in table[-2:]] == ["tell", "ask"]


def test_kernel_names_what_there_is() -> None:
    """A name that is none is refused with the list of all of them."""
    done = run_kernel("--only", "tell,sell")
    assert done.returncode == 2
    assert "sell" in done.stderr
    for name in (
        *("tell", "ask", "ask_100", "ask_deadline", "pool_ask", "pykka", "triotp"),
        *("actor_kb", "actors_10k_mb", "restart_us", "counters", "hooks"),
    ):
        assert name in done.stderr


def test_pairs_are_interleaved_and_compared_one_by_one(pairs: Any) -> None:
    """After a run of each that does not count, sides go first in turn; the ratio is the median of the pairs' own."""
    order: list[str] = []
    seconds = {"ours": iter([9.0, 1.0, 1.0, 4.0]), "theirs": iter([9.0, 2.0, 8.0, 4.0])}

    def side(name: str) -> Any:
        def run(count: int) -> float:
            order.append(f"{name} {count}")
            return next(seconds[name])

        return run

    found = pairs.measure("example", pairs.Pair(side("ours"), side("theirs"), 80), 3)
    assert order[:2] == ["ours 8", "theirs 8"]
    first, second = ["ours 80", "theirs 80"], ["theirs 80", "ours 80"]
    assert order[2:] == [*first, *second, *first]
    assert found == pairs.Comparison(ours=80.0, theirs=20.0, ratio=2.0)
