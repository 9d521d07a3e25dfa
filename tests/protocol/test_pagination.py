"""Which page comes after this one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import InputError
from tinker_actors.protocol.pagination import PageInfo, next_page


@pytest.mark.parametrize("name", ["limit", "offset", "wanted"])
@pytest.mark.parametrize("value", ["5", 5.0, True])
def test_numbers_of_a_page_are_integers(name: str, value: object) -> None:
    """What would go out as another text, or fail in the middle, is refused by its name."""
    with pytest.raises(InputError, match=f"{name} = .*: must be an integer"):
        PageInfo(**({"limit": 10} | {name: value}))  # type: ignore[arg-type]


@pytest.mark.requirement("R68")
@pytest.mark.parametrize(
    ("received", "total", "offset"),
    [
        (10, None, 15),
        (9, None, None),
        (11, None, None),
        (11, 17, 16),
        (0, None, None),
        (10, 15, None),
        (10, 16, 15),
        (4, 16, 9),
        (0, 99, None),
    ],
)
def test_pages_follow_each_other(received: int, total: int | None, offset: int | None) -> None:
    """The next begins behind what came; a short page is the last unless the service knows of more."""
    following = next_page(PageInfo(limit=10, offset=5), received, total)
    assert (None if following is None else following.offset) == offset


@given(items=st.integers(0, 50), limit=st.integers(1, 12), cap=st.integers(1, 12), told=st.booleans())
def test_every_item_is_seen_once(items: int, limit: int, cap: int, told: bool) -> None:
    """Whatever a service's own limit is, all items come, in order, if it tells how many there are."""
    page: PageInfo | None = PageInfo(limit=limit)
    seen: list[int] = []
    while page is not None:
        got = range(page.offset, min(page.offset + min(limit, cap), items))
        seen += got
        page = next_page(page, len(got), items if told else None)
    assert seen == list(range(items if told or cap >= limit else min(items, cap)))


@pytest.mark.parametrize(
    ("wanted", "received", "total", "left"),
    [
        (25, 10, None, 15),
        (15, 10, 99, 5),
        (10, 10, 99, None),
        (4, 4, 99, None),
        (4, 9, 99, None),
        (25, 9, None, None),
    ],
)
def test_no_more_is_asked_for_than_is_wanted(
    wanted: int, received: int, total: int | None, left: int | None
) -> None:
    """What came is taken from what is wanted; when nothing more is, there is no next page."""
    page = PageInfo(limit=10, wanted=wanted)
    assert page.asked == min(10, wanted)
    following = next_page(page, received, total)
    assert (None if following is None else following.wanted) == left


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1, "offset": -1}, {"limit": 1, "wanted": -1}])
def test_impossible_pages_are_refused(wrong: dict[str, int]) -> None:
    """A limit of nothing and a negative offset are told by name."""
    with pytest.raises(InputError):
        PageInfo(**wrong)
