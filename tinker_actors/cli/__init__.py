"""The command line: `tinker-actors` with `demo`, `serve`, `supervise`, `checkpoints` and `gc`."""

from __future__ import annotations

import importlib
import sys
from typing import ClassVar, cast

import click

from tinker_actors.errors import TinkerActorsError
from tinker_actors.version import __version__

__all__ = ["command", "main"]


class _LazyGroup(click.Group):
    """Imports a command's module only when it is asked for, so that `--help` and `serve` start fast.

    Which module a command is in stands in one place; in it, it has its own name.
    """

    _modules: ClassVar = {
        "checkpoints": "checkpoints",
        "demo": "demo",
        "gc": "checkpoints",
        "serve": "serve",
        "supervise": "supervise",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in self._modules:
            return None
        module = importlib.import_module(f"tinker_actors.cli.{self._modules[cmd_name]}")
        return cast("click.Command", getattr(module, cmd_name))


@click.group(cls=_LazyGroup)
@click.version_option(__version__, prog_name="tinker-actors")
def command() -> None:
    """Train and sample LoRA models through the Tinker API, with actors on trio."""


def main() -> None:
    """Run the command line; errors that say what the user can do are printed without a trace."""
    refused = False
    try:
        command(prog_name="tinker-actors")
    except* TinkerActorsError as group:
        for error in leaves(group):
            _print_error(error)
        refused = True
    if refused:
        sys.exit(1)  # not above: early releases of Python 3.11 put what an `except*` raises into a group


def _print_error(error: Exception) -> None:
    click.echo(f"error: {error}", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"  {note}", err=True)


def leaves(group: ExceptionGroup[TinkerActorsError]) -> list[TinkerActorsError]:
    """Return the exceptions of a group and of the groups in it, in order."""
    found: list[TinkerActorsError] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, ExceptionGroup) else [error]
    return found
