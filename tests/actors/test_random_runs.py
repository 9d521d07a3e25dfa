"""Exactly once in a run: random steps under random faults, while models are lost and set back and the disk is slow."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
import trio

from tests.actors.journaled import Opened, opened
from tests.actors.scripted import ADAM, MODES, batch
from tinker_actors.errors import ResultLost, TinkerActorsError
from tinker_actors.testing import Exponential, Fixed, ServiceFaults, run_virtual
from tinker_actors.testing.service.law import Law

STEPS = 8
LONGEST = 86400.0  # virtual seconds: what takes longer hangs
TRAINING = ("forward_backward", "optim_step", "load_weights")
ANYWHERE = (*TRAINING, "save_weights", "retrieve_future", "session_heartbeat")

Planner: TypeAlias = Callable[[ServiceFaults, random.Random, Any], ServiceFaults]

_FAULTS: tuple[Planner, ...] = (
    lambda it, rng, where: it.refuse(rng.choice([400, 422]), **where),
    lambda it, rng, where: it.fail(rng.choice(["error", "400"]), **where),
    lambda it, rng, where: it.lose_model(rng.choice(["400", "404"]), **where),
    lambda it, rng, where: it.drop(rng.choice(["connect", "request", "answer", "reset"]), **where),
    lambda it, rng, where: it.delay(rng.choice([3.0, 20.0]), rng.choice(["request", "answer"]), **where),
    lambda it, rng, where: it.refuse(503, rng.choice(["before", "after"]), **where),
    lambda it, rng, where: it.evict(rng.choice(["404", "410"]), **where),
)


class Loop:
    """Puts random steps in line, and knows what became of each.

    Args:
        one: the model.
        rng: what is random.
        watchers: tasks that wait for results.
    """

    def __init__(self, one: Opened, rng: random.Random, watchers: trio.Nursery) -> None:
        self._one = one
        self._rng = rng
        self._watchers = watchers
        self._saved = -1
        self._losses = 2  # five restores in a row that come to nothing would end the model
        self._tokens: list[tuple[int, ...]] = []
        self._ends: list[Awaitable[Any]] = []
        read, record = one.journal.read, one.journal.record

        async def slow_read(*args: Any) -> Any:
            await self._pause(0.5, 0.1, 2.0, 15.0)
            return await read(*args)

        async def slow_record(*args: Any) -> Any:
            await self._pause(0.3, 0.1, 2.0)
            return await record(*args)

        vars(one.journal).update(read=slow_read, record=slow_record)

    async def follow(self) -> None:
        """Train, save, lose the model or have it set back."""
        rng, one = self._rng, self._one
        for index in range(STEPS):
            await rng.choice([self._step, self._block, self._block, self._save])(index)
            if self._losses and rng.random() < 0.3:
                self._losses -= 1
                if rng.random() < 0.5:
                    one.service.lose_model(one.training.model_id, trio.current_time())
                else:
                    one.interrupt(rng.choice(ANYWHERE), self._restart, answered=rng.random() < 0.3)
            await self._pause(0.4, 0.1, 1.0, 5.0, 30.0)
        one.wire.traps.clear()
        await self._step(STEPS)

    async def expected(self) -> list[tuple[str, object]]:
        """Return what has to be in the model, when everything has its outcome."""
        done: list[tuple[str, object]] = []
        for tokens, end in zip(self._tokens, self._ends, strict=True):
            try:
                with contextlib.suppress(ResultLost):  # that counts
                    await end
            except TinkerActorsError:
                continue
            done += [*(("gradient", (token,)) for token in tokens), ("step", "")]
        return done

    async def _pause(self, chance: float, *seconds: float) -> None:
        if self._rng.random() < chance:
            await trio.sleep(self._rng.choice(seconds))

    def _restart(self) -> None:
        self._one.service.restart(trio.current_time(), self._rng.choice(["unloaded", "rolled_back"]))

    async def _step(self, index: int) -> None:
        trained = await self._one.train(10 * index)
        self._note((10 * index,), trained.forward, trained.optim)

    async def _block(self, index: int) -> None:
        tokens = tuple(10 * index + part for part in range(self._rng.randint(1, 3)))
        async with self._one.training.step() as step:
            parts = [step.forward_backward(batch(token), "cross_entropy") for token in tokens]
            end = step.optim_step(ADAM)
        self._note(tokens, *parts, end)

    async def _save(self, index: int) -> None:
        if self._saved == len(self._ends):
            return  # as a run does; with nothing between two states no result tells of a rollback behind the second
        self._saved = len(self._ends)

        async def save() -> None:
            with contextlib.suppress(TinkerActorsError):
                await self._one.training.save_state(f"s{index}")

        self._watchers.start_soon(save)
        await trio.sleep(0.01)  # so that it is in line

    def _note(self, tokens: tuple[int, ...], *results: Awaitable[Any]) -> None:
        self._tokens.append(tokens)
        self._ends.append(results[-1])
        for result in results:
            self._watchers.start_soon(_watch, result)


async def _watch(result: Awaitable[Any]) -> None:
    with contextlib.suppress(TinkerActorsError):
        await result


async def play(seed: int) -> None:
    """Play the loop of a seed, and hold its model against what it was told."""
    rng = random.Random(seed)
    laws: list[Law] = [Fixed(0.0), Fixed(1.0), Exponential(2.0)]
    faults = ServiceFaults(work=rng.choice(laws))
    for _ in range(rng.randint(0, 2)):
        faults = rng.choice(_FAULTS)(faults, rng, {"of": rng.choice(TRAINING), "nth": rng.randint(1, 9)})
    with trio.fail_after(LONGEST):
        async with (
            opened(faults, rng.choice(list(MODES)), in_run=True) as one,
            trio.open_nursery() as nursery,
        ):
            loop = Loop(one, rng, nursery)
            await loop.follow()
            done = await loop.expected()
            await (
                await one.training.forward(batch(0), "cross_entropy")
            )  # a last failure may end the model yet
            assert one.trained == done


def check(seeds: range) -> None:
    """Play the loops of some seeds."""
    for seed in seeds:
        try:
            run_virtual(play, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def test_a_runs_model_holds_each_step_that_was_done() -> None:
    """Once, whole and in order; and nothing of those that failed."""
    check(range(12))


@pytest.mark.slow
def test_many_runs_models_hold_each_step_that_was_done(slow_count: Callable[[int], int]) -> None:
    """The same for 500 more loops."""
    check(range(12, 12 + slow_count(500)))
