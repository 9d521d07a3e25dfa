"""Feed what comes from the network with broken inputs, and see that only our own errors come out.

    python tools/fuzz.py                                     # 200,000 inputs
    python tools/fuzz.py --count 10000 --seed 1
    python tools/fuzz.py --only protobuf --seed 1 --index 4711   # one input again, with its traceback

Valid inputs are made, and then broken: values are exchanged, bytes flipped, cut, repeated and spliced with others.
Each input has a generator of its own, made of the seed, the target's name and the input's number; so a failure is
found again by these three. An input fails if anything but a `TinkerActorsError` comes out, if it needs more than
`LIMIT` seconds of the processor, if its memory grows beyond its bound, or if the answer breaks a promise that the
target has.

The last line is JSON: {"inputs", "failures", "by_target"}. It ends with 0 only if there were no failures.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import traceback
import tracemalloc
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fuzz_targets import TARGETS, Broken, Target

from tinker_actors.errors import TinkerActorsError

LIMIT = 5.0  # seconds of processor time for one input
MIB = 1 << 20
MEMORY = 16 * MIB  # how much one input may take, beside what its own size explains
MEASURED = 16  # of every so many inputs, one is measured; tracing memory is slow


class Hung(BaseException):
    """An input took too long."""


class Failure(NamedTuple):
    """An input that went wrong."""

    target: str
    number: int
    error: BaseException
    case: str


def _size(case: Any) -> int:
    return sum(len(part) for part in case if isinstance(part, bytes | str))


def _measured(target: Target, case: Any) -> None:
    tracemalloc.start()
    try:
        _allowed(target, case)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if peak > MEMORY + 64 * _size(case):
        raise Broken(f"took {peak / MIB:.0f} MiB for {_size(case)} bytes")


def _allowed(target: Target, case: Any) -> None:
    try:
        target.run(case)
    except TinkerActorsError as error:
        str(error)


def attempt(target: Target, seed: int, index: int) -> Failure | None:
    """Try one input."""
    rng = random.Random(f"{seed}:{target.name}:{index}")
    case = target.make(rng)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT)
    try:
        (_measured if index % MEASURED == 0 else _allowed)(target, case)
    except (Exception, Hung) as error:  # noqa: BLE001 - that is what is looked for
        return Failure(target.name, index, error, repr(case)[:400])
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def _hang(_: int, __: types.FrameType | None) -> None:
    raise Hung(f"more than {LIMIT:g} s")


def shares(count: int, names: Sequence[str]) -> Iterator[tuple[Target, int]]:
    """Divide a number of inputs among the targets of these names, or all."""
    chosen = [target for target in TARGETS if not names or target.name in names]
    whole = sum(target.weight for target in chosen)
    left = count
    for place, target in enumerate(chosen):
        part = left if place == len(chosen) - 1 else count * target.weight // whole
        left -= part
        yield target, part


def run(
    count: int, seed: int, names: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> list[Failure]:
    """Try so many inputs, divided among targets; return those that went wrong."""
    before = signal.signal(signal.SIGVTALRM, _hang)
    failures: list[Failure] = []
    try:
        for target, part in shares(count, names):
            for index in range(part):
                failure = attempt(target, seed, index)
                failures += [] if failure is None else [failure]
                if say is not None and index % 500 == 0:
                    say(f"{target.name}: {index} of {part}, {len(failures)} failures")
    finally:
        signal.signal(signal.SIGVTALRM, before)
    return failures


def _say(text: str) -> None:
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description="Feed broken inputs to everything that reads the network.")
    parser.add_argument("--count", type=int, default=200_000, help="inputs (default: 200000)")
    parser.add_argument("--seed", type=int, default=1, help="of their generators (default: 1)")
    parser.add_argument("--only", nargs="*", default=[], choices=[target.name for target in TARGETS])
    parser.add_argument("--index", type=int, help="this input of the one target named, with its traceback")
    options = parser.parse_args()
    if options.index is not None:
        signal.signal(signal.SIGVTALRM, _hang)
        target = next(target for target in TARGETS if target.name in options.only)
        failure = attempt(target, options.seed, options.index)
        if failure is not None:
            print(failure.case)
            traceback.print_exception(failure.error)
        return failure is not None
    failures = run(options.count, options.seed, options.only, _say if sys.stderr.isatty() else None)
    if sys.stderr.isatty():
        _say("")
    for failure in failures[:20]:
        again = f"--only {failure.target} --seed {options.seed} --index {failure.number}"
        print(f"{failure.target}: {type(failure.error).__name__}: {failure.error!s:.200}\n    {again}")
    by_target = dict(shares(options.count, options.only))
    print(
        json.dumps(
            {
                "inputs": sum(by_target.values()),
                "failures": len(failures),
                "by_target": {
                    target.name: {
                        "inputs": part,
                        "failures": sum(failure.target == target.name for failure in failures),
                    }
                    for target, part in by_target.items()
                },
            }
        )
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
