"""`tinker-actors serve`: the embedded service on loopback, for other processes."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import click

__all__ = ["serve"]

_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--seed", default=0, show_default=True, help="Seed for what clients leave open.")
@click.option(
    "--api-key", envvar="TINKER_ACTORS_SERVE_KEY", help="Key that clients must send; none by default."
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep checkpoints, sessions and runs here, through restarts; in memory by default.",
)
def serve(host: str, port: int, seed: int, api_key: str | None, directory: Path | None) -> None:
    """Serve the embedded Tinker service over HTTP until interrupted."""
    # One thread per product: a second one gains nothing on matrices this small, and one is repeatable everywhere.
    # numpy reads these when it is imported, which happens below.
    for name in _BLAS_THREADS:
        os.environ.setdefault(name, "1")
    _serve(host, port, seed, api_key, directory)


def _serve(host: str, port: int, seed: int, api_key: str | None, directory: Path | None) -> None:
    import trio

    from tinker_actors.local.serve import serve as serve_service
    from tinker_actors.local.service import EmbeddedService

    service = EmbeddedService(seed=seed, api_key=api_key, state=directory)

    async def main() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                url = await nursery.start(partial(serve_service, service, host=host, port=port))
                click.echo(f"serving on {url}  (TINKER_BASE_URL={url})")
                await anext(signals)
                nursery.cancel_scope.cancel(reason="a signal asked for the end")
        click.echo("stopped")

    trio.run(main)
