"""One logical call: encode, send, decode, and the retries of `protocol.retry`.

Theory of operation. Every lane has its own connections, entered through a limiter of our own: a cancelled
waiter inside httpx's pool can keep a slot for good, one in front of it cannot. The whole exchange, body
included, has one deadline. httpx's exceptions end here: what leaves is `APIConnectionError` (which knows
whether a byte was written), `APITimeoutError`, `APIStatusError` and below, `APIResponseValidationError`.
"""

from __future__ import annotations

import contextlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar, cast

import attrs
import certifi
import httpx
import orjson
import trio

from tinker_actors.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    BillingError,
    DecodeError,
    ResultLost,
    status_error_class,
)
from tinker_actors.protocol.capability import learn_flags, record_for
from tinker_actors.protocol.future import Answer
from tinker_actors.protocol.query import merge, stringify
from tinker_actors.protocol.retry import (
    Again,
    Applied,
    BillingPause,
    Rule,
    Sends,
    Verdict,
    failure_of,
    parse_retry_after,
)
from tinker_actors.transport.config import Config, request_headers
from tinker_actors.transport.options import DEFAULT_OPTIONS, RequestOptions
from tinker_actors.wire.codec import JsonValue, decode, encode
from tinker_actors.wire.endpoint import Endpoint, Lane
from tinker_actors.wire.endpoints import RETRIEVE_FUTURE
from tinker_actors.wire.payload import Payload
from tinker_actors.wire.session import ClientConfigResponse, Empty, RetrieveFutureRequest

__all__ = ["Carrier", "HttpTransport", "open_transport"]

_LOG = logging.getLogger("tinker_actors.transport")

RequestT = TypeVar("RequestT")
Carrier: TypeAlias = httpx.AsyncBaseTransport
"""What carries requests: the network, an application in this process, or a test's script."""
ReplyT = TypeVar("ReplyT")

# One connection is one request under way. Long polls hold theirs, so that lane is as wide as samples in flight.
_CONNECTIONS: Mapping[Lane, int] = {
    Lane.TRAIN: 16,
    Lane.SAMPLE: 64,
    Lane.SESSION: 8,
    Lane.FUTURES: 512,
    Lane.TELEMETRY: 1,
}
_KEEPALIVE_EXPIRY = 30.0  # seconds
# Before a byte of the request is written, these are what httpx raises.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@attrs.define(eq=False)
class _LaneClient:
    """One lane's connections and the limiter in front of them."""

    client: httpx.AsyncClient
    limiter: trio.CapacityLimiter


class HttpTransport:
    """Calls endpoints of one service. Made by `open_transport`.

    Attributes:
        config: how the service is reached.
        capability: what the service can do, as far as it is known.
        billing: how long 402 is waited out.
    """

    def __init__(
        self,
        config: Config,
        lanes: Mapping[Lane, _LaneClient],
        rng: random.Random,
        utc_now: Callable[[], datetime],
    ) -> None:
        self.config = config
        self.capability = record_for(
            config.base_url,
            capability=config.capability,
            dedupe=config.dedupe,
            training_body=config.training_body,
        )
        self.billing = BillingPause()
        self._lanes = lanes
        self._rng = rng
        self._utc_now = utc_now

    def learn(self, flags: ClientConfigResponse) -> None:
        """Take into account what the service says of itself."""
        self.capability = learn_flags(self.capability, flags)
        self.billing.window = flags.billing_exception_max_pause_duration_sec

    async def call(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
        sends: Sends | None = None,
    ) -> ReplyT:
        """Call an endpoint and return its reply; always a checkpoint.

        Args:
            endpoint: which one.
            request: the body; `Empty` sends none.
            path: what fills the `{name}` parts of its path.
            query: what follows the path; lists are written with commas.
            options: what this call says differently.
            sends: where to note what became of the sends, for a caller that has to know.

        Raises:
            APIConnectionError: no complete answer; `doubtful` tells whether a byte was written.
            APITimeoutError: not in time.
            APIStatusError: an error status.
            APIResponseValidationError: an answer of another shape.
            ResultLost: the service carried an earlier send out and refuses to say what came of it.
        """
        body = None if isinstance(request, Empty) else encode(request)
        url = endpoint.target(path)
        if text := stringify(merge(query or {}, (options or DEFAULT_OPTIONS).query)):
            url = f"{url}?{text}"
        sends = Sends() if sends is None else sends
        while True:
            try:
                response = await self._exchange(endpoint, url, body)
            except APIError as error:
                verdict = self._failed(endpoint, error, sends)
                error.attempts = sends.attempts
                if isinstance(verdict, Applied):
                    message = (
                        f"{endpoint.name}: the service has carried it out and its result is lost: {error}"
                    )
                    raise ResultLost(message) from error
                if not isinstance(verdict, Again):
                    raise
            else:
                return _reply(endpoint, response)
            await trio.sleep(verdict.delay)

    def _failed(self, endpoint: Endpoint[RequestT, ReplyT], error: APIError, sends: Sends) -> Verdict:
        now = trio.current_time()
        pause = None
        if isinstance(error, BillingError) and endpoint.retries:
            pause = self.billing.refused(now)
            if self.billing.should_warn(now):
                _LOG.warning("%s: the account cannot be charged; the work pauses", endpoint.name)
        rule = Rule(endpoint.retries, endpoint.on_doubt, self.capability.dedupe)
        return sends.failed(failure_of(error), rule, pause=pause, chance=self._rng.random())

    async def poll(
        self,
        request: RetrieveFutureRequest,
        *,
        request_type: str = "",
        iteration: int = 0,
        accept_protobuf: bool = False,
    ) -> Answer:
        """Ask once for a promise's result; failures are part of the answer. Always a checkpoint.

        Args:
            request: which promise.
            request_type: what was promised, such as `Sample`; empty if that is not known.
            iteration: polls of this promise before this one.
            accept_protobuf: let the service choose between protobuf and JSON.
        """
        headers = {
            "accept": "application/x-protobuf, application/json" if accept_protobuf else "application/json",
            "x-tinker-request-iteration": str(iteration),
        }
        if request_type:
            headers["x-tinker-request-type"] = request_type
        started = trio.current_time()
        try:
            response = await self._send(RETRIEVE_FUTURE, RETRIEVE_FUTURE.path, encode(request), headers)
        except APIConnectionError as error:
            return Answer(status=None, elapsed=trio.current_time() - started, error=error)
        got = response.headers
        flag = got.get("x-should-retry")
        return Answer(
            status=response.status_code,
            payload=Payload(got.get("content-type", ""), response.content),
            elapsed=trio.current_time() - started,
            retry_after=parse_retry_after(got.get("retry-after-ms"), got.get("retry-after"), self._utc_now()),
            should_retry=None if flag is None else flag == "true",
        )

    @contextlib.asynccontextmanager
    async def stream(self, url: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET a large body piece by piece, following redirects.

        Raises:
            APIError: as `call`.
        """
        lane = self._lanes[Lane.SESSION]
        async with lane.limiter:
            with _translated("download", self.config.base_url):
                async with lane.client.stream("GET", url, follow_redirects=True) as response:
                    if response.status_code >= 400:
                        await response.aread()
                        raise _status_error("download", response, self._utc_now())
                    yield response.aiter_bytes()

    async def _exchange(
        self, endpoint: Endpoint[RequestT, ReplyT], url: str, body: bytes | None
    ) -> httpx.Response:
        response = await self._send(endpoint, url, body, {})
        if response.status_code >= 400:
            raise _status_error(endpoint.name, response, self._utc_now())
        return response

    async def _send(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> httpx.Response:
        lane = self._lanes[endpoint.lane]
        all_headers = headers if body is None else {"content-type": "application/json", **headers}
        async with lane.limiter:
            with _translated(endpoint.name, self.config.base_url), trio.fail_after(endpoint.timeout):
                return await lane.client.request(endpoint.method, url, content=body, headers=all_headers)


@contextlib.contextmanager
def _translated(what: str, base_url: str) -> Iterator[None]:
    """Turn what httpx and trio raise about an exchange into our errors."""
    try:
        yield
    except trio.TooSlowError as error:
        message = f"{what}: {base_url} did not answer in time"
        raise APITimeoutError(message, doubtful=True) from error
    except _UNSENT as error:
        message = f"{what}: base_url = {base_url!r}: cannot connect: {str(error) or type(error).__name__}"
        timed_out = isinstance(error, httpx.TimeoutException)
        raise (APITimeoutError if timed_out else APIConnectionError)(message, doubtful=False) from error
    except httpx.TransportError as error:
        message = f"{what}: the exchange with {base_url} broke off: {str(error) or type(error).__name__}"
        timed_out = isinstance(error, httpx.TimeoutException)
        raise (APITimeoutError if timed_out else APIConnectionError)(message, doubtful=True) from error


def _json(response: httpx.Response) -> JsonValue:
    try:
        return cast("JsonValue", orjson.loads(response.content))
    except orjson.JSONDecodeError as error:
        raise APIResponseValidationError("the answer is not JSON", [str(error)]) from error


def _reply(endpoint: Endpoint[RequestT, ReplyT], response: httpx.Response) -> ReplyT:
    if endpoint.reply is Empty:
        return cast("ReplyT", Empty())
    try:
        return decode(endpoint.reply, response.content, strict=False)
    except DecodeError as error:
        raise APIResponseValidationError(f"{endpoint.name}: {error}", error.problems) from error


def _status_error(what: str, response: httpx.Response, now: datetime) -> APIStatusError:
    status, headers = response.status_code, response.headers
    body: JsonValue
    try:
        body = _json(response)
    except APIResponseValidationError:
        body = response.text
    flag = headers.get("x-should-retry")
    return status_error_class(status)(
        f"{what}: error code {status} - {body}",
        status_code=status,
        body=body,
        retry_after=parse_retry_after(headers.get("retry-after-ms"), headers.get("retry-after"), now),
        should_retry=None if flag is None else flag == "true",
        retryable=status in (408, 429) or status >= 500,
    )


class _Borrowed(httpx.AsyncBaseTransport):
    """A transport that several clients share; closing one of them leaves it open."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


def _lane_transport(
    connections: int, through: Carrier | None, ssl_context: ssl.SSLContext
) -> httpx.AsyncBaseTransport:
    if through is not None:
        return _Borrowed(through)
    limits = httpx.Limits(
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=_KEEPALIVE_EXPIRY,
    )
    return httpx.AsyncHTTPTransport(verify=ssl_context, limits=limits)


@contextlib.asynccontextmanager
async def open_transport(
    config: Config,
    *,
    rng: random.Random,
    through: Carrier | None = None,
    utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[HttpTransport]:
    """Open the connections to one service; leaving it closes them all.

    Args:
        config: how the service is reached.
        rng: chance for the jitter of retries.
        through: a transport to use in place of the network; it is not closed.
        utc_now: the wall clock, for dates in `retry-after`.
    """
    async with contextlib.AsyncExitStack() as stack:
        context = ssl.create_default_context(cafile=certifi.where())
        lanes: dict[Lane, _LaneClient] = {}
        for lane, connections in _CONNECTIONS.items():
            transport = _lane_transport(connections, through, context)
            client = httpx.AsyncClient(
                base_url=config.base_url,
                transport=transport,
                headers=request_headers(config),
                timeout=httpx.Timeout(None, connect=config.connect_timeout),
            )
            await stack.enter_async_context(client)
            lanes[lane] = _LaneClient(client, trio.CapacityLimiter(connections))
        yield HttpTransport(config, lanes, rng, utc_now)
