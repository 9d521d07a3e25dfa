"""What research is made of, on top of the clients.

| module | what it holds |
|---|---|
| `losses` | losses of the user's own, and how regularizers are added to one: `compose` |
| `regularizers` | L2, KL and entropy, with their gradients |

It imports public names only: those of `types`, `errors` and `kernel`. What it does, users can do.
"""

from __future__ import annotations
