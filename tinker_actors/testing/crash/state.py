"""What is compared: what is in the model that survived, and where the loop stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import attrs

from tinker_actors.testing.service.state import Applied

__all__ = ["EndState", "difference", "end_state"]

Part: TypeAlias = tuple[str, str]
"""An endpoint and a digest of what was sent to it."""


@attrs.frozen
class EndState:
    """How a programme has ended.

    Attributes:
        applied: what became part of its model, in order: endpoint, and a digest of the batch or of the parameters.
        loop_state: where its loop stands.
    """

    applied: tuple[Part, ...] = attrs.field(repr=False)
    loop_state: object

    @property
    def steps(self) -> tuple[tuple[Part, ...], ...]:
        """What became part of the model, step by step; what stands behind the last step is none."""
        return tuple(unit for unit in _units(self.applied) if unit[-1][0] == "optim_step")

    @property
    def stray(self) -> tuple[Part, ...]:
        """Gradients behind the last step."""
        last = list(_units(self.applied))[-1:]
        return last[0] if last and last[0][-1][0] != "optim_step" else ()


def _units(applied: Sequence[Part]) -> Iterator[tuple[Part, ...]]:
    unit: list[Part] = []
    for part in applied:
        unit.append(part)
        if part[0] == "optim_step":
            yield tuple(unit)
            unit = []
    if unit:
        yield tuple(unit)


def end_state(applied: Sequence[Applied], loop_state: object) -> EndState:
    """Return what is compared of a model and a loop."""
    return EndState(tuple((one.endpoint, one.digest) for one in applied), loop_state)


def difference(expected: EndState, found: EndState) -> str | None:
    """Say how an end differs from that of the uninterrupted run; None if it does not."""
    said = [text for text in (_of_steps(expected, found), _of_loop(expected, found)) if text]
    return "; ".join(said) or None


def _of_steps(expected: EndState, found: EndState) -> str | None:
    if found.applied == expected.applied:
        return None
    should, held = Counter(expected.steps), Counter(found.steps)
    numbers = {step: number for number, step in reversed(list(enumerate(expected.steps, 1)))}
    said = [
        *_named("missing", [numbers[step] for step in (should - held)]),
        *_named("doubled", [numbers[step] for step in (held - should) if step in numbers]),
    ]
    if strange := sum(step not in numbers for step in found.steps):
        said.append(f"{strange} of its steps the uninterrupted run does not have")
    if found.stray and not expected.stray:
        said.append(f"{len(found.stray)} gradients stand behind its last step")
    return f"the model: {', '.join(said) or 'its steps stand in another order'}"


def _named(word: str, numbers: Sequence[int]) -> list[str]:
    if not numbers:
        return []
    plural = "s" if len(numbers) > 1 else ""
    return [f"step{plural} {', '.join(map(str, sorted(numbers)))} {word}"]


def _of_loop(expected: EndState, found: EndState) -> str | None:
    if found.loop_state == expected.loop_state:
        return None
    return f"the loop state is {found.loop_state!r} instead of {expected.loop_state!r}"
