"""The stub in a process of its own, for benchmarks that measure what its callers take."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

__all__ = ["set_work", "stub"]


@contextlib.contextmanager
def stub(*arguments: str) -> Iterator[str]:
    """Start the stub with arguments of its own, and give its address."""
    command = [sys.executable, str(Path(__file__).with_name("stub.py")), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()


def set_work(url: str, *, sample_ms: int, batch_ms: int, optim_ms: int) -> None:
    """Say how long the stub at an address takes, in milliseconds."""
    work = json.dumps({"sample_ms": sample_ms, "batch_ms": batch_ms, "optim_ms": optim_ms}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/stub/settings", work))
