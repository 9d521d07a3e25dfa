"""The event file: what is written is there, whole, whatever else goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tinker_actors.errors import InputError, JournalError
from tinker_actors.journal import event_pen, rotation
from tinker_actors.journal.event_file import ATTEMPT, FILES, MAX_BYTES, EventFile, open_event_file
from tinker_actors.journal.rotation import paths
from tinker_actors.observe import read_events
from tinker_actors.protocol.event import ActorFailed, ServerBack
from tinker_actors.protocol.event_line import EventsLost, FileBegun, FileEnded
from tinker_actors.protocol.tree_seen import TreeSeen


class Clock:
    """Tells one second more each time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def events(path: Path) -> list[object]:
    """Read what happened, without what is said of the file itself."""
    return [one.event for one in read_events(path) if not isinstance(one.event, FileBegun | FileEnded)]


def raw(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def cut(path: Path, count: int) -> None:
    put(path, raw(path)[:-count])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.mark.parametrize("inline", [True, False])
async def test_what_was_written_is_there_in_order(path: Path, inline: bool) -> None:
    """With the time at which it was given, between the file's beginning and its end; afterwards nothing is taken."""
    async with open_event_file(path, clock=Clock(), inline=inline) as file:
        for number in range(100):
            file.write(ServerBack(float(number)))
    file.write(ServerBack(-1.0))
    recorded = list(read_events(path))
    assert [type(one.event) for one in (recorded[0], recorded[-1])] == [FileBegun, FileEnded]
    assert [one.event for one in recorded[1:-1]] == [ServerBack(float(number)) for number in range(100)]
    times = [one.t for one in recorded]
    assert times == sorted(times)
    assert len(set(times)) == 102
    assert file.lost == 0


async def test_inline_nothing_waits(path: Path) -> None:
    """What was written is there at once, for programs whose time is not real."""
    async with open_event_file(path, inline=True) as file:
        file.write(ServerBack(1.0))
        assert events(path) == [ServerBack(1.0)]
        assert "0 events lost" in repr(file)


async def test_each_process_says_who_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on behind what is there; a supervised one says which attempt it is."""
    async with open_event_file(path, inline=True):
        pass
    monkeypatch.setenv(ATTEMPT, "3")
    async with open_event_file(path, inline=True):
        pass
    begun = [one.event for one in read_events(path) if isinstance(one.event, FileBegun)]
    assert [(one.part, one.pid, one.attempt) for one in begun] == [(0, os.getpid(), 1), (0, os.getpid(), 3)]
    assert len(paths(path)) == 1


async def test_a_line_that_was_cut_costs_nothing_else(path: Path) -> None:
    """What a killed process left of its last line is passed over, and what comes behind it is read."""
    async with open_event_file(path, inline=True) as file:
        file.write(ServerBack(1.0))
    cut(path, 10)
    assert events(path) == [ServerBack(1.0)]
    async with open_event_file(path, inline=True) as file:
        file.write(ServerBack(2.0))
    assert events(path) == [ServerBack(1.0), ServerBack(2.0)]


async def test_what_has_no_known_beginning_makes_room(path: Path) -> None:
    """A file whose first line is cut, or that is somebody else's, is kept, and another one is begun."""
    put(path, b'{"t": 1, "ki')
    async with open_event_file(path, inline=True) as file:
        file.write(ServerBack(1.0))
    assert [one.name for one in paths(path)] == ["events.1.jsonl", "events.jsonl"]
    assert raw(path.with_name("events.1.jsonl")) == b'{"t": 1, "ki'
    assert events(path) == [ServerBack(1.0)]


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Give a disk that hangs at the first event: that it does, and what lets it go on."""
    reached, free = threading.Event(), threading.Event()

    class Hanging(event_pen.FileIO):
        def write(self, data: Any) -> int:
            if b"ServerBack" in bytes(data):
                reached.set()
                free.wait(20)
            return super().write(data)

    monkeypatch.setattr(event_pen, "FileIO", Hanging)
    return reached, free


async def test_nobody_waits_for_the_disk(path: Path, hung: tuple[threading.Event, threading.Event]) -> None:
    """While it hangs, as many wait as may; the others are lost, and their number stands where they are missing."""
    reached, free = hung
    told = EventsLost(6, "they came faster than they were written")

    def wait_until_told() -> None:
        for recorded in read_events(path, follow=True):
            if recorded.event == told:
                return

    async with open_event_file(path, most_queued=3) as file:
        file.write(ServerBack(0.0))
        await trio.to_thread.run_sync(reached.wait, 20)
        for number in range(1, 10):
            file.write(ServerBack(float(number)))
        assert file.lost == 6
        free.set()
        await trio.to_thread.run_sync(wait_until_told)
        file.write(ServerBack(10.0))
    assert [one.seconds for one in events(path) if isinstance(one, ServerBack)] == [0, 1, 2, 3, 10]
    assert isinstance(events(path)[-1], ServerBack)


def test_the_end_is_told_however_many_wait(path: Path, hung: tuple[threading.Event, threading.Event]) -> None:
    """A process that ends while events are lost was not killed, and its last line says so."""
    reached, free = hung
    file = EventFile(path, most_queued=1)
    file.start(threaded=True)
    file.write(ServerBack(0.0))
    assert reached.wait(20)
    for number in range(1, 4):
        file.write(ServerBack(float(number)))
    file.finish()
    free.set()
    assert file.wait(20)
    told = EventsLost(2, "they came faster than they were written")
    assert [one.event for one in read_events(path)][1:] == [
        ServerBack(0.0),
        ServerBack(1.0),
        told,
        FileEnded(),
    ]
    assert file.lost == 2


class Full(event_pen.FileIO):
    """A disk with so many bytes left."""

    room = 10**9

    def write(self, data: Any) -> int:
        taken = bytes(data)[: Full.room]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        Full.room -= len(taken)
        return super().write(taken)


@contextlib.contextmanager
def room(count: int) -> Iterator[None]:
    Full.room = count
    yield
    Full.room = 10**9


@pytest.mark.parametrize("left", [0, 1, 30, 47, 48, 49, 80, 95, 96, 97])
async def test_a_full_disk_costs_events_and_nothing_else(
    path: Path, left: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever in a line the disk is full: what fits is there, and once there is room, how many are missing."""
    monkeypatch.setattr(event_pen, "FileIO", Full)
    async with open_event_file(path, clock=lambda: 1.0, inline=True) as file:
        with caplog.at_level(logging.WARNING), room(left):
            for number in range(5):
                file.write(ServerBack(float(number)))
        assert "No space left" in caplog.text
        assert len(caplog.records) == 1
        file.write(ServerBack(5.0))
    found = events(path)
    (lost,) = [one for one in found if isinstance(one, EventsLost)]
    kept = [one.seconds for one in found if isinstance(one, ServerBack)]
    assert lost.why == "the disk refused them: No space left on device"
    assert lost.count + len(kept) == 6
    assert lost.count == file.lost
    assert kept == [*range(len(kept) - 1), 5]
    assert found[-2] == lost


async def test_a_strange_event_costs_only_itself(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no event is named in the log, counted, and all others are written."""
    async with open_event_file(path) as file:
        file.write("no event")
        file.write(ServerBack(1.0))
    assert events(path) == [ServerBack(1.0)]
    assert file.lost == 1
    assert "an event cannot be written: str" in caplog.text


async def test_secrets_are_masked(path: Path) -> None:
    """Those that were named, also later ones."""
    async with open_event_file(path, inline=True) as file:
        file.hide(["first-one"])
        file.hide(["other-one"])
        file.write(ActorFailed("a", "first-one, other-one", None))
    assert b"-one" not in raw(path)


# --- taking turns -------------------------------------------------------------------------------------------


async def test_a_full_file_makes_room(path: Path) -> None:
    """No file is larger than it may be, no more are kept than may be, and the newest events are there without a gap."""
    async with open_event_file(path, max_bytes=1000, files=4, inline=True) as file:
        for number in range(200):
            file.write(ServerBack(float(number)))
    assert [one.name for one in paths(path)] == [f"events.{n}.jsonl" for n in (3, 2, 1)] + ["events.jsonl"]
    assert all(one.stat().st_size <= 1000 for one in paths(path))
    kept = [one.seconds for one in events(path) if isinstance(one, ServerBack)]
    assert kept == list(range(int(kept[0]), 200))
    assert len(kept) > 30
    parts = [one.event.part for one in read_events(path) if isinstance(one.event, FileBegun)]
    assert parts == list(range(parts[0], parts[0] + 4))


async def test_a_name_may_have_brackets(tmp_path: Path) -> None:
    """It is a name and no pattern: the older files are found, and none takes the place of another."""
    path = tmp_path / "run[1].jsonl"
    async with open_event_file(path, max_bytes=1000, files=4, inline=True) as file:
        for number in range(45):
            file.write(ServerBack(float(number)))
    assert len(paths(path)) > 2
    assert [one.seconds for one in events(path) if isinstance(one, ServerBack)] == list(range(45))


def test_the_page_says_how_large_files_become() -> None:
    """One of them, and all together."""
    page = (Path(__file__).parents[2] / "docs" / "event-file.md").read_text("utf-8")
    assert f"makes room at {MAX_BYTES // 2**20} MiB" in page
    assert f"up to {FILES * MAX_BYTES // 2**20} MiB in all" in page


async def test_a_new_file_wants_a_whole_picture(path: Path) -> None:
    """So that each file can be understood alone; it is asked for once."""
    async with open_event_file(path, max_bytes=1000, inline=True) as file:
        assert file.wants_whole()
        assert not file.wants_whole()
        while len(paths(path)) == 1:
            assert not file.wants_whole()
            file.write(ServerBack(1.0))
        assert file.wants_whole()


async def test_parts_go_on_in_the_next_process(path: Path) -> None:
    """Also if the last one was killed between two files."""
    async with open_event_file(path, max_bytes=1000, inline=True) as file:
        while len(paths(path)) == 1:
            file.write(ServerBack(1.0))
    put(path, None)
    async with open_event_file(path, max_bytes=1000, inline=True):
        pass
    parts = [one.event.part for one in read_events(path) if isinstance(one.event, FileBegun)]
    assert parts == [0, 1]


async def test_a_line_larger_than_a_file_is_written(path: Path) -> None:
    """It gets a file of its own."""
    large = TreeSeen(number=1, gone=("x" * 2000,))
    async with open_event_file(path, max_bytes=1000, inline=True) as file:
        file.write(ServerBack(1.0))
        file.write(large)
        file.write(ServerBack(2.0))
    assert events(path) == [ServerBack(1.0), large, ServerBack(2.0)]


async def test_the_oldest_files_keep_what_happened(path: Path) -> None:
    """Of the pictures in the third and older ones only whole ones stay."""
    async with open_event_file(path, max_bytes=3000, files=5, inline=True) as file:
        for number in range(1, 101):
            file.write(TreeSeen(number=number, whole=number % 10 == 0))
            file.write(ServerBack(float(number)))
    thinned = {
        one.name: [
            json.loads(line).get("whole", False) for line in raw(one).splitlines() if b"TreeSeen" in line
        ]
        for one in paths(path)
    }
    assert list(thinned) == [f"events.{n}.jsonl" for n in (3, 2, 1)] + ["events.jsonl"]
    assert [all(wholes) for wholes in thinned.values()] == [True, True, False, False]
    assert all(thinned.values())
    assert [one.seconds for one in events(path) if isinstance(one, ServerBack)] == list(range(1, 101))


def test_a_file_that_cannot_be_thinned_stays_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing lies beside it, where the disk is full already."""
    content = b'{"t":1.0,"kind":"ServerBack","seconds":1.0}\n' * 3
    put(path, content)

    def full(_: bytes) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rotation, "is_picture", full)
    with pytest.raises(OSError, match="No space left"):
        rotation.thin(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert raw(path) == content


async def test_where_no_new_file_can_be_begun_the_old_one_grows(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost, and the log says why."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(event_pen, "rotate", refuse)
    async with open_event_file(path, max_bytes=1000, inline=True) as file:
        for number in range(100):
            file.write(ServerBack(float(number)))
    assert len(events(path)) == 100
    assert "the old one grows" in caplog.text
    assert len(caplog.records) < 10


async def test_wrong_bounds_and_places_are_refused(path: Path) -> None:
    """Before anything is written, with the name of what is wrong."""
    for name in ("max_bytes", "files", "most_queued"):
        with pytest.raises(InputError, match=name):
            async with open_event_file(path, **{name: 0}):
                pass
    assert paths(path) == []
    with pytest.raises(JournalError, match="No such file") as caught:
        async with open_event_file(path.parent / "no" / "events.jsonl"):
            pass
    assert caught.value.path == str(path.parent / "no" / "events.jsonl")


async def test_leaving_does_not_wait_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that hangs costs the last events, and a line in the log."""
    monkeypatch.setattr(EventFile, "wait", lambda *_: False)
    async with open_event_file(path):
        pass
    assert "does not take the last events in time" in caplog.text


async def test_many_threads_may_write(path: Path) -> None:
    """Each line is whole, and none is missing."""

    def write(file: EventFile, name: int) -> None:
        for number in range(200):
            file.write(EventsLost(number, str(name)))

    async with open_event_file(path) as file, trio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(trio.to_thread.run_sync, write, file, name)
    found = events(path)
    for name in range(4):
        assert [one.count for one in found if attrs.astuple(one)[1] == str(name)] == list(range(200))
