"""A stage for the tests of the kernel: actors that do what a message tells them, and trees to run them in."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import attrs
import pytest
import trio

from tinker_actors.kernel import (
    Actor,
    ActorCrashed,
    ActorRef,
    ChildSpec,
    Ending,
    KernelEvent,
    Message,
    Supervisor,
    handles,
    open_supervisor,
)

Run = Callable[["PuppetActor"], Awaitable[Any]]


class Puppet:
    """Role of the actors that do what a message tells them."""


class Declared(Exception):
    """An answer of every puppet, not a crash."""


@attrs.frozen(eq=False)
class Do(Message[Puppet, Any]):
    """Run something in the handler; its result is the reply."""

    run: Run


class Finish(Do):
    """The same; its caller's leaving does not stop it."""

    on_abandon = "finish"


class Wait(Do):
    """The same; its caller waits until it has unwound."""

    on_abandon = "wait"


class Part(Do):
    """The same, as a part of a unit."""

    unit = "part"


class End(Do):
    """The same, as the end of a unit."""

    unit = "end"


class Strange(Do):
    """A message no puppet has a handler for."""


@attrs.define(eq=False)
class PuppetActor(Actor[Puppet]):
    """Does what it is told; its hooks are given."""

    declares = (Declared,)

    starting: Run | None = None
    draining: Run | None = None
    stopping: Callable[[PuppetActor, Ending], Awaitable[Any]] | None = None

    async def on_start(self) -> None:
        if self.starting is not None:
            await self.starting(self)

    async def on_drain(self) -> None:
        if self.draining is not None:
            await self.draining(self)

    async def on_stop(self, ending: Ending) -> None:
        if self.stopping is not None:
            await self.stopping(self, ending)

    @handles(Do)
    async def do(self, message: Do) -> Any:
        return await message.run(self)

    @handles(Finish)
    async def finish(self, message: Finish) -> Any:
        return await message.run(self)

    @handles(Wait)
    async def wait(self, message: Wait) -> Any:
        return await message.run(self)

    @handles(Part)
    async def part(self, message: Part) -> Any:
        return await message.run(self)

    @handles(End)
    async def end(self, message: End) -> Any:
        return await message.run(self)


@attrs.define(eq=False)
class Stage:
    """What a test needs: the messages, a place to note what happened, and actors."""

    Do = Do
    Finish = Finish
    Wait = Wait
    Part = Part
    End = End
    Strange = Strange
    Puppet = Puppet
    PuppetActor = PuppetActor
    Declared = Declared

    events: list[KernelEvent] = attrs.field(factory=list)
    log: list[Any] = attrs.field(factory=list)

    @contextlib.asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[Supervisor]:
        """Open a tree whose events are kept."""
        settings = {"rng": random.Random(0), "observer": self.events.append, **settings}
        async with open_supervisor("tree", **settings) as tree:
            yield tree

    def spec(self, name: str = "a", **settings: Any) -> ChildSpec[Puppet]:
        """Describe a puppet; hooks and settings of the spec are given by name."""
        hooks = {
            hook: settings.pop(hook) for hook in ("starting", "draining", "stopping") if hook in settings
        }
        settings.setdefault("factory", lambda: PuppetActor(**hooks))
        return ChildSpec(name=name, **settings)

    async def start(self, tree: Supervisor, name: str = "a", **settings: Any) -> ActorRef[Puppet]:
        """Start a puppet."""
        return await tree.start_child(self.spec(name, **settings))

    def say(self, value: Any) -> Run:
        """Note a value and reply with it."""

        async def run(_: PuppetActor) -> Any:
            self.log.append(value)
            await trio.lowlevel.checkpoint()
            return value

        return run

    def fail(self, error: BaseException) -> Run:
        """Raise."""

        async def run(_: PuppetActor) -> Any:
            await trio.lowlevel.checkpoint()
            raise error

        return run

    def sleep(self, seconds: float, value: Any = None) -> Run:
        """Note begin and end of a sleep, and whether it was cancelled."""

        async def run(_: PuppetActor) -> Any:
            self.log.append(("begin", value))
            try:
                await trio.sleep(seconds)
            except trio.Cancelled:
                self.log.append(("cancelled", value))
                raise
            self.log.append(("end", value))
            return value

        return run

    @property
    def delays(self) -> list[float | None]:
        """The delay after each crash."""
        return [event.delay for event in self.events if isinstance(event, ActorCrashed)]


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, also where the tests run in the background and it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def stage() -> Stage:
    """Give a fresh stage."""
    return Stage()
