"""The paths a scripted service knows, and which of its endpoints make what.

Written down here once more on purpose: a test kit that took its paths from the client's own table could not show
that a client calls a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["ENDPOINT_NAMES", "MODEL_ENDPOINTS", "PROMISING", "SESSION_ENDPOINTS", "find_route"]

_CHECKPOINT: Final = "/training_runs/{run}/checkpoints/{kind}/{name}"

# tinker 0.38.0 `/api/v1` resources, and what older releases and our own service have beside them.
_ROUTES: Final = (
    ("GET", "/healthz", "healthz"),
    ("POST", "/client/config", "client_config"),
    ("POST", "/client/dynamic_config", "client_dynamic_config"),
    ("POST", "/auth/token", "auth_token"),
    ("GET", "/get_server_capabilities", "get_server_capabilities"),
    ("POST", "/create_session", "create_session"),
    ("POST", "/session_heartbeat", "session_heartbeat"),
    ("POST", "/sessions/{session_id}/finish", "finish_session"),
    ("POST", "/telemetry", "telemetry"),
    ("POST", "/create_model", "create_model"),
    ("POST", "/get_info", "get_info"),
    ("POST", "/unload_model", "unload_model"),
    ("POST", "/forward", "forward"),
    ("POST", "/forward_backward", "forward_backward"),
    ("POST", "/optim_step", "optim_step"),
    ("POST", "/create_custom_loss", "create_custom_loss"),
    ("POST", "/load_weights", "load_weights"),
    ("POST", "/save_weights", "save_weights"),
    ("POST", "/save_weights_for_sampler", "save_weights_for_sampler"),
    ("POST", "/save_weights_external", "save_weights_external"),
    ("POST", "/create_sampling_session", "create_sampling_session"),
    ("POST", "/join_sampling_session", "join_sampling_session"),
    ("POST", "/asample", "asample"),
    ("POST", "/retrieve_future", "retrieve_future"),
    ("POST", "/retrieve_futures", "retrieve_futures"),
    ("POST", "/cancel_future", "cancel_future"),
    ("GET", "/samplers/{sampler_id}", "get_sampler"),
    ("GET", "/training_runs", "list_training_runs"),
    ("GET", "/training_runs/{run}", "get_training_run"),
    ("GET", "/training_runs/{run}/checkpoints", "list_checkpoints"),
    ("GET", "/checkpoints", "list_user_checkpoints"),
    ("DELETE", _CHECKPOINT, "delete_checkpoint"),
    ("POST", f"{_CHECKPOINT}/publish", "publish_checkpoint"),
    ("DELETE", f"{_CHECKPOINT}/publish", "unpublish_checkpoint"),
    ("PUT", f"{_CHECKPOINT}/ttl", "set_checkpoint_ttl"),
    ("GET", f"{_CHECKPOINT}/archive", "get_checkpoint_archive_url"),
    ("GET", f"{_CHECKPOINT}/external_weights_urls", "get_external_weights_urls"),
    ("POST", "/weights_info", "weights_info"),
    ("POST", "/copy_weights", "copy_weights"),
    ("POST", "/sessions/search", "search_sessions"),
    ("PUT", "/sessions/{session_id}/project", "assign_session_project"),
    ("GET", "/sessions/{session_id}/trace_export", "export_session_trace"),
    ("GET", "/auth/apikey/me", "get_api_key"),
    ("DELETE", "/auth/apikey/me", "delete_api_key"),
    ("GET", "/audit", "get_audit_log"),
    ("GET", "/billing/usage/events", "get_billing_usage"),
    ("GET", "/billing/usage/checkpoints/current", "get_current_checkpoint_storage_usage"),
    ("GET", "/sessions", "list_sessions"),
    ("GET", "/sessions/{session_id}", "get_session"),
)

ENDPOINT_NAMES: Final = frozenset(name for _, _, name in _ROUTES)

MODEL_ENDPOINTS: Final = frozenset(
    {
        "get_info",
        "forward",
        "forward_backward",
        "optim_step",
        "load_weights",
        "save_weights",
        "save_weights_for_sampler",
        "save_weights_external",
    }
)
"""They name a model, which may be lost or rolled back when they come."""

PROMISING: Final = (MODEL_ENDPOINTS - {"get_info"}) | {
    "create_model",
    "unload_model",
    "create_custom_loss",
    "asample",
}
"""They are answered with a promise."""

SESSION_ENDPOINTS: Final = MODEL_ENDPOINTS | {
    "session_heartbeat",
    "create_model",
    "create_sampling_session",
    "create_custom_loss",
    "asample",
}
"""They name a session, or something that belongs to one."""


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template) + r"\Z")


_PATTERNS: Final = tuple((method, _pattern(template), name) for method, template, name in _ROUTES)


def find_route(method: str, path: str) -> tuple[str, Mapping[str, str]] | int:
    """Find the endpoint of a request.

    Returns:
        Its name and the variable parts of the path; or the status of the refusal, 404 or 405.
    """
    _, root, rest = path.rpartition("/api/v1/")
    if not root:
        return 404
    status = 404
    for expected, pattern, name in _PATTERNS:
        if found := pattern.match(f"/{rest}"):
            if expected == method:
                return name, MappingProxyType(found.groupdict())
            status = 405
    return status
