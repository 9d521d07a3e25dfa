"""How services differ that speak the same protocol: their manners, as data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

import attrs

from tinker_actors.errors import InputError

__all__ = ["DIALECTS", "Bodies", "Dedupe", "EarlyNumbers", "FailureForm", "LostForm", "ServiceDialect"]

Dedupe: TypeAlias = Literal["replay", "reject", "none"]
EarlyNumbers: TypeAlias = Literal["park", "refuse", "run"]
LostForm: TypeAlias = Literal["404", "410", "try_again", "error"]
Bodies: TypeAlias = Literal["both", "json", "protobuf"]
FailureForm: TypeAlias = Literal["error", "400", "status", "RequestFailedResponse", "422"]
"""Five forms in which services answer the poll for a request that ran and failed: 200 `{"error", "category"}`; 400
`{"detail"}`; the failure's own status (404, 409, 422) and `{"detail"}`; 400 with the type `RequestFailedResponse`; 422
with pydantic's list."""


@attrs.frozen(kw_only=True)
class ServiceDialect:
    """The manners of a service.

    Attributes:
        dedupe: what it does with a repeated number. `replay`: the same body gets the first promise, another one 409.
            `reject`: the promise fails with 409 and the text "Sequence conflict: expected 7, got 6"; a number that
            failed is not used up. `none`: the request is carried out again.
        early_numbers: what it does with a number before its turn: `park` it until the gap is filled, `refuse` it (409
            through the promise), or `run` it at once.
        bodies: which bodies it takes for training, and whether its results may be protobuf.
        newer_fields: whether it takes the fields that came after tinker 0.24; else 422.
        says_flags: whether `client_config` tells of `dedupe` and `early_numbers`; other services say nothing of them.
        lacks: endpoints that it does not have.
        sequence_ids: whether the promises of samples name their sequences.
        consume_results: a result is gone once it was read.
        unknown: what a poll for an unknown promise is told. `try_again` is endless.
        failures: in which form the poll for a request that failed is told so; see `FailureForm`.
        hold: seconds a poll is held when there is no result.
        hold_status: of the answer then: 408, or 200.
        metadata_above: results of more bytes than this are announced by their size first; None never.
        cycle: seconds of a clock cycle: work is done at its ticks, and results carry the metric
            `clock_cycle:unique`. 0 has no cycle.
        created_status: of answers that give out a promise.
        overwrite: a checkpoint may be saved again under its name; else 409.
        unload_forgets: a model that is unloaded takes its checkpoints along.
        heartbeat_unknown: status of a heartbeat of a session that is not known.
        session_timeout: seconds without a beat after which a session is lost, its models with it; only for sessions
            that have beaten at all. None never.

    Raises:
        InputError: a value that is none of those above.
    """

    dedupe: Dedupe = "replay"
    early_numbers: EarlyNumbers = "park"
    bodies: Bodies = "both"
    newer_fields: bool = True
    says_flags: bool = True
    lacks: frozenset[str] = frozenset()
    sequence_ids: bool = True
    consume_results: bool = False
    unknown: LostForm = "404"
    failures: FailureForm = "error"
    hold: float = 30.0
    hold_status: int = 408
    metadata_above: int | None = None
    cycle: float = 0.0
    created_status: int = 200
    overwrite: bool = False
    unload_forgets: bool = False
    heartbeat_unknown: int = 404
    session_timeout: float | None = None

    def __attrs_post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise InputError(name, getattr(self, name), f"must be one of {', '.join(get_args(choices))}")
        for name in ("hold", "cycle"):
            if not getattr(self, name) >= 0:
                raise InputError(name, getattr(self, name), "must not be negative")
        if self.hold_status not in (200, 408):
            raise InputError("hold_status", self.hold_status, "must be 200 or 408")

    @classmethod
    def like(cls, name: str) -> ServiceDialect:
        """Return the manners of a service that exists: tinker, skyrl, skyrl-0.3.0, tuft, open-rl or opentinker.

        Raises:
            InputError: none of these.
        """
        if name not in DIALECTS:
            raise InputError("name", name, f"must be one of {', '.join(DIALECTS)}")
        return DIALECTS[name]


_CHOICES: Final = {
    "dedupe": Dedupe,
    "early_numbers": EarlyNumbers,
    "bodies": Bodies,
    "unknown": LostForm,
    "failures": FailureForm,
}

_LATER: Final = frozenset(
    {"client_dynamic_config", "finish_session", "join_sampling_session", "retrieve_futures", "auth_token"}
)

_THIRD = ServiceDialect(
    early_numbers="run", bodies="json", says_flags=False, sequence_ids=False, lacks=_LATER, failures="error"
)

DIALECTS: Final[Mapping[str, ServiceDialect]] = MappingProxyType(
    {
        "tinker": ServiceDialect(says_flags=False, metadata_above=1 << 20),
        "skyrl": attrs.evolve(_THIRD, bodies="both", hold=300.0, failures="400"),
        "skyrl-0.3.0": attrs.evolve(_THIRD, dedupe="none", hold=300.0, failures="400"),
        "tuft": attrs.evolve(
            _THIRD,
            dedupe="reject",
            early_numbers="refuse",
            bodies="protobuf",
            lacks=_LATER | {"forward"},
            newer_fields=False,
            hold=120.0,
            hold_status=200,
            created_status=202,
            overwrite=True,
            unload_forgets=True,
            heartbeat_unknown=500,
            failures="status",
        ),
        "open-rl": attrs.evolve(
            _THIRD,
            dedupe="none",
            lacks=_LATER | {"forward", "weights_info"},
            unknown="try_again",
            hold=60.0,
            hold_status=200,
            overwrite=True,
            heartbeat_unknown=200,
            failures="RequestFailedResponse",
        ),
        "opentinker": attrs.evolve(
            _THIRD,
            dedupe="none",
            unknown="error",
            consume_results=True,
            overwrite=True,
            heartbeat_unknown=200,
        ),
    }
)
"""Manners of services that exist, as they were measured; for tests of clients that must get along with all of them."""
