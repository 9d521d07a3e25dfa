"""Losses of the user's own: two passes, with the user's function between them.

Theory of operation. A `ForwardBackwardCustom` is handled from its forward pass to the sending of its backward pass, and
the TrainingActor takes no other message meanwhile. So the model that gave the log probabilities is the one that gets
their gradient, and an `optim_step` behind it keeps its place. A request takes its number when it is sent: a function
that fails leaves no hole.

Up to the backward pass nothing has been decided and the journal knows nothing. If the model is lost before, the whole
message is handled again by the next incarnation: the user's function then sees the log probabilities of the new model,
which are those of the lost one. From then on it is a `forward_backward` like any other, with the weights as they were
computed: a restore sends those, and does not call the function again.

The function runs in a thread, so that it may compute as long as it likes; one at a time for each model, also if one
that nobody waits for any more still runs. Beating from the loop, which is how services are opened on virtual time, it
runs there: the clock would jump ahead while a thread works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from tinker_actors.actors.message import ForwardBackwardCustom
from tinker_actors.errors import ResultLost
from tinker_actors.kernel import ReplyToken
from tinker_actors.protocol.custom_loss import CustomLoss, Logprobs, checked_loss, logprobs_of, with_metrics
from tinker_actors.protocol.journal import Operation
from tinker_actors.protocol.plan import Reply
from tinker_actors.wire.input import Datum
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["CustomAnswer", "CustomLosses"]

_NOTE = (
    "raised by the loss_fn of forward_backward_custom, which is given numpy arrays; "
    "tinker_actors.bridges makes one of a function of torch, jax or autograd"
)
_FORWARDS = 3  # passes are made so often, if the service makes them and loses their results


@attrs.frozen(eq=False)
class CustomAnswer:
    """Who waits for the backward pass of a loss of the user's own; it outlives the incarnation.

    Attributes:
        token: the duty to answer.
        loss: what the user's function returned.
    """

    token: ReplyToken[ForwardBackwardOutput]
    loss: CustomLoss

    def settle(self, value: ForwardBackwardOutput) -> bool:
        """Answer with the output of the backward pass, with the user's loss and metrics in it."""
        return self.token.settle(with_metrics(value, self.loss))

    def fail(self, error: Exception) -> bool:
        """Answer with an error."""
        return self.token.fail(error)


class CustomLosses:
    """Computes losses of the user's own for one incarnation of a model: the forward pass and the function.

    Args:
        compute: has an operation that changes nothing done by the service.
        limiter: bounds how many functions run at once; None calls them in the loop.
    """

    def __init__(
        self, compute: Callable[[Operation], Awaitable[Reply]], limiter: trio.CapacityLimiter | None
    ) -> None:
        self._compute = compute
        self._limiter = limiter

    async def compute(self, message: ForwardBackwardCustom) -> CustomLoss:
        """Return what the user's function says, checked.

        Raises:
            ModelLost: there was no forward pass, for the model is lost.
            TinkerError: why there was none.
            Exception: what the function raised, with a note that says where.
            InputError: what it returned is no `CustomLoss`, or one that is not good.
        """
        logprobs = logprobs_of(message.forward, await self._forward(message.forward))

        def work() -> CustomLoss:
            return _called(message, logprobs)

        if self._limiter is None:
            return work()
        return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)

    async def _forward(self, data: tuple[Datum, ...]) -> ForwardBackwardOutput:
        operation = Operation(kind="forward", data=data)
        output: Reply | None = None
        for left in reversed(range(_FORWARDS)):
            try:
                output = await self._compute(operation)
                break
            except ResultLost:  # it has changed nothing, so it may be done again
                if not left:
                    raise
        assert isinstance(output, ForwardBackwardOutput), "that is what a forward pass is answered with"
        return output


def _called(message: ForwardBackwardCustom, logprobs: tuple[Logprobs, ...]) -> CustomLoss:
    """Call the user's function and check what it returns."""
    try:
        result: object = _run(message, logprobs)
    except Exception as error:
        error.add_note(_NOTE)
        raise
    return checked_loss(result, logprobs)


def _run(message: ForwardBackwardCustom, logprobs: tuple[Logprobs, ...]) -> object:
    try:
        return message.loss_fn(message.data, logprobs)
    except StopIteration as error:  # no coroutine can raise it
        raise RuntimeError("the loss_fn raised StopIteration") from error
