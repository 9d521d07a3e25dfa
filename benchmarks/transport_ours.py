"""This package on the stub: one scenario, through `SamplingClient.sample` and `TrainingClient`.

`--way client` sends every call through `httpx.AsyncClient` (a hook that does nothing asks for it), `--way stock`
does so over httpx's own pool.
"""

from __future__ import annotations

from typing import Any

import trio
from transport_work import MODEL, Meter, arguments, batch, control, prompts, report

import tinker_actors as ta
from tinker_actors.transport.options import Hooks


async def _leave_as_it_is(_: object) -> None:
    await trio.lowlevel.checkpoint()


def _service(options: Any) -> Any:
    settings: dict[str, Any] = {"api_key": "tml-bench"}
    if options.way != "direct":
        settings["hooks"] = Hooks(prepare_request=_leave_as_it_is)
    if options.way == "stock":
        settings["pool"] = "stock"
    return ta.open_service(options.url, **settings)


async def sample(options: Any) -> None:
    """Draw samples, so many in flight; the first round finds no connection open."""
    texts = prompts(16, options.prompt)
    params = ta.SamplingParams(max_tokens=options.tokens, temperature=1.0)
    async with _service(options) as service:
        client = await service.create_sampling_client(base_model=MODEL)
        values = 0

        async def worker(left: Any) -> None:
            nonlocal values
            for at in left:
                reply = await client.sample(ta.ModelInput.from_ints(texts[at % 16]), 1, params)
                (sequence,) = reply.sequences
                values += len(sequence.tokens_np) + len(sequence.logprobs_np)

        async def draw(total: int) -> None:
            left = iter(range(total))
            async with trio.open_nursery() as nursery:
                for _ in range(min(options.in_flight, total)):
                    nursery.start_soon(worker, left)

        with Meter() as burst:
            await draw(options.in_flight)
        with Meter() as steady:
            await draw(options.count)
        assert values == (options.in_flight + options.count) * options.tokens * 2
        report(
            cpu_ms=steady.cpu / options.count * 1e3,
            per_second=options.count / steady.wall,
            burst_s=burst.wall,
        )


def _data(options: Any) -> tuple[list[ta.Datum], Any]:
    work = batch(options.kind, options.datums, options.length)
    pairs = zip(work.tokens, work.inputs, strict=True)
    return [ta.Datum(ta.ModelInput.from_ints(tokens), values) for tokens, values in pairs], work


async def train(options: Any) -> None:
    """Send the same batch again and again, each after the result of the one before."""
    data, work = _data(options)
    async with _service(options) as service:
        training = await service.create_lora_training_client(MODEL)
        for _ in range(2):
            await (await training.forward_backward(data, work.loss_fn))
        result: Any = None
        with Meter() as meter:
            for _ in range(options.count):
                result = await (await training.forward_backward(data, work.loss_fn))
        assert len(result.loss_fn_outputs) == options.datums
        report(
            cpu_ms=meter.cpu / options.count * 1e3, mb_per_second=work.megabytes * options.count / meter.wall
        )


async def step(options: Any) -> None:
    """Train step by step, each put in line before the result of the one before is there."""
    data, work = _data(options)
    adam = ta.AdamParams(learning_rate=1e-4)
    async with _service(options) as service:
        training = await service.create_lora_training_client(MODEL)

        async def steps(total: int) -> None:
            waiting: list[Any] = []
            for _ in range(total):
                forward = await training.forward_backward(data, work.loss_fn)
                waiting.append((forward, await training.optim_step(adam)))
                if len(waiting) > 1:
                    for pending in waiting.pop(0):
                        await pending
            for pending in waiting.pop():
                await pending

        await steps(2)
        control(options.url, "reset")
        with Meter() as meter:
            await steps(options.count)
        order = control(options.url, "stats")["out_of_order"]
        report(
            cpu_ms=meter.cpu / options.count * 1e3,
            step_ms=meter.wall / options.count * 1e3,
            out_of_order=order,
        )


if __name__ == "__main__":
    asked = arguments()
    trio.run({"sample": sample, "batch": train, "step": step}[asked.scenario], asked)
