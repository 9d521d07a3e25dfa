"""Plain calls that need no place in line."""

from __future__ import annotations

from pathlib import Path

import trio

from tinker_actors.errors import InputError
from tinker_actors.transport.http import HttpTransport

__all__ = ["RestClient"]

_CHECKPOINT_PARTS = 3  # tinker://<run>/<segment>/<name>


class RestClient:
    """Looks after what is saved on the service."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport

    async def download_checkpoint(self, path: str, destination: Path) -> Path:
        """Write the archive (tar) of a checkpoint to a file.

        Args:
            path: `tinker://<model id>/weights/<name>` or `.../sampler_weights/<name>`.
            destination: the file; it appears only when it is complete.

        Raises:
            InputError: not such a path.
            NotFoundError: no such checkpoint, or a service without archives.
        """
        parts = path.removeprefix("tinker://").split("/")
        if not path.startswith("tinker://") or len(parts) != _CHECKPOINT_PARTS:
            raise InputError("path", path, "must be tinker://<model>/<weights or sampler_weights>/<name>")
        url = f"/api/v1/training_runs/{parts[0]}/checkpoints/{parts[1]}/{parts[2]}/archive"
        partial = trio.Path(destination.with_name(destination.name + ".partial"))
        try:
            async with self._transport.stream(url) as pieces, await trio.open_file(partial, "wb") as file:
                async for piece in pieces:
                    await file.write(piece)
            await partial.rename(destination)
        except BaseException:
            with trio.CancelScope(shield=True):
                await partial.unlink(missing_ok=True)
            raise
        return destination
