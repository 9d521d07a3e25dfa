"""What the bridges to packages with automatic gradients share.

Tinker's own form of a custom loss is a function of (data, log probabilities as tensors) that returns (loss, metrics).
A bridge calls it with leaves of its package, has the package differentiate, and returns a `CustomLoss`. A datum whose
log probabilities the loss does not depend on is an error, as it is with Tinker's own client: nearly always something
has been detached by mistake, and a gradient of zeros would hide it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from tinker_actors.errors import ConfigError, InputError
from tinker_actors.types import Datum

__all__ = ["DifferentiableLoss", "check_reached", "require", "split"]

DifferentiableLoss: TypeAlias = Callable[[Sequence[Datum], list[Any]], tuple[Any, Mapping[str, Any]]]
"""(the batch, the log probabilities of each datum as a tensor of the package) to (loss, metrics)."""


def require(package: str) -> Any:  # modules of packages that need not be there have no types
    """Import a package, or a module of it; the extra that brings it has the package's name.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        message = f"tinker_actors.bridges.{name} needs {name}: pip install 'tinker-actors[{name}]'"
        raise ConfigError(message) from error


def split(result: object) -> tuple[Any, dict[str, Any]]:
    """Take apart what a differentiable loss returned.

    Raises:
        InputError: it is no pair of a loss and a mapping.
    """
    pair = cast("tuple[object, ...]", result)
    if not isinstance(result, tuple) or len(pair) != 2 or not isinstance(pair[1], Mapping):
        raise InputError("loss_fn(...)", result, "must be a pair: the loss, and a mapping of metrics")
    return pair[0], dict(pair[1])


def check_reached(logprobs: Sequence[npt.NDArray[np.float32]], reached: Collection[int]) -> None:
    """Want that the loss has a derivative by every datum's log probabilities.

    Args:
        logprobs: those of each datum.
        reached: the datums by whose log probabilities there is one.

    Raises:
        InputError: one has none.
    """
    for index, one in enumerate(logprobs):
        if index not in reached:
            why = "the loss has no gradient by it: it must depend on the log probabilities of every datum"
            raise InputError(f"logprobs[{index}]", one.tolist(), why)
