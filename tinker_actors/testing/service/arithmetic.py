"""Results without a model: a plain function of the request and of how many steps were taken.

The log probability of a token is a negative multiple of 1/64 that depends on the token and on the number of optimizer
steps in the model. It is exact in float32, so that both forms of a result say the same; and it is other after each
step, so that a test sees in a result whether a step was done twice or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import orjson

__all__ = ["LOSSES", "digest_of", "logprob", "sample_result", "training_result"]

# Whatever JSON holds; what is in it is looked at where it is used.
Body: TypeAlias = Mapping[str, Any]

VOCABULARY = 64
LOSSES = frozenset(
    {
        "cross_entropy",
        "importance_sampling",
        "ppo",
        "cispo",
        "dro",
        "gspo",
        "stable_reinforce",
        "custom",
    }
)


def digest_of(content: object) -> str:
    """Return a short text that is the same for the same JSON value."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def logprob(token: int, steps: int) -> float:
    """Return the log probability of a token after some steps."""
    return -(1 + (token + 7 * steps) % VOCABULARY) / 64


def training_result(batch: Body, steps: int) -> dict[str, object]:
    """Return the result of a forward pass over a batch."""
    outputs: list[dict[str, object]] = []
    loss = 0.0
    for datum in batch["data"]:
        inputs = datum.get("loss_fn_inputs", {})
        targets = inputs.get("target_tokens") or {"data": _tokens(datum["model_input"])}
        values = [logprob(int(token), steps) for token in targets["data"]]
        weights = (inputs.get("weights") or inputs.get("advantages") or {}).get("data") or [1.0] * len(values)
        loss -= sum(weight * value for weight, value in zip(weights, values, strict=False))
        outputs.append({"logprobs": {"shape": [len(values)], **targets, "data": values, "dtype": "float32"}})
    return {"loss_fn_output_type": "ArrayRecord", "loss_fn_outputs": outputs, "metrics": {"loss:sum": loss}}


def sample_result(request: Body, steps: int) -> dict[str, object]:
    """Return the result of a request for samples."""
    prompt = _tokens(request["prompt"])
    params = request.get("sampling_params") or {}
    result: dict[str, object] = {
        "type": "sample",
        "sequences": [
            _sequence(prompt, params, index, steps) for index in range(request.get("num_samples", 1))
        ],
    }
    if request.get("prompt_logprobs"):
        result["prompt_logprobs"] = [
            None if place == 0 else logprob(token, steps) for place, token in enumerate(prompt)
        ]
    if count := request.get("topk_prompt_logprobs"):
        result["topk_prompt_logprobs"] = [
            None if place == 0 else [[token + rank, logprob(token, steps) - rank] for rank in range(count)]
            for place, token in enumerate(prompt)
        ]
    return result


def _sequence(prompt: Sequence[int], params: Body, index: int, steps: int) -> dict[str, object]:
    length = params.get("max_tokens")
    length = 16 if length is None else length
    start = sum(prompt) + 17 * index + 13 * (params.get("seed") or 0) + steps
    tokens = [(start + 31 * place) % VOCABULARY for place in range(length)]
    stop = params.get("stop")
    ends = {token for token in stop if isinstance(token, int)} if isinstance(stop, list) else set()
    cut = next((place + 1 for place, token in enumerate(tokens) if token in ends), None)
    tokens = tokens[:cut]
    return {
        "stop_reason": "length" if cut is None else "stop",
        "tokens": tokens,
        "logprobs": [logprob(token, steps) for token in tokens],
    }


def _tokens(model_input: Body) -> list[int]:
    return [token for chunk in model_input.get("chunks", ()) for token in chunk.get("tokens", ())]
