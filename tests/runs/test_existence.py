"""Whether a service has a checkpoint, as far as it can say."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.actors.recorder import Recorder, rest_on
from tinker_actors.errors import InternalServerError
from tinker_actors.runs.existence import is_there

PATH = "tinker://m:train:0/weights/r-000003"
ASK = "POST /api/v1/weights_info"
LIST = "GET /api/v1/training_runs/m:train:0/checkpoints"
HERE = {"base_model": "b", "is_lora": True, "lora_rank": 2}
ONE = {
    "checkpoint_id": "weights/r-000003",
    "checkpoint_type": "training",
    "time": "2026-01-01T00:00:00Z",
    "tinker_path": PATH,
}


def no_route() -> httpx.Response:
    """Answer that there is no such call."""
    return httpx.Response(404, json={"detail": "Not Found"})


def gone() -> httpx.Response:
    """Answer that there is no such thing."""
    return httpx.Response(404, json={"detail": "no such checkpoint: r-000003"})


@pytest.mark.parametrize(
    ("asked", "listed", "there"),
    [
        (HERE, None, True),
        (gone(), None, False),
        (no_route(), {"checkpoints": [ONE]}, True),
        (no_route(), {"checkpoints": []}, False),
        (no_route(), gone(), False),
        (no_route(), no_route(), None),
    ],
)
async def test_it_is_asked_for_and_else_looked_up(
    autojump_clock: Any, asked: Any, listed: Any, there: bool | None
) -> None:
    """A service that has neither call cannot say."""
    recorder = Recorder({ASK: asked, LIST: listed})
    async with rest_on(recorder) as rest:
        assert await is_there(rest, PATH) is there
    assert len(recorder.sent) == (1 if listed is None else 2)


async def test_a_path_without_parts_cannot_be_looked_up(autojump_clock: Any) -> None:
    """Some services give such paths for what they saved."""
    recorder = Recorder({ASK: no_route()})
    async with rest_on(recorder) as rest:
        assert await is_there(rest, "file:///saved/r-000003") is None
    assert len(recorder.sent) == 1


async def test_who_cannot_be_asked_says_nothing(autojump_clock: Any) -> None:
    """That is for the caller to judge."""
    recorder = Recorder({ASK: httpx.Response(500, json={"detail": "broken"})})
    async with rest_on(recorder, max_retries=0) as rest:
        with pytest.raises(InternalServerError):
            await is_there(rest, PATH)
