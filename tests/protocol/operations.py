"""Operations without a batch, for the tests of both journals."""

from __future__ import annotations

from tinker_actors.protocol.journal import Operation
from tinker_actors.wire.optimizer import AdamParams


def optim(rate: float = 1.0) -> Operation:
    return Operation(kind="optim_step", optim_params=AdamParams(learning_rate=rate))


def save(name: str) -> Operation:
    return Operation(kind="save_state", name=name)


def load(path: str, *, optimizer: bool = True) -> Operation:
    return Operation(kind="load_state", path=path, optimizer=optimizer)
