"""What both clients do, in plain arrays, and what a measured process says of itself.

Each driver (`transport_ours.py`, `transport_official.py`) does one scenario in a process of its own and prints one
line of JSON. CPU seconds are those of all threads of the process; memory is the peak of what is resident.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
import urllib.request
from typing import Any, Self

import attrs
import numpy as np
import numpy.typing as npt

__all__ = [
    "MODEL",
    "Batch",
    "Meter",
    "arguments",
    "batch",
    "control",
    "prompts",
    "report",
]

MODEL = "Qwen/Qwen3-8B"
_VOCABULARY = 151_000


def prompts(count: int, length: int) -> list[list[int]]:
    """Return different prompts."""
    return [[(at * 7919 + 13 * one) % _VOCABULARY for at in range(length)] for one in range(count)]


@attrs.frozen
class Batch:
    """A training batch as arrays.

    Attributes:
        tokens: the inputs, int32, one array for each datum.
        inputs: the loss's inputs for each datum.
        loss_fn: the loss.
        megabytes: of int32 tokens, int64 targets and float32 values.
    """

    tokens: list[npt.NDArray[np.int32]]
    inputs: list[dict[str, npt.NDArray[Any]]]
    loss_fn: str
    megabytes: float


def batch(kind: str, datums: int, length: int) -> Batch:
    """Return a batch as users have it: `sft` has weights, `rl` has log probabilities and advantages."""
    rng = np.random.default_rng(0)
    tokens, inputs = [], []
    for _ in range(datums):
        text = np.minimum(rng.zipf(1.3, length + 1), _VOCABULARY)  # as unequal as those of a text
        tokens.append(text[:-1].astype(np.int32))
        values: dict[str, npt.NDArray[Any]] = {"target_tokens": text[1:].astype(np.int64)}
        if kind == "sft":
            values["weights"] = np.ones(length, np.float32)
        else:
            values["logprobs"] = rng.normal(-1, 0.5, length).astype(np.float32)
            values["advantages"] = rng.normal(0, 1, length).astype(np.float32)
        inputs.append(values)
    per_token = 4 + 8 + (4 if kind == "sft" else 8)
    loss = "cross_entropy" if kind == "sft" else "importance_sampling"
    return Batch(tokens, inputs, loss, datums * length * per_token / 1e6)


def control(url: str, what: str, value: object | None = None) -> dict[str, Any]:
    """Call the stub itself: `settings`, `reset` or `stats`."""
    context = None
    if url.startswith("https"):
        import ssl

        context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(f"{url}/stub/{what}", data=body)
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


class Meter:
    """CPU and wall seconds of a `with` block."""

    def __enter__(self) -> Self:
        self._cpu, self._wall = self._used(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = self._used() - self._cpu

    @staticmethod
    def _used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime


def peak_mb() -> float:
    """Return the peak of the resident memory, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def arguments() -> argparse.Namespace:
    """Read what a driver is to do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=["sample", "batch", "step"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--cpu", type=int, help="keep to this CPU")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=400)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--kind", choices=["sft", "rl"], default="sft")
    parser.add_argument("--datums", type=int, default=128)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--way", choices=["direct", "client", "stock"], default="direct")
    options = parser.parse_args()
    if options.cpu is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {options.cpu})
    return options


def report(**fields: object) -> None:
    """Print what was measured and end the process at once: what a client does after the work is not measured."""
    print(json.dumps({**fields, "peak_mb": round(peak_mb(), 1)}), flush=True)
    os._exit(0)
