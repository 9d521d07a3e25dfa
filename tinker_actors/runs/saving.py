"""The checkpoints of a run: put in line between steps, seen on the service, kept as long as the rules say.

Theory of operation. A checkpoint is a `save_state` in the model's line, so it holds exactly the steps before it. It is
*begun* when it is in line, *done* when the service has saved it, and *verified* when the service was seen to have it;
only then does it count (`protocol.retention`). Automatic ones are put in line without waiting, one at a time, and a
task follows each to its end. One that fails is told of and due again after the next step: until one succeeds, the
journal holds what it would have held.

What no rule keeps is given a time to live, or deleted, once a newer one is verified. That is housekeeping: a failure of
it is told of, and harms nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, cast

import attrs
import trio

from tinker_actors.actors.message import SaveState
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.errors import InputError, NotFoundError, TinkerActorsError, TinkerError
from tinker_actors.kernel import Pending
from tinker_actors.kernel.outcome import Outcome
from tinker_actors.protocol.checkpoint_policy import CheckpointPolicy, Unsaved, checkpoint_name, due
from tinker_actors.protocol.failure import says_no_route
from tinker_actors.protocol.retention import Retention, RunCheckpoint, sort_out
from tinker_actors.protocol.run_event import CheckpointSaved
from tinker_actors.protocol.run_journal import RunJournal
from tinker_actors.runs.existence import is_there
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.weights import SaveWeightsResponse

__all__ = ["Collected", "Saving"]

_LOG: Final = logging.getLogger("tinker_actors.runs")
_SAFE: Final = 2  # the newest, and the one to fall back on


@attrs.frozen(kw_only=True)
class Collected:
    """What a collection of checkpoints has done, or would do.

    Attributes:
        kept: why each one is kept that is, by name.
        deleted: those that were deleted, or would be; the oldest first.
        failed: why others that were to be deleted are still there, by name.
    """

    kept: dict[str, str]
    deleted: tuple[RunCheckpoint, ...]
    failed: dict[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen
class _UnderWay:
    """A checkpoint that was put in line by this process."""

    name: str
    step: int
    tokens: int
    outcome: Outcome[RunCheckpoint]


class Saving:
    """Saves the checkpoints of a run and looks after them; see the module.

    Args:
        name: of the run, as it stands in the names of its checkpoints.
        journal: of the run.
        training: its model.
        rest: looks after what is kept on the service.
        policy: when one is saved without being asked for.
        retention: which are kept.
        nursery: for the tasks that follow them.
        tell: is told of what is saved.
    """

    def __init__(
        self,
        name: str,
        journal: RunJournal,
        training: TrainingClient,
        rest: RestClient,
        policy: CheckpointPolicy,
        retention: Retention,
        nursery: trio.Nursery,
        tell: Callable[[CheckpointSaved], object],
    ) -> None:
        self._name = name
        self._journal = journal
        self._training = training
        self._rest = rest
        self._policy = policy
        self._retention = retention
        self._nursery = nursery
        self._tell = tell
        self._since = trio.current_time()
        self._under_way: _UnderWay | None = None
        self._looking = trio.Lock()
        self._without_ttl = False  # the service has no such call

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

    async def between_steps(self) -> None:
        """Put a checkpoint in line if one is due and none is under way. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        if self._coming is not None:
            return
        why = due(self._policy, self.unsaved)
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
        if self.unsaved.steps > 0 or (self._coming is None and self.latest is None):
            return await (await self._begin(metric, pin=pin)).wait()
        if self._coming is not None:
            await self._coming.outcome.wait()
        await self.look_over()
        latest = self.latest
        assert latest is not None, "there is one, or it was waited for"
        self._journal.describe(latest.name, metric=metric, pinned=pin or None)
        return self.find(latest.name)

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
        await self._begin()

    async def make_room(self, wanted: int) -> None:
        """Save checkpoints until the journal has room for so many bytes more, but no more than two.

        Two, because what lies before the older of the two newest is let go. What does not help is told of: the journal
        will refuse what is recorded next.
        """
        for _ in range(_SAFE):
            if not self._journal.room_needed(wanted):
                return
            coming = self._coming
            outcome = await self._begin() if coming is None else coming.outcome
            try:
                await outcome.wait()
                await self._journal.flush()
            except TinkerActorsError as error:
                _LOG.warning("the journal is full, and no checkpoint could make room: %s", error)
                return

    async def _begin(self, metric: float | None = None, *, pin: bool = False) -> Outcome[RunCheckpoint]:
        """Put a checkpoint in line; return the outcome of saving and verifying it."""
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
            self._journal.describe(name, metric=metric, pinned=pin)
            await self.look_over()
        except TinkerActorsError as error:
            _LOG.warning("checkpoint %s of the run was not saved: %s", name, error)
            outcome.fail(error)
        else:
            outcome.settle(self.find(name))

    async def look_over(self) -> None:
        """Verify what is done, and let go of what is outdated. A checkpoint. Failures are told of."""
        await trio.lowlevel.checkpoint()
        async with self._looking:
            for one in list(self._journal.checkpoints):
                if one.state == "done":
                    await self._verify(one)
            await self._tidy()

    async def keep_house(self) -> None:
        """Look over what an earlier process has left. A checkpoint."""
        try:
            await self.look_over()
        except TinkerActorsError as error:
            _LOG.warning("the checkpoints of the run could not be looked over: %s", error)

    async def _verify(self, one: RunCheckpoint) -> None:
        assert one.path is not None, "it is done"
        try:
            seen = await is_there(self._rest, one.path)
        except TinkerError as error:
            _LOG.warning("whether the service has checkpoint %s could not be asked: %s", one.path, error)
            return
        if seen is False:
            _LOG.warning("the service said that it saved checkpoint %s, and does not have it", one.path)
            return
        self._journal.mark(one.name, "verified")
        self._tell(CheckpointSaved(one.name, one.path, one.step))

    # --- what is known -----------------------------------------------------------------------------------

    def find(self, name: object) -> RunCheckpoint:
        """Return the checkpoint of a name.

        Raises:
            InputError: there is none.
        """
        for one in self._journal.checkpoints:
            if one.name == name:
                return one
        raise InputError("name", name, "is no checkpoint of this run; Run.checkpoints tells them")

    def describe(
        self, name: str, *, metric: float | None = None, pinned: bool | None = None
    ) -> RunCheckpoint:
        """Note more about a checkpoint and return it as it is now.

        Raises:
            InputError: there is none of that name.
        """
        self.find(name)
        self._journal.describe(name, metric=metric, pinned=pinned)
        return self.find(name)

    # --- retention ---------------------------------------------------------------------------------------

    async def _tidy(self) -> None:
        """Give what is outdated its time to live, or delete it; take the time to live from what is kept again."""
        result = sort_out(self._retention, self._journal.checkpoints)
        if self._retention.delete:
            for name, why in (await self._delete(result.outdated)).failed.items():
                _LOG.warning("outdated checkpoint %s was not deleted: %s", name, why)
            return
        for one in result.outdated:
            if not one.ttl_seconds and self._retention.ttl_seconds is not None:
                await self._set_ttl(one, self._retention.ttl_seconds)
        for one in self._journal.checkpoints:
            if one.name in result.kept and one.ttl_seconds:
                await self._set_ttl(one, None)

    async def _set_ttl(self, one: RunCheckpoint, ttl_seconds: int | None) -> None:
        if one.path is None or self._without_ttl:
            return
        try:
            await self._rest.set_checkpoint_ttl_from_tinker_path(one.path, ttl_seconds)
        except NotFoundError as error:
            self._without_ttl = says_no_route(cast("JsonValue", error.body))
        except (InputError, TinkerError) as error:
            _LOG.warning("checkpoint %s got no time to live: %s", one.path, error)
        else:
            self._journal.describe(one.name, ttl_seconds=ttl_seconds or 0)

    async def collect(self, *, dry_run: bool) -> Collected:
        """Delete what no rule keeps, or say what would be. A checkpoint."""
        await self.look_over()
        result = sort_out(self._retention, self._journal.checkpoints)
        if dry_run:
            return Collected(kept=result.kept, deleted=result.outdated)
        return attrs.evolve(await self._delete(result.outdated), kept=result.kept)

    async def _delete(self, outdated: Sequence[RunCheckpoint]) -> Collected:
        deleted: list[RunCheckpoint] = []
        failed: dict[str, str] = {}
        for one in outdated:
            try:
                if one.path is not None:
                    await self._rest.delete_checkpoint_from_tinker_path(one.path)
            except (InputError, TinkerError) as error:
                failed[one.name] = f"{type(error).__name__}: {error}"
            else:
                deleted.append(one)
                self._journal.mark(one.name, "gone")
        return Collected(kept={}, deleted=tuple(deleted), failed=failed)
