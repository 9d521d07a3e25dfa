"""A service in a hundred lines, scripted by each test, and a way to open clients on it under virtual time."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import trio

from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.errors import DecodeError
from tinker_actors.transport.config import Config
from tinker_actors.types import Datum, ModelInput
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.payload import PROTOBUF
from tinker_actors.wire.training import ForwardBackwardRequest, ForwardRequest

Rule = Callable[[dict[str, Any], int], httpx.Response | None]


def first_token(body: dict[str, Any]) -> int:
    """Return the first token of a batch's first datum."""
    token: int = body["forward_backward_input"]["data"][0]["model_input"]["chunks"][0]["tokens"][0]
    return token


def _body(raw: bytes, content_type: str) -> dict[str, Any]:
    if content_type == PROTOBUF:  # whatever its form, tests look at JSON
        try:
            raw = codec.encode(protobuf.decode(ForwardBackwardRequest, raw))
        except DecodeError:
            raw = codec.encode(protobuf.decode(ForwardRequest, raw))
    body: dict[str, Any] = json.loads(raw) if raw else {}
    return body


class StubService(httpx.AsyncBaseTransport):
    """Answers every endpoint at once, and differently where a test says so.

    Attributes:
        log: (endpoint, body) of every request, in order of arrival.
        rules: endpoint to a function of (body, how many came before); None means the usual answer.
        gates: endpoints that do not answer until the event is set.
        held: the same for the results of promises, by the endpoint that made them.
        results: request id to result.
    """

    def __init__(self) -> None:
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.rules: dict[str, Rule] = {}
        self.gates: dict[str, trio.Event] = {}
        self.held: dict[str, trio.Event] = {}
        self.results: dict[str, Any] = {}
        self.active: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.headers: list[httpx.Headers] = []
        self._counts: Counter[str] = Counter()

    def bodies(self, *endpoints: str) -> list[dict[str, Any]]:
        """Return the bodies sent to some endpoints, in order."""
        return [body for name, body in self.log if name in endpoints]

    def wire(self) -> list[tuple[str, int]]:
        """Return (endpoint, number) of everything that has a number in its model's order."""
        return [(name, body["seq_id"]) for name, body in self.log if "seq_id" in body and name != "asample"]

    def trained_tokens(self) -> list[int]:
        """Return the token each batch was made of, in order of arrival; see the fixture `batch`."""
        return [first_token(body) for body in self.bodies("forward_backward")]

    def names(self) -> list[str]:
        """Return the endpoints called, in order."""
        return [name for name, _ in self.log]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.removeprefix("/api/v1/")
        if name.startswith("sessions/"):
            name = "finish"
        raw = await request.aread()
        body = _body(raw, request.headers.get("content-type", ""))
        count = self._counts[name]
        self._counts[name] += 1
        self.log.append((name, body))
        self.headers.append(request.headers)
        self.active[name] += 1
        self.peak[name] = max(self.peak[name], self.active[name])
        try:
            return await self._answer(name, body, count)
        finally:
            self.active[name] -= 1

    async def _answer(self, name: str, body: dict[str, Any], count: int) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        if name in self.gates:
            await self.gates[name].wait()
        rule = self.rules.get(name)
        response = None if rule is None else rule(body, count)
        if response is not None:
            return response
        if name == "retrieve_future":
            return await self._retrieve(body["request_id"])
        return httpx.Response(200, json=self._usual(name, body, count))

    async def _retrieve(self, request_id: str) -> httpx.Response:
        maker = request_id.partition("#")[0]
        if maker in self.held:
            await self.held[maker].wait()
        result = self.results.get(request_id)
        if isinstance(result, httpx.Response):
            return result
        if result is None:
            return httpx.Response(404, json={"detail": "unknown request"})
        return httpx.Response(200, json=result)

    def _usual(self, name: str, body: dict[str, Any], count: int) -> dict[str, Any]:
        match name:
            case "client/config":
                return {"sequence_dedupe": "replay"}
            case "create_session":
                return {"session_id": f"s{count}"}
            case "get_info":
                data = {"tokenizer_id": "tinker-actors/char-100k"}
                return {"model_id": body["model_id"], "model_data": data}
            case "create_sampling_session":
                return {
                    "sampling_session_id": f"{body['session_id']}:sample:{body['sampling_session_seq_id']}"
                }
            case "telemetry":
                return {"status": "accepted"}
            case "session_heartbeat" | "finish":
                return {}
        return self.promise(f"{name}#{count}", self._result(name, body))

    def promise(self, request_id: str, result: Any) -> dict[str, Any]:
        """Make a promise that keeps `result`."""
        self.results.setdefault(request_id, result)
        return {"request_id": request_id}

    def _result(self, name: str, body: dict[str, Any]) -> Any:
        match name:
            case "create_model":
                return {
                    "type": "create_model",
                    "model_id": f"{body['session_id']}:train:{body['model_seq_id']}",
                }
            case "forward" | "forward_backward":
                data = next(body[key] for key in ("forward_input", "forward_backward_input") if key in body)[
                    "data"
                ]
                outputs = [
                    {"logprobs": datum["loss_fn_inputs"]["target_tokens"] | {"dtype": "float32"}}
                    for datum in data
                ]
                return {
                    "loss_fn_output_type": "TensorData",
                    "loss_fn_outputs": outputs,
                    "metrics": {"loss:sum": float(len(data))},
                }
            case "optim_step":
                return {"metrics": {"seq": float(body["seq_id"])}}
            case "save_weights":
                return {"type": "save_weights", "path": f"tinker://{body['model_id']}/weights/{body['path']}"}
            case "save_weights_for_sampler" if "path" in body:
                return {"path": f"tinker://{body['model_id']}/sampler_weights/{body['path']}"}
            case "save_weights_for_sampler":
                return {"sampling_session_id": f"sampler-{body['sampling_session_seq_id']}"}
            case "load_weights":
                return {"type": "load_weights", "path": body["path"]}
            case "asample":
                one = {"stop_reason": "stop", "tokens": [1, 2], "logprobs": [-0.5, -0.25]}
                return {"type": "sample", "sequences": [one] * body["num_samples"]}
        return {}


Opener = Callable[..., contextlib.AbstractAsyncContextManager[ServiceClient]]


@pytest.fixture
def stub() -> StubService:
    """Return a service that answers everything at once."""
    return StubService()


@pytest.fixture
def open_stub(stub: StubService) -> Opener:
    """Return a function that opens a client on the stub, beating in the loop."""

    @contextlib.asynccontextmanager
    async def borrowed() -> AsyncIterator[httpx.AsyncBaseTransport]:
        yield stub

    def opener(**settings: Any) -> contextlib.AbstractAsyncContextManager[ServiceClient]:
        config = Config(base_url="http://stub", **({"heartbeat": "loop"} | settings))
        return open_client(
            config,
            rng=random.Random(0),
            backend="http://stub",
            chosen="using the stub",
            through=stub,
            beat_through=borrowed,
        )

    return opener


@pytest.fixture
def batch() -> Callable[..., list[Datum]]:
    """Return a function that makes a batch of one datum, which can be told apart by its tokens."""

    def make(*tokens: int) -> list[Datum]:
        ids = list(tokens) or [1, 2]
        return [Datum(ModelInput.from_ints(ids), {"target_tokens": ids, "weights": [1.0] * len(ids)})]

    return make
