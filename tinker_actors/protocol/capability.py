"""What a service can do, as far as it is known. Pure.

Services that speak the protocol differ in what they do with a number they have seen, with one that comes too early,
in the form they take training requests in, and in the fields they know. The `CapabilityRecord` of a service is looked
up or assumed when the service is opened, and corrected by what the service says of itself or shows.

What is not known is assumed at its worst: a repeated number is carried out again, requests are taken in the order of
their arrival, bodies are JSON, and nobody knows a field that came after the first versions of the protocol. Assuming
less than there is costs a restore or some bytes. Assuming more may cost a gradient.

    service             a repeated number   an early one   training   zstd   newer fields
    Tinker              none *              parked         protobuf   flag   yes
    tinker_actors       first result        parked         JSON       no     yes
    SkyRL 0.3.0         carried out again   at once        JSON       no     no
    SkyRL, head         first result        at once        protobuf   yes    no
    TuFT 0.2.2          refused             refused        protobuf   yes    no
    open-rl             carried out again   at once        JSON       no     no
    opentinker          carried out again   at once        JSON       no     no
    Twinkle 0.5.1       not known: none     at once        JSON       no     no

open-rl and Twinkle answer `try_again` about a promise they do not know, for ever. With them the patience has an end;
all others may take as long as they like, for a queue may be long.

TuFT forgets the checkpoints of a model that is unloaded. With it, a model of which something was saved stays loaded.
No other service is known to do so, and slots are dear: of an unknown one it is not assumed.

    * The Tinker service may well answer a repeated number with its first result, but nothing says so, and it cannot be
      tried here. Fencing the model is safe either way; `dedupe` can be set by who knows better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias, get_args
from urllib.parse import urlsplit

import attrs

from tinker_actors.errors import ConfigError
from tinker_actors.protocol.retry import DedupeMode

__all__ = [
    "KNOWN",
    "TINKER_SERVICE",
    "Capability",
    "CapabilityRecord",
    "EarlyNumbers",
    "Flags",
    "TrainingBody",
    "body_refused",
    "form_refused",
    "learn_flags",
    "record_for",
]

TINKER_SERVICE = "https://tinker.thinkingmachines.dev/services/tinker-prod"  # tinker 0.38.0 lib/base_url.py
_TINKER_DOMAIN = "thinkingmachines.dev"
# Seconds for services that say `try_again` of promises they have forgotten, as after a restart: they work off one small
# queue, so an hour of it is far more than a step takes, and far less than a night.
_ENDLESS = 3600.0

EarlyNumbers = Literal["park", "refuse", "run"]
"""What a service does with a request whose number is not the next one: keep it until its turn, refuse it, run it."""
TrainingBody = Literal["json", "protobuf"]
Source = Literal["known", "probed", "set", "assumed"]
_WORDS: Mapping[str, tuple[str, ...]] = {
    "dedupe": get_args(DedupeMode),
    "early_numbers": get_args(EarlyNumbers),
    "training_body": get_args(TrainingBody),
}


@attrs.frozen(kw_only=True)
class CapabilityRecord:
    """What one service can do; the defaults are what is assumed of an unknown one.

    Attributes:
        service: its name.
        dedupe: what it does with a number it has seen.
        early_numbers: what it does with a number that is not the next one.
        training_body: the form it takes gradient requests in.
        compression: it takes protobuf bodies compressed with zstd.
        newer_fields: it takes fields that came after the first versions of the protocol.
        restart_ends_models: no model survives a restart of it, so none can be rolled back by one without a word.
        creates_by_loading: it makes a model of a saved state in one request (`load_weights` with a session).
        unload_forgets: a model that is unloaded takes along what was saved of it, so one that has saved stays loaded.
        patience: seconds of nothing but `try_again` after which a promise is not waited for any more, unless the user
            has set a time (`promise_timeout`); None has no end.
        session_timeout: seconds that a session lives without a beat; None is not known.
        noise: how far log probabilities are apart, in the mean, of two runs that should be the same.
        source: where this comes from: a table or the service itself, an experiment, the user, or nowhere.
        fixed: the names among these that nothing learned changes any more.
    """

    service: str = "unknown"
    dedupe: DedupeMode = "none"
    early_numbers: EarlyNumbers = "run"
    training_body: TrainingBody = "json"
    compression: bool = False
    newer_fields: bool = False
    restart_ends_models: bool = False
    creates_by_loading: bool = False
    unload_forgets: bool = False
    patience: float | None = None
    session_timeout: float | None = None
    noise: float = 0.0
    source: Source = "assumed"
    fixed: frozenset[str] = frozenset()


Capability: TypeAlias = CapabilityRecord | str
"""A record, or the name of a known service."""

KNOWN: Mapping[str, CapabilityRecord] = {
    record.service: record
    for record in (
        CapabilityRecord(
            service="tinker",
            early_numbers="park",
            training_body="protobuf",
            newer_fields=True,
            creates_by_loading=True,
            source="known",
        ),
        CapabilityRecord(
            service="tinker_actors",
            dedupe="replay",
            early_numbers="park",
            newer_fields=True,
            restart_ends_models=True,
            source="known",
        ),
        CapabilityRecord(service="skyrl-0.3.0", source="known"),
        CapabilityRecord(
            service="skyrl",
            dedupe="replay",
            training_body="protobuf",
            compression=True,
            source="known",
        ),
        CapabilityRecord(
            service="tuft",
            dedupe="reject",
            early_numbers="refuse",
            training_body="protobuf",
            compression=True,
            unload_forgets=True,
            source="known",
        ),
        CapabilityRecord(service="open-rl", patience=_ENDLESS, source="known"),
        CapabilityRecord(service="opentinker", source="known"),
        CapabilityRecord(service="twinkle", patience=_ENDLESS, source="known"),
    )
}
"""The services that were looked at."""


class Flags(Protocol):
    """What a service may say of itself in its answer to `client/config`; None: it does not say.

    All but the last, which is Tinker's, are this package's own extensions. Words that are not known say nothing.
    """

    @property
    def sequence_dedupe(self) -> str | None:
        """What it does with a repeated number."""
        ...

    @property
    def early_numbers(self) -> str | None:
        """What it does with a number that is not the next one."""
        ...

    @property
    def training_body(self) -> str | None:
        """The form it takes gradient requests in."""
        ...

    @property
    def newer_fields(self) -> bool | None:
        """Whether it takes fields that came later."""
        ...

    @property
    def restart_ends_models(self) -> bool | None:
        """Whether no model survives a restart of it."""
        ...

    @property
    def session_timeout(self) -> float | None:
        """Seconds that a session lives without a beat."""
        ...

    @property
    def proto_compress_fwdbwd(self) -> bool:
        """Whether it wants protobuf bodies compressed."""
        ...


def record_for(
    base_url: str,
    *,
    capability: Capability | None = None,
    dedupe: DedupeMode | None = None,
    training_body: TrainingBody | None = None,
    session_timeout: float | None = None,
    noise: float | None = None,
) -> CapabilityRecord:
    """Return what is known of a service before it has said a word.

    Args:
        base_url: where it is.
        capability: what the user says it can do, or which service it is.
        dedupe: what the user says it does with a repeated number.
        training_body: the form the user wants gradient requests to go out in.
        session_timeout: seconds that, as the user says, a session lives without a beat.
        noise: how far, as the user says, runs that should be the same are apart.

    Raises:
        ConfigError: `capability` names no service that is known.
    """
    record = _first(base_url, capability)
    said: dict[str, object] = {
        "dedupe": dedupe,
        "training_body": training_body,
        "session_timeout": session_timeout,
        "noise": noise,
    }
    return _fix(record, {name: value for name, value in said.items() if value is not None})


def _first(base_url: str, capability: Capability | None) -> CapabilityRecord:
    if isinstance(capability, CapabilityRecord):
        names = {field.name for field in attrs.fields(CapabilityRecord)} - {"fixed", "source"}
        return attrs.evolve(capability, source="set", fixed=frozenset(names))
    if capability is not None:
        if capability not in KNOWN:
            raise ConfigError(f"capability = {capability!r}: must be a record or one of {', '.join(KNOWN)}")
        return KNOWN[capability]
    host = (urlsplit(base_url).hostname or "").lower()
    if host == _TINKER_DOMAIN or host.endswith("." + _TINKER_DOMAIN):
        return KNOWN["tinker"]
    return CapabilityRecord()


def _fix(record: CapabilityRecord, values: Mapping[str, object]) -> CapabilityRecord:
    """Set some of a record for good."""
    changes: dict[str, Any] = {**values, "fixed": record.fixed | set(values)}  # each of its field's type
    return attrs.evolve(record, **changes)


def learn_flags(record: CapabilityRecord, flags: Flags) -> CapabilityRecord:
    """Return the record with what the service says of itself; what is fixed stays."""
    said: dict[str, Any] = {  # each of its field's type
        "dedupe": flags.sequence_dedupe,
        "early_numbers": flags.early_numbers,
        "training_body": flags.training_body,
        "newer_fields": flags.newer_fields,
        "restart_ends_models": flags.restart_ends_models,
        "session_timeout": _above_0(flags.session_timeout),
        "compression": True if flags.proto_compress_fwdbwd else None,
    }
    news = {
        name: value
        for name, value in said.items()
        if value is not None and name not in record.fixed and value in _WORDS.get(name, (value,))
    }
    if not news:
        return record
    if record.source == "assumed":
        news["source"] = "known"
    return attrs.evolve(record, **news)


def _above_0(seconds: float | None) -> float | None:
    return seconds if seconds is not None and seconds > 0 else None


def body_refused(record: CapabilityRecord, sent: TrainingBody) -> CapabilityRecord | None:
    """Return the record after a 415 to a gradient request: the other form is tried, once.

    A service may say the same of a loss without a gradient by a 404: in protobuf both go to one endpoint, and it has
    no other. Whether that is so shows when it takes the other form; see `form_refused`.

    Args:
        record: what is known by now.
        sent: the form that was refused.

    Returns:
        None: the other form was refused before, or the user has set this one.
    """
    if record.training_body != sent:
        return record  # another request has found out in the meantime
    if "training_body" in record.fixed:
        return None
    other: TrainingBody = "protobuf" if sent == "json" else "json"
    return attrs.evolve(_fix(record, {"training_body": other}), source="probed")


def form_refused(status: int) -> bool:
    """Whether the answer to a form that was tried on a guess says that it was a wrong one."""
    return status in (404, 405, 415, 422)
