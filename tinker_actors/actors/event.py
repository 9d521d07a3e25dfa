"""Who listens to a service's events."""

from __future__ import annotations

import trio

from tinker_actors.protocol.event import ServiceEvent

__all__ = ["EventHub"]

_DEFAULT_BUFFER = 1000


class EventHub:
    """Hands events to subscribers; one that does not keep up loses events, and nobody waits for it.

    Attributes:
        dropped: events that a subscriber had no room for.
    """

    def __init__(self) -> None:
        self._channels: list[trio.MemorySendChannel[ServiceEvent]] = []
        self.dropped = 0

    def subscribe(self, max_buffer: int = _DEFAULT_BUFFER) -> trio.MemoryReceiveChannel[ServiceEvent]:
        """Return a channel of all events from now on; closing it ends the subscription."""
        send, receive = trio.open_memory_channel[ServiceEvent](max_buffer)
        self._channels.append(send)
        return receive

    def publish(self, event: ServiceEvent) -> None:
        """Hand an event to every subscriber."""
        for channel in list(self._channels):
            try:
                channel.send_nowait(event)
            except trio.WouldBlock:
                self.dropped += 1
            except trio.BrokenResourceError:  # the subscriber has closed its end
                self._channels.remove(channel)

    def close(self) -> None:
        """End all subscriptions; what is buffered may still be read."""
        for channel in self._channels:
            channel.close()
        self._channels.clear()
