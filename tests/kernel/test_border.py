from __future__ import annotations

import random
from typing import Any

import pytest
import trio

from tinker_actors.errors import ActorError, ActorStopped, TinkerActorsError
from tinker_actors.kernel import KernelEvent, open_supervisor
from tinker_actors.kernel.border import await_user, call_user

exposed_here = trio.lowlevel.currently_ki_protected


@trio.lowlevel.enable_ki_protection
async def kernel_side(function: Any, *args: Any) -> Any:
    """Stand for the kernel, whose functions are protected."""
    assert exposed_here()
    return await await_user(function, *args)


@trio.lowlevel.enable_ki_protection
def kernel_side_sync(function: Any, *args: Any) -> Any:
    """The same, for plain functions."""
    return call_user(function, *args)


async def test_users_functions_may_be_interrupted() -> None:
    """Behind the border the protection against Ctrl-C is off; arguments and results pass."""

    async def user(*args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return exposed_here(), args

    assert await kernel_side(user, 1, 2) == (False, (1, 2))
    assert kernel_side_sync(exposed_here) is False


async def test_errors_pass_the_border_unchanged() -> None:
    """What a user's function raises arrives as the same object."""
    error = KeyError("x")

    async def user() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(KeyError) as caught:
        await kernel_side(user)
    assert caught.value is error


async def test_an_own_cancellation_passes() -> None:
    """A cancellation that a scope around the call has caused goes on to that scope."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await kernel_side(trio.sleep, 1)
    assert scope.cancelled_caught


@pytest.mark.rule("A4")
async def test_a_stray_cancellation_becomes_an_error() -> None:
    """A Cancelled that was caught elsewhere would end this task in silence; it is an error instead."""
    stray: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as error:
            stray.append(error)
            raise

    async def user() -> None:
        await trio.lowlevel.checkpoint()
        raise stray[0]

    with pytest.raises(ActorError, match="Cancelled of another task") as caught:
        await kernel_side(user)
    assert caught.value.__cause__ is None


@pytest.mark.rule("N8")
async def test_every_function_of_a_user_may_be_interrupted(stage: Any) -> None:
    """Factory, hooks, handlers, spawned tasks, observer and refusal all run unprotected."""
    seen: dict[str, bool] = {}

    def note(name: str) -> None:
        seen[name] = exposed_here()

    async def note_soon(name: str) -> None:
        note(name)
        await trio.lowlevel.checkpoint()

    async def handler(actor: Any) -> None:
        note("handler")
        actor.context.spawn(note_soon, "spawned")
        await trio.lowlevel.checkpoint()

    def factory() -> Any:
        note("factory")
        return stage.PuppetActor(
            starting=lambda _: note_soon("start"),
            draining=lambda _: note_soon("drain"),
            stopping=lambda _, ending: note_soon("stop"),
        )

    def refusal(error: ActorStopped) -> TinkerActorsError:
        note("refusal")
        return error

    def observer(_: KernelEvent) -> None:
        note("observer")

    async with open_supervisor("tree", rng=random.Random(0), observer=observer) as tree:
        ref = await stage.start(tree, factory=factory, refusal=refusal)
        await ref.ask(stage.Do(handler))
    with pytest.raises(ActorStopped):
        await ref.ask(stage.Do(handler))
    names = ["factory", "start", "handler", "spawned", "drain", "stop", "refusal", "observer"]
    assert seen == dict.fromkeys(names, False)


@pytest.mark.rule("N8")
async def test_the_kernel_s_own_steps_are_protected(stage: Any) -> None:
    """Ctrl-C does not strike while a message is admitted, taken, answered or settled."""
    seen: dict[str, bool] = {}

    class Watched(stage.Do):
        @property
        def unit(self) -> str:  # read by the mailbox on admission
            seen["admission"] = exposed_here()
            return "none"

        @property
        def exclusive(self) -> bool:  # read when it is taken
            seen["taking"] = exposed_here()
            return False

        @property
        def on_abandon(self) -> str:  # read when its deadline is set
            seen["start"] = exposed_here()
            return "cancel"

    class WatchedActor(stage.PuppetActor):
        @property
        def declares(self) -> tuple[type[Exception], ...]:  # read when a handler has raised
            seen["answer"] = exposed_here()
            return (stage.Declared,)

    WatchedActor.handlers = {Watched: stage.PuppetActor.handlers[stage.Do]}
    async with stage.open() as tree:
        ref = await stage.start(tree, factory=WatchedActor)
        with trio.fail_after(5):
            await ref.ask(Watched(stage.say(1)))
        await ref.tell(Watched(stage.fail(stage.Declared("x"))))
    assert seen == {"admission": True, "taking": True, "start": True, "answer": True}
