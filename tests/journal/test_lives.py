"""Any life of a journal on disk, killed and opened again at any point, beside the one of a journal in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.journal.doing import (
    MODEL,
    abandon,
    batch,
    decision,
    killed,
    opened,
    output,
    record,
    told,
)
from tests.protocol.operations import load, optim, save
from tinker_actors.journal.durable import DurableJournal
from tinker_actors.protocol.journal import Operation
from tinker_actors.protocol.memory_journal import MemoryJournal

KINDS = ["gradient"] * 3 + ["step"] * 2 + ["save"] * 2 + ["load", "forward", "sampler", "sampler"]


class Lasting(MemoryJournal):
    """A journal in memory that can fall back on every state, as one on disk can as long as none is verified."""

    def __init__(self) -> None:
        super().__init__(max_bytes=10**9)
        self._generations = None


class Lives(RuleBasedStateMachine):
    """A journal on disk and one in memory are told the same; the one on disk is killed now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.state: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.steps = 0
        self.verified: list[int] = []
        self.checked: set[int] = set()  # states that were told of

    @initialize()
    def begin(self) -> None:
        self.durable: DurableJournal = opened(self.folder)
        self.memory = Lasting()
        self.made(0)

    def teardown(self) -> None:
        if hasattr(self, "durable"):
            abandon(self.durable)
        shutil.rmtree(self.folder)

    # what may happen

    @rule(kind=st.sampled_from(KINDS), token=st.integers(0, 4), flag=st.booleans())
    def record(self, kind: str, token: int, flag: bool) -> None:
        position = len(self.state)
        operation = {
            "gradient": batch(token),
            "forward": batch(token, kind="forward"),
            "step": optim(float(position)),
            "save": save(f"s{position}"),
            "load": load(f"tinker://s{max(0, position - 1 - token)}", optimizer=flag),
            "sampler": Operation(kind="save_for_sampler", name=None),
        }[kind]
        decides = kind == "step" and flag
        after = decision(self.steps, b'{"position": %d}' % position) if decides else None
        self.steps += decides
        assert record(self.durable, operation, decision=after) == [position]
        assert self.memory.add(operation, (len(operation.data),)) == position
        self.state[position] = "open"
        self.kinds[position] = "whole load" if kind == "load" and flag else kind
        if flag:
            self.durable.accepted(position, 0, f"r{position}")

    @rule()
    def skip(self) -> None:
        """Decide a step that trains nothing."""
        assert record(self.durable, decision=decision(self.steps, b"1", skipped=True)) == []
        self.steps += 1

    @precondition(lambda self: "open" in self.state.values())
    @rule(which=st.integers(0, 10), failed=st.sampled_from([False, False, False, True]), keep=st.booleans())
    def settle(self, which: int, failed: bool, keep: bool) -> None:
        unsettled = [at for at, state in self.state.items() if state == "open"]
        position = unsettled[which % len(unsettled)]
        self.state[position] = "struck" if failed else "done"
        if failed:
            self.durable.strike(position)
            self.memory.strike(position)
            return
        keep = keep and self.kinds[position] == "sampler"
        result = output(-float(position)) if self.kinds[position] == "gradient" else None
        self.durable.done(position, result, keep=keep)
        self.memory.done(position, keep=keep)

    @rule(which=st.integers(0, 40))
    def release(self, which: int) -> None:
        self.durable.release(which)
        self.memory.release(which)

    @precondition(lambda self: self.saved())
    @rule(which=st.integers(0, 10))
    def checkpointed(self, which: int) -> None:
        saved = self.saved()
        position = saved[-1 - which % len(saved)]
        self.checked.add(position)
        path = f"tinker://s{position}"
        self.durable.checkpointed(position, path)
        self.memory.checkpointed(position, path)

    def saved(self) -> list[int]:
        """Return what has made a state that everything before it is in, and was not told of before."""
        return [
            at
            for at, state in self.state.items()
            if state == "done"
            and self.kinds[at] in ("save", "whole load")
            and at not in self.checked
            and all(one != "open" for before, one in self.state.items() if before < at)
        ]

    @rule()
    def fall_back(self) -> None:
        assert self.durable.fall_back() == self.memory.fall_back()

    @precondition(lambda self: len(self.memory.checkpoints) > 1)
    @rule(which=st.integers(0, 10))
    def lose(self, which: int) -> None:
        """Tell that a state is gone that is not the newest."""
        older = [
            one.position
            for one in self.memory.checkpoints[:-1]
            if one is not None and self.kinds[one.position] == "save"
        ]
        if not older:
            return
        position = older[which % len(older)]
        assert self.durable.mark(f"s{position}", "gone")
        self.memory.lose(position)

    @precondition(lambda self: self.memory.checkpoint is not None)
    @rule()
    def verify(self) -> None:
        """Tell that the newest state was seen; with two of them what is older goes."""
        newest = self.memory.checkpoint
        assert newest is not None
        if self.kinds[newest.position] != "save":
            return
        assert self.durable.mark(f"s{newest.position}", "verified")
        self.verified.append(newest.position)
        usable = [one.position for one in self.memory.checkpoints if one is not None]
        seen = [at for at in usable if at in self.verified or self.kinds[at] == "whole load"]
        if len(seen) > 1:
            self.memory.trim(seen[-2])

    @rule(number=st.integers(0, 3))
    def made(self, number: int) -> None:
        facts = (
            MODEL
            if number == 0
            else type(MODEL)(
                model_id=f"m{number}", session_id="s", model_seq=number, next_number=1, sampler_seq=0
            )
        )
        self.durable.made(facts)
        self.memory.made(facts)

    @rule()
    def revived(self) -> None:
        self.durable.revived()
        self.memory.revived()

    @rule(kill=st.booleans())
    def reopen(self, kill: bool) -> None:
        """End the process, and open the journal in another one: it says what it said before."""
        before = told(self.durable)
        if kill:
            self.durable = killed(self.durable, self.folder)
        else:
            trio.run(self.durable.aclose)
            self.durable = opened(self.folder)
        assert told(self.durable) == before

    # what must be true at any time

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "durable"):
            return
        assert self.durable.checkpoint == self.memory.checkpoint
        assert self.durable.complete
        assert self.durable.live == self.memory.live
        assert self.shown(self.durable) == self.shown(self.memory)
        for position in range(len(self.state) + 1):
            assert self.durable.settled_before(position) == self.memory.settled_before(position)

    def shown(self, journal: DurableJournal | MemoryJournal) -> list[Any]:
        return [
            (
                one.position,
                one.operation.kind,
                one.operation.optim_params,
                one.operation.path,
                one.done,
                one.plan,
            )
            for one in journal.replay()
        ]

    @invariant()
    def batches_are_there(self) -> None:
        if not hasattr(self, "durable"):
            return
        for one, other in zip(self.durable.replay(), self.memory.replay(), strict=True):
            if one.operation.body is not None:
                assert one.operation.data == ()
                assert trio.run(self.durable.read, one).data == other.operation.data


def live(count: int) -> None:
    run_state_machine_as_test(
        Lives, settings=settings(max_examples=count, stateful_step_count=40, deadline=None, derandomize=True)
    )


def test_any_life_on_disk_is_that_in_memory() -> None:
    """Whatever is recorded, settled, saved and lost, and however often the process dies: the same replay."""
    live(4)


@pytest.mark.slow
def test_any_life_of_many_is_that_in_memory(slow_count: Callable[[int], int]) -> None:
    """The same, of more of them."""
    live(slow_count(100))
