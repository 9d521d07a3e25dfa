"""docs/requirements.md tells what the lists and the marks of the tests say.

If the first test fails after a change of either, write the page again with
``python tools/write_requirement_pages.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "requirements.md"

ASKED = """\
later = ["R3"]
[requirements]
R1 = "It does this."
R2 = "It does that."
R3 = "It will do more."
"""
LEARNED = """\
later = []
[lessons]
D1 = "It failed to do this."
D2 = "It hung."
[impossible]
D2 = "there is nothing to hang on."
"""
TESTS = '''\
@pytest.mark.requirement("R1", "R2")
@pytest.mark.lesson("D1")
def test_it():
    """It does."""
'''


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], Any]) -> Any:
    """Load tools/write_requirement_pages.py, which is a script."""
    return load_tool("write_requirement_pages")


@pytest.fixture
def project(tmp_path: Path, tool: Any) -> Path:
    """Lay out a small project in which nothing is amiss, the page not written."""
    asked, learned = tool.LISTS.values()
    for name, text in {asked: ASKED, learned: LEARNED, "tests/room/test_it.py": TESTS}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


# --- this project -------------------------------------------------------------------------------------------


def test_written_page_is_up_to_date(tool: Any) -> None:
    """The page reads as the tool would write it now."""
    pages = tool.pages_of(tool.read_chapters(ROOT), tool.read_all_proofs(ROOT))
    assert PAGE.read_text("utf-8") == pages.texts[tool.NAME], f"write it again: {pages.again}"


def test_every_line_is_one_sentence_that_fits_a_line(tool: Any) -> None:
    """Lessons are plain sentences, and no reason is empty."""
    _, lessons = tool.read_chapters(ROOT)
    for name, text in lessons.lines.items():
        assert text.endswith("."), name
        assert ". " not in text, name
    for line in (ROOT / "tests/lessons.toml").read_text("utf-8").splitlines():
        assert len(line) <= 118, line
    assert all(reason.strip() for reason in lessons.impossible.values())


def test_links_of_the_page_lead_somewhere() -> None:
    """Each test file that it points to is there; lines are not named, so that they may move."""
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text("utf-8"))
    assert links
    assert [link for link in links if not (PAGE.parent / link).is_file()] == []


# --- the tool -----------------------------------------------------------------------------------------------


def test_a_page_is_written_and_then_checked(tool: Any, project: Path, capsys: Any) -> None:
    """What was written passes the check, and says each line with its tests, or why it has none."""
    assert tool.main([], project) == 0
    assert tool.main(["--check"], project) == 0
    assert capsys.readouterr() == ("", "")
    page = (project / "docs/requirements.md").read_text("utf-8")
    tests = "- [room/test_it.py](../tests/room/test_it.py): `test_it`\n"
    assert f"**R1.** It does this.\n\n{tests}\n**R2.** It does that.\n\n{tests}" in page
    assert f"**D1.** It failed to do this.\n\n{tests}" in page
    assert "**D2.** It hung.\n\n- It cannot occur here: there is nothing to hang on.\n" in page
    assert page.endswith("- **R3.** It will do more.\n")


def test_a_page_does_not_change_when_lines_move(tool: Any, project: Path) -> None:
    """Whoever writes something above a test need not write the page again."""
    tool.main([], project)
    file = project / "tests/room/test_it.py"
    file.write_text(f"import this\n\n\n{file.read_text('utf-8')}", "utf-8")
    assert tool.main(["--check"], project) == 0


def test_check_names_what_is_amiss(tool: Any, project: Path, capsys: Any) -> None:
    """A line without a test, a test that may be skipped, a mark of nothing, and an old page."""
    tool.main([], project)
    marked = TESTS.replace('"R1", "R2"', '"R1", "R9"').replace("def", "@pytest.mark.xfail\ndef")
    (project / "tests/room/test_it.py").write_text(marked, "utf-8")
    assert tool.main(["--check"], project) == 1
    assert capsys.readouterr().err.splitlines() == [
        "tests/room/test_it.py::test_it names 'R9', which is no requirement of tests/requirements.toml",
        "requirement R1 has no test: It does this.",
        "requirement R2 has no test: It does that.",
        "lesson D1 has no test: It failed to do this.",
        "docs/requirements.md is out of date; write it again with `python tools/write_requirement_pages.py`",
    ]
