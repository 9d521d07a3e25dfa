"""What the event file costs, in CPU, while samples are drawn and a model is trained at a steady rate.

    python benchmarks/event_file.py                           # 100, 300 and 1000 samples/s; the bar: 1 % of a core
    python benchmarks/event_file.py --rates 1000 --seconds 20 --rounds 5

A stub in a process of its own answers each sample after 200 ms. In turns the client writes an event file and does
not. The figure that is judged is put together from its parts, each by the CPU clock of its thread: looking at the tree
and putting events in line, writing lines, and what remembering its end costs a message, times the messages. The
difference of the whole process's CPU with the file and without stands beside it, with its standard error, which grows
with what else the machine does. The last line is JSON: by rate, `percent` (the parts), `difference`, `give_or_take` and
`plain` (the process without a file) in per cent of a core, `messages_per_s` and `bytes_per_s`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import trio

import tinker_actors as ta
from tinker_actors.actors.recorder import Recorder
from tinker_actors.journal.event_file import EventFile, open_event_file
from tinker_actors.kernel import Actor, ChildSpec, Message, handles, open_supervisor
from tinker_actors.observe import TreeSeen, latest_snapshot

MODEL = "Qwen/Qwen3-8B"
WARM_UP = 2.0  # seconds before anything counts
BAR = 1.0  # per cent of a core
ASKS = 20_000  # messages that the cost of remembering is measured with
REMEMBERED = 10


@attrs.define
class Spent:
    """CPU seconds of the parts, by the clocks of their threads."""

    seconds: float = 0.0

    def counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and counts what it takes."""

        def counted(*args: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args)
            finally:
                self.seconds += time.thread_time() - began

        return counted


@contextlib.contextmanager
def counted() -> Iterator[Spent]:
    """Count what looking and writing take."""
    spent = Spent()
    places: list[tuple[Any, str]] = [(Recorder, "_look"), (EventFile, "_work_off")]
    before = [getattr(owner, name) for owner, name in places]
    for (owner, name), function in zip(places, before, strict=True):
        setattr(owner, name, spent.counting(function))
    try:
        yield spent
    finally:
        for (owner, name), function in zip(places, before, strict=True):
            setattr(owner, name, function)


# --- what remembering costs a message -----------------------------------------------------------------------


class Echo:
    """Role of the actor that answers."""


@attrs.frozen
class Say(Message[Echo, int]):
    """Something to answer."""


class EchoActor(Actor[Echo]):
    """Answers."""

    @handles(Say)
    async def say(self, _: Say) -> int:
        """Answer."""
        return 1


async def seconds_per_ask(remembered: int) -> float:
    """Return the CPU seconds of an ask."""
    async with open_supervisor("tree", rng=random.Random(0)) as tree:
        ref = await tree.start_child(ChildSpec(name="echo", factory=EchoActor))
        tree.remember(remembered)
        began = time.process_time()
        for _ in range(ASKS):
            await ref.ask(Say())
        return (time.process_time() - began) / ASKS


def cost_of_remembering(rounds: int) -> float:
    """Return the CPU seconds that a message costs more where its end is remembered."""
    pairs = [(trio.run(seconds_per_ask, REMEMBERED), trio.run(seconds_per_ask, 0)) for _ in range(rounds)]
    return statistics.median(with_it - without for with_it, without in pairs)


# --- the load -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stub() -> Iterator[str]:
    """Start the stub in a process of its own, and give its address."""
    here = Path(__file__).parent
    process = subprocess.Popen([sys.executable, str(here / "stub.py")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        work = json.dumps({"sample_ms": 200, "batch_ms": 100, "optim_ms": 20}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{url}/stub/settings", work))
        yield url
    finally:
        process.terminate()
        process.wait()


async def train(training: Any) -> None:
    """Take about eight steps a second."""
    tokens = [at % 90 for at in range(64)]
    data = [ta.Datum(ta.ModelInput.from_ints(tokens), {"target_tokens": tokens, "weights": [1.0] * 64})]
    while True:
        await training.forward_backward(data, "cross_entropy")
        await (await training.optim_step(ta.AdamParams(learning_rate=1e-4)))


async def draw(service: Any, rate: float, nursery: trio.Nursery) -> None:
    """Begin samples at a steady rate."""
    client = await service.create_sampling_client(base_model=MODEL)
    prompt, params = ta.ModelInput.from_ints(range(64)), ta.SamplingParams(max_tokens=16)
    due = trio.current_time()
    while True:
        nursery.start_soon(client.sample, prompt, 1, params)
        due += 1 / rate
        await trio.sleep_until(due)


def looked_up(path: Path | None) -> tuple[int, int]:
    """Return how many messages the actors have had, and how many bytes the file has."""
    found = None if path is None else latest_snapshot(path)
    if path is None or found is None:
        return 0, 0
    assert isinstance(found.event, TreeSeen)
    return sum(box.admitted for box in found.event.mailboxes), path.stat().st_size


@attrs.frozen
class Round:
    """One measurement, per second."""

    cpu: float
    parts: float = 0.0
    messages: float = 0.0
    bytes: float = 0.0


async def measure(url: str, rate: float, seconds: float, path: Path | None) -> Round:
    """Draw and train for a while, with an event file or without."""
    async with contextlib.AsyncExitStack() as stack:
        spent = stack.enter_context(counted())
        file = None if path is None else await stack.enter_async_context(open_event_file(path))
        service = await stack.enter_async_context(ta.open_service(url, api_key="tml-bench"))
        if file is not None:
            service.ref.record(file)
        training = await service.create_lora_training_client(MODEL, rank=8)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(train, training)
            nursery.start_soon(draw, service, rate, nursery)
            await trio.sleep(WARM_UP)
            sent, size = looked_up(path)
            parts, cpu, began = spent.seconds, time.process_time(), time.monotonic()
            await trio.sleep(seconds)
            cpu, parts = time.process_time() - cpu, spent.seconds - parts
            wall = time.monotonic() - began
            more_sent, more_size = looked_up(path)
            nursery.cancel_scope.cancel()
    return Round(cpu / wall, parts / wall, (more_sent - sent) / wall, (more_size - size) / wall)


def figures(url: str, rate: float, seconds: float, rounds: int, per_message: float) -> dict[str, float]:
    """Measure in turns, and return the figures in per cent of a core."""
    plain, filed = list[Round](), list[Round]()
    for number in range(rounds):
        for with_file in (False, True) if number % 2 == 0 else (True, False):
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "events.jsonl" if with_file else None
                (filed if with_file else plain).append(trio.run(measure, url, rate, seconds, path))
    parts = statistics.median(one.parts + one.messages * per_message for one in filed)
    differences = [a.cpu - b.cpu for a, b in zip(filed, plain, strict=True)]
    return {
        "percent": round(parts * 100, 3),
        "difference": round(statistics.mean(differences) * 100, 2),
        "give_or_take": round(statistics.stdev(differences) / rounds**0.5 * 100, 2),
        "plain": round(statistics.median(one.cpu for one in plain) * 100, 1),
        "messages_per_s": round(statistics.median(one.messages for one in filed)),
        "bytes_per_s": round(statistics.median(one.bytes for one in filed)),
    }


def main() -> int:
    """Measure, print, and say whether the bar is met."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rates", default="100,300,1000", help="samples per second (default: 100,300,1000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: 10)")
    parser.add_argument(
        "--rounds", type=int, default=4, help="with the file and without, at least 2 (default: 4)"
    )
    options = parser.parse_args()
    per_message = cost_of_remembering(max(3, options.rounds))
    print(f"remembering costs a message {per_message * 1e6:.2f} microseconds", flush=True)
    found, met = {}, True
    with stub() as url:
        for rate in options.rates.split(","):
            found[rate] = figures(url, float(rate), options.seconds, options.rounds, per_message)
            is_met = found[rate]["percent"] <= BAR
            met = met and is_met
            verdict = "met" if is_met else "MISSED"
            print(
                f"{rate} samples/s: {found[rate]['percent']} % of a core, bar {BAR:g} %: {verdict}",
                flush=True,
            )
    print(json.dumps(found), flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
