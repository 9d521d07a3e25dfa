from __future__ import annotations

import json
import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.protocol.event import ActorFailed, LoopBlocked, ModelRestored, QueueChange, Waiting
from tinker_actors.protocol.event_line import (
    KINDS,
    EventsLost,
    FileBegun,
    FileEnded,
    MessagesLost,
    Recorded,
    UnknownEvent,
    decode_line,
    encode_line,
    is_picture,
)
from tinker_actors.protocol.tree_seen import ActorSeen, MailboxSeen, PastSeen, RunningSeen, TreeSeen
from tinker_actors.protocol.wait import WaitSeen

PICTURE = TreeSeen(
    number=7,
    whole=True,
    actors=(
        ActorSeen(
            path="service/a",
            life="restarting",
            restart_at=9.5,
            mailbox="service/a",
            running=(RunningSeen(message="Sample", seq=3, since=1.25, waiting_on=("service/b",)),),
            failure="ValueError('x')",
        ),
    ),
    mailboxes=(
        MailboxSeen(
            path="service/a",
            queued=3,
            past=(
                PastSeen(message="Sample", seq=1, at=2.5, seconds=0.123456),
                PastSeen(message="Sample", seq=2, at=3.5, outcome="expired"),
            ),
        ),
    ),
    gone=("service/c",),
    waits=(WaitSeen("m", "OptimStep", "r", 3.0, "active", "", 1),),
)


@pytest.mark.parametrize(
    "event",
    [
        ModelRestored("old", "new", None, 3, 1),
        ActorFailed("service/a", "ValueError: x", None),
        QueueChange("m", "active", "", "paused_capacity", 0.5),
        Waiting("m", "OptimStep", "r", 61.0, "active", "", 2),
        FileBegun(part=3, pid=7, host="h", version="1.0", attempt=2),
        FileEnded(),
        MessagesLost({"coalesced": 3}),
        PICTURE,
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_is_written_is_read(event: object) -> None:
    """With its time, to the millisecond; one line each."""
    line = encode_line(1764500000.12345, event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_line(line) == decode_line(line[:-1]) == Recorded(1764500000.123, event)


def sample(kind: type) -> Any:
    """Make an event of a kind; its fields are of the types that their annotations name."""
    values = {"str": "x", "int": 3, "float": 2.5, "bool": True}
    fields = {}
    for field in attrs.fields(kind):
        name = getattr(field.type, "__name__", str(field.type)).partition(" ")[0].partition("[")[0]
        fields[field.name] = values.get(name, {} if name == "dict" else ())
    return kind(**fields)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_event_has_its_line(kind: type) -> None:
    """Each kind that a service or a file can tell of is read as what it was."""
    assert not {"t", "kind"} & {field.name for field in attrs.fields(kind)}
    event = sample(kind)
    recorded = decode_line(encode_line(1.0, event))
    assert recorded == Recorded(1.0, event)
    assert recorded.kind == kind.__name__


def test_the_line_is_what_other_programs_would_expect() -> None:
    """A flat JSON object: time, kind, fields by their names; what has its default is left out."""
    assert encode_line(2.0, FileBegun(part=0, pid=7, host="h", version="1")) == (
        b'{"t":2.0,"kind":"FileBegun","part":0,"pid":7,"host":"h","version":"1"}\n'
    )
    assert json.loads(encode_line(2.0, PICTURE))["mailboxes"][0]["past"] == [
        ["Sample", 1, 2.5, 0.123456, "value"],
        ["Sample", 2, 3.5, None, "expired"],
    ]


def test_an_older_program_reads_a_newer_file() -> None:
    """An unknown kind comes with its fields, an unknown field is passed over, another type is not guessed."""
    assert decode_line(b'{"t": 1, "kind": "Later", "x": [1]}') == Recorded(
        1.0, UnknownEvent("Later", {"x": [1]})
    )
    recorded = decode_line(b'{"t": 1, "kind": "Later", "x": [1]}')
    assert recorded is not None
    assert recorded.kind == "Later"
    newer = encode_line(1.0, EventsLost(3, "why")).replace(b'"why"}', b'"why","more":1}')
    assert decode_line(newer) == Recorded(1.0, EventsLost(3, "why"))
    other = b'{"t": 1, "kind": "EventsLost", "count": "many", "why": "x"}'
    assert decode_line(other) == Recorded(1.0, UnknownEvent("EventsLost", {"count": "many", "why": "x"}))
    longer = encode_line(1.0, PICTURE).replace(b'"expired"]', b'"expired","more"]')
    assert decode_line(longer) == Recorded(1.0, PICTURE)


def test_a_newer_program_reads_an_older_file() -> None:
    """What lacks a field that has no default comes as it stands."""
    assert decode_line(b'{"t": 1, "kind": "EventsLost", "count": 3}') == Recorded(
        1.0, UnknownEvent("EventsLost", {"count": 3})
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b'{"t": 1, "kind": "FileEn',
        b"[]",
        b"3",
        b'{"t": 1}',
        b'{"kind": "x"}',
        b"\xff",
        b'{"t": "1", "kind": "x"}',
    ],
)
def test_what_is_no_line_is_none(line: bytes) -> None:
    """Such as what a process leaves that was killed while it wrote."""
    assert decode_line(line) is None


@given(st.integers(0, 10_000))
def test_no_cut_is_taken_for_a_line(at: int) -> None:
    """Wherever a line is cut, nothing is read from what is left of it."""
    line = encode_line(1.0, PICTURE)[:-1]
    assert decode_line(line[: at % len(line)]) is None


def test_nothing_secret_is_written() -> None:
    """Neither what is said to be secret nor what looks like a key, wherever it stands; long texts are cut."""
    event = ActorFailed("service/a", "ValueError: my-token, tml-abcdef, Bearer xyz", 1.0)
    line = encode_line(1.0, event, ["my-token"])
    for secret in (b"my-token", b"tml-abcdef", b"xyz"):
        assert secret not in line
    assert len(encode_line(1.0, LoopBlocked(1.0, "x" * 1_000_000))) < 10_000


def test_what_json_does_not_have_is_written_all_the_same() -> None:
    """Infinite times are read again; halves of characters, large integers and strange values are named."""
    assert decode_line(encode_line(1.0, LoopBlocked(math.inf, ""))) == Recorded(
        1.0, LoopBlocked(math.inf, "")
    )
    odd = attrs.evolve(PICTURE, gone=("a\ud800",), waits=())
    assert decode_line(encode_line(1.0, odd)) == Recorded(1.0, attrs.evolve(odd, gone=("a?",)))

    @attrs.frozen
    class Strange:
        value: Any

    assert json.loads(encode_line(1.0, Strange(object())))["value"] == "<object>"
    assert json.loads(encode_line(1.0, Strange(2**70)))["value"] == "<int>"


def test_pictures_are_known_by_their_looks() -> None:
    """Without reading them, by those who pass over many lines."""
    line = encode_line(1764500000.123, PICTURE)
    assert is_picture(line)
    assert is_picture(line, whole=True)
    part = encode_line(1764500000.123, TreeSeen(number=10**9))
    assert is_picture(part)
    assert not is_picture(part, whole=True)
    assert not is_picture(encode_line(1.0, FileEnded()))
