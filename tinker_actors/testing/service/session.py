"""Endpoints around the work: configuration, keys, sessions, telemetry."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from urllib.parse import parse_qsl

import orjson

from .call import Call
from .reply import Answer, Refusal
from .state import Session

__all__ = [
    "auth_token",
    "client_config",
    "client_dynamic_config",
    "create_session",
    "finish_session",
    "get_server_capabilities",
    "get_session",
    "healthz",
    "list_sessions",
    "make_jwt",
    "page_of",
    "session_heartbeat",
    "telemetry",
]

_SESSION_FIELDS = ("tags", "user_metadata", "project_id", "display_name")
BASE_MODEL = (
    "tinker-actors/char-100k"  # the embedded service's, so that clients find a tokenizer without a network
)


def healthz(_: Call) -> Answer:
    """Answer."""
    return Answer({"status": "ok"})


def client_config(call: Call) -> Answer:
    """Tell the flags."""
    dialect = call.state.dialect
    flags = (
        {"sequence_dedupe": dialect.dedupe, "early_numbers": dialect.early_numbers}
        if dialect.says_flags
        else {}
    )
    return Answer({**flags, **call.state.flags})


def client_dynamic_config(call: Call) -> Answer:
    """Tell the flags that may change."""
    return Answer(call.state.dynamic_flags)


def make_jwt(subject: str, issued: float, expires: float) -> str:
    """Return a token that nobody signed."""
    parts = (
        {"alg": "none", "typ": "JWT"},
        {"sub": subject, "org_id": "org", "iat": int(issued), "exp": int(expires)},
    )
    shown = [base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode() for part in parts]
    return f"{shown[0]}.{shown[1]}."


def auth_token(call: Call) -> Answer:
    """Exchange the key for a token."""
    wall = call.state.epoch + call.now
    lifetime = call.state.token_lifetime or 3600.0
    token = make_jwt(f"user-{len(call.state.tokens)}", wall, wall + lifetime)
    call.state.tokens[token] = call.now + lifetime
    return Answer({"jwt": token})


def get_server_capabilities(_: Call) -> Answer:
    """Name the one base model."""
    model = {"model_name": BASE_MODEL, "max_context_length": 2048, "trainable": True, "sampleable": True}
    return Answer({"supported_models": [model]})


def create_session(call: Call) -> Answer:
    """Open a session."""
    session_id = f"session-{len(call.state.sessions)}"
    request: dict[str, object] = {name: call.body[name] for name in _SESSION_FIELDS if name in call.body}
    call.state.sessions[session_id] = Session(session_id, call.now, request)
    status = 201 if call.state.dialect.created_status == 202 else 200
    return Answer({"type": "create_session", "session_id": session_id}, status)


def session_heartbeat(call: Call) -> Answer:
    """Note a beat."""
    session = call.state.sessions.get(call.need("session_id", str))
    status = call.state.dialect.heartbeat_unknown if session is None else session.lost or 200
    if status >= 400:
        raise Refusal(status, "Session not found" if session is None else "Session has ended")
    if session is not None:
        session.beats += 1
        session.last_beat = call.now
    return Answer({"type": "session_heartbeat"})


def finish_session(call: Call) -> Answer:
    """End a session; the first reason counts."""
    session = call.state.session(call.request.params["session_id"])
    if session.finished is None:
        session.finished = dict(call.body)
        call.state.lose_session(session, 410, call.now)
    return Answer({})


def telemetry(call: Call) -> Answer:
    """Keep the events."""
    call.state.telemetry.extend(call.need("events", list))
    return Answer({"status": "accepted"})


def get_session(call: Call) -> Answer:
    """Describe a session; one that has ended is described as well, but not one that was forgotten."""
    session = call.state.sessions.get(call.request.params["session_id"])
    if session is None or session.lost in (404, 500):
        raise Refusal(404, "Session not found")
    body = {
        "training_run_ids": session.models,
        "sampler_ids": session.samplers,
        "user_metadata": session.request.get("user_metadata"),
        "display_name": session.request.get("display_name"),
    }
    return Answer(body)


def list_sessions(call: Call) -> Answer:
    """List the sessions, newest first."""
    page, _ = page_of(call, list(call.state.sessions)[::-1], 20)
    return Answer({"sessions": page})


def page_of(call: Call, items: Sequence[object], usual: int) -> tuple[list[object], dict[str, int]]:
    """Cut a page out of a list by the query's `limit` and `offset`; return it and its cursor."""
    query = dict(parse_qsl(call.request.query))
    try:
        limit, offset = int(query.get("limit", usual)), int(query.get("offset", 0))
    except ValueError:
        raise Refusal(422, [{"type": "int_parsing", "loc": ["query"], "msg": "not an integer"}]) from None
    page = list(items[offset : offset + limit])
    return page, {"offset": offset, "limit": limit, "total_count": len(items)}
