"""Making sampling clients: opening sampling sessions, joining those of other processes.

Theory of operation. Each call opens a sampling session of its own, and calls side by side are side by side: all they
share is the counter that numbers them in the session. A client of another process's sampling session must not use the
numbers of others, so it asks the service which client it is (`join_sampling_session`), or, where there is no such call,
draws a number so large that nobody else has drawn it.
"""

from __future__ import annotations

import random
from typing import cast

import attrs
import trio

from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.message import FromBase, FromPath, Published, SampleTarget
from tinker_actors.actors.rebinding import SamplerOpener
from tinker_actors.actors.sampling import sampling_policy
from tinker_actors.actors.sampling_client import SamplerHome, SamplingClient
from tinker_actors.actors.session import Session
from tinker_actors.errors import APIError, APIStatusError, InputError, TinkerError
from tinker_actors.protocol.batch import check_flag
from tinker_actors.protocol.policy import RetryConfig
from tinker_actors.protocol.sampler_handle import SamplerHandle, read_handle
from tinker_actors.text.resolution import resolve_tokenizer_id
from tinker_actors.transport.config import normal_url
from tinker_actors.transport.http import HttpTransport
from tinker_actors.wire.endpoints import GET_SAMPLER, JOIN_SAMPLING_SESSION
from tinker_actors.wire.run import check_weights_path
from tinker_actors.wire.sampling import JoinSamplingSessionRequest
from tinker_actors.wire.service import Empty

__all__ = ["SamplerFactory", "check_policy"]

_CLONES = 1_000_000_000  # tinker 0.38.0 lib/public_interfaces/sampling_client.py: clones that have not joined


@attrs.frozen(eq=False)
class SamplerFactory:
    """Makes SamplingClients; given to every TrainingClient.

    Attributes:
        home: what all of them have in common.
        session: the present session.
        opener: opens sampling sessions.
        transport: the way to the service.
        rng: chance for the numbers of clones.
        most: samples that the pools have in flight at most.
        chosen: one line that says which backend was chosen; a note on errors.
    """

    home: SamplerHome
    session: Session
    opener: SamplerOpener
    transport: HttpTransport
    rng: random.Random
    most: int
    chosen: str

    async def create(
        self,
        model_path: str | None,
        base_model: str | None,
        retry_config: RetryConfig | None,
        record_stability_info: bool,
    ) -> SamplingClient:
        """Open a sampling session and make a client of it; see `ServiceClient.create_sampling_client`."""
        check_policy(retry_config)
        check_flag("record_stability_info", record_stability_info)
        origin = _origin(model_path, base_model)
        target = await self.open(origin)
        name = base_model or await self._base_model(target)
        return self.make(
            target,
            name,
            resolve_tokenizer_id(name),
            retry_config=retry_config,
            record_stability_info=record_stability_info,
        )

    async def open(self, origin: FromPath | FromBase) -> SampleTarget:
        """Open a sampling session in the present session.

        Raises:
            TinkerError: the service refused.
        """
        try:
            with self.session.until_closed():
                return await self.opener.open(origin)
        except TinkerError as error:
            error.add_note(self.chosen)
            raise

    async def _base_model(self, target: SampleTarget) -> str:
        """Ask which model a path belongs to; not every service says it."""
        try:
            reply = await self.transport.call(
                GET_SAMPLER, Empty(), path={"sampler_id": target.sampling_session_id}
            )
        except APIError:
            return ""
        return reply.base_model

    def published(self, sampling_session_id: str, lineage: Lineage, version: int) -> SampleTarget:
        """Return the target of weights that were just published without a name."""
        target = SampleTarget(sampling_session_id, lineage.epoch, Published(lineage, version))
        lineage.claim(target)
        return target

    def make(
        self,
        target: SampleTarget,
        base_model: str,
        tokenizer_id: str,
        version: int = 0,
        retry_config: RetryConfig | None = None,
        record_stability_info: bool = False,
    ) -> SamplingClient:
        """Make a client of a target."""
        policy = sampling_policy(retry_config, self.session.limits)
        connections = policy.max_connections
        room = None if connections is None or connections >= self.most else trio.CapacityLimiter(connections)
        return SamplingClient(
            self.home.training,
            target,
            base_model,
            version,
            None if retry_config is None else policy,
            record_stability_info,
            "training",
            tokenizer_id,
            self.home,
            room,
        )

    # --- sampling sessions of other processes ------------------------------------------------------------

    async def adopt(self, text: str, retry_config: RetryConfig | None) -> SamplingClient:
        """Make a client of the sampling session behind a handle; see `ServiceClient.from_sampler_handle`."""
        check_policy(retry_config)
        handle = read_handle(text)
        if handle.base_url and normal_url(handle.base_url) != normal_url(self.home.base_url):
            raise InputError(
                "handle", handle.base_url, f"leads to another service than this one, {self.home.base_url}"
            )
        target = SampleTarget(
            handle.sampling_session_id, session_id=handle.session_id, clone=await self._clone(handle)
        )
        return self.make(
            target,
            handle.base_model,
            resolve_tokenizer_id(handle.base_model),
            retry_config=retry_config,
            record_stability_info=handle.record_stability_info,
        )

    async def _clone(self, handle: SamplerHandle) -> int:
        if self.session.limits.sample_join_sampling_session:
            try:
                reply = await self.transport.call(
                    JOIN_SAMPLING_SESSION, JoinSamplingSessionRequest(handle.sampling_session_id)
                )
            except APIStatusError as error:
                if error.status_code != 405:
                    raise
            else:
                return reply.client_counter
        else:
            await trio.lowlevel.checkpoint()
        return self.rng.randrange(1, _CLONES + 1)


def check_policy(retry_config: object) -> None:
    """Check what a user has given for a policy, before anything is sent.

    Raises:
        InputError: it is none.
    """
    if retry_config is not None and not isinstance(retry_config, RetryConfig):
        raise InputError("retry_config", retry_config, "must be a RetryConfig, or None")


def _origin(model_path: str | None, base_model: str | None) -> FromPath | FromBase:
    if model_path is None:
        if base_model is None:
            raise InputError("model_path", None, "give a model_path or a base_model")
        if not isinstance(cast("object", base_model), str) or not base_model:
            raise InputError("base_model", base_model, "must be the name of a model")
        return FromBase(base_model)
    return FromPath(check_weights_path("model_path", model_path))
