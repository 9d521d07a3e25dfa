from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tinker_actors.kernel import TRACE, Message
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.message import State

SUCCEEDED, FAILED = trio.lowlevel.Abort.SUCCEEDED, trio.lowlevel.Abort.FAILED


class Role:
    pass


@attrs.frozen
class Plain(Message[Role, Any]):
    pass


class Finish(Plain):
    on_abandon = "finish"


class Wait(Plain):
    on_abandon = "wait"


@pytest.mark.parametrize("state", [State.NEW, State.QUEUED, State.RUNNING])
def test_it_ends_once(state: State) -> None:
    """The first end fixes state and outcome; later ones return False and change neither."""
    envelope = Envelope(Plain(), state=state)
    assert envelope.settle(1)
    assert not envelope.fail(ValueError(), State.EXPIRED)
    assert (envelope.state, envelope.late, envelope.result()) == (State.SETTLED, 1, 1)


def test_a_failure_may_be_an_expiry() -> None:
    """Who ends it with an error may say that its deadline was the reason."""
    envelope = Envelope(Plain())
    assert envelope.fail(ValueError("x"), State.EXPIRED)
    assert envelope.state is State.EXPIRED
    assert not envelope.settle(1)


def test_what_was_abandoned_stays_so() -> None:
    """A handler that ends after its caller left settles the outcome, for nobody; the state tells the story."""
    envelope = Envelope(Plain(), state=State.ABANDONED)
    assert envelope.settle(1)
    assert envelope.state is State.ABANDONED


@pytest.mark.parametrize(
    ("message", "committed", "answer", "cancelled"),
    [
        (Plain(), False, SUCCEEDED, True),
        (Plain(), True, SUCCEEDED, False),
        (Finish(), False, SUCCEEDED, False),
        (Wait(), False, FAILED, True),
        (Wait(), True, SUCCEEDED, False),
    ],
)
async def test_leaving_follows_the_policy(
    message: Plain, committed: bool, answer: trio.lowlevel.Abort, cancelled: bool
) -> None:
    """Cancel ends the handler, finish and a point of no return spare it, wait makes the caller stay."""
    envelope = Envelope(message, state=State.RUNNING, committed=committed)
    scope = envelope.open_scope()
    assert envelope.leave() is answer
    assert scope.cancel_called is cancelled
    assert envelope.state is State.ABANDONED


async def test_leaving_what_a_token_will_answer_waits_for_nothing() -> None:
    """When the handler has returned there is nothing to cancel and nothing to wait for."""
    envelope = Envelope(Wait(), state=State.RUNNING, detached=True)
    assert envelope.leave() is SUCCEEDED


async def test_leaving_a_unit_changes_nothing() -> None:
    """A message of a unit stays what it is, whoever leaves."""
    envelope = Envelope(Plain(), state=State.QUEUED, unit=3)
    assert envelope.leave() is SUCCEEDED
    assert envelope.state is State.QUEUED


@pytest.mark.parametrize(("message", "deadline"), [(Plain(), 5.0), (Wait(), 5.0), (Finish(), math.inf)])
async def test_a_deadline_cancels_what_its_caller_s_leaving_would(
    message: Plain, deadline: float, autojump_clock: trio.abc.Clock
) -> None:
    """The handler's scope has the caller's deadline, unless the message is one that is finished."""
    assert Envelope(message, deadline=5.0).open_scope().deadline == deadline


def test_it_carries_the_sender_s_trace() -> None:
    """What the sender has set in TRACE travels along."""
    assert Envelope(Plain()).trace is None
    mark = TRACE.set("id-1")
    try:
        assert Envelope(Plain()).trace == "id-1"
    finally:
        TRACE.reset(mark)
