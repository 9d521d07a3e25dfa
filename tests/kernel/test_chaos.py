"""Random programs of sends, cancellations, crashes and stops, against what the kernel promises about all of them.

Times are small whole numbers of virtual seconds, so that much happens in the same tick, and `random_module` lets
Hypothesis choose the order in which trio runs what is runnable.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_actors.errors import ActorStopped, HandlerCrashed, MailboxFull, TinkerActorsError, Withdrawn
from tinker_actors.kernel import (
    Actor,
    ActorRef,
    Backoff,
    ChildSpec,
    Message,
    Pending,
    PoolSpec,
    ReplyToken,
    RestartPolicy,
    Supervisor,
    handles,
    open_supervisor,
    start_pool,
)

Name = tuple[int, int]
"""Which sender, and its how-many-eth message."""


class Role:
    pass


class Declared(Exception):
    pass


@attrs.frozen
class Send:
    """One send of a program.

    Attributes:
        how: `ask`, `submit`, `tell`, `nowait`, or `withdraw` (a submit that is withdrawn `patience` later).
        does: what the handler does.
        takes: seconds it does so.
        pause: seconds the sender sleeps before.
        patience: seconds until the sender's scope is cancelled; None if never.
        on_abandon: the message's policy.
        unit: the message's place in a unit.
    """

    how: str
    does: str
    takes: int
    pause: int
    patience: int | None
    on_abandon: str
    unit: str


@attrs.frozen
class Program:
    """What happens.

    Attributes:
        senders: for each sender, its sends in order.
        workers: 0 for one actor, else a pool of so many.
        concurrency: handlers at once.
        capacity: of the mailbox.
        max_restarts: before the actor is given up, alone.
        backoff: seconds of the first delay.
        stops: when and how hard the actor (or pool) is stopped before the end.
        ending: how the body ends.
        ends_at: when it does.
    """

    senders: list[list[Send]]
    workers: int
    concurrency: int
    capacity: int
    max_restarts: int
    backoff: int
    stops: list[tuple[int, str]]
    ending: str
    ends_at: int


SECONDS = st.integers(0, 3)
SENDS = st.builds(
    Send,
    how=st.sampled_from(["ask", "ask", "submit", "tell", "nowait", "withdraw"]),
    does=st.sampled_from(
        [
            "reply",
            "reply",
            "reply",
            "declare",
            "crash",
            "detach",
            "survive",
            "survive and crash",
            "spawn crash",
        ]
    ),
    takes=SECONDS,
    pause=SECONDS,
    patience=st.none() | SECONDS,
    on_abandon=st.sampled_from(["cancel", "finish", "wait"]),
    unit=st.sampled_from(["none", "none", "part", "end"]),
)
PROGRAMS = st.builds(
    Program,
    senders=st.lists(st.lists(SENDS, max_size=6), min_size=1, max_size=4),
    workers=st.sampled_from([0, 0, 1, 3]),
    concurrency=st.sampled_from([1, 1, 2, 5]),
    capacity=st.sampled_from([1, 2, 50]),
    max_restarts=st.sampled_from([1, 1000]),
    backoff=st.sampled_from([0, 1]),
    stops=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["drain", "now", "kill"])), max_size=2),
    ending=st.sampled_from(["return", "raise", "cancel"]),
    ends_at=st.sampled_from([0, 3, 1000]),
)


@attrs.frozen
class Work(Message[Role, Name]):
    """A message of the chaos; its classes are made for each policy and unit."""

    name: Name
    send: Send


WORK: dict[tuple[str, str], type[Work]] = {
    (policy, unit): type(f"Work_{policy}_{unit}", (Work,), {"on_abandon": policy, "unit": unit})
    for policy in ("cancel", "finish", "wait")
    for unit in ("none", "part", "end")
}


@attrs.define(eq=False)
class World:
    """What was seen; the invariants look at it.

    Attributes:
        begun: names in the order in which their handlers began.
        seqs: their places in line, in the same order.
        forbidden: messages whose callers had left before they began.
        results: how each send ended for its sender.
        pendings: what was submitted.
        taken_back: messages a withdrawal has taken back.
        tokens: surviving tokens.
        begun_in_vain: messages that began after their callers had left, or after they had been taken back.
    """

    begun: list[Name] = attrs.field(factory=list)
    seqs: list[int] = attrs.field(factory=list)
    forbidden: set[Name] = attrs.field(factory=set)
    results: dict[Name, Any] = attrs.field(factory=dict)
    pendings: dict[Name, Pending[Name]] = attrs.field(factory=dict)
    taken_back: set[Name] = attrs.field(factory=set)
    tokens: list[tuple[Name, ReplyToken[Name]]] = attrs.field(factory=list)
    begun_in_vain: list[Name] = attrs.field(factory=list)


class ChaosActor(Actor[Role]):
    """Does what its messages say."""

    declares = (Declared,)
    _do: ClassVar[dict[str, Callable[..., Awaitable[Any]]]] = {}

    def __init__(self, world: World) -> None:
        self.world = world

    async def on_start(self) -> None:
        await trio.lowlevel.checkpoint()
        for name, token in self.world.tokens:  # the answers the last incarnation owed
            token.settle(name)

    async def work(self, message: Work) -> Any:
        world, name, send = self.world, message.name, message.send
        # An assertion that fails in here would only be one more crash.
        if name in world.forbidden or name in world.taken_back:
            world.begun_in_vain.append(name)
        world.begun.append(name)
        world.seqs.append(self.context.call.seq)
        if send.does == "spawn crash":
            self.context.spawn(self.crash_after, send.takes)
        if send.does.startswith("survive"):
            world.tokens.append((name, self.context.detach_reply(survives_restart=True)))
        await trio.sleep(send.takes)
        if send.does == "declare":
            raise Declared(*name)
        if send.does.endswith("crash"):
            await self.crash_after(1)
        if send.does == "detach":
            token = self.context.detach_reply()
            self.context.spawn(self.answer_after, send.takes, token, name)
            return token
        return world.tokens[-1][1] if send.does == "survive" and world.tokens[-1][0] == name else name

    async def crash_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        raise RuntimeError("chaos")

    async def answer_after(self, seconds: float, token: ReplyToken[Name], name: Name) -> None:
        await trio.sleep(seconds)
        token.settle(name)

    async def on_drain(self) -> None:
        await trio.lowlevel.checkpoint()
        for name, token in self.world.tokens:
            token.settle(name)


for kind in WORK.values():
    handles(kind)(ChaosActor.work)
ChaosActor.handlers = dict.fromkeys(WORK.values(), ChaosActor.work)


async def perform(world: World, ref: ActorRef[Role], name: Name, send: Send) -> None:
    """Carry out one send and note how it ended."""
    message = WORK[send.on_abandon, send.unit](name, send)
    if send.how == "tell":
        await ref.tell(message)
    elif send.how == "nowait":
        ref.tell_nowait(message)
    elif send.how == "ask":
        world.results[name] = await ref.ask(message)
    else:
        world.pendings[name] = await ref.submit(message)


async def withdraw(world: World, name: Name) -> None:
    """Try to take a submitted message back; with it goes its unit, whoever sent it."""
    if not await world.pendings[name].withdraw():
        return
    assert name not in world.begun
    for other, pending in world.pendings.items():
        if isinstance(pending.outcome.error, Withdrawn):
            assert other not in world.begun
            world.taken_back.add(other)


async def send_all(world: World, ref: ActorRef[Role], sender: int, sends: list[Send]) -> None:
    """Play one sender."""
    for number, send in enumerate(sends):
        name = (sender, number)
        await trio.sleep(send.pause)
        patience = math.inf if send.patience is None else send.patience
        scope = trio.CancelScope(
            deadline=trio.current_time() + (math.inf if send.how == "withdraw" else patience)
        )
        with scope:
            try:
                await perform(world, ref, name, send)
            except trio.Cancelled:
                assert scope.cancel_called, "a Cancelled reached a caller that was not cancelled"
                if name not in world.begun and send.unit == "none":
                    world.forbidden.add(name)
                raise
            except (Declared, MailboxFull, TinkerActorsError) as error:
                world.results[name] = error
        if send.how == "withdraw" and name in world.pendings:
            await trio.sleep(0 if send.patience is None else send.patience)
            await withdraw(world, name)


async def play(program: Program, world: World) -> ActorRef[Role] | None:
    """Run a program in a tree of its own; None if the end came before the start."""
    policy = RestartPolicy(
        max_restarts=program.max_restarts, backoff=Backoff(base=float(program.backoff), maximum=2.0)
    )
    refs: list[ActorRef[Role]] = []
    async with trio.open_nursery() as senders:
        with (
            contextlib.suppress(KeyError, TinkerActorsError),
            trio.move_on_after(program.ends_at if program.ending == "cancel" else math.inf),
        ):
            async with open_supervisor("chaos", rng=random.Random(0), grace=20) as tree:
                refs.append(await start(program, world, policy, tree))
                for sender, sends in enumerate(program.senders):
                    senders.start_soon(send_all, world, refs[0], sender, sends)
                for when, mode in program.stops:
                    senders.start_soon(stop_at, tree, when, mode)
                await trio.sleep(program.ends_at)
                if program.ending == "raise":
                    raise KeyError("body")
        settled = {name: pending.settled for name, pending in world.pendings.items()}
        assert all(settled.values()), "a Pending outlived its tree"
    return refs[0] if refs else None


async def start(program: Program, world: World, policy: RestartPolicy, tree: Supervisor) -> ActorRef[Role]:
    if program.workers:
        spec = PoolSpec(
            name="target",
            workers=program.workers,
            concurrency=program.concurrency,
            capacity=program.capacity,
            policy=policy,
        )
        return (await start_pool(tree, spec, lambda: ChaosActor(world))).ref
    return await tree.start_child(
        ChildSpec(
            name="target",
            factory=lambda: ChaosActor(world),
            policy=policy,
            capacity=program.capacity,
            concurrency=program.concurrency,
            on_exhausted="fail",
        )
    )


async def stop_at(tree: Supervisor, when: int, mode: Any) -> None:
    await trio.sleep(when)
    with contextlib.suppress(KeyError):  # it has ended already
        await tree.stop_child("target", mode, 10)


def check_order(program: Program, world: World) -> None:
    """Handled at most once, in order of admission, which is each sender's own order."""
    assert not world.begun_in_vain
    assert len(set(world.begun)) == len(world.begun), "handled twice"
    assert world.seqs == sorted(set(world.seqs)), "not in order of admission"
    for sender in range(len(program.senders)):
        own = [number for who, number in world.begun if who == sender]
        assert own == sorted(own), "a sender's own order was not kept"


def check_outcomes(program: Program, world: World) -> None:
    """Every outcome tells the truth about whether the handler had begun."""
    outcomes = dict(world.results)
    for name, pending in world.pendings.items():
        outcomes[name] = (
            pending.outcome.error if pending.outcome.error is not None else pending.outcome.result()
        )
    for name, outcome in outcomes.items():
        begun = name in world.begun
        match outcome:
            case Declared() | HandlerCrashed():
                assert begun
            case Withdrawn() | ActorStopped():
                assert outcome.started is begun, outcome
                assert not isinstance(outcome.__cause__, trio.Cancelled)
            case MailboxFull():
                assert not begun
            case _:
                assert outcome == name, "somebody else's reply"
                assert begun


def check_counters(world: World, ref: ActorRef[Role]) -> None:
    """Admitted = handled + withdrawn or expired + settled at the close."""
    seen = ref.statistics()
    assert (
        seen.admitted
        == seen.handled + seen.failed + seen.abandoned + seen.expired + seen.dropped + seen.rejected
    )
    assert (seen.queued, seen.parked) == (0, 0)
    assert ref.stopped


def check(program: Program) -> None:
    """Play a program and hold it against every invariant."""
    world = World()

    async def main() -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.fail_after(10_000):  # virtual time: whoever hangs is found
            ref = await play(program, world)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before, "a task was left"
        check_order(program, world)
        check_outcomes(program, world)
        if ref is not None:
            check_counters(world, ref)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.rule("A1", "A2", "C1")
@given(PROGRAMS, st.random_module())
@settings(max_examples=300)
def test_whatever_happens_every_promise_is_kept(program: Program, schedule: object) -> None:
    """Every ask ends; nothing is begun twice, out of order, or after its caller left; all counters add up."""
    check(program)


@pytest.mark.slow
def test_the_same_with_many_more_programs(slow_count: Callable[[int], int]) -> None:
    """The same promises, for thousands of programs and schedules."""

    @given(PROGRAMS, st.random_module())
    @settings(max_examples=slow_count(5000))
    def play(program: Program, schedule: object) -> None:
        check(program)

    play()
