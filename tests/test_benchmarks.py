"""The benchmarks run and compare as they say. No number is judged here: that would be a test of the machine."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    """Run benchmarks/stub.py; its address."""
    command = [sys.executable, str(BENCHMARKS / "stub.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()


SAMPLES = {"cpu_ms", "per_second", "burst_s", "peak_mb"}


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        ("sample --count 8 --in-flight 4 --prompt 8 --tokens 4", SAMPLES),
        ("sample --count 8 --in-flight 4 --prompt 8 --tokens 4 --way client", SAMPLES),
        ("sample --count 8 --in-flight 4 --prompt 8 --tokens 4 --way stock", SAMPLES),
        ("batch --kind rl --count 2 --datums 3 --length 8", {"cpu_ms", "mb_per_second", "peak_mb"}),
        ("step --count 3 --datums 2 --length 8", {"cpu_ms", "step_ms", "out_of_order", "peak_mb"}),
    ],
)
def test_our_client_runs_on_the_stub(stub: str, arguments: str, reported: set[str]) -> None:
    """Each scenario ends with a line of JSON that holds what it is there for, on every way; nothing is out of order."""
    command = [sys.executable, str(BENCHMARKS / "transport_ours.py"), *arguments.split(), "--url", stub]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert set(numbers) == reported
    assert numbers.pop("out_of_order", 0) == 0
    assert all(value > 0 for value in numbers.values())


def test_transport_names_its_scenarios() -> None:
    """A scenario that is none is refused with the list of all of them."""
    command = [
        sys.executable,
        str(BENCHMARKS / "transport.py"),
        "--official",
        sys.executable,
        "--only",
        "sell",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    for name in ("sample", "tls", "sft", "rl", "step", "step_zero", "growth", "client"):
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


@pytest.mark.slow
def test_the_event_file_is_measured_in_parts_and_as_a_whole() -> None:
    """By rate: what its parts take, and what the process takes with it and without."""
    command = [sys.executable, str(BENCHMARKS / "event_file.py"), "--rates", "20", "--seconds", "1"]
    done = subprocess.run([*command, "--rounds", "2"], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == ["20"]
    numbers = found["20"]
    assert set(numbers) == {
        *("percent", "difference", "give_or_take", "plain", "messages_per_s", "bytes_per_s")
    }
    assert all(numbers[name] > 0 for name in ("percent", "plain", "messages_per_s", "bytes_per_s"))


# --- the journal -----------------------------------------------------------------------------------------


def run_journal(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run benchmarks/journal.py as its users do."""
    command = [sys.executable, str(BENCHMARKS / "journal.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_journal_measures_what_it_says() -> None:
    """The last line holds every number, also where the medium is waited for."""
    done = run_journal("--quick", "--machine")
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("tinker_actors: ") for line in done.stderr.splitlines()), done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {
        *(
            "step_cpu_ms",
            "body_ms",
            "body_cpu_ms",
            "body_grow_ms",
            "body_loop_ms",
            "share",
            "share_strict",
            "share_run",
        ),
        *("open_s", "open_none_s", "disk_mb"),
    }
    assert all(math.isfinite(number) for number in found.values())


def test_journal_names_what_there_is() -> None:
    """A name that is none is refused with the list of all of them."""
    done = run_journal("--only", "step,sell")
    assert done.returncode == 2
    for name in ("sell", "step", "body", "share", "open"):
        assert name in done.stderr
