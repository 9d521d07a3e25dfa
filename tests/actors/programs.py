"""Random programs on a scripted service, and what their models must hold in the end: the judge of the random tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import trio

from tests.actors.scripted import batch
from tinker_actors.actors.message import (
    Forward,
    ForwardBackward,
    ForwardBackwardCustom,
    LoadState,
    OptimStep,
    SaveState,
    SaveWeightsForSampler,
    Unload,
)
from tinker_actors.errors import ResultLost, ServiceClosing, StepVoid, TinkerActorsError, Withdrawn
from tinker_actors.protocol.custom_loss import CustomLoss
from tinker_actors.testing import ScriptedService
from tinker_actors.types import AdamParams

Part = tuple[str, int]
UNIT = 1e-4  # the learning rate of the first step, twice that of the second, ...


@attrs.define(eq=False)
class Op:
    """One operation of a program.

    Attributes:
        kind: gradient, step, look, save, load, publish or unload.
        tokens: of its batch, one for each datum; for a step, its number.
        path: what is loaded, or was saved.
        block: which block it went in line with; None for one alone.
        pending: its answer, when it is in line.
        value: what it was answered with.
        error: or why it failed.
        answered: the answer is there.
    """

    kind: str
    tokens: tuple[int, ...] = ()
    path: str = ""
    block: int | None = None
    pending: Any = None
    value: Any = None
    error: BaseException | None = None
    answered: trio.Event = attrs.field(factory=trio.Event)

    @property
    def known(self) -> bool:
        """Whether the answer is there."""
        return self.answered.is_set()

    @property
    def done(self) -> bool:
        """Whether it is part of the model, as far as its caller was told."""
        return self.known and (self.error is None or isinstance(self.error, ResultLost))

    async def watch(self) -> None:
        """Wait for its answer."""
        try:
            self.value = await self.pending
        except Exception as error:  # noqa: BLE001 - it is judged
            self.error = error
        self.answered.set()


class Mistake(Exception):
    """What a user's own function raises."""


def bad_loss(data: Any, logprobs: Any) -> CustomLoss:
    """Raise something."""
    raise Mistake


def custom_loss(data: Any, logprobs: Any) -> CustomLoss:
    """Return a loss of nothing."""
    return CustomLoss(0.0, [one * 0 for one in logprobs], {})


class Programmer:
    """Carries a program out on one model, without waiting for results.

    Args:
        training: the client.
        nursery: where answers are waited for.
        start: what is in the model already.
    """

    def __init__(self, training: Any, nursery: trio.Nursery, start: Sequence[Part] = ()) -> None:
        self.training = training
        self.start = start
        self.ops: list[Op] = []
        self._nursery = nursery
        self._blocks = 0

    async def act(self, word: str) -> None:
        """Do one thing of a program."""
        match word:
            case "block":
                await self._block(confirm=False)
            case "confirmed block":
                await self._block(confirm=True)
            case "wait":
                for op in self.ops:
                    await op.answered.wait()
            case "pause":
                await trio.sleep(7)
            case "withdraw":
                if self.ops:
                    await self.ops[-1].pending.withdraw()
            case _:
                await self._submit(word)

    async def follow(self, program: Iterable[str]) -> None:
        """Carry a program out."""
        for word in program:
            with contextlib.suppress(TinkerActorsError):
                await self.act(word)

    async def _submit(self, word: str) -> None:
        op, message = self._plan(word)
        op.pending = await self.training.ref.submit(message)
        self._start(op)

    async def _block(self, *, confirm: bool) -> None:
        begun, self._blocks = len(self.ops), self._blocks + 1
        try:
            async with self.training.step(confirm=confirm) as step:
                for word in ("gradient", "gradients", "step"):
                    op, message = self._plan(word)
                    if isinstance(message, OptimStep):
                        message = attrs.evolve(message, confirm=confirm)
                    op.block, op.pending = self._blocks, step.submit(message)
                    self.ops.append(op)
        except TinkerActorsError:
            del self.ops[begun:]
            raise
        for op in self.ops[begun:]:
            self._nursery.start_soon(op.watch)

    def _start(self, op: Op) -> None:
        self.ops.append(op)
        self._nursery.start_soon(op.watch)

    def _plan(self, word: str) -> tuple[Op, Any]:
        number = len(self.ops) + 1
        match word:
            case "gradient" | "gradients" | "custom" | "bad custom":
                tokens = tuple(10 * number + index for index in range(1 + (word == "gradients")))
                data = tuple(batch(*tokens))
                if "custom" not in word:
                    return Op("gradient", tokens), ForwardBackward(data, "cross_entropy")
                loss = custom_loss if word == "custom" else bad_loss
                return Op("gradient", tokens), ForwardBackwardCustom(data, loss)
            case "step" | "confirmed":
                params = AdamParams(learning_rate=number * UNIT)
                return Op("step", (number,)), OptimStep(params, confirm=word == "confirmed")
            case "look":
                return Op("look"), Forward(tuple(batch(1)), "cross_entropy")
            case "save":
                return Op("save"), SaveState(f"save-{number}")
            case "load":
                saved = [op.value.path for op in self.ops if op.kind == "save" and op.done and op.value]
                path = saved[-1] if saved else "tinker://nobody/weights/none"
                return Op("load", path=path), LoadState(path, optimizer=number % 2 == 0)
            case "unload":
                return Op("unload"), Unload()
            case _:
                return Op("publish"), SaveWeightsForSampler()


def held(scripted: ScriptedService, model_id: str) -> list[Part]:
    """Return what is in a model: the token of each gradient's datum, and the number of each step."""
    parts: list[Part] = []
    for one in scripted.trained[model_id]:
        content: Any = one.content
        if one.endpoint == "optim_step":
            rate = (content.get("adam_params") or content.get("optimizer_params"))["learning_rate"]
            parts.append(("step", round(rate / UNIT)))
        else:
            parts += [
                ("gradient", datum["model_input"]["chunks"][0]["tokens"][0]) for datum in content["data"]
            ]
    return parts


@attrs.define
class Expected:
    """What a model must hold by what its callers were told.

    Attributes:
        parts: all of it.
        steps: how many of the parts are safe whatever came later: everything up to the last step that was done.
        published: sampling session to the steps in it.
    """

    parts: list[Part] = attrs.field(factory=list)
    steps: int = 0
    published: dict[str, int] = attrs.field(factory=dict)


def expected(ops: Sequence[Op], start: Sequence[Part] = ()) -> Expected:
    """Work out what a model must hold that began with something."""
    it, closed, gradient = Expected(), list(start), list[Part]()
    saved: dict[str, list[Part]] = {}
    for unit in _units(ops):
        dropped = isinstance(unit[-1].error, StepVoid)
        for op in unit:
            match op.kind:
                case "gradient" if op.done and not dropped:
                    gradient += [("gradient", token) for token in op.tokens]
                case "step" if op.done:
                    closed = [*closed, *gradient, ("step", op.tokens[0])]
                    gradient = []
                case "save" if op.done and op.value is not None:
                    saved[op.value.path] = closed
                case "load" if op.done:
                    closed, gradient = saved[op.path], []
                case "publish" if op.done and op.value is not None:
                    steps = sum(kind == "step" for kind, _ in closed)
                    it.published[op.value.sampling_session_id] = steps
                case _:
                    pass
    it.parts, it.steps = [*closed, *gradient], len(closed)
    return it


def _units(ops: Sequence[Op]) -> Iterable[list[Op]]:
    unit: list[Op] = []
    for op in ops:
        unit.append(op)
        if op.kind == "step":
            yield unit
            unit = []
    if unit:
        yield unit


def judge(scripted: ScriptedService, programmer: Programmer) -> None:
    """Say what is wrong with how a program ended.

    Raises:
        AssertionError: a caller was told something that is not so, or was told nothing.
    """
    ops, lineage = programmer.ops, programmer.training._lineage
    told, should = _told(ops), expected(ops, programmer.start)
    is_there = held(scripted, lineage.model_id)
    # A poisoned model still has its steps, unless it could not be restored, or something was loaded behind the failure.
    loaded = all(op.done for op in ops if op.kind == "load")
    if lineage.poison is None:
        assert is_there == should.parts, told
    elif loaded and not lineage.restoring:
        assert is_there[: should.steps] == should.parts[: should.steps], told
    for block in {op.block for op in ops if op.block is not None}:
        parts = [op for op in ops if op.block == block]
        assert not parts[-1].done or all(op.done for op in parts), told
    for session, steps in should.published.items():
        assert scripted.samplers[session] == steps, told


def judge_cut_short(scripted: ScriptedService, programmer: Programmer) -> None:
    """Say what is wrong with how a program ended whose body was left: perhaps in the middle of a restore.

    Raises:
        AssertionError: see `judge`.
    """
    ops = programmer.ops
    told, is_there = _told(ops), held(scripted, programmer.training.model_id)
    order = [*programmer.start, *((op.kind, token) for op in ops for token in op.tokens)]
    assert is_there == [part for part in order if part in is_there], told
    never = [op for op in ops if isinstance(op.error, ServiceClosing | Withdrawn)]
    assert not {(op.kind, token) for op in never for token in op.tokens} & set(is_there), told


def _told(ops: Sequence[Op]) -> str:
    """Return what callers were told, for people; everybody must have been told something, and nothing strange."""
    assert all(op.known for op in ops), [op.kind for op in ops if not op.known]
    assert all(op.error is None or isinstance(op.error, TinkerActorsError | Mistake) for op in ops), ops
    return "; ".join(
        f"{op.kind} {op.tokens} {'done' if op.error is None else type(op.error).__name__}" for op in ops
    )
