"""A stub of a Tinker service for benchmarks of clients: it speaks the protocol and does no model work.

    python benchmarks/stub.py --port 0 --cpu 1              # prints its address as a line of JSON
    python benchmarks/stub.py --port 0 --tls CERT KEY

Results are canned and sized from the request. `POST /stub/settings` sets how long the work seems to take
(`sample_ms`, `batch_ms`, `optim_ms`), `POST /stub/reset` forgets the counters, `GET /stub/stats` gives them, and
`GET /stub/beats` says when each heartbeat came, on the clock that all processes of a machine share. The work
of a model is done one request at a time, in the order of its numbers; an early number waits for those before it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import os
import re
import signal
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from stub_payload import batch_output, batch_shape, json_response, sample_response

Respond: TypeAlias = Callable[[bytes], None]
"""Takes a whole response; called once, now or later."""

MODEL = "Qwen/Qwen3-8B"
HOLD = 30.0  # seconds a poll is held
NUM_SAMPLES = re.compile(rb'"num_samples"\s*:\s*(\d+)')
MAX_TOKENS = re.compile(rb'"max_tokens"\s*:\s*(\d+)')
SEQ_ID = re.compile(rb'"seq_id"\s*:\s*(\d+)')
REQUEST_ID = re.compile(rb'"request_id"\s*:\s*"([^"]*)"')
PATH = re.compile(rb'"path"\s*:\s*"([^"]*)"')
MODEL_ID = re.compile(rb'"model_id"\s*:\s*"([^"]*)"')
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
NOT_FOUND = json_response({"detail": "not found"}, b"404 Not Found")


def _text(pattern: re.Pattern[bytes], body: bytes, missing: str = "") -> str:
    found = pattern.search(body)
    return found[1].decode() if found else missing


class Promise:
    """One piece of work: its response when it is done, and who waits for it."""

    __slots__ = ("done", "response", "waiters")

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.done = False
        self.waiters: list[Callable[[], None]] = []

    def finish(self) -> None:
        """Be done, and tell those who wait."""
        self.done = True
        for waiter in self.waiters:
            waiter()
        self.waiters.clear()


class Model:
    """Work of one model: one at a time, by number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._next = 1
        self._early: dict[int, tuple[Promise, float]] = {}
        self._free_at = 0.0
        self.latest = 0
        self.out_of_order = 0

    def take(self, number: int, promise: Promise, seconds: float) -> None:
        """Take work; count it if a later number has come before it."""
        self.out_of_order += number < self.latest
        self.latest = max(self.latest, number)
        self._early[number] = (promise, seconds)
        while self._next in self._early:
            ready, needed = self._early.pop(self._next)
            self._next += 1
            self._run(ready, needed)

    def _run(self, promise: Promise, seconds: float) -> None:
        now = self._loop.time()
        self._free_at = max(self._free_at, now) + seconds
        if self._free_at <= now:
            promise.finish()
        else:
            self._loop.call_at(self._free_at, promise.finish)


class Service:
    """The calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._promises: dict[str, Promise] = {}
        self._models: dict[str, Model] = {}
        self._given = 0
        self.settings = {"sample_ms": 0.0, "batch_ms": 0.0, "optim_ms": 0.0}
        self.connections = 0
        self.counts: dict[str, int] = {}
        self._since = (0.0, 0.0)
        self.reset()
        fixed = {
            "/api/v1/client/config": {"sequence_dedupe": "replay", "training_body": "protobuf"},
            "/api/v1/client/dynamic_config": {},
            "/api/v1/create_session": {"type": "create_session", "session_id": "session-0"},
            "/api/v1/session_heartbeat": {"type": "session_heartbeat"},
            "/api/v1/telemetry": {"status": "accepted"},
            "/api/v1/cancel_future": {},
            "/api/v1/sessions/session-0/finish": {},
        }
        self._fixed = {path: json_response(value) for path, value in fixed.items()}
        self.beats: list[float] = []
        self._calls: dict[str, Callable[[bytes, Respond], None]] = {
            "/api/v1/asample": self._asample,
            "/api/v1/retrieve_future": self._retrieve_future,
            "/api/v1/forward_backward": self._forward_backward,
            "/api/v1/optim_step": self._optim_step,
            "/api/v1/save_weights": self._save_weights,
            "/api/v1/create_model": self._create_model,
            "/api/v1/unload_model": self._unload_model,
            "/api/v1/get_info": self._get_info,
            "/api/v1/create_sampling_session": self._create_sampling_session,
            "/stub/settings": self._change_settings,
            "/stub/reset": self._forget,
            "/stub/beats": lambda _, respond: respond(json_response({"beats": self.beats})),
            "/stub/stats": lambda _, respond: respond(json_response(self.stats())),
        }

    def handle(self, path: str, body: bytes, respond: Respond) -> None:
        """Answer one request, now or later."""
        self.counts[path] = self.counts.get(path, 0) + 1
        if path == "/api/v1/session_heartbeat":
            self.beats.append(time.monotonic())
        fixed = self._fixed.get(path)
        if fixed is not None:
            respond(fixed)
        elif path in self._calls:
            self._calls[path](body, respond)
        elif path.startswith("/api/v1/samplers/"):
            respond(json_response({"sampler_id": path.rpartition("/")[2], "base_model": MODEL}))
        else:
            respond(NOT_FOUND)

    def reset(self) -> None:
        """Forget the counters."""
        self.counts = {}
        self.beats = []
        for model in self._models.values():
            model.out_of_order = 0
        self._since = (time.perf_counter(), time.process_time())

    def stats(self) -> dict[str, object]:
        """Return the counters, and how busy this process was since they began."""
        wall, cpu = self._since
        return {
            "counts": self.counts,
            "connections": self.connections,
            "out_of_order": sum(model.out_of_order for model in self._models.values()),
            "busy": (time.process_time() - cpu) / (time.perf_counter() - wall),
        }

    def _forget(self, _: bytes, respond: Respond) -> None:
        self.reset()
        respond(json_response({}))

    def _change_settings(self, body: bytes, respond: Respond) -> None:
        self.settings.update(json.loads(body))
        respond(json_response(self.settings))

    # --- promises ----------------------------------------------------------------------------------------

    def _name(self, kind: str) -> str:
        self._given += 1
        return f"{kind}-{self._given}"

    def _promise(self, kind: str, response: bytes) -> tuple[str, Promise]:
        request_id, promise = self._name(kind), Promise(response)
        self._promises[request_id] = promise
        return request_id, promise

    def _retrieve_future(self, body: bytes, respond: Respond) -> None:
        request_id = _text(REQUEST_ID, body)
        promise = self._promises.get(request_id)
        if promise is None:
            respond(json_response({"error": f"no such request: {request_id}", "category": "user"}))
            return

        def answer() -> None:
            timer.cancel()
            self._promises.pop(request_id, None)
            respond(promise.response)

        def expire() -> None:
            promise.waiters.remove(answer)
            respond(json_response({"type": "try_again", "request_id": request_id, "queue_state": "active"}))

        if promise.done:
            self._promises.pop(request_id)
            respond(promise.response)
            return
        timer = self._loop.call_later(HOLD, expire)
        promise.waiters.append(answer)

    # --- sampling ----------------------------------------------------------------------------------------

    def _create_sampling_session(self, _: bytes, respond: Respond) -> None:
        name = self._name("sampler")
        respond(json_response({"type": "create_sampling_session", "sampling_session_id": name}))

    def _asample(self, body: bytes, respond: Respond) -> None:
        count, tokens = int(_text(NUM_SAMPLES, body, "1")), int(_text(MAX_TOKENS, body, "16"))
        request_id, promise = self._promise("sample", sample_response(count, tokens))
        self._loop.call_later(self.settings["sample_ms"] / 1000, promise.finish)
        ids = [f"{request_id}:{at}" for at in range(count)]
        respond(json_response({"request_id": request_id, "sample_sequence_ids": ids}))

    # --- training ----------------------------------------------------------------------------------------

    def _model(self, model_id: str) -> Model:
        if model_id not in self._models:
            self._models[model_id] = Model(self._loop)
        return self._models[model_id]

    def _create_model(self, _: bytes, respond: Respond) -> None:
        name = self._name("model")
        request_id, promise = self._promise(
            "create", json_response({"type": "create_model", "model_id": name})
        )
        promise.finish()
        respond(json_response({"request_id": request_id, "model_id": name}))

    def _unload_model(self, _: bytes, respond: Respond) -> None:
        request_id, promise = self._promise("unload", json_response({"type": "unload_model"}))
        promise.finish()
        respond(json_response({"request_id": request_id}))

    def _get_info(self, body: bytes, respond: Respond) -> None:
        data = {"arch": "stub", "model_name": MODEL, "tokenizer_id": MODEL}
        model_id = _text(MODEL_ID, body)
        respond(
            json_response({"type": "get_info", "model_id": model_id, "model_data": data, "is_lora": True})
        )

    def _forward_backward(self, body: bytes, respond: Respond) -> None:
        model_id, seq_id, datums, length = batch_shape(body)
        request_id, promise = self._promise("batch", batch_output(datums, length))
        self._model(model_id).take(seq_id, promise, self.settings["batch_ms"] / 1000)
        respond(json_response({"request_id": request_id, "model_id": model_id}))

    def _optim_step(self, body: bytes, respond: Respond) -> None:
        request_id, promise = self._promise(
            "optim", json_response({"type": "optim_step", "metrics": {"lr": 1e-4}})
        )
        number, seconds = int(_text(SEQ_ID, body, "0")), self.settings["optim_ms"] / 1000
        self._model(_text(MODEL_ID, body)).take(number, promise, seconds)
        respond(json_response({"request_id": request_id}))

    def _save_weights(self, body: bytes, respond: Respond) -> None:
        model_id, name = _text(MODEL_ID, body), _text(PATH, body)
        path = f"tinker://{model_id}/weights/{name}"
        request_id, promise = self._promise("save", json_response({"type": "save_weights", "path": path}))
        self._model(model_id).take(int(_text(SEQ_ID, body, "0")), promise, 0.0)
        respond(json_response({"request_id": request_id}))


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as clients that are measured need it: requests with a Content-Length, one after the other."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = bytearray()
        self._body_at = 0
        self._needed = 0
        self._path = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another class
        self._service.connections += 1

    def data_received(self, data: bytes) -> None:
        """Take what came, and answer each request that is complete."""
        self._buffer += data
        while self._buffer and self._request_is_complete():
            body = bytes(memoryview(self._buffer)[self._body_at : self._needed])
            del self._buffer[: self._needed]
            self._needed = 0
            self._service.handle(self._path, body, self._respond)

    def _request_is_complete(self) -> bool:
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self._buffer[:end])
            self._path = head.split(b" ", 2)[1].partition(b"?")[0].decode()
            found = CONTENT_LENGTH.search(head)
            self._body_at = end + 4
            self._needed = self._body_at + (int(found[1]) if found else 0)
        return len(self._buffer) >= self._needed

    def _respond(self, response: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(response)


async def serve(port: int, tls: list[str] | None) -> None:
    """Serve on loopback until SIGTERM; the first line on stdout is JSON with the address."""
    loop = asyncio.get_running_loop()
    service = Service(loop)
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
    server = await loop.create_server(
        lambda: Connection(service), "127.0.0.1", port, ssl=context, backlog=4096
    )
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    scheme = "https" if tls else "http"
    address = server.sockets[0].getsockname()
    print(json.dumps({"url": f"{scheme}://127.0.0.1:{address[1]}"}), flush=True)
    await stop.wait()


def main() -> None:
    """Read the arguments and serve."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cpu", type=int, help="keep to this CPU")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    options = parser.parse_args()
    if options.cpu is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {options.cpu})
    quick = importlib.util.find_spec("uvloop") is not None
    loop: Any = importlib.import_module("uvloop" if quick else "asyncio")
    loop.run(serve(options.port, options.tls))


if __name__ == "__main__":
    main()
