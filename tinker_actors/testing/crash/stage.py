"""Plays one schedule: a programme, its lives and its crashes, on one service and in one directory."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import attrs
import trio

from tinker_actors.testing.clock import run_virtual
from tinker_actors.testing.service.dialect import Dedupe, EarlyNumbers, ServiceDialect
from tinker_actors.testing.service.fault import ServiceFaults
from tinker_actors.testing.service.service import ScriptedService

from .life import Ended, Life
from .point import CrashPoint, Fuse
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
        lives: the points of each life, in order.
        crashes: where those ended that were ended.
        end: how it ended; None if the last life raised or did not end.
        error: what it raised.
    """

    lives: tuple[tuple[CrashPoint, ...], ...]
    crashes: tuple[CrashPoint, ...]
    end: EndState | None = None
    error: BaseException | None = None


@attrs.frozen(kw_only=True)
class Stage:
    """What a programme is played on.

    Attributes:
        dedupe: what the service does with a repeated number.
        session: what became of the session when the next life begins.
        rollback: whether the service dies with each life, and comes back with models that are what was saved last.
        downtime: seconds between two lives.
        faults: what goes wrong beside the crashes.
        flags: more of what the service tells its clients.
        seed: for chance and schedule.
    """

    dedupe: Dedupe = "replay"
    session: Literal["kept", "lost"] = "kept"
    rollback: bool = False
    downtime: float = 1.0
    faults: ServiceFaults = attrs.field(factory=ServiceFaults)
    flags: Mapping[str, object] = attrs.field(factory=dict)
    seed: int = 0

    def play(self, program: Program, schedule: Schedule = ()) -> Played:
        """Let a programme crash at the points of a schedule, and live on after the last."""
        with tempfile.TemporaryDirectory(prefix="crash-") as folder, _quiet():
            return run_virtual(self._play, program, schedule, Path(folder), seed=self.seed)

    async def _play(self, program: Program, schedule: Schedule, folder: Path) -> Played:
        dialect = ServiceDialect(dedupe=self.dedupe, early_numbers=_EARLY[self.dedupe])
        service = ScriptedService(self.faults, dialect=dialect, seed=self.seed, flags=self.flags)
        lives: list[tuple[CrashPoint, ...]] = []
        crashes: list[CrashPoint] = []
        for number, at in enumerate((*schedule, None), 1):
            fuse = Fuse(at)
            ended, error = await _live(program, Life(number, folder, service, fuse, seed=self.seed))
            lives.append(tuple(fuse.points))
            if not fuse.blown or fuse.endless:
                end = None if ended is None else end_state(service.trained[ended.model_id], ended.loop_state)
                return Played(tuple(lives), tuple(crashes), end, error)
            crashes.append(fuse.points[-1])
            await self._meanwhile(service)
        raise AssertionError("the last life has no point to end at")

    async def _meanwhile(self, service: ScriptedService) -> None:
        """Do what happens between two lives. Checkpoints."""
        await trio.sleep(self.downtime)
        now = trio.current_time() - service.begin(trio.current_time())
        if self.rollback:
            service.restart(now, "rolled_back")
        for session_id in service.sessions if self.session == "lost" else ():
            service.lose_session(session_id, now)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let our own loggers say nothing: whoever dies complains about it."""
    logger = logging.getLogger("tinker_actors")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


async def _live(program: Program, life: Life) -> tuple[Ended | None, BaseException | None]:
    """Let a life go on until it ends; return what it came to, or what it raised by itself."""
    with trio.move_on_after(_LONGEST) as limit, trio.CancelScope() as scope:
        life.fuse.when_blown(scope.cancel)
        try:
            ended = await program(life)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if life.fuse.blown:  # whatever is raised by who dies
                return None, None
            if isinstance(error, Exception):
                return None, error
            raise
        else:
            return (None, None) if life.fuse.blown else (ended, None)
    hangs = limit.cancelled_caught and not life.fuse.blown
    return None, trio.TooSlowError("it hangs") if hangs else None
