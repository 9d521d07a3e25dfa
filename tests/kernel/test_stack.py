"""Where the tasks of an actor stand."""

from __future__ import annotations

from typing import Any

import trio
import trio.lowlevel
import trio.testing

from tinker_actors.kernel.stack import stack_of


def test_no_task_has_no_stack() -> None:
    """An incarnation whose task has not begun stands nowhere."""
    assert stack_of(None) == ""


async def test_a_task_and_its_children_are_shown() -> None:
    """Each with its name and its frames, innermost last, the children after their parent."""

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, name="the child")
            nursery.start_soon(child, name="another child")

    async def child() -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent, name="the parent")
        await trio.testing.wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        text = stack_of(task)
        nursery.cancel_scope.cancel()
    assert text.startswith("task the parent:\n")
    assert text.index("task the parent") < text.index("task the child")
    assert text.count("in child") == 2
    first = text[text.index("task the child") :]
    assert first.index("in child") < first.index("in sleep_forever")


async def test_a_handler_is_found_in_it(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The task of an incarnation leads to the line at which its handler waits."""
    tasks: list[trio.lowlevel.Task] = []

    async def wait_here(_: Any) -> None:
        tasks.append(trio.lowlevel.current_task())
        await trio.sleep_forever()

    async with stage.open() as tree:
        ref = await stage.start(tree)
        await ref.tell(stage.Do(wait_here))
        await trio.testing.wait_all_tasks_blocked()
        text = stack_of(tasks[0])
        await ref.stop("kill")
    assert "tree/a" in text
    assert "wait_here" in text
