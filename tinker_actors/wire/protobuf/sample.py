"""`SampleResponse`, from bytes and to bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import numpy.typing as npt

from tinker_actors.errors import InputError
from tinker_actors.wire.likeliest import PromptAltTokens, TopkLogprobs
from tinker_actors.wire.sampling import SampledSequence, SampleResponse

from .field import FLOAT32, INT32, Malformed, array, integer, merged, message_key, scan, varint_key
from .message import Message, write_integer
from .tensor import octets, read_tensor, read_topk, write_tensor, write_topk

__all__ = ["read_sample", "write_sample"]

# SampleResponse
_SEQUENCES = message_key(1)
_PROMPT_LOGPROBS = message_key(2)
_PROMPT_TOPK = message_key(3)
_CACHE_HITS = varint_key(4)
_TARGETS = message_key(5)
_ALTERNATIVES = message_key(6)
# SampledSequence
_STOP_REASON = varint_key(1)
_TOKENS = message_key(2)
_LOGPROBS = message_key(3)
_TOPK = message_key(4)
# PromptAltTokens
_ALT_TOKENS = message_key(1)
_ALT_LOGPROBS = message_key(2)

_STOP_REASONS: Final[Mapping[int, str]] = {0: "stop", 1: "length"}
_STOP_NUMBERS: Final = {reason: number for number, reason in _STOP_REASONS.items()}
_UNKNOWN: Final = "unknown:"  # before the number of a reason that we do not know


# --- reading ---------------------------------------------------------------------------------------------


def read_sample(data: bytes, start: int, end: int) -> SampleResponse:
    """Read a `SampleResponse`.

    Raises:
        Malformed: it is none.
    """
    fields = scan(data, start, end)
    sequences: list[SampledSequence] = []
    for first, last in fields.pop(_SEQUENCES, ()):
        try:
            sequences.append(_read_sequence(data, first, last))
        except Malformed as error:
            raise error.under(f".sequences[{len(sequences)}]") from error
    if not fields:
        return SampleResponse(tuple(sequences))
    targets = fields.get(_TARGETS)
    alternatives = fields.get(_ALTERNATIVES)
    step = ".prompt_logprobs"
    try:
        prompt_logprobs = _logprobs(data, fields.get(_PROMPT_LOGPROBS))
        step = ".topk_prompt_logprobs"
        topk = _topk(data, fields.get(_PROMPT_TOPK))
        step = ".target_prompt_logprobs"
        of_targets = read_tensor(*merged(data, targets)) if targets else None
        step = ".prompt_alt_tokens"
        drawn = _read_alternatives(*merged(data, alternatives)) if alternatives else None
    except Malformed as error:
        raise error.under(step) from error
    hits = integer(fields, _CACHE_HITS)
    return SampleResponse(tuple(sequences), prompt_logprobs, topk, of_targets, hits, drawn)


def _read_sequence(data: bytes, start: int, end: int) -> SampledSequence:
    fields = scan(data, start, end)
    step = ".tokens"
    try:
        tokens = array(data, *octets(fields, _TOKENS), INT32)
        step = ".logprobs"
        logprobs = _logprobs(data, fields.get(_LOGPROBS))
        step = ".topk_sampled_logprobs"
        topk = _topk(data, fields.get(_TOPK))
    except Malformed as error:
        raise error.under(step) from error
    number = integer(fields, _STOP_REASON)
    reason = _STOP_REASONS.get(number) or f"{_UNKNOWN}{number}"
    return SampledSequence(reason, tokens, logprobs, topk)


def _logprobs(data: bytes, places: list[tuple[int, int]] | None) -> npt.NDArray[Any] | None:
    """Return log probabilities; where there are none, None."""
    if places is None:
        return None
    start, end = places[-1]
    return None if start == end else array(data, start, end, FLOAT32)


def _topk(data: bytes, places: list[tuple[int, int]] | None) -> TopkLogprobs | None:
    return None if places is None else read_topk(*merged(data, places))


def _read_alternatives(data: bytes, start: int, end: int) -> PromptAltTokens:
    fields = scan(data, start, end)
    tensors = []
    for key, step in ((_ALT_TOKENS, ".tokens"), (_ALT_LOGPROBS, ".logprobs")):
        try:
            tensors.append(read_tensor(*merged(data, fields.get(key))))
        except Malformed as error:
            raise error.under(step) from error
    return PromptAltTokens(*tensors)


# --- writing ---------------------------------------------------------------------------------------------


def write_sample(response: SampleResponse) -> Message:
    """Write a `SampleResponse`.

    Raises:
        InputError: a stop reason that protobuf has no number for.
    """
    message = Message()
    for index, sequence in enumerate(response.sequences):
        message.message(_SEQUENCES, _write_sequence(f"sequences[{index}]", sequence))
    if response.prompt_logprobs_np is not None:
        message.array(_PROMPT_LOGPROBS, response.prompt_logprobs_np, FLOAT32)
    if response.topk_prompt_logprobs_np is not None:
        message.message(_PROMPT_TOPK, write_topk(response.topk_prompt_logprobs_np))
    hits = write_integer("prompt_cache_hit_tokens", response.prompt_cache_hit_tokens)
    message.integer(_CACHE_HITS, hits)
    if response.target_prompt_logprobs is not None:
        message.message(_TARGETS, write_tensor(response.target_prompt_logprobs))
    if response.prompt_alt_tokens is not None:
        alternatives = Message()
        alternatives.message(_ALT_TOKENS, write_tensor(response.prompt_alt_tokens.tokens))
        alternatives.message(_ALT_LOGPROBS, write_tensor(response.prompt_alt_tokens.logprobs))
        message.message(_ALTERNATIVES, alternatives)
    return message


def _write_sequence(field: str, sequence: SampledSequence) -> Message:
    message = Message()
    message.integer(_STOP_REASON, _stop_number(f"{field}.stop_reason", sequence.stop_reason))
    message.array(_TOKENS, sequence.tokens_np, INT32)
    if sequence.logprobs_np is not None:
        message.array(_LOGPROBS, sequence.logprobs_np, FLOAT32)
    if sequence.topk_logprobs_np is not None:
        message.message(_TOPK, write_topk(sequence.topk_logprobs_np))
    return message


def _stop_number(field: str, reason: str) -> bytes:
    number = _STOP_NUMBERS.get(reason)
    if number is None:
        unknown = re.fullmatch(r"unknown:(-?\d{1,10})", reason, re.ASCII)
        if unknown is None:
            raise InputError(field, reason, "must be 'stop', 'length', or 'unknown:' and a number")
        number = int(unknown[1])
    return write_integer(field, number)
