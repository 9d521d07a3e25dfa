"""The embedded Tinker service as an object: an ASGI application, and handles for demos and tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

from starlette.applications import Starlette

from tinker_actors.errors import InputError

from .app import build_app
from .catalog import Catalog
from .compute import ComputeMode
from .engine import Engine, ServiceStatistics, Settings
from .model import BaseModel
from .state import ServiceState
from .store import CheckpointStore

__all__ = ["EmbeddedService"]


class EmbeddedService:
    """A Tinker service inside this process: a small model, real gradients, the real protocol.

    It is open while the lifespan of `app` runs: inside `InProcessTransport(service.app)`, inside `serve`,
    or inside `running()`. It can be opened once; models end with it, and so do sessions and results unless it is given
    a directory for its state. Checkpoints stay in the store, which another service may be given.

    A service that opens with a directory that others have had before goes on where the last one ended, also if that was
    killed: it has the checkpoints, sessions and runs, and the results of what was saved. Its models are not loaded.

    Args:
        store: where checkpoints lie: a `CheckpointStore`, a directory, or None: that of the state, else memory.
        state: a directory for all else that shall last; one service at a time may have it open.
        base_models: what can be trained and sampled; None offers those that come with the package.
        api_key: what requests must carry in `x-api-key`; None asks for none.
        compute: `thread` runs numpy on a worker thread; `inline` in the loop, as virtual time needs.
        seed: of the service's own draws: adapters and samples whose client names no seed.
        poll_hold: seconds a poll waits for its result.
        session_timeout: seconds without a heartbeat after which a session and all it owns ends.
        clock: the time in seconds, callable from any thread; None means that of the loop that opens it.
        utc_now: the calendar, for the times of what is listed; asked once, when the service opens.
        max_rows: samples under way at once per set of weights.
        max_samples: sampling requests that may be queued or under way; more are refused with 429.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        store: CheckpointStore | Path | None = None,
        state: Path | None = None,
        base_models: Iterable[BaseModel] | None = None,
        api_key: str | None = None,
        compute: ComputeMode = "thread",
        seed: int = 0,
        poll_hold: float = 30.0,
        session_timeout: float = 300.0,
        clock: Callable[[], float] | None = None,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_rows: int = 64,
        max_samples: int = 2048,
    ) -> None:
        _check("poll_hold", poll_hold, poll_hold >= 0 and math.isfinite(poll_hold))
        _check("session_timeout", session_timeout, session_timeout > 0)
        _check("seed", seed, seed >= 0)
        _check("max_rows", max_rows, max_rows >= 1)
        _check("max_samples", max_samples, max_samples >= 1)
        settings = Settings(
            compute=compute,
            seed=seed,
            poll_hold=poll_hold,
            session_timeout=session_timeout,
            clock=clock,
            utc_now=utc_now,
            max_rows=max_rows,
            max_samples=max_samples,
        )
        self.store = store if isinstance(store, CheckpointStore) else CheckpointStore(store or state)
        self._engine = Engine(settings, Catalog(base_models), self.store, ServiceState(state))
        self._app = build_app(self._engine, api_key=api_key)

    @property
    def app(self) -> Starlette:
        """The ASGI application; its lifespan opens the service."""
        return self._app

    def running(self) -> AbstractAsyncContextManager[None]:
        """Open the service without the application's lifespan. Checkpoints.

        Raises:
            RuntimeError: it is or was open.
            ConfigError: its state cannot be used, or another service uses it.
        """
        return self._engine.running()

    def stop_holding(self) -> None:
        """Answer every poll at once from now on: the service is about to close."""
        self._engine.promises.stop_holding()

    def drop_model(self, model_id: str) -> None:
        """Lose a model at once, as a failing server would.

        Its running request is abandoned, queued ones and open polls end with 410, later ones with 404. What
        it saved stays, and so do samplers made of it.

        Raises:
            NotFoundError: the model is not loaded.
        """
        self._engine.drop_model(model_id)

    def drop_model_at(self, operation: str, nth: int) -> None:
        """Lose a model the moment that the nth request of an operation begins to run.

        Args:
            operation: an endpoint's name, such as `forward_backward`.
            nth: counted from 1 over all models, from the service's start.

        Raises:
            InputError: there is no such operation, or that request has begun already.
        """
        self._engine.drop_model_at(operation, nth)

    def statistics(self) -> ServiceStatistics:
        """Return what the service is doing."""
        return self._engine.statistics()


def _check(field: str, value: float, good: bool) -> None:
    if not good:
        raise InputError(field, value, "is out of its range")
