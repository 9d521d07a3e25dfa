from __future__ import annotations

import gc
import traceback
import weakref
from typing import Any, Self

import pytest
import trio
import trio.testing

from tinker_actors.errors import ActorError, InputError
from tinker_actors.kernel.outcome import Outcome, fresh

SUCCEEDED, FAILED = trio.lowlevel.Abort.SUCCEEDED, trio.lowlevel.Abort.FAILED


class Lossy(Exception):
    """Its `args` are not what its `__init__` takes."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Picky(Exception):
    """It cannot be made from its `args` at all."""

    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class Unique(Exception):
    """It can neither be copied nor made anew."""

    def __new__(cls, *args: object) -> Self:
        if args == ("again",):
            raise TypeError("there is only one")
        return super().__new__(cls, *args)


@pytest.mark.rule("A1")
async def test_the_first_settlement_wins() -> None:
    """Whatever comes after the first value or error is counted and changes nothing."""
    outcome: Outcome[int] = Outcome()
    assert not outcome.settled
    assert outcome.settle(1)
    assert not outcome.settle(2)
    assert not outcome.fail(ValueError())
    assert (outcome.late, outcome.settled, outcome.error) == (2, True, None)
    assert await outcome.wait() == 1


async def test_a_value_may_be_none() -> None:
    """None is a value like any other."""
    outcome: Outcome[None] = Outcome()
    outcome.settle(None)
    assert await outcome.wait() is None


async def test_an_unsettled_outcome_has_no_result() -> None:
    """Reading without waiting is for settled outcomes only."""
    with pytest.raises(RuntimeError, match="not settled"):
        Outcome().result()


@pytest.mark.rule("A5")
async def test_every_reader_gets_a_fresh_exception_with_the_same_cause(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Tasks that wait before and after the failure each raise an object of their own."""
    outcome: Outcome[int] = Outcome()
    cause = KeyError("cause")
    error = ActorError("failed", actor="a", started=True)
    error.__cause__ = cause
    error.add_note("note")
    caught: list[ActorError] = []

    async def read() -> None:
        try:
            await outcome.wait()
        except ActorError as raised:
            caught.append(raised)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
        # Who is not woken fails the test, not the run.
        nursery.cancel_scope.deadline = trio.current_time() + 60
        await trio.testing.wait_all_tasks_blocked()
        outcome.fail(error)
        await trio.sleep(1)
        nursery.start_soon(read)
    assert len({id(raised) for raised in caught} | {id(error)}) == 5
    for raised in caught:
        assert raised.__cause__ is cause
        assert (raised.actor, raised.started, raised.args) == ("a", True, error.args)
        assert raised.__notes__ == ["note"]
        assert len(traceback.extract_tb(raised.__traceback__)) == len(
            traceback.extract_tb(caught[0].__traceback__)
        )
    assert error.__traceback__ is None


@pytest.mark.rule("A5")
async def test_reading_many_times_grows_no_traceback() -> None:
    """The hundredth reader's traceback is as long as the first one's."""
    outcome: Outcome[int] = Outcome()
    outcome.fail(ValueError("x"))
    lengths = set()
    for _ in range(100):
        try:
            await outcome.wait()
        except ValueError as raised:
            lengths.add(len(traceback.extract_tb(raised.__traceback__)))
    assert len(lengths) == 1


async def test_waiting_is_always_a_checkpoint() -> None:
    """Reading a settled outcome in a loop starves nobody."""
    outcome: Outcome[int] = Outcome()
    outcome.settle(1)
    with trio.testing.assert_checkpoints():
        await outcome.wait()


async def test_a_reader_that_leaves_changes_nothing(autojump_clock: trio.abc.Clock) -> None:
    """A cancelled reader leaves no trace, has observed nothing, and others get the value."""
    outcome: Outcome[int] = Outcome()
    with trio.move_on_after(1) as scope:
        await outcome.wait()
    assert scope.cancelled_caught
    assert not outcome.settled
    assert not outcome.observed
    outcome.settle(5)
    with trio.move_on_after(0) as scope:
        await outcome.wait()
    assert scope.cancelled_caught
    assert not outcome.observed
    assert await outcome.wait() == 5
    assert outcome.observed


async def test_a_reader_that_was_woken_gets_the_value() -> None:
    """Settled first and cancelled second, in one tick: the value has won."""
    outcome: Outcome[int] = Outcome()
    got: list[int] = []

    async def read(scope: trio.CancelScope) -> None:
        with scope:
            got.append(await outcome.wait())

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, scope)
        await trio.testing.wait_all_tasks_blocked()
        outcome.settle(5)
        scope.cancel()
    assert got == [5]
    assert not scope.cancelled_caught


async def test_an_abort_may_be_refused(autojump_clock: trio.abc.Clock) -> None:
    """A refused cancellation waits for the outcome and is delivered then."""
    outcome: Outcome[int] = Outcome()
    asked = []

    def refuse() -> trio.lowlevel.Abort:
        asked.append(trio.current_time())
        return FAILED

    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        with trio.move_on_after(1) as scope:
            nursery.start_soon(settle_after, outcome, 3)
            await outcome.park(refuse)
        assert scope.cancelled_caught
        assert (asked, trio.current_time()) == ([start + 1], start + 3)


async def settle_after(outcome: Outcome[int], seconds: float) -> None:
    await trio.sleep(seconds)
    outcome.settle(1)


async def test_a_refused_abort_whose_scope_is_no_more_cancelled_returns(
    autojump_clock: trio.abc.Clock,
) -> None:
    """If the cancellation has been shielded off meanwhile, the wait simply ends."""
    outcome: Outcome[int] = Outcome()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle_after, outcome, 3)
        with trio.move_on_after(1), trio.CancelScope() as inner:

            def refuse() -> trio.lowlevel.Abort:
                inner.shield = True
                return FAILED

            await outcome.park(refuse)
            assert outcome.result() == 1


@pytest.mark.parametrize("answer", [SUCCEEDED, FAILED])
async def test_an_abort_may_settle_the_outcome_itself(
    answer: trio.lowlevel.Abort, autojump_clock: trio.abc.Clock
) -> None:
    """The leaving task is not woken twice, whatever its own departure settles."""
    outcome: Outcome[int] = Outcome()

    def settle() -> trio.lowlevel.Abort:
        outcome.fail(ValueError())
        return answer

    with trio.move_on_after(1) as scope:
        await outcome.park(settle)
    assert scope.cancelled_caught


async def test_a_failure_nobody_waits_for_is_told_once() -> None:
    """The callback hears of an error, not of a value, and not of what somebody has got."""
    told: list[Outcome[int]] = []
    fine: Outcome[int] = Outcome()
    fine.on_failure = told.append
    fine.settle(1)
    assert told == []

    bad: Outcome[int] = Outcome()
    bad.on_failure = told.append
    assert bad.on_failure is not None
    bad.fail(ValueError())
    bad.fail(ValueError())
    assert told == [bad]

    async def read() -> None:
        with pytest.raises(ValueError, match="x"):
            await awaited.wait()

    awaited: Outcome[int] = Outcome()
    awaited.on_failure = told.append
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        awaited.fail(ValueError("x"))
        assert awaited.observed
    assert told == [bad]


async def test_a_failure_before_the_callback_is_told_at_once() -> None:
    """Who begins to watch too late hears all the same, unless the failure has been seen."""
    told: list[Outcome[int]] = []
    outcome: Outcome[int] = Outcome()
    outcome.fail(ValueError("x"))
    outcome.on_failure = told.append
    assert told == [outcome]
    with pytest.raises(ValueError, match="x"):
        outcome.result()
    outcome.on_failure = told.append
    assert told == [outcome]


async def test_a_callback_that_fails_is_isolated(caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the callback is logged; the outcome is settled all the same."""

    def broken(_: Outcome[int]) -> None:
        raise RuntimeError("callback")

    outcome: Outcome[int] = Outcome()
    outcome.on_failure = broken
    assert outcome.fail(ValueError())
    assert "a callback for failures failed" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        OSError(2, "no such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        Lossy(5),
        Picky(code=5),
        InputError("field", 3, "why"),
        ExceptionGroup("group", [ValueError("x")]),
        trio.TooSlowError(),
    ],
)
def test_a_fresh_exception_says_the_same(error: Exception) -> None:
    """Type, arguments, text, attributes, cause and notes are those of the original; the object is not."""
    error.__cause__ = KeyError("cause")
    error.add_note("first")
    twin = fresh(error)
    assert twin is not error
    assert type(twin) is type(error)
    assert (twin.args, str(twin)) == (error.args, str(error))
    assert getattr(twin, "code", None) == getattr(error, "code", None)
    assert twin.__cause__ is error.__cause__
    assert twin.__traceback__ is None
    twin.add_note("second")
    assert error.__notes__ == ["first"]


def test_an_exception_that_refuses_to_be_copied_is_raised_itself() -> None:
    """The last way out: the same object, with an empty traceback."""
    error = Unique("once")
    error.args = ("again",)
    with pytest.raises(Unique):
        raise error
    assert fresh(error) is error
    assert error.__traceback__ is None


async def test_an_outcome_keeps_nothing_alive_by_itself() -> None:
    """Value, error and outcome go with their last holder, without the help of the collector of cycles."""

    class Value:
        pass

    gc.disable()
    try:
        value: Any = Value()
        outcome: Outcome[Any] = Outcome()
        outcome.settle(value)
        assert await outcome.wait() is value
        seen = [weakref.ref(value), weakref.ref(outcome)]
        del value, outcome
        assert [ref() for ref in seen] == [None, None]
    finally:
        gc.enable()
