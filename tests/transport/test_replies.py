"""What answers of services may lack, and what they may have more of, for every class of them."""

from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies_around import EVERYTHING
from tinker_actors.errors import APIResponseValidationError
from tinker_actors.transport.parsing import parse
from tinker_actors.wire.codec import encode
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.payload import JSON, Payload

REPLIES = sorted(
    {row.reply for row in ENDPOINTS if row.reply in EVERYTHING and attrs.fields(row.reply)},
    key=lambda kind: kind.__name__,
)
few = settings(max_examples=3)
every = pytest.mark.parametrize("kind", REPLIES, ids=lambda kind: kind.__name__)


def read(kind: Any, body: dict[str, Any], *, strict: bool) -> Any:
    """Read a body as an answer of this class."""
    return parse(kind, Payload(JSON, orjson.dumps(body)), strict=strict, what="call")


def refused(kind: Any, body: dict[str, Any], *, strict: bool) -> list[str]:
    """Return what is wrong with a body."""
    with pytest.raises(APIResponseValidationError) as caught:
        read(kind, body, strict=strict)
    return list(caught.value.problems)


@pytest.mark.requirement("R94", "R175")
@every
@few
@given(drawn=st.data())
def test_an_unknown_part_is_ignored_or_told_by_its_path(kind: Any, drawn: st.DataObject) -> None:
    """Whatever the class, and wherever in it: off, the rest is read; on, the place is named."""
    value = drawn.draw(EVERYTHING[kind])
    body = orjson.loads(encode(value, newer=True))
    assert read(kind, {**body, "no_such_part": {"a": 1}}, strict=False) == read(kind, body, strict=False)
    assert "unknown field: no_such_part @ $" in refused(kind, {**body, "no_such_part": 1}, strict=True)


@pytest.mark.requirement("R94", "R175")
@every
@few
@given(drawn=st.data())
def test_an_optional_part_may_be_missing_and_a_required_one_may_not(kind: Any, drawn: st.DataObject) -> None:
    """Strict or not: what is optional has its default then, and what is required is named."""
    body = orjson.loads(encode(drawn.draw(EVERYTHING[kind]), newer=True))
    fields = {field.metadata.get("named", field.name): field for field in attrs.fields(kind)}
    required = {name for name, field in fields.items() if field.default is attrs.NOTHING}
    least = {name: part for name, part in body.items() if name in required}
    for strict in (False, True):
        assert read(kind, least, strict=strict) == read(kind, least, strict=False)
        for name in required:
            lacking = {other: part for other, part in least.items() if other != name}
            assert f"required field missing @ $.{name}" in refused(kind, lacking, strict=strict)
