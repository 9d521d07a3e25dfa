"""Training: losses, gradients, the optimizer."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import attrs

from tinker_actors.wire.input import Datum
from tinker_actors.wire.tensor import TensorData

__all__ = [
    "LOSS_FNS",
    "AdamParams",
    "ForwardBackwardInput",
    "ForwardBackwardOutput",
    "ForwardBackwardRequest",
    "ForwardRequest",
    "LossFnType",
    "OptimStepRequest",
    "OptimStepResponse",
]

# tinker 0.38.0 types/loss_fn_type.py
LossFnType = Literal[
    "cross_entropy", "importance_sampling", "ppo", "cispo", "dro", "gspo", "stable_reinforce", "custom"
]
LOSS_FNS: tuple[str, ...] = get_args(LossFnType)


def _datum_tuple(data: Sequence[Datum]) -> tuple[Datum, ...]:
    return tuple(data)


@attrs.frozen
class ForwardBackwardInput:
    """A batch and the loss to compute over it; the loss is a sum over tokens."""

    data: tuple[Datum, ...] = attrs.field(converter=_datum_tuple)
    loss_fn: LossFnType
    loss_fn_config: Mapping[str, float | str] | None = None


@attrs.frozen
class ForwardBackwardRequest:
    """Adds the gradient of a batch to the model's accumulated gradient."""

    forward_backward_input: ForwardBackwardInput
    model_id: str
    seq_id: int


@attrs.frozen
class ForwardRequest:
    """Computes a batch's loss without a gradient."""

    forward_input: ForwardBackwardInput
    model_id: str
    seq_id: int


def _output_tuple(outputs: Sequence[Mapping[str, TensorData]]) -> tuple[dict[str, TensorData], ...]:
    return tuple(dict(output) for output in outputs)


@attrs.frozen
class ForwardBackwardOutput:
    """What came out of a batch.

    Attributes:
        loss_fn_output_type: the service's name for the shape of the outputs.
        loss_fn_outputs: one mapping per datum, in datum order; `logprobs` holds the log probability of each
            target token.
        metrics: values named `name:reduction`; `loss:sum` is always there.
    """

    loss_fn_output_type: str
    loss_fn_outputs: tuple[dict[str, TensorData], ...] = attrs.field(converter=_output_tuple)
    metrics: dict[str, float] = attrs.field(factory=dict)


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


@attrs.frozen
class OptimStepRequest:
    """Applies the accumulated gradient and clears it."""

    adam_params: AdamParams
    model_id: str
    seq_id: int
    type: Literal["optim_step"] = "optim_step"


@attrs.frozen
class OptimStepResponse:
    """What the optimizer reports about its step."""

    metrics: dict[str, float] | None = None
