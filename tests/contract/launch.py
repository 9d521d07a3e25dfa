"""Servers that others wrote, on this machine: SkyRL and TuFT with a tiny random model, on the CPU; and our own.

    python tests/contract/launch.py skyrl --port 8100      # serves until it is interrupted

Each has an environment of its own, `.venv-skyrl` or `.venv-tuft`. `make crash-skyrl` and `make crash-tuft` set them up.
A server keeps its files in a folder of its own and knows no other network than loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import attrs
import httpx
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))  # the project's root

from tests.contract.servers.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
SERVERS = Path(__file__).parent / "servers"

START = 240.0  # seconds; SkyRL takes 16, TuFT 6, and several times that if the machine is busy
STOP = 15.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
SKYRL_CONFIG = {
    "max_lora_adapters": 64,
    "max_lora_rank": 8,
    "train_micro_batch_size": 4,
    "sample_max_num_sequences": 8,
}
TUFT_CONFIG = """\
checkpoint_dir: {folder}/checkpoints
model_owner: local-user
supported_models:
  - model_name: {model}
    model_path: {model}
    max_model_len: 2048
    max_lora_rank: 16
    max_loras: 64
authorized_users:
  {key}: default
persistence:
  mode: DISABLE
telemetry:
  enabled: false
"""
TUFT_KEY = "tml-dummy"


@attrs.frozen(kw_only=True)
class Command:
    """How a server is started.

    Attributes:
        words: the command line.
        environment: what is set beside this process's own.
    """

    words: list[str]
    environment: Mapping[str, str]


@attrs.frozen(kw_only=True)
class Kind:
    """A server that can be started.

    Attributes:
        capability: its name in our table of services.
        api_key: what it wants to be told.
        command: how it is started, given its interpreter, its folder, the model's folder and the port.
        base_model: the name of its model; None is the tiny model, by its folder.
        works: what its log says when it begins to work; its API may answer long before.
    """

    capability: str
    api_key: str
    command: Callable[[Path, Path, Path, int], Command]
    base_model: str | None = None
    works: str = ""


def skyrl(python: Path, folder: Path, model: Path, port: int) -> Command:
    """Return how SkyRL is started: the API, which starts its engine."""
    arguments = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--base-model": str(model),
        "--backend": "jax",
        "--backend-config": json.dumps(SKYRL_CONFIG),
        "--checkpoints-base": str(folder / "checkpoints"),
    }
    words = [str(SERVERS / "bin" / "uv"), "run", "-m", "skyrl.tinker.api"]
    environment = OFFLINE | {
        "JAX_PLATFORMS": "cpu",
        "PATH": f"{SERVERS / 'bin'}{os.pathsep}{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(SERVERS / "skyrl_site"),
        "SERVER_PYTHON": str(python),
        "SKYRL_DATABASE_URL": f"sqlite:///{folder / 'tinker.db'}",
    }
    return Command(
        words=[*words, *(word for pair in arguments.items() for word in pair)], environment=environment
    )


def tuft(python: Path, folder: Path, model: Path, port: int) -> Command:
    """Return how TuFT is started."""
    config = folder / "tuft.yaml"
    config.write_text(TUFT_CONFIG.format(folder=folder, model=model, key=TUFT_KEY), encoding="utf-8")
    arguments = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--config": str(config),
        "--checkpoint-dir": str(folder / "checkpoints"),
    }
    words = [str(python), str(SERVERS / "tuft_cpu.py"), "launch"]
    environment = OFFLINE | {"TUFT_HOME": str(folder / "home"), "PYTHONPATH": ""}
    (folder / "home").mkdir(exist_ok=True)
    return Command(
        words=[*words, *(word for pair in arguments.items() for word in pair)], environment=environment
    )


def own(python: Path, folder: Path, model: Path, port: int) -> Command:
    """Return how our own service is started, in this environment: it needs no other, and no tiny model."""
    words = [sys.executable, "-m", "tinker_actors.cli", "serve", "--port", str(port)]
    return Command(words=[*words, "--directory", str(folder / "checkpoints")], environment={})


KINDS = {
    "own": Kind(
        capability="tinker_actors", api_key="tml-dummy", command=own, base_model="tinker-actors/char-100k"
    ),
    "skyrl": Kind(
        capability="skyrl-0.3.0", api_key="tml-dummy", command=skyrl, works="Starting background engine"
    ),
    "tuft": Kind(capability="tuft", api_key=TUFT_KEY, command=tuft),
}


@attrs.frozen(kw_only=True)
class Server:
    """A server that runs.

    Attributes:
        url: where.
        base_model: the model it has, by the name it knows it by.
        api_key: the key it takes.
        capability: its name in our table of services.
        log: what it says.
    """

    url: str
    base_model: str
    api_key: str
    capability: str
    log: Path


class DidNotStart(Exception):
    """A server that ended, or did not answer in time."""


def prepare(name: str, folder: Path, port: int) -> tuple[Server, Command]:
    """Lay a server's folder, with the tiny model in it, and say how it is started."""
    kind, folder = KINDS[name], folder.resolve()
    model = folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_model(model)
    server = Server(
        url=f"http://127.0.0.1:{port}",
        base_model=kind.base_model or str(model),
        api_key=kind.api_key,
        capability=kind.capability,
        log=folder / f"{name}.log",
    )
    return server, kind.command(ROOT / f".venv-{name}" / "bin" / "python", folder, model, port)


@contextlib.asynccontextmanager
async def open_server(name: str, folder: Path, *, port: int = 0) -> AsyncIterator[Server]:
    """Start a server, and stop it and all that it started.

    Args:
        name: `skyrl`, `tuft`, or `own` for ours.
        folder: where it keeps its files.
        port: to listen on; 0 takes a free one.

    Raises:
        DidNotStart: with the end of its log.
    """
    server, command = prepare(name, folder, port or free_port())
    with server.log.open("wb") as out:
        process = await trio.lowlevel.open_process(
            command.words,
            env={**os.environ, **command.environment},
            cwd=server.log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await answering(server, process, KINDS[name].works)
        yield server
    finally:
        await stop(process)


async def answering(server: Server, process: trio.Process, works: str) -> None:
    """Wait until a server answers, and says in its log that it works.

    Raises:
        DidNotStart: it ended, or takes too long.
    """
    headers = {"x-api-key": server.api_key}
    with trio.move_on_after(START):
        async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False) as client:
            while process.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/api/v1/healthz")).status_code == 200 and works in said(server):
                        return
                await trio.sleep(0.2)
    end = said(server).splitlines()[-20:]
    raise DidNotStart("\n".join([f"{server.log.stem} does not answer; its log ends:", *end]))


def said(server: Server) -> str:
    """Return what a server has said so far."""
    return server.log.read_text("utf-8", errors="replace")


async def stop(process: trio.Process) -> None:
    """Ask a server to end; what is left of its group of processes after that is killed."""
    with trio.CancelScope(shield=True):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with trio.move_on_after(STOP):
            await process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


async def main(options: argparse.Namespace) -> None:
    """Serve until interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_server(options.server, options.folder or Path(folder), port=options.port) as server:
            print(
                f"{options.server} serves {server.base_model} on {server.url}, key {server.api_key}",
                flush=True,
            )
            await trio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("server", choices=sorted(KINDS))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where it keeps its files; a temporary folder by default")
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(main, parser.parse_args())
