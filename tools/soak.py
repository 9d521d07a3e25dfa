"""Let callers come and go at random for a while, and see whether the connections survive it.

    python tools/soak.py                 # a minute with our pool, and a minute with httpx's own
    python tools/soak.py --seconds 15
    python tools/soak.py --only own

A server in a process of its own answers most requests at once, and some late, in parts, not at all, with an error, or
by dropping the connection. 400 tasks share 64 connections to it. Half of their requests have a deadline of their own,
half are cancelled from outside, at a random time that is often too early. Then everybody leaves, and 100 requests are
made one after another that the server answers at once, each with 2 seconds.

A pool that loses slots or connections to callers who leave fails them. Ours must not: the script ends with 1 unless
every slot is free and all of the 100 are answered. httpx's own pool is shown beside it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import httpx
import trio

from tinker_actors.transport.head import Origin
from tinker_actors.transport.pool import ConnectionPool

TASKS = 400
CONNECTIONS = 64
HEALTH_REQUESTS = 100
HEALTH_SECONDS = 2.0
HOPELESS = 5  # requests in vain, one after the other, after which the others are not tried
WORST_DEADLINE = 1.0  # seconds; deadlines are drawn evenly from 0 to here
BODY = b"x" * 1000

Send: TypeAlias = Callable[[bytes, float], Awaitable[int]]
"""Sends a request to a path within so many seconds and returns its status."""


class Result(NamedTuple):
    """What became of one pool."""

    requests: int
    answered: int
    health: int
    in_use: int | None
    cpu: float
    errors: Counter[str]


# ---------------------------------------------------------------------------------------------------------- the server


class Server:
    """Answers a request as its path says: `/health` always and at once, any other with a fault now and then."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            buffer = bytearray()
            while (path := await self._request(stream, buffer)) is not None:
                if not await self._answer(stream, path):
                    break
        await trio.aclose_forcefully(stream)

    async def _request(self, stream: trio.SocketStream, buffer: bytearray) -> bytes | None:
        while (end := buffer.find(b"\r\n\r\n")) < 0 or len(buffer) < end + 4 + len(BODY):
            data = await stream.receive_some(65536)
            if not data:
                return None
            buffer += data
        path = bytes(buffer).split(b" ", 2)[1]
        del buffer[: end + 4 + len(BODY)]
        return path

    async def _answer(self, stream: trio.SocketStream, path: bytes) -> bool:
        """Answer, and tell whether the connection goes on."""
        fault = "none" if path == b"/health" else self._fault()
        if fault == "drop":
            return False
        if fault == "stall":
            await trio.sleep(30)
            return False
        if fault == "late":
            await trio.sleep(self._rng.uniform(0, WORST_DEADLINE))
        status = b"500 Oops" if fault == "error" else b"200 OK"
        await stream.send_all(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(BODY)))
        if fault == "parts":
            await trio.sleep(self._rng.uniform(0, WORST_DEADLINE))
        await stream.send_all(BODY[: len(BODY) // 2] if fault == "cut" else BODY)
        return fault not in ("error", "cut")

    def _fault(self) -> str:
        kinds = ("none", "late", "parts", "stall", "drop", "cut", "error")
        return self._rng.choices(kinds, weights=(70, 10, 8, 4, 3, 2, 3))[0]


async def serve(seed: int) -> None:
    """Serve until the process is ended; the port is printed first."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, Server(seed).serve, 0, host="127.0.0.1", backlog=1024)
        )
        print(listeners[0].socket.getsockname()[1], flush=True)


@contextlib.asynccontextmanager
async def server(seed: int) -> AsyncIterator[Origin]:
    """Run a server in a process of its own."""
    command = [sys.executable, __file__, "--serve", "--seed", str(seed)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await process.stdout.receive_some(100))
        yield Origin("http", "127.0.0.1", port)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


# ---------------------------------------------------------------------------------------------------------- the callers


async def wear(send: Send, seconds: float, seed: int, errors: Counter[str]) -> None:
    """Let many tasks send requests for a while, each with a deadline that may be too short."""

    async def caller(rng: random.Random) -> None:
        while True:
            limit = rng.uniform(0, WORST_DEADLINE)
            if rng.random() < 0.5:  # somebody else loses patience
                with trio.move_on_after(limit) as scope:
                    await attempt(60)
                errors["cancelled"] += scope.cancelled_caught
            else:
                await attempt(limit)

    async def attempt(limit: float) -> None:
        try:
            status = await send(b"/wear", limit)
        except (httpx.TransportError, trio.TooSlowError) as error:
            errors[type(error).__name__] += 1
        else:
            errors[str(status)] += 1
        await trio.lowlevel.checkpoint()

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(caller, random.Random(f"{seed}.{number}"))


async def healthy(send: Send) -> int:
    """Count how many of the requests are answered that are made when all is well."""
    answered = in_vain = 0
    for _ in range(HEALTH_REQUESTS):
        before = answered
        with contextlib.suppress(httpx.TransportError, trio.TooSlowError):
            answered += await send(b"/health", HEALTH_SECONDS) == 200
        in_vain = in_vain + 1 if answered == before else 0
        if in_vain == HOPELESS:
            break
    return answered


async def measure(send: Send, seconds: float, seed: int, in_use: Callable[[], int | None]) -> Result:
    """Wear a pool down and look at it."""
    outcomes: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF)
    await wear(send, seconds, seed, outcomes)
    after = resource.getrusage(resource.RUSAGE_SELF)
    left = in_use()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    answered = outcomes["200"] + outcomes["500"]
    return Result(outcomes.total(), answered, await healthy(send), left, cpu, outcomes)


async def own(seconds: float, seed: int) -> Result:
    """Wear our pool."""
    async with server(seed) as origin:
        pool = ConnectionPool(limit=CONNECTIONS, ssl_context=ssl.create_default_context())

        async def send(path: bytes, limit: float) -> int:
            return (await pool.exchange(origin, b"POST", path, [], BODY, timeout=limit)).status

        async with pool:
            return await measure(send, seconds, seed, lambda: pool.statistics().in_use)


async def stock(seconds: float, seed: int) -> Result:
    """Wear httpx's own."""
    async with server(seed) as origin:
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)

        async def send(path: bytes, limit: float) -> int:
            with trio.fail_after(limit):
                return (await client.post(f"{origin}{path.decode()}", content=BODY)).status_code

        # The callers bring their deadlines.
        async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:  # noqa: S113
            return await measure(send, seconds, seed, lambda: None)


# --------------------------------------------------------------------------------------------------------- the command


def report(name: str, result: Result) -> dict[str, object]:
    """Print a result, and return what the last line says of it."""
    print(f"{name}: {result.requests} requests, {result.answered} answered, {result.cpu:.1f} s of CPU")
    print("   ", ", ".join(f"{kind} {count}" for kind, count in result.errors.most_common()))
    print(f"    afterwards {result.health} of {HEALTH_REQUESTS} answered, slots in use: {result.in_use}")
    return {
        "requests": result.requests,
        "answered": result.answered,
        "health": result.health,
        "slots_in_use": result.in_use,
    }


async def soak(seconds: float, seed: int, only: str | None) -> bool:
    """Wear one pool after the other; tell whether ours came through."""
    results: dict[str, object] = {"seconds": seconds, "seed": seed}
    passed = True
    if only != "stock":
        result = await own(seconds, seed)
        results["own"] = report("own pool", result)
        passed = result.in_use == 0 and result.health == HEALTH_REQUESTS
    if only != "own":
        results["stock"] = report("httpx's pool", await stock(seconds, seed))
    print(json.dumps(results | {"passed": passed}))
    return passed


def main(arguments: list[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long each pool is worn (%(default)g)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all chance (%(default)s)")
    parser.add_argument("--only", choices=("own", "stock"), help="only one of the pools")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
        trio.run(serve, options.seed)
        return 0
    return 0 if trio.run(soak, options.seconds, options.seed, options.only) else 1


if __name__ == "__main__":
    sys.exit(main())
