"""What stays of a model across its incarnations."""

from __future__ import annotations

from typing import Any

import attrs

from tinker_actors.errors import (
    ModelPoisoned,
)
from tinker_actors.kernel import ReplyToken
from tinker_actors.protocol.journal import Journal
from tinker_actors.wire.model import (
    GetInfoResponse,
    LoraConfig,
)

__all__ = ["Lineage"]


@attrs.define(eq=False)
class Lineage:
    """What stays of a model across its incarnations and across the ids it has on the service.

    Attributes:
        base_model: what it was made from.
        lora_config: its adapter, with an explicit seed, so that it can be made again.
        journal: what was decided since the latest checkpoint.
        user_metadata: stored with the model.
        model_id: its present id on the service; empty before the first.
        info: what the service said of it when it was first made.
        waiting: who waits for the operation at a position.
        poison: why nothing may be sent to it any more.
        given_up: ids it had that are still to be unloaded, in order.
    """

    base_model: str
    lora_config: LoraConfig
    journal: Journal
    user_metadata: dict[str, str]  # some services want it even when it is empty
    model_id: str = ""
    info: GetInfoResponse | None = None
    waiting: dict[int, ReplyToken[Any]] = attrs.field(factory=dict)
    poison: ModelPoisoned | None = None
    given_up: dict[str, None] = attrs.field(factory=dict[str, None])
