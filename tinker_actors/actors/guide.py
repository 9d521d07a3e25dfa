"""What a wrong guess at a client is told: how it is made, and what a name is called here or which client has it.

Checkers and editors do not see these methods: a `__getattr__` would make every misspelt name a known one for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

__all__ = ["Guide"]


class Guide:
    """A client that answers wrong guesses. Clients inherit from it.

    Attributes:
        _made_by: how users get one.
        _made_of: the first thing it is made of, by the name of the argument.
        _beside: clients that have other names, by how they are reached from here.
    """

    __slots__ = ()

    _made_by: ClassVar[str]
    _made_of: ClassVar[str]
    _beside: ClassVar[Mapping[str, type]] = {}

    if not TYPE_CHECKING:

        def __new__(cls, *args: object, **kwargs: object) -> object:  # noqa: D102 - its text would be that of the class
            given = args[0] if args else kwargs.get(cls._made_of)
            if given is None or isinstance(given, str | Mapping):  # Tinker's own arguments
                raise TypeError(f"{cls.__name__} is not made by hand: {cls._made_by}")
            return object.__new__(cls)

        def __getattr__(self, name: str) -> object:
            kind = type(self).__name__
            plain = name.removesuffix("_async")
            if plain != name and hasattr(type(self), plain):
                message = f"{kind} has no {name!r}: use {plain!r}, every method here is async already"
                raise AttributeError(message, name=name, obj=self)
            for place, client in self._beside.items():
                if not name.startswith("_") and hasattr(client, plain):
                    message = f"{kind} has no {name!r}: use {f'{place}.{plain}'!r}"
                    raise AttributeError(message, name=name, obj=self)
            raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=self)
