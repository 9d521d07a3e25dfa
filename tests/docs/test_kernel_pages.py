"""The pages of docs/kernel tell what the code and its tests say.

If one of the first four fails after a change of tests or of the table of states, write the pages again with
``python tools/write_kernel_pages.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tinker_actors.kernel.lifecycle import TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "kernel"

RULES = """\
[rules.Mailbox]
M1 = "It is bounded."
M2 = "It loses nothing."
[scenarios]
1 = "It is full: senders wait."
"""
LIFECYCLE = """\
import enum

class Life(enum.Enum):
    NEW = "new"
    DEAD = "dead"  # and buried

class Event(enum.Enum):
    DIE = "die"  # of whatever

TRANSITIONS = {Life.NEW: {Event.DIE: Life.DEAD}, Life.DEAD: {}}
"""
TESTS = '''\
@pytest.mark.rule("M1", "M2")
@pytest.mark.scenario(1)
def test_it():
    """It does.

    Indeed.
    """
'''


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], Any]) -> Any:
    """Load tools/write_kernel_pages.py, which is a script."""
    return load_tool("write_kernel_pages")


@pytest.fixture
def project(tmp_path: Path, tool: Any) -> Path:
    """Lay out a small project in which nothing is amiss, pages not written."""
    files = {tool.RULES: RULES, tool.LIFECYCLE: LIFECYCLE, "tests/kernel/test_it.py": TESTS}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / tool.PAGES).mkdir(parents=True)
    return tmp_path


# --- this project -------------------------------------------------------------------------------------------


def test_every_mark_names_a_rule_or_scenario(tool: Any) -> None:
    """No test claims to prove what is not promised."""
    assert tool.unknown_marks(tool.read_rulebook(ROOT / tool.RULES), tool.read_kernel_proofs(ROOT)) == []


def test_every_rule_and_scenario_has_a_test(tool: Any) -> None:
    """Nothing is promised that no test is marked with."""
    assert tool.unproven(tool.read_rulebook(ROOT / tool.RULES), tool.read_kernel_proofs(ROOT)) == []


@pytest.mark.parametrize("name", ["rules.md", "lifecycle.md"])
def test_written_page_is_up_to_date(tool: Any, name: str) -> None:
    """The page reads as the tool would write it now."""
    pages = tool.pages_of(ROOT, tool.read_rulebook(ROOT / tool.RULES), tool.read_kernel_proofs(ROOT))
    assert (PAGES / name).read_text("utf-8") == pages.texts[name], f"write it again: {pages.again}"


def test_rulebook_has_short_names_and_whole_sentences(tool: Any) -> None:
    """Rules are a letter and a number, scenarios count from 1 without a hole, and each is one sentence."""
    rulebook = tool.read_rulebook(ROOT / tool.RULES)
    assert len(rulebook.rules) == sum(map(len, rulebook.chapters.values()))
    assert [name for name in rulebook.rules if not re.fullmatch(r"[A-Z][1-9]\d?", name)] == []
    assert list(rulebook.scenarios) == list(range(1, len(rulebook.scenarios) + 1))
    texts = [*rulebook.rules.values(), *rulebook.scenarios.values()]
    assert [text for text in texts if not text.endswith(".") or ". " in text] == []


def test_lifecycle_page_draws_every_transition(tool: Any) -> None:
    """Each line of the table of states is an arrow of the diagram, and there are no others."""
    drawn = re.findall(
        r"^    (\w+) --> (\w+): (.+)$", (PAGES / "lifecycle.md").read_text("utf-8"), re.MULTILINE
    )
    table = [
        (b.name, a.name, event.value) for b, events in TRANSITIONS.items() for event, a in events.items()
    ]
    assert drawn == table


def test_first_program_of_the_tutorial_is_short() -> None:
    """A supervised worker takes 40 lines, the empty ones not counted."""
    found = re.search(
        r"^```python\n(.*?)^```$", (PAGES / "tutorial.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    assert len([line for line in found[1].splitlines() if line.strip()]) <= 40


def test_links_of_the_pages_lead_somewhere() -> None:
    """What a page of docs/kernel points to in the project is there."""
    for page in PAGES.glob("*.md"):
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name


def test_rows_of_the_comparison_have_a_cell_for_each_library() -> None:
    """No row of a table is shorter or longer than its head, or has an empty cell."""
    lines = (PAGES / "comparison.md").read_text("utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")
    ]
    heads = [row for row in rows if row[-1] == "tinker_actors"]
    assert [row for row in rows if len(row) != len(heads[0])] == []
    assert [row for row in rows if row not in heads and not all(row)] == []


# --- the tool -----------------------------------------------------------------------------------------------


def test_pages_are_written_and_then_checked(tool: Any, project: Path, capsys: Any) -> None:
    """What was written passes the check, and says each rule with its test, and the states with their remarks."""
    assert tool.main([], project) == 0
    assert tool.main(["--check"], project) == 0
    assert capsys.readouterr() == ("", "")
    rules = (project / tool.PAGES / "rules.md").read_text("utf-8")
    entry = "- [kernel/test_it.py](../../tests/kernel/test_it.py): `test_it`\n"
    assert f"## Mailbox\n\n**M1.** It is bounded.\n\n{entry}\n**M2.** It loses nothing.\n\n{entry}" in rules
    assert rules.endswith(f"## Scenarios\n\n**1.** It is full: senders wait.\n\n{entry}")
    lifecycle = (project / tool.PAGES / "lifecycle.md").read_text("utf-8")
    assert "NEW\nDEAD  and buried\n" in lifecycle
    assert "    [*] --> NEW\n    NEW --> DEAD: die\n    DEAD --> [*]\n" in lifecycle
    assert "|     | NEW  |\n| --- | ---- |\n| die | DEAD |\n" in lifecycle
    assert "die  of whatever\n" in lifecycle


def test_check_names_a_page_out_of_date_and_leaves_it(tool: Any, project: Path, capsys: Any) -> None:
    """It says which page, and how to write it again; a page that is not there is out of date."""
    tool.main([], project)
    (project / tool.PAGES / "rules.md").write_text("old", "utf-8")
    (project / tool.PAGES / "lifecycle.md").unlink()
    assert tool.main(["--check"], project) == 1
    again = "is out of date; write it again with `python tools/write_kernel_pages.py`"
    assert capsys.readouterr().err == f"docs/kernel/rules.md {again}\ndocs/kernel/lifecycle.md {again}\n"
    assert (project / tool.PAGES / "rules.md").read_text("utf-8") == "old"


def test_check_names_what_has_no_test(tool: Any, project: Path, capsys: Any) -> None:
    """A rule and a scenario without a test are told with their sentences, and the page shows them bare."""
    (project / "tests/kernel/test_it.py").write_text('@pytest.mark.rule("M1")\ndef test_it(): ...\n', "utf-8")
    assert tool.main([], project) == 0
    assert tool.main(["--check"], project) == 1
    assert capsys.readouterr().err == (
        "rule M2 has no test: It loses nothing.\nscenario 1 has no test: It is full: senders wait.\n"
    )
    assert "**M2.** It loses nothing.\n\n- no test yet\n" in (project / tool.PAGES / "rules.md").read_text(
        "utf-8"
    )


@pytest.mark.parametrize("arguments", [[], ["--check"]])
def test_an_unknown_mark_is_told(tool: Any, project: Path, capsys: Any, arguments: list[str]) -> None:
    """A mark that names no rule or scenario, or names it in another way than plainly, is an error at once."""
    marks = '@pytest.mark.rule("M3", M1)\n@pytest.mark.scenario("1", 2)\n'
    (project / "tests/kernel/test_that.py").write_text(f"{marks}def test_that(): ...\n", "utf-8")
    assert tool.main(arguments, project) == 1
    place = "tests/kernel/test_that.py::test_that"
    assert capsys.readouterr().err.splitlines()[:4] == [
        f"{place} names 'M3', which is no rule of tests/kernel/rules.toml",
        f"{place} names '<M1>', which is no rule of tests/kernel/rules.toml",
        f"{place} names '1', which is no scenario of tests/kernel/rules.toml",
        f"{place} names 2, which is no scenario of tests/kernel/rules.toml",
    ]
