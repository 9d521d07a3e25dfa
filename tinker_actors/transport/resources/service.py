"""What a service says of itself, and the sessions it keeps."""

from __future__ import annotations

from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.endpoints import (
    AUTH_TOKEN,
    CAPABILITIES,
    CLIENT_CONFIG,
    CLIENT_DYNAMIC_CONFIG,
    CREATE_SAMPLING_SESSION,
    CREATE_SESSION,
    DELETE_API_KEY,
    FINISH_SESSION,
    GET_API_KEY,
    HEALTH,
    SESSION_HEARTBEAT,
)
from tinker_actors.wire.sampling import CreateSamplingSessionRequest, CreateSamplingSessionResponse
from tinker_actors.wire.service import (
    ApiKeyResponse,
    AuthTokenRequest,
    AuthTokenResponse,
    ClientConfigRequest,
    ClientConfigResponse,
    ClientDynamicConfigResponse,
    Empty,
    GetServerCapabilitiesResponse,
    HealthResponse,
)
from tinker_actors.wire.session import (
    CreateSessionRequest,
    CreateSessionResponse,
    FinishSessionRequest,
    SessionHeartbeatRequest,
    SessionHeartbeatResponse,
)

__all__ = ["AsyncServiceResource"]


class AsyncServiceResource(AsyncAPIResource):
    """`client.service`."""

    async def get_server_capabilities(
        self, *, options: RequestOptions | None = None
    ) -> GetServerCapabilitiesResponse:
        """Ask what the service offers."""
        return await self._caller.call(CAPABILITIES, Empty(), options=options)

    async def health_check(self, *, options: RequestOptions | None = None) -> HealthResponse:
        """Ask whether the service answers."""
        return await self._caller.call(HEALTH, Empty(), options=options)

    async def client_config(
        self, request: ClientConfigRequest, *, options: RequestOptions | None = None
    ) -> ClientConfigResponse:
        """Ask for the flags that the service sets for its clients."""
        return await self._caller.call(CLIENT_CONFIG, request, options=options)

    async def client_dynamic_config(
        self, request: ClientConfigRequest, *, options: RequestOptions | None = None
    ) -> ClientDynamicConfigResponse:
        """Ask for the flags that may change while a client lives."""
        return await self._caller.call(CLIENT_DYNAMIC_CONFIG, request, options=options)

    async def auth_token(
        self, request: AuthTokenRequest, *, options: RequestOptions | None = None
    ) -> AuthTokenResponse:
        """Exchange the credential for a token that lives for a while."""
        return await self._caller.call(AUTH_TOKEN, request, options=options)

    async def get_api_key(self, *, options: RequestOptions | None = None) -> ApiKeyResponse:
        """Ask whose the credential is."""
        return await self._caller.call(GET_API_KEY, Empty(), options=options)

    async def delete_api_key(self, *, options: RequestOptions | None = None) -> Empty:
        """Revoke the credential that the request carries."""
        return await self._caller.call(DELETE_API_KEY, Empty(), options=options)

    async def create_session(
        self, request: CreateSessionRequest, *, options: RequestOptions | None = None
    ) -> CreateSessionResponse:
        """Open a session."""
        return await self._caller.call(CREATE_SESSION, request, options=options)

    async def session_heartbeat(
        self, request: SessionHeartbeatRequest, *, options: RequestOptions | None = None
    ) -> SessionHeartbeatResponse:
        """Say that the session is still in use."""
        return await self._caller.call(SESSION_HEARTBEAT, request, options=options)

    async def finish_session(
        self, session_id: str, request: FinishSessionRequest, *, options: RequestOptions | None = None
    ) -> Empty:
        """End a session and say how it ended."""
        return await self._caller.call(
            FINISH_SESSION, request, path={"session_id": session_id}, options=options
        )

    async def create_sampling_session(
        self, request: CreateSamplingSessionRequest, *, options: RequestOptions | None = None
    ) -> CreateSamplingSessionResponse:
        """Open a place to sample from."""
        return await self._caller.call(CREATE_SAMPLING_SESSION, request, options=options)
