"""A supervised command is started again, gets the signals that are meant for it, and decides when it is the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
from click.testing import CliRunner

from tinker_actors.cli.supervise import Child, run_supervised, supervise
from tinker_actors.cli.supervision import Again, End, Supervision
from tinker_actors.kernel import Backoff, RestartPolicy
from tinker_actors.observe import FileBegun, FileEnded, TreeSeen, read_events

# --- on virtual time ----------------------------------------------------------------------------------------


@attrs.define(eq=False)
class FakeChild:
    """Runs for a while and ends with a code, or with another one a while after a signal."""

    seconds: float
    code: int
    when_asked: tuple[float, int] | None = None
    signals: list[int] = attrs.field(factory=list)
    _asked: trio.Event = attrs.field(factory=trio.Event)

    async def wait(self) -> int:
        with trio.move_on_after(self.seconds):
            await self._asked.wait()
            assert self.when_asked is not None
            await trio.sleep(self.when_asked[0])
            return self.when_asked[1]
        return self.code

    def send_signal(self, number: int, /) -> None:
        self.signals.append(number)
        if self.when_asked is not None:
            self._asked.set()


@attrs.define(eq=False)
class World:
    """Children that are to come, one after the other, and signals at given times."""

    children: Sequence[FakeChild | OSError]
    signals: Sequence[tuple[float, int]] = ()
    starts: list[tuple[float, int]] = attrs.field(factory=list)
    said: list[str] = attrs.field(factory=list)
    starting: float = 0.0

    async def start(self, attempt: int) -> Child:
        await trio.sleep(self.starting)
        self.starts.append((trio.current_time(), attempt))
        child = self.children[attempt - 1]
        if isinstance(child, OSError):
            raise child
        return child

    async def come(self) -> AsyncIterator[int]:
        for at, number in self.signals:
            await trio.sleep_until(at)
            yield number
        await trio.sleep_forever()

    async def run(self) -> int:
        policy = RestartPolicy(restart="transient", max_restarts=3, period=100.0, backoff=Backoff(base=4.0))
        async with contextlib.aclosing(self.come()) as signals:
            return await run_supervised(
                self.start, Supervision(policy), signals, lambda: 0.0, self.said.append
            )


async def test_it_is_started_again_until_it_ends_well(autojump_clock: trio.abc.Clock) -> None:
    """After delays that double; it is told which attempt it is."""
    world = World([FakeChild(5, 1), FakeChild(5, -9), FakeChild(5, 0)])
    assert await world.run() == 0
    assert world.starts == [(0.0, 1), (9.0, 2), (22.0, 3)]
    assert world.said == [
        "attempt 1 ended with 1 after 5.0 s; started again in 4.0 s",
        "attempt 2 was ended by SIGKILL after 5.0 s; started again in 8.0 s",
    ]


async def test_it_is_given_up_when_it_fails_too_often(autojump_clock: trio.abc.Clock) -> None:
    """With the code of its last run, and a line that says so."""
    world = World([FakeChild(1, 3)] * 3 + [FakeChild(1, -6)])
    assert await world.run() == 134
    assert len(world.starts) == 4
    assert "given up: 3 restarts within 100 s" in world.said[-1]


async def test_signals_are_passed_on_and_it_may_take_its_time(autojump_clock: trio.abc.Clock) -> None:
    """The first lets it end well; further ones are passed on as well, and nothing else is done to it."""
    child = FakeChild(1000, 1, when_asked=(60.0, 0))
    world = World([child], [(5.0, signal.SIGINT), (7.0, signal.SIGINT), (9.0, signal.SIGTERM)])
    assert await world.run() == 0
    assert trio.current_time() == 65.0
    assert child.signals == [signal.SIGINT, signal.SIGINT, signal.SIGTERM]
    assert world.said == []


async def test_a_terminal_that_goes_away_asks_for_the_end(autojump_clock: trio.abc.Clock) -> None:
    """As SIGTERM does: the command need not know of more signals than two."""
    child = FakeChild(1000, 1, when_asked=(1.0, 0))
    assert await World([child], [(5.0, signal.SIGHUP)]).run() == 0
    assert child.signals == [signal.SIGTERM]


async def test_who_was_asked_and_fails_is_not_started_again(autojump_clock: trio.abc.Clock) -> None:
    """Its code is the status."""
    world = World([FakeChild(1000, 1, when_asked=(1.0, -15))], [(5.0, signal.SIGTERM)])
    assert await world.run() == 143
    assert world.said == ["attempt 1 was ended by SIGTERM after 6.0 s; it was asked to end"]


async def test_a_signal_ends_the_wait_for_the_next_start(autojump_clock: trio.abc.Clock) -> None:
    """At once, without another start."""
    world = World([FakeChild(1, 1)], [(2.0, signal.SIGTERM)])
    assert await world.run() == 143
    assert trio.current_time() == 2.0
    assert world.said[-1] == "ended by SIGTERM before attempt 2"


async def test_a_signal_during_a_start_reaches_what_was_started(autojump_clock: trio.abc.Clock) -> None:
    """It is not lost between the two."""
    child = FakeChild(1000, 1, when_asked=(1.0, 0))
    world = World([child], [(2.0, signal.SIGTERM)], starting=5.0)
    assert await world.run() == 0
    assert child.signals == [signal.SIGTERM]


async def test_what_cannot_be_started_is_the_end(autojump_clock: trio.abc.Clock) -> None:
    """Also if it could be started before."""
    world = World([FakeChild(1, 1), FileNotFoundError(2, "No such file or directory")])
    assert await world.run() == 127
    assert world.said[-1] == "attempt 2 cannot be started: No such file or directory"


# --- real processes -----------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "tinker_actors.cli", "supervise", "--backoff", "0.01"]


def supervised(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60, **settings
    )


def test_a_command_that_fails_twice_and_then_succeeds() -> None:
    """Once by a code and once by kill -9; its output comes through, and so does its success."""
    script = 'echo "attempt $TINKER_ACTORS_ATTEMPT"; case $TINKER_ACTORS_ATTEMPT in 1) exit 5;; 2) kill -9 $$;; esac'
    done = supervised("--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["attempt 1", "attempt 2", "attempt 3"]
    lines = done.stderr.splitlines()
    assert [line.partition(" after")[0] for line in lines] == [
        "supervise: attempt 1 ended with 5",
        "supervise: attempt 2 was ended by SIGKILL",
    ]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--max-restarts", "1", "sh", "-c", "x", "--window", "3"], ("sh", "-c", "x", "--window", "3")),
        (["--max-restarts", "1", "--", "sh", "-c", "x"], ("sh", "-c", "x")),
        (["--max-restarts=1", "--", "--max-restarts"], ("--max-restarts",)),
    ],
)
def test_options_before_the_command_are_ours_and_those_behind_it_are_its_own(
    arguments: list[str], command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the two dashes between them, and without."""
    calls = []

    async def fake(command: Sequence[str], supervision: Supervision) -> int:
        calls.append(command)
        await trio.lowlevel.checkpoint()
        assert isinstance(supervision.ended(1, ran_for=1.0, chance=0.0), Again)
        assert isinstance(supervision.ended(1, ran_for=1.0, chance=0.0), End)
        return 9

    monkeypatch.setattr("tinker_actors.cli.supervise._supervise", fake)
    assert CliRunner().invoke(supervise, arguments).exit_code == 9
    assert calls == [command]


@pytest.mark.parametrize(
    "arguments", [[], ["--backoff", "-1", "x"], ["--no-such-option", "x"], ["--no-restart-on", "0", "x"]]
)
def test_wrong_usage_is_told(arguments: list[str]) -> None:
    """As everywhere on the command line: by 2."""
    assert CliRunner().invoke(supervise, arguments).exit_code == 2


def test_a_command_that_is_not_there() -> None:
    """One line and the status that a shell would give."""
    done = supervised("--", "./there-is-no-such-command")
    assert done.returncode == 127
    assert done.stderr == "supervise: attempt 1 cannot be started: No such file or directory\n"


DRAINING = """
import os, signal, sys, time
path, obeys = sys.argv[1], int(sys.argv[2])
count = 0
def asked(number, frame):
    global count
    count += 1
    print(signal.Signals(number).name, flush=True)
signal.signal(signal.SIGINT, asked)
signal.signal(signal.SIGTERM, asked)
print("ready", os.getpid(), os.getpgid(0), flush=True)
while count < obeys:
    signal.pause()
sys.exit(0)
"""


@contextlib.contextmanager
def running(tmp_path: Path, obeys: int) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Run a supervised program that ends well after so many signals; yield it with its id and its group."""
    script = tmp_path / "draining.py"
    script.write_text(DRAINING)
    process = subprocess.Popen(
        [*COMMAND, "--", sys.executable, str(script), str(tmp_path), str(obeys)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    child = None
    try:
        assert process.stdout is not None
        _, child, group = process.stdout.readline().split()
        yield process, int(child), int(group)
    finally:
        process.kill()
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        process.communicate()


def test_a_signal_lets_the_command_end_in_its_own_way(tmp_path: Path) -> None:
    """It is passed on once, to the command alone, and so is the second; then the command's 0 is the status."""
    with running(tmp_path, 2) as (process, child, group):
        assert group == child != process.pid
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the supervisor's group
        assert process.stdout is not None
        assert process.stdout.readline() == "SIGINT\n"
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=20)
    assert rest == "SIGTERM\n"
    assert errors == ""
    assert process.returncode == 0


@pytest.mark.parametrize(("handler", "status"), [("SIG_DFL", 143), ("SIG_IGN", 0)])
def test_a_terminal_that_goes_away_is_a_request_to_end_unless_it_is_ignored(
    handler: str, status: int
) -> None:
    """As under `nohup`, which lets a command survive its terminal."""
    # What is ignored stays so in a new program, and the tests may run under nohup themselves.
    begin = (
        f"import os, signal as s, sys; s.signal(s.SIGHUP, s.{handler}); os.execv(sys.argv[1], sys.argv[1:])"
    )
    inner = "kill -HUP $PPID; sleep 0.2; exit 0"
    done = subprocess.run(
        [sys.executable, "-c", begin, *COMMAND, "--", "sh", "-c", inner],
        check=False,
        timeout=60,
        stderr=subprocess.DEVNULL,
    )
    assert done.returncode == status


PROGRAM = """
import os, signal, sys, trio
import tinker_actors as ta

async def main():
    async with ta.open_service("local", events=sys.argv[1]) as service:
        await trio.sleep(1.5)
        if os.environ["TINKER_ACTORS_ATTEMPT"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


@pytest.mark.slow
def test_the_event_file_of_a_supervised_program_tells_of_each_attempt(tmp_path: Path) -> None:
    """The first was killed in the midst of it, and has left its last picture; the second has come to its end."""
    path = tmp_path / "events.jsonl"
    done = supervised("--", sys.executable, "-c", PROGRAM, str(path))
    assert done.returncode == 0, done.stderr
    events = [recorded.event for recorded in read_events(path)]
    begun = [event for event in events if isinstance(event, FileBegun)]
    assert [one.attempt for one in begun] == [1, 2]
    first = events[: events.index(begun[1])]
    assert not any(isinstance(event, FileEnded) for event in first)
    pictures = [event for event in first if isinstance(event, TreeSeen)]
    assert "service/session" in {actor.path for actor in pictures[0].actors}
    assert isinstance(events[-1], FileEnded)


def test_whoever_kills_the_supervisor_does_not_kill_the_command(tmp_path: Path) -> None:
    """Nothing is done to it; it goes on."""
    with running(tmp_path, 1) as (process, child, _):
        process.kill()
        process.wait(20)
        os.kill(child, 0)
        os.kill(child, signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "SIGTERM\n"
