"""The base models a service offers."""

from __future__ import annotations

from collections.abc import Iterable

from tinker_actors.errors import InputError

from .model import BASE_MODELS, BaseModel, load_base_model

__all__ = ["Catalog"]


class Catalog:
    """Base models by name.

    Args:
        models: what to offer; None offers every model that comes with the package, each read when it is
            first wanted.
    """

    def __init__(self, models: Iterable[BaseModel] | None = None) -> None:
        self._given = None if models is None else {model.name: model for model in models}

    @property
    def names(self) -> tuple[str, ...]:
        """What is offered."""
        return tuple(BASE_MODELS if self._given is None else self._given)

    def get(self, name: str) -> BaseModel:
        """Return a base model.

        Raises:
            InputError: there is none of this name; the message lists those there are.
        """
        if self._given is None:
            return load_base_model(name)
        if name not in self._given:
            raise InputError("base_model", name, f"the embedded service has {', '.join(self._given)}")
        return self._given[name]
