"""What is refused or goes wrong here, before or beside any service."""

from __future__ import annotations

from collections.abc import Sequence

from tinker_actors.errors.root import TinkerActorsError

__all__ = [
    "ConfigError",
    "DecodeError",
    "ForeignCancellation",
    "InputError",
    "NotPicklable",
    "PortalClosed",
    "RetryableException",
    "StreamAlreadyConsumed",
    "UnobservedFailure",
]

_VALUE_WIDTH = 120  # characters of a refused value that a message shows


def _shown(value: object) -> str:
    """Return a short text of a refused value, whatever its own `__repr__` does."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - a value of the user's; the refusal must reach them all the same
        text = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= _VALUE_WIDTH else text[: _VALUE_WIDTH - 1] + "…"


class ConfigError(TinkerActorsError):
    """A setting is missing, wrong, or contradicts another one. Nothing was sent."""


class InputError(TinkerActorsError, ValueError):
    """A value was refused locally. Nothing was sent and nothing was lost.

    Attributes:
        field: path of the refused field, such as `data[3].loss_fn_inputs['weights'][7]`.
        value: the refused value.
        why: what it should be.
    """

    def __init__(self, field: str, value: object, why: str) -> None:
        super().__init__(f"{field} = {_shown(value)}: {why}")
        self.field = field
        self.value = value
        self.why = why
        self.started = False


class DecodeError(TinkerActorsError):
    """Bytes that are not the message they should be.

    Attributes:
        what: the message they should be.
        problems: what is wrong, each with its path, such as `required field missing @ $.model_id`.
    """

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        super().__init__(f"not a {what}: {'; '.join(problems)}")
        self.what = what
        self.problems = tuple(problems)


class StreamAlreadyConsumed(TinkerActorsError):
    """A body or a stream of events can be gone through once, and it has been."""


class NotPicklable(TinkerActorsError, TypeError):
    """Something that lives in this process alone was pickled; the message says what to send in its place."""


class UnobservedFailure(TinkerActorsError):
    """An operation failed earlier and nobody had awaited its result; the failure is the cause.

    It is raised in place of the next operation of the same client, which was therefore not sent, or when
    the service is left.
    """


class ForeignCancellation(TinkerActorsError):
    """A call into the other event loop was cancelled there, by somebody who is not its caller.

    Neither loop's own cancellation says that: it would end the caller in silence.
    """

    started = True


class PortalClosed(TinkerActorsError):
    """The portal is closed: what was called did not begin, or was cancelled with the portal (`started`)."""

    started = False


class RetryableException(TinkerActorsError):
    """A failure that its author declares to be passing, so that policies try again.

    This package never raises it; a user's hook, transport or authentication may.
    """

    retryable = True
