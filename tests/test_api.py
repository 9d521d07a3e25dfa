"""The friendly names are a list, and importing the package is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tinker_actors as ta

NAMES = [
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


def test_the_public_names_are_exactly_these() -> None:
    """A name that comes or goes is a decision, not an accident."""
    assert list(ta.__all__) == NAMES
    assert dir(ta) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_loads(name: str) -> None:
    """Each lazy name leads somewhere."""
    assert getattr(ta, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ta.nothing  # noqa: B018 - reading it is the test


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("RateLimitError", "errors.RateLimitError"),
        ("TrainingRunsResponse", "types.TrainingRunsResponse"),
        ("ModelRestored", "events.ModelRestored"),
        ("OptimStep", "messages.OptimStep"),
    ],
)
def test_a_name_of_a_room_is_told_with_its_room(name: str, place: str) -> None:
    """Who looks for it at the top, as in Tinker's package, is told where it is."""
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; did you mean '{place}'\?"):
        getattr(ta, name)


def test_what_losses_and_bridges_are_made_of_is_reached_by_attributes() -> None:
    """`ta.rl.compose` and `ta.bridges.torch` need no import of their own."""
    code = (
        "import tinker_actors as ta; ta.rl.compose; ta.rl.KL; ta.bridges.torch.loss; ta.testing.run_virtual"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_importing_the_package_loads_none_of_the_heavy_rooms() -> None:
    """numpy, httpx, starlette and trio wait until a name needs them."""
    code = "import sys, tinker_actors; print([m for m in ('numpy', 'httpx', 'starlette', 'trio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
