"""What the journal of a run costs, on this machine's disk.

    python benchmarks/journal.py                   # everything (3 minutes)
    python benchmarks/journal.py --only step,body  # some of it
    python benchmarks/journal.py --quick           # little of each: to see that it runs, not to read numbers

A table first; the last line is JSON.

    step_cpu_ms     CPU time of a step without a batch: two intents and a decision, two promises, two results; of all
                    threads, in milliseconds
    body_ms         from asking to record a step with a batch of 5 MB, of 128 examples, until it is committed, in a run
                    that saves a state every fifth step, so that segments go as new ones come; median
    body_cpu_ms     CPU time of the same, of all threads; median
    body_grow_ms    as body_ms where nothing goes: all that is written takes memory of the system that held no file
                    before, which some virtual machines must first get from their host, page by page; median
    body_loop_ms    meanwhile, the longest time between two turns of a task that wakes every millisecond; median
    share           by how much a step takes longer with this journal than with the one in memory, at 25 ms of server
                    time for each gradient and step: batches of 1 MB, the next step decided while the service computes,
                    as a run does it; a share of the step time
    share_strict    the same if nothing overlaps: each step is decided when the one before has its results
    share_run       the same of a whole run: `open_run`, with its journal and its event file, against the same loop on
                    `open_service`, over loopback, with a stub that computes 20 ms for each gradient and 5 ms for each
                    step; results are awaited one step behind
    open_s          to open a journal of 100,000 steps, with a checkpoint every 100; the two newest are verified
    open_none_s     the same without any checkpoint: everything is still held
    disk_mb         what the first of these takes on disk; steps have batches of 1 kB

All is measured with durability "process"; --machine measures "machine", which waits for the medium.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import numpy as np
import trio
from stub_process import set_work, stub

import tinker_actors as ta
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.journal import Decision, Intent, Journal, ModelFacts, Operation
from tinker_actors.protocol.memory_journal import MemoryJournal
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.optimizer import AdamParams

STUB_MODEL = "Qwen/Qwen3-8B"
SERVER = 0.025  # seconds for a gradient and its step
NAMES = ("step", "body", "share", "run", "open")
AT_MOST = {"step_cpu_ms": 1.0, "body_ms": 8.0, "share": 0.05, "share_run": 0.05, "open_s": 1.0}
MODEL = ModelFacts(model_id="m", session_id="s", model_seq=0, next_number=1, sampler_seq=0)
ADAM = AdamParams(learning_rate=1e-4)


@attrs.frozen
class Effort:
    """How much is done.

    Attributes:
        quick: a hundredth of everything.
        machine: the medium is waited for.
    """

    quick: bool
    machine: bool

    def count(self, full: int) -> int:
        """Return how often something is done."""
        return max(2, full // 100) if self.quick else full

    def open(self, folder: Path, *, inline: bool = False) -> DurableJournal:
        """Open a journal."""
        return open_journal(folder, durability="machine" if self.machine else "process", inline=inline)


def batch(rng: np.random.Generator, datums: int, length: int) -> tuple[Datum, ...]:
    """Make a batch as reinforcement learning has them: 20 bytes a token."""
    return tuple(
        Datum(
            ModelInput.from_ints(rng.integers(0, 1000, length)),
            {
                "target_tokens": rng.integers(0, 1000, length),
                "logprobs": rng.random(length, np.float32),
                "advantages": rng.random(length, np.float32),
            },
        )
        for _ in range(datums)
    )


def intents(data: tuple[Datum, ...], number: int) -> list[Intent]:
    """Return what a step sends."""
    gradient = Operation(kind="forward_backward", data=data, loss_fn="ppo")
    step = Operation(kind="optim_step", optim_params=ADAM)
    return [
        Intent(operation=gradient, numbers=(2 * number + 1,), plan=(len(data),)),
        Intent(operation=step, numbers=(2 * number + 2,), plan=(0,)),
    ]


async def decide(journal: Journal, number: int, data: tuple[Datum, ...] = ()) -> list[int]:
    """Record a step."""
    return await journal.record(intents(data, number), Decision(step=number, after=b'{"seen": %d}' % number))


def settle(journal: Journal, positions: list[int]) -> None:
    """Note promises and results."""
    for position in positions:
        journal.accepted(position, 0, f"promise-{position}")
    for position in positions:
        journal.done(position)


async def save(journal: DurableJournal, name: str) -> None:
    """Record a state that is saved, and was seen on the service."""
    (position,) = await journal.record([Intent(operation=Operation(kind="save_state", name=name))])
    journal.checkpointed(position, f"tinker://m/weights/{name}")
    journal.done(position)
    journal.mark(name, "verified")


# --- the numbers -----------------------------------------------------------------------------------------


async def measure_step(effort: Effort, folder: Path) -> dict[str, float]:
    """Measure the CPU time of steps without a batch."""
    journal = effort.open(folder)
    journal.made(MODEL)
    count = effort.count(5000)
    for number in range(20):
        settle(journal, await decide(journal, number))
    begun = time.process_time()
    for number in range(20, 20 + count):
        settle(journal, await decide(journal, number))
    await journal.flush()
    spent = time.process_time() - begun
    await journal.aclose()
    return {"step_cpu_ms": spent / count * 1000}


async def measure_body(effort: Effort, folder: Path) -> dict[str, float]:
    """Measure how long a large batch takes, and for how long it holds the loop up."""
    rng = np.random.default_rng(0)
    batches = [batch(rng, 128, 2048) for _ in range(effort.count(40))]
    grow, _ = await _timed_bodies(effort, folder / "grow", batches, every=None)
    taken, spent = await _timed_bodies(effort, folder / "body", batches, every=5)
    found = {"body_ms": taken, "body_cpu_ms": spent, "body_grow_ms": grow}
    found["body_loop_ms"] = await _held_up(effort, folder / "loop", batches)
    return {name: statistics.median(values) * 1000 for name, values in found.items()}


async def _timed_bodies(
    effort: Effort, folder: Path, batches: list[tuple[Datum, ...]], *, every: int | None
) -> tuple[list[float], list[float]]:
    """Record batches, and a saved state now and then; return the seconds and the seconds of CPU each took."""
    journal = effort.open(folder)
    taken, spent = [], []
    for number, data in enumerate(batches):
        begun, used = time.perf_counter(), time.process_time()
        positions = await decide(journal, number, data)
        taken.append(time.perf_counter() - begun)
        spent.append(time.process_time() - used)
        settle(journal, positions)
        if every is not None and number % every == every - 1:
            await save(journal, f"s{number}")
        await journal.flush()
    await journal.aclose()
    return taken, spent


async def _held_up(effort: Effort, folder: Path, batches: list[tuple[Datum, ...]]) -> list[float]:
    """Record batches; return how long each held up a task that wakes every millisecond."""
    journal = effort.open(folder)
    held = []
    for number, data in enumerate(batches):
        gaps = [0.0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_yield, gaps)
            await trio.sleep(0.01)
            gaps.clear()
            settle(journal, await decide(journal, number, data))
            nursery.cancel_scope.cancel()
        held.append(max(gaps))
    await journal.aclose()
    return held


async def _yield(gaps: list[float]) -> None:
    """Wake every millisecond; note how long it took."""
    before = time.perf_counter()
    while True:
        await trio.sleep(0.001)
        now = time.perf_counter()
        gaps.append(now - before)
        before = now


async def measure_share(effort: Effort, folder: Path) -> dict[str, float]:
    """Measure what is added to the time of steps at a service that needs its own."""
    rng = np.random.default_rng(0)
    batches = [batch(rng, 64, 780) for _ in range(effort.count(100))]
    found: dict[str, float] = {}
    for name, run in (("share", _overlapping), ("share_strict", _strict)):
        ratios = []
        for pair in range(3):
            journal = effort.open(folder / f"{name}{pair}")
            ours = await _timed(run, journal, batches)
            await journal.aclose()
            ratios.append(ours / await _timed(run, MemoryJournal(max_bytes=10**12), batches) - 1)
        found[name] = statistics.median(ratios)
    return found


async def _timed(
    run: Callable[[Journal, list[tuple[Datum, ...]]], Awaitable[None]],
    journal: Journal,
    batches: list[tuple[Datum, ...]],
) -> float:
    journal.made(MODEL)
    begun = time.perf_counter()
    await run(journal, batches)
    return time.perf_counter() - begun


async def _strict(journal: Journal, batches: list[tuple[Datum, ...]]) -> None:
    for number, data in enumerate(batches):
        positions = await decide(journal, number, data)
        await trio.sleep(SERVER)
        settle(journal, positions)


async def _overlapping(journal: Journal, batches: list[tuple[Datum, ...]]) -> None:
    """One step is with the service, and the next one is decided meanwhile."""
    send, receive = trio.open_memory_channel[list[int]](1)

    async def serve() -> None:
        async for positions in receive:
            await trio.sleep(SERVER)
            settle(journal, positions)

    async with trio.open_nursery() as nursery, send:
        nursery.start_soon(serve)
        for number, data in enumerate(batches):
            await send.send(await decide(journal, number, data))


async def measure_run(effort: Effort, folder: Path) -> dict[str, float]:
    """Measure how much longer a run takes than the same loop without a journal."""
    rng = np.random.default_rng(0)
    batches = [list(batch(rng, 64, 780)) for _ in range(effort.count(200))]
    with stub() as url:
        set_work(url, sample_ms=0, batch_ms=20, optim_ms=5)
        ratios = []
        for pair in range(5):
            plain = await _plain_loop(url, batches)
            ratios.append(await _run_loop(url, folder / str(pair), effort, batches) / plain - 1)
    return {"share_run": statistics.median(ratios)}


async def _plain_loop(url: str, batches: list[list[Datum]]) -> float:
    """Train without a journal; return the seconds of all steps but the first."""
    async with ta.open_service(url, api_key="tml-bench") as service:
        training = await service.create_lora_training_client(STUB_MODEL, rank=8)
        begun, before = 0.0, None
        for data in batches:
            gradient = await training.forward_backward(data, "ppo")
            step = await training.optim_step(ADAM)
            if before is not None:
                await before[0]
                await before[1]
            before = gradient, step
            begun = begun or time.perf_counter()
        assert before is not None
        await before[1]
        return time.perf_counter() - begun


async def _run_loop(url: str, folder: Path, effort: Effort, batches: list[list[Datum]]) -> float:
    """Train as a run; return the seconds of all steps but the first."""
    async with ta.open_run(
        folder,
        base_model=STUB_MODEL,
        rank=8,
        base_url=url,
        api_key="tml-bench",
        signals=False,
        durability="machine" if effort.machine else "process",
    ) as run:
        begun, before = 0.0, None
        async for step in run.steps(len(batches)):
            decided = await step.train(batches[step.index], "ppo", ADAM, after={"next": step.index + 1})
            if before is not None:
                await before
            before = decided
            begun = begun or time.perf_counter()
        assert before is not None
        await before
        return time.perf_counter() - begun


async def measure_open(effort: Effort, folder: Path) -> dict[str, float]:
    """Measure how long a journal of many steps takes to open."""
    found: dict[str, float] = {}
    for name, every in (("open_s", 100), ("open_none_s", None)):
        place = folder / name
        with tempfile.TemporaryDirectory(dir=_quick_folder()) as filled:
            await _fill(effort, Path(filled), effort.count(100_000), every)
            shutil.copytree(filled, place)
        taken = []
        for _ in range(3):
            begun = time.perf_counter()
            journal = effort.open(place)
            taken.append(time.perf_counter() - begun)
            await journal.aclose()
        found[name] = statistics.median(taken)
        if every is not None:
            found["disk_mb"] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
    return found


def _quick_folder() -> str | None:
    """Return where files are in memory, if there is such a place: it takes minutes less to fill a journal there."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


async def _fill(effort: Effort, folder: Path, steps: int, every: int | None) -> None:
    journal = Effort(effort.quick, machine=False).open(folder, inline=True)
    journal.made(MODEL)
    rng = np.random.default_rng(0)
    for number in range(steps):
        settle(journal, await decide(journal, number, batch(rng, 1, 50)))
        if every is not None and number % every == every - 1:
            await save(journal, f"s{number}")
    await journal.aclose()


MEASURES: dict[str, Callable[[Effort, Path], Awaitable[dict[str, float]]]] = {
    "step": measure_step,
    "body": measure_body,
    "share": measure_share,
    "run": measure_run,
    "open": measure_open,
}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description="What the journal of a run costs.")
    parser.add_argument("--only", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="little of each")
    parser.add_argument("--machine", action="store_true", help='durability "machine"')
    parser.add_argument("--folder", help="where to write; else where temporary files are")
    arguments = parser.parse_args()
    only = arguments.only.split(",") if arguments.only else list(NAMES)
    if unknown := set(only) - set(NAMES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    effort = Effort(arguments.quick, arguments.machine)
    found: dict[str, float] = {}
    for name in only:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found |= trio.run(MEASURES[name], effort, Path(folder) / name)
    for name, value in found.items():
        bar = AT_MOST.get(name)
        verdict = "" if bar is None else f"  at most {bar:g}: {'met' if value <= bar else 'MISSED'}"
        print(f"{name:14} {value:10.4f}{verdict}")
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
