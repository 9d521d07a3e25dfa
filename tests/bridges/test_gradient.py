from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from tinker_actors.bridges.gradient import check_reached, split
from tinker_actors.errors import ConfigError, InputError


@pytest.mark.parametrize("name", ["torch", "jax", "autograd"])
def test_a_package_that_is_missing_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge can be imported; making a loss says what to install, and keeps the cause."""
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    bridge = importlib.import_module(f"tinker_actors.bridges.{name}")
    with pytest.raises(ConfigError, match=rf"pip install 'tinker-actors\[{name}\]'") as caught:
        bridge.loss(lambda *_: (0.0, {}))
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize("result", [1.0, (1.0,), (1.0, 2.0), [1.0, {}]], ids=str)
def test_a_differentiable_loss_returns_a_pair(result: object) -> None:
    """The loss and a mapping of metrics; anything else is refused."""
    assert split((1.0, {"a:sum": 2.0})) == (1.0, {"a:sum": 2.0})
    with pytest.raises(InputError, match="must be a pair"):
        split(result)


@pytest.mark.lesson("L9")
def test_a_datum_without_a_gradient_is_named() -> None:
    """It is not taken for a gradient of zeros."""
    check_reached([np.zeros(1, np.float32)], {0})
    with pytest.raises(InputError) as caught:
        check_reached([np.zeros(1, np.float32), np.ones(2, np.float32)], {0})
    assert (caught.value.field, caught.value.value) == ("logprobs[1]", [1.0, 1.0])
