"""Checks of what weights are saved with and loaded from, made before a byte is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tinker_actors.errors import InputError
from tinker_actors.wire.run import check_weights_path

__all__ = ["MAX_TTL", "MIN_TTL", "check_recipients", "check_state_path", "check_ttl", "metadata"]

# tinker 0.38.0 lib/public_interfaces: the range that every time to live is documented with.
MIN_TTL = 3600  # seconds: an hour
MAX_TTL = 10 * 365 * 24 * 3600  # seconds: ten years
_MAX_RECIPIENTS = 10  # tinker 0.38.0 lib/public_interfaces/training_client.py


def check_ttl(seconds: object) -> None:
    """Check a time to live, in seconds; None is for ever.

    Raises:
        InputError: no whole number of seconds, or one out of its range.
    """
    if seconds is None:
        return
    whole = isinstance(seconds, int) and not isinstance(seconds, bool)
    if not whole or not MIN_TTL <= cast("int", seconds) <= MAX_TTL:
        why = f"must be a whole number of seconds, {MIN_TTL} (an hour) to {MAX_TTL} (ten years), or None"
        raise InputError("ttl_seconds", seconds, why)


def metadata(value: object) -> dict[str, str] | None:
    """Return metadata of one's own: a mapping of strings to strings; None stays None.

    Raises:
        InputError: it is none, or a name or a value is no string that has a UTF-8 form.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InputError("user_metadata", value, "must map strings to strings")
    own: dict[str, str] = {}
    for key, text in cast("Mapping[object, object]", value).items():
        if not isinstance(key, str) or not _is_text(key):
            raise InputError("user_metadata", key, "names must be strings")
        if not isinstance(text, str) or not _is_text(text):
            raise InputError(f"user_metadata[{key!r}]", text, "must be a string")
        own[key] = text
    return own


def _is_text(text: str) -> bool:
    """Whether it has a UTF-8 form; half characters have none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_recipients(recipients: object) -> None:
    """Check who may read what is saved; None is everybody with its URL.

    Raises:
        InputError: no list of keys, an empty one (nobody could read it), an empty key, or too many.
    """
    if recipients is None:
        return
    field = "age_encryption_recipients"
    if not isinstance(recipients, list | tuple):
        raise InputError(field, recipients, "must be a list of public keys of age, or None")
    keys = cast("list[object] | tuple[object, ...]", recipients)
    if not 1 <= len(keys) <= _MAX_RECIPIENTS:
        raise InputError(field, len(keys), f"1 to {_MAX_RECIPIENTS} may read them")
    for index, key in enumerate(keys):
        if not isinstance(key, str) or not key:
            raise InputError(f"{field}[{index}]", key, "must be a public key of age")


def check_state_path(field: str, path: object) -> None:
    """Check where weights are to be loaded from: as some service gave it.

    Raises:
        InputError: neither a URL such as `tinker://...`, nor the absolute path of a file.
    """
    check_weights_path(field, cast("str", path))
