"""Every public call of the HTTP layer, with something to send, and what it says that has to be seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any

from tinker_actors.wire.future import (
    CancelFutureRequest,
    RetrieveFutureRequest,
    RetrieveFuturesRequest,
    SamplingSessionTarget,
)
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.model import CreateModelRequest, GetInfoRequest, UnloadModelRequest
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest
from tinker_actors.wire.sampling import (
    CreateSamplingSessionRequest,
    JoinSamplingSessionRequest,
    SampleRequest,
    SamplingParams,
)
from tinker_actors.wire.service import AuthTokenRequest, ClientConfigRequest
from tinker_actors.wire.session import (
    AssignSessionProjectRequest,
    CreateSessionRequest,
    FinishReason,
    FinishSessionRequest,
    SessionHeartbeatRequest,
    SessionSearchRequest,
)
from tinker_actors.wire.telemetry import TelemetrySendRequest
from tinker_actors.wire.training import (
    CreateCustomLossRequest,
    ForwardBackwardInput,
    ForwardBackwardRequest,
    ForwardRequest,
)
from tinker_actors.wire.weights import (
    CopyWeightsRequest,
    LoadWeightsRequest,
    SaveWeightsExternalRequest,
    SaveWeightsForSamplerRequest,
    SaveWeightsRequest,
    SetCheckpointTtlRequest,
    WeightsInfoRequest,
)

DATUM = Datum(ModelInput.from_ints([1, 2, 3]), {"target_tokens": [2, 3, 4], "weights": [0, 1, 1]})
BATCH = ForwardBackwardInput([DATUM], "cross_entropy")
RUN = "r:1"
SAVED = (RUN, "weights/a")

Call = Callable[[Any], Awaitable[object]]
"""Makes one call on a client."""

CALLS: dict[str, Call] = {
    "service.health_check": lambda c: c.service.health_check(),
    "service.client_config": lambda c: c.service.client_config(ClientConfigRequest("1")),
    "service.client_dynamic_config": lambda c: c.service.client_dynamic_config(ClientConfigRequest("1")),
    "service.auth_token": lambda c: c.service.auth_token(AuthTokenRequest()),
    "service.get_api_key": lambda c: c.service.get_api_key(),
    "service.delete_api_key": lambda c: c.service.delete_api_key(),
    "service.get_server_capabilities": lambda c: c.service.get_server_capabilities(),
    "service.create_session": lambda c: c.service.create_session(
        CreateSessionRequest(tags=(), user_metadata={}, sdk_version="1")
    ),
    "service.session_heartbeat": lambda c: c.service.session_heartbeat(SessionHeartbeatRequest("s")),
    "service.finish_session": lambda c: c.service.finish_session(
        "s", FinishSessionRequest(FinishReason("success"))
    ),
    "service.create_sampling_session": lambda c: c.service.create_sampling_session(
        CreateSamplingSessionRequest(session_id="s", sampling_session_seq_id=0, base_model="b")
    ),
    "models.create": lambda c: c.models.create(
        CreateModelRequest(session_id="s", model_seq_id=0, base_model="b")
    ),
    "models.get_info": lambda c: c.models.get_info(GetInfoRequest(RUN)),
    "models.unload": lambda c: c.models.unload(UnloadModelRequest(RUN)),
    "training.forward": lambda c: c.training.forward(ForwardRequest(BATCH, RUN, 1)),
    "training.forward_backward": lambda c: c.training.forward_backward(ForwardBackwardRequest(BATCH, RUN, 2)),
    "training.optim_step": lambda c: c.training.optim_step(OptimStepRequest(AdamParams(), RUN, 3)),
    "training.create_custom_loss": lambda c: c.training.create_custom_loss(
        CreateCustomLossRequest(session_id="s", custom_loss_seq_id=0, name="mine", inputs=(), graph={})
    ),
    "weights.load": lambda c: c.weights.load(
        LoadWeightsRequest(model_id=RUN, path="tinker://r:1/weights/a", optimizer=True, seq_id=4)
    ),
    "weights.save": lambda c: c.weights.save(SaveWeightsRequest(model_id=RUN, path="a", seq_id=5)),
    "weights.save_for_sampler": lambda c: c.weights.save_for_sampler(
        SaveWeightsForSamplerRequest(model_id=RUN, path="a", seq_id=6)
    ),
    "weights.save_external": lambda c: c.weights.save_external(
        SaveWeightsExternalRequest(model_id=RUN, path="a", seq_id=7)
    ),
    "weights.info": lambda c: c.weights.info(WeightsInfoRequest("tinker://r:1/weights/a")),
    "weights.copy": lambda c: c.weights.copy(
        CopyWeightsRequest(source_path="tinker://r:1/weights/a", destination_project_id="p")
    ),
    "weights.list": lambda c: c.weights.list(RUN),
    "weights.delete": lambda c: c.weights.delete(*SAVED),
    "weights.publish": lambda c: c.weights.publish(*SAVED),
    "weights.unpublish": lambda c: c.weights.unpublish(*SAVED),
    "weights.set_ttl": lambda c: c.weights.set_ttl(*SAVED, SetCheckpointTtlRequest(None)),
    "weights.archive_url": lambda c: c.weights.archive_url(*SAVED),
    "weights.external_urls": lambda c: c.weights.external_urls(RUN, "external/a"),
    "sampling.asample": lambda c: c.sampling.asample(
        SampleRequest(
            prompt=ModelInput.from_ints([1]),
            sampling_params=SamplingParams(max_tokens=1),
            sampling_session_id="s:1",
            seq_id=0,
        )
    ),
    "sampling.join": lambda c: c.sampling.join(JoinSamplingSessionRequest("s:1")),
    "futures.retrieve": lambda c: c.futures.retrieve(RetrieveFutureRequest("r")),
    "futures.retrieve_batch": lambda c: c.futures.retrieve_batch(
        RetrieveFuturesRequest(target=SamplingSessionTarget(sampling_session_id="s:1"))
    ),
    "futures.cancel": lambda c: c.futures.cancel(CancelFutureRequest("r")),
    "telemetry.send": lambda c: c.telemetry.send(
        TelemetrySendRequest(events=(), platform="p", sdk_version="1", session_id="s")
    ),
    "runs.list": lambda c: c.runs.list(limit=5, offset=10, access_scope="accessible", project_id="p"),
    "runs.get": lambda c: c.runs.get(RUN, access_scope="accessible"),
    "checkpoints.list": lambda c: c.checkpoints.list(limit=5, offset=10),
    "sessions.list": lambda c: c.sessions.list(limit=5, offset=10, access_scope="accessible"),
    "sessions.get": lambda c: c.sessions.get("s", access_scope="accessible"),
    "sessions.search": lambda c: c.sessions.search(SessionSearchRequest()),
    "sessions.assign_project": lambda c: c.sessions.assign_project("s", AssignSessionProjectRequest("p")),
    "sessions.trace_export": lambda c: c.sessions.trace_export("s"),
    "samplers.get": lambda c: c.samplers.get("s:1"),
    "admin.audit_log": lambda c: c.admin.audit_log(event_type="teams", day=date(2026, 11, 20)),
    "admin.billing_usage": lambda c: c.admin.billing_usage(
        starting_on=datetime(2026, 11, 20, 8, tzinfo=UTC), ending_before=datetime(2026, 11, 21, tzinfo=UTC)
    ),
    "admin.checkpoint_storage": lambda c: c.admin.checkpoint_storage(project_id="p"),
}
