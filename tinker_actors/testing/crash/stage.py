"""Plays one schedule: a programme, its lives and its crashes, on one service and in one directory."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs
import trio

from tinker_actors.testing.clock import run_virtual
from tinker_actors.testing.service.dialect import Dedupe, EarlyNumbers, ServiceDialect
from tinker_actors.testing.service.fault import ServiceFaults
from tinker_actors.testing.service.service import ScriptedService

from .audit import Audit
from .life import Ended, Life
from .point import CrashPoint, Fuse, ServiceFuse
from .state import EndState, end_state

__all__ = ["Played", "Program", "Schedule", "Stage"]

Program: TypeAlias = Callable[[Life], Awaitable[Ended]]
"""One whole life, from opening the service to the end; it finds in `directory` what the lives before it have left."""
Schedule: TypeAlias = tuple[int, ...]
"""For each life but the last one the index of the point at which it ends."""

_LONGEST: Final = 4 * 3600.0  # virtual seconds: a life that takes longer hangs
_EARLY: Final[Mapping[Dedupe, EarlyNumbers]] = {"replay": "park", "reject": "refuse", "none": "run"}


@attrs.frozen
class Played:
    """What came of a schedule.

    Attributes:
        points: of the last life, in order.
        choices: at which of them it could have ended.
        distinct: the same without those at which it would have left the same behind as at an earlier one.
        crashes: where the lives before it ended, or the service died.
        end: how it ended; None if the last life raised or did not end.
        error: what it raised.
        found: what did not hold on the way.
        said: what was written to stderr: how each life has begun.
    """

    points: tuple[CrashPoint, ...]
    choices: tuple[int, ...]
    distinct: tuple[int, ...]
    crashes: tuple[CrashPoint, ...]
    end: EndState | None = None
    error: BaseException | None = None
    found: tuple[str, ...] = ()
    said: str = ""


@attrs.frozen(kw_only=True)
class Stage:
    """What a programme is played on.

    Attributes:
        dies: the process, or the service alone.
        dedupe: what the service does with a repeated number.
        session: what becomes of the session then.
        rollback: whether the service dies with each process; it comes back with models that are what was saved last.
        downtime: seconds between two lives.
        faults: what goes wrong beside the crashes.
        flags: more of what the service tells its clients.
        seed: for chance and schedule.
    """

    dies: Literal["process", "service"] = "process"
    dedupe: Dedupe = "replay"
    session: Literal["kept", "lost"] = "kept"
    rollback: bool = False
    downtime: float = 1.0
    faults: ServiceFaults = attrs.field(factory=ServiceFaults)
    flags: Mapping[str, object] = attrs.field(factory=dict)
    seed: int = 0

    def play(self, program: Program, schedule: Schedule = ()) -> Played:
        """Let a programme crash at the points of a schedule, and live on after the last."""
        with tempfile.TemporaryDirectory(prefix="crash-", dir=_scratch()) as folder, _quiet() as said:
            played = run_virtual(self._play, program, schedule, Path(folder), seed=self.seed)
        return attrs.evolve(played, said=said.getvalue())

    async def _play(self, program: Program, schedule: Schedule, folder: Path) -> Played:
        dialect = ServiceDialect(dedupe=self.dedupe, early_numbers=_EARLY[self.dedupe])
        service = ScriptedService(self.faults, dialect=dialect, seed=self.seed, flags=self.flags)
        audit = Audit(folder / "run")
        if self.dies == "service":
            fuse = ServiceFuse(schedule)
            fuse.when_blown(lambda: self._strike(service))
            life = Life(1, folder, service, fuse, audit, seed=self.seed)
            return await self._live(program, life, fuse.struck)
        crashes: list[CrashPoint] = []
        for number, at in enumerate((*schedule, None), 1):
            life = Life(number, folder, service, Fuse(at), audit, seed=self.seed)
            played = await self._live(program, life, crashes)
            if not life.fuse.blown or life.fuse.endless:
                return played
            crashes.append(life.fuse.points[-1])
            await trio.sleep(self.downtime)
            self._strike(service)
        raise AssertionError("the last life has no point to end at")

    async def _live(self, program: Program, life: Life, crashes: Sequence[CrashPoint]) -> Played:
        """Let a life go on until it ends."""
        ended, error = await _live(program, life)
        life.audit.rests(life.service.checkpoints)
        end = None
        if ended is not None:
            end = end_state(life.service.trained[ended.model_id], ended.loop_state)
        fuse, found = life.fuse, tuple(life.audit.found)
        points = tuple(fuse.points)
        return Played(points, fuse.choices, fuse.distinct, tuple(crashes), end, error, found)

    def _strike(self, service: ScriptedService) -> None:
        """Do to the service what happens to it when something dies."""
        now = trio.current_time() - service.begin(trio.current_time())
        if self.rollback or self.dies == "service":
            service.restart(now, "rolled_back" if self.rollback else "unloaded")
        for session_id in service.sessions if self.session == "lost" else ():
            service.lose_session(session_id, now)


def _scratch() -> str | None:
    """Return where files are made in memory, if there is such a place: no machine dies here, and disks are slow."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder with a new name is made


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Let our own loggers say nothing, for whoever dies complains about it; give what is written to stderr."""
    logger = logging.getLogger("tinker_actors")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            yield said
    finally:
        logger.setLevel(level)


async def _live(program: Program, life: Life) -> tuple[Ended | None, BaseException | None]:
    """Let a life go on until it ends; return what it came to, or what it raised by itself."""
    with trio.move_on_after(_LONGEST) as limit, trio.CancelScope() as scope:
        if not isinstance(life.fuse, ServiceFuse):
            life.fuse.when_blown(scope.cancel)
        try:
            ended = await program(life)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if life.fuse.blown:  # whatever is raised by who dies
                return None, None  # noqa: ASYNC104 - it is the life's own cancellation
            if isinstance(error, Exception):
                return None, error  # noqa: ASYNC104 - it is none
            raise
        else:
            return (None, None) if life.fuse.blown else (ended, None)
    hangs = limit.cancelled_caught and not life.fuse.blown
    return None, trio.TooSlowError("it hangs") if hangs else None
