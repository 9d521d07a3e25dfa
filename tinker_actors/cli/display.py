"""What the demo shows: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinker_actors.cli.grpo import StepReport
from tinker_actors.protocol.event import ActorFailed, ModelLostEvent, ModelRestored, ServiceEvent

__all__ = ["Display", "curve", "describe", "open_display"]

_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 30
_LINE_EVERY = 20  # steps between two plain lines
_OTHER_COLUMNS = 75  # characters that the live line needs beside the curve


def curve(values: Sequence[float], width: int = _CURVE_WIDTH) -> str:
    """Draw values between 0 and 1 as bars; longer series are averaged down to `width`."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    return "".join(_BARS[min(len(_BARS) - 1, max(0, int(mean * len(_BARS))))] for mean in means)


def describe(event: ServiceEvent, step: int) -> str | None:
    """Say in one line what happened; None for events the demo does not show."""
    match event:
        case ModelLostEvent(model_id, _, in_flight):
            return (
                f"!! step {step}: the service dropped model {model_id} with {in_flight} operations in flight"
            )
        case ActorFailed(actor, _, delay):
            then = "it is given up" if delay is None else f"its supervisor restarts it in {delay:.2f} s"
            return f"   {actor} has failed; {then}"
        case ModelRestored(_, model_id, checkpoint, replayed, steps):
            source = "its seed" if checkpoint is None else checkpoint
            return (
                f"   restored as {model_id} from {source}: {replayed} operations ({steps} steps) sent again"
            )
        case _:
            return None


class Display(Protocol):
    """Shows the progress of a run."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *ending: object) -> None:
        """End."""
        ...

    def step(self, report: StepReport, rewards: Sequence[float], rate: float) -> None:
        """Show a step; `rate` is in samples per second."""
        ...

    def line(self, text: str) -> None:
        """Show a line that stays."""
        ...


class _Plain:
    """Lines for pipes and logs."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._steps = steps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ending: object) -> None:
        return None

    def step(self, report: StepReport, rewards: Sequence[float], rate: float) -> None:
        if report.step % _LINE_EVERY and report.step != self._steps:
            return
        recent = rewards[-_LINE_EVERY:]
        mean = sum(recent) / len(recent)
        self.line(
            f"step {report.step:4d}/{self._steps}  reward {mean:.2f} {curve(rewards)}  "
            f"policy v{report.version}  {rate:.0f} samples/s"
        )

    def line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


class _Live:
    """A progress bar with the curve behind it."""

    def __init__(self, console: Console, steps: int) -> None:
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=12),
            TextColumn("reward {task.fields[reward]:.2f} {task.fields[curve]}"),
            TextColumn("policy v{task.fields[version]}"),
            TextColumn("{task.fields[rate]:.0f} samples/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._width = min(_CURVE_WIDTH, max(5, console.width - _OTHER_COLUMNS))
        self._task = self._progress.add_task("train", total=steps, reward=0.0, curve="", version=0, rate=0.0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *ending: object) -> None:
        self._progress.stop()

    def step(self, report: StepReport, rewards: Sequence[float], rate: float) -> None:
        recent = rewards[-_LINE_EVERY:]
        self._progress.update(
            self._task,
            completed=report.step,
            reward=sum(recent) / len(recent),
            curve=curve(rewards, self._width),
            version=report.version,
            rate=rate,
        )

    def line(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def open_display(console: Console, steps: int) -> Display:
    """Return the display that fits the console."""
    return _Live(console, steps) if console.is_terminal else _Plain(console, steps)
