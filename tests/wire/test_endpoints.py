from __future__ import annotations

import string
from typing import Any

from tinker_actors.wire import endpoints
from tinker_actors.wire.endpoint import Endpoint
from tinker_actors.wire.endpoints import ENDPOINTS

# name, method, path below /api/v1, lane, seconds, on doubt, retries
TABLE = """
healthz                  GET  healthz                        session   60  resend   10
client_config            POST client/config                  session   10  resend   2
get_server_capabilities  GET  get_server_capabilities        session   60  resend   10
create_session           POST create_session                 session   60  create   10
session_heartbeat        POST session_heartbeat              session   10  give_up  0
finish_session           POST sessions/{session_id}/finish   session   10  resend   2
create_model             POST create_model                   train     60  create   10
get_info                 POST get_info                       train     60  resend   10
unload_model             POST unload_model                   train     10  resend   0
forward                  POST forward                        train     60  resend   10
forward_backward         POST forward_backward               train     60  numbered  10
optim_step               POST optim_step                     train     60  numbered  10
load_weights             POST load_weights                   train     60  numbered  10
save_weights             POST save_weights                   train     60  named  10
save_weights_for_sampler POST save_weights_for_sampler       train     60  named  10
create_sampling_session  POST create_sampling_session        session   60  create   10
asample                  POST asample                        sample    60  resend   0
retrieve_future          POST retrieve_future                futures   45  resend   0
telemetry                POST telemetry                      telemetry 5   give_up  0
"""
# name, request, reply
TYPES = """
healthz                  Empty                         HealthResponse
client_config            ClientConfigRequest           ClientConfigResponse
get_server_capabilities  Empty                         GetServerCapabilitiesResponse
create_session           CreateSessionRequest          CreateSessionResponse
session_heartbeat        SessionHeartbeatRequest       SessionHeartbeatResponse
finish_session           FinishSessionRequest          Empty
create_model             CreateModelRequest            UntypedAPIFuture
get_info                 GetInfoRequest                GetInfoResponse
unload_model             UnloadModelRequest            UntypedAPIFuture
forward                  ForwardRequest                UntypedAPIFuture
forward_backward         ForwardBackwardRequest        UntypedAPIFuture
optim_step               OptimStepRequest              UntypedAPIFuture
load_weights             LoadWeightsRequest            UntypedAPIFuture
save_weights             SaveWeightsRequest            UntypedAPIFuture
save_weights_for_sampler SaveWeightsForSamplerRequest  UntypedAPIFuture
create_sampling_session  CreateSamplingSessionRequest  CreateSamplingSessionResponse
asample                  SampleRequest                 SampleSubmitted
retrieve_future          RetrieveFutureRequest         Empty
telemetry                TelemetrySendRequest          TelemetryResponse
"""


def row_of(one: Endpoint[Any, Any]) -> list[str]:
    path = one.path.removeprefix("/api/v1/")
    return [
        one.name,
        one.method,
        path,
        one.lane.value,
        f"{one.timeout:g}",
        one.on_doubt,
        str(one.retries),
    ]


def test_the_table_is_this_one() -> None:
    """Each call's method, path, lane, deadline, meaning of doubt and retries are a decision."""
    assert [row_of(one) for one in ENDPOINTS] == [line.split() for line in TABLE.strip().splitlines()]
    assert all(one.path.startswith("/api/v1/") for one in ENDPOINTS)


def test_the_bodies_are_these() -> None:
    """Each call's request and reply class."""
    types = [[one.name, one.request.__name__, one.reply.__name__] for one in ENDPOINTS]
    assert types == [line.split() for line in TYPES.strip().splitlines()]


def test_every_endpoint_is_in_the_table_once() -> None:
    """Names and paths are unique, and no endpoint is defined beside the table."""
    defined = [item for item in vars(endpoints).values() if isinstance(item, Endpoint)]
    assert {one.name for one in defined} == {one.name for one in ENDPOINTS}
    assert len({one.name for one in ENDPOINTS}) == len({one.path for one in ENDPOINTS}) == len(ENDPOINTS)


def test_paths_have_only_named_places() -> None:
    """A path is completed by name."""
    places = {
        one.name: [name for _, name, _, _ in string.Formatter().parse(one.path) if name is not None]
        for one in ENDPOINTS
    }
    assert {name: found for name, found in places.items() if found} == {"finish_session": ["session_id"]}


def test_what_a_doubtful_send_means() -> None:
    """What changes a model, what saves it and what makes something new are told apart from all else."""
    kinds = {one.name: one.on_doubt for one in ENDPOINTS if one.on_doubt not in {"resend", "give_up"}}
    assert kinds == {
        "create_session": "create",
        "create_model": "create",
        "create_sampling_session": "create",
        "forward_backward": "numbered",
        "optim_step": "numbered",
        "load_weights": "numbered",
        "save_weights": "named",
        "save_weights_for_sampler": "named",
    }
