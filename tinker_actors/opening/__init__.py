"""Opening a service or a run: the one place that knows both the clients and the embedded service.

    backend    which one it is, and why
    settings   what is taken by name, and what the environment adds
    service    open_service, open_rest_client, open_admin_client
    run        open_run

One line on stderr says which backend was chosen and why.
"""

from __future__ import annotations

from tinker_actors.opening.backend import Backend, choose_backend
from tinker_actors.opening.run import open_run
from tinker_actors.opening.service import open_admin_client, open_rest_client, open_service
from tinker_actors.opening.settings import Settings

__all__ = [
    "Backend",
    "Settings",
    "choose_backend",
    "open_admin_client",
    "open_rest_client",
    "open_run",
    "open_service",
]
