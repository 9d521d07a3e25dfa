"""What research is made of, on top of the clients.

| module | what it holds |
|---|---|
| `losses` | losses of the user's own, and how regularizers are added to one: `compose` |
| `regularizers` | L2, KL and entropy, with their gradients |

It imports public names only: those of `types`, `errors` and `kernel`. What it does, users can do.
"""

from __future__ import annotations

from tinker_actors.rl.losses import (
    Composition,
    LossFn,
    Regularizer,
    compose,
    cross_entropy,
    importance_sampling,
)
from tinker_actors.rl.regularizers import KL, L2, Entropy

__all__ = [
    "KL",
    "L2",
    "Composition",
    "Entropy",
    "LossFn",
    "Regularizer",
    "compose",
    "cross_entropy",
    "importance_sampling",
]
