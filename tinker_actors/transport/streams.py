"""What may be done to a stream without waiting: closing it, and looking whether something waits in it."""

from __future__ import annotations

from typing import Protocol, cast

import trio

__all__ = ["close_now", "is_readable"]


class _Closable(Protocol):
    def close(self) -> None: ...


def close_now(stream: trio.abc.Stream) -> None:
    """Close a stream without waiting and without TLS's goodbye; closing twice is closing once."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        stream.socket.close()
    else:
        cast("_Closable", stream).close()  # a stream of a test's own


def is_readable(stream: trio.abc.Stream) -> bool:
    """Tell whether data or an end of file waits to be read, without reading it."""
    while isinstance(stream, trio.SSLStream):
        # What is decrypted, and what is not yet: both came behind the last response.
        undecrypted = getattr(stream, "_incoming", None)
        if stream.pending() or getattr(undecrypted, "pending", 0):
            return True
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        return stream.socket.is_readable()
    return bool(getattr(stream, "is_readable", bool)())  # a stream of a test's own
