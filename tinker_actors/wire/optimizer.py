"""The optimizer: which one a model has, the settings of one step, the step."""

import math
import numbers
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

import attrs

from tinker_actors.errors import InputError
from tinker_actors.wire.field import filled

__all__ = [
    "ADAM_CONFIG",
    "AdamOptimizerConfig",
    "AdamParams",
    "DimuonOptimizerConfig",
    "DimuonParams",
    "OptimParams",
    "OptimParamsBase",
    "OptimStepRequest",
    "OptimStepResponse",
    "OptimizerConfig",
    "OptimizerConfigBase",
]

_Attribute: TypeAlias = "attrs.Attribute[Any]"


def _number(attribute: _Attribute, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise InputError(attribute.name, value, "must be a finite number")
    return float(value)


def _finite(_: object, attribute: _Attribute, value: object) -> None:
    _number(attribute, value)


def _not_negative(_: object, attribute: _Attribute, value: object) -> None:
    if _number(attribute, value) < 0:
        raise InputError(attribute.name, value, "must not be negative")


def _decay(_: object, attribute: _Attribute, value: object) -> None:
    if not 0 <= _number(attribute, value) < 1:
        raise InputError(attribute.name, value, "must be at least 0 and below 1")


def _extra(extra: Mapping[str, object] | None) -> dict[str, object]:
    given: object = {} if extra is None else extra  # it may be anything
    if not isinstance(given, Mapping):
        raise InputError("extra", given, "must map names to values")
    fields = cast("Mapping[object, object]", given)
    for name in fields:
        if not isinstance(name, str) or name == "type":
            raise InputError("extra", name, "names must be strings, and none of them 'type'")
    return {str(name): value for name, value in fields.items()}


# --- which optimizer a model has -------------------------------------------------------------------------


@attrs.frozen
class AdamOptimizerConfig:
    """The model is trained with Adam."""

    type: Literal["adamw"] = "adamw"


@attrs.frozen(kw_only=True)
class DimuonOptimizerConfig:
    """The model is trained with Dimuon.

    Attributes:
        version: of the algorithm.
    """

    type: Literal["dimuon"] = "dimuon"
    version: int = 1


@attrs.frozen
class OptimizerConfigBase:
    """The model is trained with an optimizer that this package does not know.

    Attributes:
        type: its name.
        extra: its settings, written beside `type`.

    Raises:
        InputError: no name, or extra settings that are no mapping of names.
    """

    type: str = attrs.field(validator=filled)
    extra: dict[str, object] = attrs.field(converter=_extra, factory=dict, hash=False)


OptimizerConfig: TypeAlias = AdamOptimizerConfig | DimuonOptimizerConfig | OptimizerConfigBase
ADAM_CONFIG = AdamOptimizerConfig()


# --- the settings of one step ----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class AdamParams:
    """One Adam step's settings; defaults are Tinker's.

    Attributes:
        learning_rate: step size.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled decay (AdamW).
        grad_clip_norm: global norm the gradient is cut to; 0 is off.
    """

    # tinker 0.38.0 types/optim_step_request.py
    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0


@attrs.frozen(kw_only=True)
class DimuonParams:
    """One Dimuon step's settings; defaults are Tinker's.

    Attributes:
        learning_rate: step size, not negative.
        grad_clip_norm: global norm the gradient is cut to; 0 and below is off.
        beta1: decay of the moment, at least 0 and below 1.

    Raises:
        InputError: a setting that is not finite, or out of its range.
    """

    # tinker 0.38.0 types/dimuon_params.py
    type: Literal["dimuon"] = "dimuon"
    learning_rate: float = attrs.field(validator=_not_negative)
    grad_clip_norm: float = attrs.field(default=0.0, validator=_finite)
    beta1: float = attrs.field(default=0.9, validator=_decay)


@attrs.frozen
class OptimParamsBase:
    """One step's settings of an optimizer that this package does not know.

    Attributes:
        type: its name.
        extra: its settings, written beside `type`.

    Raises:
        InputError: no name, or extra settings that are no mapping of names.
    """

    type: str = attrs.field(validator=filled)
    extra: dict[str, object] = attrs.field(converter=_extra, factory=dict, hash=False)


OptimParams: TypeAlias = AdamParams | DimuonParams | OptimParamsBase


# --- the step --------------------------------------------------------------------------------------------


@attrs.frozen
class OptimStepRequest:
    """Applies the accumulated gradient and clears it.

    In JSON the settings stand under `adam_params` if they are Adam's, else under `optimizer_params`; read are
    both, and `optim_params`.
    """

    optim_params: OptimParams
    model_id: str
    seq_id: int | None = None
    type: Literal["optim_step"] = "optim_step"


@attrs.frozen
class OptimStepResponse:
    """What the optimizer reports about its step."""

    metrics: dict[str, float] | None = None
