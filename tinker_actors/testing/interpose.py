"""An actor around another one: it sees each message and hook before the actor does, and may interfere.

Theory of operation. The runtime asks an actor for little: its `handlers` (a handler for a type, and whether there
is one for `Down`), what it `declares`, and its hooks. `Interposed` answers all of this for the actor within, and
gives that actor the runtime's own context, so neither runtime nor actor can tell the difference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, TypeVar

import trio

from tinker_actors.kernel import Actor, Ending, Message

__all__ = ["Handler", "Interposed", "Proceed", "Relay"]

RoleT = TypeVar("RoleT")
Handler = Callable[[Any, Any], Awaitable[Any]]
Proceed = Callable[[], Awaitable[Any]]


class Relay:
    """Handlers by type, made on demand: `find` says whether, and by what, a type is handled.

    It does what the runtime asks of an actor's `handlers`, which is a `dict` otherwise.
    """

    def __init__(self, find: Callable[[type], Handler | None]) -> None:
        self._find = find

    def get(self, kind: type, default: Handler | None = None) -> Handler | None:
        """Return the handler of a type."""
        return self._find(kind) or default

    def __getitem__(self, kind: type) -> Handler:
        handler = self._find(kind)
        if handler is None:
            raise KeyError(kind)
        return handler

    def __contains__(self, kind: type) -> bool:
        return self._find(kind) is not None


class Interposed(Actor[RoleT]):
    """Stands between the runtime and the actor `inner`; subclasses override `around` and the hooks.

    Attributes:
        also_declares: exceptions of the interposed code itself that are answers, not crashes.
    """

    also_declares: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, inner: Actor[RoleT]) -> None:
        self.inner = inner
        # These two are of the class in plain actors; here they depend on the actor within.
        self.__dict__["declares"] = (*inner.declares, *self.also_declares)
        self.__dict__["handlers"] = Relay(self._handler_for)

    def _handler_for(self, kind: type) -> Handler | None:
        return None if self.inner.handlers.get(kind) is None else _relayed

    async def around(self, message: Message[Any, Any], proceed: Proceed) -> Any:  # noqa: ARG002 - see subclasses
        """Handle a message; `proceed` has the actor within handle it, and returns what its handler returns."""
        return await proceed()

    async def on_start(self) -> None:
        """Let the actor within start."""
        self.inner.context = self.context
        await self.inner.on_start()

    async def on_drain(self) -> None:
        """Let the actor within drain."""
        await self.inner.on_drain()

    async def on_undelivered(self, messages: Sequence[Message[Any, Any]]) -> None:
        """Let the actor within have what was not delivered."""
        await self.inner.on_undelivered(messages)

    async def on_stop(self, ending: Ending) -> None:
        """Let the actor within clean up."""
        await self.inner.on_stop(ending)


@trio.lowlevel.disable_ki_protection
async def _relayed(actor: Interposed[Any], message: Message[Any, Any]) -> Any:
    inner = actor.inner

    async def proceed() -> Any:
        return await inner.handlers[type(message)](inner, message)

    return await actor.around(message, proceed)
