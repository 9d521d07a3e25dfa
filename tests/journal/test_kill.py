"""A process that is killed while it writes, and what the next one finds."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.journal.doing import abandon, batch, opened

# Decides steps as fast as it can, with results, promises and checkpoints, and says after each what was decided.
CHILD = """
import sys
import trio
from tests.journal.doing import batch
from tests.protocol.operations import optim, save
from tinker_actors.journal.opening import open_journal
from tinker_actors.protocol.journal import Decision, Intent, ModelFacts

async def main() -> None:
    journal = open_journal(sys.argv[1])
    if journal.model is None:
        journal.made(ModelFacts(model_id="m", session_id="s", model_seq=0, next_number=1, sampler_seq=0))
    number = journal.model.next_number
    for step in range(journal.steps, 10**9):
        intents = [
            Intent(operation=batch(step, length=200), numbers=(number,), plan=(1,)),
            Intent(operation=optim(float(step)), numbers=(number + 1,), plan=(0,)),
        ]
        number += 2
        positions = await journal.record(intents, Decision(step=step, after=b"%d" % step))
        print(step, flush=True)
        for position in positions:
            journal.accepted(position, 0, f"r{position}")
            journal.done(position)
        if step % 5 == 4:
            (position,) = await journal.record([Intent(operation=save(f"s{step}"), numbers=(number,))])
            number += 1
            journal.checkpointed(position, f"tinker://s{step}")
            journal.done(position)
            if step % 15 == 14:
                journal.mark(f"s{step}", "verified")
        if step % 3 == 2:
            await journal.flush()
            print("flushed", positions[-1], flush=True)

trio.run(main)
"""


@pytest.mark.slow
def test_what_a_process_was_told_is_there_when_it_is_killed(
    tmp_path: Path, slow_count: Callable[[int], int]
) -> None:
    """At drawn moments: each step it was told of is decided, what was flushed is noted, and no number comes twice."""
    rng = random.Random(1)
    told = -1
    for _ in range(slow_count(20)):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert int(line) == told + 1
            time.sleep(rng.uniform(0.0, 0.15))  # it is a real process: no virtual time serves
            process.kill()
            said = [line, *process.stdout.read().splitlines()]
        flushed = max((int(one.split()[1]) for one in said if one.startswith("flushed ")), default=-1)
        told = max(int(one) for one in said if one.strip().isdigit())
        journal = opened(tmp_path)
        # The last line may be missing where the kill came between the commit and the print.
        assert journal.steps in (told + 1, told + 2)
        assert journal.lost_steps == 0
        told = journal.steps - 1
        assert journal.model is not None
        assert journal.model.next_number == 1 + 2 * journal.steps + len(journal.checkpoints)
        assert journal.loop_state == b"%d" % told
        first = None
        for record in journal.replay():
            assert record.done or record.position > flushed
            if record.operation.kind == "forward_backward":
                operation = trio.run(journal.read, record)
                number = operation.data[0].model_input.to_ints()[0]
                assert operation.data == batch(number, length=200).data
                assert first is None or number == first + 1
                first = number
        assert first in (None, told)
        abandon(journal)
