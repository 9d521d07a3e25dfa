"""The friendly names are a list, and importing the package is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tinker_actors as ta

NAMES = [
    "ActorRef",
    "AdamParams",
    "AdminClient",
    "AsyncTinker",
    "Config",
    "CustomLoss",
    "Datum",
    "EmbeddedService",
    "EncodedTextChunk",
    "ForwardBackwardOutput",
    "Hooks",
    "Message",
    "ModelInput",
    "OptimStepResponse",
    "Pending",
    "Portal",
    "RequestOptions",
    "RestClient",
    "RetryConfig",
    "SampleResponse",
    "SampledSequence",
    "SamplingClient",
    "SamplingParams",
    "ServiceClient",
    "TensorData",
    "TinkerActorsError",
    "TrainingClient",
    "__version__",
    "aio",
    "errors",
    "events",
    "from_aio",
    "kernel",
    "messages",
    "open_admin_client",
    "open_portal",
    "open_rest_client",
    "open_service",
    "run",
    "run_guest",
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


def test_importing_the_package_loads_none_of_the_heavy_rooms() -> None:
    """numpy, httpx, starlette and trio wait until a name needs them."""
    code = "import sys, tinker_actors; print([m for m in ('numpy', 'httpx', 'starlette', 'trio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
