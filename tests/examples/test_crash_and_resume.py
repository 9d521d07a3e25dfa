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
