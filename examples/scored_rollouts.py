"""Score rollouts with the actor kernel alone: no Tinker, no network, and many things that go wrong on purpose.

    python examples/scored_rollouts.py                  # 4 environments, 20 groups of 8 rollouts each; about a second
    python examples/scored_rollouts.py --seed 2 --log   # other faults; the kernel's log on stderr

Four environments play; a pool of judges scores what they played, at most so many at once as the service behind them
allows; a scoreboard keeps the totals. Some rollouts have no score, some break off the service's connection once, some
always, and some scores are no numbers, which crashes the scoreboard. The environment "maze" has a level that cannot be
loaded. What becomes of all this follows from the seed, whatever the order in which it happens. The last line is one
JSON object.

    rollouts
    ├── scoreboard        permanent; its totals are in `context.checkpoint`, so a crash costs one score
    ├── judges            a pool of 4 behind a limiter of 2; what crashes a judge is handed to another one, once
    ├── referee           watches the environments, and answers when all of them have ended
    └── environments
        ├── addition …    transient: started again after a crash, done when all groups are played
        └── maze          crashes at the same level again and again; is given up, alone
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import attrs
import trio
from rich.console import Console
from rich.table import Table

from tinker_actors.errors import HandlerCrashed
from tinker_actors.kernel import (
    Actor,
    ActorRef,
    ActorSnapshot,
    Backoff,
    ChildSpec,
    Down,
    Intensity,
    Message,
    Pending,
    PoolSpec,
    ReplyToken,
    RestartPolicy,
    Stop,
    Supervisor,
    handles,
    open_supervisor,
    start_pool,
)

ENVIRONMENTS = ("addition", "chess", "maze", "words")
GROUP = 8  # rollouts that are played and scored together
BROKEN_LEVEL = 2  # the group of "maze" that cannot be played
JUDGES, CONNECTIONS = 4, 2
FAULTS = {"no score": 0.05, "breaks once": 0.04, "breaks always": 0.01, "no number": 0.02}
"""What goes wrong with which share of the rollouts."""
QUICKLY = Backoff(base=0.002, maximum=0.02)
OFTEN = RestartPolicy(max_restarts=1000, backoff=QUICKLY)  # crashes are the point here: no limit that matters
ALL_TOGETHER = Intensity(max_restarts=1000)


# --- what is played, and who scores it ----------------------------------------------------------------------


@attrs.frozen
class Rollout:
    """One attempt in an environment; `fault` is what will go wrong with it, if anything."""

    environment: str
    number: int
    fault: str | None


def play(environment: str, group: int, seed: int) -> list[Rollout]:
    """Play a group of rollouts.

    Raises:
        OSError: the level cannot be loaded.
    """
    if environment == "maze" and group == BROKEN_LEVEL:
        raise OSError(f"level {group} cannot be loaded")
    numbers = range(group * GROUP, (group + 1) * GROUP)
    return [Rollout(environment, number, draw_fault(environment, number, seed)) for number in numbers]


def draw_fault(environment: str, number: int, seed: int) -> str | None:
    """Return what goes wrong with a rollout: the same for the same seed."""
    chance = random.Random(f"{seed} {environment} {number}").random()
    for fault, share in FAULTS.items():
        if chance < share:
            return fault
        chance -= share
    return None


class NoScore(Exception):
    """The judges have no opinion on a rollout. An answer, not a crash."""


class JudgeService:
    """Stands for a service in the network. It takes a while, and goes wrong as the rollout says."""

    def __init__(self) -> None:
        self._broken: set[Rollout] = set()
        self.at_once = 0
        self.most_at_once = 0

    async def score(self, rollout: Rollout) -> float:
        """Score a rollout.

        Raises:
            NoScore: there is none.
            ConnectionError: the connection broke.
        """
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(0.001 + 0.002 * (rollout.number % GROUP) / GROUP)
        finally:
            self.at_once -= 1
        return self._verdict(rollout)

    def _verdict(self, rollout: Rollout) -> float:
        if rollout.fault == "no score":
            raise NoScore(f"{rollout.environment} {rollout.number}")
        breaks_now = rollout.fault == "breaks once" and rollout not in self._broken
        if breaks_now or rollout.fault == "breaks always":
            self._broken.add(rollout)
            raise ConnectionError(f"the connection broke at {rollout.environment} {rollout.number}")
        return math.nan if rollout.fault == "no number" else random.Random(repr(rollout)).random()


# --- roles and messages -------------------------------------------------------------------------------------


class Judge:
    """Role: scores rollouts."""


class Scoreboard:
    """Role: keeps scores."""


class Environment:
    """Role: plays."""


class Referee:
    """Role: knows when all have ended."""


@attrs.frozen
class Score(Message[Judge, float]):
    """Asks for a score. To ask twice does no harm, so a crash of the judge costs one try of two."""

    max_redeliver = 1
    rollout: Rollout


@attrs.frozen
class Enter(Message[Scoreboard, None]):
    """Adds a score to the total of an environment."""

    environment: str
    score: float


@attrs.frozen
class Read(Message[Scoreboard, "Totals"]):
    """Asks for the totals."""


@attrs.frozen
class Play(Message[Environment, None]):
    """Has a group played; an environment sends it to itself."""

    group: int


@attrs.frozen
class WaitFor(Message[Referee, tuple[Down, ...]]):
    """Is answered when all of these have ended."""

    environments: tuple[ActorRef[Environment], ...]


# --- actors -------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class JudgeActor(Actor[Judge]):
    """Scores by the service; a broken connection is a crash, and the next incarnation has a new one."""

    declares = (NoScore,)
    service: JudgeService

    @handles(Score)
    async def score(self, message: Score) -> float:
        """Ask the service."""
        return await self.service.score(message.rollout)


Totals: TypeAlias = dict[str, tuple[int, float]]
"""Environment to the number of its scores and their sum."""


class ScoreboardActor(Actor[Scoreboard]):
    """Keeps totals where its next incarnation finds them."""

    async def on_start(self) -> None:
        """Begin with what the incarnation before this one kept."""
        self.totals: Totals = dict(self.context.checkpoint or {})

    @handles(Enter)
    async def enter(self, message: Enter) -> None:
        """Add a score; what is no number crashes the scoreboard before it spoils a total."""
        if not math.isfinite(message.score):
            raise ValueError(f"{message.environment} has a score of {message.score}")
        count, total = self.totals.get(message.environment, (0, 0.0))
        self.totals[message.environment] = count + 1, total + message.score
        self.context.checkpoint = dict(self.totals)

    @handles(Read)
    async def read(self, _: Read) -> Totals:
        """Give the totals."""
        return dict(self.totals)


@attrs.define(eq=False)
class EnvironmentActor(Actor[Environment]):
    """Plays one group after the other; a restart goes on with the group that is not done."""

    name: str
    options: argparse.Namespace
    judges: ActorRef[Judge]
    scoreboard: ActorRef[Scoreboard]
    outcomes: Counter[str]

    async def on_start(self) -> None:
        """Begin where the incarnation before this one was."""
        self.context.send_after(0.0, Play(self.context.checkpoint or 0))

    @handles(Play)
    async def play(self, message: Play) -> Stop[None] | None:
        """Play a group and have it scored; the judges may work on all of it at once."""
        if message.group == self.options.groups:
            return Stop(None)
        rollouts = play(self.name, message.group, self.options.seed)
        pending = [await self.judges.submit(Score(rollout)) for rollout in rollouts]
        for one in pending:
            self.outcomes[await self._enter(one)] += 1
        self.context.checkpoint = message.group + 1
        self.context.send_after(0.0, Play(message.group + 1))
        return None

    async def _enter(self, pending: Pending[float]) -> str:
        """Wait for a score and pass it on; return what became of the rollout."""
        try:
            score = await pending
        except NoScore:
            return "no score"
        except HandlerCrashed:
            return "given up"
        await self.scoreboard.tell(Enter(self.name, score))  # its crash is not ours
        return "scored"


class RefereeActor(Actor[Referee]):
    """Is told once of each end, also of those that came before it asked."""

    def __init__(self) -> None:
        self.awaited = 0
        self.ends: list[Down] = []
        self.reply: ReplyToken[tuple[Down, ...]] | None = None

    @handles(WaitFor)
    async def wait_for(self, message: WaitFor) -> ReplyToken[tuple[Down, ...]]:
        """Watch them, and keep the duty to answer."""
        self.awaited = len(message.environments)
        self.reply = self.context.detach_reply()
        for environment in message.environments:
            self.context.watch(environment)
        return self.reply

    @handles(Down)
    async def down(self, message: Down) -> None:
        """Answer when it is the last one."""
        self.ends.append(message)
        if self.reply is not None and len(self.ends) == self.awaited:
            self.reply.settle(tuple(self.ends))


# --- the whole ----------------------------------------------------------------------------------------------


@attrs.frozen
class Report:
    """What came of it.

    Attributes:
        ends: how each environment ended.
        totals: scores by environment.
        outcomes: what became of the rollouts.
        letters: dead letters, by reason and type.
        scoreboard_lives: incarnations of the scoreboard.
        most_at_once: rollouts the service scored at the same time, at most.
    """

    ends: tuple[Down, ...]
    totals: Totals
    outcomes: Counter[str]
    letters: Counter[tuple[str, str]]
    scoreboard_lives: int
    most_at_once: int

    def line(self) -> dict[str, object]:
        """Return what the last line says."""
        return {
            **{name.replace(" ", "_"): self.outcomes[name] for name in ("scored", "no score", "given up")},
            "entered": sum(count for count, _ in self.totals.values()),
            "dead_letters": {f"{kind} {reason}": n for (reason, kind), n in sorted(self.letters.items())},
            "scoreboard_lives": self.scoreboard_lives,
            "most_at_once": self.most_at_once,
        }


async def run(options: argparse.Namespace) -> Report:
    """Open the tree, wait until all environments have ended, and look at what is left."""
    service, outcomes = JudgeService(), Counter[str]()
    async with open_supervisor("rollouts", rng=random.Random(options.seed), intensity=ALL_TOGETHER) as tree:
        spec = ChildSpec(name="scoreboard", factory=ScoreboardActor, policy=OFTEN)
        scoreboard = await tree.start_child(spec)
        limiter = trio.CapacityLimiter(CONNECTIONS)
        judges = PoolSpec(
            name="judges", workers=JUDGES, limiter=limiter, policy=OFTEN, intensity=ALL_TOGETHER
        )
        pool = await start_pool(tree, judges, lambda: JudgeActor(service))
        referee = await tree.start_child(ChildSpec(name="referee", factory=RefereeActor))
        environments = await start_environments(tree, options, pool.ref, scoreboard, outcomes)
        ends = await referee.ask(WaitFor(environments))
        totals = await scoreboard.ask(Read())  # in line behind every score
        picture = tree.snapshot().find("rollouts/scoreboard")
        assert isinstance(picture, ActorSnapshot)
        return Report(
            ends=tuple(sorted(ends, key=lambda end: end.path)),
            totals=totals,
            outcomes=outcomes,
            letters=Counter((letter.reason, letter.kind) for letter in tree.dead_letters.recent),
            scoreboard_lives=picture.incarnation,
            most_at_once=service.most_at_once,
        )


async def start_environments(
    tree: Supervisor,
    options: argparse.Namespace,
    judges: ActorRef[Judge],
    scoreboard: ActorRef[Scoreboard],
    outcomes: Counter[str],
) -> tuple[ActorRef[Environment], ...]:
    """Start all of them; one that is given up concerns no other."""
    group = tree.start_supervisor("environments", "dynamic")
    policy = RestartPolicy(restart="transient", max_restarts=2, backoff=QUICKLY)
    specs = [
        ChildSpec(
            name=name,
            factory=partial(EnvironmentActor, name, options, judges, scoreboard, outcomes),
            policy=policy,
            on_exhausted="fail",
        )
        for name in ENVIRONMENTS
    ]
    return tuple([await group.start_child(spec) for spec in specs])


def show(report: Report, console: Console) -> None:
    """Print what came of it."""
    table = Table("environment", "ended", "scores", "mean")
    for end in report.ends:
        name = end.path.rpartition("/")[2]
        count, total = report.totals.get(name, (0, 0.0))
        how = end.reason if end.cause is None else f"{end.reason}: {end.cause}"
        table.add_row(name, how, str(count), f"{total / count:.3f}" if count else "-")
    console.print(table)
    console.print(f"the scoreboard is in life {report.scoreboard_lives}")
    for (reason, kind), count in sorted(report.letters.items()):
        console.print(f"dead letters: {count} {kind}, {reason}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--groups", type=int, default=20, help="groups that each environment plays")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", action="store_true", help="show what the kernel logs: each crash")
    parser.add_argument("--quick", action="store_true", help="a few groups, to see that it runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.groups = min(options.groups, 8)
    return options


if __name__ == "__main__":
    settings = parse()
    if not settings.log:
        logging.getLogger("tinker_actors.kernel").setLevel(logging.CRITICAL + 1)
    found = trio.run(run, settings)
    show(found, Console(highlight=False))
    print(json.dumps(found.line()))
