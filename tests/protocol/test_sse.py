"""Server-sent events out of bytes, however they were cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import DecodeError
from tinker_actors.protocol.sse import EventParser, ServerSentEvent


def events(*chunks: bytes, limit: int = 1000) -> list[ServerSentEvent]:
    """Feed chunks to a new parser."""
    parser = EventParser(limit=limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def data(*chunks: bytes) -> list[str]:
    """Return the data of the events."""
    return [event.data for event in events(*chunks)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_counts(end: bytes) -> None:
    """LF, CR and CRLF end a line alike."""
    assert data(end.join([b"data: a", b"data: b", b"", b"data: c", b"", b""])) == ["a\nb", "c"]


def test_a_crlf_that_is_cut_is_one_line_end() -> None:
    """An LF behind a CR of the chunk before is no line of its own; the CR completes at once."""
    parser = EventParser()
    assert [event.data for event in parser.feed(b"data: a\r\n\r")] == ["a"]
    assert parser.feed(b"") == []
    assert parser.feed(b"\n") == []
    assert [event.data for event in parser.feed(b"data: b\r\n\r\n")] == ["b"]


def test_fields_have_their_meaning() -> None:
    """Type, id and retry are told; an id lasts; one space behind the colon is dropped."""
    text = b"id: 7\nevent: sample\nretry: 250\ndata:  two\n\ndata:x\n\nid\ndata: y\n\n"
    assert events(text) == [
        ServerSentEvent(event="sample", data=" two", id="7", retry=250),
        ServerSentEvent(data="x", id="7"),
        ServerSentEvent(data="y"),
    ]
    parser = EventParser()
    parser.feed(text)
    assert (parser.retry, parser.last_id) == (250, "")


@pytest.mark.parametrize(
    "text",
    [
        b": a comment\n\n",
        b"event: nothing\n\n",
        b"id: 3\n\n",
        b"data: cut off",
        b"data: cut off\n",
        b"unknown: x\nother\n\n",
        b"",
    ],
)
def test_what_is_no_event_gives_none(text: bytes) -> None:
    """Comments, events without data and what the end cuts off are no events."""
    assert events(text) == []


def test_data_may_be_empty() -> None:
    """A field without a value has an empty one, and two of them a line end between."""
    assert data(b"data\n\ndata:\ndata\n\n") == ["", "\n"]


@pytest.mark.parametrize("line", [b"retry: soon", b"retry: -1", b"retry: 1" + b"0" * 30, b"id: a\0b"])
def test_values_out_of_their_range_are_left_alone(line: bytes) -> None:
    """A retry that is no number, or an id with NUL in it, changes nothing."""
    assert events(b"id: 1\n" + line + b"\ndata: x\n\n") == [ServerSentEvent(data="x", id="1")]


def test_a_byte_order_mark_is_dropped_once() -> None:
    """Before the first line it says nothing; later it belongs to the field's name."""
    assert data(b"\xef\xbb", b"\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n") == ["a"]


def test_bad_utf8_is_replaced() -> None:
    """A byte that is no UTF-8 does not end the stream."""
    assert data(b"data: \xff\n\n") == ["�"]


@pytest.mark.requirement("R164")
def test_nothing_without_an_end_is_collected_for_ever() -> None:
    """A line, or an event, above the limit is an error; what came before it does not count."""
    with pytest.raises(DecodeError, match="longer than 100 bytes"):
        events(*[b"data: xxxxxx"] * 20, limit=100)
    with pytest.raises(DecodeError, match="longer than 100 bytes"):
        events(*[b"data: xxxxxx\n"] * 20, limit=100)
    assert len(events(*[b"data: xxxxxx\n\n"] * 20, limit=20)) == 20
    assert events(*[b": xxxxxx\n"] * 20, limit=20) == []


@pytest.mark.requirement("R164")
@given(
    parts=st.lists(
        st.sampled_from(
            b"data: a|data|data: \xc3\xa9|id: 4|event: e|retry: 9|: c||\n|\r|\r\n|\n\n|\xef\xbb\xbf|\xff|:".split(
                b"|"
            )
        )
    ),
    cuts=st.lists(st.integers(0, 200)),
)
def test_any_split_gives_the_same_events(parts: list[bytes], cuts: list[int]) -> None:
    """Where the network cuts the bytes makes no difference."""
    whole = b"".join(parts)
    edges = [0, *sorted(cut for cut in cuts if cut <= len(whole)), len(whole)]
    chunks = [whole[a:b] for a, b in pairwise(edges)]
    assert events(*chunks) == events(whole) == events(*[bytes([byte]) for byte in whole])


def test_data_may_be_json() -> None:
    """The data's value is read on request, and garbage is told."""
    assert ServerSentEvent(data='{"a": 1}').json() == {"a": 1}
    with pytest.raises(DecodeError, match="not JSON"):
        ServerSentEvent(data="a").json()
