"""Planned faults: actors that crash, are slow or lose messages at points that the test chooses.

Theory of operation. A `FaultPlan` is a list of `Fault`s, plain facts. `wrap` makes of a factory one whose actors
keep to the plan; what it counts (messages begun, by type) goes on across incarnations, and is counted anew for each
`wrap`. Whether a fault is due is decided when a message is begun, by counters and a seeded generator alone, so a
run with the same messages in the same order has the same faults.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeVar, get_args

import attrs
import trio

from tinker_actors.errors import Dropped, InputError
from tinker_actors.kernel import Actor, Down, Ending, Message
from tinker_actors.testing.interpose import Interposed, Proceed

__all__ = ["Fault", "FaultKind", "FaultPlan", "InjectedCrash", "InjectedDrop", "Injection", "Place"]

RoleT = TypeVar("RoleT")
FaultKind: TypeAlias = Literal["crash", "delay", "drop"]
Place: TypeAlias = Literal["message", "reply", "start", "drain", "stop"]
"""Where a fault strikes: before the handler of a message, after it and before its reply is sent, in `on_start`, in
`on_drain`, in `on_stop`."""


class InjectedCrash(Exception):
    """What a planned crash raises."""


class InjectedDrop(Dropped):
    """What the sender of an `ask` or `submit` gets whose message, or whose reply, was dropped by plan.

    `started` is False if the message was dropped, True if its handler ran and the reply was.
    """


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that is to go wrong.

    Attributes:
        what: it crashes, it is delayed, or (messages and replies only) it is dropped.
        place: where.
        nth: of messages, which one, counted from 1; of hooks, that of which incarnation. None for each.
        of: only messages of exactly this type count and are struck; None for all but `Down`.
        seconds: how long it is delayed, in trio time.
        shield: the delay does not hear a cancellation, so the actor seems stuck.
        error: what a crash raises; an `InjectedCrash` if None.

    Raises:
        InputError: a number out of its bounds, a hook with a message type, or a hook that is to be dropped.
    """

    what: FaultKind
    place: Place = "message"
    nth: int | None = 1
    of: type[Message[Any, Any]] | None = None
    seconds: float = 0.0
    shield: bool = False
    error: Exception | None = None

    def __attrs_post_init__(self) -> None:
        if self.what not in get_args(FaultKind):
            raise InputError("what", self.what, f"must be one of {', '.join(get_args(FaultKind))}")
        if self.place not in get_args(Place):
            raise InputError("at", self.place, f"must be one of {', '.join(get_args(Place))}")
        if self.nth is not None and self.nth < 1:
            raise InputError("nth", self.nth, "must be 1 or more, or None for each")
        if not self.seconds >= 0:
            raise InputError("seconds", self.seconds, "must not be negative")
        if self.in_hook and self.of is not None:
            raise InputError("of", self.of, f"no message is handled in on_{self.place}")
        if self.in_hook and self.what == "drop":
            raise InputError("at", self.place, "only messages and replies can be dropped")

    @property
    def in_hook(self) -> bool:
        """Whether it strikes in a hook, not around a message."""
        return self.place not in ("message", "reply")

    def counts(self, message: Message[Any, Any]) -> bool:
        """Whether a message is one of those it counts."""
        if self.in_hook:
            return False
        return type(message) is not Down if self.of is None else type(message) is self.of


@attrs.frozen
class Injection:
    """A fault that has struck.

    Attributes:
        fault: which.
        actor: path of the actor.
        incarnation: which life it lived.
        message: the message concerned; None in hooks.
    """

    fault: Fault
    actor: str
    incarnation: int
    message: Message[Any, Any] | None


@attrs.frozen
class _Chance:
    """Faults by chance, of each message alike."""

    seed: int
    rate: float
    of: type[Message[Any, Any]] | None
    kinds: tuple[FaultKind, ...]
    max_delay: float


class FaultPlan:
    """What is to go wrong with an actor; its methods add to it and return it, so they can be chained.

        plan = FaultPlan().delay(5.0, nth=1).crash(nth=3, of=Add).crash(at="start", nth=2)
        ref = await system.start(plan.wrap(CounterActor))

    Attributes:
        faults: what was planned, without what is left to chance.
        injections: the faults that have struck, in order.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.injections: list[Injection] = []
        self._chances: list[_Chance] = []

    def __repr__(self) -> str:
        return f"<FaultPlan of {len(self.faults)} faults, {len(self.injections)} have struck>"

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        rate: float = 0.1,
        of: type[Message[Any, Any]] | None = None,
        kinds: Collection[FaultKind] = ("crash", "delay", "drop"),
        max_delay: float = 1.0,
    ) -> FaultPlan:
        """Plan faults by chance: each message is struck with this probability; the same seed, the same faults.

        Args:
            seed: of the generator.
            rate: probability that a message is struck, 0 to 1.
            of: only messages of exactly this type are struck; None for all but `Down`.
            kinds: what may happen, each as likely as the others. Crashes and drops strike before or after the
                handler.
            max_delay: seconds that a delay takes at most.

        Raises:
            InputError: a rate that is no probability, or no kinds, or unknown ones.
        """
        if not 0 <= rate <= 1:
            raise InputError("rate", rate, "must be between 0 and 1")
        if not kinds or not set(kinds) <= set(get_args(FaultKind)):
            raise InputError("kinds", kinds, f"must be some of {', '.join(get_args(FaultKind))}")
        plan = cls()
        plan._chances.append(_Chance(seed, rate, of, tuple(kinds), max_delay))
        return plan

    # --- planning ----------------------------------------------------------------------------------------

    def crash(
        self,
        *,
        nth: int | None = 1,
        of: type[Message[Any, Any]] | None = None,
        at: Place = "message",
        error: Exception | None = None,
    ) -> Self:
        """Raise; see `Fault` for the arguments. An error that the actor declares is an answer, as ever.

        Before the handler (`at="message"`) nothing has been done; after it (`at="reply"`) everything has, and the
        caller does not hear of it. In `on_start` it is a failed start, in `on_stop` it is logged.
        """
        return self._add(Fault(what="crash", nth=nth, of=of, place=at, error=error))

    def delay(
        self,
        seconds: float,
        *,
        nth: int | None = 1,
        of: type[Message[Any, Any]] | None = None,
        at: Place = "message",
        shield: bool = False,
    ) -> Self:
        """Sleep in trio time; see `Fault` for the arguments."""
        return self._add(Fault(what="delay", nth=nth, of=of, place=at, seconds=seconds, shield=shield))

    def drop(
        self,
        *,
        nth: int | None = 1,
        of: type[Message[Any, Any]] | None = None,
        at: Literal["message", "reply"] = "message",
    ) -> Self:
        """Lose the message before its handler sees it, or its reply; see `Fault` for the arguments.

        The sender of an `ask` or `submit` gets `InjectedDrop`, which is a `Dropped`; a `tell` becomes a dead letter
        of the reason `failed`. The actor lives on.
        """
        return self._add(Fault(what="drop", nth=nth, of=of, place=at))

    def _add(self, fault: Fault) -> Self:
        self.faults.append(fault)
        return self

    def wrap(self, factory: Callable[[], Actor[RoleT]]) -> Callable[[], Actor[RoleT]]:
        """Return a factory whose actors keep to the plan, as it is now."""
        course = _Course(self.faults, self._chances)

        def faulty() -> Actor[RoleT]:
            return _FaultyActor(factory(), course, self.injections)

        faulty.__name__ = getattr(factory, "__name__", "actor")
        return faulty


class _Course:
    """The counters of one wrapped factory."""

    def __init__(self, faults: Collection[Fault], chances: Collection[_Chance]) -> None:
        self._faults = tuple(faults)
        self._counts = [0] * len(faults)
        self._chances = [(chance, random.Random(chance.seed)) for chance in chances]

    def due_for(self, message: Message[Any, Any]) -> list[Fault]:
        """Count a message that is begun, and return what strikes it, delays first."""
        due: list[Fault] = []
        for index, fault in enumerate(self._faults):
            if fault.counts(message):
                self._counts[index] += 1
                if fault.nth is None or fault.nth == self._counts[index]:
                    due.append(fault)
        for chance, rng in self._chances:
            drawn = _draw(chance, rng)
            if drawn is not None and drawn.counts(message):
                due.append(drawn)
        return sorted(due, key=_order)

    def due_in(self, place: Place, incarnation: int) -> list[Fault]:
        """Return what strikes in a hook, delays first."""
        here = [fault for fault in self._faults if fault.place == place]
        return sorted((fault for fault in here if fault.nth in (None, incarnation)), key=_order)


def _order(fault: Fault) -> bool:
    return fault.what != "delay"


def _draw(chance: _Chance, rng: random.Random) -> Fault | None:
    """Draw the fault of one message; always so many numbers, so that no draw depends on what came of another."""
    hit, kind, seconds, after = rng.random(), rng.random(), rng.random(), rng.random() < 0.5
    if hit >= chance.rate:
        return None
    what = chance.kinds[int(kind * len(chance.kinds))]
    place: Place = "reply" if after and what != "delay" else "message"
    pause = seconds * chance.max_delay if what == "delay" else 0.0
    return Fault(what=what, place=place, nth=None, of=chance.of, seconds=pause)


class _FaultyActor(Interposed[RoleT]):
    also_declares: ClassVar[tuple[type[Exception], ...]] = (InjectedDrop,)

    def __init__(self, inner: Actor[RoleT], course: _Course, injections: list[Injection]) -> None:
        super().__init__(inner)
        self._course = course
        self._injections = injections

    async def around(self, message: Message[Any, Any], proceed: Proceed) -> Any:
        due = self._course.due_for(message)
        for fault in due:
            if fault.place == "message":
                await self._inject(fault, message)
        reply = await proceed()
        for fault in due:
            if fault.place == "reply":
                await self._inject(fault, message)
        return reply

    async def on_start(self) -> None:
        await self._strike_in("start")
        await super().on_start()

    async def on_drain(self) -> None:
        await self._strike_in("drain")
        await super().on_drain()

    async def on_stop(self, ending: Ending) -> None:
        await self._strike_in("stop")
        await super().on_stop(ending)

    async def _strike_in(self, place: Place) -> None:
        for fault in self._course.due_in(place, self.context.incarnation):
            await self._inject(fault, None)

    async def _inject(self, fault: Fault, message: Message[Any, Any] | None) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        path = self.context.path
        self._injections.append(Injection(fault, path, self.context.incarnation, message))
        what = f"on_{fault.place}" if message is None else f"{type(message).__name__} ({fault.place})"
        if fault.what == "crash":
            raise fault.error or InjectedCrash(f"{path} crashed in {what}, as planned")
        if fault.what == "drop":
            text = f"{path} dropped {what}, as planned"
            raise InjectedDrop(text, actor=path, started=fault.place == "reply")
        with trio.CancelScope(shield=fault.shield):
            await trio.sleep(fault.seconds)
