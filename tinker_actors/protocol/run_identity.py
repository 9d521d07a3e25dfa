"""What a run was begun with, and whether it is opened with the same again. Pure.

A run that is resumed with another model, loss or data set does not fail: it trains, and its curve says nothing any
more. So what it was begun with is written down, and a difference is refused by name unless it is accepted by name.

Nor does one that is opened on another service: the checkpoints of the run are not there, and to go on without them is
to lose them. So where it was trained last is written down as well, once it was opened there.

The user's own part, `identity`, is JSON: versions of data, prompts, code, whatever must not change unnoticed. Its
entries are named `identity.<key>`; `identity` alone accepts all of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Final, cast

import attrs

from tinker_actors.errors import InputError, RunMismatch
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.model import LoraConfig

__all__ = ["BACKEND", "Identity", "check_accept", "check_mine", "is_moved", "merge"]

BACKEND: Final = "backend"
"""The name of the fact that says where a run was opened last: `local`, or a base URL."""

_NAMES: Final = frozenset({BACKEND, "base_model", "loss", *attrs.fields_dict(LoraConfig)})
_MINE: Final = "identity"


@attrs.frozen(kw_only=True)
class Identity:
    """What a run is begun with.

    Attributes:
        base_model: what is adapted.
        lora: the adapter, with an explicit seed.
        loss: the loss that its steps are trained with; None: it is not declared.
        mine: the user's own part.
    """

    base_model: str
    lora: LoraConfig
    loss: str | None = None
    mine: dict[str, JsonValue] = attrs.field(factory=dict[str, JsonValue])

    def to_json(self) -> dict[str, JsonValue]:
        """Return it as it is written down."""
        lora = cast("dict[str, JsonValue]", attrs.asdict(self.lora))
        return {"base_model": self.base_model, **lora, "loss": self.loss, _MINE: self.mine}

    @classmethod
    def from_json(cls, written: Mapping[str, JsonValue]) -> Identity:
        """Return what was written down."""
        lora = {name: written[name] for name in attrs.fields_dict(LoraConfig)}
        return cls(
            base_model=cast("str", written["base_model"]),
            lora=LoraConfig(**cast("dict[str, int]", lora)),  # type: ignore[arg-type]  # as it was written by us
            loss=cast("str | None", written["loss"]),
            mine=cast("dict[str, JsonValue]", written[_MINE]),
        )


def check_mine(identity: object) -> dict[str, JsonValue]:
    """Return the user's own part as JSON keeps it; None is an empty one.

    Raises:
        InputError: it does not map strings to JSON.
    """
    if identity is None:
        return {}
    if not isinstance(identity, Mapping):
        raise InputError("identity", identity, "must map strings to JSON")
    mine: dict[str, JsonValue] = {}
    for key, value in cast("Mapping[object, object]", identity).items():
        if not isinstance(key, str):
            raise InputError("identity", key, "names must be strings")
        try:
            mine[key] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"identity[{key!r}]", value, f"must be JSON: {error}") from error
    return mine


def check_accept(accept: object) -> frozenset[str]:
    """Return the names of what may differ.

    Raises:
        InputError: no list of names, or a name that is none.
    """
    if isinstance(accept, str) or not isinstance(accept, Collection):
        raise InputError("accept", accept, "must be a list of names, such as ('loss', 'identity.data')")
    for name in cast("Collection[object]", accept):
        known = isinstance(name, str) and (name in _NAMES or name.partition(".")[0] == _MINE)
        if not known:
            why = f"names are {', '.join(sorted(_NAMES))}, identity, and identity.<key>"
            raise InputError("accept", name, why)
    return frozenset(cast("Collection[str]", accept))


def merge(begun: Identity, given: Identity, accept: Collection[str], *, seed_given: bool) -> Identity:
    """Return what the run goes on with: what was given, where a difference is accepted, but for the weights' shape.

    Args:
        begun: what the run was begun with.
        given: what it is opened with now.
        accept: the names of what may differ.
        seed_given: the seed was named by the user; one that was drawn is no difference. Nor is a loss that is not
            declared now: the one that was stays.

    Raises:
        RunMismatch: something differs that is not accepted.
    """
    before, now = _flat(begun), _flat(given)
    if not seed_given:
        now["seed"] = before["seed"]
    if given.loss is None:
        now["loss"] = before["loss"]
    differing = {
        name: (before.get(name), now.get(name))
        for name in sorted(before.keys() | now.keys())
        if name not in before or name not in now or before[name] != now[name]
    }
    refused = {name: pair for name, pair in differing.items() if not _is_accepted(name, accept)}
    if refused:
        told = "; ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in refused.items())
        how = ", ".join(repr(name) for name in refused)
        message = (
            f"the run was begun with something else: {told} (if that is meant, open it with accept=({how},))"
        )
        raise RunMismatch(message, fields=refused)
    return Identity(
        base_model=given.base_model,
        lora=begun.lora,
        loss=cast("str | None", now["loss"]),
        mine=given.mine,
    )


def is_moved(noted: object, here: str, accept: Collection[str]) -> bool:
    """Return whether a run is opened on another backend than it was last.

    Args:
        noted: where it was opened last, as it is in the journal; None: it has never been.
        here: where it is opened now: `local`, whatever embedded service that is, or a base URL as it is compared.
        accept: the names of what may differ.

    Raises:
        RunMismatch: it is, and that is not accepted.
    """
    if noted is None or noted == here:
        return False
    if BACKEND not in accept:
        raise RunMismatch(
            f"backend was {noted!r} and is {here!r}: what the run has saved is where it was (if it is the same "
            f"service at another address, open the run with accept=({BACKEND!r},))",
            fields={BACKEND: (noted, here)},
        )
    return True


def _flat(identity: Identity) -> dict[str, JsonValue]:
    flat = identity.to_json()
    del flat[_MINE]
    return flat | {f"{_MINE}.{key}": value for key, value in identity.mine.items()}


def _is_accepted(name: str, accept: Collection[str]) -> bool:
    return name in accept or (name.startswith(f"{_MINE}.") and _MINE in accept)
