"""The loss functions: value and derivative per token.

Every loss is a **sum over tokens**. Position i of the input predicts `target_tokens[i]`; the caller shifts.
With lp the learner's log-probability of the target, q the input `logprobs` (the sampler's), A the
`advantages`, r = exp(lp - q):

==================== ============================================ ==========================================
name                 value of a token                             derivative by lp
==================== ============================================ ==========================================
cross_entropy        -w * lp                                      -w
importance_sampling  -r * A                                       -r * A
ppo                  -min(r * A, clip(r, low, high) * A)          -r * A where the minimum is r * A, else 0
==================== ============================================ ==========================================

`clip_low_threshold` (0.8) and `clip_high_threshold` (1.2) are bounds of the ratio itself, not distances from
1. The functions work token by token, on arrays of any shape; whoever calls them sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.errors import InputError

from .transformer import Array

__all__ = ["LOSSES", "LossSpec", "LossTerms", "loss_spec"]


@attrs.frozen(eq=False)
class LossTerms:
    """A loss, token by token.

    Attributes:
        value: the token's share of the loss.
        gradient: its derivative by the learner's log-probability.
        active: which tokens count: their weight or advantage is not 0.
        diagnostics: more numbers per token; their means over the active tokens become `<name>:mean` metrics.
    """

    value: Array
    gradient: Array
    active: NDArray[np.bool_]
    diagnostics: Mapping[str, Array] = attrs.field(factory=dict)


LossFunction: TypeAlias = Callable[[Array, Mapping[str, Array], Mapping[str, float]], LossTerms]


@attrs.frozen
class LossSpec:
    """One entry of `LOSSES`.

    Attributes:
        name: Tinker's name.
        inputs: the required loss inputs beside `target_tokens`, each a number per token.
        config: the configuration's keys and defaults.
        many: there may be several targets at a position, each with its own inputs: all then have shape (N, K).
        function: (learner's log-probabilities, inputs, configuration) to terms.
    """

    name: str
    inputs: tuple[str, ...]
    config: Mapping[str, float]
    function: LossFunction
    many: bool = False

    def configured(self, given: Mapping[str, float] | None) -> dict[str, float]:
        """Return the defaults with `given` put over them.

        Raises:
            InputError: an unknown key, a value that is no finite number, or a lower threshold above the upper
                one.
        """
        for key, value in (given or {}).items():
            if key not in self.config:
                known = ", ".join(self.config) or "nothing"
                raise InputError(f"loss_fn_config.{key}", value, f"{self.name} knows {known}")
            if not np.isfinite(value):
                raise InputError(f"loss_fn_config.{key}", value, "must be finite")
        config = {**self.config, **(given or {})}
        if config.get(_LOW, 0.0) > config.get(_HIGH, np.inf):
            raise InputError(f"loss_fn_config.{_LOW}", config[_LOW], f"is above {_HIGH} = {config[_HIGH]}")
        return config


_LOW, _HIGH = "clip_low_threshold", "clip_high_threshold"


def _cross_entropy(logprobs: Array, inputs: Mapping[str, Array], _: Mapping[str, float]) -> LossTerms:
    weights = inputs["weights"]
    return LossTerms(-weights * logprobs, -weights, weights != 0)


def _importance_sampling(logprobs: Array, inputs: Mapping[str, Array], _: Mapping[str, float]) -> LossTerms:
    advantages = inputs["advantages"]
    ratio = np.exp(logprobs - inputs["logprobs"])
    value = -ratio * advantages
    return LossTerms(value, value, advantages != 0, _off_policy(logprobs, inputs, ratio))


def _ppo(logprobs: Array, inputs: Mapping[str, Array], config: Mapping[str, float]) -> LossTerms:
    advantages = inputs["advantages"]
    ratio = np.exp(logprobs - inputs["logprobs"])
    plain = ratio * advantages
    clipped = np.clip(ratio, config[_LOW], config[_HIGH]) * advantages
    kept = plain <= clipped
    diagnostics = {
        **_off_policy(logprobs, inputs, ratio),
        "clip_fraction": np.where(kept, 0, 1).astype(ratio.dtype),
    }
    return LossTerms(-np.minimum(plain, clipped), np.where(kept, -plain, 0), advantages != 0, diagnostics)


def _off_policy(logprobs: Array, inputs: Mapping[str, Array], ratio: Array) -> dict[str, Array]:
    """How far the learner is from the sampler; `kl` is the estimate q - lp of KL(sampler, learner)."""
    return {"ratio": ratio, "kl": inputs["logprobs"] - logprobs}


LOSSES: Mapping[str, LossSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            LossSpec("cross_entropy", ("weights",), {}, _cross_entropy, many=True),
            LossSpec("importance_sampling", ("logprobs", "advantages"), {}, _importance_sampling),
            LossSpec("ppo", ("logprobs", "advantages"), {_LOW: 0.8, _HIGH: 1.2}, _ppo),
        )
    }
)


def loss_spec(name: str) -> LossSpec:
    """Return the loss of this name.

    Raises:
        InputError: the embedded service has no such loss; the message lists those it has.
    """
    if name not in LOSSES:
        raise InputError("loss_fn", name, f"the embedded service has {', '.join(LOSSES)}")
    return LOSSES[name]
