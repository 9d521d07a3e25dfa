"""The actors of the chaos, and what is seen of them; runner.py plays with them.

A promise that is broken inside an actor is noted, not raised: there an exception would only be one more crash.
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

from tinker_actors.errors import TinkerActorsError
from tinker_actors.kernel import (
    Actor,
    ActorRef,
    DeadLetter,
    Down,
    Ending,
    Message,
    Pending,
    ReplyToken,
    Stop,
    handles,
)

__all__ = ["MODES", "ChaosActor", "Declared", "Name", "Role", "Work", "World", "send"]

Name = tuple[str, int]
"""Which sender, and its how-many-eth message."""

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
        cut: how often its handler was cancelled.
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
    cut: Counter[Name] = attrs.field(factory=Counter)
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
        allowed = 1 + message.max_redeliver + world.cut[name] * (message.max_redeliver > 0)
        world.expect(world.begun[name] <= allowed, f"{name} began once more")
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
        except trio.Cancelled:
            world.cut[name] += 1
            raise
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
        inner = world.message(
            f"{self.context.path}#{self.context.incarnation}:{message.name}", message.depth + 1
        )
        await send(world, world.rng.choice(world.refs), inner, "ask", patience)
        return message.name

    async def do_tell(self, message: Work) -> Any:
        world = self.world
        inner = world.message(
            f"{self.context.path}#{self.context.incarnation}:{message.name}", message.depth + 1
        )
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


# --- sending ---------------------------------------------------------------------------------------------


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
