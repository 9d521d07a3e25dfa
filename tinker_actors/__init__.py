"""Actors on trio that train and sample LoRA models through the Tinker API.

    import trio
    import tinker_actors as ta

    async def main() -> None:
        async with ta.open_service() as service:
            training = await service.create_lora_training_client("tinker-actors/char-100k", rank=8)
            ...

    trio.run(main)

General layout: `errors` ← `kernel` | `wire` ← `protocol` ← `text` ← `transport` | `local` ← `actors` ← the names
below ← `opening` ← `cli`. `docs/design.md` has the map. Names are loaded on first use, so that importing the
package costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tinker_actors.version import __version__

if TYPE_CHECKING:
    from tinker_actors import bridges, errors, events, kernel, messages, rl, testing, text, types
    from tinker_actors.actors.admin import AdminClient
    from tinker_actors.actors.rest import RestClient
    from tinker_actors.actors.sampling_client import SamplingClient
    from tinker_actors.actors.service_client import ServiceClient
    from tinker_actors.actors.training_client import TrainingClient
    from tinker_actors.bridges.crossing import aio, from_aio
    from tinker_actors.bridges.guest import run, run_guest
    from tinker_actors.bridges.portal import Portal, open_portal
    from tinker_actors.errors import TinkerActorsError
    from tinker_actors.kernel import ActorRef, Message, Pending
    from tinker_actors.local.service import EmbeddedService
    from tinker_actors.opening import open_admin_client, open_rest_client, open_run, open_service
    from tinker_actors.protocol.checkpoint_policy import CheckpointPolicy
    from tinker_actors.protocol.policy import RetryConfig
    from tinker_actors.protocol.resume import ResumePoint
    from tinker_actors.protocol.retention import Retention, RunCheckpoint
    from tinker_actors.runs.run import Run
    from tinker_actors.runs.step import DecidedStep, RunStep
    from tinker_actors.transport.client import AsyncTinker
    from tinker_actors.transport.config import Config
    from tinker_actors.transport.options import Hooks, RequestOptions
    from tinker_actors.types import (
        AdamOptimizerConfig,
        AdamParams,
        Checkpoint,
        CheckpointType,
        CustomLoss,
        Datum,
        DimuonOptimizerConfig,
        DimuonParams,
        DmelChunk,
        EncodedTextChunk,
        ForwardBackwardOutput,
        ImageAssetPointerChunk,
        ImageChunk,
        LoraConfig,
        LossFnType,
        ModelInput,
        ModelInputChunk,
        OptimParams,
        OptimStepResponse,
        ParsedCheckpointTinkerPath,
        PromptProvenanceSpan,
        SampledProvenanceSpan,
        SampledSequence,
        SampleRequest,
        SampleResponse,
        SamplingParams,
        StopReason,
        TensorData,
        TensorDtype,
        TrainingRun,
    )

__all__ = [
    "ActorRef",
    "AdamOptimizerConfig",
    "AdamParams",
    "AdminClient",
    "AsyncTinker",
    "Checkpoint",
    "CheckpointPolicy",
    "CheckpointType",
    "Config",
    "CustomLoss",
    "Datum",
    "DecidedStep",
    "DimuonOptimizerConfig",
    "DimuonParams",
    "DmelChunk",
    "EmbeddedService",
    "EncodedTextChunk",
    "ForwardBackwardOutput",
    "Hooks",
    "ImageAssetPointerChunk",
    "ImageChunk",
    "LoraConfig",
    "LossFnType",
    "Message",
    "ModelInput",
    "ModelInputChunk",
    "OptimParams",
    "OptimStepResponse",
    "ParsedCheckpointTinkerPath",
    "Pending",
    "Portal",
    "PromptProvenanceSpan",
    "RequestOptions",
    "RestClient",
    "ResumePoint",
    "Retention",
    "RetryConfig",
    "Run",
    "RunCheckpoint",
    "RunStep",
    "SampleRequest",
    "SampleResponse",
    "SampledProvenanceSpan",
    "SampledSequence",
    "SamplingClient",
    "SamplingParams",
    "ServiceClient",
    "StopReason",
    "TensorData",
    "TensorDtype",
    "TinkerActorsError",
    "TrainingClient",
    "TrainingRun",
    "__version__",
    "aio",
    "bridges",
    "errors",
    "events",
    "from_aio",
    "kernel",
    "messages",
    "open_admin_client",
    "open_portal",
    "open_rest_client",
    "open_run",
    "open_service",
    "rl",
    "run",
    "run_guest",
    "testing",
    "text",
    "types",
]

_HOME = {
    "ActorRef": "kernel",
    "AdamOptimizerConfig": "types",
    "AdamParams": "types",
    "AdminClient": "actors.admin",
    "AsyncTinker": "transport.client",
    "Checkpoint": "types",
    "CheckpointPolicy": "protocol.checkpoint_policy",
    "CheckpointType": "types",
    "Config": "transport.config",
    "CustomLoss": "types",
    "Datum": "types",
    "DecidedStep": "runs.step",
    "DimuonOptimizerConfig": "types",
    "DimuonParams": "types",
    "DmelChunk": "types",
    "EmbeddedService": "local.service",
    "EncodedTextChunk": "types",
    "ForwardBackwardOutput": "types",
    "Hooks": "transport.options",
    "ImageAssetPointerChunk": "types",
    "ImageChunk": "types",
    "LoraConfig": "types",
    "LossFnType": "types",
    "Message": "kernel",
    "ModelInput": "types",
    "ModelInputChunk": "types",
    "OptimParams": "types",
    "OptimStepResponse": "types",
    "ParsedCheckpointTinkerPath": "types",
    "Pending": "kernel",
    "Portal": "bridges.portal",
    "PromptProvenanceSpan": "types",
    "RequestOptions": "transport.options",
    "RestClient": "actors.rest",
    "ResumePoint": "protocol.resume",
    "Retention": "protocol.retention",
    "RetryConfig": "protocol.policy",
    "Run": "runs.run",
    "RunCheckpoint": "protocol.retention",
    "RunStep": "runs.step",
    "SampleRequest": "types",
    "SampleResponse": "types",
    "SampledProvenanceSpan": "types",
    "SampledSequence": "types",
    "SamplingClient": "actors.sampling_client",
    "SamplingParams": "types",
    "ServiceClient": "actors.service_client",
    "StopReason": "types",
    "TensorData": "types",
    "TensorDtype": "types",
    "TinkerActorsError": "errors",
    "TrainingClient": "actors.training_client",
    "TrainingRun": "types",
    "aio": "bridges.crossing",
    "from_aio": "bridges.crossing",
    "open_admin_client": "opening",
    "open_portal": "bridges.portal",
    "open_rest_client": "opening",
    "open_run": "opening",
    "open_service": "opening",
    "run": "bridges.guest",
    "run_guest": "bridges.guest",
}
_ROOMS = ("bridges", "errors", "events", "kernel", "messages", "rl", "testing", "text", "types")
_OF_MANY_NAMES = ("errors", "types", "events", "messages")  # not all of their names are above


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_hint(name)}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def _hint(name: str) -> str:
    if name[:1].isupper():  # programs that only look (for `__path__`, say) load nothing
        for room in _OF_MANY_NAMES:
            if name in importlib.import_module(f"{__name__}.{room}").__all__:
                return f"; did you mean '{room}.{name}'?"
    return ""


def __dir__() -> list[str]:
    return sorted(__all__)
