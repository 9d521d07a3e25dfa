"""One line says how a run came to where it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from tinker_actors.protocol.resume import ResumePoint
from tinker_actors.protocol.run_event import RunOpened

THIRD = "run r, opened for the 3rd time, goes on at step 120 with model m"
THIRD_LOST = THIRD.replace("120", "120 (2 more were decided, and lost with the machine)")


def point(how: Any, **facts: Any) -> ResumePoint:
    """Make a point at step 120."""
    return ResumePoint(step=120, how=how, model_id="m", **facts)


@pytest.mark.parametrize(
    ("at", "line"),
    [
        (point("fresh"), "run r begins with model m"),
        (
            point("attached", incarnation=2),
            "run r, opened for the 2nd time, goes on at step 120 with the very same model m",
        ),
        (
            point(
                "restored",
                incarnation=3,
                checkpoint="tinker://a/weights/r-000118",
                replayed=2,
                why="it is late",
            ),
            f"{THIRD}, restored from tinker://a/weights/r-000118, 2 steps sent again, because it is late",
        ),
        (
            point("restored", incarnation=3, replayed=1, lost=2),
            f"{THIRD_LOST}, restored from its seed, 1 step sent again",
        ),
        (
            point("restored", incarnation=3, replayed=1),
            f"{THIRD}, restored from its seed, 1 step sent again",
        ),
    ],
)
def test_the_line_says_which_of_the_three_happened(at: ResumePoint, line: str) -> None:
    """And from which checkpoint, how many steps were sent again, and why."""
    assert at.line("r") == line


def test_it_counts_as_people_do() -> None:
    """The 1st, 2nd, 3rd, 4th, 12th, 21st and 113th time."""
    counts = (1, 2, 3, 4, 12, 21, 113)
    lines = [point("attached", incarnation=count).line("r") for count in counts]
    said = [line.split(" for the ")[1].split(" time")[0] for line in lines]
    assert said == ["1st", "2nd", "3rd", "4th", "12th", "21st", "113th"]


def test_an_event_says_the_same() -> None:
    """With each of the facts, for those who listen."""
    at = point("restored", incarnation=3, checkpoint="tinker://a/weights/r", replayed=2, why="it is late")
    assert at.event("r") == RunOpened(
        run="r",
        how="restored",
        step=120,
        model_id="m",
        incarnation=3,
        checkpoint="tinker://a/weights/r",
        replayed=2,
        why="it is late",
    )
