"""Kills a run on a real server, by `kill -9` at moments drawn by the seed, and sees what became of its steps.

    python tests/contract/crash.py skyrl      # also tuft, and own for our own service

Three runs are trained on the server, each through a recording proxy: two that nobody disturbs, and one that is killed,
and to which the answers to a gradient and to a step of the optimizer are lost. Of the killed one must hold:

    * every step is in the model that it ends with exactly once, in order, with the bytes of the undisturbed run. What
      the server took is read off the recording; promises that no client asked for are asked for here.
    * the loop's state is that of the last step.
    * the log probabilities of a fixed probe are those of the undisturbed run, up to what the server's own two
      undisturbed runs differ by.

The last line is one JSON object; the exit status is 1 if any of it does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import attrs
import httpx
import numpy as np
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))  # the project's root

from tests.contract.launch import KINDS, Server, open_server
from tests.contract.smoke import tour
from tinker_actors.testing import Recording, RecordingProxy, open_recording_proxy
from tinker_actors.testing.recording import differences

SLACK = 1e-6  # of a log probability in float32
FACTOR = 3.0  # two runs are a small sample of what a server's runs differ by
UPDATES = ("forward_backward", "optim_step")


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


@attrs.define
class Run:
    """What became of one run.

    Attributes:
        recording: what came to the server.
        model_id: the model it ended with.
        logprobs: of the probe.
        state: of the loop, at the end.
        ways: how it went on after each start: `fresh`, `attached`, `restored`.
        kills: how often it was killed.
        start_seconds: how long the first start took.
        steps_began: when it told of its steps.
        seconds: in all.
    """

    recording: Recording = attrs.field(factory=Recording)
    model_id: str = ""
    logprobs: np.ndarray = attrs.field(factory=lambda: np.zeros(0))
    state: dict[str, int] = attrs.field(factory=dict)
    ways: list[str] = attrs.field(factory=list)
    kills: int = 0
    start_seconds: float = 0.0
    steps_began: list[float] = attrs.field(factory=list)
    seconds: float = 0.0

    @property
    def step_seconds(self) -> float:
        """How long a step takes; of a run that nobody disturbed."""
        return (self.steps_began[-1] - self.steps_began[0]) / (len(self.steps_began) - 1)


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

    async def play(self, kills: Sequence[Kill] = (), undisturbed: Run | None = None) -> Run:
        """Play it to its end.

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
            while not self.run.model_id:
                await self._live(proxy)
            await proxy.settle()
        self.run.seconds = trio.current_time() - began
        return self.run

    async def _live(self, proxy: RecordingProxy) -> None:
        path = self._folder / "child.log"
        with path.open("ab") as log:  # noqa: ASYNC230 - opened once per start
            child = await trio.lowlevel.open_process(self._command(proxy), stdout=subprocess.PIPE, stderr=log)
        self._started = trio.current_time()
        try:
            if self._kills and self._kills[0].starting:
                await trio.sleep(self._kills.popleft().after * self._undisturbed.start_seconds)
                self.run.kills += 1
                return
            async with contextlib.aclosing(lines(child)) as told:
                async for line in told:
                    self._heard(json.loads(line))
                    if await self._strikes(json.loads(line), child):
                        return
        finally:
            child.kill()
            with trio.CancelScope(shield=True):
                await child.wait()
        if not self.run.model_id:
            said = path.read_text("utf-8", errors="replace").splitlines()[-20:]
            raise RuntimeError("\n".join(["the run ended by itself, without a result; its log ends:", *said]))

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
        if "model_id" in said:
            self.run.model_id, self.run.state = said["model_id"], said["state"]
            self.run.logprobs = np.array(said["logprobs"])

    async def _strikes(self, said: dict[str, Any], child: trio.Process) -> bool:
        if not self._kills or said.get("step", -1) < self._kills[0].step:
            return False
        await trio.sleep(self._kills.popleft().after * self._undisturbed.step_seconds)
        if child.poll() is not None:
            return False
        self.run.kills += 1
        return True


async def lines(process: trio.Process) -> AsyncGenerator[str]:
    """Yield what a process prints, line by line."""
    assert process.stdout is not None
    rest = b""
    async for data in process.stdout:
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode()


async def failed_promises(server: Server, recording: Recording) -> set[str]:
    """Ask the server for the promises that no client asked for; return those that failed."""
    headers = {"x-api-key": server.api_key}
    failed = set()
    async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=60) as client:
        for promise in recording.open_promises(*UPDATES):
            reply = await client.post("/api/v1/retrieve_future", json={"request_id": promise})
            body = reply.json() if "json" in reply.headers.get("content-type", "") else {}
            if reply.status_code in (400, 409, 422) or "error" in body:
                failed.add(promise)
    return failed


async def judge(server: Server, undisturbed: tuple[Run, Run], killed: Run) -> dict[str, Any]:
    """Hold the killed run against the undisturbed ones."""
    first, second = undisturbed
    expected = first.recording.lineage(first.model_id)
    found = killed.recording.lineage(killed.model_id, failed=await failed_promises(server, killed.recording))
    doubled, missing = differences(expected, found)
    noise = float(np.abs(first.logprobs - second.logprobs).max())
    difference = float(np.abs(first.logprobs - killed.logprobs).max())
    return {
        "client_kills": killed.kills,
        "ways": dict(Counter(killed.ways)),
        "updates": len(found),
        "doubled": doubled,
        "missing": missing,
        "in_order": found == expected,
        "state_equal": killed.state == first.state,
        "noise": noise,
        "difference": difference,
        "within_noise": difference <= FACTOR * noise + SLACK,
        "seconds": round(killed.seconds, 1),
        "seconds_undisturbed": round(first.seconds, 1),
    }


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
                verdict = await judge(server, (undisturbed[0], undisturbed[1]), killed)
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
    return parser.parse_args(arguments)


def holds(verdict: dict[str, Any]) -> bool:
    """Whether everything is as it must be."""
    right = ("in_order", "state_equal", "within_noise")
    return all(verdict[name] for name in right) and not verdict["doubled"] and not verdict["missing"]


if __name__ == "__main__":
    verdict = trio.run(main, parse())
    print(json.dumps(verdict))
    sys.exit(0 if holds(verdict) else 1)
