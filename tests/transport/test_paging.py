"""Lists that come page by page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tinker_actors.errors import APIResponseValidationError
from tinker_actors.protocol.pagination import PageInfo
from tinker_actors.transport.paging import AsyncPaginator, member


class Service:
    """A list of numbers behind limit and offset."""

    def __init__(self, count: int, *, told: bool = False, typed: bool = False) -> None:
        self.count = count
        self.told = told
        self.typed = typed
        self.asked: list[tuple[int, int]] = []

    async def fetch(self, page: PageInfo) -> Any:
        self.asked.append((page.limit, page.offset))
        numbers = list(range(self.count))[page.offset : page.offset + page.limit]
        cursor = {"total_count": self.count} if self.told else None
        if self.typed:
            return SimpleNamespace(
                items=numbers, cursor=None if cursor is None else SimpleNamespace(**cursor)
            )
        return {"items": numbers, "cursor": cursor}

    def list(self, limit: int = 3, offset: int = 0) -> AsyncPaginator[int]:
        return AsyncPaginator(self.fetch, member("items"), PageInfo(limit=limit, offset=offset))


@pytest.mark.requirement("R67", "R68")
async def test_items_come_over_all_pages() -> None:
    """The next page is asked for at the offset behind this one; a short page is the last."""
    service = Service(7)
    assert [item async for item in service.list()] == list(range(7))
    assert service.asked == [(3, 0), (3, 3), (3, 6)]


@pytest.mark.requirement("R67")
@pytest.mark.parametrize("typed", [False, True])
async def test_a_total_saves_the_last_question(typed: bool) -> None:
    """If the service says how many there are, a full last page is known to be the last."""
    service = Service(6, told=True, typed=typed)
    assert [item async for item in service.list()] == list(range(6))
    assert service.asked == [(3, 0), (3, 3)]


@pytest.mark.requirement("R67")
async def test_pages_can_be_walked_by_hand() -> None:
    """A page knows its items, whether there is another, what to ask for, and gets it."""
    service = Service(4)
    page = await service.list(offset=0)
    assert (page.items, page.has_next_page()) == ((0, 1, 2), True)
    assert page.next_page_info() == PageInfo(limit=3, offset=3)
    last = await page.get_next_page()
    assert (last.items, last.has_next_page(), last.next_page_info()) == ((3,), False, None)
    with pytest.raises(RuntimeError, match="last page"):
        await last.get_next_page()
    assert [one.items async for one in page.iter_pages()] == [(0, 1, 2), (3,)]
    assert [item async for item in page] == [0, 1, 2, 3]
    assert [one.items async for one in service.list().iter_pages()] == [(0, 1, 2), (3,)]


@pytest.mark.requirement("R67")
async def test_a_walk_may_be_left() -> None:
    """Nothing more is asked for, and nothing is left open."""
    service = Service(100)
    async for item in service.list():
        if item == 4:
            break
    assert len(service.asked) == 2


@pytest.mark.parametrize("reply", [{}, {"items": "abc"}, {"items": 3}, SimpleNamespace()])
async def test_a_reply_without_the_list_is_a_typed_error(reply: Any) -> None:
    """Where it should be is told."""
    with pytest.raises(APIResponseValidationError, match=r"\$\.items"):
        member("items")(reply)


@pytest.mark.requirement("R68")
@pytest.mark.parametrize("total", [None, 9])
async def test_a_service_that_knows_no_offsets_is_told_as_such(total: int | None) -> None:
    """It would give its first page for ever; what was wanted, and does not need a second page, is still had."""

    async def fetch(page: PageInfo) -> Any:
        return {"items": [1, 2, 3][: page.asked], "cursor": {"total_count": total}}

    for limit in (3, 4, None):
        numbers = AsyncPaginator(fetch, member("items"), PageInfo(limit=3, wanted=limit))
        if limit == 3:
            assert [number async for number in numbers] == [1, 2, 3]
            continue
        with pytest.raises(APIResponseValidationError, match="offset 0 was given again at offset 3"):
            async for _ in numbers:
                pass


async def test_a_service_that_knows_no_limit_gives_all_at_once() -> None:
    """More than was asked for is all there is."""
    asked: list[int] = []

    async def fetch(page: PageInfo) -> Any:
        asked.append(page.offset)
        return {"items": list(range(9))}

    numbers = AsyncPaginator(fetch, member("items"), PageInfo(limit=3))
    assert [number async for number in numbers] == list(range(9))
    assert asked == [0]
