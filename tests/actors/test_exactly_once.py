"""Exactly once, whatever dies: random programs under random faults end with the undisturbed weights, bit for bit."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinker_actors.actors.service_client import open_client
from tinker_actors.local.service import EmbeddedService
from tinker_actors.protocol.capability import CapabilityRecord
from tinker_actors.transport.config import Config
from tinker_actors.transport.inprocess import InProcessTransport
from tinker_actors.types import AdamParams, Datum, ModelInput

MODEL = "tinker-actors/char-100k"
TRAINING = ("forward_backward", "optim_step", "save_weights", "save_weights_for_sampler")
OPERATIONS = st.sampled_from(["gradient", "gradient", "step", "step", "save", "publish", "look"])


@attrs.frozen
class Fault:
    """What happens to the nth request of an endpoint.

    Attributes:
        kind: `drop` the model when it begins; lose the `request` or the `reply`; answer `503` after the work.
    """

    kind: str
    endpoint: str
    nth: int


FAULTS = st.builds(
    Fault,
    kind=st.sampled_from(["drop", "request", "reply", "503"]),
    endpoint=st.sampled_from([*TRAINING, "create_model", "load_weights", "retrieve_future"]),
    nth=st.integers(1, 6),
)


class Unreliable(httpx.AsyncBaseTransport):
    """Passes requests on to the embedded service, but for the faults."""

    def __init__(self, inner: httpx.AsyncBaseTransport, faults: Sequence[Fault]) -> None:
        self._inner = inner
        self._faults = {(fault.endpoint, fault.nth): fault.kind for fault in faults if fault.kind != "drop"}
        self._counts: dict[str, int] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        endpoint = request.url.path.rpartition("/")[2]
        self._counts[endpoint] = self._counts.get(endpoint, 0) + 1
        kind = self._faults.get((endpoint, self._counts[endpoint]))
        if kind == "request":
            raise httpx.WriteError("lost on the way")
        response = await self._inner.handle_async_request(request)
        if kind is None:
            return response
        await response.aread()
        await response.aclose()
        if kind == "reply":
            raise httpx.ReadError("lost on the way back")
        return httpx.Response(503, json={"detail": "after the work was taken"})


def batch(seed: int) -> list[Datum]:
    """Make a batch that can be told apart."""
    rng = random.Random(seed)
    data = []
    for _ in range(2):
        tokens = [rng.randrange(5, 90) for _ in range(6)]
        data.append(
            Datum(ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], "weights": [1.0] * 5})
        )
    return data


async def run(
    program: Sequence[str], faults: Sequence[Fault], dedupe: Any, chunks: str, tmp_path: Path
) -> dict[str, bytes]:
    """Run a program under faults, with batches in one request or several; return the final weights and optimizer."""
    embedded = EmbeddedService(seed=1, compute="inline")
    for fault in faults:
        if fault.kind == "drop" and fault.endpoint in TRAINING:
            embedded.drop_model_at(fault.endpoint, fault.nth)
    async with InProcessTransport(embedded.app) as inner:
        unreliable = Unreliable(inner, faults)

        @contextlib.asynccontextmanager
        async def borrowed() -> AsyncIterator[httpx.AsyncBaseTransport]:
            yield inner

        early: Any = "park" if chunks == "together" else "run"
        capability = CapabilityRecord(dedupe=dedupe, early_numbers=early)
        config = Config(base_url="http://embedded", heartbeat="loop", capability=capability)
        async with open_client(
            config,
            rng=random.Random(3),
            backend="local",
            chosen="x",
            through=unreliable,
            beat_through=borrowed,
        ) as service:
            if chunks != "whole":
                session = service._tree.session
                session.limits = attrs.evolve(session.limits, fwdbwd_max_chunk_len=1)
            training = await service.create_lora_training_client(MODEL, rank=2, seed=5)
            for number, operation in enumerate(program):
                await act(training, operation, number)
            await training.optim_step(AdamParams(learning_rate=1e-2))
            path = (await training.save_state("end")).path
            file = await service.rest.download_checkpoint(path, tmp_path / "end.tar", force=True)
    with tarfile.open(fileobj=io.BytesIO(file.read_bytes())) as tar:  # noqa: ASYNC240 - a small file of the test
        members = [member for member in tar.getmembers() if member.name.endswith(".safetensors")]
        return {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]  # files


async def act(training: Any, operation: str, number: int) -> None:
    """Do one thing of a program, without waiting for results where that is not needed."""
    match operation:
        case "gradient":
            await training.forward_backward(batch(number), "cross_entropy")
        case "step":
            await training.optim_step(AdamParams(learning_rate=1e-2))
        case "save":
            await training.save_state(f"save-{number}")
        case "publish":
            await training.save_weights_and_get_sampling_client()
        case "look":
            await (await training.forward(batch(number), "cross_entropy"))


def test_chunks_that_go_out_together_change_no_bit(tmp_path: Path) -> None:
    """The service works on them in the order of their numbers, which is that of one after the other."""

    def play(chunks: str) -> dict[str, bytes]:
        clock = trio.testing.MockClock(autojump_threshold=0)
        program = ["gradient", "gradient", "step", "look", "gradient"]
        return trio.run(run, program, (), "replay", chunks, tmp_path, clock=clock)

    assert play("together") == play("in turn")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    program=st.lists(OPERATIONS, min_size=1, max_size=12),
    faults=st.lists(FAULTS, min_size=1, max_size=3),
    dedupe=st.sampled_from(["replay", "none"]),
    chunks=st.sampled_from(["whole", "in turn", "together"]),
)
def test_random_faults_change_no_bit(
    tmp_path: Path, program: list[str], faults: list[Fault], dedupe: str, chunks: str
) -> None:
    """Dropped models, lost requests and lost replies, with and without the service's help against doubles.

    Batches go out whole, or in several requests, one after the other or together.
    """

    def play(with_faults: Sequence[Fault]) -> dict[str, bytes]:
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(run, program, with_faults, dedupe, chunks, tmp_path, clock=clock)

    calm, disturbed = play(()), play(faults)
    assert sorted(calm) == ["adapter_model.safetensors", "optimizer.safetensors"]
    assert disturbed == calm
