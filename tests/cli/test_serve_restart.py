"""The embedded service in a process of its own, killed and started again under a client that goes on."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import tinker_actors as ta
from tinker_actors.events import ModelRestored, SessionRenewed
from tinker_actors.local.state import FILE

pytestmark = pytest.mark.slow

MODEL = "tinker-actors/char-100k"
WEIGHTS = ("adapter_model.safetensors", "optimizer.safetensors")


class Server:
    """`serve` on a directory, on the same port in every life.

    Attributes:
        url: where it is.
    """

    def __init__(self, directory: Path) -> None:
        self.url = ""
        self._directory = directory
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = subprocess.Popen(
            [*COMMAND, "--port", self._port, "--directory", str(self._directory)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[2]
        self._port = self.url.rpartition(":")[2]

    def kill(self) -> None:
        """Kill it, as the system would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    async def restart(self, after: float = 0.0) -> None:
        """Kill it, and start it again a while later."""
        await trio.to_thread.run_sync(self.kill)
        await trio.sleep(after)
        await trio.to_thread.run_sync(self.start)


COMMAND = [sys.executable, "-m", "tinker_actors.cli", "serve"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Give a running server with a new directory."""
    server = Server(tmp_path / "service")
    server.start()
    yield server
    server.kill()


def batch(seed: int) -> list[ta.Datum]:
    """Make a batch that can be told apart."""
    rng = random.Random(seed)
    data = []
    for _ in range(4):
        tokens = [rng.randrange(5, 90) for _ in range(12)]
        inputs = {"target_tokens": tokens[1:], "weights": [1.0] * 11}
        data.append(ta.Datum(ta.ModelInput.from_ints(tokens[:-1]), inputs))
    return data


async def train(
    server: Server, folder: Path, kills: dict[tuple[int, str], float]
) -> tuple[dict[str, bytes], Any]:
    """Train for some steps, with kills at some of their places; return the final weights, and what happened."""
    async with ta.open_service(base_url=server.url, seed=1) as service:
        happened = service.subscribe()
        session_id = service.session_id
        training = await service.create_lora_training_client(MODEL, rank=4, seed=5)
        async with trio.open_nursery() as nursery:
            for step in range(12):
                if step % 4 == 1:
                    nursery.start_soon(training.save_state, f"step-{step}")
                for place in ("gradient", "step", "sent"):
                    if place == "gradient":
                        await training.forward_backward(batch(step), "cross_entropy")
                    elif place == "step":
                        pending = await training.optim_step(ta.AdamParams(learning_rate=1e-2))
                    if (step, place) in kills:
                        await server.restart(kills[step, place])
                if step % 3 == 0:
                    await pending
        path = (await training.save_state("end")).path
        files = await service.rest.download_checkpoint(path, folder, extract=True)
        assert service.session_id == session_id
        events = []
        with contextlib.suppress(trio.WouldBlock):
            while True:
                events.append(happened.receive_nowait())
    return {name: (files / name).read_bytes() for name in WEIGHTS}, (training.model_id, events)


def test_a_client_goes_on_when_the_service_was_killed_and_started_again(tmp_path: Path) -> None:
    """In its session and by itself, and its final weights are those of the undisturbed run, bit for bit."""
    kills = {(0, "step"): 0.0, (4, "gradient"): 1.2, (5, "sent"): 0.0, (9, "step"): 0.3}
    ends = []
    for name, those in (("undisturbed", {}), ("killed", kills)):
        server = Server(tmp_path / name)
        server.start()
        try:
            ends.append(trio.run(train, server, tmp_path / f"end-{name}", those))
        finally:
            server.kill()
    (expected, (first, quiet)), (weights, (last, events)) = ends
    assert weights == expected
    assert first.endswith(":train:0")
    assert last.endswith(f".b{len(kills) + 1}")
    assert not [event for event in quiet if isinstance(event, ModelRestored)]
    assert (
        len([event for event in events if isinstance(event, ModelRestored)]) > 1
    )  # some kills meet no model
    assert not [event for event in events if isinstance(event, SessionRenewed)]


async def test_kills_lose_nothing_that_was_saved(server: Server, tmp_path: Path, slow_count: Any) -> None:
    """Killed at random moments while it saves, the service has in the end all that it had acknowledged."""
    rng, saved, kills = random.Random(7), [], slow_count(6)
    async with ta.open_service(base_url=server.url, seed=1) as service:
        training = await service.create_lora_training_client(MODEL, rank=4, seed=5)
        done = trio.Event()

        async def kill_now_and_then() -> None:
            for _ in range(kills):
                await trio.sleep(rng.uniform(0.02, 0.5))
                await server.restart()
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_now_and_then)
            while not done.is_set() or len(saved) < 3:
                await training.forward_backward(batch(len(saved)), "cross_entropy")
                await training.optim_step(ta.AdamParams(learning_rate=1e-2))
                kind = (training.save_state, training.save_weights_for_sampler)[len(saved) % 2]
                saved.append((await kind(f"n{len(saved)}")).path)
        await server.restart()
        listed = [one.tinker_path async for one in service.rest.user_checkpoints()]
        assert set(saved) <= set(listed)
        for number, path in enumerate(saved):
            files = await service.rest.download_checkpoint(path, tmp_path / str(number), extract=True)
            assert (files / WEIGHTS[0]).stat().st_size > 1000
    names = {path.name for path in (tmp_path / "service").iterdir()}
    assert not [name for name in names if name.startswith((".draft-", ".old-"))]
    assert FILE in names


def test_a_second_server_on_a_directory_is_refused(server: Server, tmp_path: Path) -> None:
    """In one line, with a status; when the first one was killed, another takes its place."""
    command = [*COMMAND, "--port", "0", "--directory", str(tmp_path / "service")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert refused.returncode == 1
    assert "is in use: another service keeps its state there" in refused.stderr
    assert "Traceback" not in refused.stderr
    server.kill()
    server.start()
