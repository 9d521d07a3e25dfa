"""Sessions, looked at from outside."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AccessScope, AsyncAPIResource
from tinker_actors.wire.endpoints import (
    ASSIGN_SESSION_PROJECT,
    EXPORT_SESSION_TRACE,
    GET_SESSION,
    LIST_SESSIONS,
    SEARCH_SESSIONS,
)
from tinker_actors.wire.service import Empty
from tinker_actors.wire.session import (
    AssignSessionProjectRequest,
    GetSessionResponse,
    ListSessionsResponse,
    SessionSearchRequest,
    SessionSearchResponse,
    TraceExportResponse,
)

__all__ = ["AsyncSessionsResource"]


class AsyncSessionsResource(AsyncAPIResource):
    """`client.sessions`."""

    async def list(
        self,
        *,
        limit: int = 20,
        offset: int = 0,
        access_scope: AccessScope = "owned",
        options: RequestOptions | None = None,
    ) -> ListSessionsResponse:
        """List the ids of sessions."""
        return await self._caller.call(
            LIST_SESSIONS,
            Empty(),
            query={"limit": limit, "offset": offset, "access_scope": access_scope},
            options=options,
        )

    async def get(
        self, session_id: str, *, access_scope: AccessScope = "owned", options: RequestOptions | None = None
    ) -> GetSessionResponse:
        """Look at one session: its runs and its samplers."""
        return await self._caller.call(
            GET_SESSION,
            Empty(),
            path={"session_id": session_id},
            query={"access_scope": access_scope},
            options=options,
        )

    async def search(
        self, request: SessionSearchRequest, *, options: RequestOptions | None = None
    ) -> SessionSearchResponse:
        """Search sessions, a page at a time."""
        return await self._caller.call(SEARCH_SESSIONS, request, options=options)

    async def assign_project(
        self, session_id: str, request: AssignSessionProjectRequest, *, options: RequestOptions | None = None
    ) -> Empty:
        """Put a session into a project."""
        return await self._caller.call(
            ASSIGN_SESSION_PROJECT, request, path={"session_id": session_id}, options=options
        )

    async def trace_export(
        self, session_id: str, *, options: RequestOptions | None = None
    ) -> TraceExportResponse:
        """Ask for a session's trace. It is pending until it has been put together."""
        return await self._caller.call(
            EXPORT_SESSION_TRACE, Empty(), path={"session_id": session_id}, options=options
        )
