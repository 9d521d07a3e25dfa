"""What is told of other people's servers is judged rightly; seen on our own, which needs no installation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.contract import crash, launch
from tests.contract.servers.tiny_model import write_tiny_model
from tests.contract.smoke import batch
from tinker_actors.testing import Exchange, Recording

SERVER = launch.Server(
    url="http://127.0.0.1:9", base_model="m", api_key="tml-dummy", capability="tuft", log=Path("none.log")
)


def recorded(batches: str) -> Recording:
    """Record gradients of these batches on one model, each with the outcome that was asked for."""
    recording = Recording()
    for number, content in enumerate(batches):
        for path, fields, reply in (
            ("forward_backward", {"model_id": "m"}, {"request_id": str(number)}),
            ("retrieve_future", {"request_id": str(number)}, {"type": "done"}),
        ):
            exchange = Exchange(
                number=len(recording.exchanges), at=0.0, method="POST", path=f"/api/v1/{path}"
            )
            exchange.fields, exchange.reply, exchange.status = fields, reply, 200
            exchange.content = content
            recording.exchanges.append(exchange)
    return recording


def run(batches: str, probe: float, state: int = 3) -> crash.Run:
    """Make what became of a run."""
    return crash.Run(
        recording=recorded(batches), model_id="m", logprobs=np.array([probe, -1.0]), state={"steps": state}
    )


async def test_a_run_that_did_everything_once_holds() -> None:
    """Lineage, state and probe are those of the undisturbed run, within the noise of two."""
    verdict = await crash.judge(SERVER, (run("abc", -2.0), run("abc", -2.001)), run("abc", -2.002))
    assert crash.holds(verdict)
    assert (verdict["updates"], verdict["noise"]) == (3, pytest.approx(0.001))


@pytest.mark.parametrize(
    ("batches", "probe", "state", "wrong"),
    [
        ("abbc", -2.0, 3, "doubled"),
        ("ac", -2.0, 3, "missing"),
        ("acb", -2.0, 3, "in_order"),
        ("abc", -2.1, 3, "within_noise"),
        ("abc", -2.0, 2, "state_equal"),
    ],
)
async def test_a_run_that_did_not_does_not_hold(batches: str, probe: float, state: int, wrong: str) -> None:
    """Each way to be wrong is seen, and by its name."""
    verdict = await crash.judge(SERVER, (run("abc", -2.0), run("abc", -2.001)), run(batches, probe, state))
    assert not crash.holds(verdict)
    assert verdict[wrong] == (1 if wrong in {"doubled", "missing"} else False)


def test_kills_are_drawn_by_the_seed() -> None:
    """Each at a step of its own, none at the last one."""
    kills = crash.draw_kills(3, 24, 5)
    assert kills == crash.draw_kills(3, 24, 5)
    steps = [kill.step for kill in kills if not kill.starting]
    assert (steps, len(steps), max(steps) < 23) == (sorted(set(steps)), 4, True)
    (again,) = (number for number, kill in enumerate(kills) if kill.starting)
    assert kills[again].step == kills[again - 1].step


def test_the_tiny_model_is_the_same_each_time(tmp_path: Path) -> None:
    """Two folders hold the same bytes, and one that is there is left alone."""
    for name in ("one", "two"):
        write_tiny_model(tmp_path / name)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert "model.safetensors" in names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    before = (tmp_path / "one" / "model.safetensors").stat().st_mtime_ns
    write_tiny_model(tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").stat().st_mtime_ns == before


def test_batches_are_the_same_each_time() -> None:
    """What is trained depends on the step's number alone, and every token is in each model's vocabulary."""
    tokens = [datum.model_input.to_ints() for datum in batch(3)]
    assert (
        tokens
        == [datum.model_input.to_ints() for datum in batch(3)]
        != [datum.model_input.to_ints() for datum in batch(4)]
    )
    assert all(3 <= token < 60 for one in tokens for token in one)


@pytest.mark.slow
def test_a_run_on_our_own_service_survives_kills(slow_count: Callable[[int], int]) -> None:
    """The whole procedure, as `make crash-skyrl` and `make crash-tuft` carry it out on theirs."""
    kills = slow_count(3)
    command = [sys.executable, str(Path(crash.__file__)), "own", "--steps", "12", "--kills", str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert (verdict["client_kills"], verdict["doubled"], verdict["missing"]) == (kills, 0, 0)
