"""Who would wait for himself is told so at once, with the path; nobody else is."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.errors import AskCycle, Withdrawn
from tinker_actors.kernel import PoolSpec, Stop, handles, start_pool
from tinker_actors.kernel.cycle import check_cycle, find_cycle
from tinker_actors.kernel.reader import Reader, waiting_on


@attrs.define(eq=False)
class Place:
    """A mailbox as the search sees it."""

    owner: str
    readers: list[Reader] = attrs.field(factory=list)
    all_must_end: bool = False

    def occupants(self, *, exclusive: bool) -> tuple[list[Reader], bool]:
        return self.readers, self.all_must_end or exclusive

    def add(self) -> Reader:
        """Give it one more busy reader."""
        reader = Reader(self, [])
        self.readers.append(reader)
        return reader


# --- the search itself --------------------------------------------------------------------------------------


def test_a_chain_back_to_the_asker_is_a_cycle() -> None:
    """The path goes from the asker through all who wait, back to the asker."""
    a, b, c = Place("a"), Place("b"), Place("c")
    asker, in_b, in_c = a.add(), b.add(), c.add()
    assert find_cycle(asker, a, exclusive=False) == ("a", "a")
    assert find_cycle(asker, b, exclusive=False) is None
    with waiting_on(in_b, c), waiting_on(in_c, a):
        assert find_cycle(asker, b, exclusive=False) == ("a", "b", "c", "a")
    assert find_cycle(asker, b, exclusive=False) is None
    with pytest.raises(AskCycle, match=r"waiting for a would never end: a -> a") as caught:
        check_cycle(asker, a, exclusive=False)
    assert caught.value.path == ("a", "a")
    assert caught.value.actor == "a"


def test_one_free_reader_is_enough() -> None:
    """With several readers all must be blocked; before an exclusive message one is enough."""
    a, b = Place("a"), Place("b")
    asker, first, second = a.add(), b.add(), b.add()
    with waiting_on(first, a):
        assert find_cycle(asker, b, exclusive=False) is None
        assert find_cycle(asker, b, exclusive=True) == ("a", "b", "a")
        with waiting_on(second, a):
            assert find_cycle(asker, b, exclusive=False) == ("a", "b", "a")
        b.all_must_end = True
        assert find_cycle(asker, b, exclusive=False) == ("a", "b", "a")


def test_an_empty_place_blocks_nobody() -> None:
    """Where nobody is busy, a message is served."""
    a, b = Place("a"), Place("b")
    assert find_cycle(a.add(), b, exclusive=False) is None
    assert find_cycle(a.readers[0], b, exclusive=True) is None


def test_a_handler_that_waits_on_several_is_blocked_by_any() -> None:
    """One of its waits that never ends is enough."""
    a, b, c = Place("a"), Place("b"), Place("c")
    asker, in_b = a.add(), b.add()
    c.add()
    with waiting_on(in_b, c):
        assert find_cycle(asker, b, exclusive=False) is None
        with waiting_on(in_b, a):
            assert find_cycle(asker, b, exclusive=False) == ("a", "b", "a")


def test_a_ring_without_the_asker_is_found_only_with_him() -> None:
    """Two that wait for each other do not make the search run for ever, nor a third one part of their ring."""
    a, b, c, d = Place("a"), Place("b"), Place("c"), Place("d")
    asker, in_b, in_c = a.add(), b.add(), c.add()
    other_b = b.add()
    d.add()
    with waiting_on(in_b, c), waiting_on(in_c, b), waiting_on(other_b, d):
        assert find_cycle(asker, b, exclusive=False) is None
        with waiting_on(other_b, a):
            path = find_cycle(asker, b, exclusive=False)
            assert path is not None
            assert path[0] == path[-1] == "a"


def test_the_longest_way_is_shown() -> None:
    """Where all of several readers are blocked, the path is the one that explains most."""
    a, b, c = Place("a"), Place("b"), Place("c")
    asker, first, second, in_c = a.add(), b.add(), b.add(), c.add()
    with waiting_on(first, a), waiting_on(second, c), waiting_on(in_c, a):
        assert find_cycle(asker, b, exclusive=False) == ("a", "b", "c", "a")


# --- actors -------------------------------------------------------------------------------------------------


def ask(stage: Any, ref: Any, run: Any) -> Any:
    """Make a handler that asks another actor, and gives the path of a cycle."""

    async def asking(_: Any) -> Any:
        try:
            return await ref.ask(stage.Do(run))
        except AskCycle as error:
            return error.path

    return asking


@pytest.mark.rule("K5")
async def test_a_self_ask_is_refused_in_no_time(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """From a handler, and from a task of a nursery that the handler opened; a tell is allowed."""
    async with stage.open() as tree:
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(ask(stage, ref, stage.say("never")))) == ("tree/a", "tree/a")

        async def beside(_: Any) -> Any:
            found: list[Any] = []

            async def child() -> None:
                found.append(await ask(stage, ref, stage.say("never"))(None))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
            await ref.tell(stage.Do(stage.say("told")))
            return found

        assert await ref.ask(stage.Do(beside)) == [("tree/a", "tree/a")]
    assert stage.log == ["told"]
    assert trio.current_time() == 0


@pytest.mark.rule("K5")
async def test_a_chain_through_others_is_refused(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A -> b -> c -> a: the one that would close the ring is told, the others get their answers."""
    async with stage.open() as tree:
        a, b, c = [await stage.start(tree, name) for name in "abc"]
        runs = ask(stage, b, ask(stage, c, ask(stage, a, stage.say("never"))))
        with trio.fail_after(5):
            assert await a.ask(stage.Do(runs)) == ("tree/c", "tree/a", "tree/b", "tree/c")
    assert stage.log == []


@pytest.mark.rule("K5")
async def test_separate_chains_that_meet_are_a_cycle(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A asks b while b, for somebody else, asks a: one of the two is refused, and the other answered."""
    async with stage.open() as tree:
        a, b = [await stage.start(tree, name) for name in "ab"]
        found: list[Any] = []

        def late(other: Any) -> Any:
            async def run(actor: Any) -> Any:
                await trio.sleep(1)
                return await ask(stage, other, stage.say("yes"))(actor)

            return run

        async def call(ref: Any, other: Any) -> None:
            found.append(await ref.ask(stage.Do(late(other))))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, a, b)
                nursery.start_soon(call, b, a)
        assert found.count("yes") == 1
        assert {("tree/a", "tree/b", "tree/a"), ("tree/b", "tree/a", "tree/b")} & set(found)


async def test_an_innocent_queue_is_no_cycle(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Asking somebody who is merely busy, or waits for a third one, is fine; and so is asking from `spawn`."""
    async with stage.open() as tree:
        a, b, c = [await stage.start(tree, name) for name in "abc"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(c.ask, stage.Do(stage.sleep(3, "c")))
            nursery.start_soon(b.ask, stage.Do(ask(stage, c, stage.say("from c"))))
            await trio.testing.wait_all_tasks_blocked()
            assert await a.ask(stage.Do(ask(stage, b, stage.say("from b")))) == "from b"

        async def spawn(actor: Any) -> None:
            async def own() -> None:
                stage.log.append(await actor.context.ref.ask(stage.Do(stage.say("own"))))

            await trio.lowlevel.checkpoint()
            actor.context.spawn(own)

        await a.ask(stage.Do(spawn))
        await trio.testing.wait_all_tasks_blocked()
        assert stage.log[-2:] == ["own", "own"]


async def test_a_note_is_gone_when_the_wait_is(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A handler that gave up waiting is no part of a cycle any more."""
    async with stage.open() as tree:
        a, b = [await stage.start(tree, name) for name in "ab"]

        async def give_up(_: Any) -> Any:
            with trio.move_on_after(1):
                await b.ask(stage.Do(stage.sleep(100)))
            await trio.sleep(3)
            return "a is free soon"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.ask, stage.Do(give_up))
            await trio.sleep(2)
            assert await b.ask(stage.Do(ask(stage, a, stage.say("answer")))) == "answer"


async def test_side_by_side_the_last_free_place_counts(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """With k handlers at once an actor may ask itself, but not with the last of them."""
    async with stage.open() as tree:
        ref = await stage.start(tree, concurrency=2)
        inner = ask(stage, ref, stage.say("never"))
        with trio.fail_after(5):
            assert await ref.ask(stage.Do(ask(stage, ref, stage.say("served")))) == "served"
            assert await ref.ask(stage.Do(ask(stage, ref, inner))) == ("tree/a", "tree/a")
    assert stage.log == ["served"]


@pytest.mark.rule("K5")
async def test_a_pool_is_a_cycle_when_all_workers_wait(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """One free worker serves the ask; with none the last asker is told."""
    async with stage.open() as tree:
        pool = await start_pool(tree, PoolSpec(name="pool", workers=2), stage.PuppetActor)
        ref = pool.ref
        with trio.fail_after(5):
            assert await ref.ask(stage.Do(ask(stage, ref, stage.say("served")))) == "served"
            inner = ask(stage, ref, stage.say("never"))
            assert await ref.ask(stage.Do(ask(stage, ref, inner))) == ("tree/pool", "tree/pool")


async def test_a_worker_of_a_pool_with_lines_of_their_own_may_ask(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """With `least_loaded`, the ask goes to another worker; a pool of one would wait for itself."""
    async with stage.open() as tree:
        spec = PoolSpec(name="pool", workers=2, routing="least_loaded")
        pool = await start_pool(tree, spec, stage.PuppetActor)
        with trio.fail_after(5):
            assert await pool.ref.ask(stage.Do(ask(stage, pool.ref, stage.say("served")))) == "served"
            await pool.resize(1)
            await trio.testing.wait_all_tasks_blocked()
            path = await pool.ref.ask(stage.Do(ask(stage, pool.ref, stage.say("never"))))
        assert path[0] == path[-1]


async def test_an_exclusive_ask_waits_for_everybody(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """An actor with free places that asks itself exclusively would wait for its own handler."""

    class Alone(stage.Do):
        exclusive = True

    class Host(stage.PuppetActor):
        @handles(Alone)
        async def alone(self, message: Any) -> Any:
            return await message.run(self)

    async def asking(actor: Any) -> Any:
        with pytest.raises(AskCycle):
            await actor.context.ref.ask(Alone(stage.say("never")))
        return "told"

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=Host, concurrency=8)
        with trio.fail_after(5):
            assert await ref.ask(stage.Do(asking)) == "told"
            assert await ref.ask(Alone(asking)) == "told"
            inside = ask(stage, ref, stage.say("never"))
            assert await ref.ask(Alone(inside)) == ("tree/a", "tree/a")


async def test_an_exclusive_message_in_line_blocks_those_behind(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """What stands behind a barrier waits for all that run: a handler that asks there is told."""

    class Alone(stage.Do):
        exclusive = True

    class Host(stage.PuppetActor):
        @handles(Alone)
        async def alone(self, message: Any) -> Any:
            return await message.run(self)

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=Host, concurrency=8)

        async def late(actor: Any) -> Any:
            await trio.sleep(1)
            return await ask(stage, ref, stage.say("never"))(actor)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                pending = await ref.submit(stage.Do(late))
                nursery.start_soon(ref.ask, Alone(stage.say("alone")))
                assert await pending == ("tree/a", "tree/a")
    assert stage.log == ["alone"]


async def test_a_pending_awaited_inside_is_an_ask(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Awaiting what waits for oneself is refused; once it is settled, it is only read."""
    async with stage.open() as tree:
        a, b = [await stage.start(tree, name) for name in "ab"]

        async def self_wait(actor: Any) -> Any:
            pending = await a.submit(stage.Do(stage.say("after")))
            with pytest.raises(AskCycle):
                await pending
            assert await pending.withdraw()
            with pytest.raises(Withdrawn):
                await pending
            other = await b.submit(stage.Do(stage.say("b")))
            return await other, await other

        with trio.fail_after(5):
            assert await a.ask(stage.Do(self_wait)) == ("b", "b")
    assert stage.log == ["b"]


@pytest.mark.rule("K5")
async def test_a_blocked_send_is_a_wait(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A handler that would wait for room in its own full mailbox is told; room in another one may be waited for."""
    async with stage.open() as tree:
        a = await stage.start(tree, "a", capacity=1)
        b = await stage.start(tree, "b", capacity=1)

        async def fill(_: Any) -> Any:
            await a.tell(stage.Do(stage.say("fits")))
            with pytest.raises(AskCycle) as caught:
                await a.tell(stage.Do(stage.say("never")))
            with pytest.raises(AskCycle):
                await a.submit(stage.Do(stage.say("never")))
            for number in range(3):
                await b.tell(stage.Do(stage.sleep(1, number)))
            return caught.value.path

        with trio.fail_after(10):
            assert await a.ask(stage.Do(fill)) == ("tree/a", "tree/a")
            await trio.sleep(5)
    assert stage.log.count("fits") == 1
    assert "never" not in stage.log


async def test_a_send_that_waits_closes_the_ring(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A waits for room in b, b asks a: one of them is told, nothing hangs."""
    async with stage.open() as tree:
        a = await stage.start(tree, "a", capacity=1)
        b = await stage.start(tree, "b", capacity=1)

        async def flood(_: Any) -> Any:
            await trio.sleep(1)
            for number in range(3):
                await b.tell(stage.Do(stage.say(number)))
            return "flooded"

        async def asking(actor: Any) -> Any:
            await trio.sleep(2)
            return await ask(stage, a, stage.say("never"))(actor)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.ask, stage.Do(flood))
                assert await b.ask(stage.Do(asking)) == ("tree/b", "tree/a", "tree/b")
    assert stage.log == [0, 1, 2]


# --- reentrant messages -------------------------------------------------------------------------------------


def reentrant(stage: Any, **fields: Any) -> tuple[Any, Any]:
    """Make a reentrant message, and an actor that handles it."""

    class Again(stage.Do):
        reentrant = True
        on_abandon = fields.get("on_abandon", "cancel")

    class Host(stage.PuppetActor):
        @handles(Again)
        async def again(self, message: Any) -> Any:
            return await message.run(self)

    return Again, Host


@pytest.mark.rule("K5")
async def test_a_reentrant_ask_is_handled_at_once(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """Beside the handler that waits for it, and before what is in line; it is counted like any other."""
    again, host = reentrant(stage)

    async def outer(actor: Any) -> Any:
        return ["outer", await actor.context.ref.ask(again(inner))]

    async def inner(actor: Any) -> Any:
        assert actor.context.call.message.run is inner
        return ["inner", await actor.context.ref.ask(again(stage.say("innermost")))]

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=host)
        async with trio.open_nursery() as nursery:
            pending = await ref.submit(stage.Do(outer))
            nursery.start_soon(ref.ask, stage.Do(stage.say("in line")))
            with trio.fail_after(5):
                assert await pending == ["outer", ["inner", "innermost"]]
        assert stage.log == ["innermost", "in line"]
        seen = ref.statistics()
        assert (seen.admitted, seen.handled, seen.running) == (4, 4, 0)


async def test_a_reentrant_message_waits_its_turn_elsewhere(stage: Any) -> None:
    """From outside, or where there is no cycle, it stands in line like all others."""
    again, host = reentrant(stage)
    async with stage.open() as tree:
        ref = await stage.start(tree, factory=host)
        pending = await ref.submit(stage.Do(stage.say("first")))
        assert await ref.ask(again(stage.say("second"))) == "second"
        assert pending.settled
    assert stage.log == ["first", "second"]


async def test_a_reentrant_crash_is_a_crash(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """It ends the incarnation with both messages; the next one serves again."""
    again, host = reentrant(stage)

    async def outer(actor: Any) -> Any:
        await actor.context.ref.ask(again(stage.fail(ValueError("inner"))))

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=host)
        with pytest.raises(Exception, match="tree/a"):
            await ref.ask(stage.Do(outer))
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
        seen = ref.statistics()
        assert (seen.running, seen.failed, seen.handled) == (0, 2, 1)
    assert len(stage.delays) == 1


async def test_a_reentrant_answer_may_be_declared(stage: Any) -> None:
    """A declared error reaches the handler that asked, and nothing else."""
    again, host = reentrant(stage)

    async def outer(actor: Any) -> Any:
        with pytest.raises(stage.Declared):
            await actor.context.ref.ask(again(stage.fail(stage.Declared())))
        return "caught"

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=host)
        assert await ref.ask(stage.Do(outer)) == "caught"
    assert stage.delays == []


@pytest.mark.parametrize("on_abandon", ["cancel", "finish", "wait"])
async def test_a_handler_may_leave_its_reentrant_ask(
    stage: Any, on_abandon: str, autojump_clock: trio.abc.Clock
) -> None:
    """The message's policy holds, and the handler that gave up goes on."""
    again, host = reentrant(stage, on_abandon=on_abandon)

    async def outer(actor: Any) -> Any:
        with trio.move_on_after(1):
            await actor.context.ref.ask(again(stage.sleep(5, "inner")))
        return "gave up"

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=host)
        assert await ref.ask(stage.Do(outer)) == "gave up"
        await trio.sleep(10)
        assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
        assert ref.statistics().running == 0
    end = "end" if on_abandon == "finish" else "cancelled"
    assert stage.log == [("begin", "inner"), (end, "inner"), "alive"]


async def test_nobody_enters_what_is_stopping(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """A reentrant ask to an actor on its way out is refused like the cycle it is."""
    again, host = reentrant(stage)

    async def outer(actor: Any) -> Any:
        await actor.context.stop()
        with pytest.raises(AskCycle):
            await actor.context.ref.ask(again(stage.say("never")))
        return "told"

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=host)
        assert await ref.ask(stage.Do(outer)) == "told"
    assert stage.log == []


async def test_a_reentrant_handler_ends_with_its_incarnation(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """A kill ends the handler beside as well, and both callers hear."""
    again, host = reentrant(stage)

    async def outer(actor: Any) -> Any:
        return await actor.context.ref.ask(again(stage.sleep(100, "inner")))

    async with stage.open() as tree:
        ref = await stage.start(tree, factory=host)
        pending = await ref.submit(stage.Do(outer))
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop("kill")
        assert pending.settled
        with pytest.raises(Exception, match="ended while it had Do"):
            await pending
        seen = ref.statistics()
        assert (seen.running, seen.failed + seen.abandoned) == (0, 2)
    assert stage.log == [("begin", "inner"), ("cancelled", "inner")]


# --- hooks --------------------------------------------------------------------------------------------------


async def test_a_hook_that_asks_its_own_actor_is_told(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """In `on_start`, `on_drain` and `on_stop` nobody would ever answer: refused at once, not after a timeout."""

    async def hook(actor: Any, *_: Any) -> None:
        ref = actor.context.ref
        try:
            await ref.ask(stage.Do(stage.say("never")))
        except Exception as error:  # noqa: BLE001 - whichever it is, it is noted
            stage.log.append(type(error).__name__)

    async with stage.open() as tree:
        with trio.fail_after(3):
            ref = await stage.start(tree, starting=hook, draining=hook, stopping=hook)
            assert await ref.ask(stage.Do(stage.say("alive"))) == "alive"
            await ref.stop()
    assert stage.log[:2] == ["AskCycle", "alive"]
    assert len(stage.log) == 4
    assert set(stage.log[2:]) <= {"AskCycle", "ActorStopping", "ActorStopped"}


async def test_two_that_ask_each_other_from_hooks_are_told(
    stage: Any, autojump_clock: trio.abc.Clock
) -> None:
    """`on_start` asks b, whose handler asks the actor that starts: the ring is seen."""
    async with stage.open() as tree:
        b = await stage.start(tree, "b")

        async def hook(actor: Any) -> None:
            stage.log.append(await b.ask(stage.Do(ask(stage, actor.context.ref, stage.say("never")))))

        with trio.fail_after(3):
            await stage.start(tree, "a", starting=hook)
    assert stage.log == [("tree/b", "tree/a", "tree/b")]


async def test_a_hook_may_tell_itself(stage: Any) -> None:
    """What `on_start` tells its own actor is handled first."""

    async def hook(actor: Any) -> None:
        await actor.context.ref.tell(stage.Do(stage.say("told")))

    async with stage.open() as tree:
        ref = await stage.start(tree, starting=hook)
        await ref.ask(stage.Do(stage.say("asked")))
    assert stage.log == ["told", "asked"]


async def test_a_handler_that_stopped_its_actor_is_no_more_a_cycle(stage: Any) -> None:
    """`Stop` ends the incarnation; asks that were in line are served by the next one."""

    async def stop(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return Stop("bye")

    async with stage.open() as tree:
        ref = await stage.start(tree)
        assert await ref.ask(stage.Do(stop)) == "bye"
