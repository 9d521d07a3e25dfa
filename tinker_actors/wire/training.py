"""Training: losses and gradients."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import attrs

from tinker_actors.wire.field import choice, needed
from tinker_actors.wire.input import Datum
from tinker_actors.wire.tensor import TensorData

__all__ = [
    "LOSS_FNS",
    "CreateCustomLossRequest",
    "CreateCustomLossResponse",
    "CustomLossInput",
    "ForwardBackwardInput",
    "ForwardBackwardOutput",
    "ForwardBackwardRequest",
    "ForwardRequest",
    "LossFnType",
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
    """A batch and the loss to compute over it; the loss is a sum over tokens.

    Raises:
        InputError: an unknown loss.
    """

    data: tuple[Datum, ...] = attrs.field(converter=_datum_tuple)
    loss_fn: LossFnType = attrs.field(validator=choice(LOSS_FNS))
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
    return tuple([dict(output) for output in outputs])


@attrs.frozen
class ForwardBackwardOutput:
    """What came out of a batch.

    Attributes:
        loss_fn_output_type: the service's name for the shape of the outputs.
        loss_fn_outputs: one mapping per datum, in datum order; `logprobs` holds the log probability of each
            target token.
        metrics: values named `name:reduction`; `loss:sum` is always there.
    """

    loss_fn_output_type: str = ""
    loss_fn_outputs: tuple[dict[str, TensorData], ...] = attrs.field(
        converter=_output_tuple, default=(), metadata=needed()
    )
    metrics: dict[str, float] = attrs.field(factory=dict)


# --- losses of one's own ---------------------------------------------------------------------------------


@attrs.frozen
class CustomLossInput:
    """One argument of an uploaded loss.

    Attributes:
        name: the key of `loss_fn_inputs`; `logprobs` is what the model gives.
        rank: the number of its dimensions, 0 to 2.
    """

    name: str
    rank: int


@attrs.frozen(kw_only=True)
class CreateCustomLossRequest:
    """Uploads a loss, to be run by the service.

    Attributes:
        session_id: the session it belongs to.
        custom_loss_seq_id: its number in the session, from 0.
        name: what it is called.
        inputs: its arguments, in order.
        graph: what it computes, as a list of nodes.
    """

    session_id: str
    custom_loss_seq_id: int
    name: str
    inputs: tuple[CustomLossInput, ...]
    graph: Mapping[str, object]
    type: Literal["create_custom_loss"] = "create_custom_loss"


@attrs.frozen
class CreateCustomLossResponse:
    """The uploaded loss.

    Attributes:
        loss_id: what `loss_fn_config` of the loss `custom` names it by.
    """

    loss_id: str
    type: Literal["create_custom_loss"] | None = None
