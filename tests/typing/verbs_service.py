"""What each verb of a ServiceClient, a RestClient and an AdminClient gives; checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import assert_type

import tinker_actors as ta
from tinker_actors.actors.admin import AdminClient
from tinker_actors.actors.event import EventChannel
from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.telemetry import TelemetryHandle
from tinker_actors.events import ServiceEvent
from tinker_actors.protocol.wait import WaitSeen
from tinker_actors.transport.paging import AsyncPage, AsyncPaginator
from tinker_actors.types import (
    AuditLogResponse,
    BillingUsageResponse,
    Checkpoint,
    CheckpointsListResponse,
    CurrentCheckpointStorageUsageResponse,
    ExternalWeightsUrlsResponse,
    GetSamplerResponse,
    GetServerCapabilitiesResponse,
    GetSessionResponse,
    ListSessionsResponse,
    SessionSearchRequest,
    SessionSearchResponse,
    TrainingRun,
    TrainingRunsResponse,
    WeightsInfoResponse,
    WhoamiResponse,
)
from tinker_actors.wire.service import HealthResponse
from tinker_actors.wire.weights import CheckpointArchiveUrlResponse

PATH = "tinker://a/weights/b"


async def lineages(service: ta.ServiceClient, lineage: Lineage) -> None:
    """A model may be started on a journal of somebody else's."""
    assert_type(await service.start_lineage(lineage), ta.TrainingClient)


async def service_verbs(service: ta.ServiceClient) -> None:
    """Clients, and calls of the service."""
    assert_type(await service.create_lora_training_client("base", rank=8), ta.TrainingClient)
    state = "tinker://a/weights/b"
    assert_type(await service.create_training_client_from_state(state), ta.TrainingClient)
    assert_type(await service.create_training_client_from_state_with_optimizer(state), ta.TrainingClient)
    assert_type(await service.create_sampling_client(base_model="base"), ta.SamplingClient)
    assert_type(await service.from_sampler_handle("handle"), ta.SamplingClient)
    assert_type(service.create_rest_client(), RestClient)
    assert_type(service.rest, RestClient)
    assert_type(service.admin, AdminClient)
    assert_type(await service.get_server_capabilities(), GetServerCapabilitiesResponse)
    assert_type(await service.health_check(), HealthResponse)
    assert_type(await service.copy_weights(PATH), str)
    assert_type(service.subscribe(), EventChannel[ServiceEvent])
    assert_type(service.get_console_url(), str)
    assert_type(service.get_telemetry(), TelemetryHandle | None)
    assert_type(service.session_id, str)
    assert_type(await service.close("errored", "why"), None)
    assert_type(service.waits(), list[WaitSeen])


async def plain_calls(rest: RestClient) -> None:
    """Runs, checkpoints, sessions and samplers."""
    assert_type(await rest.get_server_capabilities(), GetServerCapabilitiesResponse)
    assert_type(await rest.health_check(), HealthResponse)
    assert_type(await rest.whoami(), WhoamiResponse)
    assert_type(await rest.get_training_run("r"), TrainingRun)
    assert_type(await rest.get_training_run_by_tinker_path(PATH), TrainingRun)
    assert_type(await rest.get_weights_info_by_tinker_path(PATH), WeightsInfoResponse)
    assert_type(await rest.list_training_runs(), TrainingRunsResponse)
    assert_type(await rest.list_checkpoints("r"), CheckpointsListResponse)
    assert_type(await rest.list_user_checkpoints(), CheckpointsListResponse)
    assert_type(await rest.get_sampler("s"), GetSamplerResponse)
    assert_type(await rest.get_session("s"), GetSessionResponse)
    assert_type(await rest.list_sessions(), ListSessionsResponse)
    assert_type(await rest.search_sessions(SessionSearchRequest()), SessionSearchResponse)
    await rest.assign_session_project("s", "p")
    assert_type(await rest.export_session_trace("s"), str)


async def checkpoints(rest: RestClient) -> None:
    """What is done with what was saved."""
    assert_type(await rest.delete_checkpoints([PATH]), tuple[str, ...])
    assert_type(await rest.copy_weights(PATH, "p"), str)
    assert_type(await rest.get_checkpoint_archive_url("r", "weights/a"), CheckpointArchiveUrlResponse)
    assert_type(await rest.get_checkpoint_archive_url_from_tinker_path(PATH), CheckpointArchiveUrlResponse)
    assert_type(await rest.get_external_weights_urls(PATH), ExternalWeightsUrlsResponse)
    assert_type(await rest.download_checkpoint(PATH, Path("a.tar")), Path)
    await rest.delete_checkpoint("r", "weights/a")
    await rest.delete_checkpoint_from_tinker_path(PATH)
    await rest.publish_checkpoint_from_tinker_path(PATH)
    await rest.unpublish_checkpoint_from_tinker_path(PATH)
    await rest.set_checkpoint_ttl_from_tinker_path(PATH, None)


def pages(rest: RestClient) -> None:
    """Items of all pages, and the pages themselves."""
    assert_type(rest.training_runs(), AsyncPaginator[TrainingRun])
    assert_type(rest.user_checkpoints(), AsyncPaginator[Checkpoint])
    assert_type(rest.sessions(), AsyncPaginator[str])
    assert_type(rest.iter_training_runs(), AsyncIterator[AsyncPage[TrainingRun]])
    assert_type(rest.iter_user_checkpoints(), AsyncIterator[AsyncPage[Checkpoint]])
    assert_type(rest.iter_sessions(), AsyncIterator[AsyncPage[str]])


async def administration(admin: AdminClient, start: datetime, end: datetime) -> None:
    """What only administrators may see."""
    assert_type(await admin.get_audit_log(), AuditLogResponse)
    assert_type(await admin.get_billing_usage(start, end), BillingUsageResponse)
    storage = await admin.get_current_checkpoint_storage_usage()
    assert_type(storage, CurrentCheckpointStorageUsageResponse)
