"""Event files are read while others write them, after a crash, and across the files that they consist of."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tinker_actors.journal.event_file import EventFile, open_event_file
from tinker_actors.journal.rotation import paths, place, rotate
from tinker_actors.observe import (
    ActorSeen,
    FileBegun,
    FileEnded,
    MailboxSeen,
    PastSeen,
    Recorded,
    TreeSeen,
    latest_snapshot,
    read_events,
)
from tinker_actors.observe import lines as observed_lines
from tinker_actors.observe.lines import lines_of
from tinker_actors.protocol.event import ServerBack
from tinker_actors.protocol.event_line import encode_line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventFile]:
    """Give an event file that writes at once, and turns over after three or four events."""
    monkeypatch.setattr(socket, "gethostname", lambda: "host")
    file = EventFile(path, clock=lambda: 1.0, max_bytes=280, files=4)
    file.start(threaded=False)
    yield file
    file.finish()


def back(file: EventFile, *numbers: int) -> None:
    for number in numbers:
        file.write(ServerBack(float(number)))


def numbers(lines: Iterator[bytes]) -> list[int]:
    return [int(line.split(b'"seconds":')[1][:-3]) for line in lines if b"ServerBack" in line]


def after(*actions: Callable[[], object]) -> Callable[[], bool]:
    """Return a pause that does one thing each time, and then ends it."""
    left = iter(actions)

    def pause() -> bool:
        action = next(left, None)
        if action is not None:
            action()
        return action is not None

    return pause


# --- all that is there --------------------------------------------------------------------------------------


def test_a_directory_stands_for_its_file(file: EventFile, path: Path) -> None:
    """A run is named by its directory."""
    back(file, 1)
    assert list(read_events(path.parent)) == list(read_events(str(path)))


def test_what_is_not_there_cannot_be_read(path: Path) -> None:
    """Unless somebody waits for it."""
    with pytest.raises(FileNotFoundError, match="there is no event file at"):
        list(read_events(path))
    with pytest.raises(FileNotFoundError):
        latest_snapshot(path.parent)


def test_files_are_read_in_the_order_in_which_they_were_written(file: EventFile, path: Path) -> None:
    """Those that have made room before the present one."""
    back(file, *range(25))
    assert len(paths(path)) == 4
    found = numbers(lines_of(path, None))
    assert found == list(range(found[0], 25))


def test_other_files_are_left_alone(file: EventFile, path: Path) -> None:
    """What only looks like one of them is none."""
    back(file, 1)
    for name in ("events.x.jsonl", "events.0.jsonl", "events.1.json", "others.1.jsonl", "events.-1.jsonl"):
        path.with_name(name).write_bytes(b'{"t":1.0,"kind":"ServerBack","seconds":9.0}\n')
    assert numbers(lines_of(path, None)) == [1]


def test_what_is_being_written_is_read_when_it_is_whole(path: Path) -> None:
    """A line without its end is not there yet."""
    line = encode_line(1.0, ServerBack(1.0))
    path.write_bytes(line + line[:-1])
    assert numbers(lines_of(path, None)) == [1]
    rest = path.open("ab", buffering=0)
    with rest:
        assert numbers(lines_of(path, after(lambda: rest.write(b"\n")))) == [1, 1]


# --- following ----------------------------------------------------------------------------------------------


def test_who_follows_reads_what_comes(file: EventFile, path: Path) -> None:
    """Each event once, across files that turn over between two looks, also several times."""
    pause = after(
        lambda: back(file, 2),
        lambda: None,
        lambda: back(file, *range(3, 10)),
        lambda: back(file, *range(10, 12)),
        lambda: None,
        lambda: back(file, *range(12, 20)),
        lambda: None,
        lambda: None,
    )
    back(file, 1)
    assert numbers(lines_of(path, pause)) == list(range(1, 20))
    assert len(paths(path)) > 2


def test_who_follows_need_not_wait_for_the_file(path: Path) -> None:
    """It may come later."""
    line = encode_line(1.0, ServerBack(7.0))
    assert numbers(lines_of(path, after(lambda: None, lambda: path.write_bytes(line)))) == [7]
    path.unlink()
    assert numbers(lines_of(path, after())) == []


def test_who_was_left_behind_goes_on_with_what_is_there(file: EventFile, path: Path) -> None:
    """What is gone is missed, and nothing is read twice."""
    back(file, 1)
    found = numbers(lines_of(path, after(lambda: back(file, *range(2, 60)), lambda: None)))
    assert found[0] == 1
    assert found[-1] == 59
    assert found == sorted(set(found))
    assert len(found) < 59


def test_a_file_that_is_away_for_a_moment_is_waited_for(file: EventFile, path: Path) -> None:
    """Between two files there is none."""
    back(file, 1)
    away = path.with_name("away")
    pause = after(
        lambda: path.rename(away),
        lambda: None,
        lambda: away.rename(path),
        lambda: back(file, 2),
        lambda: None,
    )
    assert numbers(lines_of(path, pause)) == [1, 2]


def test_files_that_change_places_while_they_are_opened(
    file: EventFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is missed, and none is read twice."""
    back(file, *range(15))
    listed = observed_lines.paths
    turns = iter([True])

    def turning(path: Path) -> Iterator[Path]:
        for number, found in enumerate(listed(path)):
            yield found
            if number == 0 and next(turns, False):
                back(file, *range(15, 21))

    monkeypatch.setattr(observed_lines, "paths", turning)
    found = numbers(lines_of(path, None))
    assert found == list(range(found[0], 21))


def test_files_that_are_seen_twice_or_not_any_more(
    file: EventFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they change places, one may be found in two of them, and none in a third."""
    back(file, *range(8))
    listed = observed_lines.paths
    monkeypatch.setattr(
        observed_lines, "paths", lambda path: [path.with_name("gone"), *listed(path), *listed(path)]
    )
    assert numbers(lines_of(path, None)) == list(range(8))


async def test_nothing_is_missed_however_quickly_files_turn_over(path: Path) -> None:
    """A reader that follows a thread that writes sees each event once, in order."""
    seen = list[int]()
    polls = iter(range(5000))  # so that it ends, whatever is missed

    def follow() -> None:
        for line in lines_of(
            path, lambda: not threading.Event().wait(0.002) and next(polls, None) is not None
        ):
            seen.extend(numbers(iter([line])))
            if seen[-1:] == [2999]:
                return

    async with open_event_file(path, max_bytes=2000, files=1000) as file, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, follow)
        for number in range(3000):
            file.write(ServerBack(float(number)))
            if number % 100 == 0:
                await trio.sleep(0.001)
    assert seen == list(range(3000))


def test_a_file_that_is_missing_is_done_without(file: EventFile, path: Path) -> None:
    """Somebody has taken it away: the others are read."""
    back(file, *range(15))
    assert len(paths(path)) == 4
    place(path, 1).unlink()
    found = numbers(lines_of(path, None))
    assert found[-1] == 14
    assert any(b - a > 1 for a, b in pairwise(found))


def test_two_processes(tmp_path: Path) -> None:
    """One follows while the other writes, is killed, and writes again."""
    path = tmp_path / "events.jsonl"
    program = (
        "import sys, trio\n"
        "from tinker_actors.journal.event_file import open_event_file\n"
        "from tinker_actors.protocol.event import ServerBack\n"
        "async def main():\n"
        "    async with open_event_file(sys.argv[1]) as file:\n"
        "        file.write(ServerBack(float(sys.argv[2])))\n"
        "        if sys.argv[2] == '1':\n"
        "            await trio.sleep(60)\n"
        "trio.run(main)\n"
    )

    def start(number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program, str(path), str(number)])

    events = read_events(path, follow=True)
    first = start(1)
    try:
        assert isinstance(next(events).event, FileBegun)
        assert next(events).event == ServerBack(1.0)
        first.send_signal(signal.SIGKILL)
        first.wait(20)
        second = start(2)
        assert second.wait(20) == 0
        begun, said, ended = next(events), next(events), next(events)
    finally:
        first.kill()
        first.wait(20)
    assert isinstance(begun.event, FileBegun)
    assert begun.event.pid == second.pid != os.getpid()
    assert (said.event, ended.event) == (ServerBack(2.0), FileEnded())


# --- the last picture ---------------------------------------------------------------------------------------


def picture(number: int, *actors: str, whole: bool = False) -> TreeSeen:
    seen = tuple(ActorSeen(path=path, life="running") for path in actors)
    return TreeSeen(number=number, whole=whole, actors=seen)


def test_the_last_picture_is_put_together(path: Path) -> None:
    """From the last whole one and all that came behind it, with the time of the newest."""
    past = tuple(PastSeen(message="M", seq=seq, at=1.0) for seq in range(3))
    box = MailboxSeen(path="a", past=past[:2])
    lines = [
        picture(1, "gone", whole=True),
        picture(2, "a", whole=True),
        ServerBack(1.0),
        TreeSeen(number=3, mailboxes=(box,)),
        TreeSeen(number=4, mailboxes=(MailboxSeen(path="a", past=past[2:]),), gone=("x",)),
        picture(6, "does not fit"),
    ]
    path.write_bytes(b"".join(encode_line(float(at), one) for at, one in enumerate(lines)))
    whole = picture(4, "a", whole=True)
    assert latest_snapshot(path) == Recorded(
        4.0,
        TreeSeen(number=4, whole=True, actors=whole.actors, mailboxes=(MailboxSeen(path="a", past=past),)),
    )


def test_without_a_whole_picture_there_is_none(path: Path) -> None:
    """Parts alone say too little."""
    path.write_bytes(encode_line(1.0, picture(3, "a")) + encode_line(1.0, ServerBack(1.0)))
    assert latest_snapshot(path) is None


def test_the_last_picture_may_be_in_an_earlier_file(path: Path) -> None:
    """As it is right after a file has made room."""
    path.write_bytes(encode_line(1.0, picture(3, "a", whole=True)))
    rotate(path, 3)
    path.write_bytes(encode_line(2.0, ServerBack(1.0)) + encode_line(3.0, picture(4, "b")))
    actors = (ActorSeen(path="a", life="running"), ActorSeen(path="b", life="running"))
    assert latest_snapshot(path) == Recorded(3.0, TreeSeen(number=4, whole=True, actors=actors))


async def test_following_and_writing_in_one_process(path: Path) -> None:
    """A reader in a thread of its own sees what was written, soon."""
    seen, done = [], threading.Event()

    def follow() -> None:
        for recorded in read_events(path, follow=True):
            seen.append(recorded.event)
            if recorded.event == ServerBack(3.0):
                done.set()
                return

    async with open_event_file(path) as file, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, follow)
        back(file, 1, 2, 3)
        await trio.to_thread.run_sync(done.wait, 20)
    assert seen[1:] == [ServerBack(1.0), ServerBack(2.0), ServerBack(3.0)]
