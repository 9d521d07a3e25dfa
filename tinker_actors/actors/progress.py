"""How far a download is: told to a function of the user's, or shown in a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Literal, TextIO, TypeAlias, cast

from tinker_actors.errors import InputError

__all__ = ["ProgressCallback", "ProgressSetting", "progress_shown"]

ProgressCallback: TypeAlias = Callable[[int, int | None], object]
"""Told the bytes that are there and the bytes there will be, None if nobody knows. The first may fall: a service that
cannot go on where it was cut begins anew."""
ProgressSetting: TypeAlias = ProgressCallback | Literal["bar"] | None
"""A function; or `bar`, for a bar on stderr where that is a terminal; or nothing."""


@contextlib.contextmanager
def progress_shown(
    progress: ProgressSetting, title: str, stream: TextIO | None = None
) -> Iterator[ProgressCallback]:
    """Give a function that is to be told how far a download is.

    Args:
        progress: what the user wants.
        title: stands beside a bar.
        stream: where a bar is drawn; None is stderr.

    Raises:
        InputError: neither a function, nor `bar`, nor None.
    """
    shown = sys.stderr if stream is None else stream
    if progress == "bar" and shown.isatty():
        with _bar(title, shown) as tell:
            yield tell
        return
    given = cast("object", progress)
    if given is not None and given != "bar" and not callable(given):
        raise InputError("progress", progress, "must be a function of (done, total), 'bar', or None")
    yield progress if callable(progress) else _nobody


def _nobody(_: int, __: int | None) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def _bar(title: str, stream: TextIO) -> Iterator[ProgressCallback]:
    from rich.console import Console  # half of this room's time to import, and most never draw a bar
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(title, total=None)

        def tell(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield tell
