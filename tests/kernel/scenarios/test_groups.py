"""Groups that are restarted together, siblings that fail meanwhile, and temporary bystanders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import HandlerCrashed, InFlightLost, RestartIntensityExceeded
from tinker_actors.kernel import ActorCrashed, Backoff, Down, Intensity, RestartPolicy

ONCE = RestartPolicy(max_restarts=3, backoff=Backoff(base=10.0, maximum=40.0, jitter=0.0))
TEMPORARY = RestartPolicy(restart="temporary")


@attrs.define
class Troupe:
    """Actors of one supervisor that note their starts and stops, with the seconds since the last crash made."""

    stage: Any
    books: Any
    refs: dict[str, Any] = attrs.field(factory=dict)
    log: list[tuple[str, float]] = attrs.field(factory=list)
    since: float = 0.0

    def note(self, what: str) -> None:
        self.log.append((what, trio.current_time() - self.since))

    def timetable(self) -> str:
        return ", ".join(f"{at:g} {what}" for what, at in self.log)

    def clear(self) -> None:
        self.log.clear()
        self.since = trio.current_time()

    async def start(self, supervisor: Any, name: str, **settings: Any) -> Any:
        """Start an actor that takes 2 seconds to start and 1 to stop; `fails` may raise in one of its starts."""
        fails: Callable[[int], None] = settings.pop("fails", lambda _: None)
        stop_fails = settings.pop("stop_fails", None)

        async def start(actor: Any) -> None:
            await trio.sleep(2)
            self.note(f"start {name}")
            fails(actor.context.incarnation)

        async def stop(_: Any, ending: str) -> None:
            await trio.sleep(1)
            self.note(f"{ending} {name}")
            if stop_fails is not None and ending == "restart":
                raise stop_fails

        settings = {"policy": ONCE, **settings}
        self.refs[name] = await self.books.start(supervisor, name, starting=start, stopping=stop, **settings)
        return self.refs[name]

    async def crash(self, name: str) -> None:
        """Make one crash, from a clean log on."""
        self.clear()
        with pytest.raises(HandlerCrashed):
            await self.refs[name].ask(self.stage.Do(self.stage.fail(ValueError(f"crash of {name}"))))

    def crashes(self) -> list[tuple[str, str, float | None]]:
        events = [event for event in self.stage.events if isinstance(event, ActorCrashed)]
        return [(event.actor.rpartition("/")[2], str(event.cause), event.delay) for event in events]


@pytest.fixture
def troupe(stage: Any, books: Any) -> Troupe:
    return Troupe(stage, books)


def restarts(tree: Any) -> tuple[int, dict[str, int]]:
    """Return what the supervisor has counted, and what each child has."""
    picture = tree.snapshot()
    children = {child.path.rpartition("/")[2]: child.restarts for child in picture.children}
    return picture.restarts, children


def incarnations(tree: Any) -> dict[str, int]:
    return {child.path.rpartition("/")[2]: child.incarnation for child in tree.snapshot().children}


@pytest.mark.scenario(31)
@pytest.mark.rule("S1", "S3")
@pytest.mark.parametrize(
    ("strategy", "order", "lived"),
    [
        (
            "one_for_all",
            "1 crash b, 2 restart d, 3 restart c, 4 restart a, 16 start a, 18 start b, 20 start c, 22 start d",
            {"a": 2, "b": 2, "c": 2, "d": 2},
        ),
        (
            "rest_for_one",
            "1 crash b, 2 restart d, 3 restart c, 15 start b, 17 start c, 19 start d",
            {"a": 1, "b": 2, "c": 2, "d": 2},
        ),
        ("one_for_one", "1 crash b, 13 start b", {"a": 1, "b": 2, "c": 1, "d": 1}),
        ("dynamic", "1 crash b, 13 start b", {"a": 1, "b": 2, "c": 1, "d": 1}),
    ],
)
async def test_who_is_restarted_and_in_what_order(
    stage: Any, troupe: Any, strategy: str, order: str, lived: dict[str, int], autojump_clock: trio.abc.Clock
) -> None:
    """The group stops in reverse, one at a time, waits out the backoff, and starts in order: one restart."""
    async with stage.open(strategy=strategy, intensity=Intensity(max_restarts=1)) as tree:
        for name in "abcd":
            await troupe.start(tree, name)
        await troupe.crash("b")
        await trio.sleep(30)
        assert troupe.timetable() == order
        assert incarnations(tree) == lived
        assert restarts(tree) == (1, {"a": 0, "b": 1, "c": 0, "d": 0})
        for name in "abcd":
            assert await troupe.refs[name].ask(stage.Do(stage.say(name))) == name
    assert troupe.crashes()[0][:2] == ("b", "crash of b")
    assert len(troupe.crashes()) == 1


@pytest.mark.scenario(31)
@pytest.mark.rule("S3", "S8", "A2", "A3")
async def test_what_siblings_of_a_crash_had_begun_and_had_in_line(
    stage: Any, troupe: Any, books: Any, autojump_clock: trio.abc.Clock
) -> None:
    """What ran is lost, what was in line is handled after the restart, and nobody waits for ever."""
    async with stage.open(strategy="one_for_all") as tree:
        for name in "ab":
            await troupe.start(tree, name)
        running = await troupe.refs["a"].submit(stage.Do(stage.sleep(1000)))
        in_line = [await troupe.refs["a"].submit(stage.Do(stage.say(number))) for number in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        await troupe.crash("b")
        with pytest.raises(InFlightLost) as lost:
            await running
        assert (lost.value.started, trio.current_time() - troupe.since) == (True, 1.0)
        assert [await pending for pending in in_line] == [0, 1, 2]
        assert trio.current_time() - troupe.since == 14.0
    assert books.counts(troupe.refs["a"]) == {"admitted": 4, "handled": 3, "failed": 1}


@pytest.mark.scenario(31)
@pytest.mark.rule("S3", "S11", "C8")
@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
@pytest.mark.parametrize("where", ["handler", "on_stop"])
async def test_a_sibling_fails_while_it_is_being_stopped(
    stage: Any,
    troupe: Any,
    strategy: str,
    where: str,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.abc.Clock,
) -> None:
    """Its failure is logged once and not escalated: the budget of one restart is enough, and order is kept."""
    error = RuntimeError("while being stopped")

    async def clean_up(_: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise error

    async with stage.open(strategy=strategy, intensity=Intensity(max_restarts=1)) as tree:
        await troupe.start(tree, "b")
        await troupe.start(tree, "c", policy=RestartPolicy(max_restarts=0), stop_fails=error)
        if where == "handler":
            await troupe.refs["c"].tell(stage.Do(clean_up))
            await trio.testing.wait_all_tasks_blocked()
        await troupe.crash("b")
        await trio.sleep(30)
        assert troupe.timetable() == "1 crash b, 2 restart c, 14 start b, 16 start c"
        assert restarts(tree) == (1, {"b": 1, "c": 0})
        assert await troupe.refs["c"].ask(stage.Do(stage.say("alive"))) == "alive"
    of_c = [record for record in caplog.records if "tree/c" in record.getMessage()]
    texts = [record.getMessage() for record in of_c if record.levelname in ("WARNING", "ERROR")]
    assert [text for text in texts if "on_stop failed" in text] == ["tree/c: on_stop failed"]
    crashes = [text for text in texts if "crashed" in text]
    assert len(crashes) == (where == "handler")
    assert troupe.crashes() == [
        ("b", "crash of b", None),
        *([("c", "while being stopped", None)] if where == "handler" else []),
    ]


def fail_in(*numbers: int) -> Callable[[int], None]:
    def fail(number: int) -> None:
        if number in numbers:
            raise RuntimeError(f"start {number}")

    return fail


@pytest.mark.scenario(31)
@pytest.mark.rule("S2", "S3", "S5", "S7")
@pytest.mark.parametrize(
    ("strategy", "order", "lived"),
    [
        (
            "one_for_all",
            (
                "1 crash a, 2 restart c, 3 restart b, 15 start a, 17 start b, "
                "18 restart a, 30 start a, 32 start b, 34 start c"
            ),
            {"a": 3, "b": 3, "c": 2},
        ),
        (
            "rest_for_one",
            "1 crash a, 2 restart c, 3 restart b, 15 start a, 17 start b, 29 start b, 31 start c",
            {"a": 2, "b": 3, "c": 2},
        ),
    ],
)
async def test_a_sibling_fails_during_the_restart_of_its_group(
    stage: Any, troupe: Any, strategy: str, order: str, lived: dict[str, int], autojump_clock: trio.abc.Clock
) -> None:
    """It counts as one more restart, of its own group: who has come up and is no part of that stays up."""
    async with stage.open(strategy=strategy, intensity=Intensity(max_restarts=2)) as tree:
        await troupe.start(tree, "a")
        await troupe.start(tree, "b", fails=fail_in(2))
        await troupe.start(tree, "c")
        await troupe.crash("a")
        await trio.sleep(100)
        assert troupe.timetable() == order
        assert incarnations(tree) == lived
        assert restarts(tree) == (2, {"a": 1, "b": 1, "c": 0})
        for name in "abc":
            assert await troupe.refs[name].ask(stage.Do(stage.say(name))) == name
    assert [crash[:2] for crash in troupe.crashes()] == [("a", "crash of a"), ("b", "start 2")]


@pytest.mark.scenario(31)
@pytest.mark.rule("S5")
@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_failures_during_group_restarts_use_up_the_budget(
    stage: Any, troupe: Any, strategy: str, autojump_clock: trio.abc.Clock
) -> None:
    """A sibling that never comes up again does not go round for ever: the supervisor gives up, in order."""
    with pytest.raises(RestartIntensityExceeded) as caught:
        async with stage.open(strategy=strategy, intensity=Intensity(max_restarts=2)) as tree:
            await troupe.start(tree, "a")
            await troupe.start(tree, "b", fails=fail_in(2, 3, 4, 5))
            await troupe.start(tree, "c")
            await troupe.crash("a")
            await trio.sleep(10_000)
    assert caught.value.actor == "tree/b"
    assert str(caught.value.__cause__) == "start 3"
    assert len(caught.value.history) == 2
    assert [crash[:2] for crash in troupe.crashes()] == [
        ("a", "crash of a"),
        ("b", "start 2"),
        ("b", "start 3"),
    ]
    assert [what for what, _ in troupe.log if what in ("start c", "restart c", "now c")] == ["restart c"]
    assert troupe.log[-1][0] == "now a"
    assert all(ref.stopped for ref in troupe.refs.values())


@pytest.mark.scenario(31)
@pytest.mark.rule("S3", "S2")
async def test_an_elder_sibling_crashes_while_the_rest_is_restarted(
    stage: Any, troupe: Any, autojump_clock: trio.abc.Clock
) -> None:
    """Under `rest_for_one` the restart under way becomes that of the larger group, after one more backoff."""
    async with stage.open(strategy="rest_for_one") as tree:
        for name in "abc":
            await troupe.start(tree, name)
        await troupe.crash("c")
        await trio.sleep(5)
        with pytest.raises(HandlerCrashed):
            await troupe.refs["a"].ask(stage.Do(stage.fail(ValueError("crash of a"))))
        await trio.sleep(100)
        order = ["crash c", "crash a", "restart b", "start a", "start b", "start c"]
        assert [what for what, _ in troupe.log] == order
        assert incarnations(tree) == {"a": 2, "b": 2, "c": 2}
        assert restarts(tree) == (2, {"a": 1, "b": 0, "c": 1})


@pytest.mark.scenario(32)
@pytest.mark.rule("S3", "S4", "W1", "A2")
@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_temporary_bystander_is_stopped_for_good(
    stage: Any, troupe: Any, books: Any, strategy: str, autojump_clock: trio.abc.Clock
) -> None:
    """It is stopped in its turn and not started again; its line is settled, its watchers hear, its name is free."""
    async with stage.open(strategy=strategy, intensity=Intensity(max_restarts=1)) as tree:
        await troupe.start(tree, "a")
        guest = await troupe.start(tree, "guest", policy=TEMPORARY)
        await troupe.start(tree, "c")
        running = await guest.submit(stage.Do(stage.sleep(1000)))
        in_line = await guest.submit(stage.Do(stage.say("never")))
        await trio.testing.wait_all_tasks_blocked()
        await troupe.crash("a")
        with trio.fail_after(100):
            assert await guest.wait_stopped() == Down("tree/guest", "stopped")
        assert trio.current_time() - troupe.since == 3.0
        for pending, started in ((running, True), (in_line, False)):
            assert pending.settled
            assert pending.outcome.error.started is started
        await trio.sleep(30)
        assert troupe.timetable() == "1 crash a, 2 restart c, 3 restart guest, 15 start a, 17 start c"
        assert restarts(tree) == (1, {"a": 1, "c": 0})
        await troupe.start(tree, "guest", policy=TEMPORARY)
    assert books.counts(guest) == {"admitted": 2, "failed": 1, "rejected": 1}


@pytest.mark.scenario(32)
@pytest.mark.rule("S3", "S4")
@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_temporary_child_that_crashes_concerns_nobody(
    stage: Any, troupe: Any, strategy: str, autojump_clock: trio.abc.Clock
) -> None:
    """It has failed for good, no sibling is touched, and no restart is counted."""
    async with stage.open(strategy=strategy, intensity=Intensity(max_restarts=0)) as tree:
        guest = await troupe.start(tree, "guest", policy=TEMPORARY)
        await troupe.start(tree, "b")
        await troupe.crash("guest")
        down = await guest.wait_stopped()
        assert (down.reason, str(down.cause)) == ("failed", "crash of guest")
        await trio.sleep(30)
        assert troupe.timetable() == "1 crash guest"
        assert restarts(tree) == (0, {"b": 0})
        assert incarnations(tree) == {"b": 1}
