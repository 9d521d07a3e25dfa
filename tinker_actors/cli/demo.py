"""`tinker-actors demo`: a supervised RL loop that loses its model half-way and learns all the same."""

from __future__ import annotations

import json
import logging
import random

import attrs
import click
import trio
from rich.console import Console

from tinker_actors.cli.display import Display, describe, open_display
from tinker_actors.cli.grpo import Plan, StepReport, train, weights_sha256
from tinker_actors.events import EventChannel, ModelRestored, ServiceEvent
from tinker_actors.local.service import EmbeddedService
from tinker_actors.opening import open_service

__all__ = ["Result", "choose_kill", "demo"]

_WINDOW = 20  # steps that the rewards at start and end are the means of
_KILL_AFTER_CHECKPOINT = 3  # steps since the last saved state, at least
_DEFAULTS = Plan()


@attrs.frozen
class Result:
    """What the demo prints as its last line."""

    backend: str
    steps: int
    reward_start: float
    reward_end: float
    restarts: int
    samples: int
    seconds: float
    weights_sha256: str | None


def choose_kill(plan: Plan) -> int | None:
    """Return the step at which the model is dropped: seeded, in the middle third, some steps after a checkpoint."""
    every = plan.checkpoint_every
    first, last = plan.steps // 3, 2 * plan.steps // 3
    fit = [
        step
        for step in range(max(first, every + _KILL_AFTER_CHECKPOINT), last + 1)
        if (step - 1) % every >= _KILL_AFTER_CHECKPOINT
    ]
    return random.Random(f"kill {plan.seed}").choice(fit) if fit else None


@attrs.define(eq=False)
class _Run:
    """The state of one demonstration."""

    display: Display
    started: float
    rewards: list[float] = attrs.field(factory=list)
    samples: int = 0
    step: int = 0
    restarts: int = 0

    def report(self, report: StepReport) -> None:
        self.step = report.step
        self.rewards.append(report.reward)
        self.samples += report.samples
        rate = self.samples / max(1e-9, trio.current_time() - self.started)
        self.display.step(report, self.rewards, rate)

    def happened(self, event: ServiceEvent) -> None:
        self.restarts += isinstance(event, ModelRestored)
        line = describe(event, self.step + 1)
        if line is not None:
            self.display.line(line)

    async def listen(self, events: EventChannel[ServiceEvent]) -> None:
        async for event in events:
            self.happened(event)


@click.command()
@click.option("--steps", default=_DEFAULTS.steps, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=_DEFAULTS.seed, show_default=True, type=click.IntRange(min=0))
@click.option("--kill-at", type=click.IntRange(min=1), help="Step at which the service drops the model.")
@click.option("--no-kill", is_flag=True, help="Let the model live.")
@click.option(
    "--base-url", help="Train on this service instead of the embedded one; nothing is dropped there."
)
@click.option("--base-model", default=_DEFAULTS.base_model, show_default=True)
def demo(
    steps: int, seed: int, kill_at: int | None, no_kill: bool, base_url: str | None, base_model: str
) -> None:
    """Train addition by GRPO, lose the model on the way, restore it, and go on.

    The last line is one JSON object.
    """
    if kill_at is not None and (no_kill or base_url is not None or kill_at > steps):
        raise click.UsageError(
            "--kill-at needs the embedded service, a step that is reached, and no --no-kill"
        )
    plan = Plan(steps=steps, seed=seed, base_model=base_model)
    kill = None if no_kill or base_url is not None else kill_at or choose_kill(plan)
    logging.getLogger("tinker_actors").setLevel(logging.ERROR)  # the display tells of restarts itself
    console = Console(highlight=False)
    result = trio.run(_demo, plan, kill, base_url, console)
    click.echo(json.dumps(attrs.asdict(result)))


async def _demo(plan: Plan, kill: int | None, base_url: str | None, console: Console) -> Result:
    embedded = None
    if base_url is None:
        embedded = EmbeddedService(seed=plan.seed)
        if kill is not None:
            embedded.drop_model_at("forward_backward", kill)
    async with open_service(
        "local" if base_url is None else base_url, seed=plan.seed, embedded=embedded
    ) as service:
        with open_display(console, plan.steps) as display:
            run = _Run(display, trio.current_time())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.listen, service.ref.subscribe())
                training = await train(service, plan, run.report)
                seconds = trio.current_time() - run.started
                digest = await weights_sha256(service, training)
                nursery.cancel_scope.cancel()
        start, end = run.rewards[:_WINDOW], run.rewards[-_WINDOW:]
        return Result(
            backend=service.backend,
            steps=len(run.rewards),
            reward_start=round(sum(start) / len(start), 4),
            reward_end=round(sum(end) / len(end), 4),
            restarts=run.restarts,
            samples=run.samples,
            seconds=round(seconds, 2),
            weights_sha256=digest,
        )
