"""Where the tokens of a training example come from: which prompt, which sampled sequence, which part of it."""

from typing import Literal, TypeAlias

import attrs

from tinker_actors.wire.field import count, filled

__all__ = ["PromptProvenanceSpan", "ProvenanceSpan", "SampledProvenanceSpan"]


@attrs.frozen(kw_only=True)
class PromptProvenanceSpan:
    """Tokens that were part of the prompt of a sampled sequence.

    Attributes:
        sequence_id: the sequence, by the id that came with it.
        offset: where in the prompt the span starts.
        length: how many tokens it has.

    Raises:
        InputError: no id, or a number that is negative.
    """

    sequence_id: str = attrs.field(validator=filled)
    offset: int = attrs.field(default=0, validator=count)
    length: int = attrs.field(validator=count)
    type: Literal["prompt_tokens"] = "prompt_tokens"


@attrs.frozen(kw_only=True)
class SampledProvenanceSpan:
    """Tokens that were drawn.

    Attributes:
        sequence_id: the sequence, by the id that came with it.
        offset: where among its drawn tokens the span starts.
        length: how many tokens it has.

    Raises:
        InputError: no id, or a number that is negative.
    """

    sequence_id: str = attrs.field(validator=filled)
    offset: int = attrs.field(default=0, validator=count)
    length: int = attrs.field(validator=count)
    type: Literal["sampled_tokens"] = "sampled_tokens"


ProvenanceSpan: TypeAlias = PromptProvenanceSpan | SampledProvenanceSpan
