from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tinker_actors.wire.billing import (
    AuditLogResponse,
    BillingUsageResponse,
    CheckpointBillingEvent,
    CurrentCheckpointStorageUsageResponse,
    SamplingPrefillBillingEvent,
    SamplingSampleBillingEvent,
    StorageBillingEvent,
    TrainingBillingEvent,
)
from tinker_actors.wire.codec import structure

EVENT: dict[str, Any] = {"bucket_start": "2026-01-02T03:00:00Z", "bucket_end": "2026-01-02T04:00:00Z"}


@pytest.mark.parametrize(
    ("value", "info"),
    [
        ({"type": "training", "token_count": 1}, TrainingBillingEvent(token_count=1)),
        (
            {"type": "sampling_prefill", "cached": True, "token_count": 1},
            SamplingPrefillBillingEvent(cached=True, token_count=1),
        ),
        ({"type": "sampling_sample", "token_count": 1}, SamplingSampleBillingEvent(token_count=1)),
        ({"type": "checkpoint", "count": 1}, CheckpointBillingEvent(count=1)),
        ({"type": "storage", "gigabyte_hours": 1}, StorageBillingEvent(free=False, gigabyte_hours=1.0)),
        ({"type": "teleport", "distance": None}, {"type": "teleport", "distance": None}),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_what_was_used_is_known_by_its_type(value: Any, info: object) -> None:
    """What this package does not know is kept as it came."""
    body: Any = {"data": [{**EVENT, "event_info": value}], "sessions": {"s": {"user_metadata": None}}}
    usage = structure(BillingUsageResponse, body, strict=True)
    assert usage.data[0].event_info == info
    assert usage.data[0].bucket_start == datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert usage.sessions["s"].user_metadata is None


def test_costs_that_nobody_knows_are_none() -> None:
    """And so is the price of storage."""
    body: Any = {"data": [{"checkpoint_count": 1, "size_bytes": 2, "size_gigabytes": 3}]}
    storage = structure(CurrentCheckpointStorageUsageResponse, body, strict=True)
    assert storage.effective_rate_usd_per_gigabyte_month is None
    assert storage.data[0].estimated_monthly_cost_usd is None


def test_the_audit_log_has_details_of_any_shape() -> None:
    """They are kept as they came."""
    entry = {"timestamp": "2026-01-02T03:00:00Z", "event": "delete", "event_details": {"a": [None, 1]}}
    (read,) = structure(AuditLogResponse, {"entries": [entry]}, strict=False).entries
    assert read.event_details == {"a": [None, 1]}
    assert read.timestamp == datetime(2026, 1, 2, 3, tzinfo=UTC)
