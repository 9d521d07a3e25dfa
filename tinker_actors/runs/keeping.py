"""What becomes of a run's checkpoints once they are saved: verified, given an end, deleted.

Theory of operation. A checkpoint that is `done` is *verified* when the service was seen to have it; only then does it
count (`protocol.retention`). If the service says, twice, that it does not have it, it is gone: then it counts for
nothing, neither as saved nor as what a restore starts from, and what it was to hold is saved again. What no rule keeps
is given a time to live, or deleted, once newer ones are verified. That is housekeeping: a failure of it is told of in
the log, and harms nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, cast

import attrs
import trio

from tinker_actors.actors.rest import RestClient
from tinker_actors.errors import InputError, NotFoundError, TinkerActorsError, TinkerError
from tinker_actors.protocol.failure import says_no_route
from tinker_actors.protocol.retention import Retention, RunCheckpoint, sort_out
from tinker_actors.protocol.run_event import CheckpointSaved
from tinker_actors.protocol.run_journal import RunJournal
from tinker_actors.runs.existence import is_there
from tinker_actors.wire.codec import JsonValue

__all__ = ["Collected", "Keeping"]

_LOG: Final = logging.getLogger("tinker_actors.runs")
_SECOND_LOOK: Final = 1.0  # seconds by which what a service lists may lag behind what it has just said


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


class Keeping:
    """Looks after the checkpoints of a run; see the module.

    Args:
        journal: of the run.
        rest: looks after what is kept on the service.
        retention: which are kept.
        tell: is told of what was seen on the service.
    """

    def __init__(
        self,
        journal: RunJournal,
        rest: RestClient,
        retention: Retention,
        tell: Callable[[CheckpointSaved], object],
    ) -> None:
        self._journal = journal
        self._rest = rest
        self._retention = retention
        self._tell = tell
        self._looking = trio.Lock()
        self._without_ttl = False  # the service has no such call

    async def look_over(self) -> None:
        """Verify what is done, and let go of what is outdated. A checkpoint. Failures are told of."""
        await trio.lowlevel.checkpoint()
        async with self._looking:
            await self._verify_all()
            await self._tidy()

    async def keep_house(self) -> None:
        """Look over what an earlier process has left. A checkpoint."""
        try:
            await self.look_over()
        except TinkerActorsError as error:
            _LOG.warning("the checkpoints of the run could not be looked over: %s", error)

    async def _verify_all(self) -> None:
        for one in list(self._journal.checkpoints):
            if one.state == "done":
                await self._verify(one)

    async def _verify(self, one: RunCheckpoint) -> None:
        assert one.path is not None, "it is done"
        try:
            seen = await is_there(self._rest, one.path)
            if seen is False:
                await trio.sleep(_SECOND_LOOK)
                seen = await is_there(self._rest, one.path)
        except TinkerError as error:
            _LOG.warning("whether the service has checkpoint %s could not be asked: %s", one.path, error)
            return
        if seen is False:
            _LOG.warning("the service said that it saved checkpoint %s, and does not have it", one.path)
            self._journal.mark(one.name, "gone")
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
            if not self._without_ttl:
                self._journal.mark(one.name, "gone")
        except (InputError, TinkerError) as error:
            _LOG.warning("checkpoint %s got no time to live: %s", one.path, error)
        else:
            self._journal.describe(one.name, ttl_seconds=ttl_seconds or 0)

    async def collect(self, *, dry_run: bool) -> Collected:
        """Delete what no rule keeps, or say what would be. A checkpoint."""
        async with self._looking:
            await self._verify_all()
            result = sort_out(self._retention, self._journal.checkpoints)
            if dry_run:
                return Collected(kept=result.kept, deleted=result.outdated)
            collected = attrs.evolve(await self._delete(result.outdated), kept=result.kept)
            await self._tidy()  # what is kept may have been given an end before
            return collected

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
