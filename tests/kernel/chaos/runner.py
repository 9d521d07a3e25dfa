"""Random programs against whole trees, from a seed, in virtual time.

A program is a tree of supervisors with any strategies, actors and pools of any kind, clients that send, leave and
take back, and disturbers that crash, stop, start again and resize. Everything is drawn while it runs, from one
generator; trio's own order of tasks is seeded with it, so a seed is a run. Times are small whole numbers of seconds,
so that much happens in the same tick.

`play(seed)` runs one program and raises `AssertionError`, with the seed, if a promise is broken:

- every ask, every wait for room and every `Pending` ends, and says truly whether its handler had begun;
- a message is begun once, or as often as its type allows, in the order of its mailbox, which is each sender's own;
- what was cancelled, timed out or taken back before it began never begins;
- a `Cancelled` reaches only callers whose own scope was cancelled;
- what is in line when the tree closes fails as stopped, and what nobody waits for becomes a dead letter;
- each message is counted in exactly one place, at any time, and nothing is left in line or running at the end;
- nothing runs beside an exclusive message, nor beside a handler of an earlier incarnation;
- each watcher hears of an end exactly once; no task is left.
"""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from chaos_world import (  # type: ignore[import-not-found]  # conftest.py loads it by its path
    MODES,
    ChaosActor,
    Declared,
    Name,
    Role,
    Work,
    World,
    send,
)
from trio._core import _run as trio_run

from tinker_actors.errors import (
    ActorStopped,
    AskCycle,
    Dropped,
    HandlerCrashed,
    InputError,
    MailboxFull,
    RestartIntensityExceeded,
    TinkerActorsError,
    Withdrawn,
)
from tinker_actors.kernel import (
    ActorRef,
    Backoff,
    ChildSpec,
    Coalesce,
    Intensity,
    MailboxStatistics,
    Pending,
    Pool,
    PoolSpec,
    RestartPolicy,
    Supervisor,
    open_supervisor,
    start_pool,
)

__all__ = ["play"]

HORIZON = 300.0  # virtual seconds after which whatever still waits hangs: none of the limits below is longer


# --- senders ---------------------------------------------------------------------------------------------


async def withdraw(world: World, pending: Pending[Name]) -> None:
    """Try to take a submitted message back; with it goes its unit, whoever sent it."""
    if not await pending.withdraw():
        return
    for other, it in world.pendings.items():
        if isinstance(it.outcome.error, Withdrawn):
            world.expect(not world.begun[other], f"{other} was taken back after it had begun")
            world.forbidden.add(other)


async def submit_block(world: World, ref: ActorRef[Role], sender: str) -> None:
    """Send a block; its messages have adjoining places in line."""
    messages = [world.message(sender) for _ in range(world.rng.randint(1, 3))]
    try:
        pendings = await ref.submit_many(messages)
    except (TinkerActorsError, InputError):
        world.forbidden.update(message.name for message in messages)
        return
    for message, pending in zip(messages, pendings, strict=True):
        world.pendings[message.name] = pending
    seqs = [pending._envelope.seq for pending in pendings]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "something came between the messages of a block"


async def client(world: World, number: int) -> None:
    """Send messages, one after the other."""
    rng, sender = world.rng, f"client {number}"
    for _ in range(rng.randint(1, 7)):
        await trio.sleep(rng.choice((0, 0, 1)))
        ref, how = rng.choice(world.refs), rng.choice(("ask", "ask", "submit", "tell", "nowait", "many"))
        if how == "many":
            await submit_block(world, ref, sender)
            continue
        message = world.message(sender)
        await send(world, ref, message, how, rng.choice((math.inf, 0, 1, 2, 5)))
        pending = world.pendings.get(message.name)
        if pending is not None and world.may(0.5):
            await trio.sleep(rng.randint(0, 1))
            await withdraw(world, pending)


# --- the tree --------------------------------------------------------------------------------------------


def draw_policy(rng: random.Random) -> RestartPolicy:
    """Draw when an actor is restarted."""
    return RestartPolicy(
        restart=rng.choice(("permanent", "permanent", "transient", "temporary")),
        max_restarts=rng.choice((1, 1000, 1000)),
        backoff=Backoff(base=rng.choice((0.0, 1.0)), maximum=2.0, jitter=0.0),
    )


def key_of(message: Any) -> Any:
    """Coalesce half of the messages of the chaos."""
    return message.name[1] % 2 or None if isinstance(message, Work) else None


async def start_something(world: World, supervisor: Supervisor, number: int) -> Pool[Role] | None:
    """Start an actor or a pool of any kind."""
    rng = world.rng
    frail = rng.choice((0.0, 0.0, 0.2))
    policy = draw_policy(rng)
    limiter = trio.CapacityLimiter(rng.randint(1, 2)) if world.may(0.2) else None
    overflow: Any = rng.choice(("block", "block", "block", "fail", "drop_new", "drop_old", Coalesce(key_of)))
    shape: dict[str, Any] = {
        "capacity": rng.choice((1, 3, 64)),
        "concurrency": rng.choice((1, 1, 2, 4)),
        "overflow": overflow,
        "limiter": limiter,
        "policy": policy,
    }
    if world.may(0.3):
        routing: Any = rng.choice(("shared", "least_loaded"))
        pool_spec = PoolSpec(name=f"pool-{number}", workers=rng.randint(1, 3), routing=routing, **shape)
        pool = await start_pool(supervisor, pool_spec, lambda: ChaosActor(world, frail=frail))
        world.refs.append(pool.ref)
        return pool
    spec: ChildSpec[Role] = ChildSpec(
        name=f"actor-{number}",
        factory=lambda: ChaosActor(world, frail=frail),
        on_exhausted=rng.choice(("fail", "fail", "escalate")),
        on_restart=rng.choice(("hold", "fail_fast")),
        reply_timeout=rng.choice((math.inf, math.inf, 2.0)),
        stop_timeout=rng.choice((1.0, 30.0)),
        **shape,
    )
    world.refs.append(await supervisor.start_child(spec))
    return None


async def disturb(world: World, tree: Supervisor, groups: list[Supervisor], pools: list[Pool[Role]]) -> None:
    """Stop, start again, resize and cancel."""
    rng = world.rng
    for number in range(rng.randint(0, 4)):
        await trio.sleep(rng.choice((0, 1, 2)))
        group = rng.choice(groups)
        with contextlib.suppress(TinkerActorsError):
            match rng.choice(("stop child", "stop ref", "stop group", "start", "resize", "resize", "cancel")):
                case "stop child" if group.children:
                    await group.stop_child(
                        rng.choice(list(group.children)), rng.choice(MODES), rng.randint(0, 5)
                    )
                case "stop ref":
                    await rng.choice(world.refs).stop(rng.choice(MODES), rng.randint(0, 5))
                case "stop group" if group is not tree and world.may(0.5):
                    await group.stop(rng.choice(MODES), rng.randint(0, 5))
                case "start":
                    await start_something(world, group, 100 + number)
                case "resize" if pools:
                    await rng.choice(pools).resize(rng.randint(1, 4))
                case "cancel" if world.may(0.3):
                    tree.cancel("chaos")
                case _:
                    pass


async def audit(world: World, tree: Supervisor, outside: trio.Nursery) -> None:
    """Look at the counters, at any time."""
    while trio.current_time() < HORIZON:
        for ref in world.refs:
            check_counters(ref.statistics())
        tree.snapshot()
        await trio.sleep(1)
    main = outside.parent_task
    world.expect(False, "something hangs: " + ", ".join(task.name for task in below(main)))
    outside.cancel_scope.cancel()
    break_out(main)


def below(task: trio.lowlevel.Task) -> list[trio.lowlevel.Task]:
    """Return all tasks below one."""
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return [other for child in children for other in (child, *below(child))]


def break_out(task: trio.lowlevel.Task) -> None:
    """Take away the shields of all below a task that is cancelled: a run that hangs would never end."""
    for other in below(task):
        status = other._cancel_status
        while status.parent is not None:
            status._scope.shield = False
            status = status.parent


async def watch(ref: ActorRef[Role]) -> None:
    """Wait for an end from outside."""
    down = await ref.wait_stopped()
    assert down.path == ref.path
    assert down.reason in ("stopped", "failed")
    assert ref.stopped


async def grow(world: World, tree: Supervisor) -> tuple[list[Supervisor], list[Pool[Role]]]:
    """Build a random tree."""
    rng = world.rng
    groups, pools = [tree], []
    for number in range(rng.randint(0, 2)):
        strategy: Any = rng.choice(("one_for_one", "one_for_all", "rest_for_one", "dynamic"))
        parent = rng.choice(groups)
        groups.append(parent.start_supervisor(f"group-{number}", strategy, policy=draw_policy(rng)))
    for number in range(rng.randint(1, 4)):
        with contextlib.suppress(TinkerActorsError):
            pool = await start_something(world, rng.choice(groups), number)
            if pool is not None:
                pools.append(pool)
    return groups, pools


async def live(
    world: World, outside: trio.Nursery, clients: trio.Nursery, ears: contextlib.ExitStack
) -> None:
    """Run the tree to its end."""
    rng = world.rng
    ending, ends_at = rng.choice(("return", "raise", "cancel")), rng.choice((0, 3, 8, 30))
    strategy: Any = rng.choice(("one_for_one", "one_for_all", "rest_for_one", "dynamic"))
    intensity = Intensity(max_restarts=rng.choice((2, 1000)))
    with trio.move_on_after(ends_at if ending == "cancel" else math.inf):
        async with open_supervisor("tree", rng=rng, strategy=strategy, intensity=intensity, grace=20) as tree:
            ears.enter_context(tree.dead_letters.subscribe(world.bury))
            outside.start_soon(audit, world, tree, outside)
            groups, pools = await grow(world, tree)
            if not world.refs:
                return
            for ref in world.refs:
                clients.start_soon(watch, ref)
            for number in range(rng.randint(1, 4)):
                clients.start_soon(client, world, number)
            clients.start_soon(disturb, world, tree, groups, pools)
            await trio.sleep(ends_at)
            if ending == "raise":
                raise KeyError("body")


# --- promises --------------------------------------------------------------------------------------------


def check_counters(seen: MailboxStatistics) -> None:
    """Each message is counted in exactly one place."""
    ended = seen.handled + seen.failed + seen.abandoned + seen.expired + seen.dropped + seen.rejected
    assert seen.admitted == ended + seen.queued + seen.running, seen
    assert min(attrs.astuple(attrs.evolve(seen, max_bytes=0, waited=0, took=0))) >= 0, seen


def check_order(world: World) -> None:
    """What began, began in the order of its mailbox, which is each sender's own."""
    for begun in world.order.values():
        first: dict[Name, int] = {}
        for seq, name in begun:
            first.setdefault(name, seq)
        assert list(first.values()) == sorted(first.values()), "not in the order of the mailbox"
        numbers: dict[str, int] = {}
        for sender, number in first:
            assert numbers.get(sender, -1) < number, "a sender's own order was not kept"
            numbers[sender] = number


def check_outcome(world: World, name: Name, outcome: Any) -> None:
    """An outcome tells the truth about whether the handler had begun."""
    begun = world.begun[name] > 0
    match outcome:
        case Declared():
            assert outcome.args == name
            assert begun
        case HandlerCrashed():
            assert begun
            assert outcome.started
        case AskCycle() | MailboxFull():
            assert not begun, outcome
        case ActorStopped() | Dropped() | Withdrawn():
            assert outcome.started is begun, (name, outcome, outcome.started, begun)
            assert not isinstance(outcome.__cause__, trio.Cancelled)
        case trio.TooSlowError():
            pass
        case _:
            assert outcome == name, f"{name} got {outcome!r}"
            assert begun


def check_losses(world: World) -> None:
    """A tell whose handler did not return is a dead letter; nothing disappears."""
    for name, message in world.told.items():
        reasons = [r for r in world.letters.get(name, []) if r not in ("late_reply", "duplicate_reply")]
        assert len(reasons) <= 1, f"{name} was lost more than once: {reasons}"
        may_be_taken_back = message.unit != "none"  # by whoever withdraws another message of the unit
        assert name in world.returned or reasons or may_be_taken_back, f"{name} disappeared without a trace"


async def check_end(world: World) -> None:
    """Everything has ended, and says so."""
    for name, pending in world.pendings.items():
        assert pending.settled, f"{name} never ended"
        error = pending.outcome.error
        check_outcome(world, name, pending.outcome.result() if error is None else error)
    for name, outcome in world.results.items():
        check_outcome(world, name, outcome)
    check_order(world)
    check_losses(world)
    for ref in world.refs:
        seen = ref.statistics()
        check_counters(seen)
        assert (seen.queued, seen.parked, seen.running, seen.queued_bytes) == (0, 0, 0, 0), (ref, seen)
        assert ref.stopped
        assert ref.obituary.watchers == 0
        with pytest.raises(ActorStopped) as refused:
            await ref.ask(Work(("late", 0), "reply", 0))
        assert refused.value.started is False
    assert not any(world.running.values()), "a handler still runs"


async def perform(world: World) -> None:
    """Play one program and hold it against every promise."""
    before = trio.lowlevel.current_statistics().tasks_living
    with contextlib.ExitStack() as ears:
        async with trio.open_nursery() as outside:
            async with trio.open_nursery() as clients:
                with contextlib.suppress(KeyError, RestartIntensityExceeded):
                    await live(world, outside, clients, ears)
            await trio.testing.wait_all_tasks_blocked()
            outside.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not world.broken, world.broken
        assert trio.lowlevel.current_statistics().tasks_living == before, "a task was left"
        await check_end(world)


def play(seed: int) -> World:
    """Play the program of a seed.

    Raises:
        AssertionError: a promise is broken.
    """
    world = World(random.Random(seed))
    trio_run._r.seed(seed)
    try:
        trio.run(perform, world, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return world
