"""Messages to the wrong role, and handlers with the wrong reply, are refused. Checked, never run."""

from __future__ import annotations

import attrs

from tinker_actors.kernel import Actor, ActorRef, ChildSpec, Message, Pending, Pool, ReplyToken, Stop, handles


class Store:
    """A role."""


class Counter(Store):
    """A narrower role."""


class Printer:
    """A role that has nothing to do with the others."""


@attrs.frozen
class Add(Message[Counter, int]):
    amount: int


@attrs.frozen
class Print(Message[Printer, None]):
    text: str


class CounterActor(Actor[Counter]):
    @handles(Add)  # E: mypy[arg-type] pyright[reportArgumentType]
    async def add(self, message: Add) -> str:
        return "three"


class OtherActor(Actor[Counter]):
    @handles(Add)  # E: mypy[arg-type] pyright[reportArgumentType]
    async def add(self, message: Add) -> ReplyToken[str]:
        return self.context.detach_reply()


class EndingActor(Actor[Counter]):
    @handles(Add)  # E: mypy[arg-type] pyright[reportArgumentType]
    async def add(self, message: Add) -> Stop[str]:
        return Stop("three")


class PlainActor(Actor[Counter]):
    @handles(Add)  # E: mypy[arg-type] pyright[reportArgumentType]
    def add(self, message: Add) -> int:
        return message.amount


class WordActor(Actor[Counter]):
    @handles(str)  # E: mypy[arg-type] pyright[reportArgumentType]
    async def add(self, message: str) -> int:
        return len(message)


class TimerActor(Actor[Counter]):
    async def on_start(self) -> None:
        """An actor sends itself what it may be sent."""
        self.context.send_after(1, Print("x"))  # E: mypy[arg-type] pyright[reportArgumentType]


async def wrong_role(counter: ActorRef[Counter], store: ActorRef[Store], pool: Pool[Counter]) -> None:
    await counter.ask(Print("x"))  # E: mypy[arg-type] pyright[reportArgumentType]
    await counter.tell(Print("x"))  # E: mypy[arg-type] pyright[reportArgumentType]
    counter.tell_nowait(Print("x"))  # E: mypy[arg-type] pyright[reportArgumentType]
    await counter.submit(Print("x"))  # E: mypy[arg-type] pyright[reportArgumentType]
    counter.submit_nowait(Print("x"))  # E: mypy[arg-type] pyright[reportArgumentType]
    await counter.submit_many([Print("x")])  # E: mypy[list-item] pyright[reportArgumentType]
    await pool.ref.ask(Print("x"))  # E: mypy[arg-type] pyright[reportArgumentType]
    await store.ask(Add(1))  # E: mypy[arg-type] pyright[reportArgumentType]
    narrower: ActorRef[Counter] = store  # E: mypy[assignment] pyright[reportAssignmentType]
    await narrower.ask(Add(1))
    made = ChildSpec(name="a", factory=TimerActor)
    spec: ChildSpec[Printer] = made  # E: mypy[assignment] pyright[reportAssignmentType]
    print(spec)


async def wrong_reply(counter: ActorRef[Counter]) -> None:
    text: str = await counter.ask(Add(1))  # E: mypy[arg-type] pyright[reportAssignmentType]
    pending: Pending[str] = await counter.submit(Add(1))  # E: mypy[arg-type] pyright[reportAssignmentType]
    await counter.ask(Add("one"))  # E: mypy[arg-type] pyright[reportArgumentType]
    print(text, pending)
