"""What holds of a client whose user has set nothing."""

from __future__ import annotations

import random
from typing import Any, NoReturn

import pytest
import trio

from tinker_actors.errors import APIConnectionError
from tinker_actors.transport.client import AsyncTinker
from tinker_actors.transport.config import Config


class NeverFound(trio.abc.HostnameResolver):
    """Looks names up for ever."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> NoReturn:
        await trio.sleep_forever()

    async def getnameinfo(self, *_: Any, **__: Any) -> NoReturn:
        await trio.sleep_forever()


@pytest.mark.requirement("R35")
@pytest.mark.lesson("D38")
async def test_a_connection_may_take_five_seconds_and_is_tried_eleven_times(autojump_clock: Any) -> None:
    """Once and ten times more, with growing pauses between; then the error tells how many there were."""
    before = trio.socket.set_custom_hostname_resolver(NeverFound())
    try:
        async with AsyncTinker.open(Config(base_url="http://nowhere.test"), rng=random.Random(0)) as client:
            started = trio.current_time()
            with pytest.raises(APIConnectionError) as caught:
                await client.service.health_check()
            took = trio.current_time() - started
    finally:
        trio.socket.set_custom_hostname_resolver(before)
    pauses = sum(min(0.5 * 2**n, 10.0) for n in range(10))
    assert caught.value.attempts == 11
    assert 11 * 5 + 0.75 * pauses <= took <= 11 * 5 + pauses
