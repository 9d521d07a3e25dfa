"""One LoRA model and the task that runs its jobs.

Theory of operation. A worker takes the jobs of its queue one by one, in their order, and settles each one's
promise; a reply that shall last through a restart of the service is kept first. A job that fails has had its
turn: the next one runs. Stopping the worker (the model is dropped, the service closes) cancels the running job
between two slices; its promise, and those of the jobs that wait, are broken by whoever stops it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs
import trio

from tinker_actors.errors import APIStatusError, InputError

from .compute import Compute
from .job import Job, JobQueue
from .lora import LoraConfig
from .model import BaseModel
from .promise import Category, PromiseTable
from .store import CheckpointPath
from .trainer import LoraModel

__all__ = ["ModelWorker", "Work"]

_log = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class Work:
    """What a request comes to when its turn comes.

    Attributes:
        run: does it and returns the reply.
        saves: the checkpoint it is going to write.
        lasts: whether its reply is kept through a restart of the service.
    """

    run: Callable[[], Awaitable[object]]
    saves: CheckpointPath | None = None
    lasts: bool = False


def blame(error: Exception) -> Category:
    """Say whose fault a job's failure is."""
    return "user" if isinstance(error, InputError | APIStatusError) else "server"


class ModelWorker:
    """A model, its queue, and the task that works on it.

    Args:
        model_id: the model's name.
        session_id: the session it dies with.
        base: what the adapter adapts.
        config: the adapter.
        compute: where slices run.
        promises: where results go.
        on_begin: called with each job when it begins to run.
        keep: keeps the reply to a request through a restart of the service; None keeps none.

    Attributes:
        queue: the accepted jobs.
        reserved: checkpoints that accepted jobs are going to save.
    """

    def __init__(
        self,
        model_id: str,
        session_id: str,
        base: BaseModel,
        config: LoraConfig,
        *,
        compute: Compute,
        promises: PromiseTable,
        on_begin: Callable[[ModelWorker, Job], None],
        keep: Callable[[str, object], None] | None = None,
    ) -> None:
        self.model_id = model_id
        self.session_id = session_id
        self.base = base
        self.config = config
        self.compute = compute
        self.queue = JobQueue()
        self.reserved: set[CheckpointPath] = set()
        self._promises = promises
        self._on_begin = on_begin
        self._keep = keep
        self._model: LoraModel | None = None
        self._scope = trio.CancelScope()
        self._arrival = trio.Event()

    @property
    def model(self) -> LoraModel:
        """The model itself; only jobs touch it.

        Raises:
            RuntimeError: creating it failed.
        """
        if self._model is None:
            raise RuntimeError(f"creating model {self.model_id!r} failed")
        return self._model

    async def create(self) -> None:
        """Make the model: the first job. Checkpoints."""
        self._model = await self.compute.call(lambda: LoraModel(self.base, self.config))

    def submit(self, number: int, operation: str, digest: bytes, work: Work) -> str:
        """Accept a request that is new, and return its request id.

        Raises:
            RateLimitError: too many jobs wait already.
        """
        job = Job(number, f"{self.model_id}:{number}", operation, lambda: self._run(work), work.lasts)
        self.queue.put(job, digest)
        self._promises.open(job.request_id, self.model_id)
        if work.saves is not None:
            self.reserved.add(work.saves)
        self._arrival.set()
        return job.request_id

    async def _run(self, work: Work) -> object:
        try:
            return await work.run()
        finally:
            if work.saves is not None:
                self.reserved.discard(work.saves)

    def stop(self, reason: str) -> None:
        """Take no more jobs, and cancel the running one between two slices."""
        self._scope.cancel(reason=reason)

    async def run(self) -> None:
        """Work until stopped. Checkpoints."""
        with self._scope:
            while True:
                job = self.queue.take()
                if job is None:
                    self._arrival = trio.Event()
                    await self._arrival.wait()
                else:
                    self._on_begin(self, job)
                    await self._settle(job)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _settle(self, job: Job) -> None:  # noqa: ASYNC910 - a failed job may not have waited
        try:
            reply = await job.run()
            if job.lasts:
                await self._make_last(job, reply)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is this request's outcome
            category = blame(error)
            if category == "server":
                _log.error("%s %s failed", job.operation, job.request_id, exc_info=error)
            self._promises.fail(job.request_id, str(error) or repr(error), category)
        else:
            self._promises.resolve(job.request_id, reply)

    async def _make_last(self, job: Job, reply: object) -> None:
        keep = self._keep
        if keep is not None:
            await self.compute.call(lambda: keep(job.request_id, reply))
