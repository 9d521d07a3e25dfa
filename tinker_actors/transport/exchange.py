"""One logical call: build, send one of two ways, retry, map errors, decode.

Theory of operation. A `Job` is one call. Each attempt makes a `WireRequest` of it and sends that. One function builds
the request, whichever way it takes: the *direct* way for the calls that are made by the thousand, the *client* way
for all others, and for those as soon as hooks or an authentication of the user's want to see httpx's objects.

Retries are decided by `protocol.retry` alone, here and nowhere else. Each attempt has one deadline. httpx's
exceptions end here: what leaves is `APIConnectionError` (which knows whether a byte was written), `APITimeoutError`,
`APIStatusError` and below, `APIResponseValidationError`.

Some answers are followed by another send within the same attempt, since the service has certainly done nothing: a
token that is no longer good (401, `invalid_token`), a form of body that it does not take (415), and a 404 that says
that there is no `forward`, which a service that takes protobuf only does not need.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar, cast, get_args, get_origin

import httpx
import trio

from tinker_actors.errors import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    AuthenticationError,
    BillingError,
    CredentialError,
    PermissionDeniedError,
    RateLimitError,
    ResultLost,
)
from tinker_actors.protocol.capability import (
    CapabilityRecord,
    TrainingBody,
    body_refused,
    form_refused,
    learn_flags,
    record_for,
)
from tinker_actors.protocol.credential import says_invalid_token
from tinker_actors.protocol.failure import says_no_route
from tinker_actors.protocol.future import Answer
from tinker_actors.protocol.retry import Again, Applied, BillingPause, Rule, Sends, Verdict, failure_of
from tinker_actors.transport.authority import Authority, KeyOnly
from tinker_actors.transport.body import Body, compressed, make_body
from tinker_actors.transport.build import AnyEndpoint, Builder, Job
from tinker_actors.transport.config import Config
from tinker_actors.transport.headers import idempotency_key, secrets_in
from tinker_actors.transport.options import DEFAULT_OPTIONS, RequestOptions, given, is_given, said
from tinker_actors.transport.parsing import parse
from tinker_actors.transport.reply import Reply, as_answer, body_of, log_deprecation, status_error
from tinker_actors.transport.request import WireRequest
from tinker_actors.transport.response import APIResponse
from tinker_actors.transport.stream import Stream
from tinker_actors.transport.ways import BROKEN, Lanes, Ways, same_service, translated
from tinker_actors.wire import protobuf
from tinker_actors.wire.endpoint import Endpoint, Lane
from tinker_actors.wire.endpoints import FORWARD, FORWARD_BACKWARD, RETRIEVE_FUTURE
from tinker_actors.wire.future import RetrieveFutureRequest
from tinker_actors.wire.payload import JSON, PROTOBUF
from tinker_actors.wire.service import ClientConfigResponse, Empty

__all__ = ["HttpTransport"]

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")

EITHER: Final = f"{PROTOBUF}, {JSON}"
_LOG = logging.getLogger("tinker_actors.transport")
_LONGEST_REFUSAL = 65_536  # bytes; an answer 200 that is longer is a result, and says nothing about us
_DOWNLOAD: Endpoint[Empty, bytes] = Endpoint(
    "download", "GET", "", Empty, bytes, Lane.SESSION, redirects="anywhere"
)
# What is called by the thousand, and has no use for redirects and httpx's objects.
_HOT = frozenset(
    {"asample", "retrieve_future", "retrieve_futures", "forward", "forward_backward", "optim_step"}
)


class HttpTransport:
    """Calls endpoints of one service. Made by `open_transport`.

    Attributes:
        config: how the service is reached.
        capability: what the service can do, as far as it is known.
        billing: how long 402 is waited out.
        interruptions: how often the service did not answer, or with 5xx: each may have been the end of it, and its new
            begin.
    """

    def __init__(
        self,
        config: Config,
        lanes: Lanes,
        rng: random.Random,
        utc_now: Callable[[], datetime],
        authority: Authority | None = None,
    ) -> None:
        self.config = config
        self.capability = record_for(
            config.base_url,
            capability=config.capability,
            dedupe=config.dedupe,
            training_body=config.training_body,
            session_timeout=config.session_timeout,
            noise=config.noise,
        )
        self.billing = BillingPause()
        self.interruptions = 0
        self.lanes = lanes
        self._rng = rng
        self._utc_now = utc_now
        self._authority = authority or KeyOnly(config.api_key)
        self._builder = Builder(config)
        self._told: set[str] = set()
        hooks = config.hooks
        self._prepare_options = None if hooks is None else hooks.prepare_options
        self._prepare_request = None if hooks is None else hooks.prepare_request
        self._may_go_direct = self._prepare_request is None and config.auth is None

    def with_config(self, config: Config) -> HttpTransport:
        """Return a transport of another configuration over the same connections."""
        same_place = config.base_url == self.config.base_url
        same_key = (
            same_place and config.api_key == self.config.api_key
        )  # no key is taken along to another place
        authority = self._authority if same_key else None
        other = HttpTransport(config, self.lanes, self._rng, self._utc_now, authority)
        if same_place:
            other.capability, other.billing = self.capability, self.billing
        return other

    def learn(self, flags: ClientConfigResponse) -> None:
        """Take into account what the service says of itself."""
        self.capability = learn_flags(self.capability, flags)
        self.billing.window = flags.billing_exception_max_pause_duration_sec
        self._authority.learn(
            exchange=flags.pjwt_auth_enabled, command=flags.credential_default_source == "credential_cmd"
        )

    @property
    def latest_credentials(self) -> Mapping[str, str]:
        """The headers that said who we are when something was last sent; for the heartbeat, in its own thread."""
        return self._authority.latest

    # ------------------------------------------------------------------------------------------------------ calls

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
            options: what this call says differently. With the view `raw` or `stream` the reply is an `APIResponse`
                (see `respond`), with `cast_to` it is of that type.
            sends: where to note what became of the sends, for a caller that has to know.

        Raises:
            APIConnectionError: no complete answer; `doubtful` tells whether a byte was written.
            APITimeoutError: not in time.
            APIStatusError: an error status.
            APIResponseValidationError: an answer of another shape.
            InputError: something that cannot be sent.
            ResultLost: the service carried an earlier send out and refuses to say what came of it.
        """
        job = self._job(endpoint, request, path, query, said(options))
        return cast("ReplyT", await self.run(job, sends))

    async def respond(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> APIResponse[ReplyT]:
        """Call an endpoint and return its whole answer; arguments and errors as `call`. Always a checkpoint."""
        raw = RequestOptions(view="raw").over(said(options))
        job = self._job(endpoint, request, path, query, raw)
        return cast("APIResponse[ReplyT]", await self.run(job))

    @contextlib.asynccontextmanager
    async def open(
        self,
        endpoint: Endpoint[RequestT, ReplyT],
        request: RequestT,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        options: RequestOptions | None = None,
    ) -> AsyncIterator[APIResponse[ReplyT]]:
        """Call an endpoint and give its answer once the head is there; arguments and errors as `call`."""
        live = RequestOptions(view="stream").over(said(options))
        job = self._job(endpoint, request, path, query, live)
        response = cast("APIResponse[ReplyT]", await self.run(job))
        async with response:
            yield response

    @contextlib.asynccontextmanager
    async def open_url(
        self, url: str, *, options: RequestOptions | None = None
    ) -> AsyncIterator[APIResponse[bytes]]:
        """GET a large body and give its answer once the head is there; our key goes to no other origin.

        Args:
            url: below the base URL, or absolute. Redirects are followed anywhere.
            options: what this call says differently.

        Raises:
            APIError: as `call`.
        """
        # A network may fall silent in the middle. What takes its place does not, and may have a clock of its own.
        limit = self.config.timeout if self.lanes.over_network else None
        own = RequestOptions(view="stream", timeout=limit).over(said(options))
        async with cast(
            "APIResponse[bytes]", await self.run(Job(_DOWNLOAD, Empty(), None, None, own, url=url))
        ) as response:
            yield response

    def chance(self) -> float:
        """Return a number in [0, 1), for the jitter of attempts that are made above this layer."""
        return self._rng.random()

    async def poll(
        self,
        request: RetrieveFutureRequest,
        *,
        request_type: str = "",
        iteration: int = 0,
        accept_protobuf: bool = False,
        timeout: float | None = None,
    ) -> Answer:
        """Ask once for a promise's result; failures are part of the answer. Always a checkpoint.

        Args:
            request: which promise.
            request_type: what was promised, such as `Sample`; empty if that is not known.
            iteration: polls of this promise before this one.
            accept_protobuf: let the service choose between protobuf and JSON.
            timeout: seconds, in place of the endpoint's.
        """
        options = DEFAULT_OPTIONS if timeout is None else RequestOptions(timeout=timeout)
        job = self._job(RETRIEVE_FUTURE, request, None, None, options)
        job.accept = EITHER if accept_protobuf else None
        job.extra = [(b"x-tinker-request-iteration", b"%d" % iteration)]
        if request_type:
            job.extra.append((b"x-tinker-request-type", request_type.encode("ascii")))
        started = trio.current_time()
        try:
            reply = await self._exchange(job, 0)
            # A failure speaks of an error; results, which are many, are not looked through.
            if reply.status != 200 or (len(reply.raw) < _LONGEST_REFUSAL and _may_tell_error(reply)):
                reply = _masked(job, reply)
            payload = reply.payload()
        except (APIConnectionError, APIResponseValidationError) as error:
            return Answer(status=None, elapsed=trio.current_time() - started, error=error)
        except RateLimitError as error:  # of the exchange of the key
            elapsed = trio.current_time() - started
            return Answer(status=429, elapsed=elapsed, retry_after=error.retry_after)
        elapsed = trio.current_time() - started
        if reply.status == 200:
            return Answer(status=200, payload=payload, elapsed=elapsed)
        return Answer(
            status=reply.status,
            payload=payload,
            elapsed=elapsed,
            retry_after=reply.retry_after(self._utc_now()),
            should_retry=reply.should_retry,
        )

    def _job(
        self,
        endpoint: AnyEndpoint,
        request: object,
        path: Mapping[str, str] | None,
        query: Mapping[str, object] | None,
        options: RequestOptions,
    ) -> Job:
        accept = EITHER if endpoint.accepts == "either" else None
        return Job(endpoint, request, path, query, options, self.key(endpoint, options), accept)

    def key(self, endpoint: AnyEndpoint, options: RequestOptions) -> bytes | None:
        """Return the idempotency key of a new call: one for all its attempts; none for GET."""
        if endpoint.method == "GET":
            return None
        key = options.idempotency_key
        if not is_given(key):
            key = idempotency_key(self._rng)
        return None if key is None else key.encode("ascii")

    # ---------------------------------------------------------------------------------------------- the shape of it

    async def run(self, job: Job, sends: Sends | None = None) -> object:
        """Run a job and give its answer in the shape that its options ask for; always a checkpoint.

        Raises:
            APIError: as `call`.
        """
        sends = Sends() if sends is None else sends
        options = job.options
        strict = given(options.strict, self.config.strict)
        kind: Any = given(options.cast_to, job.endpoint.reply)
        wrapper = _wrapper(kind)
        if options.view == "parsed" and wrapper is None:
            return self._value(job, await self._repeat(job, sends), kind, strict=strict)
        streaming = get_origin(kind) is Stream
        job.live = options.view == "stream" or streaming
        if streaming and job.accept is None:
            job.accept = "text/event-stream"
        reply = await self._repeat(job, sends)
        what = job.endpoint.name
        inner = job.endpoint.reply if wrapper is not None and not streaming else kind
        response: APIResponse[Any] = (wrapper or APIResponse)(
            self._response(job, reply), kind=inner, what=what, strict=strict, retries_taken=sends.attempts
        )
        if streaming and options.view == "parsed":
            return Stream(response, get_args(kind)[0], what=what, strict=strict)
        return response

    def _value(self, job: Job, reply: Reply, kind: Any, *, strict: bool) -> object:
        if kind is httpx.Response:
            return self._response(job, reply)
        try:
            return parse(kind, reply.payload(), strict=strict, what=job.endpoint.name)
        except APIResponseValidationError as error:
            error.response = self._response(job, reply)
            error.request = error.response.request
            raise

    def _response(self, job: Job, reply: Reply) -> httpx.Response:
        assert job.sent is not None
        return reply.as_httpx(job.sent.shown())

    # ------------------------------------------------------------------------------------------------- the attempts

    async def _repeat(self, job: Job, sends: Sends) -> Reply:
        """Send until there is an answer, or no further attempt is due."""
        while True:
            try:
                return self._accepted(job, await self._exchange(job, sends.attempts))
            except APIError as error:
                if job.no_token:
                    raise
                verdict = self._failed(job, error, sends)
                error.attempts = sends.attempts
                if isinstance(verdict, Applied):
                    message = (
                        f"{job.endpoint.name}: the service has carried it out and its result is lost: {error}"
                    )
                    raise ResultLost(message) from error
                if not isinstance(verdict, Again):
                    raise
            await trio.sleep(verdict.delay)
            if sends.gate is not None:
                await sends.gate()

    def _failed(self, job: Job, error: APIError, sends: Sends) -> Verdict:
        endpoint = job.endpoint
        retries = self._builder.retries(endpoint, job.options)
        pause = None
        if isinstance(error, BillingError) and retries:
            pause = self.billing_pause(endpoint.name)
        rule = Rule(retries, endpoint.on_doubt, self.capability.dedupe)
        return sends.failed(failure_of(error), rule, pause=pause, chance=self._rng.random())

    def billing_pause(self, what: str) -> float | None:
        """Take a 402 of a call into account, and warn now and then; see `BillingPause.refused`."""
        now = trio.current_time()
        if self.billing.should_warn(now):
            _LOG.warning("%s: the account cannot be charged; the work pauses", what)
        return self.billing.refused(now)

    def _accepted(self, job: Job, reply: Reply) -> Reply:
        """Return an answer that is no error.

        Raises:
            APIStatusError: it is one.
        """
        if 200 <= reply.status < 300:
            return reply
        location = reply.header(b"location")
        assert job.sent is not None
        if job.endpoint.redirects == "answer" and 300 <= reply.status < 400 and location is not None:
            return as_answer(reply, str(job.sent.place.url.join(location)))
        raise status_error(job.endpoint.name, _masked(job, reply), job.sent.shown(), self._utc_now())

    async def _exchange(self, job: Job, attempt: int) -> Reply:
        """Send once, and once more where the service has certainly done nothing. Errors: those of a broken exchange."""
        options = job.options
        if self._prepare_options is not None:
            options = await self._prepare_options(options)
        ready = self._authority.ready
        credentials = await self._credentials_for(job) if ready is None else ready
        reply = await self._send(job, options, credentials, attempt)
        if reply.status == 401 and says_invalid_token(reply.header(b"www-authenticate")):
            if await self._authority.rejected(credentials):
                reply = await self._send(job, options, await self._credentials_for(job), attempt)
        elif reply.status == 415 and (learnt := self._form_refused(job)) is not None:
            self.capability = learnt
            reply = await self._send(job, options, credentials, attempt)
        elif reply.status == 404 and job.endpoint is FORWARD and says_no_route(body_of(reply)):
            reply = await self._try_protobuf(job, options, credentials, attempt, reply)
        log_deprecation(job.endpoint.name, reply, self._told)
        self.interruptions += reply.status >= 500
        return reply

    async def _credentials_for(self, job: Job) -> Mapping[str, str]:
        """Return the headers for a call; if there are none, the exchange has been tried as often as it is worth."""
        job.no_token = True
        headers = await self.credentials()
        job.no_token = False
        return headers

    async def credentials(self) -> Mapping[str, str]:
        """Return the headers that say who we are. Errors: of the exchange of a key, if it is exchanged.

        What befalls the exchange of a key is told so that it does not pass for what befell the call, of which not a
        byte was written.
        """
        try:
            return await self._authority.headers()
        except (AuthenticationError, PermissionDeniedError, BillingError, RateLimitError):
            raise
        except APIError as error:
            if isinstance(error, APIConnectionError) or failure_of(error).doubtful:
                raise APIConnectionError(f"no token could be had: {error}", doubtful=False) from error
            raise CredentialError(f"the service gave no token for the key: {error}") from error

    def _form_refused(self, job: Job) -> CapabilityRecord | None:
        """Return what the refusal of a body's form teaches; None if there is no other one to try."""
        if job.body is None or type(job.request) not in protobuf.MESSAGES:
            return None
        sent: TrainingBody = "protobuf" if job.body[1].content_type == PROTOBUF else "json"
        return body_refused(self.capability, sent)

    async def _try_protobuf(
        self, job: Job, options: RequestOptions, credentials: Mapping[str, str], attempt: int, refusal: Reply
    ) -> Reply:
        """Send a loss as protobuf, which is learnt only if the service takes it; else its first refusal stands."""
        learnt = self._form_refused(job)
        if learnt is None or learnt.training_body != "protobuf":
            return refusal
        job.trying = learnt
        try:
            reply = await self._send(job, options, credentials, attempt)
        finally:
            job.trying = None
        if form_refused(reply.status):
            return refusal
        if 200 <= reply.status < 300:
            self.capability = body_refused(self.capability, "json") or self.capability
        return reply

    async def _send(
        self, job: Job, options: RequestOptions, credentials: Mapping[str, str], attempt: int
    ) -> Reply:
        body = await self._body(job, options)
        # Protobuf has one message for both; it goes where gradients go.
        as_gradient = job.endpoint is FORWARD and body.content_type == PROTOBUF
        endpoint = FORWARD_BACKWARD if as_gradient else job.endpoint
        request = job.sent = self._builder.build(
            job, options, body, credentials, attempt=attempt, endpoint=endpoint
        )
        lane = self.lanes[job.endpoint.lane]
        if self._may_go_direct and not job.live and job.endpoint.name in _HOT:
            try:
                reply = await lane.direct(request)
            except BROKEN as error:
                raise self._failure(job, request, error) from error
            if not 300 <= reply.status < 400:
                return reply
        return await self._send_by_client(job, lane, request)

    async def _send_by_client(self, job: Job, lane: Ways, request: WireRequest) -> Reply:
        built = request.as_httpx(lane.connect_timeout)
        if self._prepare_request is not None:
            await self._prepare_request(built)
        try:
            return await self._by_client(job, lane, request, built)
        except BROKEN as error:
            raise self._failure(job, request, error) from error

    def _failure(self, job: Job, request: WireRequest, error: Exception) -> APIConnectionError:
        """Translate what a way has raised that was to bring an answer."""
        self.interruptions += 1
        failure = translated(error, job.endpoint.name, self.config.base_url)
        failure.request = request.shown()
        return failure

    async def _body(self, job: Job, options: RequestOptions) -> Body:
        """Return what the call carries; made once, unless a hook or an answer has changed what it is made of."""
        capability = job.trying or self.capability
        made_of = (options.json, capability)
        if job.body is not None and job.body[0] == made_of:
            return job.body[1]
        body = make_body(job.request, options.json, capability)
        if body.content_type == PROTOBUF and capability.compression:
            body = await compressed(body)
        job.body = (made_of, body)
        return body

    async def _by_client(self, job: Job, lane: Ways, request: WireRequest, built: httpx.Request) -> Reply:
        auth = self.config.auth if request.place.ours else None

        def may_lead(url: httpx.URL) -> bool:
            anywhere = job.endpoint.redirects == "anywhere"
            inside = job.endpoint.redirects == "inside" and same_service(built.url, url)
            return job.options.follow_redirects and (anywhere or inside)

        if not job.live:
            return await lane.by_client(built, request.timeout, may_lead, auth)
        response = await lane.open(built, request.timeout, may_lead, auth)
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        if 200 <= response.status_code < 300:
            return Reply(response.status_code, headers, live=response)
        return await lane.read(response, request.timeout)


def _masked(job: Job, reply: Reply) -> Reply:
    """Return an answer without the secrets that its request carried, should the service repeat them."""
    assert job.sent is not None
    for secret in secrets_in(job.sent.headers):
        reply = reply.without(secret)
    return reply


def _may_tell_error(reply: Reply) -> bool:
    return b"rror" in reply.raw or reply.header(b"content-encoding") is not None


def _wrapper(kind: object) -> type[APIResponse[Any]] | None:
    """Return the class an answer is to be wrapped in, if a type names one."""
    origin = get_origin(kind) or kind
    if origin is Stream:
        return APIResponse
    return origin if isinstance(origin, type) and issubclass(origin, APIResponse) else None
