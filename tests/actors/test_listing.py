"""Lists of what a service keeps: item by item, page by page, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.actors.recorder import Recorder, rest_on
from tinker_actors.errors import (
    InputError,
)

RUN = {
    "training_run_id": "f00d:train:0",
    "base_model": "b",
    "model_owner": "o",
    "is_lora": True,
    "last_request_time": "2026-03-04T05:06:07Z",
}
CURSOR = {"offset": 0, "limit": 20, "total_count": 0}


def numbered(total: int, *, told: bool = True, key: str = "training_runs") -> Callable[[httpx.Request], Any]:
    """Return a service that keeps so many training runs, or ids of sessions."""

    def answer(request: httpx.Request) -> Any:
        limit, offset = int(request.url.params["limit"]), int(request.url.params["offset"])
        ids = [f"r{number}" for number in range(total)][offset : offset + limit]
        items: list[Any] = ids if key == "sessions" else [RUN | {"training_run_id": one} for one in ids]
        cursor = {"offset": offset, "limit": limit, "total_count": total if told else 10**6}
        return {key: items} | ({"cursor": cursor} if key != "sessions" else {})

    return answer


@pytest.mark.requirement("R153")
@pytest.mark.parametrize(
    ("limit", "asked"),
    [
        (None, ["2&offset=0", "2&offset=2", "2&offset=4"]),
        (3, ["2&offset=0", "1&offset=2"]),
        (1, ["1&offset=0"]),
    ],
)
async def test_runs_come_one_by_one(limit: int | None, asked: list[str]) -> None:
    """Over all pages, typed, and no more than are wanted."""
    recorder = Recorder({"GET /api/v1/training_runs": numbered(5)})
    async with rest_on(recorder) as rest:
        runs = [
            run.training_run_id
            async for run in rest.training_runs(limit=limit, page_size=2, access_scope="accessible")
        ]
    assert runs == [f"r{number}" for number in range(limit or 5)]
    assert [target.partition("limit=")[2] for _, target, _ in recorder.sent] == [
        f"{one}&access_scope=accessible" for one in asked
    ]


async def test_sessions_end_with_a_short_page() -> None:
    """Their list has no cursor."""
    recorder = Recorder({"GET /api/v1/sessions": numbered(4, key="sessions")})
    async with rest_on(recorder) as rest:
        assert [one async for one in rest.sessions(page_size=2)] == ["r0", "r1", "r2", "r3"]
        assert len(recorder.sent) == 3
        assert [page.items async for page in rest.iter_sessions(page_size=3)] == [("r0", "r1", "r2"), ("r3",)]


async def test_pages_know_how_many_there_are() -> None:
    """The first page can be had alone, and tells the number of all."""
    recorder = Recorder({"GET /api/v1/training_runs": numbered(5)})
    async with rest_on(recorder) as rest:
        first = await rest.training_runs(page_size=2)
        assert (first.total_count, len(first.items), first.has_next_page()) == (5, 2, True)
        sizes = [len(page.items) async for page in rest.iter_training_runs(page_size=2)]
        assert sizes == [2, 2, 1]
        with pytest.raises(InputError, match="limit"):
            rest.training_runs(limit=0)
        with pytest.raises(InputError, match="page_size"):
            rest.user_checkpoints(page_size=0)
