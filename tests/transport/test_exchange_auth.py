"""Keys, tokens and requests together: what goes out when a service wants tokens, and when it refuses one."""

from __future__ import annotations

import random
import traceback
from typing import Any

import httpx
import pytest
import trio

from tests.transport.test_auth import jwt, wall
from tinker_actors.errors import (
    APIConnectionError,
    APIResponseValidationError,
    AuthenticationError,
    ConfigError,
    CredentialError,
    RateLimitError,
)
from tinker_actors.protocol.retry import Sends
from tinker_actors.transport.config import Config
from tinker_actors.transport.exchange import HttpTransport
from tinker_actors.transport.opening import open_transport
from tinker_actors.wire.endpoints import GET_INFO, HEALTH, OPTIM_STEP
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.model import GetInfoRequest
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest
from tinker_actors.wire.service import ClientConfigResponse, Empty

KEY = "tml-hunter2"
TOKENS = ClientConfigResponse(pjwt_auth_enabled=True)
INFO = {"model_id": "m", "model_data": {}}
ENDED = {"www-authenticate": 'Bearer realm="t", error="invalid_token"'}


class Service(httpx.AsyncBaseTransport):
    """Takes the newest of the tokens it has given.

    Attributes:
        seen: the path and the key of each request, in order.
        mark: the header of a refusal.
        refuse_all: take no token at all.
        trouble: what comes of the next exchanges of a key, in place of a token.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.seen: list[tuple[str, str | None]] = []
        self.bodies: list[bytes] = []
        self.valid = ""
        self.mark = ENDED
        self.refuse_all = False
        self.made = 0
        self.trouble: list[httpx.Response | Exception] = []

    def revoke(self) -> None:
        """Take the present token no more."""
        self.valid = ""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        path = request.url.path.removeprefix("/api/v1/")
        key = request.headers.get("x-api-key")
        self.seen.append((path, key))
        self.bodies.append(await request.aread())
        if path == "auth/token":
            await trio.sleep(1)
            if self.trouble:
                trouble = self.trouble.pop()
                if isinstance(trouble, Exception):
                    raise trouble
                return trouble
            if key is None or not key.startswith("tml-"):
                return httpx.Response(401, json={"detail": f"{key} is not known"})
            self.made += 1
            self.valid = jwt(self.made, trio.current_time() + 3600, trio.current_time())
            return httpx.Response(200, json={"jwt": self.valid})
        if self.refuse_all or key != self.valid:
            return httpx.Response(401, headers=self.mark, json={"detail": f"{key} has ended"})
        return httpx.Response(200, json=INFO)

    def keys(self, path: str) -> list[str | None]:
        """Return the keys that came to a path."""
        return [key for name, key in self.seen if name == path]


def opened(service: Service, **settings: Any) -> Any:
    """Open a transport on a service."""
    values: dict[str, Any] = {"api_key": KEY, **settings}
    config = Config(base_url="http://service", **values)
    return open_transport(config, rng=random.Random(0), through=service, utc_now=wall)


async def ask(transport: HttpTransport) -> None:
    """Make a call."""
    await transport.call(GET_INFO, GetInfoRequest("m"))


async def test_a_key_is_exchanged_for_a_token_when_the_service_says_so(autojump_clock: Any) -> None:
    """Lazily, once for all who wait, with an empty object for a body; then the token goes out alone."""
    service = Service()
    async with opened(service) as transport:
        transport.learn(TOKENS)
        assert service.seen == []
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, transport)
        assert transport.latest_credentials == {"x-api-key": service.valid}
    assert service.keys("auth/token") == [KEY]
    assert service.bodies[0] == b"{}"
    assert service.keys("get_info") == [service.valid] * 5


async def test_a_marked_refusal_is_replayed_once_with_a_new_token(autojump_clock: Any) -> None:
    """Old, then new; five at once are one exchange; the same holds for polls."""
    service = Service()
    async with opened(service) as transport:
        transport.learn(TOKENS)
        await ask(transport)
        old = service.valid
        service.revoke()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask, transport)
        assert service.keys("get_info") == [old] + [old] * 5 + [service.valid] * 5
        assert len(service.keys("auth/token")) == 2
        service.revoke()
        answer = await transport.poll(RetrieveFutureRequest("r"))
        assert answer.status == 200
    assert len(service.keys("retrieve_future")) == 2
    assert len(service.keys("auth/token")) == 3


async def test_a_second_refusal_is_final(autojump_clock: Any) -> None:
    """A replay happens once."""
    service = Service()
    async with opened(service) as transport:
        transport.learn(TOKENS)
        service.refuse_all = True
        with pytest.raises(AuthenticationError) as caught:
            await ask(transport)
    assert caught.value.attempts == 1
    assert len(service.keys("get_info")) == 2
    assert len(service.keys("auth/token")) == 2
    assert "eyJ" not in str(caught.value)


@pytest.mark.requirement("R69")
@pytest.mark.parametrize("mark", [{}, {"www-authenticate": "Bearer"}])
async def test_an_unmarked_refusal_is_not_replayed(autojump_clock: Any, mark: dict[str, str]) -> None:
    """It is about the key, and surfaces as it is."""
    service = Service()
    service.mark = mark
    async with opened(service) as transport:
        transport.learn(TOKENS)
        service.refuse_all = True
        with pytest.raises(AuthenticationError):
            await ask(transport)
    assert len(service.keys("get_info")) == 1


async def test_a_key_that_is_refused_by_the_exchange_is_told_as_it_is(autojump_clock: Any) -> None:
    """A 401, after one attempt, in place of the call; nothing else is sent, and the key is not shown."""
    service = Service()
    token = jwt(0, 1000.0)
    async with opened(service, api_key=token) as transport:
        transport.learn(TOKENS)
        with pytest.raises(AuthenticationError) as caught:
            await ask(transport)
    assert caught.value.status_code == 401
    assert service.seen == [("auth/token", token)]
    assert token not in str(caught.value) + repr(caught.value) + repr(caught.value.body)
    assert "hunter2" not in str(caught.value)


async def step(transport: HttpTransport, sends: Sends) -> None:
    """Make a call that must not be made twice."""
    await transport.call(OPTIM_STEP, OptimStepRequest(AdamParams(), "m", 1), sends=sends)


TROUBLE = {
    "503": (httpx.Response(503), APIConnectionError),
    "timeout": (httpx.ReadTimeout("slow"), APIConnectionError),
    "429": (httpx.Response(429, headers={"retry-after": "2"}), RateLimitError),
}


@pytest.mark.parametrize("name", TROUBLE)
async def test_an_exchange_that_fails_leaves_no_call_in_doubt(autojump_clock: Any, name: str) -> None:
    """A call that waits for its token has not been sent: it is made when there is one, and nothing is fenced."""
    service = Service()
    service.trouble = [TROUBLE[name][0]] * 10
    sends = Sends()
    async with opened(service) as transport:
        transport.learn(TOKENS)
        with pytest.raises(APIResponseValidationError):  # the service answers it with something else
            await step(transport, sends)
    assert len(service.keys("auth/token")) == 11
    assert len(service.keys("optim_step")) == 1
    assert (sends.doubtful, sends.attempts) == (False, 0)


@pytest.mark.parametrize("name", TROUBLE)
async def test_an_exchange_is_not_begun_anew_by_each_call(autojump_clock: Any, name: str) -> None:
    """Its retries are counted once, for all that wait: not ten times ten."""
    trouble, kind = TROUBLE[name]
    service = Service()
    service.trouble = [trouble] * 1000
    doubtful: list[bool] = []
    async with opened(service) as transport:
        transport.learn(TOKENS)

        async def call() -> None:
            sends = Sends()
            with pytest.raises(kind):
                await step(transport, sends)
            doubtful.append(sends.doubtful)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
        assert len(service.keys("auth/token")) == 11
        assert doubtful == [False] * 5
        answer = await transport.poll(RetrieveFutureRequest("r"))
    assert answer.status == (429 if name == "429" else None)
    assert answer.retry_after == (2.0 if name == "429" else None)
    assert service.keys("optim_step") == service.keys("retrieve_future") == []


@pytest.mark.parametrize(
    "answer", [httpx.Response(404), httpx.Response(200, json="eyJhush")], ids=["404", "garbage"]
)
async def test_a_service_that_cannot_exchange_says_nothing_about_models(
    autojump_clock: Any, answer: httpx.Response
) -> None:
    """It is an error of the credentials; the same answer to the call itself would speak of a model."""
    service = Service()
    service.trouble = [answer]
    async with opened(service) as transport:
        transport.learn(TOKENS)
        with pytest.raises(CredentialError, match="no token") as caught:
            await ask(transport)
    assert service.keys("get_info") == []
    assert "hush" not in "".join(traceback.format_exception(caught.value))


async def test_an_ended_token_is_an_error_before_anything_is_sent(autojump_clock: Any) -> None:
    """It was given as a key, so there is no other."""
    service = Service()
    async with opened(service, api_key=jwt(0, -1.0)) as transport:
        with pytest.raises(CredentialError, match="api_key is a token that expired 1 s ago"):
            await ask(transport)
    assert service.seen == []


@pytest.mark.requirement("R30")
async def test_two_services_never_see_each_others_keys(autojump_clock: Any) -> None:
    """In one process, at the same time, with and without tokens."""
    services = [Service("a"), Service("b")]
    keys = ["tml-first", "tml-second"]
    async with opened(services[0], api_key=keys[0]) as one, opened(services[1], api_key=keys[1]) as two:
        for transport in (one, two):
            transport.learn(TOKENS)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask, one)
                nursery.start_soon(ask, two)
    for service, key in zip(services, keys, strict=True):
        assert service.keys("auth/token") == [key]
        assert set(service.keys("get_info")) == {service.valid}


@pytest.mark.requirement("R31")
async def test_any_address_has_connections_of_its_own(autojump_clock: Any) -> None:
    """A service that nobody has named before is simply called; each client has its own lanes."""
    called: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(str(request.url))
        return httpx.Response(200, json={"status": "ok"})

    urls = [f"http://service-{number}.example/base" for number in range(5)]
    lanes = []
    for url in urls:
        config = Config(base_url=url)
        async with open_transport(
            config, rng=random.Random(0), through=httpx.MockTransport(answer)
        ) as transport:
            lanes.append(transport.lanes)
            await transport.call(HEALTH, Empty())
    assert called == [f"{url}/api/v1/healthz" for url in urls]
    assert len({id(one) for one in lanes}) == 5


@pytest.mark.requirement("R21")
async def test_there_is_one_class_of_configurations() -> None:
    """A mapping in its place is refused where connections are opened; what is in it is not shown."""
    values: Any = {"base_url": "http://service", "api_key": KEY}
    with pytest.raises(ConfigError, match="config = dict: must be a Config") as caught:
        async with open_transport(values, rng=random.Random(0)):
            pass
    assert "hunter2" not in str(caught.value)
