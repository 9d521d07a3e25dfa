"""What users of the kernel write: an `Actor` with handlers.

    class CounterActor(Actor[Counter]):
        def __init__(self) -> None:
            self.total = 0

        @handles(Add)
        async def add(self, message: Add) -> int:
            self.total += message.amount
            return self.total

Handlers run one at a time unless the child's spec says otherwise. A handler's exception is an answer if the
actor *declares* its type, and a crash otherwise: the caller gets `HandlerCrashed`; the supervisor decides.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, cast

import attrs
import trio

from tinker_actors.kernel.border import await_user
from tinker_actors.kernel.context import Context
from tinker_actors.kernel.message import Message
from tinker_actors.kernel.token import ReplyToken

__all__ = ["Actor", "Ending", "Handler", "Stop", "handles"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
RoleT = TypeVar("RoleT")
Handler: TypeAlias = Callable[[Any, Any], Awaitable[Any]]

Ending: TypeAlias = Literal["finish", "drain", "now", "kill", "restart", "crash"]
"""How an incarnation ends: a handler returned `Stop`, it worked off its mailbox, it was told to stop, it was
cancelled, it was cancelled to be started again with its siblings, it raised."""

_MARK = "_tinker_actors_handles"


@attrs.frozen
class Stop(Generic[R_co]):
    """What a handler returns to end its incarnation in good order, with the reply it holds.

    A `permanent` child is started again after it, a `transient` or `temporary` one has ended.
    """

    reply: R_co


def handles(
    message: type[Message[Any, R]],
) -> Callable[
    [Callable[[Any, Any], Awaitable[R | Stop[R] | ReplyToken[R]]]],
    Callable[[Any, Any], Awaitable[R | Stop[R] | ReplyToken[R]]],
]:
    """Mark a method of an actor as the handler of one message type; its return type is checked.

    A subclass that overrides the method overrides the handler. Messages are told apart by their exact type.
    """

    def mark(
        handler: Callable[[Any, Any], Awaitable[R | Stop[R] | ReplyToken[R]]],
    ) -> Callable[[Any, Any], Awaitable[R | Stop[R] | ReplyToken[R]]]:
        setattr(handler, _MARK, message)
        return handler

    return mark


class Actor(Generic[RoleT]):
    """Base of all actors.

    Class attributes:
        declares: exception types that are answers, not crashes.
        handlers: message type to handler; collected from the methods marked with `handles`.
    """

    declares: ClassVar[tuple[type[Exception], ...]] = ()
    handlers: ClassVar[dict[type, Handler]] = {}
    _handler_names: ClassVar[dict[type, str]] = {}

    context: Context[RoleT]
    """Set by the runtime before `on_start`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        names: dict[type, str] = {}
        for parent in reversed(cls.__mro__[1:]):
            names.update(vars(parent).get("_handler_names", {}))
        names.update(_marked(cls))
        cls._handler_names = names
        cls.handlers = {message: _exposed(getattr(cls, name)) for message, name in names.items()}

    async def on_start(self) -> None:
        """Prepare before the first message; an exception here is a failed start.

        Every incarnation is a new object, so this is where state is built, or built again: see
        `Context.incarnation`, `Context.last_failure` and `Context.checkpoint`.
        """
        await trio.lowlevel.checkpoint()

    async def on_drain(self) -> None:
        """Wait for work under way, after the last message of an orderly stop; cancelled when time is up."""
        await trio.lowlevel.checkpoint()

    async def on_undelivered(self, messages: Sequence[Message[Any, Any]]) -> None:  # noqa: ARG002 - as below
        """Take the messages nobody waits for that were in line when the actor was stopped, before `on_stop`.

        They are dead letters already. Not called if there are none, or if no incarnation was alive.
        """
        await trio.lowlevel.checkpoint()

    async def on_stop(self, ending: Ending) -> None:  # noqa: ARG002 - for those who override it
        """Clean up, shielded for at most the spec's `cleanup_timeout`; errors are logged.

        Not called for an incarnation whose `on_start` did not end well.
        """
        await trio.lowlevel.checkpoint()


def _exposed(handler: Handler) -> Handler:
    """Let Ctrl-C strike in a handler: what runs in it is the user's code, not the kernel's."""
    if inspect.isfunction(handler):
        return cast("Handler", trio.lowlevel.disable_ki_protection(handler))

    async def exposed(actor: Any, message: Any) -> Any:
        return await await_user(handler, actor, message)

    return exposed


def _marked(cls: type) -> dict[type, str]:
    """Return the handlers that a class itself defines: message type to name of the method."""
    names: dict[type, str] = {}
    for name, attribute in vars(cls).items():
        message = cast("type | None", getattr(attribute, _MARK, None))
        if message is None:
            continue
        if message in names:
            raise TypeError(f"{cls.__name__} has two handlers for {message.__name__}")
        names[message] = name
    return names
