"""Addresses in the console."""

from __future__ import annotations

from tinker_actors.protocol.console import checkpoint_console_url, run_console_url, session_console_url


def test_ids_are_quoted_whole() -> None:
    """An id is one part of the address, whatever it holds."""
    root = "https://tinker.thinkingmachines.ai"
    assert session_console_url() == f"{root}/sessions"
    assert session_console_url("a b") == f"{root}/sessions/a%20b"
    assert run_console_url("s:train:0") == f"{root}/training_runs/s%3Atrain%3A0"
    assert checkpoint_console_url("s", "weights/1") == f"{root}/checkpoints/s/weights%2F1"
