"""The types that users build and read are under one name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import attrs

from tinker_actors import types

# Of the official client's own list those that are types; `OptimParams`, `StopReason` and such are unions and literals.
OFFICIAL = """
AdamOptimizerConfig AdamParams Checkpoint CheckpointType Datum DimuonOptimizerConfig DimuonParams DmelChunk
EncodedTextChunk ForwardBackwardOutput LoraConfig ModelInput ModelInputChunk OptimParams OptimStepRequest
OptimStepResponse ParsedCheckpointTinkerPath PromptProvenanceSpan SampleRequest SampleResponse
SampledProvenanceSpan SampledSequence SamplingParams StopReason TensorData TensorDtype TrainingRun
"""


def test_the_official_clients_types_are_there() -> None:
    """Whoever comes from there finds the same names."""
    assert set(OFFICIAL.split()) <= set(types.__all__)


def test_every_name_is_a_type_of_the_wire_room() -> None:
    """Classes are frozen attrs classes, and each knows its home; a loss of the user's own never crosses the wire."""
    names = set(types.__all__) - {"CustomLoss"}
    classes = [value for name in names if isinstance(value := getattr(types, name), type)]
    assert [kind for kind in classes if not attrs.has(kind)] == []
    assert {kind.__module__.rpartition(".")[0] for kind in classes} == {"tinker_actors.wire"}
    assert len(classes) > 50


def classes_in(kind: object) -> Iterator[type]:
    """Return the classes of the wire that a type speaks of."""
    if isinstance(kind, type) and attrs.has(kind):
        yield kind
    for part in get_args(kind):
        yield from classes_in(part)


def test_what_they_hold_is_there_too() -> None:
    """Whoever is given an object can name the classes of all that is in it."""
    classes = {value for name in types.__all__ if isinstance(value := getattr(types, name), type)}
    held = {part for kind in classes for field in attrs.fields(kind) for part in classes_in(field.type)}
    assert held - classes == set()


def test_internal_answers_are_not_among_them() -> None:
    """What a user never sees is not offered."""
    assert "SaveWeightsForSamplerResult" not in types.__all__
    assert [name for name in types.__all__ if name.endswith("Request")] == [
        "OptimStepRequest",
        "SampleRequest",
        "SessionSearchRequest",
    ]
