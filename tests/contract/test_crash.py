"""What is told of other people's servers is judged rightly; seen on our own, which needs no installation."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import trio
import trio.testing

from tests.contract import crash, launch, verdict
from tests.contract.servers.tiny_model import write_tiny_model
from tests.contract.smoke import batch
from tests.contract.verdict import Run
from tinker_actors.testing import Exchange, Recording

SERVER = launch.Server(
    url="http://127.0.0.1:9", base_model="m", api_key="tml-dummy", capability="tuft", log=Path("none.log")
)


PROBE = "?"
LOGPROBS = (-2.0, -1.0)


def recorded(events: str) -> Recording:
    """Record what was asked of model `m`: a letter is a step with that batch, each outcome asked for.

    Others stand for: `+` another step of the optimizer, `!` a gradient without an answer, `?` the probe, `x` a probe of
    another batch, `<` a checkpoint that nobody saved.
    """
    recording = Recording()
    for one in events:
        match one:
            case "?" | "x":
                add(recording, "forward", one)
            case "+":
                add(recording, "optim_step", "adam")
            case "!":
                add(recording, "forward_backward", one, status=None)
            case "<":
                add(recording, "load_weights", path="tinker://elsewhere")
            case _:
                add(recording, "forward_backward", one)
                add(recording, "optim_step", "adam")
    return recording


def add(
    recording: Recording, endpoint: str, content: str = "", status: int | None = 200, **fields: str
) -> None:
    """Add a request, and a poll that got its outcome."""
    promise = {"request_id": str(len(recording.exchanges))}
    note(recording, endpoint, content, {"model_id": "m", **fields}, {} if status is None else promise, status)
    note(recording, "retrieve_future", "", promise, {"type": "done"})


def note(
    recording: Recording,
    endpoint: str,
    content: str,
    fields: dict[str, str],
    reply: dict[str, str],
    status: int | None = 200,
) -> None:
    """Note a request and its answer."""
    number, path = len(recording.exchanges), f"/api/v1/{endpoint}"
    exchange = Exchange(
        number=number, at=0.0, method="POST", path=path, fields=fields, content=content, status=status
    )
    exchange.reply = reply
    recording.exchanges.append(exchange)


def run(events: str = "abc?", logprobs: Sequence[float] = LOGPROBS, state: int = 3, **more: Any) -> Run:
    """Make what became of a run."""
    more = {"before": np.array([-3.0, -1.0]), "state": {"steps": state}, "kills": 2, **more}
    return Run(recording=recorded(events), model_id="m", logprobs=np.array(logprobs), **more)


async def verdict_on(killed: Run, first: Run | None = None, second: Run | None = None) -> dict[str, Any]:
    """Judge a run beside two undisturbed ones, which differ by 0.001."""
    undisturbed = first or run(), second or run(logprobs=(-2.001, -1.0))
    return await verdict.judge(SERVER, undisturbed, killed, [frozenset(one) for one in "abc"])


async def test_a_run_that_did_everything_once_holds() -> None:
    """Lineage, state and probe are those of the undisturbed run, within the noise of two."""
    told = await verdict_on(run(logprobs=(-2.002, -1.0)))
    assert verdict.holds(told, kills=2)
    assert (told["updates"], told["noise"], told["last_step"]) == (6, pytest.approx(0.001), 1.0)


@pytest.mark.parametrize(
    ("killed", "wrong"),
    [
        (run("abbc?"), "doubled"),
        (run("ac?"), "missing"),
        (run("abb?"), "missing"),
        (run("abc+?"), "doubled"),
        (run("acb?"), "in_order"),
        (run("<abc?"), "doubled"),
        (run("ab!c?"), "unanswered"),
        (run(""), "missing"),
        (run(logprobs=(-2.1, -1.0)), "within_noise"),
        (run(logprobs=(float("nan"), -1.0)), "within_noise"),
        (run(logprobs=(-2.0,)), "within_noise"),
        (run(logprobs=()), "probed"),
        (run("abc"), "probed"),
        (run("ab?c"), "probed"),
        (run("abcx"), "probed"),
        (run(state=2), "state_equal"),
        (run(state=4), "state_equal"),
    ],
)
async def test_a_run_that_did_not_does_not_hold(killed: Run, wrong: str) -> None:
    """Each way to be wrong is seen, and by its name."""
    told = await verdict_on(killed)
    assert not verdict.holds(told, kills=2)
    assert bool(told[wrong]) == (wrong in {"doubled", "missing", "unanswered"})


@pytest.mark.parametrize("events", ["", "abb?", "abbc?", "ab?", "acb?", "abd?", "abc+?"])
async def test_runs_that_are_wrong_alike_do_not_hold(events: str) -> None:
    """That all did the same is not enough: what nobody disturbed is held to the steps that there should be."""
    told = await verdict_on(run(events), first=run(events))
    assert not verdict.holds(told, kills=2)
    assert not told["undisturbed_right"]


async def test_runs_that_never_made_the_probe_do_not_hold() -> None:
    """Nothing is within the noise of nothing."""
    silent = run("abc", logprobs=(), before=np.zeros(0))
    told = await verdict_on(silent, first=silent, second=silent)
    assert not verdict.holds(told, kills=2)
    assert (told["probed"], told["within_noise"], told["telling"]) == (False, False, False)


@pytest.mark.parametrize(
    ("before", "logprobs"), [(LOGPROBS, LOGPROBS), ((-2.5, -1.0), (-1.7, -1.0)), ((), LOGPROBS)]
)
async def test_a_probe_that_cannot_tell_a_step_does_not_hold(
    before: Sequence[float], logprobs: Sequence[float]
) -> None:
    """A server whose runs differ by as much as a step makes of the weights proves nothing."""
    told = await verdict_on(run(), first=run(before=np.array(before)), second=run(logprobs=logprobs))
    assert not verdict.holds(told, kills=2)
    assert (told["within_noise"], told["telling"]) == (True, False)


def test_a_step_is_known_by_its_batch() -> None:
    """What is looked for on the wire differs from step to step."""
    assert len(frozenset.union(*(verdict.digests(step) for step in range(24)))) == 48


@pytest.mark.parametrize("kills", [1, 3])
async def test_a_run_that_was_not_killed_as_often_as_asked_does_not_hold(kills: int) -> None:
    """However right it is: a kill that came too late is none."""
    assert not verdict.holds(await verdict_on(run()), kills)


@pytest.mark.parametrize(
    ("reply", "failed"),
    [
        ((409, {"detail": "expected 3, got 2"}), {"7"}),
        ((500, {"error": "in trouble"}), set()),
        ((404, {"error": "not known"}), set()),
        ((200, {"type": "done"}), set()),
    ],
)
async def test_outcomes_that_nobody_asked_for_are_asked_for(
    reply: tuple[int, dict[str, str]],
    failed: set[str],
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A promise has failed if the server says so at last, and not if it is in trouble or knows nothing of it."""
    answers = [(200, {"type": "try_again"}), (408, {}), reply]

    async def poll(client: httpx.AsyncClient, promise: str) -> Exchange:
        await trio.sleep(1)
        fields, (status, said) = {"request_id": promise}, answers.pop(0)
        path = "/api/v1/retrieve_future"
        return Exchange(number=0, at=0.0, method="POST", path=path, fields=fields, status=status, reply=said)

    recording = recorded("a")
    note(recording, "optim_step", "adam", {"model_id": "m"}, {"request_id": "7"})
    monkeypatch.setattr(verdict, "poll", poll)
    assert await verdict.failed_promises(SERVER, recording) == failed
    assert not answers
    assert trio.current_time() == pytest.approx(3.2)


TALE = """
import json, os, pathlib, sys, time

here = pathlib.Path(sys.argv[1])
lives = here / "lives"
number = len(lives.read_text()) if lives.exists() else 0
lives.write_text("x" * (number + 1))
print(json.dumps({"resumed": {"how": "fresh" if number == 0 else "attached"}}), flush=True)
for step in range(3 if number == 0 else 0):
    print(json.dumps({"step": step}), flush=True)
print(json.dumps({"model_id": f"m{number}", "state": {"steps": 3}, "logprobs": [0], "before": [1]}), flush=True)
"""


@pytest.mark.parametrize("starting", [False, True])
async def test_a_kill_that_comes_too_late_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starting: bool
) -> None:
    """A run that has ended before its kill is started again, and killed; what it ends with comes after all of them."""
    tale = tmp_path / "tale.py"
    tale.write_text(TALE)
    options = crash.parse(["own", "--steps", "3", "--kills", "2"])
    player = crash.Player(SERVER, tmp_path / "run", options)
    command = [sys.executable, str(tale), str(tmp_path)]
    monkeypatch.setattr(player, "_command", lambda proxy: command)
    kills = [crash.Kill(0, 1e6), crash.Kill(0, 0.5, starting=starting)]
    undisturbed = Run(start_seconds=0.5, steps_began=[0.0, 1.0, 2.0])
    ended = await player.play(kills, undisturbed)
    lives = len((tmp_path / "lives").read_text())
    assert (ended.kills, ended.model_id) == (2, f"m{lives - 1}")


async def test_a_run_that_fails_after_its_result_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that ends by itself must have ended well."""
    tale = tmp_path / "tale.py"
    tale.write_text(TALE + "raise SystemExit('no')")
    player = crash.Player(SERVER, tmp_path / "run", crash.parse(["own", "--steps", "3", "--kills", "0"]))
    monkeypatch.setattr(player, "_command", lambda proxy: [sys.executable, str(tale), str(tmp_path)])
    with pytest.raises(RuntimeError, match=r"ended by itself(.|\n)*no"):
        await player.play()


def test_more_kills_than_steps_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Each kill has a step of its own, so there must be enough of them."""
    with pytest.raises(SystemExit):
        crash.parse(["own", "--steps", "4", "--kills", "5"])
    assert "a step of its own" in capsys.readouterr().err


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
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["client_kills"], told["doubled"], told["missing"]) == (kills, 0, 0)
