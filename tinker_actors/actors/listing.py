"""Lists of what is kept on the service.

They come a page at a time (`list_*`), item by item over all pages (`training_runs` and its like), or page by page
(`iter_*`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, get_args

from tinker_actors.errors import InputError
from tinker_actors.protocol.pagination import PageInfo
from tinker_actors.transport.paging import AsyncPage, AsyncPaginator, member
from tinker_actors.transport.resources.checkpoints import AsyncCheckpointsResource
from tinker_actors.transport.resources.resource import AccessScope
from tinker_actors.transport.resources.runs import AsyncRunsResource
from tinker_actors.transport.resources.sessions import AsyncSessionsResource
from tinker_actors.transport.view import Caller
from tinker_actors.wire.run import Checkpoint, CheckpointsListResponse, TrainingRun, TrainingRunsResponse
from tinker_actors.wire.session import ListSessionsResponse

__all__ = ["Listings", "check_scope"]

# tinker 0.38.0 lib/public_interfaces/rest_client.py
_RUNS: Final = 20
_CHECKPOINTS: Final = 100
_SESSIONS: Final = 20


def check_scope(access_scope: AccessScope) -> AccessScope:
    """Return a scope that is one.

    Raises:
        InputError: it is none.
    """
    if access_scope not in get_args(AccessScope):
        raise InputError("access_scope", access_scope, f"must be one of {', '.join(get_args(AccessScope))}")
    return access_scope


def _first(page_size: int, limit: int | None) -> PageInfo:
    """Return the first page of all that is wanted."""
    if limit is not None and not _is_count(limit):
        raise InputError("limit", limit, "must be an integer, at least 1, or None for all")
    if not _is_count(page_size):
        raise InputError("page_size", page_size, "must be an integer, at least 1")
    return PageInfo(limit=page_size, wanted=limit)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


class Listings:
    """The lists of a `RestClient`.

    Those that go through items are to be used in `async for`; awaited, they give the first page. The next page is
    asked for at the offset behind what came, until one is short, or all of them have come that the service counts.
    What is deleted meanwhile moves the rest up, past the offset: who deletes what he finds makes a list of it first.
    """

    def __init__(self, caller: Caller) -> None:
        self._runs = AsyncRunsResource(caller)
        self._checkpoints = AsyncCheckpointsResource(caller)
        self._sessions = AsyncSessionsResource(caller)

    # ---------------------------------------------------------------------------------------------- training runs

    async def list_training_runs(
        self,
        limit: int = _RUNS,
        offset: int = 0,
        access_scope: AccessScope = "owned",
        project_id: str | None = None,
    ) -> TrainingRunsResponse:
        """Return a page of training runs, the latest first. Checkpoints.

        Args:
            limit: how many at most.
            offset: how many to leave out.
            access_scope: `owned`, or `accessible` for what others have published too.
            project_id: of this project only.

        Raises:
            InputError: no limit, a negative offset, or another scope.
        """
        page, scope = PageInfo(limit=limit, offset=offset), check_scope(access_scope)
        return await self._runs.list(
            limit=page.limit, offset=page.offset, access_scope=scope, project_id=project_id
        )

    def training_runs(
        self,
        *,
        access_scope: AccessScope = "owned",
        project_id: str | None = None,
        limit: int | None = None,
        page_size: int = _RUNS,
    ) -> AsyncPaginator[TrainingRun]:
        """Go through training runs, the latest first.

        Args:
            access_scope: as of `list_training_runs`.
            project_id: likewise.
            limit: how many in all; None is all there are.
            page_size: how many are asked for at a time.

        Raises:
            InputError: as `list_training_runs`, at once.
        """
        scope = check_scope(access_scope)

        async def fetch(page: PageInfo) -> TrainingRunsResponse:
            return await self._runs.list(
                limit=page.asked, offset=page.offset, access_scope=scope, project_id=project_id
            )

        return AsyncPaginator(fetch, member("training_runs"), _first(page_size, limit))

    def iter_training_runs(
        self,
        *,
        access_scope: AccessScope = "owned",
        project_id: str | None = None,
        limit: int | None = None,
        page_size: int = _RUNS,
    ) -> AsyncIterator[AsyncPage[TrainingRun]]:
        """Go through the pages of training runs; arguments and errors as `training_runs`."""
        runs = self.training_runs(
            access_scope=access_scope, project_id=project_id, limit=limit, page_size=page_size
        )
        return runs.iter_pages()

    # ------------------------------------------------------------------------------------------------ checkpoints

    async def list_user_checkpoints(
        self, limit: int = _CHECKPOINTS, offset: int = 0
    ) -> CheckpointsListResponse:
        """Return a page of one's checkpoints, whatever run they are of, the latest first. Checkpoints.

        Raises:
            InputError: no limit, or a negative offset.
        """
        page = PageInfo(limit=limit, offset=offset)
        return await self._checkpoints.list(limit=page.limit, offset=page.offset)

    def user_checkpoints(
        self, *, limit: int | None = None, page_size: int = _CHECKPOINTS
    ) -> AsyncPaginator[Checkpoint]:
        """Go through one's checkpoints; arguments and errors as `training_runs`."""

        async def fetch(page: PageInfo) -> CheckpointsListResponse:
            return await self._checkpoints.list(limit=page.asked, offset=page.offset)

        return AsyncPaginator(fetch, member("checkpoints"), _first(page_size, limit))

    def iter_user_checkpoints(
        self, *, limit: int | None = None, page_size: int = _CHECKPOINTS
    ) -> AsyncIterator[AsyncPage[Checkpoint]]:
        """Go through the pages of one's checkpoints; arguments and errors as `training_runs`."""
        return self.user_checkpoints(limit=limit, page_size=page_size).iter_pages()

    # --------------------------------------------------------------------------------------------------- sessions

    async def list_sessions(
        self, limit: int = _SESSIONS, offset: int = 0, access_scope: AccessScope = "owned"
    ) -> ListSessionsResponse:
        """Return a page of ids of sessions, the latest first. Checkpoints. As `list_training_runs`."""
        page, scope = PageInfo(limit=limit, offset=offset), check_scope(access_scope)
        return await self._sessions.list(limit=page.limit, offset=page.offset, access_scope=scope)

    def sessions(
        self,
        *,
        access_scope: AccessScope = "owned",
        limit: int | None = None,
        page_size: int = _SESSIONS,
    ) -> AsyncPaginator[str]:
        """Go through ids of sessions; arguments and errors as `training_runs`."""
        scope = check_scope(access_scope)

        async def fetch(page: PageInfo) -> ListSessionsResponse:
            return await self._sessions.list(limit=page.asked, offset=page.offset, access_scope=scope)

        return AsyncPaginator(fetch, member("sessions"), _first(page_size, limit))

    def iter_sessions(
        self,
        *,
        access_scope: AccessScope = "owned",
        limit: int | None = None,
        page_size: int = _SESSIONS,
    ) -> AsyncIterator[AsyncPage[str]]:
        """Go through the pages of ids of sessions; arguments and errors as `training_runs`."""
        return self.sessions(access_scope=access_scope, limit=limit, page_size=page_size).iter_pages()
