"""The root of all errors: what every one of them carries, and how it is copied and pickled."""

from __future__ import annotations

from typing import ClassVar, Self, TypeVar

__all__ = [
    "TinkerActorsError",
]

_E = TypeVar("_E", bound="TinkerActorsError")


class TinkerActorsError(Exception):
    """Root of everything this package raises on purpose.

    Attributes:
        retryable: doing the same again may succeed.
        started: whether the operation had begun when it failed; None where the word has no meaning.
        request_id: the service's id of the request, if one was given out.
        attempts: how many times it was tried; 0 if nothing was sent.
    """

    retryable: bool = False
    started: bool | None = None
    request_id: str | None = None
    attempts: int = 0
    _unpickled: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> tuple[object, ...]:
        """Take along attributes, notes, and the cause if it is one of ours: others may not survive pickling."""
        state = {name: value for name, value in self.__dict__.items() if name not in self._unpickled}
        cause = self.__cause__ if isinstance(self.__cause__, TinkerActorsError) else None
        return _rebuild, (type(self), self.args, state, cause)

    def renewed(self) -> Self:
        """Return a copy with an empty traceback and the same cause, context, notes and attributes.

        One exception object must not be raised in several tasks: its traceback would grow with every raise.
        """
        copy = _rebuild(type(self), self.args, dict(self.__dict__), self.__cause__)
        copy.__context__ = self.__context__
        copy.__suppress_context__ = self.__suppress_context__
        return copy


def _rebuild(
    cls: type[_E], args: tuple[object, ...], state: dict[str, object], cause: BaseException | None
) -> _E:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    if "__notes__" in state:
        error.__notes__ = list(error.__notes__)  # notes added to one copy must not show on another
    if cause is not None:  # setting it, even to None, would hide the context
        error.__cause__ = cause
    return error
