"""docs/channels.md tells what the clients' verbs send and what a service tells.

If the first test fails after a change of a verb, a message or an event, write the page again with
``python tools/write_channel_pages.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.actors.verbs import PUBLISHING, SAMPLING, TRAINING
from tinker_actors.actors import message
from tinker_actors.actors.message import Sampling, Training
from tinker_actors.kernel import Message

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], Any]) -> Any:
    """Load tools/write_channel_pages.py, which is a script."""
    return load_tool("write_channel_pages")


def test_written_page_is_up_to_date(tool: Any) -> None:
    """The page reads as the tool would write it now."""
    pages = tool.pages()
    assert (ROOT / "docs/channels.md").read_text("utf-8") == pages.texts[tool.NAME], (
        f"write it again: {pages.again}"
    )


def test_every_message_of_a_client_is_public_and_sent_by_a_verb(tool: Any) -> None:
    """What is addressed to the roles behind the clients has a public name, and a verb."""
    kinds = [kind for kind in vars(message).values() if isinstance(kind, type) and issubclass(kind, Message)]
    own = [kind for kind in kinds if kind is not Message and not kind.__name__.startswith("_")]
    wanted = {kind for kind in own if tool.parties(kind)[0] in (Training, Sampling)}
    assert set(tool.message_kinds()) == wanted
    assert tool.unsent() == []


def test_the_page_says_what_was_seen_to_be_sent(tool: Any) -> None:
    """Its rows are those by which each verb is tested."""
    rows = {(verb.strip("`"), sent.strip("`")) for verb, sent, *_ in tool.verb_rows()[1:]}
    seen = {
        (f"training.{row.partition(':')[0]}", type(TRAINING[row][1]).__name__)
        for row in TRAINING
        if not row.startswith("submit")
    }
    seen |= {(f"training.{row.partition(':')[0]}", type(PUBLISHING[row][1]).__name__) for row in PUBLISHING}
    seen |= {(f"sampling.{row.partition(':')[0]}", "Sample") for row in SAMPLING}
    assert rows == seen
