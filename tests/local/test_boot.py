from __future__ import annotations

import pytest

from tinker_actors.local.boot import boot_of, number_of, numbered
from tinker_actors.local.store import CheckpointPath
from tinker_actors.wire.run import ParsedCheckpointTinkerPath


@pytest.mark.parametrize(
    ("number", "boot", "text"), [(3, 1, "s:train:3"), (0, 2, "s:train:0.b2"), (12, 345, "s:train:12.b345")]
)
def test_ids_say_in_which_boot_they_were_given(number: int, boot: int, text: str) -> None:
    """The first boot is not mentioned; number and boot can be read again."""
    assert numbered("s:train", number, boot) == text
    assert (number_of(text), boot_of(text)) == (number, boot)


def test_no_two_ids_are_alike() -> None:
    """Every number of every boot has an id of its own."""
    ids = {numbered("s:train", number, boot) for number in range(30) for boot in range(1, 30)}
    assert len(ids) == 30 * 29


@pytest.mark.parametrize("boot", [1, 2, 10])
def test_an_id_goes_through_paths(boot: int) -> None:
    """What reads paths, here and at the client, gives the id back as it is."""
    run = numbered("session-1f:train", 3, boot)
    text = f"tinker://{run}/weights/a"
    assert CheckpointPath.parse(text) == CheckpointPath(run, "weights", "a")
    assert str(CheckpointPath.parse(text)) == text
    parsed = ParsedCheckpointTinkerPath.from_tinker_path(text)
    assert (parsed.training_run_id, parsed.checkpoint_id) == (run, "weights/a")
