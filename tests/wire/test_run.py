from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import orjson
import pytest

from tests.wire.refusals import refusal
from tinker_actors.errors import InputError
from tinker_actors.wire.codec import decode, encode
from tinker_actors.wire.endpoints import DELETE_CHECKPOINT
from tinker_actors.wire.run import (
    Checkpoint,
    CheckpointsListResponse,
    ParsedCheckpointTinkerPath,
    TrainingRun,
    check_weights_path,
)

CHECKPOINT = (
    b'{"checkpoint_id":"weights/0001","checkpoint_type":"training","time":"2026-03-04T05:06:07.5+02:00",'
    b'"tinker_path":"tinker://r/weights/0001"}'
)
WHEN = datetime(2026, 3, 4, 3, 6, 7, 500000, tzinfo=UTC)


@pytest.mark.requirement("R84", "R86")
def test_a_checkpoint_has_the_fields_of_the_inventory() -> None:
    """It is private, of unknown size and for ever unless it is said."""
    checkpoint = decode(Checkpoint, CHECKPOINT, strict=True)
    assert checkpoint == Checkpoint(
        checkpoint_id="weights/0001",
        checkpoint_type="training",
        time=WHEN,
        tinker_path="tinker://r/weights/0001",
        size_bytes=None,
        public=False,
        user_metadata=None,
        expires_at=None,
    )
    assert decode(CheckpointsListResponse, b'{"checkpoints":[%s]}' % CHECKPOINT, strict=True).cursor is None


@pytest.mark.requirement("R84", "R94")
@pytest.mark.parametrize("kind", ["training", "sampler", "external", "merged", "Training", ""])
def test_a_checkpoint_of_a_type_that_nobody_knows_is_kept_as_it_came(kind: str) -> None:
    """It is one of a list, and the others must be seen; also strictly, and it goes out again as it came."""
    one = CHECKPOINT.replace(b'"training"', orjson.dumps(kind))
    for strict in (False, True):
        found = decode(CheckpointsListResponse, b'{"checkpoints":[%s,%s]}' % (one, CHECKPOINT), strict=strict)
        assert [checkpoint.checkpoint_type for checkpoint in found.checkpoints] == [kind, "training"]
        assert orjson.loads(encode(found.checkpoints[0]))["checkpoint_type"] == kind


@pytest.mark.requirement("R85")
def test_a_training_run_has_the_fields_of_the_inventory() -> None:
    """It is not corrupted unless it is said; its checkpoints are objects."""
    body = (
        b'{"training_run_id":"r","base_model":"b","model_owner":"o","is_lora":true,"last_request_time":'
        b'"2026-03-04T03:06:07.5Z","last_checkpoint":%s,"lora_rank":null}'
    )
    run = decode(TrainingRun, body % CHECKPOINT, strict=True)
    assert [field.name for field in attrs.fields(TrainingRun)] == [
        "training_run_id",
        "base_model",
        "model_owner",
        "is_lora",
        "corrupted",
        "lora_rank",
        "last_request_time",
        "last_checkpoint",
        "last_sampler_checkpoint",
        "user_metadata",
    ]
    assert (run.corrupted, run.lora_rank, run.last_sampler_checkpoint, run.user_metadata) == (False,) + (
        None,
    ) * 3
    assert run.last_request_time == WHEN
    assert run.last_checkpoint == decode(Checkpoint, CHECKPOINT, strict=True)


@pytest.mark.requirement("R86")
@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-04T03:06:07.500000Z", WHEN),
        ("2026-03-04T08:36:07.5+05:30", WHEN),
        ("2026-03-04T03:06:07.5", WHEN),
        ("2026-03-04", datetime(2026, 3, 4, tzinfo=UTC)),
        ("yesterday", "yesterday"),
        ("2026-13-45T00:00:00Z", "2026-13-45T00:00:00Z"),
        ("", ""),
    ],
)
def test_times_are_aware_and_what_is_none_is_kept(text: str, time: object) -> None:
    """Without a zone a time is UTC; a text that is no time is not fatal."""
    checkpoint = decode(
        Checkpoint, CHECKPOINT.replace(b"2026-03-04T05:06:07.5+02:00", text.encode()), strict=True
    )
    assert checkpoint.time == time
    assert not isinstance(checkpoint.time, datetime) or checkpoint.time.utcoffset() is not None
    assert decode(Checkpoint, encode(checkpoint), strict=True) == checkpoint


def test_times_are_written_as_they_are() -> None:
    """In their zone; UTC as Z."""
    checkpoint = decode(Checkpoint, CHECKPOINT, strict=True)
    assert b'"2026-03-04T05:06:07.500000+02:00"' in encode(checkpoint)
    utc = attrs.evolve(checkpoint, time=WHEN, expires_at=WHEN + timedelta(days=1))
    assert b'"2026-03-04T03:06:07.500000Z"' in encode(utc)
    assert b'"expires_at":"2026-03-05T03:06:07.500000Z"' in encode(utc)


@pytest.mark.requirement("R154")
@pytest.mark.parametrize(
    ("segment", "kind"),
    [("weights", "training"), ("sampler_weights", "sampler"), ("external_weights", "external")],
)
def test_a_path_is_taken_apart(segment: str, kind: str) -> None:
    """The segment says what kind of checkpoint it is."""
    path = f"tinker://s:train:0/{segment}/0001"
    assert ParsedCheckpointTinkerPath.from_tinker_path(path) == ParsedCheckpointTinkerPath(
        tinker_path=path,
        training_run_id="s:train:0",
        checkpoint_type=kind,  # type: ignore[arg-type]  # it is one of them
        checkpoint_id=f"{segment}/0001",
    )


@pytest.mark.lesson("D2")
def test_a_path_of_a_run_goes_into_a_url_as_it_is() -> None:
    """Colons of ids and the slash between kind and name are not escaped; what a URL cannot hold is."""
    parsed = ParsedCheckpointTinkerPath.from_tinker_path("tinker://f00d:train:0/sampler_weights/step 1%")
    place = {"training_run_id": parsed.training_run_id, "checkpoint_id": parsed.checkpoint_id}
    target = DELETE_CHECKPOINT.target(place)
    assert target == "/api/v1/training_runs/f00d:train:0/checkpoints/sampler_weights/step%201%25"
    assert parsed.name == "step 1%"


@pytest.mark.requirement("R154")
@pytest.mark.parametrize(
    "path",
    [
        "",
        "s/weights/1",
        "http://s/weights/1",
        "twinkle://s/weights/1",
        "/weights/1",
        "tinker://s/1",
        "tinker://s/weights",
        "tinker://s/weights/",
        "tinker:///weights/1",
        "tinker://s/weights/1/2",
        "tinker://s/checkpoints/1",
        "tinker://s:train:0/train/1",
        "tinker://s/weights/..",
        "tinker://../weights/1",
        "tinker://s/weights/1?a=b",
        "tinker://s/weights/1\n",
        7,
        None,
    ],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    """Another scheme, too few or too many parts, another segment, a part that would not stay one, no text at all."""
    assert refusal(ParsedCheckpointTinkerPath.from_tinker_path, path) == ("tinker_path", path)


def test_a_refused_path_is_told_under_the_name_it_has_there() -> None:
    """The field is the caller's; a path without its kind, as SkyRL gives it, is told how to find the whole."""
    with pytest.raises(InputError, match="listed with their whole paths") as caught:
        ParsedCheckpointTinkerPath.from_tinker_path("tinker://model_1/final", field="path")
    assert (caught.value.field, caught.value.value) == ("path", "tinker://model_1/final")


# As SkyRL, open-rl and Twinkle give them.
@pytest.mark.parametrize(
    "path",
    ["tinker://m/weights/1", "tinker://m/1", "tinker://m-samp-17", "/ckpt/1", "twinkle://m/weights/1"],
)
def test_weights_are_found_where_a_service_says(path: str) -> None:
    """A path of any service is taken as it was given."""
    assert check_weights_path("model_path", path) == path


@pytest.mark.parametrize(
    "path", ["", "org/model", "model", "/", "//", "tinker://", "a b://c", "/a\n", 3, None]
)
def test_what_names_no_weights_is_refused(path: str) -> None:
    """The name of a base model is no path."""
    for field in ("model_path", "path"):
        assert refusal(check_weights_path, field, path) == (field, path)
