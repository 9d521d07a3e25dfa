"""Kills a run on a real server, by `kill -9` at moments drawn by the seed, and sees what became of its steps.

    python tests/contract/crash.py skyrl      # also tuft, and own for our own service

Three runs are trained on the server, each through a recording proxy: two that nobody disturbs, and one that is killed,
and to which the answers to a gradient and to a step of the optimizer are lost. Of the killed one must hold:

    * every step is in the model that it ends with exactly once, in order, with the bytes of the undisturbed run. What
      the server took is read off the recording; promises that no client asked for are asked for here.
    * the loop's state is that of the last step.
    * the log probabilities of a fixed probe are those of the undisturbed run, up to what the server's own two
      undisturbed runs differ by, which is less than what one step makes of them.
    * it was killed as often as was asked for: a kill that finds the run at its end strikes it when it is started again.

The last line is one JSON object; the exit status is 1 if any of it does not hold.
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
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))  # the project's root

from tests.contract.launch import KINDS, Server, open_server
from tests.contract.smoke import tour
from tests.contract.verdict import UPDATES, Run, digests, holds, judge
from tinker_actors.testing import RecordingProxy, open_recording_proxy


@attrs.frozen
class Kill:
    """A kill, so long after a step has begun, in parts of a step: the next one may have begun by then.

    Attributes:
        step: the step.
        after: how long.
        starting: it strikes the run that has just been started again, so many parts of a start after that.
    """

    step: int
    after: float
    starting: bool = False


def draw_kills(seed: int, steps: int, count: int) -> list[Kill]:
    """Draw kills at different steps, none at the last one; one in five strikes a run that is starting again."""
    rng = random.Random(f"kills {seed}")
    starting = count // 5
    places = sorted(rng.sample(range(steps - 1), count - starting))
    kills = [Kill(step, rng.uniform(0, 2)) for step in places]
    for first in rng.sample(kills, starting):
        kills.insert(kills.index(first) + 1, Kill(first.step, rng.random(), starting=True))
    return kills


class Player:
    """Plays one run: starts its process, kills it, and starts it again until it has its result."""

    def __init__(self, server: Server, folder: Path, options: argparse.Namespace) -> None:
        self.run = Run()
        self._server = server
        self._folder = folder
        self._options = options
        self._kills: deque[Kill] = deque()
        self._undisturbed = Run()
        self._started = 0.0
        self._furthest = -1
        self._aims = self._struck = False
        self._ends = trio.Event()

    async def play(self, kills: Sequence[Kill] = (), undisturbed: Run | None = None) -> Run:
        """Play it until it has its result and every kill was carried out.

        Args:
            kills: to carry out; the server's answers to one gradient and one step of the optimizer are lost as well.
            undisturbed: a run that says how long steps and starts take.
        """
        self._kills, self._undisturbed = deque(kills), undisturbed or Run()
        await trio.Path(self._folder).mkdir()
        began = trio.current_time()
        async with open_recording_proxy(self._server.url) as proxy:
            self.run.recording = proxy.recording
            for endpoint in UPDATES if kills else ():
                proxy.lose_answers(endpoint)
            while self._kills or not self.run.model_id:
                await self._live(proxy)
            await proxy.settle()
        self.run.seconds = trio.current_time() - began
        return self.run

    async def _live(self, proxy: RecordingProxy) -> None:
        path = self._folder / "child.log"
        with path.open("ab") as log:  # noqa: ASYNC230 - opened once per start
            child = await trio.lowlevel.open_process(self._command(proxy), stdout=subprocess.PIPE, stderr=log)
        self._started, self._aims, self._struck = trio.current_time(), False, False
        self.run.model_id = ""
        try:
            await self._watch(child)
        finally:
            await end(child)  # noqa: ASYNC102 - it shields itself
        if self._struck:
            self.run.model_id = ""  # what it told before it was killed is not how it ended
        elif child.returncode or not self.run.model_id:
            said = path.read_text("utf-8", errors="replace").splitlines()[-20:]
            raise RuntimeError("\n".join(["the run ended by itself, without a result; its log ends:", *said]))

    async def _watch(self, child: trio.Process) -> None:
        """Hear a child until its end, and kill it at its moment."""
        async with trio.open_nursery() as nursery:
            if self._kills and self._kills[0].starting:
                self._aims = True
                nursery.start_soon(self._strike_start, child)
            async with contextlib.aclosing(lines(child)) as told:
                async for line in told:
                    self._heard(json.loads(line))
                    if self._kills and not self._aims and self._furthest >= self._kills[0].step:
                        nursery.start_soon(self._strike, child)
                        self._aims = True
            nursery.cancel_scope.cancel(reason="the child has ended")

    async def _strike_start(self, child: trio.Process) -> None:
        """Kill a run that is starting; one that has ended before is started again, and killed sooner."""
        kill = self._kills[0]
        self._kills[0] = attrs.evolve(kill, after=kill.after / 2)
        await trio.sleep(kill.after * self._undisturbed.start_seconds)
        await self._kill(child)

    async def _strike(self, child: trio.Process) -> None:
        """Kill a run so long after a step has begun, or at once when its last step begins."""
        with trio.move_on_after(self._kills[0].after * self._undisturbed.step_seconds):
            await self._ends.wait()
        await self._kill(child)

    async def _kill(self, child: trio.Process) -> None:
        if await end(child):
            self._struck = True
            self._kills.popleft()
            self.run.kills += 1

    def _command(self, proxy: RecordingProxy) -> list[str]:
        server = self._server
        arguments = {
            "--url": proxy.url,
            "--api-key": server.api_key,
            "--base-model": server.base_model,
            "--capability": server.capability,
            "--folder": str(self._folder),
            "--steps": str(self._options.steps),
        }
        child = str(Path(__file__).with_name("child.py"))
        words = [word for pair in arguments.items() for word in pair]
        return [sys.executable, child, *words]

    def _heard(self, said: dict[str, Any]) -> None:
        if "resumed" in said:
            self.run.ways.append(said["resumed"]["how"])
            print(f"  {self._folder.name}: {said['resumed']}", flush=True)
        if "step" in said:
            self.run.start_seconds = self.run.start_seconds or trio.current_time() - self._started
            self.run.steps_began.append(trio.current_time())
            self._furthest = max(self._furthest, said["step"])
        if self._furthest >= self._options.steps - 1:
            self._ends.set()
        if "model_id" in said:
            self.run.model_id, self.run.state = said["model_id"], said["state"]
            self.run.logprobs, self.run.before = np.array(said["logprobs"]), np.array(said["before"])


async def end(child: trio.Process) -> bool:
    """End a child by `kill -9`; return whether that was its end, and not one that it had come to by itself."""
    child.kill()
    with trio.CancelScope(shield=True):
        await child.wait()
    return child.returncode == -signal.SIGKILL


async def lines(process: trio.Process) -> AsyncGenerator[str]:
    """Yield what a process prints, line by line."""
    assert process.stdout is not None
    rest = b""
    async for data in process.stdout:
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode()


async def main(options: argparse.Namespace) -> dict[str, Any]:
    """Start the server, train the three runs, and judge."""
    kills = draw_kills(options.seed, options.steps, options.kills)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        async with open_server(options.server, folder / "server") as server:
            print(f"{options.server} runs; a tour first", flush=True)
            with trio.fail_after(options.patience):
                print(f"  {await tour(server, server.url)}", flush=True)
                undisturbed = [
                    await Player(server, folder / f"undisturbed-{number}", options).play()
                    for number in (1, 2)
                ]
                second = undisturbed[1]
                print(
                    f"a start takes {second.start_seconds:.2f} s, a step {second.step_seconds:.2f} s",
                    flush=True,
                )
                print(*kills, sep="\n", flush=True)
                killed = await Player(server, folder / "killed", options).play(kills, second)
                steps = [digests(step) for step in range(options.steps)]
                verdict = await judge(server, (undisturbed[0], undisturbed[1]), killed, steps)
    return {"server": options.server, "steps": options.steps, **verdict}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("server", choices=sorted(KINDS))
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=float, default=900.0, help="seconds for everything")
    parser.add_argument("--folder", type=Path, help="keep runs and logs there")
    options = parser.parse_args(arguments)
    if options.kills - options.kills // 5 > options.steps - 1:
        parser.error("each kill needs a step of its own, and the last one is spared")
    return options


if __name__ == "__main__":
    chosen = parse()
    verdict = trio.run(main, chosen)
    print(json.dumps(verdict))
    sys.exit(0 if holds(verdict, chosen.kills) else 1)
