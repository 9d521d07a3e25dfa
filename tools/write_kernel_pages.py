"""Write the pages of docs/kernel that are made from code and tests.

    python tools/write_kernel_pages.py           # writes them
    python tools/write_kernel_pages.py --check   # writes nothing; ends with 1 and says why if anything is amiss

- `rules.md`: the rules and scenarios of tests/kernel/rules.toml, each with the tests that are marked with it
  (`@pytest.mark.rule("M3")`, `@pytest.mark.scenario(12)`, on a test, a class, one parameter, or as `pytestmark`).
- `lifecycle.md`: the table of tinker_actors/kernel/lifecycle.py, as a diagram and as text.

Amiss is a page that is out of date, a mark that names nothing, and a rule or scenario without a test; what counts
as one is said in mark_reading.py.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mark_reading import Proof, read_proofs
from page_writing import Pages, entry, run, table

ROOT = Path(__file__).parents[1]
RULES = "tests/kernel/rules.toml"
TESTS = ("tests/kernel", "tests/testing")
MARKS = ("rule", "scenario")
LIFECYCLE = "tinker_actors/kernel/lifecycle.py"
PAGES = "docs/kernel"
UP = "../.."
AGAIN = "python tools/write_kernel_pages.py"

MEMBER = re.compile(r'^    ([A-Z_]+) = "[^"]*"(?:  # (.+))?$', re.MULTILINE)


class Rulebook(NamedTuple):
    """What the kernel promises: chapters of rules, by their ids, and scenarios, by their numbers."""

    chapters: Mapping[str, Mapping[str, str]]
    scenarios: Mapping[int, str]

    @property
    def rules(self) -> dict[str, str]:
        """All rules, whatever their chapter."""
        return {name: text for chapter in self.chapters.values() for name, text in chapter.items()}


class Lifecycle(NamedTuple):
    """A table of states; the first one is where a life begins.

    Attributes:
        states: each state, with the remark on it.
        events: what may happen, with the remark on it.
        transitions: state to event to the state after it.
    """

    states: Mapping[str, str]
    events: Mapping[str, str]
    transitions: Mapping[str, Mapping[str, str]]


# --- reading ------------------------------------------------------------------------------------------------


def read_rulebook(path: Path) -> Rulebook:
    """Read rules.toml."""
    data = tomllib.loads(path.read_text("utf-8"))
    return Rulebook(data["rules"], {int(number): text for number, text in data["scenarios"].items()})


def _source_of_lifecycle(root: Path) -> Path:
    """Return the file with the table; where only the tests lie beside this, that of the installed package."""
    beside = root / LIFECYCLE
    found = None if beside.exists() else importlib.util.find_spec("tinker_actors.kernel.lifecycle")
    return beside if found is None or found.origin is None else Path(found.origin)


def read_lifecycle(path: Path) -> Lifecycle:
    """Read the table of a module that needs nothing else of the package; remarks are its comments."""
    spec = importlib.util.spec_from_file_location("kernel_lifecycle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    remarks = dict(MEMBER.findall(path.read_text("utf-8")))
    table = {
        life.name: {event.value: after.name for event, after in events.items()}
        for life, events in module.TRANSITIONS.items()
    }
    return Lifecycle(
        {life.name: remarks[life.name] for life in module.Life},
        {event.value: remarks[event.name] for event in module.Event},
        table,
    )


# --- judging ------------------------------------------------------------------------------------------------


def unknown_marks(rulebook: Rulebook, proofs: Iterable[Proof]) -> list[str]:
    """Return a line for each mark that names no rule or scenario."""
    rules, lines = rulebook.rules, []
    for proof in proofs:
        others = [rule for rule in proof.named["rule"] if rule not in rules]
        lines += [f"{proof.place} names {rule!r}, which is no rule" for rule in others]
        unknown = [number for number in proof.named["scenario"] if number not in rulebook.scenarios]
        lines += [f"{proof.place} names {number!r}, which is no scenario" for number in unknown]
    return [f"{line} of {RULES}" for line in lines]


def unproven(rulebook: Rulebook, proofs: Iterable[Proof]) -> list[str]:
    """Return a line for each rule and scenario that no test is marked with."""
    sure = [proof for proof in proofs if proof.is_sure]
    proven = {rule for proof in sure for rule in proof.named["rule"]}
    played = {number for proof in sure for number in proof.named["scenario"]}
    return [
        *(f"rule {name} has no test: {text}" for name, text in rulebook.rules.items() if name not in proven),
        *(
            f"scenario {number} has no test: {text}"
            for number, text in rulebook.scenarios.items()
            if number not in played
        ),
    ]


# --- writing ------------------------------------------------------------------------------------------------

RULES_HEAD = f"""\
# The rules the kernel keeps

<!-- Written by tools/write_kernel_pages.py from {RULES} and the marks of the tests. Do not edit. -->

What `tinker_actors.kernel` does, one sentence for each rule, and the tests that prove it. Below the rules stand the
scenarios: settings in which actor runtimes go wrong, and what happens here. In both, a message is *settled* when it has
its one outcome and everybody who waited for it has been woken.

A test names what it proves by `@pytest.mark.rule("M3")` or `@pytest.mark.scenario(12)`.
`{AGAIN}` writes this page again, and with `--check` it wants a test for every line.
"""

LIFECYCLE_HEAD = f"""\
# The life of an actor

<!-- Written by tools/write_kernel_pages.py from {LIFECYCLE}. Do not edit. -->

What a reference points to is a *slot*. It keeps its mailbox and its address while one incarnation of the actor after
the other lives and ends. A slot is always in one of these states, and changes it by this table alone; whatever is not
in the table is a defect, and raises. [The rules](rules.md) say what the states mean for messages.
"""


def rules_page(rulebook: Rulebook, proofs: Sequence[Proof]) -> str:
    """Return the page of rules and scenarios with their tests."""
    parts = [RULES_HEAD]
    for chapter, rules in rulebook.chapters.items():
        parts.append(f"## {chapter}\n")
        for name, text in rules.items():
            shown = [proof for proof in proofs if proof.is_sure and name in proof.named["rule"]]
            parts.append(entry(name, text, shown, up=UP))
    parts.append("## Scenarios\n")
    for number, text in rulebook.scenarios.items():
        played = [proof for proof in proofs if proof.is_sure and number in proof.named["scenario"]]
        parts.append(entry(str(number), text, played, up=UP))
    return "\n".join(parts)


def lifecycle_page(lifecycle: Lifecycle) -> str:
    """Return the page of the table of states."""
    final = [state for state in lifecycle.states if not lifecycle.transitions[state]]
    return (
        f"{LIFECYCLE_HEAD}\n```text\n{_remarks(lifecycle.states)}```\n\n"
        f"```mermaid\n{_diagram(lifecycle)}```\n\n"
        f"The same as text: what happens, in the state at the head of a column, leads to the state in the cell.\n"
        f"Nothing leads out of {', '.join(final)}.\n\n{_table(lifecycle)}\n"
        f"What happens, where the word alone does not say it:\n\n"
        f"```text\n{_remarks({event: text for event, text in lifecycle.events.items() if text})}```\n"
    )


def _remarks(named: Mapping[str, str]) -> str:
    width = max(map(len, named), default=0)
    return "".join(f"{name:<{width}}  {remark}".rstrip() + "\n" for name, remark in named.items())


def _diagram(lifecycle: Lifecycle) -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(lifecycle.states))}"]
    for state in lifecycle.states:
        events = lifecycle.transitions[state].items()
        lines += [f"    {state} --> {after}: {event}" for event, after in events]
        lines += [] if events else [f"    {state} --> [*]"]
    return "".join(f"{line}\n" for line in lines)


def _table(lifecycle: Lifecycle) -> str:
    before = [state for state in lifecycle.states if lifecycle.transitions[state]]
    rows = [["", *before]]
    rows += [[e, *(lifecycle.transitions[state].get(e, "") for state in before)] for e in lifecycle.events]
    return table(rows)


def read_kernel_proofs(root: Path) -> list[Proof]:
    """Read every marked test below the folders that prove something."""
    return read_proofs(root, TESTS, MARKS)


def pages_of(root: Path, rulebook: Rulebook, proofs: Sequence[Proof]) -> Pages:
    """Return every page: its name and what it should read."""
    lifecycle = read_lifecycle(_source_of_lifecycle(root))
    texts = {"rules.md": rules_page(rulebook, proofs), "lifecycle.md": lifecycle_page(lifecycle)}
    return Pages(PAGES, AGAIN, texts)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the pages, or check them; returns the exit status."""
    rulebook, proofs = read_rulebook(root / RULES), read_kernel_proofs(root)
    pages = pages_of(root, rulebook, proofs)
    amiss = unknown_marks(rulebook, proofs)
    return run(arguments, pages, root, amiss=amiss, unproven=lambda: unproven(rulebook, proofs))


if __name__ == "__main__":
    sys.exit(main())
