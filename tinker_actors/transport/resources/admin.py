"""What only administrators of an organization may see."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal

from tinker_actors.errors import InputError
from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AsyncAPIResource
from tinker_actors.wire.billing import (
    AuditLogResponse,
    BillingUsageResponse,
    CurrentCheckpointStorageUsageResponse,
)
from tinker_actors.wire.endpoints import AUDIT_LOG, BILLING_USAGE, CHECKPOINT_STORAGE
from tinker_actors.wire.service import Empty

__all__ = ["AsyncAdminResource", "AuditEventType"]

# tinker 0.38.0 lib/public_interfaces/admin_client.py
AuditEventType = Literal["all", "checkpoints", "projects", "teams", "organizations"]


class AsyncAdminResource(AsyncAPIResource):
    """`client.admin`."""

    async def audit_log(
        self,
        *,
        event_type: AuditEventType = "all",
        day: date | None = None,
        options: RequestOptions | None = None,
    ) -> AuditLogResponse:
        """List what was done on a day.

        Args:
            event_type: only events of one kind.
            day: which day; None leaves it to the service, which takes today.
            options: what this one call has of its own.
        """
        return await self._caller.call(
            AUDIT_LOG,
            Empty(),
            query={"event_type": event_type, "day": None if day is None else day.isoformat()},
            options=options,
        )

    async def billing_usage(
        self, *, starting_on: datetime, ending_before: datetime, options: RequestOptions | None = None
    ) -> BillingUsageResponse:
        """List what was used, by the hour.

        Args:
            starting_on: a full hour, aware of its zone.
            ending_before: another, at most 14 days later.
            options: what this one call has of its own.

        Raises:
            InputError: a time is no full hour, or has no zone.
        """
        return await self._caller.call(
            BILLING_USAGE,
            Empty(),
            query={
                "starting_on": _hour("starting_on", starting_on),
                "ending_before": _hour("ending_before", ending_before),
            },
            options=options,
        )

    async def checkpoint_storage(
        self, *, project_id: str | None = None, options: RequestOptions | None = None
    ) -> CurrentCheckpointStorageUsageResponse:
        """List what is stored at present."""
        return await self._caller.call(
            CHECKPOINT_STORAGE, Empty(), query={"project_id": project_id}, options=options
        )


def _hour(name: str, value: datetime) -> str:
    if value.tzinfo is None:
        raise InputError(name, value, "must be aware of its zone")
    hour = value.astimezone(UTC)
    if hour != hour.replace(minute=0, second=0, microsecond=0):
        raise InputError(name, value, "must be a full hour of UTC")
    return hour.strftime("%Y-%m-%dT%H:%M:%SZ")
