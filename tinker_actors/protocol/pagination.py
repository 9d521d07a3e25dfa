"""Which page comes after this one. Pure.

Lists are asked for by limit and offset. The next page begins where this one ended: at its offset and what it
brought, not what was asked for. There is none after a short page, unless the service says how many there are in
all and that is more: it may give fewer at once than it was asked for. A page with nothing on it is the last.
"""

from __future__ import annotations

import attrs

from tinker_actors.errors import InputError

__all__ = ["PageInfo", "next_page"]


@attrs.frozen(kw_only=True)
class PageInfo:
    """What to ask for to get a page.

    Attributes:
        limit: items at most.
        offset: items before it.

    Raises:
        InputError: no limit, or a negative offset.
    """

    limit: int
    offset: int = 0

    def __attrs_post_init__(self) -> None:
        if self.limit < 1:
            raise InputError("limit", self.limit, "must be at least 1")
        if self.offset < 0:
            raise InputError("offset", self.offset, "must not be negative")


def next_page(page: PageInfo, received: int, total: int | None = None) -> PageInfo | None:
    """Return what to ask for after a page, or None if it was the last.

    Args:
        page: what was asked for.
        received: items it brought.
        total: items there are in all, if the service said so.
    """
    offset = page.offset + received
    more = offset < total if total is not None else received >= page.limit
    return attrs.evolve(page, offset=offset) if more and received > 0 else None
