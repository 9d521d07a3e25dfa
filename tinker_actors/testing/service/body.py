"""Bodies in and out: JSON and protobuf, as a service chooses."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from tinker_actors.errors import ConfigError, DecodeError
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.compression import decompress
from tinker_actors.wire.payload import PROTOBUF
from tinker_actors.wire.sampling import SampleResponse
from tinker_actors.wire.training import ForwardBackwardOutput, ForwardRequest

from .dialect import ServiceDialect
from .reply import Answer, Refusal, ReplyPlan, ServedRequest

__all__ = ["read_body", "write_answer"]

_LARGEST = 64 << 20
_TRAINING = frozenset({"forward", "forward_backward"})
_KINDS: dict[str, type] = {"training": ForwardBackwardOutput, "sample": SampleResponse}

# Fields that came after tinker 0.24, which services that reuse its strict models refuse (seen with 0.38).
_NEWER = {
    "create_model": frozenset({"optimizer_config"}),
    "create_session": frozenset({"project_id", "display_name"}),
    "asample": frozenset(
        {
            "topk_sample_logprobs",
            "target_prompt_logprobs",
            "prompt_alt_tokens_k",
            "prompt_logprobs_last_n",
            "record_stability_info",
        }
    ),
    "optim_step": frozenset({"optimizer_params"}),
    "save_weights": frozenset({"overwrite", "user_metadata"}),
    "save_weights_for_sampler": frozenset({"kind", "user_metadata"}),
}


def read_body(request: ServedRequest, dialect: ServiceDialect) -> object:
    """Return a body as JSON values; None if there is none.

    Raises:
        Refusal: it cannot be read, or is in a form that the service does not take.
    """
    content = _content(request)
    is_protobuf = (request.header("content-type") or "").partition(";")[0] == PROTOBUF
    if not content and not is_protobuf:
        return None
    if request.endpoint in _TRAINING and dialect.bodies == ("json" if is_protobuf else "protobuf"):
        raise Refusal(415, "Unsupported media type")
    body = _from_protobuf(request, content) if is_protobuf else _from_json(content)
    if not dialect.newer_fields and isinstance(body, dict):
        refused = sorted(_NEWER.get(request.endpoint, frozenset()) & set(body))
        if refused:
            text = "Extra inputs are not permitted"
            raise Refusal(
                422, [{"type": "extra_forbidden", "loc": ["body", name], "msg": text} for name in refused]
            )
    return body


def _content(request: ServedRequest) -> bytes:
    try:
        return decompress(request.content, request.header("content-encoding") or "", limit=_LARGEST)
    except DecodeError as error:
        raise Refusal(422, str(error)) from error
    except ConfigError as error:
        raise Refusal(415, str(error)) from error


def _from_json(content: bytes) -> object:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        message = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error"}
        raise Refusal(422, [message]) from error


def _from_protobuf(request: ServedRequest, content: bytes) -> dict[str, Any]:
    if request.endpoint != "forward_backward":
        raise Refusal(415, "Unsupported media type")
    try:
        decoded = protobuf.decode_training(content)
    except DecodeError as error:
        raise Refusal(422, str(error)) from error
    body: dict[str, Any] = orjson.loads(codec.encode(decoded, newer=True))
    return body | {"forward_only": isinstance(decoded, ForwardRequest)}


def write_answer(answer: Answer, request: ServedRequest, dialect: ServiceDialect) -> ReplyPlan:
    """Return an answer's bytes: protobuf if it has that form and both sides take it."""
    wanted = PROTOBUF in (request.header("accept") or "")
    kind = _KINDS.get(answer.kind or "")
    if kind is None or not wanted or dialect.bodies == "json" or kind not in protobuf.MESSAGES:
        return answer.encoded()
    value: object = codec.decode(kind, orjson.dumps(answer.body), strict=False)
    plan = ReplyPlan(status=answer.status, headers=(("content-type", PROTOBUF),), body=protobuf.encode(value))
    return attrs.evolve(plan, headers=(*plan.headers, *answer.headers))
