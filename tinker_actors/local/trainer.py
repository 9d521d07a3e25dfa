"""One LoRA model in training: forward, backward, optimizer step, and its state.

Theory of operation
-------------------
`forward_backward` is a generator so that whoever drives it can put
each slice on a worker thread and look around in
between: a slice takes consecutive examples (a *window*) of at most `SLICE_TOKENS` padded tokens in all, some
    6 ms.
Inside a window, sequences of equal padded length run together.

Gradients are computed per datum, with bits that depend on that datum alone (see `transformer`), and added up
one by one in the order of the data. The sum starts from what earlier calls accumulated. So a batch gives the
same bits in one call or cut into several, whatever its mixture of lengths. The sum replaces the accumulated
one in the very last
slice: a generator that is abandoned, or raises, leaves the model as it was.

`optim_step` takes the accumulated gradient, moves the weights and starts a new sum from zero. Saving covers
weights and optimizer, not the accumulated gradient: as on Tinker, a checkpoint stands between steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.errors import InputError

from .adam import AdamParams, AdamState, norm
from .example import TARGETS, Example, check_examples
from .lora import LoraConfig, LoraGradient, LoraLayout, LoraWeights, adapted, checked_array
from .losses import LossSpec, LossTerms, loss_spec
from .model import BaseModel
from .transformer import Array, Network, backward, forward, log_softmax, padded_length

__all__ = ["LoraModel", "LossResult"]

SLICE_TOKENS = (
    512  # padded tokens of one window: 6 to 10 ms forward and backward on one core, and kind to caches
)
SLICE_NUMBERS = (
    2**21
)  # of one window's gradients, a row per datum: 8 MiB; counts for high ranks and short data
FIRST, SECOND, STEPS = "optimizer.m.", "optimizer.v.", "optimizer.t"


@attrs.frozen(eq=False)
class LossResult:
    """Outcome of `forward_backward`.

    Attributes:
        outputs: per example, in order, `{"logprobs": float32 (N,) or (N, K)}`: the targets' log-probabilities.
        metrics: `loss:sum`, `tokens:sum` (tokens whose weight or advantage is not 0) and, for off-policy
            losses and if any token counts, means over those tokens: `ratio:mean`, `kl:mean`, for ppo
            `clip_fraction:mean`.
    """

    outputs: list[dict[str, Array]]
    metrics: dict[str, float]


@attrs.frozen(eq=False)
class _Group:
    """Examples of one window that have the same padded length, packed side by side.

    Attributes:
        members: their indices in the batch.
        first: row of the first one in the window's gradient matrix.
        tokens: padded to (B, L) with zeros.
        inputs: padded to (B, L, K) with zeros, so that padding has no weight and no advantage; K is 1 but for
            losses that take several targets at a position.
        targets: (B, L, K).
        shape: that of each position's own numbers: () or (K,).
        lengths: (B,) true lengths.
    """

    members: list[int]
    first: int
    tokens: NDArray[np.int64]
    inputs: dict[str, Array]
    targets: NDArray[np.int64]
    shape: tuple[int, ...]
    lengths: list[int]


class LoraModel:
    """A base model with one adapter, its gradient and its optimizer.

    Args:
        base: shared and never changed. Its dtype is the model's.
        config: what to train.

    Attributes:
        base, config: as given.
        layout: names and places of the adapter's arrays in the flat vectors.
        weights: the adapter, one flat vector; replaced, never changed in place.
        gradient: the accumulated gradient, likewise.
    """

    def __init__(self, base: BaseModel, config: LoraConfig) -> None:
        self.base = base
        self.config = config
        self.layout = LoraLayout(base.config, config)
        self.weights = self.layout.initial(base.network.dtype)
        self.gradient = np.zeros_like(self.weights)
        self._adam = AdamState.fresh(self.weights)
        self._network = self._merged()

    def _merged(self) -> Network:
        return adapted(self.base.network, self.layout, self.weights)

    def forward_backward(
        self,
        examples: Sequence[Example],
        loss_fn: str,
        loss_fn_config: Mapping[str, float] | None = None,
        *,
        backward: bool = True,
    ) -> Generator[None, None, LossResult]:
        """Compute a loss and, with `backward`, add its gradient to the accumulated one.

        Everything is checked before the generator is returned. Each `next()` computes one slice. The model
        must not be trained or loaded between the slices.

        Raises:
            InputError: from the call itself: a bad loss, configuration or example. From the last slice: the
                loss or its gradient is not finite; nothing was accumulated.
            RuntimeError: from the last slice: the model was changed between the slices.
        """
        spec = loss_spec(loss_fn)
        config = spec.configured(loss_fn_config)
        check_examples(examples, spec, self.base.config)
        return self._slices(list(examples), spec, config, backward=backward)

    def _slices(
        self, examples: list[Example], spec: LossSpec, config: Mapping[str, float], *, backward: bool
    ) -> Generator[None, None, LossResult]:
        started_from = self.gradient
        run = _Run(self._network, self.layout, self.weights, spec, config, started_from if backward else None)
        windows = list(_windows(examples, max(1, SLICE_NUMBERS // self.layout.size)))
        for number, window in enumerate(windows):
            run.window(examples, window)
            if number + 1 < len(windows):
                yield
        result = run.result(len(examples))
        if run.total is not None:
            if self.gradient is not started_from:
                raise RuntimeError("the model was changed while forward_backward was under way")
            self.gradient = run.total
        return result

    def optim_step(self, params: AdamParams) -> dict[str, float]:
        """Move the weights by the accumulated gradient, which then is zero again.

        Without a gradient this is a step with a gradient of zeros (see `adam`).

        Returns:
            `grad_norm` before clipping, `param_norm` after the step, `learning_rate`.

        Raises:
            InputError: the step would leave weights that are not finite. Nothing was changed.
        """
        state = attrs.evolve(self._adam)
        with np.errstate(over="ignore", invalid="ignore"):
            weights = state.step(self.weights, self.gradient, params)
        if not np.isfinite(weights).all():
            raise InputError(
                "adam_params.learning_rate", params.learning_rate, "the weights would not be finite"
            )
        metrics = {
            "grad_norm": norm(self.gradient),
            "param_norm": norm(weights),
            "learning_rate": float(params.learning_rate),
        }
        self._put(weights, state)
        return metrics

    def _put(self, weights: Array, state: AdamState) -> None:
        self.weights, self._adam = weights, state
        self.gradient = np.zeros_like(weights)
        self._network = self._merged()

    def state(self, *, optimizer: bool) -> dict[str, NDArray[np.generic]]:
        """Return copies of all arrays by name: the adapter's, with `optimizer` also Adam's."""
        state: dict[str, NDArray[np.generic]] = {**self.layout.views(self.weights.copy())}
        if optimizer:
            for prefix, flat in ((FIRST, self._adam.first), (SECOND, self._adam.second)):
                state |= {prefix + name: view for name, view in self.layout.views(flat.copy()).items()}
            state[STEPS] = np.array(self._adam.steps, np.int64)
        return state

    def load_state(self, arrays: Mapping[str, NDArray[np.generic]], *, optimizer: bool) -> None:
        """Replace the weights by saved ones and drop the accumulated gradient.

        Args:
            arrays: what `state` returned. Other names are left alone.
            optimizer: load Adam's state too; else it starts afresh.

        Raises:
            InputError: an array is missing, or has another shape or a number that is not finite. Nothing was
                changed.
        """
        dtype = self.weights.dtype
        weights = self.layout.gather(arrays, "", dtype)
        state = AdamState.fresh(weights)
        if optimizer:
            steps = int(checked_array(arrays, STEPS, ()).item())
            if steps < 0:
                raise InputError(STEPS, steps, "must not be negative")
            first, second = (self.layout.gather(arrays, prefix, dtype) for prefix in (FIRST, SECOND))
            state = AdamState(first, second, steps)
        self._put(weights, state)

    def snapshot(self) -> LoraWeights:
        """Return a frozen copy of the weights for sampling."""
        return LoraWeights.from_flat(self.layout, self.weights)


def _windows(examples: Sequence[Example], most: int) -> Iterator[list[int]]:
    """Cut the batch into runs of at most `most` consecutive indices, of SLICE_TOKENS padded tokens or a single one."""
    window: list[int] = []
    size = 0
    for index, example in enumerate(examples):
        length = padded_length(example.tokens.size)
        if window and (size + length > SLICE_TOKENS or len(window) == most):
            yield window
            window, size = [], 0
        window.append(index)
        size += length
    yield window


class _Run:
    """One call of forward_backward between its slices.

    Attributes:
        total: the accumulated gradient with this call's added so far; None when only the loss is wanted.
    """

    def __init__(
        self,
        network: Network,
        layout: LoraLayout,
        weights: Array,
        spec: LossSpec,
        config: Mapping[str, float],
        gradient: Array | None,
    ) -> None:
        self.total = None if gradient is None else gradient.copy()
        self._network = network
        self._layout = layout
        self._weights = weights
        self._spec = spec
        self._config = config
        self._outputs: dict[int, Array] = {}
        self._losses: dict[int, float] = {}
        self._sums: dict[str, float] = {}
        self._active = 0

    def window(self, examples: Sequence[Example], window: list[int]) -> None:
        """Compute one slice."""
        groups = _groups(examples, window, self._spec, self._network.dtype)
        rows = np.empty((0 if self.total is None else len(window), self._layout.size), self._network.dtype)
        sink = LoraGradient(self._layout, self._weights, rows)
        with np.errstate(over="ignore", invalid="ignore"):  # result() finds what is not finite
            for group in groups:
                self._group(group, sink)
            if self.total is not None:
                row_of = {
                    index: group.first + at for group in groups for at, index in enumerate(group.members)
                }
                for index in window:
                    self.total += rows[row_of[index]]

    def _group(self, group: _Group, sink: LoraGradient) -> None:
        tape = forward(self._network, group.tokens)
        every = log_softmax(tape.logits(self._network))
        logprobs = np.take_along_axis(every, group.targets, axis=-1)
        terms = self._spec.function(logprobs, group.inputs, self._config)
        self._note(group, logprobs, terms)
        if self.total is not None:
            sink.begin(group.first)
            backward(self._network, tape, _logit_gradient(every, group.targets, terms.gradient), sink)

    def _note(self, group: _Group, logprobs: Array, terms: LossTerms) -> None:
        for at, (index, length) in enumerate(zip(group.members, group.lengths, strict=True)):
            self._outputs[index] = logprobs[at, :length].astype(np.float32).reshape(length, *group.shape)
            self._losses[index] = float(terms.value[at, :length].sum(dtype=np.float64))
        self._active += int(terms.active.any(axis=-1).sum())
        for name, array in terms.diagnostics.items():
            here = float(array[terms.active].sum(dtype=np.float64))
            self._sums[name] = self._sums.get(name, 0.0) + here

    def result(self, count: int) -> LossResult:
        """Put the slices together.

        Raises:
            InputError: the loss or the gradient is not finite.
        """
        loss = 0.0
        for index in range(count):
            loss += self._losses[index]
        if not np.isfinite(loss):
            raise InputError(
                "loss:sum", loss, "the loss of this batch is not finite; nothing was accumulated"
            )
        if self.total is not None and not np.isfinite(self.total).all():
            raise InputError("gradient", "not finite", "nothing was accumulated; the loss was finite")
        metrics = {"loss:sum": loss, "tokens:sum": float(self._active)}
        if self._active:
            metrics |= {f"{name}:mean": value / self._active for name, value in self._sums.items()}
        return LossResult([{"logprobs": self._outputs[index]} for index in range(count)], metrics)


def _groups(
    examples: Sequence[Example], window: list[int], spec: LossSpec, dtype: np.dtype[np.floating]
) -> list[_Group]:
    """Pack a window by padded length and the shape of its targets, shortest first."""
    by_size: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for index in window:
        example = examples[index]
        size = padded_length(example.tokens.size), example.loss_inputs[TARGETS].shape[1:]
        by_size.setdefault(size, []).append(index)
    groups, first = [], 0
    for length, shape in sorted(by_size):
        members = by_size[length, shape]
        chosen = [examples[index] for index in members]
        groups.append(
            _Group(
                members,
                first,
                _padded([example.tokens for example in chosen], length, np.dtype(np.int64)),
                {
                    name: _padded_last([example.loss_inputs[name] for example in chosen], length, dtype)
                    for name in spec.inputs
                },
                _padded_last(
                    [example.loss_inputs[TARGETS] for example in chosen], length, np.dtype(np.int64)
                ),
                shape,
                [example.tokens.size for example in chosen],
            )
        )
        first += len(members)
    return groups


def _padded(arrays: Sequence[np.ndarray], length: int, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Stack arrays of any length, each filled up with zeros."""
    packed = np.zeros((len(arrays), length, *arrays[0].shape[1:]), dtype)
    for row, array in zip(packed, arrays, strict=True):
        row[: len(array)] = array
    return packed


def _padded_last(arrays: Sequence[np.ndarray], length: int, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Do the same, and give what has one number for each position a last axis of 1."""
    packed = _padded(arrays, length, dtype)
    return packed if packed.ndim == 3 else packed[..., None]


def _logit_gradient(every: Array, targets: np.ndarray, gradient: Array) -> Array:
    """Return the loss's gradient at the logits, given it at the targets' log-probabilities, both (B, L, K)."""
    result = np.exp(every)
    result *= -gradient.sum(axis=-1, keepdims=True)
    for k in range(targets.shape[-1]):  # one after the other: a token may be several of a position's targets
        place = targets[..., k : k + 1]
        current = np.take_along_axis(result, place, axis=-1)
        np.put_along_axis(result, place, current + gradient[..., k : k + 1], axis=-1)
    return result
