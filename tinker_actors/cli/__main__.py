"""`python -m tinker_actors.cli`."""

from __future__ import annotations

from tinker_actors.cli import main

main()
