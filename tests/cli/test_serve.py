"""The embedded service in a process of its own, reached over loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "tinker_actors.cli"]


@contextlib.contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `serve` on a free port; yield its URL and the process."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split()[2], process
    finally:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Ask a server to end, and see that it does so in good order."""
    process.send_signal(number)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert rest.rstrip().endswith("stopped")


def demo(url: str | None, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a short demo on a service, or on the embedded one."""
    where = ["--no-kill"] if url is None else ["--base-url", url]
    return subprocess.run(
        [*COMMAND, "demo", "--steps", "4", *where, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.slow
def test_the_same_loop_gives_the_same_weights_over_http() -> None:
    """Another process, real sockets, one BLAS thread: bit for bit what the embedded service gives."""
    with serving() as (url, process):
        remote = demo(url)
        assert remote.returncode == 0, remote.stderr
        stop(process, signal.SIGINT)
    local = json.loads(demo(None).stdout.splitlines()[-1])
    result = json.loads(remote.stdout.splitlines()[-1])
    assert result["backend"] == url
    assert result["weights_sha256"] == local["weights_sha256"]
    assert result["reward_start"] == local["reward_start"]


@pytest.mark.slow
def test_a_key_is_asked_for_and_state_is_kept_on_disk(tmp_path: Path) -> None:
    """With a key set, clients without it are refused; checkpoints lie in the directory."""
    with serving("--directory", str(tmp_path), TINKER_ACTORS_SERVE_KEY="tml-right-key") as (url, process):
        refused = demo(url)
        assert refused.returncode == 1
        assert "error: client_config: Error code: 401" in refused.stderr
        assert demo(url, TINKER_API_KEY="tml-right-key").returncode == 0
        stop(process, signal.SIGTERM)
    assert list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_a_taken_port_is_one_line_and_a_status() -> None:
    """The error names the port."""
    with serving() as (url, _):
        port = url.rpartition(":")[2]
        done = subprocess.run(
            [*COMMAND, "serve", "--port", port], capture_output=True, text=True, check=False, timeout=30
        )
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr
