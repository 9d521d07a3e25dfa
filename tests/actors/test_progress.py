"""Who is told how far a download is."""

from __future__ import annotations

import io

import pytest

from tinker_actors.actors.progress import progress_shown
from tinker_actors.errors import InputError


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_function_is_told() -> None:
    """As it is."""
    told: list[tuple[int, int | None]] = []
    with progress_shown(lambda done, total: told.append((done, total)), "a") as tell:
        tell(1, None)
        tell(2, 5)
    assert told == [(1, None), (2, 5)]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_in_a_terminal_only(terminal: bool) -> None:
    """Where nobody looks, nothing is written."""
    stream = Terminal() if terminal else io.StringIO()
    with progress_shown("bar", "weights/a", stream) as tell:
        tell(0, None)
        tell(5_000_000, 10_000_000)
    assert ("weights/a" in stream.getvalue()) == terminal
    assert ("5.0/10.0 MB" in stream.getvalue()) == terminal


def test_nothing_and_nonsense() -> None:
    """None is nobody; what cannot be told is refused."""
    with progress_shown(None, "a") as tell:
        tell(1, 2)
    with pytest.raises(InputError, match="progress"), progress_shown("bra", "a"):  # type: ignore[arg-type]
        pass  # pragma: no cover - it is not entered
