"""The wire types that users build and read, under one name."""

from __future__ import annotations

from tinker_actors.wire.chunk import EncodedTextChunk
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.model import GetInfoResponse, LoraConfig, ModelData
from tinker_actors.wire.optimizer import AdamParams, OptimStepResponse
from tinker_actors.wire.sampling import SampledSequence, SampleResponse, SamplingParams, StopReason
from tinker_actors.wire.service import GetServerCapabilitiesResponse, SupportedModel
from tinker_actors.wire.tensor import TensorData, TensorDtype
from tinker_actors.wire.training import ForwardBackwardOutput, LossFnType
from tinker_actors.wire.weights import LoadWeightsResponse, SaveWeightsForSamplerResponse, SaveWeightsResponse

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
