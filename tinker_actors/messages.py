"""The typed messages of the public channels, under one name: what `training.ref` and `sampling.ref` take.

    pending = await training.ref.submit(ForwardBackward(batch, "cross_entropy"))
    reply = await sampling.ref.ask(Sample(target=sampling.target, prompt=prompt, ...))

The reply's type follows from the message, and a message for another role is refused by type checkers.
"""

from __future__ import annotations

from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    ForwardBackwardCustom,
    LoadState,
    OptimStep,
    Sample,
    Sampling,
    SaveState,
    SaveWeightsExternal,
    SaveWeightsForSampler,
    Training,
    Unload,
)
from tinker_actors.actors.target import SampleTarget

__all__ = [
    "Forward",
    "ForwardBackward",
    "ForwardBackwardCustom",
    "LoadState",
    "OptimStep",
    "Sample",
    "SampleTarget",
    "Sampling",
    "SaveState",
    "SaveWeightsExternal",
    "SaveWeightsForSampler",
    "Training",
    "Unload",
]
