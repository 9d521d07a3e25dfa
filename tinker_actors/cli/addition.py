"""The task of the demo: adding two numbers, as an environment with a reward. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs
import numpy as np

from tinker_actors.types import Datum, ModelInput, SampledSequence

__all__ = ["STOP", "Problem", "centred", "datum", "problems", "reward", "sample_seed"]

STOP = "\n"


@attrs.frozen
class Problem:
    """What is asked and what is right."""

    prompt: str
    answer: str


def problems(seed: int, step: int, count: int) -> list[Problem]:
    """Return the problems of one step; the same for the same seed and step."""
    rng = random.Random(f"problems {seed} {step}")
    pairs = [(rng.randint(0, _LARGEST), rng.randint(0, _LARGEST)) for _ in range(count)]
    return [Problem(f"{left}+{right}=", str(left + right)) for left, right in pairs]


_LARGEST = 99


def sample_seed(seed: int, step: int, group: int) -> int:
    """Return the sampling seed of one group of one step."""
    return random.Random(f"samples {seed} {step} {group}").getrandbits(31)


def reward(problem: Problem, text: str) -> float:
    """Return 1 for the right answer, ended by a newline, else 0."""
    return float(text == problem.answer + STOP)


def centred(rewards: Sequence[float]) -> list[float]:
    """Return each reward's distance from the mean of its group."""
    mean = sum(rewards) / len(rewards)
    return [value - mean for value in rewards]


def datum(prompt: Sequence[int], sequence: SampledSequence, advantage: float) -> Datum:
    """Make the training example of one sample: the loss sees the sampled tokens, not the prompt."""
    tokens = [*prompt, *sequence.tokens]
    logprobs = sequence.logprobs or []
    unseen = len(prompt) - 1  # targets that are prompt tokens
    return Datum(
        ModelInput.from_ints(tokens[:-1]),
        {
            "target_tokens": np.array(tokens[1:], np.int64),
            "logprobs": np.array([0.0] * unseen + logprobs, np.float32),
            "advantages": np.array([0.0] * unseen + [advantage] * len(logprobs), np.float32),
        },
    )
