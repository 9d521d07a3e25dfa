"""What administrators of an organization may see: what was done, what it cost, what is stored."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import ClassVar, Final, cast, get_args

from tinker_actors.actors.flags import FlagsFirst
from tinker_actors.actors.guide import Guide
from tinker_actors.errors import InputError
from tinker_actors.transport.http import HttpTransport
from tinker_actors.transport.resources.admin import AsyncAdminResource, AuditEventType
from tinker_actors.wire.billing import (
    AuditLogResponse,
    BillingUsageResponse,
    CurrentCheckpointStorageUsageResponse,
)

__all__ = ["AdminClient"]

_LONGEST_WINDOW: Final = timedelta(days=14)  # tinker 0.38.0 lib/public_interfaces/admin_client.py


class AdminClient(Guide):
    """Asks what only administrators may know. Made by a `ServiceClient` or by `open_admin_client`; needs no session.

    Nothing is sent before the first call.
    """

    _made_by: ClassVar[str] = "service.admin, or async with tinker_actors.open_admin_client(...) as admin"
    _made_of: ClassVar[str] = "transport"

    def __init__(self, transport: HttpTransport, *, flags_known: bool = False) -> None:
        self._transport = transport
        self._admin = AsyncAdminResource(FlagsFirst(transport, known=flags_known))

    def __repr__(self) -> str:
        return f"<AdminClient {self._transport.config.base_url}>"

    async def get_audit_log(
        self, event_type: AuditEventType = "all", day: date | None = None
    ) -> AuditLogResponse:
        """Return what was done on a day. Checkpoints.

        Args:
            event_type: `all`, `checkpoints`, `projects`, `teams` or `organizations`.
            day: which day, in UTC; None is today.

        Raises:
            InputError: another kind of event, or no day.
            PermissionDeniedError: the key is no administrator's.
        """
        kinds = get_args(AuditEventType)
        if event_type not in kinds:
            raise InputError("event_type", event_type, f"must be one of {', '.join(kinds)}")
        known = day is None or (
            isinstance(cast("object", day), date) and not isinstance(cast("object", day), datetime)
        )
        if not known:
            raise InputError("day", day, "must be a datetime.date, or None")
        return await self._admin.audit_log(event_type=event_type, day=day)

    async def get_billing_usage(
        self, starting_on: datetime | str, ending_before: datetime | str
    ) -> BillingUsageResponse:
        """Return what was used, hour by hour. It may be a few hours behind. Checkpoints.

        Args:
            starting_on: the first hour: a datetime with a zone, or RFC 3339; a full hour of UTC.
            ending_before: the first hour that is not wanted any more, at most 14 days later.

        Raises:
            InputError: no full hour, no zone, or a window that is empty or longer than 14 days.
            PermissionDeniedError: the key is no administrator's.
        """
        start, end = _hour("starting_on", starting_on), _hour("ending_before", ending_before)
        if not timedelta(0) < end - start <= _LONGEST_WINDOW:
            raise InputError(
                "ending_before", ending_before, f"must be after {start.isoformat()}, by at most 14 days"
            )
        return await self._admin.billing_usage(starting_on=start, ending_before=end)

    async def get_current_checkpoint_storage_usage(
        self, project_id: str | None = None
    ) -> CurrentCheckpointStorageUsageResponse:
        """Return what is stored at present, and for whom. Checkpoints.

        Args:
            project_id: of this project only; None is all of them.

        Raises:
            PermissionDeniedError: the key is no administrator's.
        """
        return await self._admin.checkpoint_storage(project_id=project_id)


def _hour(field: str, value: datetime | str) -> datetime:
    """Return a full hour of UTC.

    Raises:
        InputError: it is none.
    """
    time: object = value
    if isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(
                field, value, "must be a time as in RFC 3339, such as 2026-07-13T00:00:00Z"
            ) from error
    if not isinstance(time, datetime):
        raise InputError(field, value, "must be a datetime, or a text as in RFC 3339")
    if time.tzinfo is None:
        raise InputError(field, value, "must be aware of its zone")
    utc = time.astimezone(UTC)
    if utc != utc.replace(minute=0, second=0, microsecond=0):
        raise InputError(field, value, "must be a full hour of UTC")
    return utc
