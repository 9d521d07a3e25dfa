"""Holds our codecs against those of the official client, which is installed beside us: `make interop-codec`.

Hypothesis makes the messages, from the strategies that our tests use. In protobuf, what we write is read by the
official client's own functions and classes, and what these write is read by us. In JSON, what we write is validated
by its types and must be dumped by them as the same values, and what they dump must be read by us, strictly, as the
object we started from. What is compared is always decoded values.

    python tests/interop/codec.py [--examples 500]

The last line sums up; the exit status is 1 if anything differed.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pydantic
import tinker
import tinker.types
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from tinker._models import StrictBase
from tinker.proto import request_conv, response_conv, tinker_public_pb2

sys.path.insert(0, str(Path(__file__).parents[2]))  # the project's root, for the strategies of the tests

from tests.wire.protobuf import messages, reference
from tests.wire.strategies_around import EVERYTHING
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.chunk import EncodedTextChunk, ImageChunk
from tinker_actors.wire.input import Datum
from tinker_actors.wire.likeliest import PromptAltTokens, TopkLogprobs
from tinker_actors.wire.provenance import SampledProvenanceSpan
from tinker_actors.wire.sampling import SampledSequence, SampleResponse
from tinker_actors.wire.tensor import TensorData
from tinker_actors.wire.training import ForwardBackwardOutput, ForwardRequest

T: Any = tinker.types  # its classes are compared by what they hold, not by their annotations

# The reference of our tests, over the official client's message classes instead of those made of our `.proto`.
reference.OFFICIAL = {
    name: getattr(tinker_public_pb2, name) for name in tinker_public_pb2.DESCRIPTOR.message_types_by_name
}


class Tally:
    """Runs checks over many messages and counts them."""

    def __init__(self, examples: int) -> None:
        self.examples = examples
        self.ours = 0
        self.theirs = 0
        self.failed: list[str] = []

    def check(
        self, name: str, strategy: st.SearchStrategy[Any], compare: Callable[[Any], None], examples: int
    ) -> None:
        """Try a comparison over many values; `compare` goes both ways."""
        count = 0

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def run(value: Any) -> None:
            nonlocal count
            compare(value)
            count += 1

        try:
            run()
            assert count, "there was nothing that both could hold"
        except Exception:  # noqa: BLE001 - whatever it is, the others are still tried
            self.failed.append(name)
            traceback.print_exc()
        self.ours += count
        self.theirs += count
        print(f"{name:44} {count:6} each way{'' if name not in self.failed else '  DIFFERS'}", flush=True)


def equal(ours: object, theirs: object) -> None:
    assert ours == theirs, f"\nours:   {ours!r}\ntheirs: {theirs!r}"


# --- protobuf: requests ----------------------------------------------------------------------------------


def their_tensor(tensor: TensorData) -> Any:
    crow, col = tensor.sparse_crow_indices, tensor.sparse_col_indices
    return T.TensorData(
        tensor.data,
        tensor.dtype,
        list(tensor.shape),
        None if crow is None else crow.tolist(),
        None if col is None else col.tolist(),
    )


def their_chunk(chunk: Any) -> Any:
    if isinstance(chunk, EncodedTextChunk):
        return T.EncodedTextChunk(tokens=list(chunk.tokens))
    if isinstance(chunk, ImageChunk):
        return T.ImageChunk(data=chunk.data, format=chunk.format, expected_tokens=chunk.expected_tokens)
    return T.DmelChunk(dmel=chunk.dmel)


def their_spans(spans: Any) -> Any:
    if spans is None:
        return None
    return [
        (T.SampledProvenanceSpan if isinstance(span, SampledProvenanceSpan) else T.PromptProvenanceSpan)(
            sequence_id=span.sequence_id, offset=span.offset, length=span.length
        )
        for span in spans
    ]


def their_datum(datum: Datum) -> Any:
    return T.Datum(
        model_input=T.ModelInput(chunks=[their_chunk(chunk) for chunk in datum.model_input.chunks]),
        loss_fn_inputs={name: their_tensor(tensor) for name, tensor in datum.loss_fn_inputs.items()},
        model_input_spans=their_spans(datum.model_input_spans),
        loss_fn_input_spans=their_spans(datum.loss_fn_input_spans),
    )


def compare_request(request: Any) -> None:
    """Our bytes, parsed by its classes, are the message that its encoder makes; its bytes are our object."""
    forward_only = isinstance(request, ForwardRequest)
    batch = request.forward_input if forward_only else request.forward_backward_input
    theirs = T.ForwardBackwardRequest(
        forward_backward_input=T.ForwardBackwardInput(
            data=[their_datum(datum) for datum in batch.data],
            loss_fn=batch.loss_fn,
            loss_fn_config=batch.loss_fn_config,
        ),
        model_id=request.model_id,
        seq_id=request.seq_id,
    )
    message = request_conv.forward_backward_request_to_proto(theirs)
    message.forward_only = forward_only  # as its resource does
    ours = tinker_public_pb2.ForwardBackwardRequest.FromString(protobuf.encode(request))
    equal(reference.written(ours), reference.written(message))
    equal(protobuf.decode(type(request), message.SerializeToString()), request)


# --- protobuf: results -----------------------------------------------------------------------------------


def our_tensor(theirs: Any) -> TensorData | None:
    if theirs is None:
        return None
    return TensorData(
        np.array(theirs._numpy),
        theirs.dtype,
        tuple(theirs.shape),
        theirs.sparse_crow_indices,
        theirs.sparse_col_indices,
    )


def our_output(theirs: Any) -> ForwardBackwardOutput:
    return ForwardBackwardOutput(
        theirs.loss_fn_output_type,
        [{name: our_tensor(tensor) for name, tensor in datum.items()} for datum in theirs.loss_fn_outputs],
        theirs.metrics,
    )


def has_one_frame(output: ForwardBackwardOutput) -> bool:
    """Whether all datums have the same names, which the official decoder relies on."""
    return len({frozenset(datum) for datum in output.loss_fn_outputs}) <= 1


def compare_output(output: ForwardBackwardOutput) -> None:
    """Its decoder reads our bytes as our object; what its classes write is read by us as its decoder reads it."""
    data = protobuf.encode(output)
    equal(our_output(response_conv.deserialize_forward_backward_output(data)), output)
    datums = [[datum] for datum in output.loss_fn_outputs]  # a record for each, where we write few
    theirs = reference.output_message(datums, output.loss_fn_output_type, output.metrics).SerializeToString()
    equal(
        protobuf.decode(ForwardBackwardOutput, theirs),
        our_output(response_conv.deserialize_forward_backward_output(theirs)),
    )


def our_topk(theirs: Any) -> TopkLogprobs | None:
    return None if theirs is None else TopkLogprobs(theirs.token_ids, theirs.logprobs)


def our_sample(theirs: Any) -> SampleResponse:
    drawn = theirs.prompt_alt_tokens
    return SampleResponse(
        tuple(
            SampledSequence(
                held.stop_reason, held.tokens_np, held.logprobs_np, our_topk(held.topk_logprobs_np)
            )
            for held in theirs.sequences
        ),
        theirs.prompt_logprobs_np,
        our_topk(theirs.topk_prompt_logprobs_np),
        our_tensor(theirs.target_prompt_logprobs),
        theirs.prompt_cache_hit_tokens,
        None if drawn is None else PromptAltTokens(our_tensor(drawn.tokens), our_tensor(drawn.logprobs)),
    )


def knows_reasons(response: SampleResponse) -> bool:
    """Whether the official decoder knows why each sequence ended; it refuses what it does not know."""
    return all(sequence.stop_reason in {"stop", "length"} for sequence in response.sequences)


def compare_sample(response: SampleResponse) -> None:
    """Its decoder reads our bytes as our object, lists included; what its classes write is read by us."""
    theirs = response_conv.deserialize_sample_response(protobuf.encode(response))
    equal(our_sample(theirs), response)
    for ours, other in zip(response.sequences, theirs.sequences, strict=True):
        equal(ours.tokens, other.tokens)
        equal(repr(ours.logprobs), repr(other.logprobs))
        equal(repr(ours.topk_logprobs), repr(other.topk_logprobs))
    equal(repr(response.prompt_logprobs), repr(theirs.prompt_logprobs))
    equal(repr(response.topk_prompt_logprobs), repr(theirs.topk_prompt_logprobs))
    equal(protobuf.decode(SampleResponse, reference.sample_message(response).SerializeToString()), response)


# --- JSON ------------------------------------------------------------------------------------------------

NAMES: Mapping[str, str] = {
    "RetrieveFutureRequest": "FutureRetrieveRequest",
    "RetrieveFuturesRequest": "FuturesRetrieveRequest",
    "RetrieveFuturesResponse": "FuturesRetrieveResponse",
    "RequestFailed": "RequestFailedResponse",
    "SaveWeightsExternalResponse": "SaveWeightsExternalResponseInternal",
    "SaveWeightsForSamplerResponse": "SaveWeightsForSamplerResponseInternal",
    "TryAgain": "TryAgainResponse",
}
"""Ours to theirs, where they differ."""

GRAPH = {
    "format": 1,
    "nodes": [
        {"op": "placeholder", "name": "logprobs", "target": "logprobs", "args": [], "kwargs": {}},
        {"op": "output", "name": "output", "target": "output", "args": [{"ref": "logprobs"}], "kwargs": {}},
    ],
}


TIME = datetime(2026, 11, 20, 8, 40, 7, 467041, tzinfo=UTC)


def searched(value: Any) -> Any:
    """Give a cursor a time: ours keeps a text that is none as it came."""
    return (
        value
        if value.cursor is None
        else attrs.evolve(value, cursor=attrs.evolve(value.cursor, last_created_at=TIME))
    )


NARROWED: Mapping[str, Callable[[Any], Any]] = {
    "ClientConfigResponse": lambda value: attrs.evolve(
        value,
        sequence_dedupe=None,
        training_body=None,
        newer_fields=None,
        early_numbers=None,
        restart_ends_models=None,
        session_timeout=None,
    ),
    "CreateCustomLossRequest": lambda value: attrs.evolve(value, graph=GRAPH),
    "DimuonOptimizerConfig": lambda value: attrs.evolve(value, version=1),
    "SessionFailed": lambda value: attrs.evolve(value, category="user"),
    "SessionSearchRequest": searched,
    "TelemetrySendRequest": lambda value: attrs.evolve(value, process_uuid="p", events=()),
}
"""What to change of values that ours leave open or that only ours have, so that its types can hold them."""


def compare_json(kind: type, model: type[pydantic.BaseModel]) -> Callable[[Any], None]:
    """Our JSON is valid for its type, which dumps it again as the same values; its dump is our object.

    Requests are read strictly on both sides. Of responses ours hold more than its types do, as whatever a service
    says must not be lost: what they refuse is not compared. And either side may have what the other does not know of,
    such as a tag.
    """
    strict = issubclass(model, StrictBase)

    def validated(written: bytes) -> dict[str, Any]:
        try:
            theirs = model.model_validate_json(written)
        except pydantic.ValidationError:
            if strict:
                raise
            reject()
        return theirs.model_dump(mode="json", exclude_none=True)  # as its resources do

    def known(to: Any, value: Any) -> Any:
        """Leave out what the other side does not know of."""
        return value if strict else {name: value.get(name) for name in to}

    def compare(value: Any) -> None:
        dumped = validated(codec.encode(value, newer=True))
        ours = without_null(json.loads(codec.encode(value, newer=True)))
        equal(ours, without_null(known(ours, dumped)))
        back = codec.decode(kind, json.dumps(dumped).encode(), strict=strict)
        equal(without_null(known(ours, json.loads(codec.encode(back, newer=True)))), ours)
        equal(validated(codec.encode(value)), dumped)

    return compare


def without_null(value: Any) -> Any:
    """Return a JSON value without members that are null: its dumps leave them out, which means the same."""
    if isinstance(value, dict):
        return {name: without_null(item) for name, item in value.items() if item is not None}
    return [without_null(item) for item in value] if isinstance(value, list) else value


def json_pairs() -> dict[type, type[pydantic.BaseModel]]:
    pairs = {}
    for kind in EVERYTHING:
        model = getattr(tinker.types, NAMES.get(kind.__name__, kind.__name__), None)
        if isinstance(model, type) and issubclass(model, pydantic.BaseModel):
            pairs[kind] = model
    return pairs


def main() -> int:
    """Run all comparisons and say how they went; 1 if anything differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--examples", type=int, default=500, help="messages of each protobuf class (default 500)"
    )
    parser.add_argument("--only", default="", help="only classes whose names hold this")
    options = parser.parse_args()
    tally = Tally(options.examples)
    protobuf_checks = {
        "protobuf ForwardBackwardRequest": (messages.requests, compare_request),
        "protobuf ForwardBackwardOutput": (messages.outputs.filter(has_one_frame), compare_output),
        "protobuf SampleResponse": (messages.samples.filter(knows_reasons), compare_sample),
    }
    for name, (strategy, compare) in protobuf_checks.items():
        if options.only in name:
            tally.check(name, strategy, compare, options.examples)
    for kind, model in json_pairs().items():
        if options.only in f"JSON {kind.__name__}":
            strategy = EVERYTHING[kind].map(NARROWED.get(kind.__name__, lambda value: value))
            tally.check(f"JSON {kind.__name__}", strategy, compare_json(kind, model), options.examples // 5)
    result = f"FAILED: {', '.join(tally.failed)}" if tally.failed else "all equal"
    print(
        f"interop-codec: {tally.ours} messages of ours, {tally.theirs} of tinker {tinker.__version__}: {result}"
    )
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
