"""`RestClient`: plain calls about what is kept on the service, which need no session and no place in line.

Whatever takes the path of a checkpoint looks at it before anything is sent (`ParsedCheckpointTinkerPath`). Calls that
send a path whole, instead of its parts, take the paths of other services as well.

Deleting and publishing are idempotent, so that the loss of an answer does no harm: a checkpoint that is not there is
deleted, and one that turned out to be published when the call had to be sent again has been published by it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar, Final, cast

import trio

from tinker_actors.actors.admin import AdminClient
from tinker_actors.actors.deletion import delete_each
from tinker_actors.actors.download import Source, download
from tinker_actors.actors.flags import FlagsFirst
from tinker_actors.actors.guide import Guide
from tinker_actors.actors.listing import Listings, check_scope
from tinker_actors.actors.progress import ProgressSetting, progress_shown
from tinker_actors.errors import ConflictError, CredentialError, InputError, NotFoundError, RequestFailedError
from tinker_actors.protocol.credential import is_token, parse_token
from tinker_actors.protocol.failure import says_no_route
from tinker_actors.protocol.saving import check_ttl
from tinker_actors.transport.http import HttpTransport
from tinker_actors.transport.options import RequestOptions
from tinker_actors.transport.resources.resource import AccessScope
from tinker_actors.transport.resources.samplers import AsyncSamplersResource
from tinker_actors.transport.resources.service import AsyncServiceResource
from tinker_actors.transport.resources.weights import AsyncWeightsResource
from tinker_actors.transport.response import APIResponse
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.run import (
    CheckpointsListResponse,
    ParsedCheckpointTinkerPath,
    TrainingRun,
    check_weights_path,
)
from tinker_actors.wire.sampling import GetSamplerResponse
from tinker_actors.wire.service import GetServerCapabilitiesResponse, HealthResponse, WhoamiResponse
from tinker_actors.wire.session import (
    AssignSessionProjectRequest,
    GetSessionResponse,
    SessionSearchRequest,
    SessionSearchResponse,
)
from tinker_actors.wire.weights import (
    CheckpointArchiveUrlResponse,
    CopyWeightsRequest,
    ExternalWeightsUrlsResponse,
    SetCheckpointTtlRequest,
    WeightsInfoRequest,
    WeightsInfoResponse,
)

__all__ = ["RestClient"]

_ONCE: Final = RequestOptions(max_retries=0)  # whoever asks decides about further attempts
_TRACE_PERIOD: Final = 5.0  # seconds; tinker 0.38.0 lib/public_interfaces/rest_client.py


class RestClient(Listings, Guide):
    """Looks after what is kept on the service. Made by a `ServiceClient` or by `open_rest_client`.

    It needs no session, and nothing is sent before the first call. Every call checkpoints. Besides what is said
    below, calls raise `APIConnectionError`, `APIStatusError` and their like; `NotFoundError` for what is not there.
    """

    _made_by: ClassVar[str] = "service.rest, or async with tinker_actors.open_rest_client(...) as rest"
    _made_of: ClassVar[str] = "transport"
    _beside: ClassVar[Mapping[str, type]] = {"service.admin": AdminClient}

    def __init__(self, transport: HttpTransport, *, flags_known: bool = False) -> None:
        self._transport = transport
        self._caller = FlagsFirst(transport, known=flags_known)
        super().__init__(self._caller)
        self._service = AsyncServiceResource(self._caller)
        self._weights = AsyncWeightsResource(self._caller)
        self._samplers = AsyncSamplersResource(self._caller)

    def __repr__(self) -> str:
        return f"<RestClient {self._transport.config.base_url}>"

    # ------------------------------------------------------------------------------------------------- the service

    async def get_server_capabilities(self) -> GetServerCapabilitiesResponse:
        """Return what the service offers, its models above all."""
        return await self._service.get_server_capabilities()

    async def health_check(self) -> HealthResponse:
        """Return what the service says of its health; that it answers at all is most of it."""
        return await self._service.health_check()

    async def whoami(self) -> WhoamiResponse:
        """Return who one is, as the token says that stands for us.

        Nothing is asked of the service but that token, where it gives one for the key.

        Raises:
            CredentialError: there is no token.
        """
        await trio.lowlevel.checkpoint()
        await self._caller.learn()
        key = (await self._transport.credentials()).get("x-api-key", "")
        if not is_token(key):
            raise CredentialError(
                "only a token says who one is; this key is no token, and the service does not exchange it for one"
            )
        return WhoamiResponse.from_claims(parse_token(key).claims)

    # -------------------------------------------------------------------------- training runs, samplers, sessions

    async def get_training_run(
        self, training_run_id: str, access_scope: AccessScope = "owned"
    ) -> TrainingRun:
        """Return one training run.

        Args:
            training_run_id: the id of the model that was trained.
            access_scope: `owned`, or `accessible` for what others have published too.

        Raises:
            InputError: an id that cannot be one, or another scope.
        """
        return await self._runs.get(training_run_id, access_scope=check_scope(access_scope))

    async def get_training_run_by_tinker_path(
        self, tinker_path: str, access_scope: AccessScope = "owned"
    ) -> TrainingRun:
        """Return the training run that a checkpoint is of. Errors: as `get_training_run`."""
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return await self.get_training_run(parsed.training_run_id, access_scope)

    async def get_sampler(self, sampler_id: str) -> GetSamplerResponse:
        """Return what a sampler samples from."""
        return await self._samplers.get(sampler_id)

    async def get_session(self, session_id: str, access_scope: AccessScope = "owned") -> GetSessionResponse:
        """Return what belongs to a session: its training runs and its samplers. Arguments: as `get_training_run`."""
        return await self._sessions.get(session_id, access_scope=check_scope(access_scope))

    async def search_sessions(self, request: SessionSearchRequest) -> SessionSearchResponse:
        """Return a page of the sessions that are looked for, the latest first.

        The next page is asked for with the answer's `next_cursor` as the request's `cursor`.

        Raises:
            InputError: no `SessionSearchRequest`.
        """
        if not isinstance(cast("object", request), SessionSearchRequest):
            raise InputError("request", request, "must be a SessionSearchRequest")
        return await self._sessions.search(request)

    async def assign_session_project(self, session_id: str, project_id: str) -> None:
        """Put a session into a project."""
        await self._sessions.assign_project(session_id, AssignSessionProjectRequest(project_id))

    async def export_session_trace(self, session_id: str) -> str:
        """Have a session's trace put together, and return where it can be fetched, for about an hour.

        The service is asked every 5 seconds until it is ready; a caller that is cancelled stops asking.

        Raises:
            RequestFailedError: the service could not put it together.
        """
        while True:
            trace = await self._sessions.trace_export(session_id)
            if trace.status == "ready" and trace.url:
                return trace.url
            if trace.status not in ("pending", "ready"):
                why = trace.error or f"its status is {trace.status!r}"
                raise RequestFailedError(f"the trace of session {session_id!r} was not exported: {why}")
            await trio.sleep(_TRACE_PERIOD)

    # ------------------------------------------------------------------------------------------------- checkpoints

    async def list_checkpoints(self, training_run_id: str) -> CheckpointsListResponse:
        """Return the checkpoints of a training run."""
        return await self._weights.list(training_run_id)

    async def get_weights_info_by_tinker_path(self, tinker_path: str) -> WeightsInfoResponse:
        """Return what a checkpoint was made of: its base model, and what its adapter is like.

        Args:
            tinker_path: the checkpoint's path, whole; or one that another service gave.

        Raises:
            InputError: no such path.
        """
        return await self._weights.info(WeightsInfoRequest(_whole("tinker_path", tinker_path)))

    async def delete_checkpoint(self, training_run_id: str, checkpoint_id: str) -> None:
        """Delete a checkpoint; one that is not there is deleted already.

        Args:
            training_run_id: the run that it is of.
            checkpoint_id: such as `weights/0001`.

        Raises:
            InputError: ids that cannot be such.
            NotFoundError: the service deletes nothing.
        """
        try:
            await self._weights.delete(training_run_id, checkpoint_id)
        except NotFoundError as error:
            if says_no_route(cast("JsonValue", error.body)):
                raise

    async def delete_checkpoint_from_tinker_path(self, tinker_path: str) -> None:
        """Delete the checkpoint of a path; the same as `delete_checkpoint` with its parts."""
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        await self.delete_checkpoint(parsed.training_run_id, parsed.checkpoint_id)

    async def delete_checkpoints(self, tinker_paths: Iterable[str]) -> tuple[str, ...]:
        """Delete many checkpoints. A failure does not keep the others from being deleted.

        Args:
            tinker_paths: their paths. What is no path is refused before anything is deleted.

        Returns:
            The paths, each once, in the order given; all of them are gone.

        Raises:
            InputError: something is no path of a checkpoint.
            DeletionFailed: some were not deleted; it tells which were, and why the others were not.
        """
        if isinstance(tinker_paths, str):
            raise InputError("tinker_paths", tinker_paths, "must be a list of paths")
        paths = tuple(dict.fromkeys(tinker_paths))
        for path in paths:
            ParsedCheckpointTinkerPath.from_tinker_path(path)
        return await delete_each(paths, self.delete_checkpoint_from_tinker_path)

    async def publish_checkpoint_from_tinker_path(self, tinker_path: str) -> None:
        """Let everybody load a checkpoint.

        Raises:
            InputError: no path of a checkpoint.
            ConflictError: it was public before.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        try:
            await self._weights.publish(parsed.training_run_id, parsed.checkpoint_id)
        except ConflictError as error:
            if error.attempts <= 1:
                raise

    async def unpublish_checkpoint_from_tinker_path(self, tinker_path: str) -> None:
        """Let nobody else load a checkpoint any more.

        Raises:
            InputError: no path of a checkpoint.
            ConflictError: it was not public before.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        try:
            await self._weights.unpublish(parsed.training_run_id, parsed.checkpoint_id)
        except ConflictError as error:
            if error.attempts <= 1:
                raise

    async def set_checkpoint_ttl_from_tinker_path(self, tinker_path: str, ttl_seconds: int | None) -> None:
        """Say how long a checkpoint is kept.

        Args:
            tinker_path: the checkpoint.
            ttl_seconds: from now, an hour (3600) to ten years; None is for ever.

        Raises:
            InputError: no path of a checkpoint, or no time.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        check_ttl(ttl_seconds)
        request = SetCheckpointTtlRequest(ttl_seconds)
        await self._weights.set_ttl(parsed.training_run_id, parsed.checkpoint_id, request)

    async def copy_weights(
        self,
        path: str,
        destination_project_id: str | None = None,
        *,
        ttl_seconds: int | None = None,
        weights_access_token: str | None = None,
    ) -> str:
        """Copy a checkpoint into a project and return the path of the copy.

        Args:
            path: the checkpoint, whole; or one that another service gave.
            destination_project_id: the project; None is that of the configuration, which may come from
                `TINKER_PROJECT_ID`.
            ttl_seconds: how long the copy is kept, an hour (3600) to ten years; None is for ever.
            weights_access_token: gives access to weights of another account.

        Raises:
            InputError: no path, no project, or no time.
        """
        check_ttl(ttl_seconds)
        project = destination_project_id or self._transport.config.project_id
        if not project:
            raise InputError(
                "destination_project_id", destination_project_id, "must be given, or TINKER_PROJECT_ID set"
            )
        request = CopyWeightsRequest(
            source_path=_whole("path", path),
            destination_project_id=project,
            ttl_seconds=ttl_seconds,
            weights_access_token=weights_access_token,
        )
        return (await self._weights.copy(request)).tinker_path

    # ------------------------------------------------------------------------------------- what is in checkpoints

    async def get_checkpoint_archive_url(
        self, training_run_id: str, checkpoint_id: str
    ) -> CheckpointArchiveUrlResponse:
        """Return where a checkpoint can be fetched as one archive, and until when.

        Raises:
            InputError: ids that cannot be such.
            NotFoundError: no such checkpoint, or a service that has no archives; the latest ones have none.
            InternalServerError: 503: the archive is being made; `download_checkpoint` waits for it.
        """
        return await self._weights.archive_url(training_run_id, checkpoint_id)

    async def get_checkpoint_archive_url_from_tinker_path(
        self, tinker_path: str
    ) -> CheckpointArchiveUrlResponse:
        """Return where the checkpoint of a path can be fetched; the same as `get_checkpoint_archive_url`."""
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        return await self.get_checkpoint_archive_url(parsed.training_run_id, parsed.checkpoint_id)

    async def get_external_weights_urls(self, tinker_path: str) -> ExternalWeightsUrlsResponse:
        """Return where each file of external weights can be fetched, and until when.

        Raises:
            InputError: not `tinker://<run>/external_weights/<name>`.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        if parsed.checkpoint_type != "external":
            raise InputError(
                "tinker_path",
                tinker_path,
                "must be of external weights: tinker://<run>/external_weights/<name>",
            )
        return await self._weights.external_urls(parsed.training_run_id, parsed.checkpoint_id)

    async def download_checkpoint(
        self,
        tinker_path: str,
        destination: str | os.PathLike[str],
        *,
        extract: bool = False,
        force: bool = False,
        resume: bool = False,
        progress: ProgressSetting = None,
        expected_size: int | None = None,
        max_bytes: int | None = None,
    ) -> Path:
        """Download a checkpoint as one archive (tar, perhaps with gzip), or the files that are in it.

        An archive that is still being made is waited for, six times 30 seconds. A connection that breaks is gone on
        with where it broke, or from the start if the service cannot do that. The archive's host gets no key.

        Args:
            tinker_path: the checkpoint.
            destination: the file, or with `extract` the directory. It appears when it is complete, and until then what
                is there stays.
            extract: take the files out of the archive, which is not kept.
            force: replace what is there.
            resume: go on where an earlier call was left, be it by another process, if it is the same archive for
                certain; and if this one fails, leave what there is in a hidden file beside the destination.
            progress: a function that is told the bytes that are there and those there will be (None if nobody knows);
                or `"bar"`, for a bar on stderr where that is a terminal.
            expected_size: bytes that the archive must have.
            max_bytes: bytes that the archive may have, and the files in it. None: as many as the service says for the
                archive, and a hundred times as many for what is compressed in it (64 MiB in any case).

        Returns:
            The destination.

        Raises:
            InputError: no path of a checkpoint, a destination that cannot be taken, or another value that cannot be.
            NotFoundError: no such checkpoint, or a service that has no archives; the latest ones have none.
            ArchiveError: the archive is not of the size that was said, is damaged, is too large when it is unpacked,
                or holds a link, a device, or a name that leads elsewhere.
            APIConnectionError: the connection broke again and again.
            OSError: something cannot be written.
        """
        parsed = ParsedCheckpointTinkerPath.from_tinker_path(tinker_path)
        for field, number in (("expected_size", expected_size), ("max_bytes", max_bytes)):
            if number is not None and (not isinstance(cast("object", number), int) or number < 1):
                raise InputError(field, number, "must be an integer, at least 1, or None")
        if not isinstance(cast("object", destination), str | os.PathLike):
            raise InputError("destination", destination, "must be a path")

        async def locate() -> str:
            found = await self._weights.archive_url(
                parsed.training_run_id, parsed.checkpoint_id, options=_ONCE
            )
            return found.url

        def fetch(url: str, headers: dict[str, str]) -> AbstractAsyncContextManager[APIResponse[bytes]]:
            plain = RequestOptions(headers={"accept-encoding": "identity", **headers})
            return self._transport.open_url(url, options=plain.over(_ONCE))

        source = Source(
            path=tinker_path,
            locate=locate,
            fetch=fetch,
            chance=self._transport.chance,
            retries=self._transport.config.max_retries,
            expected_size=expected_size,
            max_bytes=max_bytes,
        )
        with progress_shown(progress, parsed.checkpoint_id) as report:
            return await download(
                source, Path(destination), extract=extract, force=force, resume=resume, report=report
            )


def _whole(field: str, path: str) -> str:
    """Return a path that is sent as it is.

    Raises:
        InputError: the path of no checkpoint, or nothing that any service gives.
    """
    if isinstance(cast("object", path), str) and not path.startswith("tinker://"):
        return check_weights_path(field, path)
    return ParsedCheckpointTinkerPath.from_tinker_path(path, field=field).tinker_path
