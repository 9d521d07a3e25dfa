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
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import attrs
import trio
import trio.testing
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
    Actor,
    ActorRef,
    Backoff,
    ChildSpec,
    Coalesce,
    DeadLetter,
    Down,
    Ending,
    Intensity,
    MailboxStatistics,
    Message,
    Pending,
    Pool,
    PoolSpec,
    ReplyToken,
    RestartPolicy,
    Stop,
    Supervisor,
    handles,
    open_supervisor,
    start_pool,
)

__all__ = ["play"]

Name = tuple[str, int]
"""Which sender, and its how-many-eth message."""

HORIZON = 300.0  # virtual seconds after which whatever still waits hangs: none of the limits below is longer
MODES = ("drain", "now", "kill")
DEEDS = (
    ["reply"] * 8
    + ["declare", "crash", "crash", "commit", "detach", "survive", "survive and crash", "forget token"]
    + ["spawn crash", "ask", "ask", "tell", "finish", "stop", "timer", "watch"]
)


class Role:
    """What the actors of the chaos are."""


class Declared(Exception):
    """An answer."""


@attrs.frozen(eq=False)
class Work(Message[Role, Name]):
    """A message of the chaos.

    Attributes:
        name: whose it is.
        deed: what its handler does.
        takes: seconds it does so.
        depth: asks above it.
    """

    name: Name
    deed: str
    takes: int
    depth: int = 0


class Fire(Message[Role, None]):
    """A timer of the chaos."""


KINDS: tuple[type[Work], ...] = (
    Work,
    *(
        type(f"Work_{name}", (Work,), settings)
        for name, settings in {
            "finish": {"on_abandon": "finish"},
            "wait": {"on_abandon": "wait"},
            "part": {"unit": "part"},
            "end": {"unit": "end"},
            "exclusive": {"exclusive": True},
            "reentrant": {"reentrant": True},
            "again": {"max_redeliver": 2},
        }.items()
    ),
)


@attrs.define(eq=False)
class World:
    """What was seen.

    Attributes:
        rng: chance.
        refs: addresses of all actors and pools there ever were.
        begun: how often each message began.
        order: for each mailbox, what began in it: place in line and name.
        forbidden: messages that must not begin any more.
        running: for each mailbox and each actor, the messages in their handlers.
        results: how each send ended for its sender.
        pendings: what was submitted.
        told: tells that were admitted.
        letters: reasons of the dead letters of each message.
        tokens: tokens that survive a restart, by the actor that owes them.
        downs: for each watcher, what it heard.
        returned: messages whose handlers returned, or whose tokens were used.
        broken: promises that were broken.
        names: numbers for messages.
    """

    rng: random.Random
    refs: list[ActorRef[Role]] = attrs.field(factory=list)
    begun: Counter[Name] = attrs.field(factory=Counter)
    order: dict[Any, list[tuple[int, Name]]] = attrs.field(factory=dict)
    forbidden: set[Name] = attrs.field(factory=set)
    running: dict[Any, list[tuple[Work, int]]] = attrs.field(factory=dict)
    results: dict[Name, Any] = attrs.field(factory=dict)
    pendings: dict[Name, Pending[Name]] = attrs.field(factory=dict)
    told: dict[Name, Work] = attrs.field(factory=dict)
    letters: dict[Name, list[str]] = attrs.field(factory=dict)
    tokens: list[tuple[Any, Name, ReplyToken[Name]]] = attrs.field(factory=list)
    downs: dict[tuple[str, int], list[Down]] = attrs.field(factory=dict)
    returned: set[Name] = attrs.field(factory=set)
    broken: list[str] = attrs.field(factory=list)
    names: Iterator[int] = attrs.field(factory=itertools.count)

    def expect(self, kept: bool, promise: str) -> None:
        """Note a broken promise; an exception would only be one more crash where actors see it."""
        if not kept:
            self.broken.append(f"{trio.current_time():.0f} s: {promise}")

    def may(self, probability: float) -> bool:
        """Toss a coin."""
        return self.rng.random() < probability

    def bury(self, letter: DeadLetter) -> None:
        """Take note of a dead letter."""
        if isinstance(letter.message, Work):
            self.letters.setdefault(letter.message.name, []).append(letter.reason)

    def message(self, sender: str, depth: int = 0) -> Work:
        """Draw a message."""
        rng = self.rng
        kind = rng.choice((Work, *KINDS))
        deed = "reply" if depth > 2 else rng.choice(DEEDS)
        return kind((sender, next(self.names)), deed, rng.randint(0, 2), depth)


class ChaosActor(Actor[Role]):
    """Does what its messages say, and checks that it may."""

    declares = (Declared,)

    def __init__(self, world: World, *, frail: float) -> None:
        self.world = world
        self.frail = frail

    async def on_start(self) -> None:
        world = self.world
        await trio.sleep(world.rng.choice((0, 0, 0, 1)))
        if world.may(self.frail):
            raise RuntimeError("chaos at the start")
        if world.may(0.7):
            self.pay_debts()

    async def on_drain(self) -> None:
        await trio.lowlevel.checkpoint()
        self.pay_debts()

    def pay_debts(self) -> None:
        """Answer what earlier incarnations left unanswered."""
        for owner, name, token in self.world.tokens:
            if owner is self.context.ref and token.settle(name):
                self.world.returned.add(name)

    async def on_stop(self, ending: Ending) -> None:
        await trio.sleep(self.world.rng.choice((0, 0, 0, 1)))
        if self.world.may(self.frail):
            raise RuntimeError("chaos at the end")

    @handles(Down)
    async def down(self, message: Down) -> None:
        heard = self.world.downs[self.context.path, self.context.incarnation]
        self.world.expect(message.path not in [other.path for other in heard], "heard twice of one end")
        heard.append(message)
        await trio.lowlevel.checkpoint()

    @handles(Fire)
    async def fire(self, message: Fire) -> None:
        self.world.expect(self.context.call.seq == -1, "a timer had a place in line")
        await trio.lowlevel.checkpoint()

    async def work(self, message: Work) -> Any:
        with self.beginning(message):
            await trio.sleep(message.takes)
            reply = await getattr(self, "do_" + message.deed.replace(" ", "_"))(message)
            self.world.returned.add(message.name)
            return reply

    @contextlib.contextmanager
    def beginning(self, message: Work) -> Iterator[None]:
        """Note that a message is begun, and in whose company."""
        world, name, call = self.world, message.name, self.context.call
        world.expect(name not in world.forbidden, f"{name} began after it had been given up")
        world.begun[name] += 1
        world.expect(world.begun[name] <= 1 + message.max_redeliver, f"{name} began once more")
        world.expect(call.message is message, f"the call of {name} is another one")
        if not message.reentrant:
            world.order.setdefault(call.ledger, []).append((call.seq, name))
        here = world.running.setdefault(call.ledger, [])
        own = world.running.setdefault(self.context.ref, [])
        lives = {number for _, number in own}
        world.expect(lives <= {self.context.incarnation}, "an earlier incarnation still works")
        if not message.reentrant:
            beside = [other for other, _ in here if other.exclusive or message.exclusive]
            world.expect(not beside, f"{message} began beside {beside}")
        entry = (message, self.context.incarnation)
        here.append(entry)
        own.append(entry)
        try:
            yield
        finally:
            here.remove(entry)
            own.remove(entry)

    # --- deeds -------------------------------------------------------------------------------------------

    async def do_reply(self, message: Work) -> Any:
        return message.name

    async def do_declare(self, message: Work) -> Any:
        raise Declared(*message.name)

    async def do_crash(self, message: Work) -> Any:
        raise RuntimeError("chaos")

    async def do_commit(self, message: Work) -> Any:
        self.context.commit()
        await trio.sleep(message.takes)
        return message.name

    async def do_detach(self, message: Work) -> Any:
        token = self.context.detach_reply()
        self.context.spawn(self.answer_after, message.takes, token, message.name)
        return token

    async def answer_after(self, seconds: float, token: ReplyToken[Name], name: Name) -> None:
        await trio.sleep(seconds)
        token.settle(name)

    async def do_survive(self, message: Work) -> Any:
        token: ReplyToken[Name] = self.context.detach_reply(survives_restart=True)
        self.world.tokens.append((self.context.ref, message.name, token))
        return token

    async def do_survive_and_crash(self, message: Work) -> Any:
        await self.do_survive(message)
        raise RuntimeError("chaos")

    async def do_forget_token(self, message: Work) -> Any:
        return self.context.detach_reply()

    async def do_spawn_crash(self, message: Work) -> Any:
        self.context.spawn(self.crash_after, message.takes)
        return message.name

    async def crash_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        raise RuntimeError("chaos beside the handlers")

    async def do_ask(self, message: Work) -> Any:
        world = self.world
        patience = world.rng.choice((math.inf, math.inf, 0, 1, 2))
        inner = world.message(f"{self.context.path}#{self.context.incarnation}:{message.name}", message.depth + 1)
        await send(world, world.rng.choice(world.refs), inner, "ask", patience)
        return message.name

    async def do_tell(self, message: Work) -> Any:
        world = self.world
        inner = world.message(f"{self.context.path}#{self.context.incarnation}:{message.name}", message.depth + 1)
        await send(world, world.rng.choice(world.refs), inner, world.rng.choice(("tell", "nowait")), 5)
        return message.name

    async def do_finish(self, message: Work) -> Any:
        return Stop(message.name)

    async def do_stop(self, message: Work) -> Any:
        await self.context.stop(self.world.rng.choice(MODES))
        return message.name

    async def do_timer(self, message: Work) -> Any:
        for _ in range(2):
            self.context.send_after(self.world.rng.randint(0, 2), Fire(), key=self.world.rng.randint(0, 1))
        return message.name

    async def do_watch(self, message: Work) -> Any:
        heard = self.world.downs.setdefault((self.context.path, self.context.incarnation), [])
        other = self.world.rng.choice(self.world.refs)
        if other.path not in [down.path for down in heard]:
            self.context.watch(other)
        return message.name


ChaosActor.handlers = {**ChaosActor.handlers, **dict.fromkeys(KINDS, ChaosActor.work)}


# --- senders ---------------------------------------------------------------------------------------------


async def send(world: World, ref: ActorRef[Role], message: Work, how: str, patience: float) -> None:
    """Send one message and note how it ended."""
    name = message.name
    with trio.move_on_after(patience) as scope:
        try:
            if how == "tell":
                await ref.tell(message)
                world.told[name] = message
            elif how == "nowait":
                ref.tell_nowait(message)
                world.told[name] = message
            elif how == "ask":
                world.results[name] = await ref.ask(message)
            else:
                world.pendings[name] = await ref.submit(message)
        except trio.Cancelled:
            own = scope.cancel_called or trio.current_effective_deadline() == -math.inf
            world.expect(own, "a Cancelled reached a caller that was not cancelled")
            if not world.begun[name] and message.unit == "none":
                world.forbidden.add(name)
            raise
        except (Declared, TinkerActorsError, trio.TooSlowError) as error:
            world.results[name] = error
            if not world.begun[name]:
                world.forbidden.add(name)


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


def key_of(message: Message[Any, Any]) -> Any:
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
                    await group.stop_child(rng.choice(list(group.children)), rng.choice(MODES), rng.randint(0, 5))
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


async def live(world: World, outside: trio.Nursery, clients: trio.Nursery, ears: contextlib.ExitStack) -> None:
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
        try:
            await ref.ask(Work(("late", 0), "reply", 0))
        except ActorStopped as error:
            assert error.started is False
        else:
            raise AssertionError(f"{ref} answered after its end")
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
