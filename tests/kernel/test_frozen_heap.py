"""Full collections leave out what was there before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tinker_actors.kernel.frozen_heap import frozen_heap


class Node:
    """Something that can be part of a cycle."""

    def __init__(self) -> None:
        self.me: Node | None = None


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Begin and end with a heap that nobody has frozen."""
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_was_there_before_is_left_out_until_the_last_one_leaves() -> None:
    """It counts who wants it, and what comes later is collected as ever."""
    with frozen_heap():
        with frozen_heap():
            frozen = gc.get_freeze_count()
            assert frozen > 1000
        assert gc.get_freeze_count() > frozen - 100  # single objects may have gone with their last reference
        later = Node()
        later.me = later
        seen = weakref.ref(later)
        del later
        gc.collect()
        assert seen() is None
    assert gc.get_freeze_count() == 0


def test_what_was_frozen_is_freed_with_its_last_reference() -> None:
    """Only cycles among the old wait."""
    alone, cycle = Node(), Node()
    cycle.me = cycle
    alone_seen, cycle_seen = weakref.ref(alone), weakref.ref(cycle)
    with frozen_heap():
        del alone, cycle
        gc.collect()
        assert alone_seen() is None
        assert cycle_seen() is not None
    gc.collect()
    assert cycle_seen() is None


def test_a_heap_that_the_program_has_frozen_before_is_left_alone() -> None:
    """It stays frozen."""
    gc.freeze()
    with frozen_heap():
        pass
    assert gc.get_freeze_count() > 0
