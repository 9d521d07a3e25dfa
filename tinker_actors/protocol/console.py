"""Addresses in the console of the Tinker service, where people look at their sessions, runs and checkpoints. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

__all__ = ["CONSOLE", "checkpoint_console_url", "run_console_url", "session_console_url"]

CONSOLE: Final = "https://tinker.thinkingmachines.ai"  # tinker 0.38.0


def _below(*parts: str) -> str:
    return "/".join([CONSOLE, *(quote(part, safe="") for part in parts)])


def session_console_url(session_id: str | None = None) -> str:
    """Return where a session is shown; without one, the list of them."""
    return _below("sessions") if not session_id else _below("sessions", session_id)


def run_console_url(training_run_id: str) -> str:
    """Return where a training run is shown."""
    return _below("training_runs", training_run_id)


def checkpoint_console_url(training_run_id: str, checkpoint_id: str) -> str:
    """Return where a checkpoint, such as `weights/0001` of a run, is shown."""
    return _below("checkpoints", training_run_id, checkpoint_id)
