"""What the command line makes of errors."""

from __future__ import annotations

import click
import pytest

import tinker_actors.cli
from tinker_actors.errors import ConfigError


def test_errors_end_in_a_line_each_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever groups they come in, and on every release of Python: no group and no trace leaves `main`."""

    def fail(**_: object) -> None:
        inner = ConfigError("cannot listen")
        inner.add_note("the port is taken")
        raise ExceptionGroup("nursery", [ExceptionGroup("nursery", [inner]), ConfigError("no key")])

    monkeypatch.setattr(tinker_actors.cli, "command", fail)
    with pytest.raises(SystemExit) as left:
        tinker_actors.cli.main()
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: cannot listen\n  the port is taken\nerror: no key\n"


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect keeps its trace."""

    def fail(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(tinker_actors.cli, "command", fail)
    with pytest.raises(ZeroDivisionError):
        tinker_actors.cli.main()


def test_every_command_that_is_listed_is_there_under_its_name() -> None:
    """And nothing else is."""
    group = tinker_actors.cli.command
    context = click.Context(group)
    names = group.list_commands(context)
    assert names == sorted(names) == ["checkpoints", "demo", "gc", "serve", "supervise"]
    for name in names:
        found = group.get_command(context, name)
        assert found is not None
        assert found.name == name
    assert group.get_command(context, "nonsense") is None
