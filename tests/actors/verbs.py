"""What each verb of a client sends, as tables: its typed message, or its calls of the service; and its arguments.

Complete: a public method without a row fails, and so does a row without a method. A verb with several rows has their
names behind a colon.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np

from tinker_actors.actors.admin import AdminClient
from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    ForwardBackwardCustom,
    LoadState,
    OptimStep,
    SaveState,
    SaveWeightsExternal,
    SaveWeightsForSampler,
    Unload,
)
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.sampling_client import SamplingClient
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.kernel import Message
from tinker_actors.protocol.sampler_handle import SamplerHandle, write_handle
from tinker_actors.rl.losses import cross_entropy
from tinker_actors.types import (
    AdamParams,
    Datum,
    ForwardBackwardOutput,
    ModelInput,
    OptimStepResponse,
    SampleResponse,
    SamplingParams,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
)
from tinker_actors.wire.optimizer import DimuonParams
from tinker_actors.wire.session import SessionSearchRequest
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.weights import (
    LoadWeightsResponse,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResult,
)

MODEL = "tinker-actors/char-100k"
DATA = (Datum(ModelInput.from_ints([1, 2]), {"target_tokens": [2, 3], "weights": [1.0, 1.0]}),)
RL = (
    Datum(
        ModelInput.from_ints([1, 2]),
        {"target_tokens": [2, 3], "logprobs": [-1.0, -1.0], "advantages": [1.0, 0.0]},
    ),
)
CLIP: dict[str, float | str] = {"clip_low_threshold": 0.5}
ADAM = AdamParams(learning_rate=1e-3)
DIMUON = DimuonParams(learning_rate=0.1)
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)
STATE = "tinker://run/weights/a"
WEIGHTS = "tinker://run/sampler_weights/a"

OUTPUT = ForwardBackwardOutput("x", (), {"loss:sum": 1.0})
STEPPED = OptimStepResponse({"norm": 1.0})
SAVED = SaveWeightsResponse(STATE)
LOADED = LoadWeightsResponse(path=STATE)
EXTERNAL = SaveWeightsExternalResponse(path="tinker://run/external_weights/a", size_bytes=9)
NAMED = SaveWeightsForSamplerResult(path=WEIGHTS)
UNNAMED = SaveWeightsForSamplerResult(sampling_session_id="session-7")
HANDLE = write_handle(SamplerHandle(session_id="session-9", sampling_session_id="session-9:sample:0"))
SAMPLED = SampleResponse((), np.array([np.nan, -1.0, -2.0], np.float32))

Call = Callable[[Any], Awaitable[object]]
SAME: Final = object()
"""The verb gives what the actor replied."""

# Verb, and what it does; the message it sends; what the actor replies; what the verb gives.
TRAINING: dict[str, tuple[Call, Message[Any, Any], object, object]] = {
    "forward": (lambda t: t.forward(DATA, "cross_entropy"), Forward(DATA, "cross_entropy"), OUTPUT, SAME),
    "forward: config": (lambda t: t.forward(RL, "ppo", CLIP), Forward(RL, "ppo", CLIP), OUTPUT, SAME),
    "forward_backward": (
        lambda t: t.forward_backward(DATA, "cross_entropy"),
        ForwardBackward(DATA, "cross_entropy"),
        OUTPUT,
        SAME,
    ),
    "forward_backward: config": (
        lambda t: t.forward_backward(list(RL), "ppo", CLIP),
        ForwardBackward(RL, "ppo", CLIP),
        OUTPUT,
        SAME,
    ),
    "forward_backward_custom": (
        lambda t: t.forward_backward_custom(list(DATA), cross_entropy),
        ForwardBackwardCustom(DATA, cross_entropy),
        OUTPUT,
        SAME,
    ),
    "optim_step": (lambda t: t.optim_step(ADAM), OptimStep(ADAM), STEPPED, SAME),
    "optim_step: older name": (lambda t: t.optim_step(adam_params=ADAM), OptimStep(ADAM), STEPPED, SAME),
    "optim_step: confirm": (
        lambda t: t.optim_step(DIMUON, confirm=True),
        OptimStep(DIMUON, confirm=True),
        STEPPED,
        SAME,
    ),
    "save_state": (lambda t: t.save_state("a"), SaveState("a"), SAVED, SAME),
    "save_state: options": (
        lambda t: t.save_state("a", 3600, overwrite=True, user_metadata={"k": "v"}),
        SaveState("a", 3600, True, {"k": "v"}),
        SAVED,
        SAME,
    ),
    "load_state": (lambda t: t.load_state(STATE), LoadState(STATE, optimizer=False), LOADED, SAME),
    "load_state: token": (
        lambda t: t.load_state(STATE, "token"),
        LoadState(STATE, optimizer=False, weights_access_token="token"),
        LOADED,
        SAME,
    ),
    "load_state_with_optimizer: token": (
        lambda t: t.load_state_with_optimizer(STATE, "token"),
        LoadState(STATE, optimizer=True, weights_access_token="token"),
        LOADED,
        SAME,
    ),
    "load_state_with_optimizer": (
        lambda t: t.load_state_with_optimizer(STATE),
        LoadState(STATE, optimizer=True),
        LOADED,
        SAME,
    ),
    "save_weights_for_sampler": (
        lambda t: t.save_weights_for_sampler("a"),
        SaveWeightsForSampler("a"),
        NAMED,
        SaveWeightsForSamplerResponse(WEIGHTS),
    ),
    "save_weights_for_sampler: options": (
        lambda t: t.save_weights_for_sampler("a", 3600, {"k": "v"}),
        SaveWeightsForSampler("a", 3600, {"k": "v"}),
        NAMED,
        SaveWeightsForSamplerResponse(WEIGHTS),
    ),
    "save_weights_external": (
        lambda t: t.save_weights_external("a", 3600, ["age1x"]),
        SaveWeightsExternal("a", 3600, ("age1x",)),
        EXTERNAL,
        SAME,
    ),
    "unload": (lambda t: t.unload(), Unload(), None, SAME),
}
PUBLISHING: dict[str, tuple[Call, Message[Any, Any]]] = {
    "save_weights_and_get_sampling_client": (
        lambda t: t.save_weights_and_get_sampling_client(),
        SaveWeightsForSampler(),
    ),
    "save_weights_and_get_sampling_client: inflight": (
        lambda t: t.save_weights_and_get_sampling_client(kind="inflight"),
        SaveWeightsForSampler(kind="inflight"),
    ),
}
# What a TrainingClient has beside them, and what it does instead.
TRAINING_REST = {
    "create_sampling_client": "makes a call of the service",
    "decide": "puts the end of a step in line, and waits until it is decided; tests/runs",
    "get_console_url": "puts it together",
    "get_telemetry": "gives what takes events",
    "reach": "waits for its turn in line; tests/runs",
    "skip": "decides a step without training; tests/actors/test_train.py",
    "train": "decides a step as one; tests/actors/test_train.py",
    "step": "puts several messages in line as one block",
    "get_info": "gives what the service said when the model was made",
    "get_tokenizer": "loads it here",
    "model_id": "is known",
    "submit": "sends the message it is given",
}
STEP_VERBS = {"forward", "forward_backward", "forward_backward_custom", "optim_step"}
"""They return when their message is in line, and give a Pending."""

OPTIONS: dict[str, Any] = {
    "include_prompt_logprobs": True,
    "topk_prompt_logprobs": 3,
    "topk_sample_logprobs": 2,
    "target_prompt_logprobs": TensorData.from_numpy(np.zeros((2, 1), np.int64)),
    "prompt_alt_tokens_k": 4,
    "prompt_logprobs_last_n": 2,
}
SAMPLING: dict[str, tuple[Call, dict[str, Any], object]] = {
    "sample": (
        lambda s: s.sample(PROMPT, 2, PARAMS),
        {"prompt": PROMPT, "num_samples": 2, "sampling_params": PARAMS},
        SAME,
    ),
    "sample: options": (
        lambda s: s.sample(PROMPT, 2, PARAMS, **OPTIONS),
        {"prompt": PROMPT, "num_samples": 2, "sampling_params": PARAMS, **OPTIONS},
        SAME,
    ),
    "compute_logprobs": (
        lambda s: s.compute_logprobs(PROMPT),
        {
            "prompt": PROMPT,
            "num_samples": 1,
            "sampling_params": SamplingParams(max_tokens=1),
            "include_prompt_logprobs": True,
        },
        [None, -1.0, -2.0],
    ),
    "compute_logprobs: the last": (
        lambda s: s.compute_logprobs(PROMPT, 2),
        {
            "prompt": PROMPT,
            "num_samples": 1,
            "sampling_params": SamplingParams(max_tokens=1),
            "include_prompt_logprobs": True,
            "prompt_logprobs_last_n": 2,
        },
        [None, -1.0, -2.0],
    ),
}
SAMPLING_REST = {
    "base_model": "is known",
    "evaluation": "gives the same client on the other lane",
    "from_sampler_handle": "is the service's",
    "get_base_model": "is known",
    "get_sampler_handle": "puts it together",
    "get_tokenizer": "loads it here",
    "priority": "is known",
    "record_stability_info": "is known",
    "ref": "is the pool",
    "retry_config": "is known",
    "target": "is known",
    "version": "is known",
}

# What each verb calls, in order; a creation is a promise that is waited for.
MODEL_CALLS = ["POST create_model", "POST retrieve_future", "POST get_info"]
SERVICE: dict[str, tuple[Call, list[str]]] = {
    "create_lora_training_client": (lambda s: s.create_lora_training_client("base"), MODEL_CALLS),
    "create_training_client_from_state": (
        lambda s: s.create_training_client_from_state(KEPT),
        ["POST weights_info", *MODEL_CALLS[:2], "POST get_info", "POST load_weights", "POST retrieve_future"],
    ),
    "create_training_client_from_state_with_optimizer": (
        lambda s: s.create_training_client_from_state_with_optimizer(KEPT),
        ["POST weights_info", *MODEL_CALLS[:2], "POST get_info", "POST load_weights", "POST retrieve_future"],
    ),
    "create_sampling_client": (
        lambda s: s.create_sampling_client(base_model="base"),
        ["POST create_sampling_session"],
    ),
    "create_sampling_client: of a path": (
        lambda s: s.create_sampling_client(KEPT),
        ["POST create_sampling_session", "GET samplers/session-0:sample:0"],
    ),
    "from_sampler_handle": (lambda s: s.from_sampler_handle(HANDLE), []),
    "get_server_capabilities": (lambda s: s.get_server_capabilities(), ["GET get_server_capabilities"]),
    "health_check": (lambda s: s.health_check(), ["GET healthz"]),
    "copy_weights": (lambda s: s.copy_weights(KEPT), ["POST copy_weights"]),
}
SERVICE_REST = {
    "close": "ends the session; tests/actors/test_closing.py",
    "get_telemetry": "gives what takes events",
    "create_rest_client": "gives `rest`",
    "get_console_url": "puts it together",
    "session_id": "is known",
    "start_lineage": "starts an actor on a journal; tests/actors/test_reattach.py",
    "subscribe": "gives events",
    "waits": "looks at what is under way here",
}
# What lies on the scripted service when these are called: one model's saved state, and weights for samplers.
RUN = "session-0:train:0"
KEPT = f"tinker://{RUN}/weights/a"
AT = f"training_runs/{RUN}"
SEARCH = SessionSearchRequest()
DAY = date(2026, 1, 1)
HOUR = datetime(2026, 1, 1, tzinfo=UTC)
WRITTEN = "2026-01-01T%02d%%3A00%%3A00Z"


async def every(items: AsyncIterator[object]) -> list[object]:
    """Go through all of an iterator."""
    return [item async for item in items]


REST: dict[str, tuple[Call, list[str]]] = {
    "get_server_capabilities": (lambda r: r.get_server_capabilities(), ["GET get_server_capabilities"]),
    "health_check": (lambda r: r.health_check(), ["GET healthz"]),
    "get_training_run": (lambda r: r.get_training_run(RUN), [f"GET {AT}?access_scope=owned"]),
    "get_training_run: scope": (
        lambda r: r.get_training_run(RUN, "accessible"),
        [f"GET {AT}?access_scope=accessible"],
    ),
    "get_training_run_by_tinker_path": (
        lambda r: r.get_training_run_by_tinker_path(KEPT),
        [f"GET {AT}?access_scope=owned"],
    ),
    "get_weights_info_by_tinker_path": (
        lambda r: r.get_weights_info_by_tinker_path(KEPT),
        ["POST weights_info"],
    ),
    "list_training_runs": (
        lambda r: r.list_training_runs(),
        ["GET training_runs?limit=20&offset=0&access_scope=owned"],
    ),
    "list_training_runs: all": (
        lambda r: r.list_training_runs(3, 4, "accessible", "p"),
        ["GET training_runs?limit=3&offset=4&access_scope=accessible&project_id=p"],
    ),
    "training_runs": (
        lambda r: r.training_runs(),
        ["GET training_runs?limit=20&offset=0&access_scope=owned"],
    ),
    "iter_training_runs": (
        lambda r: every(r.iter_training_runs()),
        ["GET training_runs?limit=20&offset=0&access_scope=owned"],
    ),
    "list_checkpoints": (lambda r: r.list_checkpoints(RUN), [f"GET {AT}/checkpoints"]),
    "list_user_checkpoints": (lambda r: r.list_user_checkpoints(), ["GET checkpoints?limit=100&offset=0"]),
    "user_checkpoints": (lambda r: r.user_checkpoints(), ["GET checkpoints?limit=100&offset=0"]),
    "iter_user_checkpoints": (
        lambda r: every(r.iter_user_checkpoints()),
        ["GET checkpoints?limit=100&offset=0"],
    ),
    "delete_checkpoint": (
        lambda r: r.delete_checkpoint(RUN, "weights/a"),
        [f"DELETE {AT}/checkpoints/weights/a"],
    ),
    "delete_checkpoint_from_tinker_path": (
        lambda r: r.delete_checkpoint_from_tinker_path(KEPT),
        [f"DELETE {AT}/checkpoints/weights/a"],
    ),
    "delete_checkpoints": (
        lambda r: r.delete_checkpoints([KEPT]),
        [f"DELETE {AT}/checkpoints/weights/a"],
    ),
    "publish_checkpoint_from_tinker_path": (
        lambda r: r.publish_checkpoint_from_tinker_path(KEPT),
        [f"POST {AT}/checkpoints/weights/a/publish"],
    ),
    "unpublish_checkpoint_from_tinker_path": (
        lambda r: r.unpublish_checkpoint_from_tinker_path(KEPT),
        [f"DELETE {AT}/checkpoints/weights/a/publish"],
    ),
    "set_checkpoint_ttl_from_tinker_path": (
        lambda r: r.set_checkpoint_ttl_from_tinker_path(KEPT, 3600),
        [f"PUT {AT}/checkpoints/weights/a/ttl"],
    ),
    "copy_weights": (lambda r: r.copy_weights(KEPT, "p"), ["POST copy_weights"]),
    "get_checkpoint_archive_url": (
        lambda r: r.get_checkpoint_archive_url(RUN, "weights/a"),
        [f"GET {AT}/checkpoints/weights/a/archive"],
    ),
    "get_checkpoint_archive_url_from_tinker_path": (
        lambda r: r.get_checkpoint_archive_url_from_tinker_path(KEPT),
        [f"GET {AT}/checkpoints/weights/a/archive"],
    ),
    "get_external_weights_urls": (
        lambda r: r.get_external_weights_urls(f"tinker://{RUN}/external_weights/a"),
        [f"GET {AT}/checkpoints/external_weights/a/external_weights_urls"],
    ),
    "get_sampler": (lambda r: r.get_sampler("s:sample:0"), ["GET samplers/s:sample:0"]),
    "get_session": (lambda r: r.get_session("session-0"), ["GET sessions/session-0?access_scope=owned"]),
    "list_sessions": (
        lambda r: r.list_sessions(),
        ["GET sessions?limit=20&offset=0&access_scope=owned"],
    ),
    "sessions": (lambda r: r.sessions(), ["GET sessions?limit=20&offset=0&access_scope=owned"]),
    "iter_sessions": (
        lambda r: every(r.iter_sessions()),
        ["GET sessions?limit=20&offset=0&access_scope=owned"],
    ),
    "search_sessions": (lambda r: r.search_sessions(SEARCH), ["POST sessions/search"]),
    "assign_session_project": (
        lambda r: r.assign_session_project("session-0", "p"),
        ["PUT sessions/session-0/project"],
    ),
    "export_session_trace": (
        lambda r: r.export_session_trace("session-0"),
        ["GET sessions/session-0/trace_export"],
    ),
}
REST_REST = {
    "download_checkpoint": "has tests of its own: a call, and then a file",
    "whoami": "reads the token that it has",
}
ADMIN: dict[str, tuple[Call, list[str]]] = {
    "get_audit_log": (lambda a: a.get_audit_log(), ["GET audit?event_type=all"]),
    "get_audit_log: day": (
        lambda a: a.get_audit_log("teams", DAY),
        ["GET audit?event_type=teams&day=2026-01-01"],
    ),
    "get_billing_usage": (
        lambda a: a.get_billing_usage(HOUR, HOUR + timedelta(hours=2)),
        [f"GET billing/usage/events?starting_on={WRITTEN % 0}&ending_before={WRITTEN % 2}"],
    ),
    "get_current_checkpoint_storage_usage": (
        lambda a: a.get_current_checkpoint_storage_usage("p"),
        ["GET billing/usage/checkpoints/current?project_id=p"],
    ),
}

# What else goes over the line meanwhile, whatever is called.
AROUND = {"session_heartbeat", "telemetry", "client_dynamic_config"}

SIGNATURES = {
    ServiceClient: """
create_lora_training_client  base_model, rank=32, seed=None, train_mlp=True, train_attn=True,
                             train_unembed=True, user_metadata=None, optimizer=None
create_training_client_from_state path, base_model=None, user_metadata=None, weights_access_token=None,
                             optimizer=None
create_training_client_from_state_with_optimizer path, base_model=None, user_metadata=None,
                             weights_access_token=None
create_sampling_client       model_path=None, base_model=None, retry_config=None, record_stability_info=False
copy_weights                 path, *, ttl_seconds=None, weights_access_token=None
close                        status='success', detail=None
create_rest_client
from_sampler_handle          handle, retry_config=None
get_console_url
get_server_capabilities
get_telemetry
health_check
start_lineage                lineage
subscribe                    max_buffer=1000
waits
""",
    TrainingClient: """
create_sampling_client       model_path, retry_config=None, record_stability_info=False
decide                       optim_params, decision, in_line=None
forward                      data, loss_fn, loss_fn_config=None
forward_backward             data, loss_fn, loss_fn_config=None
forward_backward_custom      data, loss_fn, *, loss_type_input=None
get_console_url
get_info
get_telemetry
get_tokenizer
load_state                   path, weights_access_token=None
load_state_with_optimizer    path, weights_access_token=None
optim_step                   optim_params=None, *, adam_params=None, confirm=False
reach
save_state                   name, ttl_seconds=None, overwrite=False, user_metadata=None
save_weights_and_get_sampling_client name=None, retry_config=None, record_stability_info=False,
                             kind='snapshot'
save_weights_external        name, ttl_seconds=None, age_encryption_recipients=None
save_weights_for_sampler     name, ttl_seconds=None, user_metadata=None
skip                         decision, in_line=None
step                         confirm=False
submit                       message
train                        data, loss_fn, optim_params, loss_fn_config=None, decision=None, in_line=None
unload
""",
    SamplingClient: """
compute_logprobs             prompt, prompt_logprobs_last_n=None
evaluation
from_sampler_handle          handle, *, service, retry_config=None
get_base_model
get_sampler_handle
get_tokenizer
sample                       prompt, num_samples, sampling_params, include_prompt_logprobs=False,
                             topk_prompt_logprobs=0, topk_sample_logprobs=0, target_prompt_logprobs=None,
                             prompt_alt_tokens_k=0, prompt_logprobs_last_n=None
""",
    RestClient: """
assign_session_project       session_id, project_id
copy_weights                 path, destination_project_id=None, *, ttl_seconds=None, weights_access_token=None
delete_checkpoint            training_run_id, checkpoint_id
delete_checkpoint_from_tinker_path tinker_path
delete_checkpoints           tinker_paths
download_checkpoint          tinker_path, destination, *, extract=False, force=False, resume=False,
                             progress=None, expected_size=None, max_bytes=None
export_session_trace         session_id
get_checkpoint_archive_url   training_run_id, checkpoint_id
get_checkpoint_archive_url_from_tinker_path tinker_path
get_external_weights_urls    tinker_path
get_sampler                  sampler_id
get_server_capabilities
get_session                  session_id, access_scope='owned'
get_training_run             training_run_id, access_scope='owned'
get_training_run_by_tinker_path tinker_path, access_scope='owned'
get_weights_info_by_tinker_path tinker_path
health_check
iter_sessions                *, access_scope='owned', limit=None, page_size=20
iter_training_runs           *, access_scope='owned', project_id=None, limit=None, page_size=20
iter_user_checkpoints        *, limit=None, page_size=100
list_checkpoints             training_run_id
list_sessions                limit=20, offset=0, access_scope='owned'
list_training_runs           limit=20, offset=0, access_scope='owned', project_id=None
list_user_checkpoints        limit=100, offset=0
publish_checkpoint_from_tinker_path tinker_path
search_sessions              request
sessions                     *, access_scope='owned', limit=None, page_size=20
set_checkpoint_ttl_from_tinker_path tinker_path, ttl_seconds
training_runs                *, access_scope='owned', project_id=None, limit=None, page_size=20
unpublish_checkpoint_from_tinker_path tinker_path
user_checkpoints             *, limit=None, page_size=100
whoami
""",
    AdminClient: """
get_audit_log                event_type='all', day=None
get_billing_usage            starting_on, ending_before
get_current_checkpoint_storage_usage project_id=None
""",
}
