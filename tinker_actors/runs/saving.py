"""The checkpoints of a run: when they are put in line, and what is waited for.

Theory of operation. A checkpoint is a `save_state` in the model's line, so it holds exactly the steps before it. It is
*begun* when it is in line, and *done* when the service has saved it; what comes then is `Keeping`'s. Automatic ones are
put in line without waiting, one at a time, and a task follows each to its end. One that fails is told of and due again
after the next step: until one succeeds, the journal holds what it would have held.
"""

from __future__ import annotations

import logging
from typing import Final

import attrs
import trio

from tinker_actors.actors.message import SaveState
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.errors import TinkerActorsError, TinkerError
from tinker_actors.kernel import Pending
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.protocol.checkpoint_policy import CheckpointPolicy, Unsaved, checkpoint_name, due
from tinker_actors.protocol.retention import SAFE, RunCheckpoint
from tinker_actors.protocol.run_journal import RunJournal
from tinker_actors.runs.keeping import Keeping
from tinker_actors.wire.weights import SaveWeightsResponse

__all__ = ["Saving"]

_LOG: Final = logging.getLogger("tinker_actors.runs")


@attrs.frozen
class _UnderWay:
    """A checkpoint that was put in line by this process."""

    name: str
    step: int
    tokens: int
    outcome: Outcome[RunCheckpoint]


class Saving:
    """Saves the checkpoints of a run; see the module.

    Args:
        name: of the run, as it stands in the names of its checkpoints.
        journal: of the run.
        training: its model.
        keeping: looks after what is saved.
        policy: when one is saved without being asked for.
        nursery: for the tasks that follow them.
    """

    def __init__(
        self,
        name: str,
        journal: RunJournal,
        training: TrainingClient,
        keeping: Keeping,
        policy: CheckpointPolicy,
        nursery: trio.Nursery,
    ) -> None:
        self._name = name
        self._journal = journal
        self._training = training
        self._keeping = keeping
        self._policy = policy
        self._nursery = nursery
        self._since = trio.current_time()
        self._under_way: _UnderWay | None = None
        self._beginning = trio.Lock()  # from the question whether one is due until it is in line

    # --- when --------------------------------------------------------------------------------------------

    @property
    def latest(self) -> RunCheckpoint | None:
        """The newest checkpoint that is saved."""
        saved = (one for one in reversed(self._journal.checkpoints) if one.state in ("done", "verified"))
        return next(saved, None)

    @property
    def unsaved(self) -> Unsaved:
        """What was decided since the newest checkpoint that is saved, or under way."""
        journal, latest, coming = self._journal, self.latest, self._coming
        step, tokens = (0, 0) if latest is None else (latest.step, latest.tokens)
        if coming is not None:
            step, tokens = coming.step, coming.tokens
        return Unsaved(
            steps=journal.steps - step,
            seconds=trio.current_time() - self._since,
            tokens=journal.tokens - tokens,
            filled=journal.bytes_since_checkpoint / journal.max_bytes,
        )

    @property
    def _coming(self) -> _UnderWay | None:
        """The checkpoint that is under way."""
        one = self._under_way
        return None if one is None or one.outcome.settled else one

    async def between_steps(self, expected: int) -> None:
        """Put a checkpoint in line if one is due and none is under way; make room if it is short.

        Always a checkpoint.

        Args:
            expected: bytes that the next step may need in the journal.
        """
        await trio.lowlevel.checkpoint()
        if expected <= self._journal.max_bytes:
            await self.make_room(expected)
        async with self._beginning:
            why = None if self._coming is not None else due(self._policy, self.unsaved)
            if why is not None:
                _LOG.debug("a checkpoint is due: %s since the last one", why)
                await self._begin()

    # --- saving ------------------------------------------------------------------------------------------

    async def save(self, *, metric: float | None = None, pin: bool = False) -> RunCheckpoint:
        """Save what is decided and wait until it is verified, or as much as the service lets one see of it.

        Nothing is saved a second time: if the latest checkpoint holds it all, that one is waited for and returned.

        Raises:
            TinkerActorsError: why it was not saved.
        """
        outcome: Outcome[RunCheckpoint] | None = None
        await self._training.reach()  # a step that is in line will be in it, and its name counts that
        steps = self._journal.steps
        async with self._beginning:
            if self.unsaved.steps > 0 or (self._coming is None and self.latest is None):
                outcome = await self._begin(metric, pin=pin)
        if outcome is not None:
            return await outcome.wait()
        if self._coming is not None:
            await self._coming.outcome.wait()
        await self._keeping.look_over()
        latest = self.latest
        if latest is None or latest.step < steps:  # it has just turned out to be gone
            return await self.save(metric=metric, pin=pin)
        return self._keeping.describe(latest.name, metric=metric, pinned=pin or None)

    def look_over_soon(self) -> None:
        """See in the background what follows from what is new about a checkpoint."""
        self._nursery.start_soon(self._keeping.keep_house)

    async def finish(self) -> None:
        """Save what is decided, if no checkpoint holds it, and wait for those under way. A checkpoint.

        Raises:
            TinkerActorsError: why it was not saved.
        """
        await trio.lowlevel.checkpoint()
        if self.unsaved.steps > 0:
            await self.save()
        elif self._coming is not None:
            await self._coming.outcome.wait()

    async def begin_first(self) -> None:
        """Put the checkpoint in line that holds no step. A checkpoint."""
        async with self._beginning:
            await self._begin()

    async def make_room(self, wanted: int) -> None:
        """Save checkpoints until the journal has room for so many bytes more, but no more than two.

        Two, because what lies before the older of the two newest is let go. What does not help is told of: the journal
        will refuse what is recorded next.
        """
        for _ in range(SAFE):
            if not self._journal.room_needed(wanted):
                return
            async with self._beginning:
                coming = self._coming
                outcome = await self._begin() if coming is None else coming.outcome
            try:
                await outcome.wait()
                await self._journal.flush()
            except TinkerActorsError as error:
                _LOG.warning("the journal is full, and no checkpoint could make room: %s", error)
                return

    async def _begin(self, metric: float | None = None, *, pin: bool = False) -> Outcome[RunCheckpoint]:
        """Put a checkpoint in line; return the outcome of saving and verifying it. One at a time."""
        name = self._free_name(self._journal.steps)
        pending = await self._training.submit(SaveState(name))
        self._since = trio.current_time()
        outcome = Outcome[RunCheckpoint]()
        self._under_way = _UnderWay(name, self._journal.steps, self._journal.tokens, outcome)
        self._nursery.start_soon(self._follow, name, pending, outcome, metric, pin)
        return outcome

    def _free_name(self, step: int) -> str:
        """Return a name that no checkpoint of this run has had."""
        taken = {one.name for one in self._journal.checkpoints}
        if self._under_way is not None:
            taken.add(self._under_way.name)
        name = plain = checkpoint_name(self._name, step)
        again = 1
        while name in taken:
            again += 1
            name = f"{plain}.{again}"
        return name

    async def _follow(
        self,
        name: str,
        pending: Pending[SaveWeightsResponse],
        outcome: Outcome[RunCheckpoint],
        metric: float | None,
        pin: bool,
    ) -> None:
        try:
            await pending
            self._keeping.describe(name, metric=metric, pinned=pin)
            await self._keeping.look_over()
            saved = self._keeping.find(name)
            if saved.state == "gone":
                raise TinkerError(f"the service said that it saved {saved.path}, and does not have it")
        except TinkerActorsError as error:
            _LOG.warning("checkpoint %s of the run was not saved: %s", name, error)
            outcome.fail(error)
        else:
            outcome.settle(saved)
