"""Opening a run on a service and a journal, and leaving it.

Theory of operation. What a run was begun with is compared before anything is asked of a service. Then the model's actor
is started on the journal; it goes on with the very same model, or restores it, and says which. A fresh run's model has
an explicit seed, which is in the journal before the model is made, and a checkpoint that holds no step comes first in
its line.

A checkpoint that the service says it lacks is gone, and the one before it takes its place. But who lacks all of them is
hardly the service that they are on; nor is one that the run was not on before, if it lacks any: then none is given up,
and the run is as it was. Where it is opened is noted when that has come to something.

The body returns: the last checkpoint is saved if there is anything to save, and those under way are waited for. The
body raises or is cancelled: nothing is saved, for the journal holds what was decided, and the next process sends it
again. What leaves is the body's own exception.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Final, cast

import attrs
import trio

from tinker_actors.actors.lineage import Lineage
from tinker_actors.actors.service_client import ServiceClient
from tinker_actors.errors import RunMismatch, TinkerError
from tinker_actors.kernel.handling import collapse, without_cancelled
from tinker_actors.protocol.checkpoint_policy import CheckpointPolicy, run_name
from tinker_actors.protocol.journal import Checkpoint
from tinker_actors.protocol.reattach import Resumption
from tinker_actors.protocol.resume import ResumePoint
from tinker_actors.protocol.retention import Retention
from tinker_actors.protocol.run_event import StepsLost
from tinker_actors.protocol.run_identity import BACKEND, Identity, merge
from tinker_actors.protocol.run_journal import RunJournal
from tinker_actors.runs.draining import Signals
from tinker_actors.runs.existence import is_there
from tinker_actors.runs.keeping import Keeping
from tinker_actors.runs.run import Losses, Run
from tinker_actors.runs.saving import Saving
from tinker_actors.wire.codec import JsonValue
from tinker_actors.wire.optimizer import OptimizerConfig

__all__ = ["RunPlan", "identify", "living_run"]

_LOG: Final = logging.getLogger("tinker_actors.runs")
_IDENTITY: Final = "identity"  # the name of the fact


@attrs.frozen(kw_only=True)
class RunPlan:
    """How a run is to be.

    Attributes:
        directory: where it lies.
        accept: what may differ from what it was begun with.
        checkpoints: when they are saved without being asked for.
        retention: which are kept.
        user_metadata: stored with its models.
        optimizer: which optimizer they have; None is the usual one.
        signals: SIGINT and SIGTERM drain it.
        backend: where it is opened; empty is not noted.
    """

    directory: Path
    accept: Collection[str]
    checkpoints: CheckpointPolicy
    retention: Retention
    user_metadata: dict[str, str]
    optimizer: OptimizerConfig | None
    signals: bool
    backend: str = ""


async def identify(
    journal: RunJournal, given: Identity, accept: Collection[str], *, seed_given: bool
) -> Identity:
    """Return what a run is, or goes on, with; it is in the journal when this returns.

    Raises:
        RunMismatch: it was begun with something else that is not accepted.
        JournalError: it cannot be written.
    """
    written = cast("dict[str, JsonValue] | None", journal.facts.get(_IDENTITY))
    identity = given
    if written is not None:
        identity = merge(Identity.from_json(written), given, accept, seed_given=seed_given)
    if identity.to_json() != written:
        await journal.note(**{_IDENTITY: identity.to_json()})
    return identity


@contextlib.asynccontextmanager
async def living_run(
    service: ServiceClient,
    journal: RunJournal,
    identity: Identity,
    plan: RunPlan,
    resumption: Resumption | None = None,
) -> AsyncGenerator[Run]:
    """Bring a run's model to life, and end in good order; see the module.

    Args:
        service: where it is trained; opened with what an earlier process has left there.
        journal: of the run.
        identity: what it is; `identify` gives it.
        plan: how it is to be.
        resumption: what is known of the time since an earlier process; without it the model is restored.

    Raises:
        RunMismatch: it is on another backend than before, which does not have its newest checkpoint.
        TinkerError: the model could not be made or restored.
        KeyboardInterrupt, SystemExit: the run was cancelled by a second signal.
    """
    leaving: BaseException | None = None
    signals = Signals(trio.CancelScope())
    try:
        async with trio.open_nursery() as nursery:
            run, saving = await _start(service, journal, identity, plan, resumption, nursery)
            if plan.signals:
                await nursery.start(signals.receive, run.drain)
            try:
                with signals.body:
                    yield run
                    await saving.finish()
            except BaseException as error:  # noqa: ASYNC103, BLE001 - raised below, outside the nursery's group
                leaving = error
            nursery.cancel_scope.cancel(reason="the run has ended")
    except BaseException as error:  # noqa: ASYNC103, BLE001 - as above
        leaving = without_cancelled(leaving) or collapse(error)  # a task that raises also cancels the body
    try:
        if leaving is not None:
            raise leaving
    finally:
        del leaving  # or this frame and the traceback would keep each other alive
    signals.raise_second()


async def _start(
    service: ServiceClient,
    journal: RunJournal,
    identity: Identity,
    plan: RunPlan,
    resumption: Resumption | None,
    nursery: trio.Nursery,
) -> tuple[Run, Saving]:
    """Bring the model to life and say how it came to it."""
    _tell_what_is_lost(service, journal)
    moved = resumption is not None and not resumption.same_backend
    await _forget_what_is_gone(service, journal, plan.backend if moved else "")
    lineage = Lineage(
        identity.base_model,
        identity.lora,
        journal,
        plan.user_metadata,
        optimizer_config=plan.optimizer,
        resumption=resumption,
        in_run=True,
    )
    training = await service.start_lineage(lineage)
    resumed = _resume_point(journal, lineage)
    if plan.backend and journal.facts.get(BACKEND) != plan.backend:
        await journal.note(**{BACKEND: plan.backend})
    journal.steadfast = False
    name = run_name(plan.directory.name)
    sys.stderr.write(f"tinker_actors: {resumed.line(name)}\n")
    service.ref.publish(resumed.event(name))
    keeping = Keeping(journal, service.rest, plan.retention, service.ref.publish)
    saving = Saving(name, journal, training, keeping, plan.checkpoints, nursery)
    if journal.steps == 0 and saving.latest is None:
        await saving.begin_first()
    else:
        nursery.start_soon(keeping.keep_house)
    losses = Losses(declared=identity.loss, journal=journal, refused="loss" not in plan.accept)
    run = Run(service, training, journal, saving, keeping, losses, resumed, plan.directory)
    return run, saving


def _tell_what_is_lost(service: ServiceClient, journal: RunJournal) -> None:
    if journal.lost_steps:
        lost = StepsLost(journal.steps, journal.lost_steps)
        why = (
            "steps from %d on were decided and are lost with the machine: %d; durability='machine' loses none"
        )
        _LOG.warning(why, lost.step, lost.lost)
        service.ref.publish(lost)


async def _forget_what_is_gone(service: ServiceClient, journal: RunJournal, moved_to: str) -> None:
    """Fall back from checkpoints that the service says it does not have. Always a checkpoint.

    Args:
        service: the service.
        journal: of the run.
        moved_to: the backend, if it is another one than before.

    Raises:
        RunMismatch: it is, and the newest checkpoint is not there.
    """
    lacking = await _lacking(service, journal)
    if lacking and moved_to:
        before, newest = journal.facts.get(BACKEND), lacking[0].path
        raise RunMismatch(
            f"backend was {before!r} and is {moved_to!r}, which does not have checkpoint {newest} of the run: "
            "open it where it was, or bring its checkpoints there. None was given up",
            fields={BACKEND: (before, moved_to)},
        )
    journal.steadfast = bool(moved_to) or (len(lacking) == len(journal.starts))
    if journal.steadfast and lacking:
        _LOG.warning("the service has none of the run's checkpoints, so none of them is given up")
        return
    for one in lacking:
        _LOG.warning("checkpoint %s is gone: the one before it takes its place", one.path)
        journal.fall_back()


async def _lacking(service: ServiceClient, journal: RunJournal) -> list[Checkpoint]:
    """Return the checkpoints that the service says it does not have, from the newest to one that is there.

    A checkpoint. If one cannot be asked for there are none: who loads it will see.
    """
    await trio.lowlevel.checkpoint()
    lacking: list[Checkpoint] = []
    for one in reversed(journal.starts):
        try:
            seen = True if one is None else await is_there(service.rest, one.path)
        except TinkerError:
            return []
        if one is None or seen is not False:
            break
        lacking.append(one)
    return lacking


def _resume_point(journal: RunJournal, lineage: Lineage) -> ResumePoint:
    resumed = lineage.resumed
    point = ResumePoint(
        step=journal.steps,
        how="fresh",
        model_id=lineage.model_id,
        incarnation=journal.incarnation,
        lost=journal.lost_steps,
    )
    if resumed is None:
        return point
    return attrs.evolve(
        point,
        how=resumed.how,
        checkpoint=resumed.checkpoint,
        replayed=resumed.steps,
        why=resumed.why,
    )
