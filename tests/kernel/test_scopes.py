"""What the kernel's own source keeps about cancel scopes: one task enters one, reasons go with every cancel."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import tinker_actors.kernel

MODULES = sorted(Path(tinker_actors.kernel.__file__).parent.glob("*.py"))
SCOPES = {"CancelScope", "move_on_after", "move_on_at", "fail_after", "fail_at", "open_nursery"}


def name_of(call: ast.AST) -> str:
    """Return the last part of what is called."""
    if not isinstance(call, ast.Call):
        return ""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Give every function of the kernel."""
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, node


@pytest.mark.rule("C7")
def test_every_cancel_has_a_reason() -> None:
    """No scope is cancelled without a text that says why: a `Cancelled` is read by somebody at three in the morning."""
    cancels, silent = 0, []
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if name_of(node) != "cancel" or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value).endswith(("scope", "_pause", ".body", ".patrol", "[reader]")):
                cancels += 1
                given = {keyword.arg for keyword in node.keywords}
                silent += [] if "reason" in given else [f"{module.name}:{node.lineno}"]
    assert cancels > 10
    assert silent == []


@pytest.mark.rule("C7")
async def test_a_handler_is_told_why_it_was_cancelled(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """The `Cancelled` in a handler names what happened: the caller left, the actor is stopped, its group restarts."""
    reasons: list[str] = []

    async def note(_: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            reasons.append(str(cancelled))
            raise

    async with stage.open(strategy="one_for_all") as tree:
        first, second = await stage.start(tree, "a"), await stage.start(tree, "b")
        with trio.move_on_after(1):
            await first.ask(stage.Do(note))
        await second.tell(stage.Do(note))
        await trio.sleep(1)
        await first.tell(stage.Do(stage.fail(ValueError("crash"))))
        await trio.sleep(40)
        await second.tell(stage.Do(note))
        await trio.sleep(1)
        await second.stop("kill")
    assert len(reasons) == 3
    assert "the caller of Do left" in reasons[0] or "deadline" in reasons[0]
    assert "one_for_all restart of tree/a" in reasons[1]
    assert "tree/b is stopped (kill)" in reasons[2]


@pytest.mark.rule("C4")
def test_nothing_is_yielded_inside_a_scope() -> None:
    """A generator that is left in the middle would leave its scope open in whatever task comes next."""
    wrong = []
    for module, function in functions():
        manages = any("asynccontextmanager" in ast.unparse(mark) for mark in function.decorator_list)
        for node in ast.walk(function):
            if isinstance(node, ast.With | ast.AsyncWith) and not manages:
                opens = {name_of(item.context_expr) for item in node.items} & SCOPES
                yields = any(isinstance(inner, ast.Yield | ast.YieldFrom) for inner in ast.walk(node))
                wrong += [f"{module.name}:{node.lineno}"] if opens and yields else []
    assert wrong == []


@pytest.mark.rule("C4")
async def test_a_used_up_scope_is_never_entered_again(stage: Any, autojump_clock: trio.abc.Clock) -> None:
    """After a handler was interrupted, the next one runs in a fresh scope, in the same task."""
    tasks: list[trio.lowlevel.Task] = []

    async def wait(_: Any) -> None:
        tasks.append(trio.lowlevel.current_task())
        await trio.sleep(2)

    async with stage.open() as tree:
        ref = await stage.start(tree)
        for patience in (1, 1, 5):
            with trio.move_on_after(patience) as scope:
                await ref.ask(stage.Do(wait))
            assert scope.cancelled_caught is (patience < 2)
    assert len(tasks) == 3
    assert len(set(tasks)) == 1
