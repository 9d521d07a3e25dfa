"""Lists that come page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Generic, Self, TypeAlias, TypeVar, cast

import trio

from tinker_actors.errors import APIResponseValidationError
from tinker_actors.protocol.pagination import PageInfo, next_page

__all__ = ["AsyncPage", "AsyncPaginator", "Fetch", "PageReader", "member"]

T = TypeVar("T")

Fetch: TypeAlias = Callable[[PageInfo], Awaitable[Any]]
"""Asks for a page and returns the reply it comes in."""
PageReader: TypeAlias = Callable[[Any], Sequence[T]]
"""Finds the items in a reply."""


def member(name: str) -> PageReader[Any]:
    """Return a reader that finds the items under a name: an attribute of the reply, or a member of a mapping."""

    def read(reply: Any) -> Sequence[Any]:
        found = cast("Any", reply.get(name) if isinstance(reply, Mapping) else getattr(reply, name, None))
        if not isinstance(found, Sequence) or isinstance(found, str):
            raise APIResponseValidationError(f"page: no list @ $.{name}", [f"must be a list @ $.{name}"])
        return found

    return read


def _total(reply: Any) -> int | None:
    """Return how many items there are in all, if the reply's cursor says so."""
    cursor = reply.get("cursor") if isinstance(reply, Mapping) else getattr(reply, "cursor", None)
    total = cursor.get("total_count") if isinstance(cursor, Mapping) else getattr(cursor, "total_count", None)
    return total if isinstance(total, int) and not isinstance(total, bool) else None


class AsyncPage(Generic[T]):
    """One page; going through it goes through those after it as well.

    Attributes:
        reply: the answer it came in.
        items: what is on it.
        info: what was asked for to get it.
        total_count: how many there are in all, if the service says so.
    """

    def __init__(self, reply: Any, info: PageInfo, fetch: Fetch, read: PageReader[T]) -> None:
        self.reply = reply
        self.info = info
        items = tuple(read(reply))
        self.items: tuple[T, ...] = items[: info.wanted]
        self.total_count = _total(reply)
        self._received = len(items)
        self._fetch = fetch
        self._read = read

    def next_page_info(self) -> PageInfo | None:
        """Return what to ask for to get the next page; None if this is the last."""
        return next_page(self.info, self._received, self.total_count)

    def has_next_page(self) -> bool:
        """Return whether there is a next page."""
        return self.next_page_info() is not None

    async def get_next_page(self) -> AsyncPage[T]:
        """Ask for the next page. Checkpoints.

        Raises:
            RuntimeError: there is none; ask `has_next_page` before.
            APIResponseValidationError: it is this one again: the service does not know offsets.
            APIError: as the call.
        """
        info = self.next_page_info()
        if info is None:
            raise RuntimeError("this is the last page; has_next_page() tells")
        page = AsyncPage(await self._fetch(info), info, self._fetch, self._read)
        if page.items and page.items == self.items[: len(page.items)]:
            raise APIResponseValidationError(
                f"page: what was given at offset {self.info.offset} was given again at offset {info.offset}",
                [f"the same items @ offset {info.offset}"],
            )
        return page

    def iter_pages(self) -> AsyncIterator[AsyncPage[T]]:
        """Go through this page and those after it, each asked for when its turn has come."""
        return _Pages(self._itself)

    async def _itself(self) -> AsyncPage[T]:
        await trio.lowlevel.checkpoint()
        return self

    def __aiter__(self) -> AsyncIterator[T]:
        return _Items(self.iter_pages())


class _Pages(Generic[T]):
    """Goes from page to page. No generator, so that it may be left before its end."""

    def __init__(self, first: Callable[[], Awaitable[AsyncPage[T]]]) -> None:
        self._first = first
        self._page: AsyncPage[T] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncPage[T]:
        if self._page is None:
            self._page = await self._first()
        elif self._page.has_next_page():
            self._page = await self._page.get_next_page()
        else:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        return self._page


class _Items(Generic[T]):
    """Goes from item to item, over all pages."""

    def __init__(self, pages: AsyncIterator[AsyncPage[T]]) -> None:
        self._pages = pages
        self._items: Iterator[T] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            for item in self._items:
                return item
            self._items = iter((await anext(self._pages)).items)


class AsyncPaginator(Generic[T]):
    """A list that has not been asked for yet: await it for its first page, or go through its items.

    Args:
        fetch: asks for a page.
        read: finds the items in a reply.
        info: the first page.
    """

    def __init__(self, fetch: Fetch, read: PageReader[T], info: PageInfo) -> None:
        self._fetch = fetch
        self._read = read
        self._info = info

    async def _first(self) -> AsyncPage[T]:
        return AsyncPage(await self._fetch(self._info), self._info, self._fetch, self._read)

    def __await__(self) -> Generator[Any, Any, AsyncPage[T]]:
        return self._first().__await__()

    def iter_pages(self) -> AsyncIterator[AsyncPage[T]]:
        """Go through the pages, each asked for when its turn has come."""
        return _Pages(self._first)

    def __aiter__(self) -> AsyncIterator[T]:
        return _Items(self.iter_pages())
