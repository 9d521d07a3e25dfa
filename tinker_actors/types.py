"""The wire types that users build and read, under one name."""

from __future__ import annotations

from tinker_actors.wire.input import Datum, EncodedTextChunk, ModelInput
from tinker_actors.wire.model import (
    GetInfoResponse,
    LoadWeightsResponse,
    LoraConfig,
    ModelData,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
)
from tinker_actors.wire.sampling import SampledSequence, SampleResponse, SamplingParams, StopReason
from tinker_actors.wire.session import GetServerCapabilitiesResponse, SupportedModel
from tinker_actors.wire.tensor import TensorData, TensorDtype
from tinker_actors.wire.training import AdamParams, ForwardBackwardOutput, LossFnType, OptimStepResponse

__all__ = [
    "AdamParams",
    "Datum",
    "EncodedTextChunk",
    "ForwardBackwardOutput",
    "GetInfoResponse",
    "GetServerCapabilitiesResponse",
    "LoadWeightsResponse",
    "LoraConfig",
    "LossFnType",
    "ModelData",
    "ModelInput",
    "OptimStepResponse",
    "SampleResponse",
    "SampledSequence",
    "SamplingParams",
    "SaveWeightsForSamplerResponse",
    "SaveWeightsResponse",
    "StopReason",
    "SupportedModel",
    "TensorData",
    "TensorDtype",
]
