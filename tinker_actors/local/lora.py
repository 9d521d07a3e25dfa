"""Low-rank adapters: what is trained, how it is laid out, merged and differentiated.

An adapter adds `scale * x A B` to a dense product `x W`, with A (inputs, rank) and B (rank, outputs). As a
product is linear, the passes run with the merged matrix `W + scale * A B` at no extra cost; with B = 0, as an
adapter starts, that is W bit for bit.

`scale` is `ALPHA / rank`. ALPHA is 32, which the Tinker service and SkyRL use, so learning rates carry over
from one rank to another. A starts uniform in ±1/sqrt(inputs) (Kaiming's rule as PEFT applies it), B starts at
zero.

All adapters of a model are one flat vector, cut by a `LoraLayout`: the optimizer is then a few vector
operations, and a batch's gradient is one matrix with a row per datum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.errors import InputError

from .transformer import TILE, Array, ModelConfig, Network, linear, linear_shapes

__all__ = ["ALPHA", "LoraConfig", "LoraGradient", "LoraLayout", "LoraWeights", "Slot", "merge"]

_Scalar = TypeVar("_Scalar", bound=np.generic)

ALPHA = 32.0
MAX_RANK = 64  # no matrix of the embedded model has a smaller side
SUFFIXES = (".lora_a", ".lora_b")


def _check_rank(_: object, __: attrs.Attribute[int], rank: int) -> None:
    if not 1 <= rank <= MAX_RANK:
        raise InputError("lora_config.rank", rank, f"must be from 1 to {MAX_RANK}")


@attrs.frozen
class LoraConfig:
    """What a LoRA model trains. Defaults are Tinker's.

    Attributes:
        rank: columns of A, 1 to 64.
        seed: decides A.
        train_mlp: adapt the MLPs.
        train_attn: adapt the attention.
        train_unembed: adapt the output matrix.

    Raises:
        InputError: the rank is out of range, or nothing is to be trained.
    """

    rank: int = attrs.field(default=32, validator=_check_rank)
    seed: int = 0
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True

    def __attrs_post_init__(self) -> None:
        if not (self.train_mlp or self.train_attn or self.train_unembed):
            raise InputError(
                "lora_config", self, "at least one of train_mlp, train_attn, train_unembed must be true"
            )

    def trains(self, name: str) -> bool:
        """Tell whether the dense matrix of this name gets an adapter."""
        if ".mlp." in name:
            return self.train_mlp
        return self.train_attn if ".attn." in name else self.train_unembed


@attrs.frozen
class Slot:
    """Where one array lies in the flat vector."""

    offset: int
    shape: tuple[int, int]

    @property
    def end(self) -> int:
        """Offset behind the array."""
        return self.offset + self.shape[0] * self.shape[1]


class LoraLayout:
    """Names, shapes and places of an adapter's arrays in its flat vector.

    Attributes:
        config: what is trained.
        slots: name (such as `layers.0.attn.qkv.lora_a`) to place, in order.
        size: length of the flat vector.
    """

    def __init__(self, model: ModelConfig, config: LoraConfig) -> None:
        self.config = config
        self.slots: dict[str, Slot] = {}
        self.size = 0
        for name, (inputs, outputs) in linear_shapes(model).items():
            if config.trains(name):
                self._add(name + SUFFIXES[0], (inputs, config.rank))
                self._add(name + SUFFIXES[1], (config.rank, outputs))

    def _add(self, name: str, shape: tuple[int, int]) -> None:
        self.slots[name] = slot = Slot(self.size, shape)
        self.size = slot.end

    @property
    def scale(self) -> float:
        """Factor of A B."""
        return ALPHA / self.config.rank

    def view(self, flat: Array, name: str) -> Array:
        """Return one array of a flat vector, or of a matrix of flat rows, as a view (..., rows, columns)."""
        slot = self.slots[name]
        return flat[..., slot.offset : slot.end].reshape(*flat.shape[:-1], *slot.shape)

    def views(self, flat: Array) -> dict[str, Array]:
        """Return every array of a flat vector by name, as views."""
        return {name: self.view(flat, name) for name in self.slots}

    def adapters(self, flat: Array) -> Iterator[tuple[str, Array, Array]]:
        """Yield each adapted matrix's name, A and B."""
        for name in self.slots:
            if name.endswith(SUFFIXES[0]):
                matrix = name.removesuffix(SUFFIXES[0])
                yield matrix, self.view(flat, name), self.view(flat, matrix + SUFFIXES[1])

    def initial(self, dtype: np.dtype[np.floating]) -> Array:
        """Return the vector an adapter starts with: each A from its own stream of the seed, each B zero."""
        flat = np.zeros(self.size, dtype)
        for index, (_, a, _) in enumerate(self.adapters(flat)):
            bound = a.shape[0] ** -0.5
            a[:] = stream(self.config.seed, index).uniform(-bound, bound, a.shape)
        return flat

    def gather(
        self, arrays: Mapping[str, NDArray[np.generic]], prefix: str, dtype: np.dtype[np.floating]
    ) -> Array:
        """Return the flat vector of named arrays.

        Args:
            arrays: has each of this layout's names behind `prefix`; others are left alone.
            prefix: what stands before the names.
            dtype: of the result.

        Raises:
            InputError: an array is missing, or has another shape or a number that is not finite.
        """
        flat = np.empty(self.size, dtype)
        for name, slot in self.slots.items():
            flat[slot.offset : slot.end] = checked_array(arrays, prefix + name, slot.shape).reshape(-1)
        return flat


def checked_array(
    arrays: Mapping[str, NDArray[_Scalar]], name: str, shape: tuple[int, ...]
) -> NDArray[_Scalar]:
    """Return `arrays[name]`.

    Raises:
        InputError: it is missing, has another shape, or holds a number that is not finite.
    """
    if name not in arrays:
        raise InputError(name, sorted(arrays), "this array is missing; these are there")
    array = arrays[name]
    if array.shape != shape:
        raise InputError(name, array.shape, f"the shape must be {shape}")
    if array.dtype.kind not in "fiu" or not np.isfinite(array.astype(np.float64)).all():
        raise InputError(name, array.dtype, "the array must hold finite numbers only")
    return array


def stream(seed: int, index: int) -> np.random.Generator:
    """Return the generator number `index` of a seed; any integer is a seed."""
    key = np.array([seed % 2**64, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@attrs.frozen(eq=False)
class LoraWeights:
    """An adapter's weights, frozen: what a sampler runs with.

    Attributes:
        layout: names and places.
        flat: the read-only flat vector.
    """

    layout: LoraLayout
    flat: Array

    @classmethod
    def from_flat(cls, layout: LoraLayout, flat: Array) -> LoraWeights:
        """Return a frozen copy."""
        copy = flat.copy()
        copy.setflags(write=False)
        return cls(layout, copy)

    @classmethod
    def from_arrays(
        cls, model: ModelConfig, config: LoraConfig, arrays: Mapping[str, NDArray[np.generic]]
    ) -> LoraWeights:
        """Return the weights held by named arrays, such as those of a saved file; other names are left alone.

        Raises:
            InputError: an array is missing, or has another shape or a number that is not finite.
        """
        layout = LoraLayout(model, config)
        return cls.from_flat(layout, layout.gather(arrays, "", np.dtype(np.float32)))

    def arrays(self) -> dict[str, Array]:
        """Return every array by name, as read-only views."""
        return self.layout.views(self.flat)


def merge(base: Mapping[str, Array], layout: LoraLayout, flat: Array) -> dict[str, Array]:
    """Return the base weights with `scale * A B` added to every adapted matrix."""
    merged = dict(base)
    for name, a, b in layout.adapters(flat):
        merged[name] = base[name] + (a * np.asarray(layout.scale, a.dtype)) @ b
    return merged


class LoraGradient:
    """Collects each datum's own gradient of the adapters.

    With G = xᵀ dy the gradient of the merged matrix, dA = scale * G Bᵀ and dB = scale * Aᵀ G. Both are
    computed through the thin side, xᵀ (dy Bᵀ) and (x A)ᵀ dy, so a datum costs `rank * (inputs + outputs)`
    numbers instead of `inputs * outputs`. The rank is padded to a multiple of 8 for the products.

    Args:
        layout: of the adapters.
        flat: their current values.
        rows: (datums, layout.size) matrix; `rows[first:first + B]` is filled by a backward pass over B
            sequences.
    """

    wants_embeddings = False

    def __init__(self, layout: LoraLayout, flat: Array, rows: Array) -> None:
        self._layout = layout
        self._rows = rows
        self._first = 0
        self._factors = {name: _padded_factors(a, b, layout.scale) for name, a, b in layout.adapters(flat)}

    def begin(self, first: int) -> None:
        """Set the row of the next pass's first sequence."""
        self._first = first

    def linear(self, name: str, x: Array, grad: Array) -> None:
        """Store one matrix's adapter gradients, a row per sequence."""
        if name not in self._factors:
            return
        a, b_transposed = self._factors[name]
        rows = self._rows[self._first : self._first + x.shape[0]]
        rank = self._layout.config.rank
        grad_a = np.matmul(x.swapaxes(1, 2), linear(grad, b_transposed))
        grad_b = np.matmul(linear(x, a).swapaxes(1, 2), grad)
        self._layout.view(rows, name + SUFFIXES[0])[...] = grad_a[..., :rank]
        self._layout.view(rows, name + SUFFIXES[1])[...] = grad_b[:, :rank]

    def embeddings(self, tokens: object, grad: Array) -> None:
        """Leave the embeddings alone: they have no adapter."""


def _padded_factors(a: Array, b: Array, scale: float) -> tuple[Array, Array]:
    """Return scale * A and scale * Bᵀ, their columns padded with zeros to a multiple of 8."""
    extra = -a.shape[1] % TILE
    factor = np.asarray(scale, a.dtype)
    pad = ((0, 0), (0, extra))
    return np.pad(a * factor, pad), np.pad(np.ascontiguousarray(b.T) * factor, pad)


def adapted(network: Network, layout: LoraLayout, flat: Array) -> Network:
    """Return the network with the adapters merged in."""
    return Network(network.config, merge(network.weights, layout, flat))
