"""A run that is opened with something else than it was begun with is refused, by name."""

from __future__ import annotations

import json
import math
from typing import Any

import attrs
import pytest

from tinker_actors.errors import InputError, RunMismatch
from tinker_actors.protocol.run_identity import Identity, check_accept, check_mine, is_moved, merge
from tinker_actors.wire.model import LoraConfig

BEGUN = Identity(
    base_model="a", lora=LoraConfig(rank=8, seed=3), loss="ppo", mine={"data": "v1", "prompt": {"n": [1]}}
)


def lora(**changes: Any) -> LoraConfig:
    """Change the adapter."""
    return attrs.evolve(BEGUN.lora, **changes)


def merged(given: Identity, *accept: str, seed_given: bool = True) -> Identity:
    """Open the run with something."""
    return merge(BEGUN, given, frozenset(accept), seed_given=seed_given)


def test_it_is_written_down_whole() -> None:
    """What was written is what is read."""
    assert Identity.from_json(json.loads(json.dumps(BEGUN.to_json()))) == BEGUN
    plain = Identity(base_model="b", lora=LoraConfig(rank=1, seed=0, train_mlp=False))
    assert Identity.from_json(json.loads(json.dumps(plain.to_json()))) == plain


def test_the_same_is_the_same() -> None:
    """Nothing is refused, and nothing changes."""
    assert merged(BEGUN) == BEGUN


DIFFERENCES: list[tuple[Identity, dict[str, tuple[Any, Any]]]] = [
    (attrs.evolve(BEGUN, base_model="b"), {"base_model": ("a", "b")}),
    (attrs.evolve(BEGUN, lora=lora(rank=16)), {"rank": (8, 16)}),
    (attrs.evolve(BEGUN, lora=lora(seed=4)), {"seed": (3, 4)}),
    (attrs.evolve(BEGUN, lora=lora(train_attn=False)), {"train_attn": (True, False)}),
    (attrs.evolve(BEGUN, loss="cross_entropy"), {"loss": ("ppo", "cross_entropy")}),
    (attrs.evolve(BEGUN, mine=BEGUN.mine | {"data": "v2"}), {"identity.data": ("v1", "v2")}),
    (attrs.evolve(BEGUN, mine=BEGUN.mine | {"more": 1}), {"identity.more": (None, 1)}),
    (attrs.evolve(BEGUN, mine=BEGUN.mine | {"more": None}), {"identity.more": (None, None)}),
    (
        Identity(base_model="b", lora=lora(rank=2), loss="ppo"),
        {
            "base_model": ("a", "b"),
            "identity.data": ("v1", None),
            "identity.prompt": ({"n": [1]}, None),
            "rank": (8, 2),
        },
    ),
]


@pytest.mark.parametrize(("given", "fields"), DIFFERENCES)
def test_each_difference_is_named(given: Identity, fields: dict[str, tuple[Any, Any]]) -> None:
    """With what it was and what it is, and how to accept it."""
    with pytest.raises(RunMismatch) as caught:
        merged(given)
    assert caught.value.fields == fields
    for name, (before, now) in fields.items():
        assert f"{name} was {before!r} and is {now!r}" in str(caught.value)
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize(("given", "fields"), DIFFERENCES)
def test_what_is_accepted_by_name_is_taken(given: Identity, fields: dict[str, tuple[Any, Any]]) -> None:
    """The new value stands from now on; but the weights that are there keep their shape and their seed."""
    assert merged(given, *fields) == attrs.evolve(given, lora=BEGUN.lora)


def test_all_of_the_users_part_is_accepted_by_one_name() -> None:
    """`identity` stands for each of its entries, and for nothing else."""
    other = Identity(base_model="a", lora=BEGUN.lora, loss="ppo", mine={"new": 1})
    assert merged(other, "identity") == other
    with pytest.raises(RunMismatch, match="rank was 8"):
        merged(attrs.evolve(other, lora=lora(rank=1)), "identity")


def test_what_was_not_said_is_no_difference() -> None:
    """A seed that was drawn, and a loss that is not declared this time."""
    drawn = attrs.evolve(BEGUN, lora=lora(seed=99), loss=None)
    assert merged(drawn, seed_given=False) == BEGUN


@pytest.mark.parametrize("identity", [3, "x", {1: 2}, {"x": {1, 2}}, {"x": math.nan}, [("a", 1)]])
def test_a_users_part_that_is_no_json_is_refused(identity: object) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match=r"^identity"):
        check_mine(identity)


def test_a_users_part_is_compared_as_json() -> None:
    """A tuple is a list when it has been written."""
    assert check_mine({"split": (0.9, 0.1)}) == {"split": [0.9, 0.1]}
    assert check_mine(None) == {}


@pytest.mark.parametrize("accept", ["loss", 3, ("lose",), ("identities",), (1,)])
def test_a_name_that_is_none_is_refused(accept: object) -> None:
    """A slip of the pen accepts nothing."""
    with pytest.raises(InputError, match=r"^accept = "):
        check_accept(accept)


def test_names_are_taken_in_any_collection() -> None:
    """Names of fields, of the user's part, and of its entries."""
    names = ["loss", "identity", "identity.data", "rank"]
    assert check_accept(names) == set(names)
    assert check_accept(()) == frozenset()


def test_another_backend_is_named() -> None:
    """It is refused unless it is accepted; a run that was nowhere yet may be opened anywhere."""
    assert not is_moved(None, "local", ())
    assert not is_moved("http://a", "http://a", ())
    assert is_moved("http://a", "local", check_accept(["backend"]))
    with pytest.raises(
        RunMismatch, match=r"backend was 'http://a' and is 'local'.*accept=\('backend',\)"
    ) as caught:
        is_moved("http://a", "local", {"base_model"})
    assert caught.value.fields == {"backend": ("http://a", "local")}
