"""What each verb of a client sends, as tables: its typed message, or its calls of the service; and its arguments.

Complete: a public method without a row fails, and so does a row without a method. A verb with several rows has their
names behind a colon.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np

from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    LoadState,
    OptimStep,
    SaveState,
    SaveWeightsForSampler,
)
from tinker_actors.actors.rest import RestClient
from tinker_actors.actors.sampling_client import SamplingClient
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.kernel import Message
from tinker_actors.types import (
    AdamParams,
    Datum,
    ForwardBackwardOutput,
    ModelInput,
    OptimStepResponse,
    SampleResponse,
    SamplingParams,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
)
from tinker_actors.wire.weights import LoadWeightsResponse, SaveWeightsForSamplerResult

MODEL = "tinker-actors/char-100k"
DATA = (Datum(ModelInput.from_ints([1, 2]), {"target_tokens": [2, 3], "weights": [1.0, 1.0]}),)
RL = (
    Datum(
        ModelInput.from_ints([1, 2]),
        {"target_tokens": [2, 3], "logprobs": [-1.0, -1.0], "advantages": [1.0, 0.0]},
    ),
)
CLIP: dict[str, float | str] = {"clip_low_threshold": 0.5}
ADAM = AdamParams(learning_rate=1e-3)
PROMPT = ModelInput.from_ints([1, 2, 3])
PARAMS = SamplingParams(max_tokens=4)
STATE = "tinker://run/weights/a"
WEIGHTS = "tinker://run/sampler_weights/a"

OUTPUT = ForwardBackwardOutput("x", (), {"loss:sum": 1.0})
STEPPED = OptimStepResponse({"norm": 1.0})
SAVED = SaveWeightsResponse(STATE)
LOADED = LoadWeightsResponse(path=STATE)
NAMED = SaveWeightsForSamplerResult(path=WEIGHTS)
UNNAMED = SaveWeightsForSamplerResult(sampling_session_id="session-7")
SAMPLED = SampleResponse((), np.array([np.nan, -1.0, -2.0], np.float32))

Call = Callable[[Any], Awaitable[object]]
SAME: Final = object()
"""The verb gives what the actor replied."""

# Verb, and what it does; the message it sends; what the actor replies; what the verb gives.
TRAINING: dict[str, tuple[Call, Message[Any, Any], object, object]] = {
    "forward": (lambda t: t.forward(DATA, "cross_entropy"), Forward(DATA, "cross_entropy"), OUTPUT, SAME),
    "forward: config": (lambda t: t.forward(RL, "ppo", CLIP), Forward(RL, "ppo", CLIP), OUTPUT, SAME),
    "forward_backward": (
        lambda t: t.forward_backward(DATA, "cross_entropy"),
        ForwardBackward(DATA, "cross_entropy"),
        OUTPUT,
        SAME,
    ),
    "forward_backward: config": (
        lambda t: t.forward_backward(list(RL), "ppo", CLIP),
        ForwardBackward(RL, "ppo", CLIP),
        OUTPUT,
        SAME,
    ),
    "optim_step": (lambda t: t.optim_step(ADAM), OptimStep(ADAM), STEPPED, SAME),
    "save_state": (lambda t: t.save_state("a"), SaveState("a"), SAVED, SAME),
    "save_state: ttl": (lambda t: t.save_state("a", 3600), SaveState("a", 3600), SAVED, SAME),
    "load_state": (lambda t: t.load_state(STATE), LoadState(STATE, optimizer=False), LOADED, SAME),
    "load_state_with_optimizer": (
        lambda t: t.load_state_with_optimizer(STATE),
        LoadState(STATE, optimizer=True),
        LOADED,
        SAME,
    ),
    "save_weights_for_sampler": (
        lambda t: t.save_weights_for_sampler("a"),
        SaveWeightsForSampler("a"),
        NAMED,
        SaveWeightsForSamplerResponse(WEIGHTS),
    ),
    "save_weights_for_sampler: ttl": (
        lambda t: t.save_weights_for_sampler("a", 3600),
        SaveWeightsForSampler("a", 3600),
        NAMED,
        SaveWeightsForSamplerResponse(WEIGHTS),
    ),
}
PUBLISHING: dict[str, tuple[Call, Message[Any, Any]]] = {
    "save_weights_and_get_sampling_client": (
        lambda t: t.save_weights_and_get_sampling_client(),
        SaveWeightsForSampler(),
    ),
}
# What a TrainingClient has beside them, and what it does instead.
TRAINING_REST = {
    "create_sampling_client": "makes a call of the service",
    "get_telemetry": "gives what takes events",
    "get_info": "gives what the service said when the model was made",
    "get_tokenizer": "loads it here",
    "model_id": "is known",
    "submit": "sends the message it is given",
}
STEP_VERBS = {"forward", "forward_backward", "optim_step"}
"""They return when their message is in line, and give a Pending."""

OPTIONS: dict[str, Any] = {"include_prompt_logprobs": True, "topk_prompt_logprobs": 3}
SAMPLING: dict[str, tuple[Call, dict[str, Any], object]] = {
    "sample": (
        lambda s: s.sample(PROMPT, 2, PARAMS),
        {"prompt": PROMPT, "num_samples": 2, "sampling_params": PARAMS},
        SAME,
    ),
    "sample: options": (
        lambda s: s.sample(PROMPT, 2, PARAMS, **OPTIONS),
        {"prompt": PROMPT, "num_samples": 2, "sampling_params": PARAMS, **OPTIONS},
        SAME,
    ),
    "compute_logprobs": (
        lambda s: s.compute_logprobs(PROMPT),
        {
            "prompt": PROMPT,
            "num_samples": 1,
            "sampling_params": SamplingParams(max_tokens=1),
            "include_prompt_logprobs": True,
        },
        [None, -1.0, -2.0],
    ),
}
SAMPLING_REST = {
    "base_model": "is known",
    "get_base_model": "is known",
    "get_tokenizer": "loads it here",
    "ref": "is the pool",
    "target": "is known",
    "version": "is known",
}

# What each verb calls, in order; a creation is a promise that is waited for.
MODEL_CALLS = ["POST create_model", "POST retrieve_future", "POST get_info"]
SERVICE: dict[str, tuple[Call, list[str]]] = {
    "create_lora_training_client": (lambda s: s.create_lora_training_client("base"), MODEL_CALLS),
    "create_sampling_client": (
        lambda s: s.create_sampling_client(base_model="base"),
        ["POST create_sampling_session"],
    ),
    "get_server_capabilities": (lambda s: s.get_server_capabilities(), ["GET get_server_capabilities"]),
}
SERVICE_REST = {
    "get_telemetry": "gives what takes events",
    "session_id": "is known",
    "subscribe": "gives events",
}
RUN = "session-1:train:0"
REST: dict[str, tuple[Call, list[str]]] = {}
REST_REST = {"download_checkpoint": "has tests of its own: a call, and then a file"}

# What else goes over the line meanwhile, whatever is called.
AROUND = {"session_heartbeat", "telemetry", "client_dynamic_config"}

SIGNATURES = {
    ServiceClient: """
create_lora_training_client  base_model, rank=32, seed=None, train_mlp=True, train_attn=True,
                             train_unembed=True, user_metadata=None
create_sampling_client       model_path=None, base_model=None
get_server_capabilities
get_telemetry
subscribe                    max_buffer=1000
""",
    TrainingClient: """
create_sampling_client       model_path
forward                      data, loss_fn, loss_fn_config=None
forward_backward             data, loss_fn, loss_fn_config=None
get_info
get_telemetry
get_tokenizer
load_state                   path
load_state_with_optimizer    path
optim_step                   adam_params
save_state                   name, ttl_seconds=None
save_weights_and_get_sampling_client
save_weights_for_sampler     name, ttl_seconds=None
submit                       message
""",
    SamplingClient: """
compute_logprobs             prompt
get_base_model
get_tokenizer
sample                       prompt, num_samples, sampling_params, include_prompt_logprobs=False, topk_prompt_logprobs=0
""",
    RestClient: """
download_checkpoint          path, destination
""",
}
