"""A row of the table of endpoints: how its path is filled in, and what its columns may hold."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import InputError
from tinker_actors.wire.endpoint import Endpoint, Lane
from tinker_actors.wire.service import Empty

PLAIN: Endpoint[Empty, Empty] = Endpoint("plain", "GET", "/api/v1/plain", Empty, Empty, Lane.SESSION)
RUN = attrs.evolve(PLAIN, path="/api/v1/runs/{run_id}/checkpoints/{checkpoint_id}/publish")


def test_places_are_the_named_parts() -> None:
    """A path says by itself what its caller fills in."""
    assert PLAIN.places == ()
    assert RUN.places == ("run_id", "checkpoint_id")


def test_a_path_without_places_stays_as_it_is() -> None:
    """No path, and an empty one, are the same."""
    assert PLAIN.target() == PLAIN.target({}) == "/api/v1/plain"


@pytest.mark.parametrize("value", [None, 5, b"run"])
@pytest.mark.parametrize("name", ["run_id", "checkpoint_id"])
def test_a_part_is_a_text(name: str, value: Any) -> None:
    """An id that is none is refused by its name, before anything looks into it."""
    with pytest.raises(InputError, match=f"{name} = .*: must be a text"):
        RUN.target({"run_id": "r", "checkpoint_id": "weights/1"} | {name: value})


@pytest.mark.parametrize(
    ("run_id", "checkpoint_id", "target"),
    [
        ("a:train:0", "weights/0001", "a:train:0/checkpoints/weights/0001"),
        ("a;b=c,d", "sampler_weights/x@y", "a;b=c,d/checkpoints/sampler_weights/x@y"),
        ("a b", "weights/ü", "a%20b/checkpoints/weights/%C3%BC"),
        ("50%", "weights/%2F", "50%25/checkpoints/weights/%252F"),
        ("...", "weights/.x", ".../checkpoints/weights/.x"),
    ],
)
def test_parts_go_in_as_they_are_unless_a_path_cannot_hold_them(
    run_id: str, checkpoint_id: str, target: str
) -> None:
    """Colons and the slash of a checkpoint's id are not escaped; blanks, percent signs and letters beyond ASCII are."""
    path = {"run_id": run_id, "checkpoint_id": checkpoint_id}
    assert RUN.target(path) == f"/api/v1/runs/{target}/publish"


@pytest.mark.parametrize(
    ("path", "field", "why"),
    [
        ({"run_id": "", "checkpoint_id": "weights/a"}, "run_id", "cannot be ''"),
        ({"run_id": ".", "checkpoint_id": "weights/a"}, "run_id", r"cannot be '\.'"),
        ({"run_id": "..", "checkpoint_id": "weights/a"}, "run_id", r"cannot be '\.\.'"),
        ({"run_id": "a/b", "checkpoint_id": "weights/a"}, "run_id", "cannot hold '/'"),
        ({"run_id": "a?b", "checkpoint_id": "weights/a"}, "run_id", r"cannot hold '\?'"),
        ({"run_id": "a#b", "checkpoint_id": "weights/a"}, "run_id", "cannot hold '#'"),
        ({"run_id": "a\nb", "checkpoint_id": "weights/a"}, "run_id", r"cannot hold '\\n'"),
        ({"run_id": "a\x7fb", "checkpoint_id": "weights/a"}, "run_id", r"cannot hold '\\x7f'"),
        ({"run_id": "a\ud800b", "checkpoint_id": "weights/a"}, "run_id", r"cannot hold '\\ud800'"),
        ({"run_id": "r", "checkpoint_id": "a"}, "checkpoint_id", "must have two parts"),
        ({"run_id": "r", "checkpoint_id": "/a"}, "checkpoint_id", "cannot be ''"),
        ({"run_id": "r", "checkpoint_id": "weights/"}, "checkpoint_id", "cannot be ''"),
        ({"run_id": "r", "checkpoint_id": "weights/../../x"}, "checkpoint_id", "cannot hold '/'"),
        ({"run_id": "r"}, "checkpoint_id", "the path of plain needs it"),
        ({"run_id": "r", "checkpoint_id": "weights/a", "more": "m"}, "more", "no such part"),
    ],
)
def test_a_part_that_would_change_the_path_is_refused(path: dict[str, str], field: str, why: str) -> None:
    """Before anything is sent, the error names the part and its value."""
    with pytest.raises(InputError, match=why) as caught:
        RUN.target(path)
    assert caught.value.field == field
    assert caught.value.value == path.get(field)


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_text_gets_out_of_its_part(run_id: str, checkpoint_id: str) -> None:
    """Whatever the parts are, the path has as many segments as it should, all of them ASCII, or is refused."""
    try:
        target = RUN.target({"run_id": run_id, "checkpoint_id": checkpoint_id})
    except InputError:
        return
    segments = target.split("/")
    assert [segments[n] for n in (0, 1, 2, 3, 5, 8)] == ["", "api", "v1", "runs", "checkpoints", "publish"]
    assert len(segments) == 9
    assert target.isascii()
    assert not {"", ".", ".."} & set(segments[1:])
    assert not set("?# ") & set(target)


@pytest.mark.parametrize("version", ["0.4.1", "<=0.30.4"])
def test_versions_are_exact_or_bounds(version: str) -> None:
    """A version, or one before which it was already so."""
    row = attrs.evolve(PLAIN, since=version, until=version)
    assert (row.since, row.until) == (version, version)


@pytest.mark.parametrize("field", ["since", "until"])
@pytest.mark.parametrize("version", ["", "0.4", ">=0.4.1", "0.4.1 ", "new"])
def test_anything_else_is_no_version(field: str, version: str) -> None:
    """A row that cannot be read is noticed when the table is made."""
    changes: dict[str, Any] = {field: version}
    with pytest.raises(ValueError, match=f"{field} = {version!r} is neither"):
        attrs.evolve(PLAIN, **changes)
