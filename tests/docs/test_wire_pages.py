"""The pages of docs/wire tell what the table of endpoints and the deciders say.

If one is out of date after a change of either, write them again with ``python tools/write_wire_pages.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tinker_actors
from tinker_actors.wire.endpoints import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "wire"

RESOURCE = '''\
class AsyncThingResource(AsyncAPIResource):
    async def get(self, *, options=None):
        """Get it."""
        return await self._caller.call(GET_THING, Empty(), options=options)

    async def other(self):
        """Call nothing."""
        return await self._other.call(GET_OTHER, Empty())
'''


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], Any]) -> Any:
    """Load tools/write_wire_pages.py, which is a script."""
    return load_tool("write_wire_pages")


def rows_of(page: str) -> list[list[str]]:
    """Return the rows of all tables of a page, heads included."""
    lines = (PAGES / page).read_text("utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")
    ]
    return [row for row in cells if not row[0].startswith("---")]


@pytest.mark.requirement("R134")
@pytest.mark.parametrize("name", ["endpoints.md", "retries.md"])
def test_written_page_is_up_to_date(tool: Any, name: str) -> None:
    """The page reads as the tool would write it now."""
    pages = tool.pages()
    assert (PAGES / name).read_text("utf-8") == pages.texts[name], f"write it again: {pages.again}"


def test_every_endpoint_is_in_both_pages_once() -> None:
    """A row for each, with a call of its own."""
    for page, head in (("endpoints.md", "method"), ("retries.md", "kind")):
        rows = rows_of(page)
        start = next(n for n, row in enumerate(rows) if row[1] == head)
        calls = [row[0] for row in rows[start + 1 :]]
        assert len(set(calls)) == len(calls) == len(ENDPOINTS)


def test_rows_have_as_many_cells_as_their_heads() -> None:
    """No table of the pages is ragged."""
    for page in ("endpoints.md", "retries.md"):
        widths = [len(row) for row in rows_of(page)]
        assert len(set(widths)) <= 3


@pytest.mark.requirement("R134")
def test_what_a_doubtful_send_means_is_told_by_mode() -> None:
    """The three modes differ for what changes a model, and for nothing else."""
    rows = [row for row in rows_of("retries.md") if re.fullmatch(r"`[a-z]+\.\w+`", row[0])]
    differ = {row[0] for row in rows if len(set(row[4:7])) > 1}
    assert differ == {
        "`training.forward_backward`",
        "`training.optim_step`",
        "`training.create_custom_loss`",
        "`weights.load`",
    }


def test_calls_without_retries_say_who_decides(tool: Any) -> None:
    """Exactly those that the transport never sends again."""
    assert set(tool.ABOVE) == {one.name for one in ENDPOINTS if one.retries == 0}


def target(page: Path, link: str) -> Path:
    """Return where a link leads; the package may be installed elsewhere than beside the pages."""
    place = (page.parent / link).resolve()
    package = ROOT / "tinker_actors"
    if place.is_relative_to(package):
        return Path(tinker_actors.__file__).parent / place.relative_to(package)
    return place


def test_links_of_the_pages_lead_somewhere() -> None:
    """What a page of docs/wire points to in the project is there."""
    for page in PAGES.glob("*.md"):
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        assert [link for link in links if not target(page, link).exists()] == [], page.name


def test_calls_are_read_from_the_resources(tool: Any, tmp_path: Path) -> None:
    """A method that makes a call of the table is found; any other is not."""
    (tmp_path / "thing.py").write_text(RESOURCE, "utf-8")
    assert tool.read_calls(tmp_path) == {"GET_THING": "thing.get"}


def test_pages_are_written_and_then_checked(tool: Any, tmp_path: Path, capsys: Any) -> None:
    """What was written passes the check; what is old or not there is named, and left as it is."""
    assert tool.main([], tmp_path) == 0
    assert tool.main(["--check"], tmp_path) == 0
    assert capsys.readouterr() == ("", "")
    (tmp_path / tool.PAGES / "endpoints.md").write_text("old", "utf-8")
    (tmp_path / tool.PAGES / "retries.md").unlink()
    assert tool.main(["--check"], tmp_path) == 1
    again = "is out of date; write it again with `python tools/write_wire_pages.py`"
    assert capsys.readouterr().err == f"docs/wire/endpoints.md {again}\ndocs/wire/retries.md {again}\n"
    assert (tmp_path / tool.PAGES / "endpoints.md").read_text("utf-8") == "old"
