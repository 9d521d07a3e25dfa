"""The other side of two comparisons: a round trip in other actor libraries.

Both are optional: `make bench-kernel` installs them into its own environment, `requirements.txt` holds their versions.
They are imported by name when they are measured, since the project itself does not know them.
"""

from __future__ import annotations

import importlib
import importlib.util
from time import process_time
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

__all__ = ["ask_pykka", "call_triotp", "installed"]


def installed(name: str) -> bool:
    """Whether a library is there to be measured."""
    return importlib.util.find_spec(name) is not None


def ask_pykka(count: int) -> float:
    """Ask a pykka actor, which has a thread of its own; the CPU seconds are those of both threads."""
    pykka: Any = importlib.import_module("pykka")

    def on_receive(_: object, message: object) -> object:
        return message

    actor: Any = type("EchoActor", (pykka.ThreadingActor,), {"on_receive": on_receive})
    ref = actor.start()
    try:
        message = object()
        begin = process_time()
        for _ in range(count):
            ref.ask(message)
        return process_time() - begin
    finally:
        ref.stop()


async def call_triotp(count: int) -> float:
    """Call a generic server of TriOTP by its name."""
    gen_server: Any = importlib.import_module("triotp.gen_server")
    mailbox: Any = importlib.import_module("triotp.mailbox")
    mailbox.context_mailbox_registry.set({})
    mailbox.context_name_registry.set({})

    async def init(_: object) -> None:
        await trio.lowlevel.checkpoint()

    async def handle_call(  # noqa: ASYNC124 - it is awaited
        message: object, _: object, state: object
    ) -> tuple[object, object]:
        return gen_server.Reply(message), state

    server = SimpleNamespace(__name__="echo", init=init, handle_call=handle_call)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gen_server.start, server, None, "echo")
        await trio.testing.wait_all_tasks_blocked()
        message = object()
        begin = process_time()
        for _ in range(count):
            await gen_server.call("echo", message)
        seconds = process_time() - begin
        nursery.cancel_scope.cancel()
    return seconds
