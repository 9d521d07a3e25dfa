"""Deleting many checkpoints: a few at a time, and a failure keeps nothing else from being deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from tinker_actors.errors import DeletionFailed, TinkerActorsError

__all__ = ["delete_each"]

_AT_ONCE: Final = 8


async def delete_each(paths: Sequence[str], delete: Callable[[str], Awaitable[None]]) -> tuple[str, ...]:
    """Delete checkpoints by their paths and return the paths. Checkpoints.

    Raises:
        DeletionFailed: some were not deleted.
    """
    failed: dict[str, TinkerActorsError] = {}
    limiter = trio.CapacityLimiter(_AT_ONCE)

    async def one(path: str) -> None:
        async with limiter:
            try:
                await delete(path)
            except TinkerActorsError as error:
                failed[path] = error

    await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        for path in paths:
            nursery.start_soon(one, path, name=f"delete {path}")
    if failed:
        first = next(path for path in paths if path in failed)
        message = f"{len(failed)} of {len(paths)} checkpoints were not deleted; {first}: {failed[first]}"
        error = DeletionFailed(
            message,
            deleted=[path for path in paths if path not in failed],
            failed={path: failed[path] for path in paths if path in failed},
        )
        raise error from failed[first]
    return tuple(paths)
