"""A small base model, and a caller that speaks to an embedded service in the protocol's own types."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
import trio

from tinker_actors.local.handler import HANDLERS
from tinker_actors.local.model import BaseModel
from tinker_actors.local.service import EmbeddedService
from tinker_actors.local.tokenizer import character_tokenizer
from tinker_actors.local.transformer import ModelConfig, initial_weights
from tinker_actors.transport.inprocess import InProcessTransport
from tinker_actors.wire.codec import encode, structure
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.model import CreateModelRequest, LoraConfig
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest
from tinker_actors.wire.sampling import SampleRequest, SamplingParams
from tinker_actors.wire.session import CreateSessionRequest
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardRequest
from tinker_actors.wire.weights import SaveWeightsRequest

BY_REQUEST = {
    endpoint.request: endpoint
    for endpoint in ENDPOINTS
    if endpoint.name in HANDLERS and endpoint.method == "POST"
}
PROMPT = ModelInput.from_ints([10, 11, 12])


class Caller:
    """Calls one service over HTTP.

    Attributes:
        http: the client under it.
        session_id: of the session that `open` made.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.session_id = ""

    async def send(self, request: object, **path: str) -> httpx.Response:
        """Send a wire object to its endpoint."""
        endpoint = BY_REQUEST[type(request)]
        return await self.http.post(endpoint.path.format(**path), content=encode(request))

    async def ask(self, request: object) -> object:
        """Send a wire object and return the reply, which must be there."""
        response = await self.send(request)
        assert response.status_code == 200, (response.status_code, response.text)
        return structure(BY_REQUEST[type(request)].reply, response.json(), strict=True)

    async def poll(self, request_id: str) -> httpx.Response:
        """Ask for a promise until it has ended."""
        while True:
            response = await self.send(RetrieveFutureRequest(request_id))
            if response.status_code != 408:
                return response

    async def run(self, request: object) -> dict[str, object]:
        """Send a wire object and return its promise's result."""
        response = await self.poll((await self.ask(request)).request_id)
        assert response.status_code == 200, (response.status_code, response.text)
        result = response.json()
        assert "error" not in result, result
        return result

    async def open(self) -> str:
        """Open a session."""
        request = CreateSessionRequest(tags=[], user_metadata={}, sdk_version="test")
        self.session_id = (await self.ask(request)).session_id
        return self.session_id

    async def create_model(self, base: str = "tiny", number: int = 0, **lora: object) -> str:
        """Create a model, in a new session if there is none."""
        if not self.session_id:
            await self.open()
        config = LoraConfig(**{"rank": 4, "seed": 1, **lora})
        request = CreateModelRequest(
            session_id=self.session_id, model_seq_id=number, base_model=base, lora_config=config
        )
        return (await self.run(request))["model_id"]

    async def archive(self, path: str) -> dict[str, bytes]:
        """Download a checkpoint's archive as a client does; returns its files, and itself as `tar`."""
        located = await self.http.get(archive_url(path))
        assert located.status_code == 302, located.text
        data = (await self.http.get(located.headers["location"])).content
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return {
                "tar": data,
                **{member.name: tar.extractfile(member).read() for member in tar.getmembers()},
            }

    async def weights_of(self, model_id: str, number: int, name: str = "final") -> bytes:
        """Save a model's weights and return their bytes."""
        saved = await self.run(SaveWeightsRequest(model_id=model_id, path=name, seq_id=number))
        return (await self.archive(saved["path"]))["adapter_model.safetensors"]


def archive_url(path: str) -> str:
    """Return where a client asks for a checkpoint's archive."""
    run, kind, name = path.removeprefix("tinker://").split("/")
    return f"/api/v1/training_runs/{run}/checkpoints/{kind}/{name}/archive"


def forward_backward(model_id: str, number: int, *, shift: int = 0, size: int = 2) -> ForwardBackwardRequest:
    """Make a small training request; `shift` makes batches differ."""
    tokens = [10 + shift, 11, 12, 13]
    inputs = {"target_tokens": [11, 12, 13, 14], "weights": [1.0, 1.0, 0.5, 1.0]}
    data = [Datum(ModelInput.from_ints(tokens), inputs)] * size
    return ForwardBackwardRequest(ForwardBackwardInput(data, "cross_entropy"), model_id, number)


def optim_step(model_id: str, number: int, **params: float) -> OptimStepRequest:
    """Make an optimizer step."""
    return OptimStepRequest(AdamParams(**{"learning_rate": 0.01, **params}), model_id, number)


def sample(**fields: object) -> SampleRequest:
    """Make a sampling request: keyword arguments are those of the request or of its parameters."""
    names = {"max_tokens", "seed", "stop", "temperature", "top_k", "top_p"}
    given = {"max_tokens": 8, "seed": 7, "stop": [], **{k: v for k, v in fields.items() if k in names}}
    rest = {key: value for key, value in fields.items() if key not in names}
    return SampleRequest(**{"prompt": PROMPT, **rest}, sampling_params=SamplingParams(**given))


class Kit:
    """What tests of the service share."""

    forward_backward = staticmethod(forward_backward)
    optim_step = staticmethod(optim_step)
    sample = staticmethod(sample)
    archive_url = staticmethod(archive_url)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@pytest.fixture(scope="session")
def tiny() -> BaseModel:
    """Give a base model with random weights that takes microseconds to run."""
    tokenizer = character_tokenizer()
    config = ModelConfig(
        tokenizer.get_vocab_size(), context_length=32, layers=1, width=16, heads=2, mlp_width=32
    )
    weights = initial_weights(config, seed=5)
    return BaseModel.build("tiny", config, {name: 8 * array for name, array in weights.items()}, tokenizer)


@pytest.fixture(scope="session")
def make_service(tiny: BaseModel) -> Callable[..., EmbeddedService]:
    """Give a maker of inline services over the small model."""
    return lambda **options: EmbeddedService(**{"base_models": [tiny], "compute": "inline", **options})


@pytest.fixture(scope="session")
def connect() -> Callable[..., AbstractAsyncContextManager[Caller]]:
    """Give a context that opens a service and yields a caller of it."""

    @contextlib.asynccontextmanager
    async def connected(service: EmbeddedService, **headers: str) -> AsyncIterator[Caller]:
        transport = InProcessTransport(service.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://embedded", timeout=None, headers=headers
        ) as http:
            yield Caller(http)

    return connected


@pytest.fixture
def caller_of() -> Callable[[str], AbstractAsyncContextManager[Caller]]:
    """Give a context that yields a caller of the service at a URL."""

    @contextlib.asynccontextmanager
    async def connected(url: str) -> AsyncIterator[Caller]:
        async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
            yield Caller(http)

    return connected


@pytest.fixture
def living_tasks() -> Callable[[], int]:
    """Give a count of the tasks alive."""
    return lambda: trio.lowlevel.current_statistics().tasks_living
