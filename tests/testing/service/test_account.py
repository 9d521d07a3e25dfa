"""The service has every call of the API, and its answers are of the shapes that clients expect."""

from __future__ import annotations

import json

import attrs

from tinker_actors.testing import ScriptedService
from tinker_actors.wire import codec
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.payload import Payload
from tinker_actors.wire.service import Empty
from tinker_actors.wire.session import FinishReason, SessionClientFinished, SessionSearchResponse

BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}
RUN = "session-0:train:0"
CHECKPOINT = f"training_runs/{RUN}/checkpoints"

# In this order; each with the name of its endpoint.
CALLS = (
    ("healthz", "GET healthz", None),
    ("client_config", "POST client/config", {"sdk_version": "1"}),
    ("client_dynamic_config", "POST client/dynamic_config", {"sdk_version": "1"}),
    ("auth_token", "POST auth/token", {}),
    ("get_api_key", "GET auth/apikey/me", None),
    ("get_server_capabilities", "GET get_server_capabilities", None),
    ("create_session", "POST create_session", {"tags": [], "user_metadata": {"a": "b"}, "sdk_version": "1"}),
    ("session_heartbeat", "POST session_heartbeat", {"session_id": "session-0"}),
    ("create_model", "POST create_model", {"session_id": "session-0", "model_seq_id": 0, "base_model": "m"}),
    ("get_info", "POST get_info", {"model_id": RUN}),
    ("optim_step", "POST optim_step", {"model_id": RUN, "seq_id": 1, "adam_params": {}}),
    ("save_weights", "POST save_weights", {"model_id": RUN, "path": "a", "seq_id": 2}),
    (
        "save_weights_for_sampler",
        "POST save_weights_for_sampler",
        {"model_id": RUN, "path": "b", "seq_id": 3},
    ),
    ("save_weights_external", "POST save_weights_external", {"model_id": RUN, "path": "c", "seq_id": 4}),
    (
        "load_weights",
        "POST load_weights",
        {"model_id": RUN, "path": f"tinker://{RUN}/weights/a", "seq_id": 5},
    ),
    ("retrieve_future", "POST retrieve_future", {"request_id": f"{RUN}:1"}),
    ("cancel_future", "POST cancel_future", {"request_id": f"{RUN}:1"}),
    ("weights_info", "POST weights_info", {"tinker_path": f"tinker://{RUN}/weights/a"}),
    ("copy_weights", "POST copy_weights", {"source_path": f"tinker://{RUN}/weights/a"}),
    ("list_training_runs", "GET training_runs?limit=5", None),
    ("get_training_run", f"GET training_runs/{RUN}", None),
    ("list_checkpoints", f"GET {CHECKPOINT}", None),
    ("list_user_checkpoints", "GET checkpoints", None),
    ("publish_checkpoint", f"POST {CHECKPOINT}/weights/a/publish", None),
    ("unpublish_checkpoint", f"DELETE {CHECKPOINT}/weights/a/publish", None),
    ("set_checkpoint_ttl", f"PUT {CHECKPOINT}/weights/a/ttl", {"ttl_seconds": 60}),
    ("get_checkpoint_archive_url", f"GET {CHECKPOINT}/weights/a/archive", None),
    ("get_external_weights_urls", f"GET {CHECKPOINT}/external_weights/c/external_weights_urls", None),
    ("delete_checkpoint", f"DELETE {CHECKPOINT}/weights/a", None),
    (
        "create_sampling_session",
        "POST create_sampling_session",
        {"session_id": "session-0", "sampling_session_seq_id": 0, "base_model": "m"},
    ),
    ("join_sampling_session", "POST join_sampling_session", {"sampling_session_id": "session-0:sample:0"}),
    ("get_sampler", "GET samplers/session-0:sample:0", None),
    (
        "asample",
        "POST asample",
        {"sampling_session_id": "session-0:sample:0", "seq_id": 0, "prompt": {"chunks": [{"tokens": [1]}]}},
    ),
    ("retrieve_futures", "POST retrieve_futures", {"target": {"sampling_session_id": "session-0:sample:0"}}),
    ("telemetry", "POST telemetry", {"events": []}),
    ("list_sessions", "GET sessions", None),
    ("get_session", "GET sessions/session-0", None),
    ("search_sessions", "POST sessions/search", {"user_metadata": {"a": "b"}, "limit": 1}),
    ("assign_session_project", "PUT sessions/session-0/project", {"project_id": "p"}),
    ("export_session_trace", "GET sessions/session-0/trace_export", None),
    ("get_audit_log", "GET audit?event_type=x", None),
    ("get_billing_usage", "GET billing/usage/events", None),
    ("get_current_checkpoint_storage_usage", "GET billing/usage/checkpoints/current", None),
    ("create_custom_loss", "POST create_custom_loss", {"session_id": "session-0", "custom_loss_seq_id": 0}),
    ("unload_model", "POST unload_model", {"model_id": RUN}),
    ("finish_session", "POST sessions/session-0/finish", {"reason": {"type": "success"}, "detail": None}),
    ("delete_api_key", "DELETE auth/apikey/me", None),
)


def test_every_call_is_answered_in_its_shape(caller) -> None:
    """Each endpoint of the API is served under its name, and its answer has no unknown and no missing field."""
    user = caller(ScriptedService())
    for name, request, body in CALLS:
        method, _, path = request.partition(" ")
        plan = user.plan(method, path, body)
        assert plan.status == (302 if name == "get_checkpoint_archive_url" else 200), (name, plan.body)
        assert user.service.requests[-1].endpoint == name
        reply = BY_NAME[name].reply
        if reply not in (Empty, Payload) and name != "client_config":  # which says more than tinker's own
            answer = json.loads(plan.body)
            if "type" not in attrs.fields_dict(reply):
                answer.pop("type", None)  # the service says it, and nobody needs it
            codec.structure(reply, answer, strict=True)
    forwards = {"forward", "forward_backward"}  # in their own tests
    assert {name for name, _, _ in CALLS} | forwards == set(BY_NAME)


def test_sessions_are_found_page_by_page(caller) -> None:
    """By project and metadata; the cursor goes on behind the last one."""
    user = caller(ScriptedService())
    for name in "xyx":
        user.ok("create_session", {"tags": [], "user_metadata": {"n": name}, "sdk_version": "1"})
    first = user.ok("sessions/search", {"user_metadata": {"n": "x"}, "limit": 1})
    assert [one["session_id"] for one in first["sessions"]] == ["session-2"]
    rest = user.ok("sessions/search", {"user_metadata": {"n": "x"}, "cursor": first["next_cursor"]})
    assert [one["session_id"] for one in rest["sessions"]] == ["session-0"]
    assert rest["next_cursor"] is None
    user.ok("sessions/session-1/project", {"project_id": "p"}, method="PUT")
    found = user.ok("sessions/search", {"project_ids": ["p"]})["sessions"]
    assert [one["session_id"] for one in found] == ["session-1"]
    assert user.call("sessions/none/project", {"project_id": "p"}, method="PUT")[0] == 404
    assert json.dumps(found).count("session-1") == 1


def test_only_external_checkpoints_have_urls(caller) -> None:
    """Others are refused."""
    user = caller(ScriptedService())
    model = user.model()
    user.result("save_weights", {"model_id": model, "path": "a", "seq_id": 1})
    path = f"training_runs/{model}/checkpoints/weights/a/external_weights_urls"
    assert user.call(path, method="GET")[0] == 400


def test_a_finished_session_is_found_as_it_was_finished(caller) -> None:
    """Its status has the client's own words."""
    user = caller(ScriptedService())
    user.ok("create_session", {"tags": [], "user_metadata": {}, "sdk_version": "1"})
    user.ok("sessions/session-0/finish", {"reason": {"type": "errored"}, "detail": "why"})
    (found,) = codec.structure(SessionSearchResponse, user.ok("sessions/search", {}), strict=True).sessions
    assert found.status == SessionClientFinished(reason=FinishReason("errored"), detail="why")


def test_a_copy_is_kept(caller) -> None:
    """Under a path of its own, private, for as long as is asked; the source may go."""
    user = caller(ScriptedService())
    model = user.model()
    user.result("save_weights", {"model_id": model, "path": "a", "seq_id": 1})
    source = f"tinker://{model}/weights/a"
    copy = user.ok("copy_weights", {"source_path": source, "ttl_seconds": 3600})["tinker_path"]
    assert user.service.checkpoints == (source, copy)
    user.ok(f"training_runs/{model}/checkpoints/weights/a", method="DELETE")
    assert user.ok("weights_info", {"tinker_path": copy})["is_lora"]
