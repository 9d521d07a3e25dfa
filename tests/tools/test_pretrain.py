from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from tinker_actors.local.model import BaseModel
from tinker_actors.local.tokenizer import character_tokenizer
from tinker_actors.local.transformer import ModelConfig

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "pretrain.py"
pretrain = runpy.run_path(str(TOOL))
WORDS = ["lamp", "stone", "river"]


@pytest.mark.parametrize("name", list(pretrain["TASKS"]))
def test_answers_are_right(name: str) -> None:
    """Every task's answer follows from its prompt."""
    random = np.random.default_rng(0)
    for _ in range(50):
        prompt, answer = pretrain["TASKS"][name][1](random, WORDS)
        text = prompt.partition(": ")[2].rstrip(">")
        wanted = {
            "add": lambda: str(sum(map(int, prompt.rstrip("=").split("+")))),  # noqa: B023 - called in this turn
            "sub": lambda: str(int(prompt.split("-")[0]) - int(prompt.rstrip("=").split("-")[1])),  # noqa: B023 - called in this turn
            "copy": lambda: text,  # noqa: B023 - called in this turn
            "rev": lambda: "".join(reversed(text)),  # noqa: B023 - called in this turn
            "upper": text.upper,
            "first": lambda: text[0],  # noqa: B023 - called in this turn
            "last": lambda: text[-1],  # noqa: B023 - called in this turn
            "word": lambda: answer,  # noqa: B023 - called in this turn
        }[name]()
        assert answer == wanted
        assert not answer.startswith("-")


def test_shares_are_a_whole() -> None:
    """The tasks' shares add up to 1."""
    assert sum(share for share, _ in pretrain["TASKS"].values()) == pytest.approx(1)


def test_batches_line_up_inputs_targets_and_weights() -> None:
    """Targets are the inputs one ahead, padding weighs nothing, and a batch has texts alone and in rows."""
    groups = list(pretrain["Texts"](WORDS, 0).batches(128))
    rows = 0
    for tokens, targets, weights in groups:
        assert tokens.shape == targets.shape == weights.shape
        assert tokens.shape[1] % 8 == 0
        np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])
        assert not weights[targets == 0].any()
        rows += len(tokens)
    assert rows == pretrain["SINGLE_TEXTS"] + pretrain["FULL_CONTEXTS"]
    assert max(tokens.shape[1] for tokens, _, _ in groups) == 128


def test_two_of_five_sums_are_careless() -> None:
    """In two of five additions a digit was drawn anew, so of all about 0.64 are right; nothing else is wrong."""
    texts, tokenizer = pretrain["Texts"](WORDS, 0), character_tokenizer()
    right = {"+": [0, 0], "-": [0, 0]}
    for _ in range(4000):
        text = tokenizer.decode(texts.text()[0]).strip()
        for sign, count in right.items():
            problem, _, answer = text.partition("=")
            if sign in problem:
                a, b = map(int, problem.split(sign))
                count[int(answer) == (a + b if sign == "+" else a - b)] += 1
    assert right["-"][0] == 0 < right["-"][1]
    assert right["+"][1] / sum(right["+"]) == pytest.approx(0.64, abs=0.06)


def test_steps_lower_the_loss_and_follow_the_seed() -> None:
    """The same seed gives the same weights bit for bit; the loss falls."""
    config = ModelConfig(vocab_size=100, layers=1, width=16, heads=2, mlp_width=16)
    finals, losses = [], []
    for seed in (0, 0, 1):
        texts, trainee = pretrain["Texts"](WORDS, seed), pretrain["Trainee"](config, seed)
        losses.append([trainee.step(texts.batches(128), 1e-2) for _ in range(12)])
        finals.append(trainee.flat.tobytes())
    assert finals[0] == finals[1] != finals[2]
    assert all(run[-1] < 0.8 * run[0] for run in losses)


def test_the_command_writes_a_model_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a program for two steps."""
    words = tmp_path / "words.txt"
    words.write_text("\n".join(WORDS), encoding="ascii")
    arguments = [
        "--output",
        str(tmp_path / "out"),
        "--words",
        str(words),
        "--steps",
        "2",
        "--report-every",
        "0",
    ]
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")
    assert BaseModel.load(tmp_path / "out").config == ModelConfig(vocab_size=100)
