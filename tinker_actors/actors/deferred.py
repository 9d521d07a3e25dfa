"""An answer that may be there before the message is handled that asks for it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from tinker_actors.kernel import ReplyToken

__all__ = ["Deferred"]

R = TypeVar("R")


class Deferred(Generic[R]):
    """Who waits for one operation of a step that was put in line as one: the step's later message, once it has come.

    It is an `Answer` of a lineage: what it is told before that is kept.
    """

    __slots__ = ("_error", "_settled", "_token", "_value")

    def __init__(self) -> None:
        self._token: ReplyToken[R] | None = None
        self._settled = False
        self._value: Any = None
        self._error: Exception | None = None

    def settle(self, value: R) -> bool:
        """Answer with a value; False if there was an answer already."""
        return self._close(value, None)

    def fail(self, error: Exception) -> bool:
        """Answer with an error; False if there was an answer already."""
        return self._close(None, error)

    def _close(self, value: R | None, error: Exception | None) -> bool:
        if self._settled:
            return False
        self._settled, self._value, self._error = True, value, error
        if self._token is not None:
            self._pass_on(self._token)
        return True

    def hand_to(self, token: ReplyToken[R]) -> None:
        """Answer by this token, at once if the answer is there."""
        self._token = token
        if self._settled:
            self._pass_on(token)

    def _pass_on(self, token: ReplyToken[R]) -> None:
        if self._error is not None:
            token.fail(self._error)
        else:
            token.settle(self._value)
