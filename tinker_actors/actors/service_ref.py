"""What may be asked of a service as a whole: its events, its queues, who waits for what."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from tinker_actors.actors.event import EventChannel, EventHub
from tinker_actors.actors.waits import Waits
from tinker_actors.protocol.event import QueueChange, ServiceEvent
from tinker_actors.protocol.event_line import EventSink
from tinker_actors.protocol.queue_state import QueueState, QueueStateObserver
from tinker_actors.protocol.wait import WaitSeen

if TYPE_CHECKING:
    from tinker_actors.actors.sampling_client import SamplingClient
    from tinker_actors.actors.training_client import TrainingClient

__all__ = ["ServiceRef"]

E = TypeVar("E")
E2 = TypeVar("E2")
E3 = TypeVar("E3")


class ServiceRef:
    """What may be asked of a service beside its clients: `service.ref`. A service takes no messages as a whole."""

    def __init__(self, events: EventHub, waits: Waits, record: Callable[[EventSink], None]) -> None:
        self._events = events
        self._waits = waits
        self._record = record

    def __repr__(self) -> str:
        return f"<ServiceRef, {self._events.subscribers} subscribers, {len(self._waits)} waits>"

    def waits(self) -> list[WaitSeen]:
        """Return who waits for what, since when and why; the oldest wait first."""
        return self._waits.look()

    def record(self, sink: EventSink) -> None:
        """Have what happens from now on written down, until the service has ended.

        That is: its events; starts, ends and lost messages of its actors; and once a second what its actors do, what
        they did last, and who waits for what, as far as it has changed.

        Args:
            sink: such as what `open_event_file` gives; it must stay open for longer than the service.
        """
        self._record(sink)

    def publish(self, event: ServiceEvent) -> None:
        """Tell an event to all who listen, and to what records; for what is built on a service, such as runs."""
        self._events.publish(event)

    @contextlib.contextmanager
    def observe_queues(
        self, observer: QueueStateObserver, *, of: TrainingClient | SamplingClient | None = None
    ) -> Iterator[None]:
        """Tell an observer, in this block, whenever a queue is in another state, or in the same for another reason.

        What it raises is logged, and breaks nothing.

        Args:
            observer: has a method `on_queue_state_change(queue_state, queue_state_reason)`.
            of: a client; only its requests count. None: those of all clients.
        """

        def listen(event: ServiceEvent) -> None:
            if isinstance(event, QueueChange) and (of is None or event.subject == _subject(of)):
                observer.on_queue_state_change(QueueState.of(event.state), event.reason or None)

        end = self._events.listen(listen)
        try:
            yield
        finally:
            end()

    @overload
    def subscribe(self, *, max_buffer: int = ...) -> EventChannel[ServiceEvent]: ...

    @overload
    def subscribe(self, kind: type[E], /, *, max_buffer: int = ...) -> EventChannel[E]: ...

    @overload
    def subscribe(
        self, kind: type[E], second: type[E2], /, *, max_buffer: int = ...
    ) -> EventChannel[E | E2]: ...

    @overload
    def subscribe(
        self, kind: type[E], second: type[E2], third: type[E3], /, *, max_buffer: int = ...
    ) -> EventChannel[E | E2 | E3]: ...

    @overload
    def subscribe(
        self, kind: type, second: type, third: type, fourth: type, /, *more: type, max_buffer: int = ...
    ) -> EventChannel[Any]: ...

    def subscribe(self, *kinds: type, max_buffer: int = 1000) -> EventChannel[Any]:
        """Return a channel of what happens from now on.

        Args:
            kinds: classes of `tinker_actors.events`; none means all of them.
            max_buffer: events that may wait to be read. A subscriber that lets more come up loses the oldest, and is
                told so: by `EventChannel.dropped`, and by `Lagged` if that is among its kinds.

        Raises:
            InputError: something that is no kind of event, or a buffer without room.
        """
        return self._events.subscribe(kinds, max_buffer)


def _subject(client: TrainingClient | SamplingClient) -> str:
    """Return whose requests a client sends: its model's id, which a restore changes, or its sampling session's."""
    model_id = getattr(client, "model_id", None)
    return (
        model_id if isinstance(model_id, str) else cast("SamplingClient", client).target.sampling_session_id
    )
