"""What the rest of the package needs of the HTTP layer."""

from __future__ import annotations

from tinker_actors.transport.exchange import HttpTransport
from tinker_actors.transport.opening import open_transport
from tinker_actors.transport.ways import Carrier

__all__ = ["Carrier", "HttpTransport", "open_transport"]
