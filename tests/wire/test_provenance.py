from __future__ import annotations

from typing import Any

import pytest

from tests.wire.refusals import refusal
from tinker_actors.wire.provenance import PromptProvenanceSpan, SampledProvenanceSpan


@pytest.mark.parametrize("kind", [PromptProvenanceSpan, SampledProvenanceSpan])
def test_a_span_starts_at_the_beginning_unless_it_is_said(kind: Any) -> None:
    """Offset 0 is the default; the rest must be given, by name."""
    assert kind(sequence_id="q", length=2) == kind(sequence_id="q", offset=0, length=2)
    with pytest.raises(TypeError):
        kind("q", 0, 2)


@pytest.mark.parametrize("kind", [PromptProvenanceSpan, SampledProvenanceSpan])
@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"sequence_id": "", "length": 1}, "sequence_id", ""),
        ({"sequence_id": 3, "length": 1}, "sequence_id", 3),
        ({"sequence_id": "q", "length": -1}, "length", -1),
        ({"sequence_id": "q", "offset": -1, "length": 1}, "offset", -1),
        ({"sequence_id": "q", "offset": 1.0, "length": 1}, "offset", 1.0),
    ],
)
def test_a_span_without_a_sequence_or_with_negative_numbers_is_refused(
    kind: Any, fields: Any, field: str, value: object
) -> None:
    """By the field."""
    assert refusal(kind, **fields) == (field, value)
