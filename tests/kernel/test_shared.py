"""A context is entered by the first one who wants it, and left by the last."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from tinker_actors.kernel.shared import SharedContext


class Switch:
    """Notes when it is put on and off."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.is_broken = False

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        if self.is_broken:
            raise OSError("broken")
        self.log.append("on")
        try:
            yield
        finally:
            self.log.append("off")


def test_the_first_one_enters_and_the_last_one_leaves() -> None:
    """In whatever order they come and go, of whatever thread they are, and however they leave; then it begins anew."""
    switch = Switch()
    shared = SharedContext(switch.on)
    for _ in range(2):
        switch.log.clear()
        first, second = contextlib.ExitStack(), contextlib.ExitStack()
        first.enter_context(shared())
        thread = threading.Thread(target=second.enter_context, args=(shared(),))
        thread.start()
        thread.join()
        first.close()
        assert switch.log == ["on"]
        with pytest.raises(KeyError), second:
            raise KeyError
        assert switch.log == ["on", "off"]


def test_who_could_not_enter_is_not_counted() -> None:
    """The next one enters."""
    switch = Switch()
    shared = SharedContext(switch.on)
    switch.is_broken = True
    with pytest.raises(OSError, match="broken"), shared():
        pass
    switch.is_broken = False
    with shared():
        assert switch.log == ["on"]
    assert switch.log == ["on", "off"]
