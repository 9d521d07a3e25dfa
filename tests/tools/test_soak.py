"""The soak, in seconds instead of minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.mark.slow
def test_our_connections_survive_a_short_soak() -> None:
    """Every slot is free afterwards, all health requests are answered, and the last line says so in JSON."""
    command = [sys.executable, str(SCRIPT), "--seconds", "2", "--seed", "7"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["passed"] is True
    assert last["own"]["health"] == 100
    assert last["own"]["slots_in_use"] == 0
    assert last["own"]["answered"] > 0
    assert set(last["stock"]) == set(last["own"])
