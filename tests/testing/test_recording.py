"""What follows of a recording: which updates are in which model, and what was done more than once."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from tinker_actors.testing import Exchange, Recording, Update
from tinker_actors.testing.recording import describe_reply, describe_request, differences
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.input import Datum, ModelInput
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardRequest, ForwardRequest


class Line:
    """Writes a recording, exchange by exchange."""

    def __init__(self) -> None:
        self.recording = Recording()
        self._promises = 0

    def add(
        self,
        endpoint: str,
        content: str = "",
        status: int | None = 200,
        reply: dict[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """Add an exchange; returns the promise it was given."""
        self._promises += 1
        promise = f"p{self._promises}"
        exchange = Exchange(
            number=len(self.recording.exchanges),
            at=0.0,
            method="POST",
            path=f"/api/v1/{endpoint}",
            fields=fields,
            content=content,
            status=status,
            reply={"request_id": promise} if reply is None else reply,
        )
        self.recording.exchanges.append(exchange)
        return promise

    def step(self, model_id: str, content: str) -> str:
        """Add the gradient and the optimizer's step of one batch; returns the gradient's promise."""
        gradient = self.add("forward_backward", content, model_id=model_id)
        self.add("optim_step", "adam", model_id=model_id)
        return gradient

    def poll(self, promise: str, reply: dict[str, Any], status: int = 200) -> None:
        """Add a poll and its answer."""
        self.add("retrieve_future", status=status, reply=reply, request_id=promise)

    def lineage(self, model_id: str, **known: Any) -> str:
        """Name the gradients in a model, in order."""
        return "".join(
            one.content for one in self.recording.lineage(model_id, **known) if one.kind == "forward_backward"
        )


def test_a_lineage_goes_through_the_checkpoint_a_model_was_loaded_from() -> None:
    """A model that loads a checkpoint has what was in it when it was saved, and nothing that came after."""
    line = Line()
    line.step("m1", "a")
    save = line.add("save_weights", model_id="m1", path="one")
    line.step("m1", "b")
    line.poll(save, {"path": "tinker://m1/weights/one"})
    line.add("load_weights", model_id="m2", path="tinker://m1/weights/one")
    line.step("m2", "c")
    assert (line.lineage("m1"), line.lineage("m2")) == ("ab", "ac")
    assert [one.kind for one in line.recording.lineage("m2")] == ["forward_backward", "optim_step"] * 2


def test_a_checkpoint_whose_path_nobody_heard_is_known_by_its_name() -> None:
    """A client that died before it heard of the path may find the checkpoint by its name."""
    line = Line()
    line.step("m1", "a")
    line.add("save_weights", model_id="m1", path="one")
    line.add("load_weights", model_id="m2", path="tinker://m1/weights/one")
    assert line.lineage("m2") == "a"


def test_a_repetition_with_the_same_promise_is_one_update() -> None:
    """What is answered with the first promise was carried out once; what gets another was carried out again."""
    line = Line()
    first = line.step("m1", "a")
    line.add("forward_backward", "a", model_id="m1", reply={"request_id": first})
    assert line.lineage("m1") == "a"
    line.add("forward_backward", "a", model_id="m1")
    assert line.lineage("m1") == "aa"
    assert line.recording.times_accepted("forward_backward") == {"a": 2}


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (400, {"detail": "no"}),
        (409, {"detail": "expected 7, got 6"}),
        (200, {"error": "no"}),
        (422, {"error_message": "no"}),
    ],
)
def test_an_update_whose_promise_failed_is_in_no_model(status: int, reply: dict[str, str]) -> None:
    """Servers refuse a repeated number when its result is asked for, each in its own words."""
    line = Line()
    line.step("m1", "a")
    line.poll(line.step("m1", "b"), reply, status)
    assert line.lineage("m1") == "a"
    assert line.recording.times_accepted("forward_backward") == {"a": 1}


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (200, {"type": "try_again"}),
        (408, {}),
        (404, {}),
        (410, {}),
        (503, {}),
        (200, {"status": "complete_metadata"}),
    ],
)
def test_an_answer_that_says_nothing_of_the_outcome_is_no_failure(status: int, reply: dict[str, str]) -> None:
    """Polls that are put off, or meet a service that has forgotten the promise, leave the update where it is."""
    line = Line()
    gradient = line.step("m1", "a")
    line.poll(gradient, reply, status)
    assert line.lineage("m1") == "a"
    assert line.recording.open_promises("forward_backward") == [gradient]


@pytest.mark.parametrize(
    "later", [(409, {"detail": "gone"}), (400, {"detail": "no"}), (200, {"error": "no"})]
)
def test_what_was_told_to_be_done_stays_done(later: tuple[int, dict[str, str]]) -> None:
    """A service that gives a result once may answer the next who asks by an error; the update is there all the same."""
    line = Line()
    gradient = line.step("m1", "a")
    line.poll(gradient, {"type": "try_again"})
    line.poll(gradient, {"type": "forward_backward"})
    line.poll(gradient, later[1], later[0])
    assert line.lineage("m1") == "a"
    assert line.recording.failed() == frozenset()


def test_a_checkpoint_that_nobody_saved_shows_in_the_lineage() -> None:
    """What it holds is unknown, so no lineage with it is that of a run that loaded none."""
    line = Line()
    line.add("load_weights", model_id="m2", path="tinker://m1/weights/one")
    line.step("m2", "a")
    unknown, *others = line.recording.lineage("m2")
    assert unknown == Update("load_weights", "tinker://m1/weights/one")
    assert differences(others, [unknown, *others]) == (1, 0)


def test_updates_without_an_answer_are_told_of_the_models_that_carry_them_on() -> None:
    """A service that was asked and did not answer may have done it; what a model never had does not concern it."""
    line = Line()
    line.step("m1", "a")
    line.add("optim_step", "adam", status=None, reply={}, model_id="m1")
    line.add("save_weights", model_id="m1", path="one")
    line.add("forward_backward", "b", status=502, reply={}, model_id="m1")
    line.add("forward_backward", "b", status=429, reply={}, model_id="m1")
    line.add("load_weights", model_id="m2", path="tinker://m1/weights/one")
    line.step("m2", "c")
    line.add("forward", "d", status=None, reply={}, model_id="m2")
    assert line.recording.unanswered("m1") == [Update("optim_step", "adam"), Update("forward_backward", "b")]
    assert line.recording.unanswered("m2") == [Update("optim_step", "adam")]
    assert line.lineage("m2") == "ac"


def test_what_is_known_from_elsewhere_counts_too() -> None:
    """A promise that nobody asked for can be asked for later, and be told to the recording."""
    line = Line()
    gradient = line.step("m1", "a")
    assert line.recording.open_promises("forward_backward") == [gradient]
    assert line.lineage("m1", failed=[gradient]) == ""


def test_what_was_not_taken_is_not_there() -> None:
    """Refusals, requests without an answer and losses without a gradient change no model."""
    line = Line()
    line.add("forward_backward", "a", status=503, reply={}, model_id="m1")
    line.add("forward_backward", "b", status=None, reply={}, model_id="m1")
    line.add("forward_backward", "c", model_id="m1", forward_only=True)
    assert line.lineage("m1") == ""


def test_differences_are_counted_both_ways() -> None:
    """Twice is once too often; what is not there is missing."""
    one, two, three = (Update("forward_backward", name) for name in "abc")
    assert differences([one, two], [one, one, three]) == (2, 1)
    assert differences([one, two], [one, two]) == (0, 0)


def batch(token: int) -> ForwardBackwardInput:
    """Make a batch of one."""
    inputs = {"target_tokens": np.array([token]), "weights": np.array([1.0], np.float32)}
    return ForwardBackwardInput(data=(Datum(ModelInput.from_ints([1]), inputs),), loss_fn="cross_entropy")


def test_content_is_what_is_asked_for() -> None:
    """Model, session and number make no difference; the batch does."""

    def content(token: int, model_id: str, seq_id: int) -> str:
        body = codec.encode(ForwardBackwardRequest(batch(token), model_id, seq_id))
        fields, digest = describe_request("application/json", "", body)
        assert fields == {"model_id": model_id, "seq_id": seq_id}
        return digest

    assert content(2, "m1", 1) == content(2, "m2", 7) != content(3, "m1", 1)


@pytest.mark.parametrize(("kind", "forward_only"), [(ForwardBackwardRequest, False), (ForwardRequest, True)])
def test_protobuf_is_read_as_well(kind: type, forward_only: bool) -> None:
    """Its plain values are those of JSON, and it says whether it asks for a gradient."""
    fields, digest = describe_request("application/x-protobuf", "", protobuf.encode(kind(batch(2), "m1", 4)))
    assert fields == {"model_id": "m1", "seq_id": 4, "forward_only": forward_only}
    assert (
        digest == describe_request("application/x-protobuf", "", protobuf.encode(kind(batch(2), "m2", 5)))[1]
    )


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"\xff"])
def test_a_body_that_is_no_object_has_a_digest_all_the_same(body: bytes) -> None:
    """A recording takes everything down, whatever it is."""
    fields, digest = describe_request("application/json", "", body)
    assert (fields, len(digest)) == ({}, 64)
    assert describe_request("application/x-protobuf", "zstd", body)[0] == {}


def test_replies_are_read_as_far_as_they_are_plain() -> None:
    """Lists and objects are left out, and so is what is no JSON."""
    assert describe_reply("application/json", orjson.dumps({"path": "x", "logprobs": [1.0]})) == {"path": "x"}
    for kind, body in [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/x-protobuf", b"x"),
    ]:
        assert describe_reply(kind, body) == {}
