"""What an organization has used and done: billing, storage, the audit log."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from tinker_actors.wire.field import Timestamp, timestamp

__all__ = [
    "AuditLogEntry",
    "AuditLogResponse",
    "BillingEventInfo",
    "BillingUsageEvent",
    "BillingUsageResponse",
    "BillingUsageSession",
    "CheckpointBillingEvent",
    "CheckpointStorageUsage",
    "CurrentCheckpointStorageUsageResponse",
    "SamplingPrefillBillingEvent",
    "SamplingSampleBillingEvent",
    "StorageBillingEvent",
    "TrainingBillingEvent",
]


@attrs.frozen(kw_only=True)
class TrainingBillingEvent:
    """Tokens that were trained on."""

    token_count: int
    type: Literal["training"] = "training"


@attrs.frozen(kw_only=True)
class SamplingPrefillBillingEvent:
    """Tokens of prompts; `cached` ones had been computed before."""

    cached: bool
    token_count: int
    type: Literal["sampling_prefill"] = "sampling_prefill"


@attrs.frozen(kw_only=True)
class SamplingSampleBillingEvent:
    """Tokens that were drawn."""

    token_count: int
    type: Literal["sampling_sample"] = "sampling_sample"


@attrs.frozen(kw_only=True)
class CheckpointBillingEvent:
    """Checkpoints that were saved."""

    count: int
    type: Literal["checkpoint"] = "checkpoint"


@attrs.frozen(kw_only=True)
class StorageBillingEvent:
    """Room that checkpoints took."""

    free: bool = False
    gigabyte_hours: float
    type: Literal["storage"] = "storage"


BillingEventInfo: TypeAlias = (
    TrainingBillingEvent
    | SamplingPrefillBillingEvent
    | SamplingSampleBillingEvent
    | CheckpointBillingEvent
    | StorageBillingEvent
    | Mapping[str, object]
)
"""A mapping if it is of a kind that this package does not know."""


@attrs.frozen(kw_only=True)
class BillingUsageEvent:
    """What was used of one thing in one span of time.

    Attributes:
        bucket_start: when the span began.
        bucket_end: when it ended.
        base_model: with which model.
        user_id: by whom.
        user_name: by whom.
        session_id: in which session.
        project_id: for which project.
        estimated_cost_usd: what it may cost; None while nobody knows.
        effective_rate_usd_per_million_tokens: the price of tokens behind it.
        effective_rate_usd_per_gigabyte_month: the price of room behind it.
        event_info: what was used.
    """

    bucket_start: Timestamp = attrs.field(converter=timestamp)
    bucket_end: Timestamp = attrs.field(converter=timestamp)
    base_model: str | None = None
    user_id: str | None = None
    user_name: str | None = None
    session_id: str | None = None
    project_id: str | None = None
    estimated_cost_usd: float | None = None
    effective_rate_usd_per_million_tokens: float | None = None
    effective_rate_usd_per_gigabyte_month: float | None = None
    event_info: BillingEventInfo


@attrs.frozen(kw_only=True)
class BillingUsageSession:
    """What is kept with a session that used something."""

    user_metadata: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class BillingUsageResponse:
    """What was used.

    Attributes:
        data: by thing and span of time.
        sessions: the sessions in it, by their id.
        cost_data_through: until when costs come from invoices; later ones are estimates.
    """

    data: tuple[BillingUsageEvent, ...]
    sessions: Mapping[str, BillingUsageSession] = attrs.field(factory=dict)
    cost_data_through: Timestamp | None = attrs.field(
        default=None, converter=attrs.converters.optional(timestamp)
    )


@attrs.frozen(kw_only=True)
class CheckpointStorageUsage:
    """The room that the checkpoints of one user in one project take."""

    project_id: str | None = None
    org_user_urn: str | None = None
    user_email: str | None = None
    user_name: str | None = None
    checkpoint_count: int
    size_bytes: int
    size_gigabytes: float
    estimated_monthly_cost_usd: float | None = None


@attrs.frozen(kw_only=True)
class CurrentCheckpointStorageUsageResponse:
    """The room that checkpoints take now, and its price."""

    effective_rate_usd_per_gigabyte_month: float | None = None
    data: tuple[CheckpointStorageUsage, ...]


@attrs.frozen(kw_only=True)
class AuditLogEntry:
    """Something that was done.

    Attributes:
        timestamp: when.
        event: what.
        event_details: more about it.
        model_id: of which model; in `event_details` by now.
        tinker_path: of which checkpoint; in `event_details` by now.
        purpose: what for; in `event_details` by now.
    """

    timestamp: Timestamp = attrs.field(converter=timestamp)
    event: str
    event_details: Mapping[str, object] = attrs.field(factory=dict)
    model_id: str | None = None
    tinker_path: str | None = None
    purpose: str | None = None


@attrs.frozen
class AuditLogResponse:
    """What was done on one day."""

    entries: tuple[AuditLogEntry, ...]
