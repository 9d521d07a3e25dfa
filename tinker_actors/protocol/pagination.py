"""Which page comes after this one. Pure.

Lists are asked for by limit and offset. The next page begins where this one ended: at its offset and what it
brought, not what was asked for. There is none after a short page, unless the service says how many there are in
all and that is more: it may give fewer at once than it was asked for. A page with nothing on it is the last, and so is
one with more than was asked for, unless the service knows of more: such a service gives all there is at once.
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
        wanted: items that are wanted of this page and all that follow; None is all there are.

    Raises:
        InputError: no limit, a negative offset or number, or what is no integer.
    """

    limit: int
    offset: int = 0
    wanted: int | None = None

    def __attrs_post_init__(self) -> None:
        if not _is_count(self.limit) or self.limit < 1:
            raise InputError("limit", self.limit, "must be an integer, at least 1")
        if not _is_count(self.offset):
            raise InputError("offset", self.offset, "must be an integer that is not negative")
        if self.wanted is not None and not _is_count(self.wanted):
            raise InputError(
                "wanted", self.wanted, "must be an integer that is not negative, or None for all"
            )

    @property
    def asked(self) -> int:
        """Items to ask for: no more than are wanted."""
        return self.limit if self.wanted is None else min(self.limit, self.wanted)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def next_page(page: PageInfo, received: int, total: int | None = None) -> PageInfo | None:
    """Return what to ask for after a page, or None if it was the last.

    Args:
        page: what was asked for.
        received: items it brought.
        total: items there are in all, if the service said so.
    """
    offset = page.offset + received
    wanted = None if page.wanted is None else max(page.wanted - received, 0)
    more = offset < total if total is not None else received == page.asked
    if not more or received == 0 or wanted == 0:
        return None
    return attrs.evolve(page, offset=offset, wanted=wanted)
