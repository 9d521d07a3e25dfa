"""Each requirement, and each lesson, has a test that says it proves it; each mark names one that there is."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ASKED = tomllib.loads((TESTS / "requirements.toml").read_text("utf-8"))
LEARNED = tomllib.loads((TESTS / "lessons.toml").read_text("utf-8"))
REQUIREMENTS: dict[str, str] = ASKED["requirements"]
LESSONS: dict[str, str] = LEARNED["lessons"]
IMPOSSIBLE: dict[str, str] = LEARNED["impossible"]
LATER: frozenset[str] = frozenset([*ASKED["later"], *LEARNED["later"]])


@pytest.fixture(scope="module")
def proven() -> frozenset[str]:
    """Return what is named by the mark of a test that always runs; see tools/mark_reading.py."""
    return named("requirement")


@pytest.fixture(scope="module")
def shown() -> frozenset[str]:
    """Return the lessons that are named likewise."""
    return named("lesson")


def named(mark: str) -> frozenset[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TESTS.parent / "tools"))
        reading = importlib.import_module("mark_reading")
        proofs = reading.read_proofs(TESTS.parent, ["tests"], [mark])
    return frozenset(str(name) for proof in proofs if proof.is_sure for name in proof.named[mark])


def test_every_mark_names_a_requirement(proven) -> None:
    """A requirement that is named by a test stands in the list."""
    assert proven - set(REQUIREMENTS) == set()


def test_every_requirement_is_proven(proven) -> None:
    """A requirement of the list is named by a test, or stands among those that are still to come."""
    assert sorted(set(REQUIREMENTS) - proven - LATER) == []


def test_what_is_proven_is_not_still_to_come(proven, shown) -> None:
    """What has a test does not stand in the lists of what is still to come."""
    assert sorted((proven | shown) & LATER) == []


def test_every_lesson_is_learned(shown) -> None:
    """A lesson has a test, or a line that says why it cannot occur; never both, and no other lesson is named."""
    assert sorted(set(LESSONS) - shown - set(IMPOSSIBLE) - LATER) == []
    assert sorted((shown | set(IMPOSSIBLE)) - set(LESSONS)) == []
    assert sorted(shown & set(IMPOSSIBLE)) == []
