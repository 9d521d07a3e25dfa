"""What one call may say differently: headers, query, body, time, retries, and how its answer is given.

Three states are told apart everywhere: a value, None (which is a value: no limit, no key), and nothing said
(`NOT_GIVEN`). For headers there is a fourth, `OMIT`, which takes away a header that would otherwise be sent.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, TypeGuard, TypeVar, cast

import attrs
import httpx

from tinker_actors.errors import InputError

__all__ = [
    "DEFAULT_OPTIONS",
    "NOT_GIVEN",
    "OMIT",
    "Given",
    "Hooks",
    "NotGiven",
    "Omit",
    "RequestOptions",
    "View",
    "given",
    "is_given",
    "said",
]

_T = TypeVar("_T")


class NotGiven(enum.Enum):
    """The type of `NOT_GIVEN`: nothing was said, so the default holds."""

    NOT_GIVEN = "not given"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"


class Omit(enum.Enum):
    """The type of `OMIT`: a header that is not sent, although it would be."""

    OMIT = "omit"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "OMIT"


NOT_GIVEN: Final = NotGiven.NOT_GIVEN
OMIT: Final = Omit.OMIT
Given: TypeAlias = _T | NotGiven
View: TypeAlias = Literal["parsed", "raw", "stream"]
"""How an answer is given: as its value; as a whole `APIResponse`; as one whose body is still to be read."""


def is_given(value: _T | NotGiven) -> TypeGuard[_T]:
    """Return whether something was said, be it None."""
    return value is not NOT_GIVEN


def given(value: _T | NotGiven, default: _T) -> _T:
    """Return the value, or the default if nothing was said."""
    return default if isinstance(value, NotGiven) else value


# Two converters, and not one for mappings of anything: mypy takes the argument's type from here.
def _frozen(values: Mapping[str, object] | None) -> Mapping[str, object]:
    return MappingProxyType(dict(values or {}))


def _frozen_headers(values: Mapping[str, str | Omit] | None) -> Mapping[str, str | Omit]:
    return MappingProxyType(dict(values or {}))


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_key(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and bool(value.strip())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@attrs.frozen(kw_only=True)
class RequestOptions:
    """What one call says differently. Frozen, with copies of the mappings: each retry starts from the same.

    None of it is sent as a header of ours; only `headers` are.

    Attributes:
        headers: sent beside the others, in place of those of the same name; `OMIT` takes one away. Not shown.
        query: merged over the query of the call.
        json: members merged over those of a JSON body.
        timeout: seconds for the whole exchange; None is no limit.
        max_retries: further attempts after the first.
        idempotency_key: sent in place of a drawn one; None sends none.
        strict: refuse answers with unknown fields.
        cast_to: the type to read the answer as: `str`, `bytes`, `int`, `float`, `bool`, `dict`, `list`, a wire
            type, `httpx.Response`, `Stream[...]`, or a class of responses.
        view: how the answer is given.
        follow_redirects: go where the service points to; never with our key to another origin.

    Raises:
        InputError: a value of another kind.
    """

    headers: Mapping[str, str | Omit] = attrs.field(factory=dict, converter=_frozen_headers, repr=False)
    query: Mapping[str, object] = attrs.field(factory=dict, converter=_frozen)
    json: Mapping[str, object] = attrs.field(factory=dict, converter=_frozen, repr=False)
    timeout: Given[float | None] = NOT_GIVEN
    max_retries: Given[int] = NOT_GIVEN
    idempotency_key: Given[str | None] = NOT_GIVEN
    strict: Given[bool] = NOT_GIVEN
    cast_to: Given[object] = NOT_GIVEN
    view: View = "parsed"
    follow_redirects: bool = True

    def __attrs_post_init__(self) -> None:
        if is_given(self.timeout) and self.timeout is not None and not _is_seconds(self.timeout):
            raise InputError(
                "timeout", self.timeout, "must be a number of seconds above 0, or None for no limit"
            )
        if is_given(self.max_retries) and not _is_count(self.max_retries):
            raise InputError("max_retries", self.max_retries, "must be an integer, at least 0")
        if is_given(self.idempotency_key) and not (
            self.idempotency_key is None or _is_key(self.idempotency_key)
        ):
            raise InputError(
                "idempotency_key", self.idempotency_key, "must be printable ASCII on one line, or None"
            )
        if self.view not in ("parsed", "raw", "stream"):
            raise InputError("view", self.view, "must be 'parsed', 'raw' or 'stream'")
        for name, value in self.headers.items():
            if not isinstance(value, str | Omit):
                raise InputError(f"headers[{name!r}]", type(value).__name__, "must be a string or OMIT")

    def over(self, lower: RequestOptions) -> RequestOptions:
        """Return these options with those of `lower` where nothing is said here."""
        changes: dict[str, Any] = {}  # by name: no type can say which belongs to which
        for field in attrs.fields(RequestOptions):
            value = getattr(self, field.name)
            if field.name in _MERGED:
                changes[field.name] = {**getattr(lower, field.name), **value}
            elif value != field.default:
                changes[field.name] = value
        return attrs.evolve(lower, **changes)


_MERGED = ("headers", "query", "json")
DEFAULT_OPTIONS: Final = RequestOptions()


def said(options: RequestOptions | None) -> RequestOptions:
    """Return the options of a call; those that say nothing, if there are none.

    Raises:
        InputError: they are something else.
    """
    if options is None:
        return DEFAULT_OPTIONS
    if not isinstance(cast("object", options), RequestOptions):  # what it holds may be a secret
        raise InputError("options", type(options).__name__, "must be RequestOptions, or None")
    return options


@attrs.frozen(kw_only=True)
class Hooks:
    """Functions of the user's that see each attempt before it is sent.

    Attributes:
        prepare_options: given the options of the call, returns those to build the request from. Each attempt
            starts from the options as the caller gave them.
        prepare_request: given the request that was built; may change it, or sign it.
    """

    prepare_options: Callable[[RequestOptions], Awaitable[RequestOptions]] | None = None
    prepare_request: Callable[[httpx.Request], Awaitable[None]] | None = None
