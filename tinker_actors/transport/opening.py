"""Opening the connections to a service, and finding out who we are there."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import cast

from tinker_actors.errors import APIResponseValidationError, ConfigError, CredentialError
from tinker_actors.protocol.credential import choose_credential
from tinker_actors.transport.auth import open_credentials
from tinker_actors.transport.authority import Authority, KeyOnly
from tinker_actors.transport.config import Config
from tinker_actors.transport.exchange import HttpTransport
from tinker_actors.transport.ways import Lanes, Through
from tinker_actors.wire.endpoints import AUTH_TOKEN
from tinker_actors.wire.service import AuthTokenRequest

__all__ = ["open_transport"]


@contextlib.asynccontextmanager
async def open_transport(
    config: Config,
    *,
    rng: random.Random,
    through: Through | None = None,
    utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    authority: Authority | None = None,
) -> AsyncIterator[HttpTransport]:
    """Open the connections to one service; leaving it closes them all.

    Args:
        config: how the service is reached.
        rng: chance for the jitter of retries and for idempotency keys.
        through: a transport to use in place of the network, or one for each lane; it is not closed.
        utc_now: the wall clock, for dates in `retry-after`.
        authority: says who we are; None goes by the key or the command of the configuration, and exchanges it if
            the service says so.
    """
    if not isinstance(cast("object", config), Config):
        raise ConfigError(f"config = {type(config).__name__}: must be a Config")  # its content may hold a key
    lanes = Lanes(config, through)
    try:
        async with contextlib.AsyncExitStack() as stack:
            if authority is None:

                async def exchange(key: str) -> str:
                    asking = HttpTransport(config, lanes, rng, utc_now, KeyOnly(key))
                    try:
                        return (await asking.call(AUTH_TOKEN, AuthTokenRequest())).jwt
                    except APIResponseValidationError:
                        message = "the service gave no token for the key: its answer has another shape"
                        raise CredentialError(message) from None  # it may quote a token

                authority = await stack.enter_async_context(
                    open_credentials(
                        choose_credential(
                            argument=config.api_key,
                            command=config.credential_command,
                            command_origin="credential_command",
                        ),
                        exchange=exchange,
                        rng=rng,
                        command=config.credential_command,
                        utc_now=utc_now,
                    )
                )
            yield HttpTransport(config, lanes, rng, utc_now, authority)
    finally:
        await lanes.aclose()
