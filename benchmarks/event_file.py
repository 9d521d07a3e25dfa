"""What the event file costs, in CPU, while samples are drawn and a model is trained at a steady rate.

    python benchmarks/event_file.py                           # 100, 300 and 1000 samples/s; the bar: 1 % of a core
    python benchmarks/event_file.py --rates 1000 --seconds 4 --rounds 20

A stub in a process of its own answers each sample after 200 ms. The figure that is judged is put together from its
parts, each by the CPU clock of its thread: looking at the tree and putting events in line, writing lines, and what
remembering its end costs a message, times the messages. Beside it stands the difference of the whole process's CPU
between seconds in which all that is done and seconds in which it is not, in turns, with its standard error. The last
line is JSON: by rate, `percent` (the parts), `difference`, `give_or_take` and `plain` (without) in per cent of a core,
`messages_per_s` and `bytes_per_s`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import trio
from stub_process import set_work, stub

import tinker_actors as ta
from tinker_actors.actors.recorder import Recorder
from tinker_actors.journal.event_file import EventFile, open_event_file
from tinker_actors.kernel import Actor, ChildSpec, Message, Supervisor, handles, open_supervisor
from tinker_actors.protocol.tree_seen import MOST_PAST

MODEL = "Qwen/Qwen3-8B"
WARM_UP = 2.0  # seconds before anything counts
MOST_UNDER_WAY = 1000  # samples
SETTLE = 0.1  # seconds after each change that do not count
BAR = 1.0  # per cent of a core
COSTINGS = 5  # pairs
ASKS = 20_000  # messages that the cost of remembering is measured with


@attrs.define
class Parts:
    """Counts what the parts take, by the CPU clocks of their threads, and can leave out looking.

    Attributes:
        seconds: how much it was.
        looking: the tree is looked at.
    """

    seconds: float = 0.0
    looking: bool = True

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and counts what it takes."""

        def wrapped(*args: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args) if self.looking else True
            finally:
                self.seconds += time.thread_time() - began

        return wrapped


@contextlib.contextmanager
def counting() -> Iterator[Parts]:
    """Count what looking and writing take."""
    parts = Parts()
    places: list[tuple[Any, str]] = [(Recorder, "_look"), (EventFile, "_work_off")]
    before = [getattr(owner, name) for owner, name in places]
    for (owner, name), function in zip(places, before, strict=True):
        setattr(owner, name, parts.counted(function))
    try:
        yield parts
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
    pairs = [(trio.run(seconds_per_ask, MOST_PAST), trio.run(seconds_per_ask, 0)) for _ in range(rounds)]
    return statistics.median(with_it - without for with_it, without in pairs)


# --- the load -----------------------------------------------------------------------------------------------


async def train(training: Any) -> None:
    """Take about eight steps a second."""
    tokens = [at % 90 for at in range(64)]
    data = [ta.Datum(ta.ModelInput.from_ints(tokens), {"target_tokens": tokens, "weights": [1.0] * 64})]
    while True:
        await training.forward_backward(data, "cross_entropy")
        await (await training.optim_step(ta.AdamParams(learning_rate=1e-4)))


async def draw(service: Any, rate: float, nursery: trio.Nursery) -> None:
    """Begin samples at a steady rate, as far as the machine can."""
    client = await service.create_sampling_client(base_model=MODEL)
    prompt, params = ta.ModelInput.from_ints(range(64)), ta.SamplingParams(max_tokens=16)
    due = trio.current_time()
    while True:
        if len(nursery.child_tasks) < MOST_UNDER_WAY:
            nursery.start_soon(client.sample, prompt, 1, params)
        due = max(due + 1 / rate, trio.current_time() - 1.0)
        await trio.sleep_until(due)


def messages(root: Supervisor) -> int:
    """Return how many messages the actors of a tree have had."""
    counts = dict[str, int]()
    for child in root.everybody():
        if isinstance(child, Supervisor):
            counts[child.path] = messages(child)
        else:
            counts[child.mailbox.owner] = child.mailbox.statistics().admitted
    return sum(counts.values())


@attrs.frozen
class Phase:
    """A few seconds with an event file or without, in CPU seconds, messages and bytes per second."""

    cpu: float
    parts: float
    messages: float
    bytes: float


async def measure(
    url: str, rate: float, seconds: float, rounds: int, path: Path
) -> list[tuple[Phase, Phase]]:
    """Draw and train for a while; return pairs of phases, without looking and with it."""
    pairs = list[tuple[Phase, Phase]]()
    with counting() as parts:
        async with (
            open_event_file(path) as file,
            ta.open_service(url, api_key="tml-bench", events=file) as service,
        ):
            root = service._tree.root  # noqa: SLF001 - to leave out remembering for a while
            training = await service.create_lora_training_client(MODEL, rank=8)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(train, training)
                nursery.start_soon(draw, service, rate, nursery)
                await trio.sleep(WARM_UP)
                for number in range(rounds):
                    phases = dict[bool, Phase]()
                    for looking in (False, True) if number % 2 == 0 else (True, False):
                        parts.looking = looking
                        root.remember(MOST_PAST if looking else 0)
                        phases[looking] = await phase(root, parts, seconds, path)
                    pairs.append((phases[False], phases[True]))
                nursery.cancel_scope.cancel()
    return pairs


async def phase(root: Supervisor, parts: Parts, seconds: float, path: Path) -> Phase:
    """Measure a few seconds."""
    await trio.sleep(SETTLE)

    def now() -> tuple[float, ...]:
        return time.process_time(), parts.seconds, messages(root), path.stat().st_size

    before, began = now(), time.monotonic()
    await trio.sleep(seconds)
    wall = time.monotonic() - began
    return Phase(*((after - at) / wall for after, at in zip(now(), before, strict=True)))


def figures(url: str, rate: float, seconds: float, rounds: int, per_message: float) -> dict[str, float]:
    """Measure in turns, and return the figures in per cent of a core."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "events.jsonl"
        pairs = trio.run(measure, url, rate, seconds, rounds, path)
    looking = [with_it for _, with_it in pairs]
    differences = [with_it.cpu - without.cpu for without, with_it in pairs]
    parts = statistics.median(one.parts + one.messages * per_message for one in looking)
    return {
        "percent": round(parts * 100, 3),
        "difference": round(statistics.mean(differences) * 100, 2),
        "give_or_take": round(statistics.stdev(differences) / rounds**0.5 * 100, 2),
        "plain": round(statistics.median(without.cpu for without, _ in pairs) * 100, 1),
        "messages_per_s": round(statistics.median(one.messages for one in looking)),
        "bytes_per_s": round(statistics.median(one.bytes for one in looking)),
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
    per_message = cost_of_remembering(COSTINGS)
    print(f"remembering costs a message {per_message * 1e6:.2f} microseconds", flush=True)
    found, met = {}, True
    with stub() as url:
        set_work(url, sample_ms=200, batch_ms=100, optim_ms=20)
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
