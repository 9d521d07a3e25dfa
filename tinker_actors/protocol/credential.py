"""Keys and tokens: which one is used, when a token is renewed, and the file that keys are stored in. Pure.

Where a key comes from, the first that there is: the argument, `TINKER_API_KEY`, what the command in
`TINKER_CREDENTIAL_CMD` prints, the default of the stored keys. An API key starts with `tml-`; a JWT, which starts with
`eyJ`, may stand in its place and is used as it is. A key that is neither gives way to a command, if there is one.

A service may want keys exchanged for tokens (`pjwt_auth_enabled`). A token is renewed in the background after about
half of its life, and by whoever needs it when a minute or less of it remains. An old token serves while it lives.

No secret is ever in a repr or in a message. Rules and numbers: tinker 0.38.0 lib/_jwt_auth.py,
lib/_auth_token_provider.py, lib/credentials.py.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from typing import Literal, TypeAlias, cast

import attrs
import orjson

from tinker_actors.errors import CredentialError, InputError

__all__ = [
    "NEAR_EXPIRY",
    "RETRY_PERIOD",
    "Credential",
    "CredentialCommand",
    "CredentialsFile",
    "Secret",
    "StoredKey",
    "Token",
    "check_api_key",
    "choose_credential",
    "is_token",
    "parse_token",
    "read_credentials",
    "refresh_after",
    "says_invalid_token",
    "usable_key",
    "write_credentials",
]

NEAR_EXPIRY = 60.0
"""Seconds before its end from which a token is renewed by whoever needs it."""
RETRY_PERIOD = 60.0
"""Seconds between two attempts to renew a token in the background."""
_EARLIEST, _LATEST = 0.45, 0.55  # parts of a token's life after which it is renewed
_SHORTEST_WAIT = 1.0  # seconds; a token that lives for less must not make a busy loop
_LONGEST_TOKEN = 65_536  # characters; more fits into no header
_PARTS = 3  # header, claims, signature
_FILE_VERSION = 1
_MASK = "..."

_INVALID_TOKEN = re.compile(
    r'(?<![\w-])error\s*=\s*(?:"invalid_token"|invalid_token(?![\w-]))', re.IGNORECASE
)


# --- keys ------------------------------------------------------------------------------------------------


def is_token(key: str) -> bool:
    """Whether a key is a JWT, by how it begins."""
    return key.startswith("eyJ")


def check_api_key(field: str, value: str) -> str:
    """Return an API key.

    Raises:
        InputError: it does not look like one. The key itself is not shown.
    """
    if not isinstance(cast("object", value), str):
        raise InputError(field, type(value).__name__, "an API key is a string")
    if not _looks_like_a_key(value):
        why = "an API key starts with 'tml-', a token with 'eyJ'; neither has spaces"
        raise InputError(field, f"({len(value)} characters)", why)
    return value


def _looks_like_a_key(value: str) -> bool:
    return (
        (value.startswith("tml-") or is_token(value))
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


@attrs.frozen
class Secret:
    """A key that is at hand.

    Attributes:
        value: the key; never shown.
        origin: where it comes from, such as `TINKER_API_KEY`.
    """

    value: str = attrs.field(repr=lambda _: _MASK)
    origin: str


@attrs.frozen
class CredentialCommand:
    """A command that prints a key.

    Attributes:
        command: for the shell; not shown, for it may hold a key itself.
        origin: where it comes from.
    """

    command: str = attrs.field(repr=lambda _: _MASK)
    origin: str


Credential: TypeAlias = Secret | CredentialCommand


def choose_credential(
    *,
    argument: str | None = None,
    variable: str | None = None,
    command: str | None = None,
    command_origin: str = "TINKER_CREDENTIAL_CMD",
    stored: str | None = None,
) -> Credential | None:
    """Choose where the key comes from; None if there is none at all.

    Args:
        argument: the argument `api_key`.
        variable: the variable `TINKER_API_KEY`.
        command: the command that prints a key.
        command_origin: where the command comes from.
        stored: the default of the stored keys.

    Raises:
        InputError: the first key that there is does not look like one, and there is no command.
    """
    for origin, key in (("api_key", argument), ("TINKER_API_KEY", variable)):
        if not key:
            continue
        if command and not (isinstance(cast("object", key), str) and _looks_like_a_key(key)):
            break
        return Secret(check_api_key(origin, key), origin)
    if command:
        return CredentialCommand(command, command_origin)
    if stored:
        origin = "the stored credentials"
        return Secret(check_api_key(origin, stored), origin)
    return None


def usable_key(text: str, origin: str, now: float) -> str:
    """Return the key in what a command printed or somebody set.

    Args:
        text: the key; white space around it is dropped.
        origin: where it comes from, for the message.
        now: seconds since 1970, UTC.

    Raises:
        CredentialError: it is empty or no key, or it is a token that is malformed or has expired.
    """
    key = text.strip()
    if not key:
        raise CredentialError(f"{origin} gave no key: what it printed is empty")
    if not _looks_like_a_key(key):
        message = f"{origin} gave no key: a key starts with 'tml-', a token with 'eyJ'; it has {len(key)} characters"
        raise CredentialError(message)
    if is_token(key):
        token = parse_token(key, origin)
        if not token.lives(now):
            raise CredentialError(f"{origin} is a token that expired {now - token.expires:.0f} s ago")
    return key


# --- tokens ----------------------------------------------------------------------------------------------


@attrs.frozen
class Token:
    """A JWT. Its signature is the service's business.

    Attributes:
        text: what goes into the header; never shown.
        expires: when its life ends, in seconds since 1970, UTC.
        issued: when it began; None if it does not say.
        claims: what it says, such as `sub`, `org_id` and `email`.
    """

    text: str = attrs.field(repr=lambda _: _MASK)
    expires: float
    issued: float | None
    claims: Mapping[str, object] = attrs.field(repr=False, eq=False)

    def remaining(self, now: float) -> float:
        """Return the seconds it has left."""
        return self.expires - now

    def lives(self, now: float) -> bool:
        """Whether the service still takes it."""
        return self.remaining(now) > 0

    def is_near_expiry(self, now: float) -> bool:
        """Whether whoever needs it must renew it first."""
        return self.remaining(now) <= NEAR_EXPIRY


def parse_token(text: str, origin: str = "the token") -> Token:
    """Read a JWT.

    Args:
        text: the token.
        origin: what it is, for the message.

    Raises:
        CredentialError: it is none, or it does not say when it ends.
    """
    claims = _claims(text, origin)
    expires = _seconds(claims, "exp", origin)
    if expires is None:
        raise CredentialError(f"{origin}: a JWT without 'exp' does not say when it ends")
    return Token(text, expires, _seconds(claims, "iat", origin), claims)


def _claims(text: str, origin: str) -> dict[str, object]:
    parts = text.split(".")
    if len(text) > _LONGEST_TOKEN or len(parts) != _PARTS or not text.isascii():
        raise CredentialError(f"{origin}: not a JWT: it has {len(parts)} parts and {len(text)} characters")
    try:
        raw = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True)
        claims = cast("object", orjson.loads(raw))
    except (binascii.Error, orjson.JSONDecodeError):
        raise CredentialError(
            f"{origin}: not a JWT: its claims are not JSON in base64"
        ) from None  # may quote it
    if not isinstance(claims, dict):
        raise CredentialError(f"{origin}: not a JWT: its claims are a {type(claims).__name__}")
    return cast("dict[str, object]", claims)


def _seconds(claims: Mapping[str, object], name: str, origin: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CredentialError(
            f"{origin}: the claim {name!r} must be a number, and is a {type(value).__name__}"
        )
    return float(value)


def refresh_after(token: Token, now: float, chance: float) -> float:
    """Return the seconds to wait before a token that has just come is renewed in the background.

    About half of its whole life, so that clients that began together do not come back together; sooner, if it has come
    late and would be near its end by then.

    Args:
        token: which one.
        now: seconds since 1970, UTC.
        chance: a number in [0, 1).
    """
    life = token.expires - (now if token.issued is None else token.issued)
    wait = life * (_EARLIEST + (_LATEST - _EARLIEST) * chance)
    return max(_SHORTEST_WAIT, min(wait, token.remaining(now) - NEAR_EXPIRY))


def says_invalid_token(www_authenticate: str | None) -> bool:
    """Whether a 401 says that the token has ended, and not that the key is wrong (RFC 6750, 3.1)."""
    return www_authenticate is not None and _INVALID_TOKEN.search(www_authenticate) is not None


# --- the file --------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class StoredKey:
    """One stored key.

    Attributes:
        key: the key; never shown.
        type: made by hand on the console, or generated for this machine.
        name: the user's name for it.
        note: what the user noted.
        rest: what else the file says of it; kept as it is.
    """

    key: str = attrs.field(repr=lambda _: _MASK)
    type: Literal["manual", "generated"] = "manual"
    name: str = ""
    note: str | None = None
    rest: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)


@attrs.frozen
class CredentialsFile:
    """The stored keys, by their ids.

    Attributes:
        keys: the keys.
        default: the id of the one that is used when nothing else is said.
    """

    keys: Mapping[str, StoredKey] = attrs.field(factory=dict[str, StoredKey])
    default: str | None = None

    @property
    def default_key(self) -> str | None:
        """The key that is used when nothing else is said."""
        return None if self.default is None else self.keys[self.default].key


def read_credentials(data: bytes) -> CredentialsFile:
    """Read the stored keys.

    Raises:
        CredentialError: not such a file. Nothing of it is shown.
    """
    try:
        loaded = cast("object", orjson.loads(data))
    except orjson.JSONDecodeError:
        raise CredentialError("the stored credentials are not JSON") from None  # it would quote the file
    content = _object(loaded, "$")
    if content.get("version") != _FILE_VERSION:
        raise CredentialError(f"the stored credentials: $.version must be {_FILE_VERSION}")
    keys = {
        name: _stored_key(_object(value, f"$.keys[{name!r}]"), f"$.keys[{name!r}]")
        for name, value in _object(content.get("keys", {}), "$.keys").items()
    }
    default = content.get("default")
    if default is not None and (not isinstance(default, str) or default not in keys):
        raise CredentialError("the stored credentials: $.default must be the id of a key")
    return CredentialsFile(keys, default)


def _stored_key(entry: Mapping[str, object], at: str) -> StoredKey:
    key, name, note, kind = entry.get("key"), entry.get("name", ""), entry.get("note"), entry.get("type")
    if not isinstance(key, str) or not _looks_like_a_key(key):
        raise CredentialError(f"the stored credentials: {at}.key must start with 'tml-' or 'eyJ'")
    if not isinstance(name, str) or not (note is None or isinstance(note, str)):
        raise CredentialError(f"the stored credentials: {at}: name and note must be text")
    if kind not in ("manual", "generated"):
        raise CredentialError(f"the stored credentials: {at}.type must be 'manual' or 'generated'")
    rest = {name: value for name, value in entry.items() if name not in ("key", "name", "note", "type")}
    return StoredKey(key=key, type=kind, name=name, note=note, rest=rest)


def _object(value: object, at: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise CredentialError(
            f"the stored credentials: {at} must be an object, and is a {type(value).__name__}"
        )
    return cast("dict[str, object]", value)


def write_credentials(file: CredentialsFile) -> bytes:
    """Return the content of the file; `read_credentials` reads it."""
    keys = {
        name: {"type": stored.type, "key": stored.key, "name": stored.name}
        | ({} if stored.note is None else {"note": stored.note})
        | dict(stored.rest)
        for name, stored in file.keys.items()
    }
    content = {"version": _FILE_VERSION, "default": file.default, "keys": keys}
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
