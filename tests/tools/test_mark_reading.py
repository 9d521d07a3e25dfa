"""What counts as a proof: a marked test that runs wherever the suite runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
MARKS = ("rule", "scenario")


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load tools/mark_reading.py."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("mark_reading")


def test_marks_are_found_wherever_they_may_stand(reading) -> None:
    """A mark counts on a test, one of its parameters, its class, its module, alone or in a list, once."""
    source = """\
pytestmark = [pytest.mark.rule("A1"), pytest.mark.slow]

class TestIt:
    pytestmark = pytest.mark.rule("A2")

    @pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.scenario(7))])
    @pytest.mark.rule("A3", "A1")
    async def test_this(self, x): ...

@pytest.mark.rule("A4")
def fixture(): ...
"""
    (proof,) = reading.proofs_in(source, "f.py", MARKS)
    assert proof.place == "f.py::TestIt::test_this"
    assert proof.named == {"rule": ("A1", "A2", "A3"), "scenario": (7,)}
    assert proof.is_sure


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.mark.slow\ndef test_it(): ...\n",
        "class Helper:\n    @pytest.mark.rule('A1')\n    def test_it(self): ...\n",
        "def outer():\n    @pytest.mark.rule('A1')\n    def test_it(): ...\n",
    ],
    ids=["other marks", "a class that pytest does not collect", "a function within one"],
)
def test_what_has_no_mark_or_is_not_collected_is_no_proof(reading, source: str) -> None:
    """It is not in the list at all."""
    assert reading.proofs_in(source, "f.py", MARKS) == []


TEST = '@pytest.mark.rule("A1")\ndef test_it(one): ...\n'


@pytest.mark.parametrize(
    "source",
    [
        f"@pytest.mark.skip\n{TEST}",
        f'@pytest.mark.skipif(sys.platform == "x", reason="y")\n{TEST}',
        f"@pytest.mark.xfail(strict=True)\n{TEST}",
        f"pytestmark = [pytest.mark.skip(reason='y')]\n{TEST}",
        f"@pytest.mark.parametrize('one', [pytest.param(1, marks=pytest.mark.xfail)])\n{TEST}",
        f"{TEST.replace('...', 'pytest.skip()')}",
        f"torch = pytest.importorskip('torch')\n{TEST}",
        f"@pytest.fixture\ndef one():\n    pytest.skip('no')\n{TEST}",
    ],
)
def test_what_may_be_skipped_or_expected_to_fail_is_not_sure(reading, source: str) -> None:
    """By its marks, in its body, in a fixture it asks for, or with its whole module."""
    (proof,) = reading.proofs_in(source, "f.py", MARKS)
    assert not proof.is_sure


def test_another_tests_skipping_changes_nothing(reading) -> None:
    """Nor does a fixture that the test does not ask for, or a comment."""
    source = f"def other():\n    pytest.skip()\n{TEST}    # no pytest.skip() here\n"
    (proof,) = reading.proofs_in(source, "f.py", MARKS)
    assert proof.is_sure
