"""Between the wire's types and those of the model: requests in, results out."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import attrs
import numpy as np

from tinker_actors.errors import InputError
from tinker_actors.wire import model as wire_model
from tinker_actors.wire import optimizer as wire_optimizer
from tinker_actors.wire import sampling as wire_sampling
from tinker_actors.wire import training as wire_training
from tinker_actors.wire.likeliest import TopkLogprobs
from tinker_actors.wire.tensor import TensorData

from .adam import AdamParams
from .example import Example
from .lora import LoraConfig
from .sample import SampleJob, SampleResult
from .trainer import LossResult

__all__ = [
    "adam_params",
    "check_optimizer",
    "examples",
    "forward_backward_output",
    "lora_config",
    "loss_config",
    "sample_job",
    "sample_response",
]


def examples(request: wire_training.ForwardBackwardInput) -> list[Example]:
    """Return the batch as the trainer takes it."""
    return [
        Example(
            datum.model_input.to_numpy().astype(np.int64),
            {name: tensor.to_numpy() for name, tensor in datum.loss_fn_inputs.items()},
        )
        for datum in request.data
    ]


def loss_config(request: wire_training.ForwardBackwardInput) -> dict[str, float]:
    """Return the loss's configuration.

    Raises:
        InputError: a value is no number.
    """
    config = {}
    for name, value in (request.loss_fn_config or {}).items():
        if isinstance(value, str):
            raise InputError(f"loss_fn_config.{name}", value, "must be a number")
        config[name] = float(value)
    return config


def forward_backward_output(result: LossResult) -> wire_training.ForwardBackwardOutput:
    """Return what a forward or forward_backward came to."""
    outputs = [
        {name: TensorData.from_numpy(array) for name, array in output.items()} for output in result.outputs
    ]
    return wire_training.ForwardBackwardOutput("ArrayRecord", outputs, result.metrics)


def adam_params(params: wire_optimizer.OptimParams) -> AdamParams:
    """Return an optimizer step's parameters.

    Raises:
        InputError: another optimizer than Adam, or a value that is out of its range.
    """
    if not isinstance(params, wire_optimizer.AdamParams):
        raise InputError("optimizer_params.type", params.type, "the embedded service has Adam alone")
    return AdamParams(**attrs.asdict(params))


def check_optimizer(config: wire_optimizer.OptimizerConfig) -> None:
    """Check the optimizer of a model that is to be made.

    Raises:
        InputError: another than Adam.
    """
    if config != wire_optimizer.ADAM_CONFIG:
        raise InputError("optimizer_config.type", config.type, "the embedded service has Adam alone")


def lora_config(config: wire_model.LoraConfig | None, draw_seed: Callable[[], int]) -> LoraConfig:
    """Return what is to be trained.

    Args:
        config: what the client wants.
        draw_seed: gives the seed of the first weights if the client names none; called only then.

    Raises:
        InputError: the rank is out of range, nothing is to be trained, or the whole model is.
    """
    if config is None:
        raise InputError("lora_config", None, "the embedded service trains LoRA adapters only")
    checked = LoraConfig(**{**attrs.asdict(config), "seed": config.seed or 0})
    return checked if config.seed is not None else attrs.evolve(checked, seed=draw_seed())


_OTHERS_OFFER = (
    "topk_sample_logprobs",
    "target_prompt_logprobs",
    "prompt_alt_tokens_k",
    "prompt_logprobs_last_n",
    "record_stability_info",
)


def sample_job(request: wire_sampling.SampleRequest, job_id: Hashable, seed: int) -> SampleJob:
    """Return what a decoder is to do.

    Args:
        request: what the client wants.
        job_id: the decoder's name for it.
        seed: decides the draws if the client names no seed.

    Raises:
        InputError: something that this service does not offer, or a prompt that is not all tokens.
    """
    for name in _OTHERS_OFFER:
        if wanted := getattr(request, name):
            raise InputError(name, wanted, "the embedded service does not offer it")
    params = request.sampling_params
    return SampleJob(
        job_id,
        request.prompt.to_numpy().astype(np.int64),
        num_samples=request.num_samples,
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        stop=[params.stop] if isinstance(params.stop, str) else params.stop,
        seed=seed if params.seed is None else params.seed,
        prompt_logprobs=bool(request.prompt_logprobs),
        topk_prompt_logprobs=request.topk_prompt_logprobs,
    )


def sample_response(result: SampleResult) -> wire_sampling.SampleResponse:
    """Return what a decoder came to."""
    sequences = tuple(
        wire_sampling.SampledSequence(
            sequence.stop_reason, np.array(sequence.tokens, np.int32), sequence.logprobs
        )
        for sequence in result.sequences
    )
    topk = result.topk_prompt_logprobs
    likeliest = None if topk is None else TopkLogprobs(*topk)
    return wire_sampling.SampleResponse(sequences, result.prompt_logprobs, likeliest)
