"""Lanes: what is slow on one holds up nothing on another."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio
import trio.testing

from tests.transport.calls import CALLS
from tests.transport.test_calls import Recorder
from tinker_actors.transport.client import AsyncTinker
from tinker_actors.transport.config import Config
from tinker_actors.transport.lanes import LANE_LIMITS
from tinker_actors.wire.endpoint import Lane

CALL_OF = {
    Lane.TRAIN: "training.optim_step",
    Lane.SAMPLE: "sampling.asample",
    Lane.SESSION: "service.session_heartbeat",
    Lane.FUTURES: "futures.retrieve",
    Lane.TELEMETRY: "telemetry.send",
}


@pytest.fixture
async def stuck() -> AsyncIterator[tuple[Any, Recorder, trio.Nursery]]:
    """Open a client all of whose lanes never answer but that of the session."""
    silent, beating = Recorder(None), Recorder(200)
    lanes: dict[Lane, httpx.AsyncBaseTransport] = {lane: silent.on(lane) for lane in Lane}
    lanes[Lane.SESSION] = beating.on(Lane.SESSION)
    async with (
        AsyncTinker.open(Config(base_url="http://script"), rng=random.Random(0), through=lanes) as client,
        trio.open_nursery() as nursery,
    ):
        yield client, silent, nursery
        nursery.cancel_scope.cancel()


@pytest.mark.requirement("R39")
@pytest.mark.parametrize("lane", [lane for lane in Lane if lane is not Lane.SESSION])
async def test_beats_go_on_while_another_lane_is_full(stuck: Any, lane: Lane) -> None:
    """With every connection of a lane taken and more calls waiting, a heartbeat is answered at once."""
    client, silent, nursery = stuck
    for _ in range(LANE_LIMITS[lane] + 5):
        nursery.start_soon(CALLS[CALL_OF[lane]], client)
    await trio.testing.wait_all_tasks_blocked()
    assert [on for on, _ in silent.seen] == [lane] * LANE_LIMITS[lane]
    with trio.fail_after(1):
        await CALLS[CALL_OF[Lane.SESSION]](client)


@pytest.mark.requirement("R40")
def test_each_lane_has_its_width() -> None:
    """Training is narrow, sampling is wide, and waiting for results is wider still."""
    widths = [
        LANE_LIMITS[lane] for lane in (Lane.TELEMETRY, Lane.SESSION, Lane.TRAIN, Lane.SAMPLE, Lane.FUTURES)
    ]
    assert widths == sorted(set(widths))
    assert set(LANE_LIMITS) == set(Lane)
