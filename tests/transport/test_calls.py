"""Each public call of the HTTP layer, made on transports that note what comes: the table of what is seen there."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import trio

from tests.transport.calls import CALLS, Call
from tinker_actors.errors import APIResponseValidationError, APITimeoutError, InputError, RateLimitError
from tinker_actors.transport.client import AsyncTinker
from tinker_actors.transport.config import Config
from tinker_actors.wire.endpoint import Endpoint, Lane
from tinker_actors.wire.endpoints import ENDPOINTS

# What each call is called; its method; the lane it travels on; the seconds after which it is given up; how often it is
# sent again when it is refused each time; the version of the official client that first had it, and the one that
# first had it no longer; and its target below /api/v1, without its query.
TABLE = """
service.health_check            GET    session   60 10 0.4.1    -        healthz
service.client_config           POST   session   10  2 0.18.0   -        client/config
service.client_dynamic_config   POST   session   10  0 0.25.0   -        client/dynamic_config
service.auth_token              POST   session   60 10 0.18.0   -        auth/token
service.get_api_key             GET    session   30 10 0.26.0   -        auth/apikey/me
service.delete_api_key          DELETE session   30 10 0.26.0   -        auth/apikey/me
service.get_server_capabilities GET    session   60 10 0.4.1    -        get_server_capabilities
service.create_session          POST   session   60 10 0.4.1    -        create_session
service.session_heartbeat       POST   session   10  0 0.4.1    -        session_heartbeat
service.finish_session          POST   session   10  2 <=0.30.4 -        sessions/s/finish
service.create_sampling_session POST   session   60 10 0.4.1    -        create_sampling_session
models.create                   POST   train     60 10 0.4.1    -        create_model
models.get_info                 POST   train     60 10 0.4.1    -        get_info
models.unload                   POST   train     10  0 0.4.1    <=0.26.0 unload_model
training.forward                POST   train     60 10 0.4.1    0.25.0   forward
training.forward_backward       POST   train     60 10 0.4.1    -        forward_backward
training.optim_step             POST   train     60 10 0.4.1    -        optim_step
training.create_custom_loss     POST   train     60 10 <=0.36.0 -        create_custom_loss
weights.load                    POST   train     60 10 0.4.1    -        load_weights
weights.save                    POST   train     60 10 0.4.1    -        save_weights
weights.save_for_sampler        POST   train     60 10 0.4.1    -        save_weights_for_sampler
weights.save_external           POST   train     60 10 <=0.30.4 -        save_weights_external
weights.info                    POST   session   60 10 0.5.1    -        weights_info
weights.copy                    POST   session   60 10 0.26.2   -        copy_weights
weights.list                    GET    session   60 10 0.4.1    -        training_runs/r:1/checkpoints
weights.delete                  DELETE session   60 10 0.4.1    -        training_runs/r:1/checkpoints/weights/a
weights.publish                 POST   session   60 10 0.4.1    -        training_runs/r:1/checkpoints/weights/a/publish
weights.unpublish               DELETE session   60 10 0.4.1    -        training_runs/r:1/checkpoints/weights/a/publish
weights.set_ttl                 PUT    session   60 10 <=0.13.0 -        training_runs/r:1/checkpoints/weights/a/ttl
weights.archive_url             GET    session   60 10 0.4.1    <=0.36.0 training_runs/r:1/checkpoints/weights/a/archive
weights.external_urls           GET    session   60 10 <=0.30.4 -        training_runs/r:1/checkpoints/external/a/external_weights_urls
sampling.asample                POST   sample    60  0 0.4.1    -        asample
sampling.join                   POST   session   60 10 <=0.36.0 -        join_sampling_session
futures.retrieve                POST   futures   45  0 0.4.1    -        retrieve_future
futures.retrieve_batch          POST   futures   45  0 0.26.2   -        retrieve_futures
futures.cancel                  POST   futures   30 10 0.26.0   -        cancel_future
telemetry.send                  POST   telemetry  5  0 0.4.1    -        telemetry
runs.list                       GET    session   60 10 0.4.1    -        training_runs
runs.get                        GET    session   60 10 0.4.1    -        training_runs/r:1
checkpoints.list                GET    session   60 10 0.4.1    -        checkpoints
sessions.list                   GET    session   60 10 <=0.6.3  -        sessions
sessions.get                    GET    session   60 10 <=0.6.3  -        sessions/s
sessions.search                 POST   session   60 10 <=0.36.0 -        sessions/search
sessions.assign_project         PUT    session   60 10 <=0.25.0 -        sessions/s/project
sessions.trace_export           GET    session   60 10 0.24.0   -        sessions/s/trace_export
samplers.get                    GET    session   60 10 <=0.6.3  -        samplers/s:1
admin.audit_log                 GET    session   60 10 0.20.0   -        audit
admin.billing_usage             GET    session   60 10 0.23.3   -        billing/usage/events
admin.checkpoint_storage        GET    session   60 10 <=0.36.0 -        billing/usage/checkpoints/current
"""  # noqa: E501 - a row is a line
QUERIES = """
runs.list                limit=5&offset=10&access_scope=accessible&project_id=p
runs.get                 access_scope=accessible
checkpoints.list         limit=5&offset=10
sessions.list            limit=5&offset=10&access_scope=accessible
sessions.get             access_scope=accessible
admin.audit_log          event_type=teams&day=2026-11-20
admin.billing_usage      starting_on=2026-11-20T08%3A00%3A00Z&ending_before=2026-11-21T00%3A00%3A00Z
admin.checkpoint_storage project_id=p
"""
COLUMNS = ("method", "lane", "timeout", "retries", "since", "until", "target")
ROWS = {
    name: dict(zip(COLUMNS, cells, strict=True))
    for name, *cells in map(str.split, TABLE.strip().splitlines())
}
QUERY = dict(map(str.split, QUERIES.strip().splitlines()))


class Recorder:
    """One transport for each lane, all of which answer in the same way and note what came.

    Attributes:
        seen: the lane and the request, in the order in which they came.
        status: of the answer; None is none at all.
    """

    def __init__(self, status: int | None) -> None:
        self.seen: list[tuple[Lane, httpx.Request]] = []
        self.status = status

    def on(self, lane: Lane) -> httpx.AsyncBaseTransport:
        """Return the transport of a lane."""
        return _Recording(self, lane)


class _Recording(httpx.AsyncBaseTransport):
    def __init__(self, recorder: Recorder, lane: Lane) -> None:
        self.recorder = recorder
        self.lane = lane

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.recorder.seen.append((self.lane, request))
        await trio.lowlevel.checkpoint()
        if self.recorder.status is None:
            await trio.sleep_forever()
        return httpx.Response(self.recorder.status or 0, json={})


@contextlib.asynccontextmanager
async def open_client(recorder: Recorder) -> AsyncIterator[AsyncTinker]:
    """Open a client whose lanes end in a recorder."""
    config = Config(base_url="http://script/base")
    lanes = {lane: recorder.on(lane) for lane in Lane}
    async with AsyncTinker.open(config, rng=random.Random(0), through=lanes) as client:
        yield client


async def seen_of(name: str, status: int | None, error: type[Exception]) -> tuple[Recorder, float]:
    """Make one call and return what was seen, and how long it took."""
    recorder = Recorder(status)
    async with open_client(recorder) as client:
        started = trio.current_time()
        with contextlib.suppress(error):
            await CALLS[name](client)
        return recorder, trio.current_time() - started


class Noted(AsyncTinker):
    """Makes no call; notes which endpoint it would have been."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint[Any, Any]] = []

    async def call(self, endpoint: Endpoint[Any, Any], request: object, **_: object) -> Any:
        """Note the endpoint."""
        assert isinstance(request, endpoint.request)
        self.endpoints.append(endpoint)
        await trio.lowlevel.checkpoint()


@pytest.mark.requirement("R22")
def test_resources_are_made_when_they_are_asked_for() -> None:
    """A new client has none; each is made once, for this client, when it is first used."""
    client, other = Noted(), Noted()
    names = {name.partition(".")[0] for name in CALLS}
    assert not names & set(vars(client))
    for name in names:
        assert getattr(client, name) is getattr(client, name)
        assert getattr(client, name) is not getattr(other, name)
    assert len({type(getattr(client, name)) for name in names}) == len(names)


def test_every_call_is_in_the_table() -> None:
    """No call is missing, on either side."""
    assert list(CALLS) == list(ROWS)


@pytest.mark.requirement("R25", "R177")
async def test_every_endpoint_has_its_call() -> None:
    """Each row of the table of endpoints, also those that are gone, has one call, and came and went when it says."""
    noted = Noted()
    for call in CALLS.values():
        await call(noted)
    assert sorted(one.name for one in noted.endpoints) == sorted(one.name for one in ENDPOINTS)
    versions = [(one.since, one.until or "-") for one in noted.endpoints]
    assert versions == [(row["since"], row["until"]) for row in ROWS.values()]


@pytest.mark.lesson("D1", "D2", "D6", "D34")
@pytest.mark.requirement("R25", "R45", "R160", "R177", "R110")
@pytest.mark.parametrize("name", CALLS)
async def test_where_a_call_goes(name: str) -> None:
    """One request, with this method, to this target, on this lane; only what has a body has a content type."""
    recorder, _ = await seen_of(name, 200, APIResponseValidationError)
    ((lane, request),) = recorder.seen
    row = ROWS[name]
    path, _, query = request.url.raw_path.decode().partition("?")
    assert (request.method, lane.value) == (row["method"], row["lane"])
    assert path == f"/base/api/v1/{row['target']}"
    assert query == QUERY.get(name, "")
    assert ("content-type" in request.headers) == bool(request.content)
    assert not (request.method == "GET" and request.content)
    either = "application/x-protobuf, application/json"
    assert request.headers["accept"] == (either if name == "futures.retrieve" else "application/json")


@pytest.mark.lesson("D33", "D51")
@pytest.mark.parametrize("name", CALLS)
async def test_when_a_call_is_given_up(autojump_clock: Any, name: str) -> None:
    """A service that never answers is waited for so long, once for each time the request may be sent."""
    recorder, elapsed = await seen_of(name, None, APITimeoutError)
    pauses = elapsed - len(recorder.seen) * float(ROWS[name]["timeout"])
    assert 0 <= pauses <= 10 * (len(recorder.seen) - 1)


@pytest.mark.lesson("D33", "D49")
@pytest.mark.requirement("R70")
@pytest.mark.parametrize("name", CALLS)
async def test_how_often_a_call_is_sent_again(autojump_clock: Any, name: str) -> None:
    """A service that refuses each time sees so many attempts more: samples and polls are never sent again here."""
    recorder, _ = await seen_of(name, 429, RateLimitError)
    assert len(recorder.seen) - 1 == int(ROWS[name]["retries"])
    assert len({request.content for _, request in recorder.seen}) == 1


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda c: c.weights.delete("", "weights/a"), "training_run_id"),
        (lambda c: c.weights.delete("r:1", "a"), "checkpoint_id"),
        (lambda c: c.weights.publish("r:1?x", "weights/a"), "training_run_id"),
        (lambda c: c.sessions.get("a/b"), "session_id"),
        (lambda c: c.samplers.get("a\n"), "sampler_id"),
        (
            lambda c: c.admin.billing_usage(
                starting_on=datetime(2026, 11, 20),  # noqa: DTZ001 - what is refused
                ending_before=datetime(2026, 11, 21, tzinfo=UTC),
            ),
            "starting_on",
        ),
        (
            lambda c: c.admin.billing_usage(
                starting_on=datetime(2026, 11, 20, tzinfo=UTC),
                ending_before=datetime(2026, 11, 20, 0, 30, tzinfo=UTC),
            ),
            "ending_before",
        ),
    ],
    ids=["empty", "one-segment", "query", "slash", "control", "no-zone", "half-past"],
)
async def test_what_would_be_another_call_is_refused(call: Call, field: str) -> None:
    """An argument that cannot stand in the path or query is named, and nothing is sent."""
    recorder = Recorder(200)
    async with open_client(recorder) as client:
        with pytest.raises(InputError) as caught:
            await call(client)
    assert caught.value.field == field
    assert recorder.seen == []
