"""What a service does is written down, once a second, and nothing of it is delayed or ended by that."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.actors.event import EventHub
from tinker_actors.actors.recorder import Recorder
from tinker_actors.actors.service_client import open_client
from tinker_actors.actors.waits import Waits
from tinker_actors.errors import ActorError
from tinker_actors.journal.event_file import open_event_file
from tinker_actors.kernel import (
    Actor,
    ActorRef,
    Backoff,
    ChildSpec,
    KernelEvent,
    Message,
    PoolSpec,
    RestartPolicy,
    handles,
    open_supervisor,
    start_pool,
)
from tinker_actors.observe import latest_snapshot, read_events
from tinker_actors.protocol.event import ServerBack
from tinker_actors.protocol.event_line import ActorEnded, ActorHangs, ActorReady, MessageLost, MessagesLost
from tinker_actors.protocol.tree_seen import (
    ActorSeen,
    MailboxSeen,
    PastSeen,
    RunningSeen,
    SupervisorSeen,
    TreePicture,
    TreeSeen,
)
from tinker_actors.protocol.wait import WaitSeen
from tinker_actors.transport.config import Config

MODEL = "tinker-actors/char-100k"
WALL = 1000.0  # wall time when the virtual clock begins


class Worker:
    """Role of the actors of these tests."""


@attrs.frozen
class Work(Message[Worker, None]):
    seconds: float = 0.0
    error: Exception | None = None


class WorkerActor(Actor[Worker]):
    declares = (KeyError,)

    @handles(Work)
    async def work(self, message: Work) -> None:
        await trio.sleep(message.seconds)
        if message.error is not None:
            raise message.error


class Sink:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.times: list[float] = []
        self.secrets: set[str] = set()
        self.whole = False

    def now(self) -> float:
        return WALL + trio.current_time()

    def write(self, event: object) -> None:
        self.written.append(event)
        self.times.append(trio.current_time())

    def hide(self, secrets: Iterable[str]) -> None:
        self.secrets |= set(secrets)

    def wants_whole(self) -> bool:
        whole, self.whole = self.whole, False
        return whole

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.written if isinstance(event, kinds)]

    def picture(self) -> TreePicture:
        picture = TreePicture()
        assert all(picture.add(seen) for seen in self.of(TreeSeen))
        return picture


@attrs.define
class Stage:
    """A tree whose doings go to a sink."""

    tree: Any = None
    sink: Sink = attrs.field(factory=Sink)
    secrets: list[str] = attrs.field(factory=list)
    hub: EventHub = attrs.field(factory=EventHub)
    waits: Waits = attrs.field(default=attrs.Factory(lambda self: Waits(self.hub), takes_self=True))
    sightings: list[Callable[[KernelEvent], object]] = attrs.field(factory=list)

    def observe(self, event: KernelEvent) -> None:
        for sighting in self.sightings:
            sighting(event)

    async def start(self, name: str = "a", **settings: Any) -> ActorRef[Worker]:
        ref: ActorRef[Worker] = await self.tree.start_child(
            ChildSpec(**{"name": name, "factory": WorkerActor, **settings})
        )
        return ref


@contextlib.asynccontextmanager
async def recorded(*secrets: str) -> AsyncIterator[Stage]:
    """Open a tree that is recorded from the beginning to the end."""
    stage = Stage(secrets=list(secrets))
    async with open_supervisor("tree", rng=random.Random(0), observer=stage.observe) as stage.tree:
        recorder = Recorder(stage.sink, stage.tree, stage.waits, lambda: stage.secrets)
        recorder.begin(stage.hub, stage.sightings)
        yield stage


async def test_a_picture_a_second_shows_what_is_new(autojump_clock: trio.abc.Clock) -> None:
    """What runs since when, what ended when and how, all in wall time; what stands still is written once a minute."""
    async with recorded() as stage:
        sink = stage.sink
        ref = await stage.start()
        await ref.ask(Work(0.25))
        with pytest.raises(KeyError):
            await ref.ask(Work(error=KeyError()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.ask, Work(100))
            await trio.sleep(70)
            pictures = sink.of(TreeSeen)
            assert pictures[0].whole
            assert pictures[0].supervisors == (SupervisorSeen(path="tree", strategy="one_for_one"),)
            assert pictures[0].actors == (
                ActorSeen(
                    path="tree/a",
                    life="running",
                    incarnation=1,
                    mailbox="tree/a",
                    running=(RunningSeen(message="Work", seq=2, since=WALL + 0.25),),
                ),
            )
            assert pictures[0].mailboxes == (
                MailboxSeen(
                    path="tree/a",
                    capacity=pictures[0].mailboxes[0].capacity,
                    running=1,
                    admitted=3,
                    handled=1,
                    failed=1,
                    past=(
                        PastSeen(message="Work", seq=0, at=WALL + 0.25, seconds=0.25),
                        PastSeen(message="Work", seq=1, at=WALL + 0.25, seconds=0.0, outcome="KeyError"),
                    ),
                ),
            )
            assert [one.number for one in pictures if one.actors] == [1, 61]
            assert [one.number for one in pictures if one.whole] == [1, 61]
    picture = sink.picture()
    assert (list(picture.supervisors), picture.actors, picture.mailboxes) == (["tree"], {}, {})


async def test_a_new_file_gets_a_whole_picture(autojump_clock: trio.abc.Clock) -> None:
    """At the next look after it was asked for."""
    async with recorded() as stage:
        sink = stage.sink
        await trio.sleep(5.5)
        sink.whole = True
        await trio.sleep(5)
    assert [one.number for one in sink.of(TreeSeen) if one.whole] == [1, 6]


async def test_starts_ends_and_crashes_are_told(autojump_clock: trio.abc.Clock) -> None:
    """And of an actor that waits for its restart, when that is due and what it died of, without secrets."""
    async with recorded("hush-hush") as stage:
        sink = stage.sink
        policy = RestartPolicy(restart="transient", backoff=Backoff(base=4.0, jitter=0.0))
        ref = await stage.start(policy=policy)
        with pytest.raises(ActorError):
            await ref.ask(Work(error=ValueError("hush-hush, tml-abcdefgh")))
        await trio.sleep(1.5)
        seen = sink.picture().actors["tree/a"]
        assert (seen.life, seen.restart_at, seen.failure) == (
            "restarting",
            WALL + 4.0,
            "ValueError('***, ***')",
        )
        await trio.sleep(3)
    assert sink.of(ActorReady, ActorEnded) == [
        ActorReady("tree/a", 1),
        ActorReady("tree/a", 2),
        ActorEnded("tree/a", 2, failed=False),
    ]
    assert sink.secrets == {"hush-hush"}


async def test_a_secret_that_is_known_later_is_masked_from_then_on(autojump_clock: trio.abc.Clock) -> None:
    """Also in a text that was shown before, such as what an actor died of."""
    async with recorded() as stage:
        policy = RestartPolicy(restart="transient", backoff=Backoff(base=20.0, jitter=0.0))
        ref = await stage.start(policy=policy)
        with pytest.raises(ActorError):
            await ref.ask(Work(error=ValueError("no entry with renewed-key")))
        await trio.sleep(1.5)
        assert stage.sink.picture().actors["tree/a"].failure == "ValueError('no entry with renewed-key')"
        stage.secrets.append("renewed-key")
        await trio.sleep(1)
        assert stage.sink.picture().actors["tree/a"].failure == "ValueError('no entry with ***')"


async def test_an_actor_that_does_not_end_is_told(autojump_clock: trio.abc.Clock) -> None:
    """With the place where it stands."""
    async with recorded() as stage:
        sink = stage.sink

        class Deaf(WorkerActor):
            @handles(Work)
            async def work(self, message: Work) -> None:
                with trio.CancelScope(shield=True):
                    await trio.sleep(30)

        ref = await stage.start(factory=Deaf, cleanup_timeout=1.0)
        await ref.tell(Work())
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop("kill", 0.0)
        await trio.sleep(2)
        (hangs,) = sink.of(ActorHangs)
        assert "sleep" in hangs.stack


async def test_lost_messages_are_told_until_there_are_too_many(autojump_clock: trio.abc.Clock) -> None:
    """The first ones of each second one by one, the others by their number."""
    async with recorded() as stage:
        sink = stage.sink
        ref = await stage.start(capacity=100)
        for _ in range(50):
            await ref.tell(Work(error=KeyError()))
        await trio.sleep(1.5)
        assert sink.of(MessageLost)[0] == MessageLost("tree/a", "failed", "Work", 0)
        assert len(sink.of(MessageLost)) == 20
        assert sink.of(MessagesLost) == [MessagesLost({"failed": 30})]
        await ref.tell(Work(error=KeyError()))
        await trio.sleep(1)
        assert len(sink.of(MessageLost)) == 21


async def test_a_pool_has_one_mailbox(autojump_clock: trio.abc.Clock) -> None:
    """It is shown once, under the pool's path, and each worker names it; of many messages the oldest are shown."""
    async with recorded() as stage:
        sink = stage.sink
        pool = await start_pool(stage.tree, PoolSpec(name="pool", workers=2, concurrency=20), WorkerActor)
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(pool.ref.ask, Work(5))
            await trio.sleep(1.5)
            picture = sink.picture()
            assert list(picture.mailboxes) == ["tree/pool"]
            assert picture.mailboxes["tree/pool"].running == 30
            workers = [picture.actors[f"tree/pool/worker-{number}"] for number in range(2)]
            assert [one.mailbox for one in workers] == ["tree/pool", "tree/pool"]
            assert [len(one.running) for one in workers] == [8, 8]
            for one in workers:
                assert [running.seq for running in one.running] == sorted(
                    running.seq for running in one.running
                )


async def test_who_waits_for_what_is_told(autojump_clock: trio.abc.Clock) -> None:
    """In each picture, the longest wait first, without secrets."""
    async with recorded("hush-hush") as stage:
        sink = stage.sink
        entry = stage.waits.enter("m", "OptimStep", "r1")
        entry.reason = "full of hush-hush"
        await trio.sleep(2.5)
        assert sink.of(TreeSeen)[-1].waits == (
            WaitSeen("m", "OptimStep", "r1", 2.0, "active", "full of ***", 1),
        )
        stage.waits.leave(entry)
        await trio.sleep(1)
        assert sink.of(TreeSeen)[-1].waits == ()


async def test_a_look_that_takes_long_is_taken_less_often(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking takes one part in two hundred of the time, however large the tree is."""
    async with recorded() as stage:
        sink = stage.sink
        look = stage.waits.look

        def slow() -> list[WaitSeen]:
            autojump_clock.jump(0.05)
            return look()

        monkeypatch.setattr(stage.waits, "look", slow)
        await trio.sleep(100)
        assert 9 <= len(sink.of(TreeSeen)) <= 11


async def test_a_look_that_fails_ends_nothing_but_itself(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and there is no further one while the tree runs."""
    with caplog.at_level(logging.ERROR):
        async with recorded() as stage:
            ref = await stage.start()
            stage.waits.sources.append(lambda: 1 / 0)  # type: ignore[arg-type, return-value]  # it raises
            await trio.sleep(10)
            assert len(caplog.records) == 1
            await ref.ask(Work())
            stage.waits.sources.clear()
    assert "not written down any more" in caplog.text
    assert len(stage.sink.of(TreeSeen)) == 1


# --- a service ----------------------------------------------------------------------------------------------


async def test_a_service_is_written_down_from_its_opening_to_its_end(
    autojump_clock: trio.abc.Clock, stub: Any, batch: Any, tmp_path: Path
) -> None:
    """Its actors, their last messages, who waits, and its events, in a file; and no key of it."""
    stub.held["forward_backward"] = trio.Event()

    async def opened(file: Any) -> None:
        config = Config(base_url="http://stub", heartbeat="loop", api_key="tml-very-secret-key")
        async with open_client(
            config,
            rng=random.Random(0),
            backend="http://stub",
            chosen="using the stub",
            through=stub,
            record=file,
        ) as service:
            training = await service.create_lora_training_client(MODEL)
            pending = await training.forward_backward(batch(), "cross_entropy")
            await trio.sleep(5)
            service._tree.events.publish(ServerBack(3.0))
            found = latest_snapshot(tmp_path)
            assert found is not None
            picture: Any = found.event
            assert "service/training/model-0" in {actor.path for actor in picture.actors}
            assert [wait.what for wait in picture.waits] == ["ForwardBackward"]
            past = {box.path: [one.message for one in box.past] for box in picture.mailboxes}
            assert past["service/training/model-0"] == []
            stub.held["forward_backward"].set()
            await pending
            await trio.sleep(2)

    async with open_event_file(tmp_path / "events.jsonl", inline=True) as file:
        await opened(file)
    recorded = [one.event for one in read_events(tmp_path)]
    assert ServerBack(3.0) in recorded
    ready = {one.actor for one in recorded if isinstance(one, ActorReady)}
    assert {"service/session", "service/heartbeat", "service/futures", "service/training/model-0"} <= ready
    last: Any = latest_snapshot(tmp_path)
    assert last.event.actors == ()
    assert "very-secret" not in (tmp_path / "events.jsonl").read_text()


async def test_recording_may_begin_later(autojump_clock: trio.abc.Clock, open_stub: Any) -> None:
    """By the service's own reference."""
    sink = Sink()
    async with open_stub() as service:
        service.ref.record(sink)
        await trio.sleep(1.5)
        assert "service/session" in sink.picture().actors
    assert sink.picture().actors == {}
