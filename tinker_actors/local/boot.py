"""Ids that say in which life of a service they were given. Pure.

A service that keeps its state on disk counts its lives, the *boots*. What is numbered in a session and lives in memory
(a model, a place to sample from) has the boot in its id, from the second one on:

    session-1f:train:3          the third model of the session, made before the first restart
    session-1f:train:3.b2       made after it, because the first one was lost or the answer to its request was

So an id names one model for ever, and an id of an earlier boot names one that is not loaded any more. Clients take ids
as they get them; in paths and in URLs they stand as they are.
"""

from __future__ import annotations

import re

__all__ = ["boot_of", "number_of", "numbered"]

_NUMBERED = re.compile(r".*:(?P<number>\d+)(?:\.b(?P<boot>\d+))?", re.DOTALL)


def numbered(prefix: str, number: int, boot: int) -> str:
    """Return the id of what has a number behind a prefix and was made in a boot, the first being 1."""
    return f"{prefix}:{number}" + (f".b{boot}" if boot > 1 else "")


def number_of(numbered_id: str) -> int:
    """Return the number in an id that `numbered` made."""
    return int(_parts(numbered_id)["number"])


def boot_of(numbered_id: str) -> int:
    """Return the boot in an id that `numbered` made."""
    return int(_parts(numbered_id)["boot"] or 1)


def _parts(numbered_id: str) -> re.Match[str]:
    match = _NUMBERED.fullmatch(numbered_id)
    assert match is not None, numbered_id
    return match
