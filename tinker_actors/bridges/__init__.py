"""Bridges to other worlds: loops and packages that this one does not need, and that its users have.

| module | bridge |
|---|---|
| `guest` | trio as a guest of an asyncio loop, in one thread: `run(main, asyncio=True)`, `run_guest` |
| `crossing` | calls between the two loops: `aio` from trio, `from_aio` from asyncio |
| `waiting` | how asyncio waits for something that is cancelled with its caller, and cleans up first |
| `portal` | a trio loop in a thread of its own, for plain scripts and notebooks: `open_portal` |
| `call`, `keeper` | one call through a portal; one context manager that a portal holds open |
| `torch`, `jax`, `autograd` | losses with automatic gradients: `loss(function)`; each needs the extra of its name |
| `gradient` | what these three share |

The rest of the package is written for trio alone. What a bridge leads to is imported inside its module or its
functions, so that nobody pays for a bridge that is not used. Each bridge keeps the one rule of structured
concurrency: a call is over when everything it started is over, and a cancelled caller waits for the clean-up.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinker_actors.bridges import autograd, jax, torch

__all__ = ["autograd", "jax", "torch"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
