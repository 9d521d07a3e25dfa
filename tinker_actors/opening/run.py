"""`open_run`: a run's directory, its journal, a service, and the run on them."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, Unpack, cast, get_args

import attrs

from tinker_actors.errors import InputError
from tinker_actors.kernel.bound import check_count
from tinker_actors.opening.service import open_chosen
from tinker_actors.opening.settings import Settings, check_names, choose
from tinker_actors.protocol.batch import check_flag
from tinker_actors.protocol.checkpoint_policy import JOURNAL_BYTES, CheckpointPolicy
from tinker_actors.protocol.creation import check_base_model, check_optimizer, lora_config
from tinker_actors.protocol.retention import Retention
from tinker_actors.protocol.run_identity import BACKEND, Identity, check_accept, check_mine, is_moved
from tinker_actors.protocol.saving import metadata
from tinker_actors.wire.optimizer import OptimizerConfig
from tinker_actors.wire.training import LossFnType

if TYPE_CHECKING:
    from tinker_actors.local.service import EmbeddedService
    from tinker_actors.runs.run import Run

__all__ = ["embedded_of", "open_run"]

_T = TypeVar("_T")


@contextlib.asynccontextmanager
async def open_run(
    run_dir: str | os.PathLike[str],
    *,
    base_model: str,
    rank: int = 32,
    seed: int | None = None,
    train_mlp: bool = True,
    train_attn: bool = True,
    train_unembed: bool = True,
    loss: str | None = None,
    identity: Mapping[str, object] | None = None,
    accept: Collection[str] = (),
    checkpoints: CheckpointPolicy | None = None,
    retention: Retention | None = None,
    durability: Literal["process", "machine"] = "process",
    journal_max_bytes: int = JOURNAL_BYTES,
    signals: bool = True,
    optimizer: OptimizerConfig | None = None,
    backend: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    embedded: EmbeddedService | None = None,
    **settings: Unpack[Settings],
) -> AsyncIterator[Run]:
    """Open a run: begin it, or go on with it where its last decided step ended, whatever it died of.

    Leaving it saves a checkpoint if the body returns, unless one holds everything; if the body raises nothing is
    saved, and nothing is lost: what was decided is in the journal. The body's own exception leaves as it is.

    Args:
        run_dir: the directory of the run; it is made if it is not there. One process at a time may have it open.
        base_model: what is adapted.
        rank: rank of the adapters.
        seed: of the initial adapters; None draws one when the run begins.
        train_mlp: adapt the MLP layers.
        train_attn: adapt the attention layers.
        train_unembed: adapt the output layer.
        loss: the loss of all its steps; None: it may be any, but one that was not used before is refused for the first
            step after the run was resumed.
        identity: whatever else must not change unnoticed, such as versions of data and prompts, as JSON.
        accept: names of what may differ from what the run was begun with: `backend`, `base_model`, `rank`, `seed`,
            `train_mlp`, `train_attn`, `train_unembed`, `loss`, `identity`, `identity.<key>`. What differs is taken as
            it is now; but weights that are there keep their shape.
        checkpoints: when one is saved without being asked for; None is every 100 steps, and every half an hour.
        retention: which are kept; None is the two newest, and the others for a week.
        durability: `process`: what is decided survives the death of the process. `machine`: also that of the machine.
        journal_max_bytes: what batches may take on disk, by default 4 GiB. When it is full, checkpoints are saved to
            make room.
        signals: the first SIGINT or SIGTERM lets the present step be the last, the second cancels the run.
        optimizer: which optimizer it is trained with; None is Adam.
        backend: as in `open_service`, and so are all further arguments. An embedded service keeps its state in the
            run's directory.
        base_url: where the service is.
        api_key: the key for it.
        embedded: the embedded service to use, made by the caller.
        **settings: as the attributes of `tinker_actors.Config`.

    Raises:
        InputError: an argument that cannot be; nothing was opened.
        RunLocked: another process has the run open.
        RunMismatch: the run was begun with something else, or was on another backend; it names the fields.
        JournalError: the journal cannot be read or written.
        ModelPoisoned: the model cannot be restored.
        ConfigError, TypeError, APIConnectionError, TinkerError, UnobservedFailure: as `open_service`; but a run that
            has begun waits for an absent service, for as long as `outage_timeout` says.
        KeyboardInterrupt, SystemExit: a second signal has cancelled it.
    """
    check_names("open_run", settings)
    # Loaded here: who opens a service needs none of it.
    from tinker_actors.journal.event_file import open_event_file
    from tinker_actors.journal.opening import open_journal
    from tinker_actors.runs.living import RunPlan, identify, living_run
    from tinker_actors.runs.succession import adoption_of, resumption_of

    check_flag("signals", signals)
    _check_journal(durability, journal_max_bytes)
    given = Identity(
        base_model=check_base_model(base_model),
        lora=lora_config(
            rank, seed, train_unembed, train_mlp, train_attn, draw=lambda: random.Random().getrandbits(31)
        ),
        loss=_check_loss(loss),
        mine=check_mine(identity),
    )
    plan = RunPlan(
        directory=_check_directory(run_dir),
        accept=check_accept(accept),
        checkpoints=_check_kind("checkpoints", checkpoints, CheckpointPolicy),
        retention=_check_kind("retention", retention, Retention),
        user_metadata=metadata(settings.get("user_metadata")) or {},
        optimizer=check_optimizer(optimizer),
        signals=signals,
    )
    chosen, settings = choose(backend, base_url, api_key, embedded, settings)
    plan = attrs.evolve(plan, backend=chosen.name)
    inline = settings.get("heartbeat") == "loop"  # nothing runs in a thread, as virtual time needs it
    journal = open_journal(plan.directory, durability=durability, max_bytes=journal_max_bytes, inline=inline)
    async with contextlib.aclosing(journal):
        moved = is_moved(journal.facts.get(BACKEND), plan.backend, plan.accept)
        whole = await identify(journal, given, plan.accept, seed_given=seed is not None)
        if chosen.base_url is None and embedded is None:
            embedded = embedded_of(plan.directory, whole.lora.seed or 0)
        # Each time it is opened draws something else, and the same again if it is done again.
        rng = random.Random(None if seed is None else f"{seed}/{journal.incarnation}")
        async with (
            open_event_file(plan.directory / "events.jsonl", inline=inline) as events,
            open_chosen(
                chosen, rng, embedded, settings, events, adoption_of(journal, moved=moved)
            ) as service,
        ):
            resumption = resumption_of(journal, moved=moved)
            async with living_run(service, journal, whole, plan, resumption) as run:
                yield run


def embedded_of(directory: Path, seed: int = 0) -> EmbeddedService:
    """Return the embedded service of a run: it keeps all that it has been given, beside the journal."""
    from tinker_actors.local.service import EmbeddedService

    return EmbeddedService(state=directory / "service", seed=seed)


def _check_directory(run_dir: object) -> Path:
    if not isinstance(run_dir, str | os.PathLike) or not str(run_dir):
        raise InputError("run_dir", run_dir, "must be the path of a directory")
    directory = Path(cast("str | os.PathLike[str]", run_dir)).absolute()
    if directory.exists() and not directory.is_dir():
        raise InputError("run_dir", run_dir, "is there, and no directory")
    return directory


def _check_loss(loss: object) -> str | None:
    if loss is not None and loss not in get_args(LossFnType):
        raise InputError("loss", loss, f"must be None or one of {', '.join(get_args(LossFnType))}")
    return cast("str | None", loss)


def _check_kind(field: str, value: _T | None, kind: type[_T]) -> _T:
    if value is None:
        return kind()
    if not isinstance(cast("object", value), kind):
        raise InputError(field, value, f"must be a {kind.__name__}, or None")
    return value


def _check_journal(durability: object, max_bytes: object) -> None:
    if durability not in ("process", "machine"):
        raise InputError("durability", durability, "must be 'process' or 'machine'")
    check_count("journal_max_bytes", max_bytes, 1)
