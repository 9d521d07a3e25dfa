"""The decoder-only transformer: forward and hand-written backward in numpy.

Theory of operation
-------------------
Pre-norm blocks, learned positions, no biases::

    x = embed[token] + position
    for each layer:   x += out(attention(qkv(norm(x))));   x += down(relu(up(norm(x)))²)
    logits = unembed(norm(x))

`norm` divides by the root mean square and has no gain: the matrix behind it can learn one. `relu²` has a
continuous derivative, which finite differences need, and costs no transcendental function.

All sequences of one call have the same padded length L, a multiple of 8 (`padded_length`); a datum's L
depends on the datum alone. Padding stands at the end, where causal attention never looks, so its rows are
junk that nobody reads, and their gradient is zero.

**Same bits, whoever else is in the batch.** BLAS picks a kernel by the shape of a product, and kernels round
in different orders. So the shape must not depend on the batch: `linear` cuts the rows of every dense product
into tiles of exactly 8, of one sequence each, and multiplies tile by tile; attention multiplies per sequence
and head. (Tiles of 8 are also too small for BLAS to split among threads, so their number plays no part, and
cost nothing: OpenBLAS runs them at 100 Gflop/s on one core.) Everything else works row by row.

The dtype of the weights is the dtype of everything: float32 in the service, float64 where gradients are
checked against finite differences.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Protocol, TypeAlias

import attrs
import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "TILE",
    "Array",
    "FullGradient",
    "GradientSink",
    "ModelConfig",
    "Network",
    "Tape",
    "backward",
    "forward",
    "initial_weights",
    "linear",
    "linear_shapes",
    "log_softmax",
    "padded_length",
    "softmax_in_place",
    "weight_shapes",
]

Array: TypeAlias = NDArray[np.floating]
TILE = 8  # rows of every dense product; see the module's docstring


@attrs.frozen
class ModelConfig:
    """Sizes of a model.

    Attributes:
        vocab_size: number of tokens.
        context_length: most tokens a sequence can have; a multiple of 8.
        layers: number of blocks.
        width: size of the residual stream; a multiple of `heads`.
        heads: attention heads, at most 8.
        mlp_width: hidden units of each block's MLP.
        norm_epsilon: added to the mean square before the root.
    """

    vocab_size: int
    context_length: int = 128
    layers: int = 2
    width: int = 64
    heads: int = 4
    mlp_width: int = 192
    norm_epsilon: float = 1e-6

    @property
    def head_width(self) -> int:
        """Columns of one attention head."""
        return self.width // self.heads


def linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return name and (inputs, outputs) of every dense matrix, in the order the forward pass meets them."""
    shapes: dict[str, tuple[int, int]] = {}
    for layer in range(config.layers):
        shapes[f"layers.{layer}.attn.qkv"] = (config.width, 3 * config.width)
        shapes[f"layers.{layer}.attn.out"] = (config.width, config.width)
        shapes[f"layers.{layer}.mlp.up"] = (config.width, config.mlp_width)
        shapes[f"layers.{layer}.mlp.down"] = (config.mlp_width, config.width)
    shapes["unembed"] = (config.width, config.vocab_size)
    return shapes


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return name and shape of every weight: both embeddings, then `linear_shapes`."""
    return {
        "embed": (config.vocab_size, config.width),
        "position": (config.context_length, config.width),
        **linear_shapes(config),
    }


def initial_weights(config: ModelConfig, seed: int, dtype: DTypeLike = np.float32) -> dict[str, Array]:
    """Return random weights to start pre-training from.

    Dense matrices have variance 1 / inputs, those that write to the residual stream less by the number of writers;
    embeddings have standard deviation 0.5.
    """
    random = np.random.Generator(np.random.Philox(seed))
    weights = {}
    for name, shape in weight_shapes(config).items():
        deviation = 0.5 if name in {"embed", "position"} else shape[0] ** -0.5
        if name.endswith((".out", ".down")):
            deviation *= (2 * config.layers) ** -0.5
        weights[name] = (random.standard_normal(shape) * deviation).astype(dtype)
    return weights


def padded_length(length: int) -> int:
    """Return the length to which a sequence is padded: the next multiple of 8."""
    return -(-length // TILE) * TILE


class Network:
    """Weights in the form the passes use them.

    Args:
        config: sizes.
        weights: all of `weight_shapes(config)`, of one dtype. They are used as they are, not copied.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, Array]) -> None:
        self.config = config
        self.weights = weights
        self.dtype: np.dtype[np.floating] = weights["embed"].dtype

    @functools.cached_property
    def transposed(self) -> dict[str, Array]:
        """The dense matrices' transposes, laid out anew: products with transposed views are far slower."""
        return {name: np.ascontiguousarray(self.weights[name].T) for name in linear_shapes(self.config)}

    @functools.cached_property
    def causal_mask(self) -> Array:
        """(context, context): 0 where the key is not after the query, else -inf."""
        context = self.config.context_length
        return np.triu(np.full((context, context), -np.inf, self.dtype), 1)


def linear(x: Array, weight: Array) -> Array:
    """Multiply contiguous (..., inputs) rows, a multiple of 8 in number, by an (inputs, outputs) matrix."""
    tiles = x.reshape(-1, TILE, x.shape[-1])
    return np.asarray(np.matmul(tiles, weight).reshape(*x.shape[:-1], weight.shape[1]))


def row_dot(a: Array, b: Array) -> Array:
    """Return the sum over the last axis of a * b."""
    return np.asarray(np.einsum("...i,...i->...", a, b))


def normalize(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Return x over its rows' root mean square, and the (..., 1) factors it was multiplied by."""
    factor = row_dot(x, x)[..., None]
    factor /= x.shape[-1]
    factor += epsilon
    np.sqrt(factor, out=factor)
    np.reciprocal(factor, out=factor)
    return x * factor, factor


def normalize_backward(grad: Array, normed: Array, factor: Array) -> Array:
    """Return the gradient at the input of `normalize` from the one at its output."""
    along = row_dot(grad, normed)[..., None]
    along /= grad.shape[-1]
    result = grad - normed * along
    result *= factor
    return result


def softmax_in_place(scores: Array) -> Array:
    """Turn contiguous rows of scores, not all of a row -inf, into probabilities and return them."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities of contiguous rows of logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(shifted)


@attrs.frozen(eq=False)
class LayerTape:
    """What one block's backward pass needs; B sequences, L positions, H heads.

    Attributes:
        attn_in: (B, L, width) normalized input of `attn.qkv`.
        attn_factor: its factors.
        keys, values: (B, L, width) views, all heads side by side, as a key-value cache stores them.
        heads: (3, B, H, L, head) queries (already divided by the root of head), keys, values.
        probs: (B, H, L, L) attention.
        attn_out: (B, L, width) input of `attn.out`.
        mlp_in: (B, L, width) normalized input of `mlp.up`.
        mlp_factor: its factors.
        active: (B, L, mlp_width) relu of `mlp.up`.
        squared: its square, the input of `mlp.down`.
    """

    attn_in: Array
    attn_factor: Array
    keys: Array
    values: Array
    heads: Array
    probs: Array
    attn_out: Array
    mlp_in: Array
    mlp_factor: Array
    active: Array
    squared: Array


@attrs.frozen(eq=False)
class Tape:
    """One forward pass.

    Attributes:
        tokens: (B, L) input.
        layers: one `LayerTape` each.
        final: (B, L, width) normalized input of `unembed`.
        final_factor: its factors.
    """

    tokens: NDArray[np.int64]
    layers: tuple[LayerTape, ...]
    final: Array
    final_factor: Array

    def logits(self, network: Network) -> Array:
        """Return the (B, L, vocab) logits."""
        return linear(self.final, network.weights["unembed"])


def forward(network: Network, tokens: NDArray[np.int64]) -> Tape:
    """Run (B, L) tokens through the blocks; L is a multiple of 8 and at most the context."""
    weights = network.weights
    x = weights["embed"][tokens]
    x += weights["position"][: tokens.shape[1]]
    layers = []
    for index in range(network.config.layers):
        tape = _forward_layer(network, index, x)
        layers.append(tape)
    final, factor = normalize(x, network.config.norm_epsilon)
    return Tape(tokens, tuple(layers), final, factor)


def _forward_layer(network: Network, index: int, x: Array) -> LayerTape:
    """Add one block to the residual stream `x` in place."""
    name, weights, epsilon = f"layers.{index}.", network.weights, network.config.norm_epsilon
    width = network.config.width
    attn_in, attn_factor = normalize(x, epsilon)
    qkv = linear(attn_in, weights[name + "attn.qkv"])
    heads = _split_heads(qkv, network.config)
    heads[0] *= network.config.head_width**-0.5
    scores = np.matmul(heads[0], heads[1].swapaxes(-1, -2))
    scores += network.causal_mask[: x.shape[1], : x.shape[1]]
    probs = softmax_in_place(scores)
    attn_out = _join_heads(np.matmul(probs, heads[2]))
    x += linear(attn_out, weights[name + "attn.out"])
    mlp_in, mlp_factor = normalize(x, epsilon)
    active = linear(mlp_in, weights[name + "mlp.up"])
    np.maximum(active, 0, out=active)
    squared = np.square(active)
    x += linear(squared, weights[name + "mlp.down"])
    keys, values = qkv[..., width : 2 * width], qkv[..., 2 * width :]
    return LayerTape(
        attn_in, attn_factor, keys, values, heads, probs, attn_out, mlp_in, mlp_factor, active, squared
    )


def _split_heads(qkv: Array, config: ModelConfig) -> Array:
    """(B, L, 3 * width) to a contiguous (3, B, H, L, head)."""
    batch, length, _ = qkv.shape
    parts = qkv.reshape(batch, length, 3, config.heads, config.head_width)
    return np.ascontiguousarray(parts.transpose(2, 0, 3, 1, 4))


def _join_heads(heads: Array) -> Array:
    """(B, H, L, head), or P of them (P, B, H, L, head) side by side, to a contiguous (B, L, P * width)."""
    if heads.ndim == 4:
        heads = heads[None]
    parts, batch, count, length, head = heads.shape
    return np.ascontiguousarray(heads.transpose(1, 3, 0, 2, 4)).reshape(batch, length, parts * count * head)


class GradientSink(Protocol):
    """Takes the gradients of weights where the backward pass meets them."""

    wants_embeddings: bool  # False spares the last step down to the embeddings

    def linear(self, name: str, x: Array, grad: Array) -> None:
        """Take one dense matrix's input (B, L, inputs) and the gradient at its output (B, L, outputs)."""

    def embeddings(self, tokens: NDArray[np.int64], grad: Array) -> None:
        """Take the gradient (B, L, width) at the sum of the two embeddings."""


def backward(network: Network, tape: Tape, grad_logits: Array, sink: GradientSink) -> None:
    """Run the chain rule down from the logits' gradient (B, L, vocab), handing every weight's to `sink`."""
    transposed = network.transposed
    sink.linear("unembed", tape.final, grad_logits)
    grad = normalize_backward(linear(grad_logits, transposed["unembed"]), tape.final, tape.final_factor)
    for index in reversed(range(network.config.layers)):
        _backward_mlp(network, f"layers.{index}.mlp.", tape.layers[index], grad, sink)
        into_input = index > 0 or sink.wants_embeddings
        _backward_attention(
            network, f"layers.{index}.attn.", tape.layers[index], grad, sink, into_input=into_input
        )
    if sink.wants_embeddings:
        sink.embeddings(tape.tokens, grad)


def _backward_mlp(network: Network, name: str, tape: LayerTape, grad: Array, sink: GradientSink) -> None:
    """Add to `grad`, in place, what reaches the block's input through its MLP."""
    sink.linear(name + "down", tape.squared, grad)
    inner = linear(grad, network.transposed[name + "down"])
    inner *= tape.active
    inner *= 2
    sink.linear(name + "up", tape.mlp_in, inner)
    grad += normalize_backward(linear(inner, network.transposed[name + "up"]), tape.mlp_in, tape.mlp_factor)


def _backward_attention(
    network: Network, name: str, tape: LayerTape, grad: Array, sink: GradientSink, *, into_input: bool
) -> None:
    """Add to `grad`, in place, what reaches the block's input through its attention."""
    sink.linear(name + "out", tape.attn_out, grad)
    grad_out = linear(grad, network.transposed[name + "out"])
    grad_qkv = _attention_gradient(network.config, tape, grad_out)
    sink.linear(name + "qkv", tape.attn_in, grad_qkv)
    if into_input:
        inner = linear(grad_qkv, network.transposed[name + "qkv"])
        grad += normalize_backward(inner, tape.attn_in, tape.attn_factor)


def _attention_gradient(config: ModelConfig, tape: LayerTape, grad_out: Array) -> Array:
    """Return the gradient (B, L, 3 * width) at the output of `attn.qkv`."""
    batch, length, _ = grad_out.shape
    query, key, value = tape.heads
    split = grad_out.reshape(batch, length, config.heads, config.head_width).transpose(0, 2, 1, 3)
    grad_heads = np.ascontiguousarray(split)
    along = row_dot(
        grad_out.reshape(split.swapaxes(1, 2).shape), tape.attn_out.reshape(split.swapaxes(1, 2).shape)
    )
    grad_scores = np.matmul(grad_heads, value.swapaxes(-1, -2))
    grad_scores -= along.transpose(0, 2, 1)[..., None]
    grad_scores *= tape.probs
    grads = np.empty_like(tape.heads)
    np.matmul(grad_scores, key, out=grads[0])
    grads[0] *= config.head_width**-0.5
    np.matmul(grad_scores.swapaxes(-1, -2), query, out=grads[1])
    np.matmul(tape.probs.swapaxes(-1, -2), grad_heads, out=grads[2])
    return _join_heads(grads)


class FullGradient:
    """Sums the gradients of all base weights: for pre-training and for tests.

    Attributes:
        arrays: one gradient per weight, of its shape.
    """

    wants_embeddings = True

    def __init__(self, network: Network) -> None:
        self.arrays = {name: np.zeros_like(weight) for name, weight in network.weights.items()}

    def linear(self, name: str, x: Array, grad: Array) -> None:
        """Add one dense matrix's gradient."""
        self.arrays[name] += x.reshape(-1, x.shape[-1]).T @ grad.reshape(-1, grad.shape[-1])

    def embeddings(self, tokens: NDArray[np.int64], grad: Array) -> None:
        """Add the gradients of tokens and positions."""
        flat = tokens.reshape(-1, 1)
        chosen = (flat == np.arange(len(self.arrays["embed"]))).astype(grad.dtype)  # faster than np.add.at
        self.arrays["embed"] += chosen.T @ grad.reshape(-1, grad.shape[-1])
        self.arrays["position"][: tokens.shape[1]] += grad.sum(axis=0)
