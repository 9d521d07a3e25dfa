"""`tinker-actors checkpoints` and `tinker-actors gc`: what a run has saved, and letting go of what is outdated."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs
import click

from tinker_actors.errors import ConfigError
from tinker_actors.protocol.retention import Retention, RunCheckpoint
from tinker_actors.protocol.run_identity import BACKEND, is_moved

if TYPE_CHECKING:
    from tinker_actors.runs.keeping import Collected

__all__ = ["checkpoints", "gc"]

_RUN_DIR = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("run_dir", type=_RUN_DIR)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def checkpoints(run_dir: Path, *, as_json: bool) -> None:
    """Show the checkpoints of a run, also while it is being trained."""
    from tinker_actors.journal.looking import look_at

    seen = look_at(run_dir)
    if as_json:
        for one in seen.checkpoints:
            click.echo(json.dumps(attrs.asdict(one)))
        return
    click.echo(f"{seen.steps} steps decided, opened {seen.incarnation} times")
    for line in _table(seen.checkpoints):
        click.echo(line)


def _table(rows: Iterable[RunCheckpoint]) -> list[str]:
    cells = [("name", "step", "state", "metric", "", "path")]
    for one in rows:
        metric = "" if one.metric is None else f"{one.metric:g}"
        cells.append(
            (one.name, str(one.step), one.state, metric, "pinned" if one.pinned else "", one.path or "")
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


@click.command()
@click.argument("run_dir", type=_RUN_DIR)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted, and why the others are kept.")
@click.option("--last", default=2, show_default=True, help="Keep so many of the newest; two at least.")
@click.option("--every", type=int, help="Keep those whose step is a multiple of it.")
@click.option("--best", default=0, show_default=True, help="Keep so many of those with the best metric.")
@click.option("--lowest", is_flag=True, help="The lowest metric is the best.")
@click.option("--backend", help="Where they are; by default where the run was trained last.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gc(
    run_dir: Path,
    *,
    dry_run: bool,
    last: int,
    every: int | None,
    best: int,
    lowest: bool,
    backend: str | None,
    as_json: bool,
) -> None:
    """Delete the checkpoints of a run that are not kept, on the service; pinned ones are.

    The run must not be open: a program collects its own by `run.gc`.
    """
    import trio

    best_is: Literal["highest", "lowest"] = "lowest" if lowest else "highest"
    retention = Retention(last=last, every=every, best=best, best_is=best_is, ttl_seconds=None)
    collected = trio.run(_collect, run_dir, retention, backend, dry_run)
    if as_json:
        click.echo(json.dumps(_as_json(collected, dry_run=dry_run)))
    else:
        for line in _lines(collected, dry_run=dry_run):
            click.echo(line)
    if collected.failed:
        raise SystemExit(1)


async def _collect(run_dir: Path, retention: Retention, backend: str | None, dry_run: bool) -> Collected:
    from tinker_actors.journal.looking import look_at
    from tinker_actors.journal.opening import open_journal
    from tinker_actors.opening.backend import choose_backend
    from tinker_actors.opening.run import embedded_of
    from tinker_actors.opening.service import open_rest_client
    from tinker_actors.runs.keeping import Keeping
    from tinker_actors.transport.config import Environment

    look_at(run_dir)  # or a directory without a run would be made one
    async with contextlib.aclosing(open_journal(run_dir)) as journal:
        where = backend or journal.facts.get(BACKEND)
        if not isinstance(where, str):
            raise ConfigError("it is not known where the run was trained: say it with --backend")
        chosen = choose_backend(where, None, None, Environment.read(os.environ))
        is_moved(journal.facts.get(BACKEND), chosen.name, ())  # nothing is known of what another service has
        embedded = embedded_of(run_dir) if chosen.base_url is None else None
        async with open_rest_client(where, embedded=embedded) as rest:
            keeping = Keeping(journal, rest, retention, lambda _: None)
            return await keeping.collect(dry_run=dry_run)


def _as_json(collected: Collected, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "deleted": [one.name for one in collected.deleted],
        "kept": collected.kept,
        "failed": collected.failed,
    }


def _lines(collected: Collected, *, dry_run: bool) -> list[str]:
    verb = "would delete" if dry_run else "deleted"
    return [
        *[f"{verb} {one.name}  {one.path or 'which was never saved'}" for one in collected.deleted],
        *[f"kept {name}  {why}" for name, why in collected.kept.items()],
        *[f"not deleted {name}  {why}" for name, why in collected.failed.items()],
    ]
