from __future__ import annotations

import threading
from typing import Any

import pytest
import trio
import trio.testing

from tinker_actors.actors.tokenizers import Tokenizers


@pytest.mark.requirement("R162")
@pytest.mark.lesson("L35")
async def test_concurrent_first_uses_load_once_and_others_do_not_wait() -> None:
    """Fifty tasks want one tokenizer and get the same object of one load; another tokenizer is loaded meanwhile."""
    loads: list[str] = []
    gate = threading.Event()

    def load(tokenizer_id: str) -> Any:
        loads.append(tokenizer_id)
        if tokenizer_id == "slow":
            gate.wait(10)
        return object()

    tokenizers = Tokenizers(load)
    found: list[object] = []

    async def want(tokenizer_id: str) -> None:
        found.append(await tokenizers.get(tokenizer_id))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(want, "slow")
        await trio.testing.wait_all_tasks_blocked()
        other = await tokenizers.get("other")
        gate.set()
    assert len(set(map(id, found))) == 1
    assert other not in found
    assert len(found) == 50
    assert sorted(loads) == ["other", "slow"]
    assert await tokenizers.get("slow") is found[0]


async def test_a_load_that_failed_is_tried_again() -> None:
    """A failure is told to whoever asked, and the next one asks anew."""
    answers: list[Any] = [OSError("no network"), "tokenizer"]

    def load(_: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    tokenizers = Tokenizers(load)
    with pytest.raises(OSError, match="no network"):
        await tokenizers.get("a")
    assert await tokenizers.get("a") == "tokenizer"


@pytest.mark.lesson("D66")
async def test_models_of_one_tokenizer_load_it_once(autojump_clock: Any, open_stub: Any) -> None:
    """It is kept under the id that a model's name leads to, not under the name that was asked for."""
    loads: list[str] = []

    def load(tokenizer_id: str) -> Any:
        loads.append(tokenizer_id)
        return object()

    async with open_stub() as service:
        service._tree.tokenizers._load = load
        names = ("owner/model", "owner/model:peft:128k", "owner/model/variant")
        clients = [await service.create_sampling_client(base_model=name) for name in names]
        found = [await client.get_tokenizer() for client in clients]
    assert len({id(one) for one in found}) == 1
    assert loads == ["owner/model"]
