"""A caller for clients without a session: the service is asked for its flags before the first call.

The flags say how one has to identify oneself, so they come before anything else; a client of a session has them from
there. They are asked for once, by whoever comes first; the others wait. If that fails, so does the call, and the next
one asks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import trio

from tinker_actors.errors import APIError
from tinker_actors.transport.http import HttpTransport
from tinker_actors.transport.options import RequestOptions
from tinker_actors.version import __version__
from tinker_actors.wire.endpoint import Endpoint
from tinker_actors.wire.endpoints import CLIENT_CONFIG
from tinker_actors.wire.service import ClientConfigRequest, ClientConfigResponse

__all__ = ["FlagsFirst"]

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")

_NO_SUCH_CALL = (404, 405)  # older services, and others


class FlagsFirst:
    """Makes calls once the service's flags are known.

    Args:
        transport: what makes the calls.
        known: the flags are known already.
    """

    def __init__(self, transport: HttpTransport, *, known: bool = False) -> None:
        self._transport = transport
        self._known = known
        self._asking = trio.Lock()

    async def learn(self) -> None:
        """Have the flags. A checkpoint if they are not known yet.

        Raises:
            APIError: the service did not give them.
        """
        if self._known:
            return
        async with self._asking:
            if not self._known:
                self._transport.learn(await self._flags())
                self._known = True

    async def _flags(self) -> ClientConfigResponse:
        try:
            return await self._transport.call(CLIENT_CONFIG, ClientConfigRequest(__version__))
        except APIError as error:
            if getattr(error, "status_code", None) not in _NO_SUCH_CALL:
                raise
            return ClientConfigResponse()

    async def call(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> ReplyT:
        """Call an endpoint; see `HttpTransport.call`."""
        await self.learn()
        return await self._transport.call(endpoint, request, path=path, query=query, options=options)
