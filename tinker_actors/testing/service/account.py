"""Endpoints around an account: keys, bills, audits, projects, and where things can be downloaded."""

from __future__ import annotations

import math

import attrs

from .call import Call
from .listing import checkpoint_of, time_of
from .reply import Answer, Refusal
from .state import Session

__all__ = [
    "assign_session_project",
    "copy_weights",
    "delete_api_key",
    "export_session_trace",
    "get_api_key",
    "get_audit_log",
    "get_billing_usage",
    "get_checkpoint_archive_url",
    "get_current_checkpoint_storage_usage",
    "get_external_weights_urls",
    "search_sessions",
]

_LINK_SECONDS = 3600.0


def get_api_key(_: Call) -> Answer:
    """Describe the key."""
    details = {"org_details": {"name": "scripted"}, "user_details": {"email": "user@example.org"}}
    return Answer({"key_id": 1, "name": "scripted", "note": None, "details": details})


def delete_api_key(_: Call) -> Answer:
    """Pretend to revoke the key."""
    return Answer({})


def get_billing_usage(call: Call) -> Answer:
    """List no costs."""
    return Answer({"data": [], "sessions": {}, "cost_data_through": time_of(call, call.now)})


def get_current_checkpoint_storage_usage(call: Call) -> Answer:
    """Count the checkpoints that are kept."""
    count = sum(one.expires_at > call.now for one in call.state.checkpoints.values())
    usage = {
        "checkpoint_count": count,
        "size_bytes": 1024 * count,
        "size_gigabytes": 1024 * count / 1e9,
        "estimated_monthly_cost_usd": 0.0,
    }
    return Answer({"data": [usage]})


def get_audit_log(call: Call) -> Answer:
    """List when sessions were opened."""
    sessions = call.state.sessions.values()
    entries = [
        {
            "timestamp": time_of(call, one.created),
            "event": "create_session",
            "event_details": {"session_id": one.session_id},
        }
        for one in sessions
    ]
    return Answer({"entries": entries})


# --------------------------------------------------------------------------------------------------- sessions


def _session(call: Call) -> Session:
    session = call.state.sessions.get(call.request.params["session_id"])
    if session is None:
        raise Refusal(404, "Session not found")
    return session


def assign_session_project(call: Call) -> Answer:
    """Put a session into a project."""
    _session(call).request["project_id"] = call.need("project_id", str)
    return Answer({})


def export_session_trace(call: Call) -> Answer:
    """Say where a session's trace lies."""
    session = _session(call)
    return Answer({"status": "ready", "url": f"https://traces.invalid/{session.session_id}"})


def search_sessions(call: Call) -> Answer:
    """Find sessions by id, project and metadata, newest first; one page holds `limit` of them."""
    wanted = call.get("session_id", str, "")
    projects = call.get("project_ids", list, [])
    metadata = call.get("user_metadata", dict, {}).items()
    found = [
        _summary(call, one)
        for one in reversed(call.state.sessions.values())
        if wanted in ("", one.session_id)
        and (not projects or one.request.get("project_id") in projects)
        and metadata <= _metadata(one).items()
    ]
    last = call.get("cursor", dict, {}).get("last_session_id")
    ids = [one["session_id"] for one in found]
    begin = ids.index(last) + 1 if last in ids else 0
    page = found[begin : begin + call.get("limit", int, 50)]
    more = begin + len(page) < len(found)
    cursor = (
        {"last_created_at": page[-1]["created_at"], "last_session_id": page[-1]["session_id"]}
        if more
        else None
    )
    return Answer({"sessions": page, "next_cursor": cursor})


def _metadata(session: Session) -> dict[object, object]:
    value = session.request.get("user_metadata")
    return value if isinstance(value, dict) else {}


def _status(session: Session) -> dict[object, object]:
    if not isinstance(session.finished, dict):
        return {"type": "active"}
    return {**session.finished, "type": "client_finished"}


def _summary(call: Call, session: Session) -> dict[str, object]:
    kept = [one for one in call.state.checkpoints.values() if one.model_id in session.models]
    return {
        "session_id": session.session_id,
        "created_at": time_of(call, session.created),
        "owner": "tml:user:scripted",
        "project_id": session.request.get("project_id"),
        "status": _status(session),
        "checkpoints_count": len(kept),
        "display_name": session.request.get("display_name"),
        "user_metadata": _metadata(session),
    }


# ------------------------------------------------------------------------------------------------ checkpoints


def copy_weights(call: Call) -> Answer:
    """Keep a checkpoint once more, in a run of its own; doing it again does nothing more."""
    source = call.state.checkpoint(call.need("source_path", str), call.now)
    run, ttl = f"copy-of-{source.model_id}", call.number("ttl_seconds")
    copy = attrs.evolve(
        source,
        path=f"tinker://{run}/{source.kind}/{source.name}",
        model_id=run,
        created=call.now,
        expires_at=math.inf if ttl is None else call.now + ttl,
        public=False,
    )
    call.state.checkpoints[copy.path] = copy
    return Answer({"tinker_path": copy.path})


def get_checkpoint_archive_url(call: Call) -> Answer:
    """Say where a checkpoint can be downloaded, by a redirect, as the service does."""
    url = f"https://archives.invalid/{checkpoint_of(call).name}.tar"
    return Answer({"url": url}, 302, headers=(("location", url),))


def get_external_weights_urls(call: Call) -> Answer:
    """Say where the files of an external checkpoint lie."""
    checkpoint = checkpoint_of(call)
    if checkpoint.kind != "external_weights":
        raise Refusal(400, f"{checkpoint.path} is not an external checkpoint")
    urls = {"adapter_model.safetensors": f"https://weights.invalid/{checkpoint.name}"}
    return Answer({"urls": urls, "expires": time_of(call, call.now + _LINK_SECONDS)})
