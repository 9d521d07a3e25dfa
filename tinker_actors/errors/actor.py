"""What the actor kernel raises."""

from __future__ import annotations

from collections.abc import Sequence

from tinker_actors.errors.root import TinkerActorsError

__all__ = [
    "ActorError",
    "ActorRestarting",
    "ActorStopped",
    "ActorStopping",
    "AskCycle",
    "Dropped",
    "HandlerCrashed",
    "InFlightLost",
    "MailboxFull",
    "RestartIntensityExceeded",
    "StartFailed",
    "Unhandled",
    "Withdrawn",
]


class ActorError(TinkerActorsError):
    """Root of what the actor kernel raises.

    Attributes:
        actor: path of the actor concerned.
        handed_back: the message that was not handled, or not to its end; None where there is none. It is not
            pickled with the error.
    """

    handed_back: object = None
    _unpickled = ("handed_back",)

    def __init__(self, message: str, *, actor: str = "", started: bool | None = None) -> None:
        super().__init__(message)
        self.actor = actor
        self.started = started


class ActorStopped(ActorError):
    """The actor has ended.

    `started` False: the message never began, and sending it elsewhere is safe. `started` True: its handler
    had begun.
    """


class ActorStopping(ActorStopped):
    """The actor is draining or stopping and takes no new message."""


class ActorRestarting(ActorStopped):
    """The actor is between two incarnations and hands its queued messages back."""


class InFlightLost(ActorStopped):
    """The actor ended after it had begun this message; the effect is not known."""


class AskCycle(ActorError):
    """The ask would wait for an answer that waits, directly or through others, for the asking handler.

    Attributes:
        path: the actors of the cycle, from the asking one back to itself.
    """

    def __init__(self, message: str, *, actor: str, path: Sequence[str]) -> None:
        super().__init__(message, actor=actor, started=False)
        self.path: tuple[str, ...] = tuple(path)


class Dropped(ActorError):
    """The mailbox was full and dropped the message, as its overflow policy says; it never started."""


class HandlerCrashed(ActorError):
    """The handler raised an exception it had not declared; the exception is the cause."""


class MailboxFull(ActorError):
    """The mailbox is full and its policy is not to wait.

    Attributes:
        depth: messages queued.
        capacity: messages it may hold.
    """

    def __init__(self, message: str, *, actor: str, depth: int, capacity: int) -> None:
        super().__init__(message, actor=actor, started=False)
        self.depth = depth
        self.capacity = capacity


class Unhandled(ActorError):
    """The actor has no handler for this type of message; it goes on living."""


class Withdrawn(ActorError):
    """The message was taken back before it started."""


class StartFailed(ActorError):
    """A child actor did not start; the reason is the cause."""


class RestartIntensityExceeded(ActorError):
    """A child was restarted too often, so its supervisor gave up; the last failure is the cause.

    Attributes:
        history: the failures of the window, oldest first, one line each.
    """

    def __init__(self, message: str, *, actor: str, history: Sequence[str]) -> None:
        super().__init__(message, actor=actor)
        self.history = tuple(history)
