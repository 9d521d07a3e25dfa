"""The official SDK on the stub: one scenario, in its default configuration."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import warnings
from typing import Any

from transport_work import MODEL, Meter, arguments, batch, control, prompts, report

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
os.environ["TINKER_API_KEY"] = "tml-bench"
tinker: Any = importlib.import_module("tinker")  # after its warnings are off


def _service(options: Any) -> Any:
    return tinker.ServiceClient(base_url=options.url, api_key="tml-bench")


def sample(options: Any) -> None:
    """Draw samples, so many in flight; the first round finds no connection open."""
    client = _service(options).create_sampling_client(base_model=MODEL).result()
    texts = prompts(16, options.prompt)
    params = tinker.SamplingParams(max_tokens=options.tokens, temperature=1.0)
    values = 0

    async def one(text: list[int]) -> int:
        reply = await client.sample(tinker.ModelInput.from_ints(text), 1, params)
        (sequence,) = reply.sequences
        return len(sequence.tokens_np) + len(sequence.logprobs_np)

    async def draw(total: int) -> None:
        nonlocal values
        left = iter(range(total))

        async def worker() -> None:
            nonlocal values
            for at in left:
                seen = await one(texts[at % 16])
                values += seen

        await asyncio.gather(*(worker() for _ in range(min(options.in_flight, total))))

    async def run() -> tuple[Meter, Meter]:
        with Meter() as burst:
            await draw(options.in_flight)
        with Meter() as steady:
            await draw(options.count)
        return burst, steady

    burst, steady = asyncio.run(run())
    assert values == (options.in_flight + options.count) * options.tokens * 2
    report(
        cpu_ms=steady.cpu / options.count * 1e3, per_second=options.count / steady.wall, burst_s=burst.wall
    )


def _data(options: Any) -> tuple[list[Any], Any]:
    work = batch(options.kind, options.datums, options.length)
    pairs = zip(work.tokens, work.inputs, strict=True)
    data = [
        tinker.Datum(model_input=tinker.ModelInput.from_ints(t.tolist()), loss_fn_inputs=v) for t, v in pairs
    ]
    return data, work


def train(options: Any) -> None:
    """Send the same batch again and again, each after the result of the one before."""
    training = _service(options).create_lora_training_client(MODEL).result()
    data, work = _data(options)
    for _ in range(2):
        training.forward_backward(data, work.loss_fn).result()
    result: Any = None
    with Meter() as meter:
        for _ in range(options.count):
            result = training.forward_backward(data, work.loss_fn).result()
    assert len(result.loss_fn_outputs) == options.datums
    report(cpu_ms=meter.cpu / options.count * 1e3, mb_per_second=work.megabytes * options.count / meter.wall)


def step(options: Any) -> None:
    """Train step by step, each submitted before the result of the one before is there."""
    training = _service(options).create_lora_training_client(MODEL).result()
    data, work = _data(options)
    adam = tinker.AdamParams(learning_rate=1e-4)

    def steps(total: int) -> None:
        waiting: list[Any] = []
        for _ in range(total):
            waiting.append((training.forward_backward(data, work.loss_fn), training.optim_step(adam)))
            if len(waiting) > 1:
                for future in waiting.pop(0):
                    future.result()
        for future in waiting.pop():
            future.result()

    steps(2)
    control(options.url, "reset")
    with Meter() as meter:
        steps(options.count)
    order = control(options.url, "stats")["out_of_order"]
    report(
        cpu_ms=meter.cpu / options.count * 1e3, step_ms=meter.wall / options.count * 1e3, out_of_order=order
    )


if __name__ == "__main__":
    asked = arguments()
    {"sample": sample, "batch": train, "step": step}[asked.scenario](asked)
