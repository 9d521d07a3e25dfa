"""These tests need torch, jax and autograd: `make test-torch` runs them, and elsewhere they are not collected."""

from __future__ import annotations

import importlib.util

PACKAGES = ("torch", "jax", "autograd")

collect_ignore_glob = [] if all(map(importlib.util.find_spec, PACKAGES)) else ["test_*.py"]
