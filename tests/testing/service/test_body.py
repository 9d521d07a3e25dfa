"""Bodies in both forms, compressed or not."""

from __future__ import annotations

import gzip
import json

import pytest

from tinker_actors.testing import ScriptedService, ServiceDialect
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.compression import compress
from tinker_actors.wire.sampling import SampleResponse
from tinker_actors.wire.training import ForwardBackwardOutput, ForwardBackwardRequest, ForwardRequest

PROTOBUF = "application/x-protobuf"


def as_protobuf(body: dict[str, object]) -> bytes:
    """Return the protobuf form of a JSON body."""
    kind = ForwardRequest if "forward_input" in body else ForwardBackwardRequest
    return protobuf.encode(codec.decode(kind, json.dumps(body), strict=True))


def test_training_is_the_same_in_both_forms(caller, bodies) -> None:
    """The result of a protobuf body is that of the JSON body, and so is its form, if it is asked for."""
    user = caller(ScriptedService())
    model = user.model()
    plain = user.ok("forward_backward", bodies.forward_backward(model, 1, 5, 6))
    binary = user.ok(
        "forward_backward", as_protobuf(bodies.forward_backward(model, 2, 5, 6)), content_type=PROTOBUF
    )
    status, result = user.poll(plain)
    assert status == 200
    plan = user.plan(
        "POST",
        "retrieve_future",
        {"request_id": binary["request_id"]},
        accept=f"{PROTOBUF}, application/json",
    )
    assert plan.content_type == PROTOBUF
    read = protobuf.decode(ForwardBackwardOutput, plan.body)
    expected = codec.decode(ForwardBackwardOutput, json.dumps(result), strict=False)
    assert read.metrics == expected.metrics
    assert codec.encode(read.loss_fn_outputs[0]["logprobs"]) == codec.encode(
        expected.loss_fn_outputs[0]["logprobs"]
    )
    assert user.poll(binary) == (200, result)
    assert [one.seq_id for one in user.service.trained[model]] == [1, 2]


def test_a_forward_pass_in_protobuf_leaves_no_gradient(caller, bodies) -> None:
    """It comes to the same endpoint with a flag, and uses a number up."""
    user = caller(ScriptedService())
    model = user.model()
    body = {"forward_input": bodies.batch(5), "model_id": model, "seq_id": 1}
    promise = user.ok("forward_backward", as_protobuf(body), content_type=PROTOBUF)
    assert user.poll(promise)[1]["metrics"] == {"loss:sum": 6 / 64}
    assert user.service.trained[model] == ()
    user.result("optim_step", bodies.optim_step(model, 2))


def test_samples_come_in_protobuf_to_who_takes_it(caller, bodies) -> None:
    """Tokens and log probabilities are those of the JSON form; a service without protobuf answers in JSON."""
    for dialect, expected in (
        (ServiceDialect(), PROTOBUF),
        (ServiceDialect.like("open-rl"), "application/json"),
    ):
        user = caller(ScriptedService(dialect=dialect))
        body = {"session_id": user.session(), "sampling_session_seq_id": 0, "base_model": "m"}
        sampler = user.ok("create_sampling_session", body)["sampling_session_id"]
        promise = user.ok(
            "asample", bodies.sample(sampler, 0) | {"prompt_logprobs": True, "topk_prompt_logprobs": 2}
        )
        poll = {"request_id": promise["request_id"]}
        plan = user.plan("POST", "retrieve_future", poll, accept=PROTOBUF)
        assert plan.content_type == expected
        if expected == PROTOBUF:
            reply = protobuf.decode(SampleResponse, plan.body)
            value = user.poll(promise)[1]
            assert list(reply.sequences[0].tokens) == value["sequences"][0]["tokens"]
            assert list(reply.prompt_logprobs or ()) == value["prompt_logprobs"]


def test_bodies_may_be_compressed(caller, bodies) -> None:
    """Zstd and gzip are undone; what is neither is refused."""
    user = caller(ScriptedService())
    model = user.model()
    body = bodies.forward_backward(model, 1, 5)
    user.ok("forward_backward", compress(as_protobuf(body)), content_type=PROTOBUF, content_encoding="zstd")
    step = json.dumps(bodies.optim_step(model, 2)).encode()
    user.ok("optim_step", gzip.compress(step), content_encoding="gzip")
    assert [one.seq_id for one in user.service.trained[model]] == [1, 2]
    assert user.call("optim_step", b"junk", content_encoding="zstd")[0] == 422


@pytest.mark.parametrize(
    ("dialect", "status"), [("tinker", 200), ("skyrl", 200), ("tuft", 202), ("open-rl", 415)]
)
def test_services_take_protobuf_or_do_not(caller, bodies, dialect, status) -> None:
    """As each of them was measured; broken protobuf is refused by all."""
    user = caller(ScriptedService(dialect=ServiceDialect.like(dialect)))
    model = user.model()
    body = as_protobuf(bodies.forward_backward(model, 1, 5))
    assert user.call("forward_backward", body, content_type=PROTOBUF)[0] == status
    broken = user.call("forward_backward", body[:-3], content_type=PROTOBUF)[0]
    assert broken == (415 if status == 415 else 422)
