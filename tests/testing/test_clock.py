from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.testing import open_test_system, run_virtual, virtual_clock

RACE = """
import trio
from tinker_actors.testing import run_virtual

async def race():
    order = []
    async def run(name):
        for _ in range(4):
            await trio.lowlevel.checkpoint()
            order.append(name)
    async with trio.open_nursery() as nursery:
        for name in "abcde":
            nursery.start_soon(run, name)
    return "".join(order)
"""
namespace: dict[str, Any] = {}
exec(RACE, namespace)  # the same text runs in other processes, see below
race = namespace["race"]


async def add(a: int, b: int) -> int:
    await trio.sleep(3600)
    return a + b


@pytest.mark.rule("T2", "T3")
def test_an_hour_takes_no_time() -> None:
    """What runs on virtual time gets its arguments, begins at 0, sleeps for free and returns its result."""

    async def clock_of(begin: float) -> float:
        begin = trio.current_time()
        await add(1, 2)
        return trio.current_time() - begin

    assert run_virtual(add, 1, 2) == 3
    assert run_virtual(clock_of, 0.0) == 3600
    assert run_virtual(_now) == 0.0


async def _now() -> float:
    await trio.lowlevel.checkpoint()
    return trio.current_time()


def test_an_error_leaves_as_it_is() -> None:
    """The exception of the function is raised, the very object, without notes of anybody else."""
    error = KeyError("mine")

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(KeyError) as raised:
        run_virtual(fail)
    assert raised.value is error
    assert getattr(error, "__notes__", []) == []


@pytest.mark.rule("T4")
def test_a_seed_is_a_schedule() -> None:
    """The same seed gives the same order of tasks of one tick, in any process; other seeds give others."""
    first = [run_virtual(race, seed=seed) for seed in range(20)]
    assert [run_virtual(race, seed=seed) for seed in range(20)] == first
    assert len(set(first)) == 20
    code = f"{RACE}\nprint(*(run_virtual(race, seed=seed) for seed in range(20)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == first


def test_far_seeds_share_schedules_but_no_chance() -> None:
    """A seed of any size costs no more than the largest schedule; the tree's generator has all of it."""
    assert run_virtual(race, seed=10**12 + 5007) == run_virtual(race, seed=7)
    assert run_virtual(_draw, seed=10**12 + 5007) != run_virtual(_draw, seed=7)


async def _draw() -> float:
    async with open_test_system() as system:
        return system.rng.random()


@pytest.mark.rule("T4")
def test_the_tree_draws_from_the_seed_of_the_run() -> None:
    """`open_test_system` takes the seed of the run around it, unless it has its own; alone it takes 0."""
    assert run_virtual(_draw, seed=5) == random.Random(5).random()
    assert trio.run(_draw) == random.Random(0).random()

    async def draw() -> float:
        async with open_test_system(seed=9) as system:
            return system.rng.random()

    assert run_virtual(draw, seed=5) == random.Random(9).random()


def test_global_generators_are_left_as_they_were() -> None:
    """Within a run they start from the same state; after it they go on as if it had not been."""

    async def draw() -> float:
        await trio.lowlevel.checkpoint()
        return random.random()

    random.seed(1)
    expected = [random.random(), random.random()]
    random.seed(1)
    assert random.random() == expected[0]
    assert run_virtual(draw) == run_virtual(draw)
    assert random.random() == expected[1]


@pytest.mark.rule("T4")
def test_within_hypothesis_the_schedule_is_the_tests() -> None:
    """With `random_module` a property test tries many schedules, and `run_virtual` does not get in its way."""
    seen: set[str] = set()

    @given(st.random_module())
    def explore(_: Any) -> None:
        seen.add(run_virtual(race))

    explore()
    assert len(seen) > 10


def test_it_works_without_hypothesis() -> None:
    """Where Hypothesis is not installed, the function runs on virtual time, in an order of trio's."""
    code = f"import sys; sys.modules['hypothesis'] = None\n{RACE}\nprint(*sorted(run_virtual(race)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted("abcde" * 4)


def test_the_clock_is_for_one_run() -> None:
    """Each call makes a clock that starts anew."""
    clocks = [virtual_clock(), virtual_clock()]
    assert clocks[0] is not clocks[1]
    assert trio.run(add, 2, 2, clock=clocks[0]) == 4
