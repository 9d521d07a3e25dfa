"""What calls between loops must not accept; checked, never run."""

from __future__ import annotations

import tinker_actors as ta


async def step(action: int) -> str:
    """Stand for an environment's step."""
    return str(action)


async def wrong_arguments(portal: ta.Portal) -> None:
    """The arguments are those of the function."""
    await ta.aio(step, "three")  # E: mypy[arg-type] pyright[reportArgumentType]
    await ta.from_aio(step, 1, 2)  # E: mypy[call-arg] pyright[reportCallIssue]
    portal.call(step, action="three")  # E: mypy[arg-type] pyright[reportArgumentType]
    ta.run(step)  # E: mypy[arg-type] pyright[reportArgumentType]


def not_async(portal: ta.Portal) -> None:
    """A plain function is not called through a portal, and a coroutine is no function."""
    portal.call(len, [])  # E: mypy[arg-type] pyright[reportArgumentType]
    portal.call(step(3))  # E: mypy[arg-type] pyright[reportArgumentType] pyright[reportCallIssue]
