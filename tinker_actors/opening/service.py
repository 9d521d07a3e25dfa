"""`open_service` and its like: choose the backend, start it if it is the embedded one, and yield the client."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tinker_actors.actors.admin import AdminClient
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.service_client import ServiceClient, open_client
from tinker_actors.actors.session import Adoption
from tinker_actors.journal.event_file import open_event_file
from tinker_actors.opening.backend import Backend
from tinker_actors.opening.settings import Settings, check_names, choose, remote_config
from tinker_actors.protocol.event_line import EventSink
from tinker_actors.transport.config import Config
from tinker_actors.transport.http import HttpTransport, open_transport
from tinker_actors.transport.inprocess import InProcessTransport

if TYPE_CHECKING:
    from tinker_actors.local.service import EmbeddedService

__all__ = ["open_admin_client", "open_chosen", "open_rest_client", "open_service"]

_EMBEDDED_URL = "http://embedded"


@contextlib.asynccontextmanager
async def open_service(
    backend: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    seed: int | None = None,
    embedded: EmbeddedService | None = None,
    events: str | Path | EventSink | None = None,
    **settings: Unpack[Settings],
) -> AsyncIterator[ServiceClient]:
    """Open a Tinker service; leaving it means that everything it started has ended.

    If the body returns, everything that was put in line runs to its end first. If it raises or is cancelled,
    what has not begun is refused with `ServiceClosing`, what was sent is waited for up to `grace` seconds, and
    the body's own exception leaves as it is.

    Args:
        backend: `"local"` for the embedded service, `"tinker"` for the Tinker service, or a base URL; None chooses,
            see `opening.backend`.
        base_url: where the service is.
        api_key: the key for it.
        seed: makes delays and drawn seeds repeatable.
        embedded: the embedded service to use, made by the caller; only with `backend="local"` or none.
        events: where to write down what happens, from the opening to the end: the path of an event file, which
            `tinker_actors.observe` reads; or what takes the events in its place.
        **settings: as the attributes of `tinker_actors.Config`, such as `outage_timeout=600` or `telemetry=False`.

    Raises:
        ConfigError: arguments that contradict each other, or no backend.
        InputError: a key that does not look like one.
        TypeError: a setting that does not exist; the message names one that is spelt alike.
        APIConnectionError: the service cannot be reached; the message names the URL.
        TinkerError: the service refused.
        UnobservedFailure: the body returned, and an operation had failed that nobody awaited.
        JournalError: the event file cannot be written.
    """
    check_names("open_service", settings)
    chosen, settings = choose(backend, base_url, api_key, embedded, settings)
    async with (
        _event_sink(events) as record,
        open_chosen(chosen, random.Random(seed), embedded, settings, record) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def _event_sink(events: str | Path | EventSink | None) -> AsyncIterator[EventSink | None]:
    """Open what takes the events, if there is a file to open."""
    if isinstance(events, str | Path):
        async with open_event_file(events) as file:
            yield file
    else:
        yield events


@contextlib.asynccontextmanager
async def open_rest_client(
    backend: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    seed: int | None = None,
    embedded: EmbeddedService | None = None,
    **settings: Unpack[Settings],
) -> AsyncIterator[RestClient]:
    """Open a client of what is kept on a service, without a session; leaving it closes its connections.

    Nothing is sent before its first call. Arguments and errors: as `open_service`, which has one as `service.rest`.
    The embedded service keeps what lies in the directory of its store, and nothing else when it has ended, unless it is
    given a directory for its state.
    """
    check_names("open_rest_client", settings)
    chosen, settings = choose(backend, base_url, api_key, embedded, settings)
    async with _open_transport(chosen, random.Random(seed), embedded, settings) as transport:
        yield RestClient(transport)


@contextlib.asynccontextmanager
async def open_admin_client(
    backend: str | None = None,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    seed: int | None = None,
    embedded: EmbeddedService | None = None,
    **settings: Unpack[Settings],
) -> AsyncIterator[AdminClient]:
    """Open a client for administrators, without a session; leaving it closes its connections.

    Nothing is sent before its first call. Arguments and errors: as `open_service`, which has one as `service.admin`.
    """
    check_names("open_admin_client", settings)
    chosen, settings = choose(backend, base_url, api_key, embedded, settings)
    async with _open_transport(chosen, random.Random(seed), embedded, settings) as transport:
        yield AdminClient(transport)


def _embedded_service(embedded: EmbeddedService | None, rng: random.Random) -> EmbeddedService:
    from tinker_actors.local.service import (
        EmbeddedService,
    )  # numpy and the model load only when they are used

    return EmbeddedService(seed=rng.getrandbits(31)) if embedded is None else embedded


@contextlib.asynccontextmanager
async def _open_transport(
    chosen: Backend, rng: random.Random, embedded: EmbeddedService | None, settings: Settings
) -> AsyncIterator[HttpTransport]:
    """Open what makes calls, and nothing that runs above it."""
    if chosen.base_url is not None:
        async with open_transport(remote_config(chosen, settings), rng=rng) as transport:
            yield transport
        return
    service = _embedded_service(embedded, rng)
    config = Config(base_url=_EMBEDDED_URL, **settings)
    async with (
        InProcessTransport(service.app) as through,
        open_transport(config, rng=rng, through=through) as transport,
    ):
        yield transport


def open_chosen(
    chosen: Backend,
    rng: random.Random,
    embedded: EmbeddedService | None,
    settings: Settings,
    record: EventSink | None = None,
    adoption: Adoption | None = None,
) -> contextlib.AbstractAsyncContextManager[ServiceClient]:
    """Open the service that was chosen.

    Args:
        chosen: which it is.
        rng: chance for delays and seeds.
        embedded: the embedded service, if that was chosen and the caller has made one.
        settings: for its configuration.
        record: takes what happens.
        adoption: what an earlier process has left on it, and this one is to go on with.
    """
    if chosen.base_url is not None:
        return _open_remote(chosen, rng, settings, record, adoption)
    return _open_embedded(embedded, chosen, rng, settings, record, adoption)


def _open_remote(
    chosen: Backend,
    rng: random.Random,
    settings: Settings,
    record: EventSink | None = None,
    adoption: Adoption | None = None,
) -> contextlib.AbstractAsyncContextManager[ServiceClient]:
    config = remote_config(chosen, settings)
    return open_client(
        config,
        rng=rng,
        backend=config.base_url,
        chosen=chosen.line,
        record=record,
        adoption=adoption,
    )


@contextlib.asynccontextmanager
async def _open_embedded(
    embedded: EmbeddedService | None,
    chosen: Backend,
    rng: random.Random,
    settings: Settings,
    record: EventSink | None,
    adoption: Adoption | None,
) -> AsyncIterator[ServiceClient]:
    service = _embedded_service(embedded, rng)
    defaults: Settings = {"telemetry": True}
    config = Config(base_url=_EMBEDDED_URL, **(defaults | settings))
    async with (
        InProcessTransport(service.app) as transport,
        open_client(
            config,
            rng=rng,
            backend="local",
            chosen=chosen.line,
            through=transport,
            beat_through=lambda: InProcessTransport(service.app, lifespan=False),
            record=record,
            adoption=adoption,
        ) as client,
    ):
        yield client
