"""Pre-train the base model of the embedded service, `tinker-actors/char-100k`.

    python tools/pretrain.py                      # writes tinker_actors/local/models/char-100k

A text is one line, its newline, and the end token. These are the tasks; the words are those of `--words`, and random
strings have 1 to 7 lower-case letters:

    add     17+25=42            two numbers of 0 to 99; in two of five sums one digit is drawn at random
    sub     42-25=17            two such numbers, the larger first
    copy    copy: lamp>lamp     words and random strings
    rev     rev: lamp>pmal      words and random strings
    upper   upper: lamp>LAMP    words
    first   first: lamp>l       words
    last    last: lamp>p        words
    word    word: lamp          words: spelling, nothing to answer

Most sequences are one text, as prompts will be; a few are many texts in a row, up to the whole context, so that every
position is trained. Tokens before the `=` or `>` count a tenth: one cannot know them.

The model is meant as a *start*: fine-tuning should have something to teach. So, as in text found in the wild, sums are
not always right. What the model samples has the right sum a third of the time, its likeliest answer three quarters of
the time; reinforcement learning can do better than the text it started from. Copying and the like it
does nearly always.

The run is decided by `--seed`: the same seed, steps and numpy build on the same kind of processor give the same file.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinker_actors.local.adam import AdamParams, AdamState
from tinker_actors.local.model import BASE_MODELS, BaseModel
from tinker_actors.local.sample import SampleJob
from tinker_actors.local.sampler import Decoder
from tinker_actors.local.tokenizer import EOS_TOKEN, character_tokenizer
from tinker_actors.local.transformer import (
    Array,
    FullGradient,
    ModelConfig,
    Network,
    backward,
    forward,
    initial_weights,
    log_softmax,
    padded_length,
)

NAME = "tinker-actors/char-100k"
SINGLE_TEXTS, FULL_CONTEXTS = 112, 4  # sequences of one text and of many texts in a batch
PROMPT_WEIGHT = 0.1
CARELESS_SUMS = 0.4
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))

Random = np.random.Generator
Task = Callable[[Random, list[str]], tuple[str, str]]
Ids = NDArray[np.int64]
Batch = tuple[Ids, Ids, Array]  # inputs, targets, weights, each (B, L)


def number(random: Random) -> int:
    """Return a number below 100, a third of the time below 10."""
    return int(random.integers(10 if random.random() < 1 / 3 else 100))


def addition(random: Random, _: list[str]) -> tuple[str, str]:
    """Return a sum and its value."""
    a, b = number(random), number(random)
    return f"{a}+{b}=", str(a + b)


def subtraction(random: Random, _: list[str]) -> tuple[str, str]:
    """Return a difference and its value."""
    b, a = sorted((number(random), number(random)))
    return f"{a}-{b}=", str(a - b)


def careless(random: Random, answer: str) -> str:
    """Return an answer with one digit drawn anew."""
    place = random.integers(len(answer))
    return answer[:place] + str(random.integers(10)) + answer[place + 1 :]


def any_word(random: Random, words: list[str]) -> str:
    """Return a word of the list."""
    return words[random.integers(len(words))]


def any_string(random: Random, words: list[str]) -> str:
    """Return a word of the list or, as often, a random string."""
    if random.random() < 0.5:
        return any_word(random, words)
    return "".join(random.choice(LETTERS, random.integers(1, 8)))


def on_text(name: str, pick: Callable[[Random, list[str]], str], answer: Callable[[str], str]) -> Task:
    """Return a task `name: text>answer`."""

    def task(random: Random, words: list[str]) -> tuple[str, str]:
        text = pick(random, words)
        return f"{name}: {text}>", answer(text)

    return task


def spelling(random: Random, words: list[str]) -> tuple[str, str]:
    """Return a word to be learned by heart."""
    return "word: ", any_word(random, words)


TASKS: dict[str, tuple[float, Task]] = {  # name: share of the texts, task
    "add": (0.16, addition),
    "sub": (0.08, subtraction),
    "copy": (0.20, on_text("copy", any_string, lambda text: text)),
    "rev": (0.20, on_text("rev", any_string, lambda text: text[::-1])),
    "upper": (0.14, on_text("upper", any_word, str.upper)),
    "first": (0.06, on_text("first", any_word, lambda text: text[0])),
    "last": (0.06, on_text("last", any_word, lambda text: text[-1])),
    "word": (0.10, spelling),
}


class Texts:
    """An endless supply of texts as tokens and weights.

    Args:
        words: the word list.
        seed: decides everything drawn.
    """

    def __init__(self, words: list[str], seed: int) -> None:
        self.random = np.random.Generator(np.random.Philox(seed))
        self.words = words
        self.tokenizer = character_tokenizer()
        self.names = list(TASKS)
        self.shares = np.array([TASKS[name][0] for name in self.names])

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return list(self.tokenizer.encode(text).ids)

    def text(self) -> tuple[list[int], list[float]]:
        """Return one text: tokens, and the weight of each as a target."""
        name = self.names[self.random.choice(len(self.names), p=self.shares)]
        prompt, answer = TASKS[name][1](self.random, self.words)
        if name == "add" and self.random.random() < CARELESS_SUMS:
            answer = careless(self.random, answer)
        before, after = self.encode(prompt), self.encode(f"{answer}\n{EOS_TOKEN}")
        return before + after, [PROMPT_WEIGHT] * len(before) + [1.0] * len(after)

    def full_context(self, length: int) -> tuple[list[int], list[float]]:
        """Return texts in a row, `length` tokens in all."""
        tokens: list[int] = []
        weights: list[float] = []
        while len(tokens) < length:
            more = self.text()
            tokens += more[0]
            weights += more[1]
        return tokens[:length], weights[:length]

    def batches(self, context: int) -> Iterator[Batch]:
        """Yield one training batch in groups of equal padded length."""
        sequences = [self.text() for _ in range(SINGLE_TEXTS)]
        sequences += [self.full_context(context + 1) for _ in range(FULL_CONTEXTS)]
        by_length: dict[int, list[tuple[list[int], list[float]]]] = {}
        for sequence in sequences:
            by_length.setdefault(padded_length(len(sequence[0]) - 1), []).append(sequence)
        for length, group in by_length.items():
            tokens = np.zeros((len(group), length + 1), np.int64)
            weights = np.zeros((len(group), length), np.float32)
            for row, (ids, shares) in enumerate(group):
                tokens[row, : len(ids)] = ids
                weights[row, : len(ids) - 1] = shares[1:]
            yield tokens[:, :-1], tokens[:, 1:], weights


class Trainee:
    """All weights of the model in one flat vector, with their optimizer.

    Args:
        config: sizes.
        seed: decides the first weights.
    """

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self.config = config
        first = initial_weights(config, seed)
        self.shapes = {name: weight.shape for name, weight in first.items()}
        self.flat: Array = np.concatenate([weight.reshape(-1) for weight in first.values()])
        self.adam = AdamState.fresh(self.flat)

    def weights(self) -> dict[str, Array]:
        """Return the weights by name."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = np.split(self.flat, np.cumsum(sizes)[:-1])
        return {
            name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def step(self, batches: Iterator[Batch], learning_rate: float) -> float:
        """Take one optimizer step on the mean loss of a batch and return that loss."""
        network = Network(self.config, self.weights())
        sink = FullGradient(network)
        total, count = 0.0, 0.0
        for tokens, targets, weights in batches:
            tape = forward(network, tokens)
            every = log_softmax(tape.logits(network))
            at = targets[..., None]
            total -= float((np.take_along_axis(every, at, axis=-1)[..., 0] * weights).sum())
            count += float(weights.sum())
            gradient = np.exp(every) * weights[..., None]
            picked = np.take_along_axis(gradient, at, axis=-1)
            np.put_along_axis(gradient, at, picked - weights[..., None], axis=-1)
            backward(network, tape, gradient, sink)
        flat = np.concatenate([sink.arrays[name].reshape(-1) for name in self.shapes]) / np.float32(count)
        params = AdamParams(learning_rate, beta2=0.98, eps=1e-8, weight_decay=0.01, grad_clip_norm=1.0)
        self.flat = self.adam.step(self.flat, flat, params)
        return total / count

    def model(self) -> BaseModel:
        """Return the model as it is now, rounded to what will be stored."""
        stored = {
            name: weight.astype(np.float16).astype(np.float32) for name, weight in self.weights().items()
        }
        return BaseModel.build(NAME, self.config, stored, character_tokenizer())


def accuracy(model: BaseModel, name: str, words: list[str], count: int = 256) -> float:
    """Return how many answers of a task are right, sampled at temperature 1."""
    random = np.random.Generator(np.random.Philox(10_000))
    decoder = Decoder(model, None)
    wanted: dict[object, str] = {}
    for job in range(count):
        prompt, answer = TASKS[name][1](random, words)
        tokens = np.array(model.tokenizer.encode(prompt).ids)
        decoder.submit(SampleJob(job, tokens, max_tokens=16, stop=["\n"], seed=job))
        wanted[job] = answer + "\n"
    right = 0
    while not decoder.idle:
        for result in decoder.step():
            right += model.tokenizer.decode(result.sequences[0].tokens) == wanted[result.id]
    return right / count


def report(model: BaseModel, words: list[str]) -> str:
    """Return the accuracies of all tasks that have an answer."""
    return "  ".join(f"{name} {accuracy(model, name, words):.2f}" for name in TASKS if name != "word")


def schedule(step: int, steps: int, peak: float) -> float:
    """Return a learning rate that rises for 100 steps and falls like a cosine to a twentieth."""
    if step < 100:
        return peak * (step + 1) / 100
    done = (step - 100) / max(1, steps - 100)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def main() -> None:
    """Train, print how it goes, write the model."""
    parser = argparse.ArgumentParser(description="Pre-train tinker-actors/char-100k.")
    parser.add_argument("--output", type=Path, default=BASE_MODELS[NAME])
    parser.add_argument("--words", type=Path, default=Path("examples/data/words.txt"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report-every", type=int, default=250, help="steps between reports; 0: none")
    arguments = parser.parse_args()
    words = arguments.words.read_text(encoding="ascii").split()
    texts = Texts(words, arguments.seed)
    trainee = Trainee(ModelConfig(vocab_size=texts.tokenizer.get_vocab_size()), arguments.seed)
    began = time.perf_counter()
    for step in range(arguments.steps):
        rate = schedule(step, arguments.steps, arguments.learning_rate)
        loss = trainee.step(texts.batches(trainee.config.context_length), rate)
        if arguments.report_every and (step + 1) % arguments.report_every == 0:
            seconds = time.perf_counter() - began
            print(
                f"{step + 1:5d}  {seconds:4.0f} s  loss {loss:.3f}  {report(trainee.model(), words)}",
                flush=True,
            )
    trainee.model().save(arguments.output)
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
