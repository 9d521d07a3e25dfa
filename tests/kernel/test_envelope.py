from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from tinker_actors.errors import ActorStopped
from tinker_actors.kernel import TRACE, Message
from tinker_actors.kernel.envelope import Envelope
from tinker_actors.kernel.mailbox import Mailbox
from tinker_actors.kernel.message import State
from tinker_actors.kernel.overflow import MailboxSpec
from tinker_actors.kernel.reader import Reader

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


def envelope_in(state: State, message: Plain | None = None) -> Envelope[Any]:
    """Make an envelope that has come so far."""
    envelope: Envelope[Any] = Envelope(message or Plain())
    envelope.state = state
    return envelope


@pytest.mark.rule("A1")
@pytest.mark.parametrize("state", [State.NEW, State.QUEUED, State.RUNNING])
def test_it_ends_once(state: State) -> None:
    """The first end fixes state and outcome; later ones return False and change neither."""
    envelope = envelope_in(state)
    assert envelope.settle(1)
    assert not envelope.fail(ValueError(), State.EXPIRED)
    assert (envelope.state, envelope.late, envelope.result()) == (State.SETTLED, 1, 1)


def test_a_failure_may_be_an_expiry() -> None:
    """Who ends it with an error may say that its deadline was the reason."""
    envelope = envelope_in(State.NEW)
    assert envelope.fail(ValueError("x"), State.EXPIRED)
    assert envelope.state is State.EXPIRED
    assert not envelope.settle(1)


@pytest.mark.rule("A3")
def test_an_error_of_ours_hands_the_message_back() -> None:
    """Whoever gets it has what was sent, to send it again."""
    envelope = envelope_in(State.QUEUED)
    envelope.fail(ActorStopped("x", actor="a", started=False))
    with pytest.raises(ActorStopped) as caught:
        envelope.result()
    assert caught.value.handed_back is envelope.message


def test_what_was_abandoned_stays_so() -> None:
    """A handler that ends after its caller left settles the outcome, for nobody; the state tells the story."""
    envelope = envelope_in(State.ABANDONED)
    assert envelope.settle(1)
    assert envelope.state is State.ABANDONED


def test_being_cut_short_is_no_answer() -> None:
    """A running message that nobody waits for has expired; one whose caller left before stays abandoned."""
    for state, end in ((State.RUNNING, State.EXPIRED), (State.ABANDONED, State.ABANDONED)):
        envelope = envelope_in(state)
        envelope.cut_short(ValueError("x"))
        assert envelope.settled
        assert envelope.state is end


@pytest.mark.rule("C1", "C2")
@pytest.mark.parametrize(
    ("message", "committed", "answer", "interrupted"),
    [
        (Plain(), False, SUCCEEDED, True),
        (Plain(), True, SUCCEEDED, False),
        (Finish(), False, SUCCEEDED, False),
        (Wait(), False, FAILED, True),
        (Wait(), True, SUCCEEDED, False),
    ],
)
async def test_leaving_follows_the_policy(
    message: Plain, committed: bool, answer: trio.lowlevel.Abort, interrupted: bool
) -> None:
    """Cancel ends the handler, finish and a point of no return spare it, wait makes the caller stay."""
    envelope = envelope_in(State.RUNNING, message)
    envelope.committed = committed
    reader = envelope.reader = Reader(Mailbox("a", MailboxSpec()), [])
    scope = reader.scope = trio.CancelScope()
    assert envelope.leave() is answer
    assert scope.cancel_called is reader.interrupted is interrupted
    assert envelope.state is State.ABANDONED


async def test_leaving_what_a_token_will_answer_waits_for_nothing() -> None:
    """When the handler has returned there is nothing to cancel and nothing to wait for."""
    envelope = envelope_in(State.RUNNING, Wait())
    envelope.detached = True
    assert envelope.leave() is SUCCEEDED


async def test_leaving_a_unit_changes_nothing() -> None:
    """A message of a unit stays what it is, whoever leaves."""
    envelope = envelope_in(State.QUEUED)
    envelope.unit = 3
    assert envelope.leave() is SUCCEEDED
    assert envelope.state is State.QUEUED


@pytest.mark.rule("N7")
def test_it_carries_the_sender_s_trace() -> None:
    """What the sender has set in TRACE travels along."""
    assert Envelope(Plain()).trace is None
    mark = TRACE.set("id-1")
    try:
        assert Envelope(Plain()).trace == "id-1"
    finally:
        TRACE.reset(mark)
