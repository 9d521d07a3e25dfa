"""The main job: it learns, it loses its model, and the loss changes nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from click.testing import CliRunner
from rich.console import Console

from tinker_actors.cli import command
from tinker_actors.cli.addition import Problem, centred, datum, problems, reward, sample_seed
from tinker_actors.cli.demo import Result, choose_kill
from tinker_actors.cli.display import curve, describe, open_display
from tinker_actors.cli.grpo import Plan, StepReport
from tinker_actors.protocol.event import ActorFailed, HeartbeatMissed, ModelLostEvent, ModelRestored
from tinker_actors.types import SampledSequence


def run_demo(*arguments: str) -> dict[str, Any]:
    """Run the demo in a process of its own and return its last line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tinker_actors.cli", "demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["output"] = done.stdout
    return result


def test_a_short_demo_survives_a_kill_and_tells_it() -> None:
    """The lines say what happened, the last one is JSON, and the hash is that of the undisturbed run."""
    killed = run_demo("--steps", "12", "--kill-at", "9")
    calm = run_demo("--steps", "12", "--no-kill")
    assert list(killed)[:-1] == [field.name for field in attrs.fields(Result)]
    assert (killed["backend"], killed["steps"], killed["restarts"], calm["restarts"]) == ("local", 12, 1, 0)
    assert killed["weights_sha256"] == calm["weights_sha256"]
    assert killed["samples"] == calm["samples"] == 12 * Plan().groups * Plan().group_size
    assert "!! step 9: the service dropped model" in killed["output"]
    assert "restored as" in killed["output"]


@pytest.mark.slow
def test_the_demo_learns() -> None:
    """In the default demo the reward rises by a quarter, though the model is lost."""
    result = run_demo()
    assert result["restarts"] >= 1
    assert result["reward_end"] - result["reward_start"] >= 0.25


@pytest.mark.slow
def test_the_demo_is_repeatable() -> None:
    """Two runs end with the same weights, and lose their model at the same moment; a short one shows it."""
    first, second = run_demo("--steps", "40"), run_demo("--steps", "40")
    assert first["restarts"] == second["restarts"] == 1
    assert first["weights_sha256"] == second["weights_sha256"]


@pytest.mark.slow
def test_no_moment_of_the_kill_changes_the_weights(slow_count: Callable[[int], int]) -> None:
    """Ten values of --kill-at end with the weights of the run without a kill."""
    calm = run_demo("--steps", "40", "--no-kill")
    moments = [1, 2, 10, 11, 14, 20, 25, 33, 39, 40]
    for moment in moments[: slow_count(len(moments))]:
        killed = run_demo("--steps", "40", "--kill-at", str(moment))
        assert killed["restarts"] == 1, moment
        assert killed["weights_sha256"] == calm["weights_sha256"], moment


def test_the_kill_comes_some_steps_after_a_checkpoint() -> None:
    """For every seed and length, at least three finished steps lie between the saved state and the kill."""
    for seed in range(50):
        for steps in (30, 100, 300):
            plan = Plan(seed=seed, steps=steps)
            kill = choose_kill(plan)
            assert kill is not None
            assert plan.checkpoint_every < kill <= steps
            assert (kill - 1) % plan.checkpoint_every >= 3
    assert choose_kill(Plan(steps=5)) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--kill-at", "5", "--no-kill"],
        ["--kill-at", "50", "--steps", "10"],
        ["--kill-at", "5", "--base-url", "http://x"],
        ["--steps", "0"],
    ],
)
def test_contradicting_options_are_usage_errors(arguments: list[str]) -> None:
    """Nothing is started for options that make no sense."""
    result = CliRunner().invoke(command, ["demo", *arguments])
    assert result.exit_code == 2
    assert "Usage" in result.output


@pytest.mark.slow
def test_an_unreachable_service_is_one_line_and_a_status() -> None:
    """No trace for what the user can mend."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tinker_actors.cli",
            "demo",
            "--base-url",
            "http://127.0.0.1:1",
            "--steps",
            "1",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error: client_config: base_url = 'http://127.0.0.1:1': cannot connect" in done.stderr
    assert "Traceback" not in done.stderr


def test_rewards_and_advantages() -> None:
    """Right answers earn 1, anything else 0; advantages of a group add up to nothing."""
    problem = Problem("2+3=", "5")
    assert [reward(problem, text) for text in ("5\n", "5", "55\n", " 5\n", "6\n")] == [1, 0, 0, 0, 0]
    assert centred([1, 0, 0, 1]) == [0.5, -0.5, -0.5, 0.5]
    assert problems(1, 2, 5) == problems(1, 2, 5) != problems(1, 3, 5)
    assert len({sample_seed(0, step, group) for step in range(20) for group in range(20)}) == 400
    rng = random.Random(0)
    assert all(eval(p.prompt[:-1]) == int(p.answer) for p in problems(rng.getrandbits(8), 1, 50))


def test_the_loss_sees_the_sampled_tokens_only() -> None:
    """Prompt targets have no advantage; the shift is right."""
    import numpy as np

    sequence = SampledSequence("stop", np.array([7, 8], np.int32), np.array([-0.5, -0.25], np.float32))
    example = datum([1, 2, 3], sequence, 0.75)
    assert example.model_input.to_ints() == [1, 2, 3, 7]
    assert example.loss_fn_inputs["target_tokens"].tolist() == [2, 3, 7, 8]
    assert example.loss_fn_inputs["logprobs"].tolist() == [0, 0, -0.5, -0.25]
    assert example.loss_fn_inputs["advantages"].tolist() == [0, 0, 0.75, 0.75]


def test_the_curve_is_as_wide_as_asked_and_rises_with_its_values() -> None:
    """Values outside 0 to 1 are drawn at the edge; empty is empty."""
    assert curve([]) == ""
    assert curve([0.0, 0.5, 1.0, 2.0, -1.0]) == "▁▅██▁"
    assert len(curve([i / 99 for i in range(100)], width=10)) == 10


def test_events_are_told_in_plain_words() -> None:
    """What the demo shows of a loss; other events are not its business."""
    lost = describe(ModelLostEvent("s:train:0", "404", 3), 57)
    assert lost == "!! step 57: the service dropped model s:train:0 with 3 operations in flight"
    restored = describe(ModelRestored("a", "b", None, 4, 2), 57)
    assert restored == "   restored as b from its seed: 4 operations (2 steps) sent again"
    assert describe(ActorFailed("service/x", "e", None), 1) == "   service/x has failed; it is given up"
    assert describe(HeartbeatMissed("s", 130), 1) is None


@pytest.mark.parametrize("terminal", [True, False])
def test_both_displays_show_reward_version_and_rate(terminal: bool) -> None:
    """In a terminal a bar, elsewhere lines; model ids are not turned into pictures."""
    console = Console(record=True, force_terminal=terminal, width=160, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123 - closed below
    with open_display(console, 20) as display:
        for step in range(1, 21):
            display.step(StepReport(step, 0.5, 8, step, None), [0.5] * step, 123.0)
        display.line("model s:train:0")
    console.file.close()
    text = console.export_text()
    for shown in ("20/20", "reward 0.50", "policy v20", "123 samples/s", "s:train:0"):
        assert shown in text
