"""Renderers: conversations to tokens, and a model's answer back.

One protocol, so that loops and environments do not care where a renderer comes from. `ChatTemplateRenderer`
(`text.chat`) renders by a model's own chat template; a renderer of another package fits if it has these methods. Their
names are those of the Tinker cookbook.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from tinker_actors.errors import InputError
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.tensor import TensorData

__all__ = ["ChatMessage", "ParseTermination", "Renderer", "TrainOn", "datum_from_model_input_weights"]


class _Required(TypedDict):
    role: str


class ChatMessage(_Required, total=False):
    """One message of a conversation, as chat templates read it.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`; templates may know others.
        content: a text, or a list of parts where the template takes that.
        thinking: what the model thought before it answered.
        reasoning_content: the same, under the name that most templates read.
        tool_calls: calls of tools in an assistant's message.
        tool_call_id: which call a tool's message answers.
        name: who speaks, where a template asks for it.
    """

    content: str | list[dict[str, Any]]
    thinking: str
    reasoning_content: str
    tool_calls: list[dict[str, Any]]
    tool_call_id: str
    name: str


class ParseTermination(enum.Enum):
    """How an answer ended."""

    STOP_SEQUENCE = "stop_sequence"  # by what ends a turn
    EOS = "eos"  # by what ends a text
    MALFORMED = "malformed"  # by neither: it was cut off


TrainOn: TypeAlias = Literal["last_assistant_message", "all_assistant_messages", "all_tokens"]
"""What of a conversation is learned."""


class Renderer(Protocol):
    """Turns conversations into tokens, and a model's answer into a message."""

    def build_generation_prompt(
        self, messages: Sequence[ChatMessage], prefill: str | None = None
    ) -> ModelInput:
        """Return what the model continues with its answer.

        Args:
            messages: the conversation so far.
            prefill: how the answer begins.
        """
        ...

    def build_supervised_example(
        self, messages: Sequence[ChatMessage], train_on: TrainOn = "last_assistant_message"
    ) -> tuple[ModelInput, NDArray[np.float32]]:
        """Return a conversation's tokens, and how much each of them counts: shape (tokens,), 0 or 1.

        `datum_from_model_input_weights` makes a datum of them.
        """
        ...

    def get_stop_sequences(self) -> list[str] | list[int]:
        """Return what ends the model's turn, for `SamplingParams.stop`."""
        ...

    def parse_response(self, tokens: Sequence[int]) -> tuple[ChatMessage, ParseTermination]:
        """Return the message that sampled tokens stand for, and how it ended."""
        ...


def datum_from_model_input_weights(
    model_input: ModelInput, weights: NDArray[np.float32], max_length: int | None = None
) -> Datum:
    """Return the datum of a supervised example, for the loss `cross_entropy`.

    Position i predicts token i + 1, so the datum is one token shorter than the example.

    Args:
        model_input: the example's tokens.
        weights: how much each token counts; shape (tokens,).
        max_length: cut the example to that many tokens.

    Raises:
        InputError: fewer than two tokens, not one weight for each, or a negative length.
    """
    if max_length is not None and max_length < 0:
        raise InputError("max_length", max_length, "must not be negative")
    tokens = model_input.to_numpy()
    if weights.shape != tokens.shape:
        raise InputError("weights", weights.shape, f"must have the shape {tokens.shape}, one for each token")
    if max_length is not None:
        tokens, weights = tokens[:max_length], weights[:max_length]
    if len(tokens) < 2:
        raise InputError("model_input", len(tokens), "must have at least two tokens")
    return Datum(
        ModelInput.from_ints(tokens[:-1].tolist()),
        {
            "target_tokens": TensorData.from_numpy(tokens[1:].astype(np.int64)),
            "weights": TensorData.from_numpy(weights[1:].astype(np.float32)),
        },
    )
