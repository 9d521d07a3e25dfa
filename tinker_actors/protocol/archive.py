"""Downloads of archives: which bytes are asked for, what came, whether to try again, and what may be taken out. Pure.

A download that was cut is gone on with by asking for the rest (`Range`), and only for the rest of the same thing
(`If-Range`, with the tag or the time that the first answer carried). What came is judged by what it says of itself:

    206, from where we are, of the same tag and length     goes behind what is there
    206 of something else, or compressed; or 416            the whole is asked for once more
    200                                                     everything begins anew

Attempts are counted since the download last got further than ever before, so that a long one may be cut often. While
the service is still making the archive (503), it is asked every 30 s, six times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from tinker_actors.protocol.retry import Failure, backoff_delay

__all__ = [
    "Answered",
    "Known",
    "Patience",
    "Wait",
    "judge",
    "most_unpacked",
    "range_headers",
    "refused_member",
    "requested_part",
]

# Tinkex 0.4.0 retries 503, and nothing else, 6 times with 30 s between.
MAKING_TRIES: Final = 6
MAKING_DELAY: Final = 30.0
_LONGEST_DELAY: Final = 300.0
_MAKING = 503

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", re.IGNORECASE)
_LONGEST = 20  # digits of a number of bytes
_LONGEST_NAME: Final = 1024  # characters
_LONGEST_PART: Final = 255  # bytes, as on most systems
_DEEPEST: Final = 32
_RATIO: Final = 100  # a model that is still nearly all zeros has about ten
_SMALL: Final = 64 * 1024 * 1024  # bytes that may come of any archive


# ------------------------------------------------------------------------------------------------- what is asked


def requested_part(value: str | None, size: int) -> range | None:
    """Return the bytes that a request asks for; None for the whole, an empty range if there are no such bytes.

    Args:
        value: of its header `Range`. One that cannot be read, or asks for several parts, is passed over.
        size: bytes there are.
    """
    match = None if value is None or len(value) > 3 * _LONGEST else _RANGE.fullmatch(value)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return range(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    return range(min(int(first), size), size if not last else min(int(last) + 1, size))


@attrs.frozen(kw_only=True)
class Known:
    """What is known of a download that is under way.

    Attributes:
        done: bytes that are there.
        total: bytes of the whole; None if nobody said.
        tag: the entity tag of the whole.
        modified: when it was last changed, as it was said.
    """

    done: int = 0
    total: int | None = None
    tag: str | None = None
    modified: str | None = None

    @property
    def parts(self) -> bool:
        """Whether it can be told that a part is one of the same: by its length, if by nothing else."""
        return (self.total, self.tag, self.modified) != (None, None, None)

    @property
    def certain(self) -> bool:
        """Whether that can be told for certain: checkpoints of one model are of one length."""
        return self.same is not None

    @property
    def same(self) -> str | None:
        """What to ask with for the same only: its tag, unless that is a weak one, or its time."""
        return self.modified if self.tag is None or self.tag.startswith("W/") else self.tag


def range_headers(known: Known) -> dict[str, str]:
    """Return the headers that ask for the rest of a download, and only of the same thing; for all of it, none."""
    if known.done == 0 or not known.parts:
        return {}
    headers = {"range": f"bytes={known.done}-"}
    return headers if known.same is None else headers | {"if-range": known.same}


# -------------------------------------------------------------------------------------------------- what has come


@attrs.frozen
class Answered:
    """How an answer is to be taken.

    Attributes:
        how: `whole`: begin anew with it. `rest`: it goes behind what is there. `again`: ask for the whole.
        known: what is known from now on.
    """

    how: Literal["whole", "rest", "again"]
    known: Known


def judge(known: Known, status: int, headers: Mapping[str, str]) -> Answered:
    """Say how an answer without an error, or 416, is to be taken.

    Args:
        known: what was known before.
        status: 200, 206, 416, or another that is no error.
        headers: names in lower case.
    """
    tag, modified = headers.get("etag"), headers.get("last-modified")
    plain = headers.get("content-encoding", "identity").strip().lower() in ("", "identity")
    if status not in (206, 416):
        length = headers.get("content-length", "") if plain else ""
        total = int(length) if length.isdecimal() and len(length) <= _LONGEST else None
        return Answered(
            "whole", Known(total=total, tag=tag if plain else None, modified=modified if plain else None)
        )
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "")[: 4 * _LONGEST])
    if status == 416 or not plain or match is None or int(match[1]) != known.done:
        return Answered("again", Known())
    total = known.total if match[3] == "*" else int(match[3])
    other_total = known.total is not None and total != known.total
    other_tag = tag is not None and known.tag is not None and tag != known.tag
    if other_total or other_tag:
        return Answered("again", Known())
    return Answered("rest", attrs.evolve(known, total=total, tag=known.tag or tag))


# ---------------------------------------------------------------------------------------------------- once more?


Wait: TypeAlias = float | None
"""Seconds until the next attempt; None if there is none."""


@attrs.define
class Patience:
    """Attempts at one download that failed.

    Attributes:
        retries: further attempts there may be in a row that get no further.
        making: times that the archive was still being made.
        failures: failed attempts since it last got further.
        furthest: bytes it got to.
    """

    retries: int
    making: int = 0
    failures: int = 0
    furthest: int = 0

    def got_to(self, done: int) -> None:
        """Take into account that so many bytes are there."""
        if done > self.furthest:
            self.furthest, self.failures = done, 0

    def failed(self, failure: Failure, *, locating: bool, chance: float) -> Wait:
        """Take a failed attempt into account and say when the next one is due.

        Args:
            failure: what happened.
            locating: it was asked where the archive is; else for the archive itself.
            chance: a number in [0, 1) for the jitter.
        """
        if failure.should_retry is False:
            return None
        if locating and failure.status == _MAKING:
            self.making += 1
            if self.making > MAKING_TRIES:
                return None
            return min(failure.retry_after or MAKING_DELAY, _LONGEST_DELAY)
        self.failures += 1
        if self.failures > self.retries or not (locating_again(failure, locating) or _passing(failure)):
            return None
        return backoff_delay(self.failures - 1, failure.retry_after, chance)


def locating_again(failure: Failure, locating: bool) -> bool:
    """Whether the address of an archive may have run out, so that a new one is to be asked for."""
    return not locating and failure.status in (400, 401, 403, 404, 410)


def _passing(failure: Failure) -> bool:
    return failure.refused or failure.doubtful


# ------------------------------------------------------------------------------------------- what may be taken out


def most_unpacked(packed: int, max_bytes: int | None) -> int:
    """Return how many bytes may come of compressed ones.

    Args:
        packed: how many those are.
        max_bytes: what the user allows; None allows a hundred times as many, and 64 MiB in any case.
    """
    return max(_RATIO * packed, _SMALL) if max_bytes is None else max_bytes


def refused_member(name: str, kind: Literal["file", "directory", "link", "other"]) -> str | None:
    """Say why a member of an archive is not taken out; None if it may be.

    Args:
        name: as the archive has it.
        kind: what it is.
    """
    if kind == "link":
        return "it is a link"
    if kind == "other":
        return "it is neither a file nor a directory"
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in parts[0]:
        return "its name is absolute, or that of another system"
    if ".." in parts:
        return "its name leads out of the directory"
    longest = max(len(part.encode(errors="replace")) for part in parts)
    if not name.isprintable() or len(name) > _LONGEST_NAME or longest > _LONGEST_PART:
        return "its name cannot be a file's"
    if len(parts) > _DEEPEST:
        return "it lies too deep"
    if kind == "file" and parts[-1] in ("", "."):
        return "its name is that of a directory"
    return None
