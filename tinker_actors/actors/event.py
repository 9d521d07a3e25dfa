"""Who listens to a service's events, and the channel each of them has.

Theory of operation. Whoever publishes never waits. Each subscriber has a buffer of its own; while it is full, each new
event costs the oldest one, so that a subscriber that fell behind reads what is true now. How many are lost is counted
(`EventChannel.dropped`), and told in the place where they are missing: by a `Lagged`, for those who subscribed to it.
A channel belongs to whoever reads it; the hub only knows of it, so that one that was dropped unclosed is gone.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast, get_args

import trio

from tinker_actors.errors import InputError
from tinker_actors.protocol.event import Lagged, ServiceEvent

__all__ = ["EventChannel", "EventHub"]

_LOG = logging.getLogger("tinker_actors.service")
_DEFAULT_BUFFER = 1000
_KINDS: tuple[type, ...] = get_args(ServiceEvent)

E_co = TypeVar("E_co", covariant=True)


class EventChannel(trio.abc.ReceiveChannel[E_co], Generic[E_co]):
    """The receiving end of a subscription. Made by `service.ref.subscribe`.

    `async for` reads events until the service has ended; leaving a `with` or an `async with` block ends the
    subscription. Any number of tasks may read; each event goes to one of them.

    Attributes:
        dropped: events that were lost because nobody read them in time.
    """

    def __init__(self, kinds: tuple[type, ...], max_buffer: int) -> None:
        self.dropped = 0
        self._kinds = kinds
        self._buffer: deque[Any] = deque()
        self._max_buffer = max_buffer
        self._untold = 0  # of `dropped`, those that no Lagged has told of
        self._readers = trio.lowlevel.ParkingLot()
        self._closed = False
        self._ended = False

    def __repr__(self) -> str:
        kinds = ", ".join(kind.__name__ for kind in self._kinds) if self._kinds != _KINDS else "all events"
        return f"<EventChannel of {kinds}, {len(self._buffer)} waiting, {self.dropped} dropped>"

    def receive_nowait(self) -> E_co:
        """Return the oldest event.

        Raises:
            trio.WouldBlock: there is none at present.
            trio.EndOfChannel: there is none, and the service has ended.
            trio.ClosedResourceError: this channel was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        if self._untold and issubclass(Lagged, self._kinds):
            lagged: Any = Lagged(self._untold)
            self._untold = 0
            return lagged  # type: ignore[no-any-return]  # it is among the kinds
        if self._buffer:
            event: E_co = self._buffer.popleft()
            return event
        if self._ended:
            raise trio.EndOfChannel
        raise trio.WouldBlock

    async def receive(self) -> E_co:
        """Wait for the next event.

        Raises:
            trio.EndOfChannel: the service has ended, and all was read.
            trio.ClosedResourceError: this channel was closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                event = self.receive_nowait()
            except trio.WouldBlock:
                await self._readers.park()
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return event

    def close(self) -> None:
        """End the subscription; what was not read is gone."""
        self._closed = True
        self._buffer.clear()
        self._readers.unpark_all()

    async def aclose(self) -> None:
        """End the subscription, as `close`."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> EventChannel[E_co]:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- the hub's side ----------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether nobody listens any more."""
        return self._closed

    def put(self, event: ServiceEvent) -> None:
        """Take an event in, if it is of a kind that was asked for. Only the hub calls this."""
        if not isinstance(event, self._kinds):
            return
        if len(self._buffer) >= self._max_buffer:
            self._buffer.popleft()
            self.dropped += 1
            self._untold += 1
        self._buffer.append(event)
        self._readers.unpark()

    def end(self) -> None:
        """There will be no more events; those in the buffer may still be read. Only the hub calls this."""
        self._ended = True
        self._readers.unpark_all()


class EventHub:
    """Hands events to subscribers; nobody waits for one that does not keep up.

    Attributes:
        failures: is told of every failure that a caller is told.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[[ServiceEvent], object]] = []
        self.failures: Callable[[BaseException], object] | None = None
        self._channels: list[weakref.ref[EventChannel[Any]]] = []
        self._ended = False

    @property
    def subscribers(self) -> int:
        """How many listen, as far as is known."""
        return len(self._open())

    def subscribe(self, kinds: tuple[type, ...] = (), max_buffer: int = _DEFAULT_BUFFER) -> EventChannel[Any]:
        """Return a channel of the events from now on; no kinds means all of them.

        Raises:
            InputError: something that is no kind of event, or a buffer without room.
        """
        for kind in kinds:
            if kind not in _KINDS:
                raise InputError("kinds", kind, "must be a class of tinker_actors.events")
        if not isinstance(cast("object", max_buffer), int) or max_buffer < 1:
            raise InputError("max_buffer", max_buffer, "must be an integer, at least 1")
        channel: EventChannel[Any] = EventChannel(kinds or _KINDS, max_buffer)
        if self._ended:
            channel.end()
        else:
            self._channels = [weakref.ref(one) for one in (*self._open(), channel)]
        return channel

    def listen(self, listener: Callable[[ServiceEvent], object]) -> Callable[[], None]:
        """Call a function with every event from now on; what it raises is logged.

        Returns:
            what ends that.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def publish(self, event: ServiceEvent) -> None:
        """Hand an event to every subscriber."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a user's function must not end what has happened to somebody else
                _LOG.exception("a function that is told of events failed on a %s", type(event).__name__)
        for channel in self._open():
            channel.put(event)

    def report(self, error: BaseException) -> None:
        """Tell telemetry, if there is any, of a failure; nobody waits for that."""
        if self.failures is not None:
            self.failures(error)

    def close(self) -> None:
        """End all subscriptions; what is buffered may still be read."""
        self._ended = True
        for channel in self._open():
            channel.end()
        self._channels.clear()

    def _open(self) -> list[EventChannel[Any]]:
        """Return the channels that somebody may still read."""
        found = [one for known in self._channels if (one := known()) is not None and not one.closed]
        if len(found) < len(self._channels):
            self._channels = [weakref.ref(one) for one in found]
        return found
