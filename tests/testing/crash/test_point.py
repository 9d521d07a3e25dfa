from __future__ import annotations

import pytest

from tinker_actors.errors import InputError
from tinker_actors.testing.crash.point import Crashed, Fuse


def test_a_fuse_blows_at_its_point_and_stays_blown() -> None:
    """It counts points, raises at the one it was made for and at whatever is tried afterwards, and calls once."""
    called: list[bool] = []
    fuse = Fuse(2)
    fuse.when_blown(lambda: called.append(fuse.blown))
    fuse.reach("request", "forward")
    for _ in range(2):
        with pytest.raises(Crashed):
            fuse.reach("answer", "forward")
    assert called == [True]
    assert [str(point) for point in fuse.points] == [
        "point 1, before forward reaches the service",
        "point 2, after forward was carried out, before its answer is there",
    ]


def test_a_point_before_the_first_is_refused() -> None:
    """Points are counted from 1."""
    with pytest.raises(InputError, match="at = 0"):
        Fuse(0)
