"""Break the kernel, the journal or the recovery on purpose, one rule at a time, and see whether their tests notice.

    python tools/run_mutants.py                  # all of tests/mutants
    python tools/run_mutants.py drain restart-b  # those whose names begin so

Each patch in tests/mutants makes a *mutant*: a copy of the package with one rule broken, the one that the first line
of the patch names. The quick tests of what it breaks (`SUITES`) run against each copy. They should fail, and their
first failure (or their hanging) kills the mutant; one that they do not notice SURVIVED, and shows what they do not look
at. They run against an unchanged copy first, for if that fails, the failures of the others say nothing.

It ends with 0 only if all mutants were killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import trio

import tinker_actors

ROOT = Path(__file__).resolve().parents[1]
MUTANTS = ROOT / "tests" / "mutants"
PACKAGE = Path(tinker_actors.__file__).parent
PYTEST = ["-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-m", "not slow"]
Suite: TypeAlias = Literal["kernel", "runs"]
SUITES: dict[Suite, tuple[str, ...]] = {
    "kernel": ("tests/kernel",),
    "runs": (
        "tests/protocol/test_memory_journal.py",
        "tests/protocol/test_journal_rules.py",
        "tests/actors/test_verifying.py",
        "tests/actors/test_set_back.py",
        "tests/actors/test_reattach.py",
        "tests/journal",
        "tests/runs",
    ),
}
RULES: dict[Suite, Path] = {
    "kernel": ROOT / "tests" / "kernel" / "rules.toml",
    "runs": ROOT / "tests" / "runs" / "rules.toml",
}

_RULE = re.compile(r"Rule ([A-Z]\d+): (\S.*)")
_BREAKER = re.compile(r"^(?:FAILED|ERROR) .*?(tests/\w+/.+?)(?: - .*)?$", re.MULTILINE)
_WHERE = "import tinker_actors.kernel; print(tinker_actors.__file__)"


class Unusable(Exception):
    """A copy that cannot be judged: its patch does not apply, or it is not what would be tested."""


class Verdict(NamedTuple):
    """What the tests made of a copy: whether they passed, failed (or hung), or came to neither; and their last word."""

    kind: Literal["passed", "failed", "neither"]
    text: str


def patches(names: Sequence[str] = ()) -> list[Path]:
    """Return the patches whose names begin with one of `names`, or all."""
    return [file for file in sorted(MUTANTS.glob("*.patch")) if file.stem.startswith(tuple(names) or "")]


def suite_of(patch: Path) -> Suite:
    """Return whose rule a patch breaks, and so whose tests judge it."""
    return "runs" if patch.stem.startswith(("journal-", "recovery-")) else "kernel"


def command_of(suite: Suite) -> list[str]:
    """Return the arguments of this interpreter that run a suite."""
    return [
        *PYTEST,
        "-c",
        f"{ROOT}/pyproject.toml",
        f"--rootdir={ROOT}",
        *(f"{ROOT}/{place}" for place in SUITES[suite]),
    ]


def rule_of(patch: Path) -> tuple[str, str]:
    """Return the id of the rule that a patch breaks, and how.

    Raises:
        Unusable: its first line does not say so.
    """
    match = _RULE.fullmatch(patch.read_text("utf-8").partition("\n")[0])
    if match is None:
        raise Unusable("its first line does not read: Rule A1: what is broken")
    return match.group(1), match.group(2)


def copy_package(folder: Path) -> None:
    """Copy the package into a folder, without what was compiled of it."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))


def patcher(*, dry_run: bool) -> list[str]:
    """Return the command that applies a patch it reads: `patch`, or git where there is none. No guessing: no fuzz.

    Raises:
        Unusable: there is neither.
    """
    if program := shutil.which("patch"):
        dry = ["--dry-run"] if dry_run else []
        return [program, "-p1", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", *dry]
    if program := shutil.which("git"):
        return [program, "apply", "-p1", *(["--check"] if dry_run else [])]
    raise Unusable("neither patch nor git is installed")


def apply(patch: Path, folder: Path, *, dry_run: bool = False) -> None:
    """Apply a patch to a copy of the package.

    Raises:
        Unusable: it does not apply.
    """
    # Inside somebody's repository, git would go by that repository's paths.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent)}
    command, text = patcher(dry_run=dry_run), patch.read_bytes()
    done = subprocess.run(  # noqa: S603 - one of two programs, and a patch of the project
        command, cwd=folder, env=environment, input=text, capture_output=True, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").strip().replace("\n", " / ")
        raise Unusable(f"its patch does not apply: {said}")


def surroundings(folder: Path) -> dict[str, str]:
    """Return the environment in which a copy is the package that is imported."""
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def prepare(patch: Path | None, folder: Path) -> None:
    """Make a copy in a folder, patched or not, and see that it is what is imported: the package is installed as well.

    Raises:
        Unusable: it is not, or cannot be made.
    """
    copy_package(folder)
    if patch is not None:
        rule_of(patch)
        apply(patch, folder)
    done = subprocess.run(  # noqa: S603 - this very interpreter
        [sys.executable, "-c", _WHERE], cwd=folder, env=surroundings(folder), capture_output=True, check=False
    )
    if done.returncode:
        raise Unusable(f"it cannot be imported: {done.stderr.decode().strip().splitlines()[-1]}")
    place = Path(done.stdout.decode().strip()).resolve()
    if folder.resolve() not in place.parents:
        raise Unusable(f"another package is imported: {place}")


async def judge(folder: Path, suite: Suite, seconds: float) -> Verdict:
    """Run a suite against a copy. From its folder, so that what the tests leave behind lies there."""
    done: subprocess.CompletedProcess[bytes] | None = None
    log = folder / "log.txt"
    with log.open("wb") as file, trio.move_on_after(seconds):
        done = await trio.run_process(
            [sys.executable, *command_of(suite)],
            cwd=folder,
            env=surroundings(folder),
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,
            deliver_cancel=_kill,
        )
    if done is None:
        return Verdict("failed", f"hanging for {seconds:g} s")
    said = log.read_text("utf-8", errors="replace")
    breaker = _BREAKER.search(said)
    if done.returncode == 1 and breaker is not None:
        return Verdict("failed", breaker.group(1))
    last = said.strip().rpartition("\n")[2]
    return Verdict("neither" if done.returncode else "passed", f"pytest ended with {done.returncode}: {last}")


async def _kill(process: trio.Process) -> None:  # noqa: ASYNC124, ASYNC910 - trio wants it async; nothing to wait for
    """Kill a run with all that its tests have started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Report:
    """What is printed: a line per run, and on a terminal one that says what is going on."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._clear = "\x1b[2K\r" if sys.stdout.isatty() else ""

    def begin(self, name: str) -> None:
        """A run begins."""
        self._since[name] = trio.current_time()

    def end(self, name: str, text: str) -> None:
        """A run has ended."""
        seconds = trio.current_time() - self._since.pop(name)
        print(f"{self._clear}{name:<27} {text} ({seconds:.0f} s)", flush=True)

    async def show_progress(self) -> None:
        """Say every second what runs and for how long; only on a terminal."""
        while self._clear:
            now = trio.current_time()
            line = "... " + ", ".join(f"{name} {now - since:.0f} s" for name, since in self._since.items())
            print(f"{self._clear}{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
            await trio.sleep(1)
        await trio.lowlevel.checkpoint()


async def run(mutants: Sequence[Path], jobs: int, seconds: float) -> dict[str, bool]:
    """Judge the unchanged package, and if it passes, the mutants; return of each whether it is as it should be."""
    fine: dict[str, bool] = {}
    report = Report()
    places = trio.CapacityLimiter(jobs)

    async def one(name: str, suite: Suite, patch: Path | None) -> None:
        async with places:
            report.begin(name)
            with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
                try:
                    prepare(patch, Path(folder))
                    fine[name], text = describe(patch, await judge(Path(folder), suite, seconds))
                except Unusable as error:
                    fine[name], text = False, f"UNUSABLE: {error}"
            report.end(name, text)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report.show_progress)
        suites: list[Suite] = [suite_of(patch) for patch in mutants]
        for suite in dict.fromkeys(suites):
            await one(f"(unchanged-{suite})", suite, None)
        if all(fine.values()):
            async with trio.open_nursery() as crew:
                for patch in mutants:
                    crew.start_soon(one, patch.stem, suite_of(patch), patch)
        nursery.cancel_scope.cancel()
    return fine


def describe(patch: Path | None, verdict: Verdict) -> tuple[bool, str]:
    """Return whether the tests made of a copy what they should, and the text that says so."""
    kind, text = verdict
    if patch is None:
        return kind == "passed", "passes" if kind == "passed" else f"FAILS, so mutants say nothing: {text}"
    rule, what = rule_of(patch)
    said = {"failed": f"killed by {text}", "passed": f"SURVIVED: {what}", "neither": f"NO VERDICT: {text}"}
    return kind == "failed", f"{rule} {said[kind]}"


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description="Break one rule at a time, and run the tests of what it breaks."
    )
    parser.add_argument("names", nargs="*", help="beginnings of the names of patches (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side (default: 2)")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds for one run (default: 180)")
    options = parser.parse_args()
    mutants = patches(options.names)
    if not mutants:
        parser.error("no patch of this name")
    fine: dict[str, bool] = {}
    try:
        fine = trio.run(run, mutants, options.jobs, options.limit)
    except* KeyboardInterrupt:
        parser.exit(130, "\ninterrupted\n")
    killed = sum(fine.get(patch.stem, False) for patch in mutants)
    print(f"{killed} of {len(mutants)} mutants killed")
    return 0 if all(fine.values()) and killed == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
