"""What a resource is: a group of calls over something that can make a call."""

from __future__ import annotations

from typing import Any, Literal

from tinker_actors.transport.view import Caller, StreamingView, ViewedCaller

__all__ = ["AccessScope", "AsyncAPIResource"]

AccessScope = Literal["owned", "accessible"]
"""What is yours, or what you may see."""


class AsyncAPIResource:
    """A group of calls. Each is a row of the table of endpoints, always a checkpoint, and raises what its caller does.

    Path parameters are checked before anything is sent: `InputError` if one would not stay the part it is.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def with_raw_response(self) -> Any:  # the same methods, each returning an APIResponse of what it says
        """The same calls, each returning its whole answer (`APIResponse`)."""
        return type(self)(ViewedCaller(self._caller, "raw"))

    @property
    def with_streaming_response(self) -> Any:  # the same methods, each to be used in `async with`
        """The same calls, each giving its answer with the body still to be read, in `async with`."""
        return StreamingView(type(self)(ViewedCaller(self._caller, "stream")))
