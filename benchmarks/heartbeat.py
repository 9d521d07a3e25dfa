"""How late beats are, as the service sees them, while everything else goes on.

    python benchmarks/heartbeat.py                     # a stub in another process, 60 s; the bar: p99 < 50 ms
    python benchmarks/heartbeat.py --in-process        # the embedded service in this process; the bar: p99 < 150 ms
    python benchmarks/heartbeat.py --both --seconds 20
    python benchmarks/heartbeat.py --one-stub          # what a stub sees that is busy with the samples itself

Beats are due every 50 ms. Meanwhile 400 samples are in flight, training steps compute, numpy multiplies in a thread,
and user code blocks the event loop for two seconds at a time, in Python, which holds the interpreter. A beat is late by
as much as it came more than a period after the one before it. Beats go to a second stub: the one that answers 400
samples at once, after each block, reads the beats behind them, and would be measured in place of the client. The last
line is JSON: `beats`, and `p50_ms`, `p99_ms` and `max_ms` of their lateness.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Self

import httpx
import numpy as np
import trio
from stub_process import set_work, stub

import tinker_actors as ta
from tinker_actors.actors.service_client import open_client
from tinker_actors.transport.config import Config
from tinker_actors.transport.inprocess import InProcessTransport
from tinker_actors.transport.ways import heartbeat_pool

PERIOD = 0.05  # seconds between beats
BLOCK = 2.0  # seconds for which user code blocks the loop
REST = 2.0  # seconds between two of these
IN_FLIGHT = 400
WARM_UP = 2.0  # seconds before beats count
BARS = {"stub": 50.0, "one stub": 50.0, "in process": 150.0}  # milliseconds, of p99

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Listening:
    """An ASGI application that notes when beats come."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.beats: list[float] = []

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve."""
        if str(scope.get("path", "")).endswith("/session_heartbeat"):
            self.beats.append(time.monotonic())
        await self._app(scope, receive, send)


# --- the load -----------------------------------------------------------------------------------------------


async def sample(client: Any, prompt: ta.ModelInput) -> None:
    """Draw one sample after the other."""
    params = ta.SamplingParams(max_tokens=4)
    while True:
        await client.sample(prompt, 1, params)


async def train(training: Any, data: list[ta.Datum]) -> None:
    """Take one step after the other."""
    while True:
        await training.forward_backward(data, "cross_entropy")
        await (await training.optim_step(ta.AdamParams(learning_rate=1e-4)))


async def multiply() -> None:
    """Have numpy compute in a thread, as rewards and advantages do."""
    matrix = np.random.default_rng(0).standard_normal((400, 400))
    while True:
        await trio.to_thread.run_sync(np.linalg.svd, matrix)
        await trio.sleep(0.05)


async def block() -> None:
    """Be user code that never heard of an event loop."""
    while True:
        end = time.monotonic() + BLOCK
        while time.monotonic() < end:
            sum(range(1000))
        await trio.sleep(REST)


async def load(service: Any, model: str, length: int, seconds: float) -> None:
    """Do all of it at once, for a while."""
    tokens = [at % 90 for at in range(length)]
    data = [
        ta.Datum(ta.ModelInput.from_ints(tokens), {"target_tokens": tokens, "weights": [1.0] * length})
        for _ in range(8)
    ]
    training = await service.create_lora_training_client(model, rank=8)
    sampling = await service.create_sampling_client(base_model=model)
    prompt = ta.ModelInput.from_ints(tokens[:16])
    with trio.move_on_after(seconds + WARM_UP):
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(sample, sampling, prompt)
            nursery.start_soon(train, training, data)
            nursery.start_soon(multiply)
            nursery.start_soon(block)


# --- the services -------------------------------------------------------------------------------------------


def _get(url: str) -> Any:
    with urllib.request.urlopen(url) as response:
        return json.load(response)


class Elsewhere(httpx.AsyncBaseTransport):
    """Carries beats, over the connections that beats have, to another place than they are addressed to."""

    def __init__(self, url: str) -> None:
        self._place = httpx.URL(url)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the connections."""
        pool = heartbeat_pool(Config(base_url=str(self._place), heartbeat_period=PERIOD))
        self._pool = await self._stack.enter_async_context(pool)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await self._stack.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a beat."""
        request.url = request.url.copy_with(host=self._place.host, port=self._place.port)
        return await self._pool.handle_async_request(request)


async def on_stub(seconds: float) -> list[float]:
    """Return when beats came to a second stub, each in a process of its own."""
    with stub() as url, stub() as listener:
        set_work(url, sample_ms=200, batch_ms=20, optim_ms=5)
        config = Config(base_url=url, api_key="tml-bench", heartbeat_period=PERIOD)
        async with open_client(
            config,
            rng=random.Random(0),
            backend=url,
            chosen="a benchmark's stub",
            beat_through=lambda: Elsewhere(listener),
        ) as service:
            await load(service, "Qwen/Qwen3-8B", 512, seconds)
            return list(_get(f"{listener}/stub/beats")["beats"])


async def on_one_stub(seconds: float) -> list[float]:
    """Return when beats came to the stub that answers the samples."""
    with stub() as url:
        set_work(url, sample_ms=200, batch_ms=20, optim_ms=5)
        async with ta.open_service(url, api_key="tml-bench", heartbeat_period=PERIOD) as service:
            await load(service, "Qwen/Qwen3-8B", 512, seconds)
            return list(_get(f"{url}/stub/beats")["beats"])


async def in_process(seconds: float) -> list[float]:
    """Return when beats came to the embedded service, whose model computes in this process."""
    from tinker_actors.local.service import EmbeddedService

    listening = Listening(EmbeddedService(seed=1).app)
    config = Config(base_url="http://embedded", heartbeat_period=PERIOD)
    async with (
        InProcessTransport(listening) as transport,
        open_client(
            config,
            rng=random.Random(0),
            backend="local",
            chosen="a benchmark's embedded service",
            through=transport,
            beat_through=lambda: InProcessTransport(listening, lifespan=False),
        ) as service,
    ):
        await load(service, "tinker-actors/char-100k", 32, seconds)
        return list(listening.beats)


# --- the figures --------------------------------------------------------------------------------------------


def lateness(beats: list[float]) -> dict[str, float]:
    """Return the figures of the beats after the warm-up, in milliseconds."""
    counted = [at for at in beats if at >= beats[0] + WARM_UP]
    late = [max(0.0, b - a - PERIOD) * 1e3 for a, b in itertools.pairwise(counted)]
    p50, p99 = np.percentile(late, [50, 99])
    return {
        "beats": len(counted),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(max(late), 2),
    }


def main() -> int:
    """Measure, print, and say whether the bars are met."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to count beats (default: 60)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--in-process", action="store_true", help="the embedded service, in this process")
    where.add_argument("--one-stub", action="store_true", help="beats and samples to the same stub")
    where.add_argument("--both", action="store_true", help="first the embedded service, then the stub")
    options = parser.parse_args()
    names = ["in process"] if options.in_process else ["one stub"] if options.one_stub else ["stub"]
    if options.both:
        names = ["in process", "stub"]
    services = {"stub": on_stub, "one stub": on_one_stub, "in process": in_process}
    met = True
    for name in names:
        beats = trio.run(services[name], options.seconds)
        figures = lateness(beats)
        expected = options.seconds / PERIOD
        is_met = figures["p99_ms"] < BARS[name] and figures["beats"] > 0.8 * expected
        met = met and is_met
        verdict = "met" if is_met else "MISSED"
        print(f"{name}: p99 of {figures['p99_ms']} ms, bar {BARS[name]:g} ms: {verdict}", flush=True)
        print(json.dumps(figures), flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
