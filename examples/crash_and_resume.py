"""Kill a training run by `kill -9` at any moment, and its service too: no step is lost, and none is done twice.

    python examples/crash_and_resume.py                                # 4 kills and 1 of the service; under a minute
    python examples/crash_and_resume.py --kills 20 --server-kills 3    # what `make crash` does

A child process trains addition on `tinker-actors serve`. The parent kills both at moments drawn by the seed, anywhere
in a step, starts them again, and compares the final weights with those of a run that nobody disturbed. It does so with
three ways to go on after a crash, and the same kills for each:

    open_run    what this package offers: a step is decided once, in the journal, with the loop's state behind it
    checkpoint  an honest checkpoint every few steps: go back to the last one, and do again what came after it
    cookbook    the rule of the cookbook's pipelined loop (tinker_cookbook/supervised/train.py, August 2026): save when
                a batch is finished, which is after the next one was put in line, and note the finished batch

A proxy between child and service counts what the service was asked to do. The last line is one JSON object; the
program fails if `open_run` lost or doubled anything, or if there were fewer kills than asked for: one that comes too
late strikes the run that is started again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, get_args

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tinker_actors.testing import Recording, RecordingProxy, Update, open_recording_proxy
from tinker_actors.testing.recording import differences

CHILD = Path(__file__).parent / "crash" / "child.py"
MAX_STARTS = 100  # of a child, in case it never gets anywhere

Victim = Literal["run", "service"]
Way = Literal["open_run", "checkpoint", "cookbook"]
WAYS: tuple[Way, ...] = ("open_run", "checkpoint", "cookbook")


# --------------------------------------------------------------------------------------------------- the parent


@dataclass(frozen=True)
class Kill:
    """A kill.

    Attributes:
        victim: what is killed.
        step: the step that has to have begun.
        after: how long after that, in parts of a step; what is put in line is under way for longer than a step, so this
            is anywhere in the life of some step. Of one that is starting: in parts of a start.
        starting: it strikes the run that has just been started again, on its way to where it was.
    """

    victim: Victim
    step: int
    after: float
    starting: bool = False


def draw_kills(seed: int, steps: int, runs: int, services: int) -> list[Kill]:
    """Draw kills at different steps, none at the last one, so that each finds its victim alive.

    One kill of the run in five comes while the run is starting again after another one.
    """
    rng = random.Random(f"kills {seed}")
    starting = runs // 5
    run, service = get_args(Victim)
    victims = [run] * (runs - starting) + [service] * services
    rng.shuffle(victims)
    places = sorted(rng.sample(range(steps - 1), len(victims)))
    kills = [Kill(victim, step, rng.uniform(0, 2)) for victim, step in zip(victims, places, strict=True)]
    for first in rng.sample([kill for kill in kills if kill.victim == run], starting):
        kills.insert(kills.index(first) + 1, Kill(run, first.step, rng.random(), starting=True))
    return kills


@dataclass
class Played:
    """What became of one way to go on.

    Attributes:
        sha256: of the final weights.
        model_id: the model they are in.
        stream: the loop's state at the end.
        recording: what came to the service.
        kills: how many there were, by victim.
        starts: how often the child was started.
        ways_on: how the run went on after each start.
        start_seconds: how long the first start took.
        steps_began: when the steps began.
        lost: seconds between a kill and the moment when the run was further than before.
    """

    sha256: str = ""
    model_id: str = ""
    stream: dict[str, int] = field(default_factory=dict)
    recording: Recording = field(default_factory=Recording)
    kills: dict[str, int] = field(default_factory=lambda: {"run": 0, "service": 0})
    starts: int = 0
    ways_on: list[str] = field(default_factory=list)
    start_seconds: float = 0.0
    steps_began: list[float] = field(default_factory=list)
    lost: float = 0.0

    @property
    def step_seconds(self) -> float:
        """How long a step takes; of a run that nobody disturbed."""
        return (self.steps_began[-1] - self.steps_began[0]) / (len(self.steps_began) - 1)


class Service:
    """`tinker-actors serve` in a process of its own, on one port for all its lives."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._port = "0"
        self._process: trio.Process | None = None
        self.url = ""

    async def start(self) -> None:
        """Start it, and wait until it says where it is."""
        words = ["serve", "--port", self._port, "--seed", str(self._seed), "--directory", str(self._folder)]
        command = [sys.executable, "-m", "tinker_actors.cli", *words]
        with (self._folder / "service.log").open("ab") as log:  # noqa: ASYNC230 - opened once per start
            self._process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=log)
        async with contextlib.aclosing(lines(self._process)) as said:
            async for line in said:
                if line.startswith("serving on "):
                    self.url = line.split()[2]
                    self._port = self.url.rpartition(":")[2]
                    return
        raise RuntimeError(f"the service does not start: see {self._folder / 'service.log'}")

    async def kill(self) -> None:
        """Kill it, as the system does when memory is short."""
        if self._process is not None:
            await kill(self._process)


async def kill(process: trio.Process) -> bool:
    """Kill a process, and wait until it is gone; return whether it had not ended by itself."""
    process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()
    return process.returncode == -signal.SIGKILL


async def lines(process: trio.Process) -> AsyncGenerator[str]:  # noqa: ASYNC900 - its end is the process's
    """Yield what a process prints, line by line."""
    assert process.stdout is not None
    rest = b""
    async for data in process.stdout:
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode()


class Parent:
    """Plays one way to go on: starts, kills and starts again until all kills are done and the child has its result."""

    def __init__(
        self, way: Way, kills: Sequence[Kill], undisturbed: Played | None, options: argparse.Namespace
    ) -> None:
        self.played = Played()
        self._way = way
        self._kills = deque(kills)
        self._step_seconds = 0.0 if undisturbed is None else undisturbed.step_seconds
        self._start_seconds = 0.0 if undisturbed is None else undisturbed.start_seconds
        self._started = 0.0
        self._striking = False
        self._last_step = trio.Event()
        self._options = options
        self._furthest = -1
        self._behind_since: float | None = None

    async def play(self, folder: Path, progress: Progress, bar: TaskID) -> Played:
        """Play it in a folder of its own."""
        await trio.Path(folder).mkdir(parents=True)
        service = Service(folder, self._options.seed)
        await service.start()
        try:
            async with open_recording_proxy(service.url) as proxy:
                self.played.recording = proxy.recording
                while self._kills or not self.played.sha256:
                    if self.played.starts == MAX_STARTS:
                        raise RuntimeError(f"{self._way} gets nowhere: see {folder / 'child.log'}")
                    await self._live_once(folder, service, proxy, progress, bar)
                await proxy.settle()
        finally:
            await service.kill()  # noqa: ASYNC102 - it shields itself
        return self.played

    async def _live_once(
        self, folder: Path, service: Service, proxy: RecordingProxy, progress: Progress, bar: TaskID
    ) -> None:
        self.played.starts += 1
        options = self._options
        words = ["--way", self._way, "--url", proxy.url, "--folder", folder, "--start", self.played.starts]
        words += ["--steps", options.steps, "--seed", options.seed]
        with (folder / "child.log").open("ab") as log:  # noqa: ASYNC230 - opened once per start
            child = await trio.lowlevel.open_process(
                [sys.executable, CHILD, *map(str, words)], stdout=subprocess.PIPE, stderr=log
            )
        self._started, self._last_step = trio.current_time(), trio.Event()
        if self._furthest >= options.steps - 1:
            self._last_step.set()
        try:
            async with trio.open_nursery() as nursery:
                if self._kills and self._kills[0].starting:
                    nursery.start_soon(self._strike, self._kills.popleft(), child, service)
                async for line in lines(child):
                    self._heard(json.loads(line), progress, bar)
                    if not self._striking and self._kills and self._furthest >= self._kills[0].step:
                        nursery.start_soon(self._strike, self._kills.popleft(), child, service)
                self._last_step.set()
        finally:
            await kill(child)  # noqa: ASYNC102 - it shields itself
        if child.returncode:
            self.played.sha256 = ""  # what it told before it was killed, or failed, is not how it ended

    def _heard(self, said: dict[str, Any], progress: Progress, bar: TaskID) -> None:
        if "went_on" in said:
            self.played.ways_on.append(said["went_on"])
            return
        if not self.played.steps_began:
            self.played.start_seconds = trio.current_time() - self._started
        self.played.steps_began.append(trio.current_time())
        step = said.get("step", self._options.steps)
        if "sha256" in said:
            self.played.sha256, self.played.model_id = said["sha256"], said["model_id"]
            self.played.stream = said["stream"]
        if step >= self._options.steps - 1:
            self._last_step.set()
        if step > self._furthest or "sha256" in said:
            self._furthest = step
            if self._behind_since is not None:
                self.played.lost += trio.current_time() - self._behind_since
                self._behind_since = None
        progress.update(bar, completed=step)

    async def _strike(self, one: Kill, child: trio.Process, service: Service) -> None:
        """Kill at the right moment, or at once if the run is about to end."""
        self._striking = True
        with trio.move_on_after(one.after * (self._start_seconds if one.starting else self._step_seconds)):
            await self._last_step.wait()
        self._striking = False
        began = trio.current_time()
        if not (await kill(child) if one.victim == "run" else child.poll() is None):
            self._kills.appendleft(one)  # it has ended by itself: the next one is killed
            return
        self.played.kills[one.victim] += 1
        if self._behind_since is None:
            self._behind_since = began
        if one.victim == "service":
            await service.kill()
            await service.start()


# ------------------------------------------------------------------------------------------------------ the report


@dataclass(frozen=True)
class Verdict:
    """How one way did, against the run that nobody disturbed.

    Attributes:
        client_kills: how often the run was killed.
        server_kills: how often its service was.
        hash_equal: the final weights are the same, bit for bit.
        state_equal: so is the loop's state.
        doubled: batches that are in the final weights too often, or should not be there at all.
        missing: batches that are not in them.
        steps_twice: batches that the service computed again.
        samples_twice: samples that were drawn again.
        seconds_lost: between each kill and the moment when the run was further than before.
        strip: how often each batch is in the final weights, in the order of the undisturbed run.
    """

    client_kills: int
    server_kills: int
    hash_equal: bool
    state_equal: bool
    doubled: int
    missing: int
    steps_twice: int
    samples_twice: int
    seconds_lost: float
    strip: tuple[int, ...]


def gradients(played: Played) -> list[Update]:
    """Return the batches in the final weights, in order."""
    updates = played.recording.lineage(played.model_id)
    return [update for update in updates if update.kind == "forward_backward"]


def each_once(played: Played, steps: int) -> bool:
    """Whether so many batches are in the final weights, each unlike all others."""
    found = gradients(played)
    return len(found) == len(set(found)) == steps


def judge(played: Played, undisturbed: Played) -> Verdict:
    """Hold a way against the undisturbed run."""
    expected, found = gradients(undisturbed), gradients(played)
    doubled, missing = differences(expected, found)
    again = [played.recording.times_accepted(name).values() for name in ("forward_backward", "asample")]
    return Verdict(
        client_kills=played.kills["run"],
        server_kills=played.kills["service"],
        hash_equal=played.sha256 == undisturbed.sha256,
        state_equal=played.stream == undisturbed.stream,
        doubled=doubled,
        missing=missing,
        steps_twice=sum(count - 1 for count in again[0]),
        samples_twice=sum(count - 1 for count in again[1]),
        seconds_lost=round(played.lost, 2),
        strip=tuple(found.count(update) for update in expected),
    )


def show(console: Console, verdicts: dict[Way, Verdict], kills: Sequence[Kill], steps: int) -> None:
    """Show a strip of batches for each way, the kills above it, and a table."""
    marks = {kill.step: "▼" if kill.victim == "run" else "▽" for kill in kills}
    console.print("\nHow often each batch is in the final weights, from the first to the last.")
    console.print(
        f"▼ the run is killed, ▽ the service is killed\n{'':12}"
        + "".join(map(marks.get, range(steps), repeat(" ")))
    )
    for way, verdict in verdicts.items():
        strip = Text(f"{way:12}", no_wrap=True)
        for count in verdict.strip:
            strip.append(*[("▁", "red"), ("█", "green"), (str(min(count, 9)), "bold red")][min(count, 2)])
        console.print(strip)
    table = Table(title_justify="left")
    for name in (
        "",
        "same\nweights",
        "steps\ndoubled",
        "steps\nmissing",
        "steps\nagain",
        "samples\nagain",
        "seconds\nlost",
    ):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for way, one in verdicts.items():
        numbers = (one.doubled, one.missing, one.steps_twice, one.samples_twice, one.seconds_lost)
        table.add_row(way, "✓" if one.hash_equal else "✗", *map(str, numbers))
    console.print(table)


@contextlib.contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    """Give a folder that is kept, or one that is not."""
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="crash-and-resume-") as folder:
        yield Path(folder)


async def main(options: argparse.Namespace) -> dict[str, object]:
    """Play all ways; return what the last line says."""
    console = Console(highlight=False)
    kills = draw_kills(options.seed, options.steps, options.kills, options.server_kills)
    columns = (
        TextColumn("{task.description:22}"),
        BarColumn(),
        TextColumn("{task.completed}"),
        TimeElapsedColumn(),
    )
    with working_folder(options.folder) as folder, Progress(*columns, console=console) as progress:

        async def play(way: Way, name: str, kills: Sequence[Kill], beside: Played | None) -> Played:
            bar = progress.add_task(name, total=options.steps)
            return await Parent(way, kills, beside, options).play(folder / name, progress, bar)

        undisturbed = await play("open_run", "undisturbed", (), None)
        if not each_once(undisturbed, options.steps):
            raise RuntimeError("the run that nobody disturbed did not do each step once")
        ways = WAYS[:1] if options.alone else WAYS
        played: dict[Way, Played] = {way: await play(way, way, kills, undisturbed) for way in ways}
    verdicts: dict[Way, Verdict] = {way: judge(one, undisturbed) for way, one in played.items()}
    show(console, verdicts, kills, options.steps)
    ours = played["open_run"]
    count = Counter(ours.ways_on[1:])
    again = f"{count['attached']} times with the same model, {count['restored']} times with a new one"
    console.print(f"open_run went on {again}.")
    first, *others = (
        {name: value for name, value in asdict(verdict).items() if name != "strip"}
        for verdict in verdicts.values()
    )
    counts = {name: first.pop(name) for name in ("client_kills", "server_kills")}
    return {**counts, "steps": options.steps, **first, **dict(zip(ways[1:], others, strict=True))}


def right(result: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether `open_run` did what it promises, and each way was killed as often as was asked for."""
    asked = options.kills, options.server_kills
    ways = [result, *(result[way] for way in WAYS if way in result)]
    return bool(
        result["hash_equal"]
        and result["state_equal"]
        and not result["doubled"]
        and not result["missing"]
        and all((way["client_kills"], way["server_kills"]) == asked for way in ways)
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=4, help="how often the run is killed")
    parser.add_argument("--server-kills", type=int, default=1, help="how often its service is killed")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep runs, checkpoints and logs there")
    parser.add_argument("--alone", action="store_true", help="only open_run, without the two other ways")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of open_run alone, and a kill of each"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.kills, options.server_kills, options.alone = 12, 1, 1, True
    if options.kills + options.server_kills > options.steps - 1:
        parser.error("each kill needs a step of its own, and the last one is spared")
    return options


if __name__ == "__main__":
    chosen = parse()
    result = trio.run(main, chosen)
    print(json.dumps(result))
    sys.exit(0 if right(result, chosen) else 1)
