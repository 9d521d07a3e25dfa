"""Downloading a checkpoint's archive: piece by piece into a file beside its place, which then takes the place.

Theory of operation. It is asked where the archive is, and then for the archive; each answer, and each failure, is
judged by `protocol.archive`, which says whether to go on, to begin anew, to wait, or to give up. Only this layer
repeats these two calls. No more than a megabyte of the archive is in memory at any time, and nothing blocks the loop:
files are written, and archives taken apart, in threads.

The place is taken at the very end, when the size is as it was said and, if the files are wanted, all of them have been
taken out. What was there before goes only then, and comes back if that fails. Whatever else happens, nothing stays, but
for a part that is to be gone on with by a later call (`partial`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Protocol

import attrs
import trio

from tinker_actors.actors.decoding import AsItIs, Decoder, decoder_for
from tinker_actors.actors.extraction import extract_steps
from tinker_actors.actors.partial import Partial, beside
from tinker_actors.actors.progress import ProgressCallback
from tinker_actors.errors import APIConnectionError, APIError, APIStatusError, ArchiveError, InputError
from tinker_actors.protocol.archive import Known, Patience, judge, locating_again, range_headers
from tinker_actors.protocol.retry import failure_of

__all__ = ["Answer", "Source", "check_place", "download"]

_BUFFER: Final = 1024 * 1024  # bytes that are written at a time
_NOT_SATISFIABLE: Final = 416


class Answer(Protocol):
    """An answer whose body is still to be read."""

    @property
    def status_code(self) -> int:
        """Its status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        ...

    def iter_raw(self) -> AsyncIterator[bytes]:
        """Go through its body, as it comes."""
        ...


@attrs.frozen(kw_only=True)
class Source:
    """Where an archive comes from.

    Attributes:
        path: the checkpoint's.
        locate: asks once where the archive is.
        fetch: asks once for an address, with these headers.
        chance: gives a number in [0, 1) for the jitter of waits.
        retries: further attempts in a row that get no further.
        expected_size: bytes that it must have; None goes by what is said.
        max_bytes: bytes that it may have, and that the files in it may have; None goes by what is said, and by
            `most_unpacked`.
    """

    path: str
    locate: Callable[[], Awaitable[str]]
    fetch: Callable[[str, dict[str, str]], AbstractAsyncContextManager[Answer]]
    chance: Callable[[], float]
    retries: int
    expected_size: int | None = None
    max_bytes: int | None = None


def check_place(destination: Path, *, extract: bool, force: bool) -> None:
    """Make sure that something can take a place.

    Raises:
        InputError: it cannot.
    """
    if "\0" in str(destination):
        raise InputError("destination", str(destination), "must hold no NUL")
    if not destination.name or destination.name == "..":
        raise InputError("destination", str(destination), "must name a file, or the directory to make")
    if not destination.parent.is_dir():
        raise InputError("destination", str(destination), "must lie in a directory that exists")
    if not os.path.lexists(destination):
        return
    if not force:
        raise InputError("destination", str(destination), "exists already; force=True replaces it")
    if destination.is_dir() != extract:
        what = (
            "a directory, and an archive is a file"
            if not extract
            else "a file, and the files need a directory"
        )
        raise InputError("destination", str(destination), f"is {what}")


async def download(
    source: Source, destination: Path, *, extract: bool, force: bool, resume: bool, report: ProgressCallback
) -> Path:
    """Download an archive and return where it is, or its files are. Checkpoints.

    Args:
        source: where it comes from.
        destination: the file, or with `extract` the directory.
        extract: take the files out of the archive.
        force: replace what is there.
        resume: go on with what an earlier call has left, and leave what there is if this one fails.
        report: is told how far it is.

    Raises:
        InputError: the place cannot be taken.
        ArchiveError: the archive is not what it should be.
        APIError: it cannot be had.
        OSError: something cannot be written.
    """
    await trio.to_thread.run_sync(lambda: check_place(destination, extract=extract, force=force))
    partial = await trio.to_thread.run_sync(
        lambda: Partial.kept(destination, source.path) if resume else Partial.fresh(destination)
    )
    keep = True
    try:
        await _Transfer(source, partial, report).run()
        await trio.to_thread.run_sync(partial.sync)
        if extract:
            await _extract(source, partial.path, destination, force)
        else:
            await trio.to_thread.run_sync(_take_place_of_file, partial.path, destination, force)
        keep = False
    except ArchiveError:
        keep = False
        raise
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: partial.close(keep=keep))
    return destination


# ------------------------------------------------------------------------------------------------------ transfer


@attrs.define(eq=False)
class _Transfer:
    """One archive on its way into a file."""

    source: Source
    partial: Partial
    report: ProgressCallback
    decoder: Decoder = attrs.field(factory=AsItIs)

    @property
    def known(self) -> Known:
        """What is known of what is there."""
        return self.partial.known

    async def run(self) -> None:
        """Bring all of it."""
        patience = Patience(retries=self.source.retries)
        url: str | None = None
        while True:
            locating = url is None
            try:
                if url is None:
                    url = await self.source.locate()
                    locating = False
                if await self._receive(url):
                    return
                continue
            except APIError as error:
                patience.got_to(self.known.done)
                failure = failure_of(error)
                wait = patience.failed(failure, locating=locating, chance=self.source.chance())
                if wait is None:
                    raise
                if locating_again(failure, locating):
                    url = None
            await trio.sleep(wait)

    async def _receive(self, url: str) -> bool:
        """Receive what is missing; returns whether that is all, or the whole must be asked for once more."""
        try:
            async with self.source.fetch(url, range_headers(self.known)) as answer:
                if not await self._begin(answer.status_code, answer.headers):
                    return False
                await self._write(answer.iter_raw())
        except APIStatusError as error:
            if error.status_code != _NOT_SATISFIABLE or self.known.done == 0:
                raise
            await self._begin(error.status_code, {})
            return False
        self._check_end()
        return True

    async def _begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Take an answer's head; returns whether its body is of use."""
        plain = {name.lower(): value for name, value in headers.items()}
        before, answered = self.known.done, judge(self.known, status, plain)
        self.decoder = decoder_for(self.source.path, plain.get("content-encoding", ""), self.source.max_bytes)
        if answered.how == "again" and before == 0:
            raise ArchiveError(
                f"{self.source.path}: a part was sent that nobody asked for", path=self.source.path
            )
        if answered.how == "rest":
            self.partial.known = answered.known
        else:
            await trio.to_thread.run_sync(self.partial.begin_anew, answered.known)
        self._check_size(self.known.total)
        self._check_most(self.known.total, self.source.max_bytes)
        if answered.how != "again":
            self.report(self.known.done, self.known.total)
        return answered.how != "again"

    async def _write(self, pieces: AsyncIterator[bytes]) -> None:
        buffer = bytearray()
        cut: APIError | None = None
        try:
            async for piece in pieces:
                for part in self.decoder.decode(piece):
                    buffer += part
                    if len(buffer) >= _BUFFER:
                        await self._flush(buffer)
        except APIError as error:
            cut = error
        await self._flush(buffer)  # what has come before the cut counts
        if cut is not None:
            raise cut

    async def _flush(self, buffer: bytearray) -> None:
        done = self.known.done + len(buffer)
        for most in (self.known.total, self.source.expected_size, self.source.max_bytes):
            self._check_most(done, most)
        content = bytes(buffer)
        buffer.clear()
        await trio.to_thread.run_sync(self.partial.write, content)
        self.report(done, self.known.total)

    def _check_end(self) -> None:
        """See that all has come.

        Raises:
            APIConnectionError: the body ended too soon.
            ArchiveError: it is empty, not of the size that was expected, or its compression has no end.
        """
        self.decoder.finish()
        done, total = self.known.done, self.known.total
        if done == 0 and not total:
            raise ArchiveError(f"{self.source.path}: the archive is empty", path=self.source.path)
        if total is not None and done < total:
            raise APIConnectionError(
                f"{self.source.path}: the archive broke off after {done} of {total} bytes", doubtful=True
            )
        self._check_size(done)

    def _check_size(self, size: int | None) -> None:
        expected = self.source.expected_size
        if None not in (size, expected) and size != expected:
            message = f"{self.source.path}: the archive has {size} bytes, and not {expected}"
            raise ArchiveError(message, path=self.source.path)

    def _check_most(self, size: int | None, most: int | None) -> None:
        if size is not None and most is not None and size > most:
            message = f"{self.source.path}: the archive has more than {most} bytes"
            raise ArchiveError(message, path=self.source.path)


# ------------------------------------------------------------------------------------------------ taking the place


async def _extract(source: Source, archive: Path, destination: Path, force: bool) -> None:
    staging = beside(destination, "files")
    await trio.to_thread.run_sync(staging.mkdir)
    try:
        steps = extract_steps(archive, staging, source.path, source.max_bytes)
        try:
            while await trio.to_thread.run_sync(next, steps, None) is not None:
                pass
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(steps.close)  # type: ignore[attr-defined]  # it is a generator
        await trio.to_thread.run_sync(_take_place_of_directory, staging, destination, force)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: shutil.rmtree(staging, ignore_errors=True))


def _take_place_of_file(partial: Path, destination: Path, force: bool) -> None:
    check_place(destination, extract=False, force=force)  # it may have come meanwhile
    partial.replace(destination)


def _take_place_of_directory(staging: Path, destination: Path, force: bool) -> None:
    check_place(destination, extract=True, force=force)
    if not os.path.lexists(destination):
        staging.rename(destination)
        return
    old = beside(destination, "old")
    destination.rename(old)
    try:
        staging.rename(destination)
    except BaseException:
        old.rename(destination)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)
