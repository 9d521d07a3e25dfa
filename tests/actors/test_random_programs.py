"""Exactly once in every mode: random programs under random faults, and models that hold what callers were told."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import pytest
import trio

from tests.actors.programs import Programmer, judge, judge_cut_short
from tests.actors.scripted import MODEL, MODES, open_mode
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.errors import TinkerActorsError
from tinker_actors.testing import Exponential, Fixed, ScriptedService, ServiceFaults, run_virtual
from tinker_actors.testing.service.law import Law
from tinker_actors.types import AdamParams

WORDS = (
    *["gradient"] * 4,
    *["gradients"] * 2,
    *["step"] * 4,
    *["block"] * 2,
    *["save"] * 2,
    "confirmed",
    "custom",
    "bad custom",
    "confirmed block",
    "look",
    "load",
    "publish",
    "wait",
    "pause",
    "withdraw",
)
TRAINING = (
    *["forward_backward"] * 2,
    *["optim_step"] * 2,
    "forward",
    "save_weights",
    "load_weights",
    "save_weights_for_sampler",
)
ANYWHERE = (
    *TRAINING,
    "create_model",
    "create_session",
    "retrieve_future",
    "unload_model",
    "session_heartbeat",
)
LONGEST = 10 * 86400.0  # virtual seconds: what takes longer hangs

Planner: TypeAlias = Callable[[ServiceFaults, random.Random], ServiceFaults]


def _nth(rng: random.Random, of: tuple[str, ...]) -> Any:
    return {"of": rng.choice(of), "nth": rng.randint(1, 7)}


def _span(rng: random.Random) -> Any:
    start = rng.randint(1, 40)
    return {"start": start, "end": start + rng.randint(1, 400)}


_FAULTS: tuple[Planner, ...] = (
    lambda it, rng: it.drop(
        rng.choice(["connect", "request", "answer", "body", "reset"]), **_nth(rng, ANYWHERE)
    ),
    lambda it, rng: it.refuse(rng.choice([400, 409, 422, 429]), **_nth(rng, TRAINING)),
    lambda it, rng: it.refuse(
        rng.choice([408, 500, 503]), rng.choice(["before", "after"]), **_nth(rng, ANYWHERE)
    ),
    lambda it, rng: it.fail(
        rng.choice(["error", "400", "status", "RequestFailedResponse", "422"]), **_nth(rng, TRAINING)
    ),
    lambda it, rng: it.evict(rng.choice(["404", "410", "error", "try_again"]), **_nth(rng, TRAINING)),
    lambda it, rng: it.garbage(
        rng.choice(["not_json", "truncated", "wrong_shape", "empty"]), **_nth(rng, ANYWHERE)
    ),
    lambda it, rng: it.lose_model(rng.choice(["400", "404", "410"]), **_nth(rng, TRAINING)),
    lambda it, rng: it.lose_session(rng.choice(["410", "404", "silent"]), **_nth(rng, TRAINING)),
    lambda it, rng: it.stall(rng.choice(["request", "answer", "body"]), **_nth(rng, ANYWHERE)),
    lambda it, rng: it.delay(
        rng.choice([0.5, 3.0, 40.0]), rng.choice(["request", "answer"]), **_nth(rng, ANYWHERE)
    ),
    lambda it, rng: it.drop("connect", **_span(rng)),
    lambda it, rng: it.refuse(503, **_span(rng)),
)


@attrs.frozen
class Case:
    """What is tried.

    Attributes:
        programs: words for each model.
        from_state: the models are made of a saved state.
        mode: what the service does with a number it has seen.
        faults: what goes wrong.
        replay_bytes: what may be kept for a restore.
        leaves: the body raises when the programs are in line.
    """

    programs: list[list[str]]
    from_state: bool
    mode: str
    faults: ServiceFaults
    replay_bytes: int
    leaves: bool

    @classmethod
    def of(cls, seed: int) -> Case:
        """Return the case of a seed."""
        rng = random.Random(seed)
        mode, leaves = rng.choice(list(MODES)), rng.random() < 0.2
        words = [word for word in WORDS if not (leaves and word == "load")]
        programs = [
            [
                *(rng.choice(words) for _ in range(rng.randint(1, 16))),
                "step",
                *rng.choice([[], [], ["unload"]]),
            ]
            for _ in range(rng.choice([1, 1, 2]))
        ]
        work: Law = rng.choice([Fixed(0.0), Fixed(0.7), Exponential(5.0)])
        faults = ServiceFaults(work=work)
        for _ in range(rng.randint(0, 4)):
            faults = rng.choice(_FAULTS)(faults, rng)
        if mode != "none" and rng.random() < 0.2:  # where numbers say nothing, nobody can know
            faults = faults.duplicate(
                "request", **_nth(rng, ("forward_backward", "optim_step", "save_weights"))
            )
        return cls(programs, rng.random() < 0.2, mode, faults, rng.choice([1 << 20, 1 << 20, 3000]), leaves)


class _Left(Exception):
    """The body has had enough."""


async def saved(service: ServiceClient) -> str:
    """Return the path of a state with one step in it."""
    training = await service.create_lora_training_client(MODEL)
    await (await training.optim_step(AdamParams(learning_rate=0.0)))
    return (await training.save_state("start")).path


async def play(case: Case) -> None:
    """Run the programs, all at once, and judge what became of their models."""
    ended: list[tuple[ScriptedService, Programmer]] = []
    with trio.fail_after(LONGEST):
        async with trio.open_nursery() as watchers:
            with contextlib.suppress(TinkerActorsError, _Left):
                settings: Any = {"promise_timeout": 600.0, "replay_bytes": case.replay_bytes}
                async with open_mode(case.mode, case.faults, chunk=1, **settings) as (service, scripted):
                    path = await saved(service) if case.from_state else None
                    for _ in case.programs:
                        training = (
                            await service.create_lora_training_client(MODEL)
                            if path is None
                            else await service.create_training_client_from_state_with_optimizer(path)
                        )
                        start = [] if path is None else [("step", 0)]
                        ended.append((scripted, Programmer(training, watchers, start)))
                    async with trio.open_nursery() as nursery:
                        for (_, programmer), program in zip(ended, case.programs, strict=True):
                            nursery.start_soon(programmer.follow, program)
                    if case.leaves:
                        raise _Left
    for scripted, programmer in ended:
        (judge_cut_short if case.leaves else judge)(scripted, programmer)


def check(seeds: range) -> None:
    """Play the cases of some seeds."""
    for seed in seeds:
        case = Case.of(seed)
        try:
            run_virtual(play, case)
        except BaseException as error:
            error.add_note(f"seed {seed}: {case}")
            raise


@pytest.mark.requirement("R117", "R118")
def test_models_hold_what_callers_were_told() -> None:
    """Whatever dies: each step that was done is there once, in order and whole, and everybody gets an answer."""
    check(range(60))


@pytest.mark.slow
def test_many_models_hold_what_callers_were_told(slow_count: Callable[[int], int]) -> None:
    """The same for 3,000 more programs."""
    check(range(60, 60 + slow_count(3000)))
