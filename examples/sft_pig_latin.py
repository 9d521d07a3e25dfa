"""Fine-tune on real English words: pig latin, or any prompts and completions of yours.

    python examples/sft_pig_latin.py                       # about 40 s on two cores, no key, no GPU
    python examples/sft_pig_latin.py --data mine.jsonl     # lines of {"prompt": ..., "completion": ...}
    python examples/sft_pig_latin.py --base-url http://127.0.0.1:8000

Pig latin: the consonants before the first vowel go to the end, then "ay" (hello: ellohay); a word that begins with
a vowel gets "way" (apple: appleway). A tenth of the examples, drawn by the seed, is held out; the model is asked for
those before and after, and an answer counts if it is exactly right. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from rich.console import Console
from rich.progress import Progress

import tinker_actors as ta

if TYPE_CHECKING:
    from tinker_actors.text import Tokenizer

WORDS = Path(__file__).parent / "data" / "words.txt"
VOWELS = "aeiou"
MODEL = "tinker-actors/char-100k"
END = "\n"
WARM_UP = 20  # steps in which the learning rate rises


@dataclass(frozen=True)
class Example:
    """What is asked and what is right."""

    prompt: str
    completion: str


def pig_latin(word: str) -> str:
    """Translate one lower-case word; `y` is a consonant."""
    first_vowel = next((i for i, letter in enumerate(word) if letter in VOWELS), len(word))
    return word + "way" if first_vowel == 0 else word[first_vowel:] + word[:first_vowel] + "ay"


def word_examples(path: Path = WORDS) -> list[Example]:
    """Make an example of each word of a list."""
    words = path.read_text(encoding="ascii").split()
    return [Example(f"pig: {word}>", pig_latin(word) + END) for word in words]


def file_examples(path: Path) -> list[Example]:
    """Read examples from a JSONL file.

    Raises:
        InputError: a line that is not an object with two non-empty strings; names the line and the value.
    """
    examples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            examples.append(_example(f"{path.name} line {number}", line))
    if len(examples) < 2:
        raise ta.errors.InputError(str(path), len(examples), "needs at least two examples, one is held out")
    return examples


def _example(where: str, line: str) -> Example:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ta.errors.InputError(where, line, f"is not JSON: {error}") from error
    fields = value if isinstance(value, dict) else {}
    for name in ("prompt", "completion"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise ta.errors.InputError(f"{where}, {name}", fields.get(name), "must be a non-empty string")
    completion = fields["completion"]
    return Example(fields["prompt"], completion if completion.endswith(END) else completion + END)


def check_spelling(examples: Sequence[Example], tokenizer: Tokenizer) -> None:
    """Refuse what the model's tokenizer cannot spell.

    Raises:
        InputError: names the example and the text.
    """
    for index, example in enumerate(examples):
        text = example.prompt + example.completion
        if tokenizer.decode(tokenizer.encode(text)) != text:
            raise ta.errors.InputError(
                f"examples[{index}]", text, "has signs the model's tokenizer does not know"
            )


def split(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Return (training, held out): every tenth of the shuffled examples is held out."""
    shuffled = list(examples)
    random.Random(f"split {seed}").shuffle(shuffled)
    count = max(1, len(shuffled) // 10)
    return shuffled[count:], shuffled[:count]


def datum(example: Example, tokenizer: Tokenizer) -> ta.Datum:
    """Make the training example: only the completion is learned."""
    prompt, completion = (tokenizer.encode(text) for text in (example.prompt, example.completion))
    tokens = [*prompt, *completion]
    weights = [0.0] * (len(prompt) - 1) + [1.0] * len(completion)
    return ta.Datum(ta.ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], "weights": weights})


def batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Yield batches for ever; every example once per round, in a new order each time."""
    rng = random.Random(f"batches {seed}")
    while True:
        order = list(examples)
        rng.shuffle(order)
        for start in range(0, len(order), size):
            yield order[start : start + size]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Rise for a few steps, then fall along a cosine to a tenth."""
    rise = min(1.0, (step + 1) / WARM_UP)
    return peak * rise * (0.55 + 0.45 * math.cos(math.pi * step / steps))


async def exact_match(
    sampling: ta.SamplingClient, examples: Sequence[Example], tokenizer: Tokenizer
) -> tuple[float, list[str]]:
    """Ask for all examples at once; return the share of right answers, and the answers."""
    answers = [""] * len(examples)

    async def ask(index: int, example: Example) -> None:
        prompt = ta.ModelInput.from_ints(tokenizer.encode(example.prompt))
        length = len(tokenizer.encode(example.completion)) + 4
        params = ta.SamplingParams(max_tokens=length, temperature=0.0, stop=[END])
        reply = await sampling.sample(prompt, num_samples=1, sampling_params=params)
        answers[index] = tokenizer.decode(reply.sequences[0].tokens)

    async with trio.open_nursery() as nursery:
        for index, example in enumerate(examples):
            nursery.start_soon(ask, index, example)
    right = sum(answer == example.completion for answer, example in zip(answers, examples, strict=True))
    return right / len(examples), answers


async def train(
    training: ta.TrainingClient,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    options: argparse.Namespace,
) -> float:
    """Train with one step always ahead of the one whose result is awaited; return the last loss per token."""
    loss, ahead = float("nan"), None
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=options.steps)
        for step, batch in zip(
            range(options.steps), batches(examples, options.batch, options.seed), strict=False
        ):
            data = [datum(example, tokenizer) for example in batch]
            forward = await training.forward_backward(data, "cross_entropy")
            rate = learning_rate(step, options.steps, options.learning_rate)
            await training.optim_step(ta.AdamParams(learning_rate=rate))
            if ahead is not None:
                loss = await _loss(*ahead)
            ahead = forward, data
            progress.update(task, advance=1, description=f"loss per token {loss:.3f}")
        if ahead is not None:
            loss = await _loss(*ahead)
    return loss


async def _loss(forward: ta.Pending[ta.ForwardBackwardOutput], data: Sequence[ta.Datum]) -> float:
    tokens = sum(float(one.loss_fn_inputs["weights"].to_numpy().sum()) for one in data)
    return (await forward).metrics["loss:sum"] / tokens


async def main(options: argparse.Namespace) -> dict[str, object]:
    """Evaluate, train, evaluate again."""
    console = Console(highlight=False)
    examples = word_examples() if options.data is None else file_examples(options.data)
    training_set, held_out = split(examples, options.seed)
    held_out = held_out[: options.evaluate]
    backend = "local" if options.base_url is None else options.base_url
    async with ta.open_service(backend, seed=options.seed) as service:
        training = await service.create_lora_training_client(MODEL, rank=options.rank, seed=options.seed)
        tokenizer = await training.get_tokenizer()
        check_spelling(examples, tokenizer)
        before, _ = await exact_match(
            await training.save_weights_and_get_sampling_client(), held_out, tokenizer
        )
        console.print(f"before: {before:.1%} of {len(held_out)} held-out examples are right")
        started = trio.current_time()
        loss = await train(training, training_set, tokenizer, options)
        seconds = trio.current_time() - started
        after, answers = await exact_match(
            await training.save_weights_and_get_sampling_client(), held_out, tokenizer
        )
    console.print(f"after:  {after:.1%}, loss per token {loss:.3f}, {options.steps} steps in {seconds:.1f} s")
    for example, answer in list(zip(held_out, answers, strict=True))[:5]:
        mark = "✓" if answer == example.completion else "✗"
        console.print(f"  {mark} {example.prompt}{answer.rstrip()}", markup=False)
    return {
        "backend": service.backend,
        "examples": len(training_set),
        "held_out": len(held_out),
        "steps": options.steps,
        "exact_match_before": round(before, 4),
        "exact_match_after": round(after, 4),
        "seconds": round(seconds, 2),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help='JSONL file of {"prompt", "completion"}')
    parser.add_argument("--base-url", help="train on this service instead of the embedded one")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--evaluate", type=int, default=500, help="held-out examples to ask for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.evaluate = min(options.steps, 30), min(options.evaluate, 50)
    return options


if __name__ == "__main__":
    print(json.dumps(trio.run(main, parse())))
