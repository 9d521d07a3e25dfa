"""The example: kills are drawn, counted and survived, and its verdicts are right."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.progress import Progress

from tinker_actors.testing import Exchange, Recording

SCRIPT = Path(__file__).parents[2] / "examples" / "crash_and_resume.py"
CHILD = SCRIPT.parent / "crash" / "child.py"


def load(path: Path) -> ModuleType:
    """Load a script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """Load the script."""
    return load(SCRIPT)


@pytest.fixture(scope="module")
def child() -> ModuleType:
    """Load the script of the run that is killed."""
    return load(CHILD)


@pytest.mark.parametrize("seed", range(5))
def test_kills_are_drawn_by_the_seed(example: ModuleType, seed: int) -> None:
    """As many as asked for, of both kinds, in order, each at a step of its own and none at the last one."""
    kills = example.draw_kills(seed, 60, 20, 3)
    assert kills == example.draw_kills(seed, 60, 20, 3) != example.draw_kills(seed + 1, 60, 20, 3)
    assert [kill.victim for kill in kills].count("run") == 20
    assert [kill.victim for kill in kills].count("service") == 3
    steps = [kill.step for kill in kills if not kill.starting]
    assert steps == sorted(set(steps))
    assert max(steps) < 59
    assert all(0 <= kill.after < 2 for kill in kills)


@pytest.mark.parametrize("seed", range(5))
def test_some_kills_strike_a_run_that_is_starting_again(example: ModuleType, seed: int) -> None:
    """One in five follows another kill of the run, whatever else is drawn."""
    kills = example.draw_kills(seed, 60, 20, 3)
    pairs = [(before, kill) for before, kill in itertools.pairwise(kills) if kill.starting]
    assert len(pairs) == 4
    assert all((before.victim, kill.victim) == ("run", "run") for before, kill in pairs)
    assert not kills[0].starting


def test_the_stream_goes_on_from_its_state(child: ModuleType) -> None:
    """Problems depend on the seed and the batch's number alone, and the state holds both."""
    stream = child.Stream(seed=1, batch=4, asked=9, right=2)
    assert child.Stream.restore(json.loads(json.dumps(asdict(stream))), seed=7) == stream
    assert child.Stream.restore(None, seed=7) == child.Stream(7)
    assert stream.problems("batch", 3) == child.Stream(1, 4).problems("batch", 3)
    assert stream.problems("batch", 3) != child.Stream(1, 5).problems("batch", 3)
    left, right = stream.problems("batch", 1)[0][0].removesuffix("=").split("+")
    assert stream.problems("batch", 1)[0][1] == f"{int(left) + int(right)}\n"


def test_a_torn_line_is_no_record(child: ModuleType, tmp_path: Path) -> None:
    """The newest whole line counts, for a kill may have cut the last one short."""
    records = tmp_path / "checkpoints.jsonl"
    assert child.last_record(records) is None
    records.write_text('{"path": "one"}\n{"path": "two"}\n{"pa', encoding="utf-8")
    assert child.last_record(records) == {"path": "two"}


def played(example: ModuleType, batches: str, **what: Any) -> Any:
    """Make what was recorded of a run that sent these batches."""
    recording = Recording()
    for number, content in enumerate(batches):
        recording.exchanges.append(
            Exchange(
                number=number,
                at=0.0,
                method="POST",
                path="/api/v1/forward_backward",
                fields={"model_id": "m"},
                content=content,
                status=200,
                reply={"request_id": str(number)},
            )
        )
    return example.Played(
        sha256=what.get("sha256", "x"), model_id="m", recording=recording, stream={"batch": 3}
    )


def test_verdicts_count_batches(example: ModuleType) -> None:
    """Twice is doubled, never is missing, and the strip shows where."""
    undisturbed = played(example, "abc")
    same = example.judge(played(example, "abc"), undisturbed)
    assert (same.hash_equal, same.state_equal, same.doubled, same.missing, same.strip) == (
        True,
        True,
        0,
        0,
        (1, 1, 1),
    )
    other = example.judge(played(example, "aabaa", sha256="y"), undisturbed)
    assert (other.hash_equal, other.doubled, other.missing, other.steps_twice) == (False, 3, 1, 3)
    assert other.strip == (4, 1, 0)


def test_a_batch_that_should_not_be_there_is_one_too_many(example: ModuleType) -> None:
    """Whatever is in the weights and not in the undisturbed run counts as doubled."""
    assert example.judge(played(example, "abcd"), played(example, "abc")).doubled == 1


@pytest.mark.parametrize(("batches", "right"), [("abc", True), ("abb", False), ("ab", False), ("", False)])
def test_the_undisturbed_run_is_held_to_its_steps(example: ModuleType, batches: str, right: bool) -> None:
    """What all is compared with must itself have done each step once, or nothing is proved."""
    assert example.each_once(played(example, batches), 3) == right


RIGHT = {
    "client_kills": 4,
    "server_kills": 1,
    "hash_equal": True,
    "state_equal": True,
    "doubled": 0,
    "missing": 0,
    "cookbook": {"client_kills": 4, "server_kills": 1, "hash_equal": False, "doubled": 7},
}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({}, True),
        ({"client_kills": 3}, False),
        ({"client_kills": 5}, False),
        ({"server_kills": 0}, False),
        ({"cookbook": {"client_kills": 3, "server_kills": 1}}, False),
        ({"cookbook": {"client_kills": 4, "server_kills": 0}}, False),
        ({"hash_equal": False}, False),
        ({"state_equal": False}, False),
        ({"doubled": 1}, False),
        ({"missing": 1}, False),
    ],
)
def test_it_fails_if_anything_is_not_as_promised(
    example: ModuleType, wrong: dict[str, Any], right: bool
) -> None:
    """That nothing was lost or doubled is proved by as many kills as were asked for, of every way; else it fails."""
    assert example.right(RIGHT | wrong, example.parse([])) == right


TALE = """
import json, pathlib, sys, time

here = pathlib.Path(sys.argv[sys.argv.index("--folder") + 1])
number = int(sys.argv[sys.argv.index("--start") + 1])
(here / "lives").write_text(str(number))
print(json.dumps({"went_on": "fresh" if number == 1 else "attached"}), flush=True)
for step in range(3 if number == 1 else 0):
    print(json.dumps({"step": step}), flush=True)
print(json.dumps({"sha256": f"of life {number}", "model_id": "m", "stream": {}}), flush=True)
"""


class NoService:
    """A service that is said to be there, and counts its lives."""

    lives = 0
    url = "http://127.0.0.1:9"

    def __init__(self, folder: Path, seed: int) -> None:
        """Take what a real one takes."""

    async def start(self) -> None:
        """Begin a life."""
        NoService.lives += 1

    async def kill(self) -> None:
        """End it."""


@pytest.mark.parametrize("more", ["", "sys.exit(number < 9)"])
async def test_a_kill_that_comes_too_late_is_not_lost(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    """A run that has ended before its kill is started again; the life that ends well has the result."""
    tale = tmp_path / "tale.py"
    tale.write_text(TALE + more)
    monkeypatch.setattr(example, "CHILD", tale)
    monkeypatch.setattr(example, "Service", NoService)
    monkeypatch.setattr(NoService, "lives", 0)
    kills = [
        example.Kill("run", 0, 1e6),
        example.Kill("run", 0, 0.9, starting=True),
        example.Kill("service", 1, 1e6),
        example.Kill("run", 1, 1e6),
    ]
    beside = example.Played(start_seconds=0.5, steps_began=[0.0, 1.0])
    parent = example.Parent("open_run", kills, beside, example.parse(["--steps", "3", "--kills", "1"]))
    with Progress(disable=True) as progress:
        ended = await parent.play(tmp_path / "run", progress, progress.add_task("", total=3))
    lives = int((tmp_path / "run" / "lives").read_text())
    assert (ended.kills, NoService.lives) == ({"run": 3, "service": 1}, 2)
    assert ended.sha256 == f"of life {lives}"


def test_more_kills_than_steps_are_refused(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Each kill has a step of its own, so there must be enough of them."""
    with pytest.raises(SystemExit):
        example.parse(["--steps", "5", "--kills", "5"])
    assert "a step of its own" in capsys.readouterr().err


def play(*arguments: str) -> dict[str, Any]:
    """Run the script; return the JSON object of its last line."""
    command = [sys.executable, "-W", "error", str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_nobody_is_killed_and_all_ways_end_alike() -> None:
    """The three loops send the same steps, so what they differ by under kills is how they go on."""
    result = play("--steps", "12", "--kills", "0", "--server-kills", "0")
    for one in (result, result["checkpoint"], result["cookbook"]):
        assert (one["hash_equal"], one["state_equal"], one["doubled"], one["missing"]) == (True, True, 0, 0)
        assert (one["steps_twice"], one["samples_twice"], one["seconds_lost"]) == (0, 0, 0.0)


@pytest.mark.slow
def test_a_run_survives_where_others_do_not(slow_count: Callable[[int], int]) -> None:
    """Nothing is doubled or missing, weights and state are the undisturbed run's, and the cookbook's rule doubles."""
    # However few: the last kill comes behind the first checkpoint, at step 10.
    steps, kills, seed = (24, 2, 0) if slow_count(24) == 24 else (16, 1, 11)
    arguments = {"--steps": steps, "--kills": kills, "--server-kills": 1, "--seed": seed}
    result = play(*(str(word) for pair in arguments.items() for word in pair))
    assert (result["client_kills"], result["server_kills"], result["steps"]) == (kills, 1, steps)
    assert (result["doubled"], result["missing"]) == (0, 0)
    assert (result["hash_equal"], result["state_equal"]) == (True, True)
    assert (result["checkpoint"]["hash_equal"], result["checkpoint"]["doubled"]) == (True, 0)
    assert (result["cookbook"]["hash_equal"], result["cookbook"]["doubled"] > 0) == (False, True)


@pytest.mark.slow
def test_its_short_form_kills_each_once() -> None:
    """It looks at `open_run` alone, and at both kills."""
    result = play("--quick")
    assert (result["client_kills"], result["server_kills"], result["hash_equal"]) == (1, 1, True)
    assert "cookbook" not in result
