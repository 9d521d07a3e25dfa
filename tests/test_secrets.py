"""No secret is shown: not in a repr, an error, a log, an event, or what telemetry sends. `hunter2` marks them all."""

from __future__ import annotations

import json
import logging
import random
import traceback
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
import trio

from tests.actors.conftest import StubService
from tests.transport.test_auth import EPOCH, jwt
from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.errors import TinkerActorsError
from tinker_actors.protocol.credential import CredentialCommand, Secret
from tinker_actors.transport.config import Config, Environment
from tinker_actors.types import AdamParams

MARK = "hunter2"
KEY = f"tml-{MARK}"
MODEL = "tinker-actors/char-100k"
ACCESS = {
    "CF-Access-Client-Secret": MARK,
    "x-tinker-weights-access-token": MARK,
    "authorization": f"Bearer {MARK}",
}


def config(**settings: Any) -> Config:
    """Make a configuration that is full of secrets."""
    values: dict[str, Any] = {
        "base_url": "http://stub",
        "api_key": KEY,
        "credential_command": f"echo {KEY}",
        "headers": ACCESS,
        "heartbeat": "loop",
        "telemetry": True,
        "proxy": f"http://user:{MARK}@proxy:3128",
        **settings,
    }
    return Config(**values)


def opened(stub: StubService) -> AbstractAsyncContextManager[ServiceClient]:
    """Open the client of a stub with that configuration."""
    return open_client(
        config(),
        rng=random.Random(0),
        backend="http://stub",
        chosen="the stub",
        through=stub,
        beat_through=None,
    )


def shown(error: BaseException | None) -> str:
    """Return everything an error shows: itself, its causes, its request and answer, and its traceback."""
    if error is None:
        return ""
    parts = [str(error), repr(error), repr(error.args), *traceback.format_exception(error)]
    parts += [repr(value) for value in vars(error).values()]
    for name in ("request", "response"):
        part = vars(error).get(name)
        if isinstance(part, httpx.Request | httpx.Response):
            parts += [repr(part), repr(part.headers.multi_items())]
            parts.append(part.text if isinstance(part, httpx.Response) else "")
    return "\n".join(parts)


def test_what_holds_a_secret_does_not_show_it() -> None:
    """Configuration, environment, keys, commands."""
    environment = Environment.read(
        {
            "TINKER_API_KEY": KEY,
            "TINKER_CREDENTIAL_CMD": f"echo {KEY}",
            "CLOUDFLARE_ACCESS_CLIENT_ID": "id",
            "CLOUDFLARE_ACCESS_CLIENT_SECRET": MARK,
        }
    )
    for holder in (config(), environment, Secret(KEY, "api_key"), CredentialCommand(f"echo {KEY}", "it")):
        assert MARK not in repr(holder) + str(holder)


@pytest.mark.requirement("R30")
@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, None])
async def test_a_service_that_repeats_our_secrets_does_not_get_them_into_sight(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, stub: Any, exchanged: bool, status: int | None
) -> None:
    """It says the key in its refusal; nothing that a user, a log, an event or telemetry sees has it."""
    caplog.set_level(logging.DEBUG)
    given = jwt(1, 4e9 - EPOCH)
    stub.rules["client/config"] = lambda *_: httpx.Response(200, json={"pjwt_auth_enabled": exchanged})
    stub.rules["auth/token"] = lambda *_: httpx.Response(200, json={"jwt": given})

    def refuse(*_: Any) -> httpx.Response:
        if status is None:
            raise httpx.ReadError("broken off")
        secret = stub.headers[-1]["x-api-key"]
        return httpx.Response(status, json={"detail": f"not with {secret}"})

    seen: list[str] = []
    async with opened(stub) as service:
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL)
        stub.rules["optim_step"] = refuse
        stub.rules["create_sampling_session"] = refuse
        seen += [repr(service), repr(training), repr(service._tree), repr(service._tree.transport)]
        for attempt in (_step, _sampler):
            with pytest.raises(TinkerActorsError) as caught:
                await attempt(service, training)
            error: BaseException | None = caught.value
            while error is not None:
                seen.append(shown(error))
                error = error.__cause__ or error.__context__
        stub.rules.clear()
        while True:
            try:
                seen.append(repr(events.receive_nowait()))
            except trio.WouldBlock:
                break
    assert stub.headers[-1]["x-api-key"] == (given if exchanged else KEY)
    seen += [json.dumps(body) for name, body in stub.log if name == "telemetry"]
    seen += [record.getMessage() for record in caplog.records]
    assert "telemetry" in stub.names()
    assert [text for text in seen if MARK in text.replace(f"{MARK}.py", "")] == []


async def _step(service: Any, training: Any) -> None:
    pending = await training.optim_step(AdamParams())
    await pending


async def _sampler(service: Any, training: Any) -> None:
    await service.create_sampling_client(base_model=MODEL)


@pytest.mark.parametrize("status", [200, 400, 401, 409, 422])
async def test_a_result_that_repeats_our_key_does_not_show_it(
    autojump_clock: Any, caplog: pytest.LogCaptureFixture, stub: Any, status: int
) -> None:
    """The answers to polls are masked as well."""
    caplog.set_level(logging.DEBUG)
    async with opened(stub) as service:
        training = await service.create_lora_training_client(MODEL)
        stub.rules["retrieve_future"] = lambda *_: httpx.Response(
            status, json={"detail": f"not with {KEY}", "error": f"not with {KEY}", "category": "user"}
        )
        with pytest.raises(TinkerActorsError) as caught:
            await _step(service, training)
    assert MARK not in shown(caught.value) + caplog.text


@pytest.fixture
def stub() -> StubService:
    """Return a service that answers everything at once."""
    return StubService()
