"""What is sampled from: a place on the service, its numbers, and how it came to be.

Theory of operation. A sampling session belongs to a session and ends with it. Its target outlives both: who finds a
target of an older epoch has it opened anew from its origin, and all clients that share the target go on with the new
id. The numbers of its requests are counted here and nowhere else, so that nothing of a sampling session is left when
its last client is gone. There must be one target for each sampling session in a process: two would give out the same
numbers.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeAlias

import attrs
import trio

from tinker_actors.errors import ModelPoisoned
from tinker_actors.kernel import ActorRef
from tinker_actors.protocol.progress import Progress

__all__ = ["CLONE_NUMBERS", "FromBase", "FromPath", "Origin", "Published", "Publisher", "SampleTarget"]

CLONE_NUMBERS: Final = 1_000_000_000
"""Clone k of a sampling session numbers its requests from k times this; tinker 0.38.0 sampling_client.py."""


@attrs.frozen
class FromPath:
    """Saved weights.

    Attributes:
        path: where they are, `tinker://…`.
    """

    path: str


@attrs.frozen
class FromBase:
    """A base model.

    Attributes:
        base_model: its name.
    """

    base_model: str


class Publisher(Protocol):
    """A model that publishes its weights, and does so again when it is restored: a `lineage.Lineage`."""

    @property
    def poison(self) -> ModelPoisoned | None:
        """Why nothing may be sent to it any more."""
        ...

    @property
    def model_id(self) -> str:
        """Its present id on the service."""
        ...

    @property
    def epoch(self) -> int:
        """The session it was made in."""
        ...

    @property
    def actor(self) -> ActorRef[Any] | None:
        """Who trains it."""
        ...

    @property
    def changed(self) -> trio.Event:
        """Set, and replaced, when any of this may have changed."""
        ...

    def publication_of(self, target: SampleTarget) -> object | None:
        """Return the publication that a target was made of, if it can be made again."""
        ...


@attrs.frozen(eq=False)
class Published:
    """Weights that a TrainingClient published without a name; they end with their session.

    Attributes:
        lineage: the model they were published from.
        version: which of its publications, from 1.
    """

    lineage: Publisher = attrs.field(repr=False)
    version: int


Origin: TypeAlias = FromPath | FromBase | Published
"""What a sampling session can be opened from again."""


@attrs.define(eq=False)
class SampleTarget:
    """Where samples come from.

    Attributes:
        sampling_session_id: the service's id of the weights.
        epoch: the session it belongs to, counted as `Session.epoch` does; 0: to none of this process's.
        origin: what it can be opened from again; None: from nothing that is known here.
        session_id: the service's id of a session of another process; empty: it is this process's.
        clone: which client of the sampling session this process is; who opened it is client 0.
        progress: when its samples have ended.
        dropped: the service has it no longer, though it has the session.
    """

    sampling_session_id: str
    epoch: int = 0
    origin: Origin | None = None
    session_id: str = ""
    clone: int = 0
    progress: Progress = attrs.field(factory=Progress, init=False, repr=False)
    dropped: bool = attrs.field(default=False, init=False)
    _taken: int = attrs.field(default=0, init=False, repr=False)

    def rebind(self, sampling_session_id: str, epoch: int) -> None:
        """Go on with another sampling session of the same weights; its numbers begin anew."""
        self.sampling_session_id, self.epoch = sampling_session_id, epoch
        self.dropped = False
        self._taken = 0

    def take_number(self) -> int:
        """Return the next number for a request in this sampling session."""
        number = self.clone * CLONE_NUMBERS + self._taken
        self._taken += 1
        return number
