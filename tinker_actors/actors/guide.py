"""Tinker's `*_async` names: there are none here, and whoever asks for one is told the plain name."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["no_async_twin"]


def no_async_twin(owner: object, name: str) -> NoReturn:
    """Raise the AttributeError for a missing attribute; it says so if it is an `*_async` name.

    Raises:
        AttributeError: always.
    """
    kind = type(owner).__name__
    plain = name.removesuffix("_async")
    if plain != name and hasattr(type(owner), plain):
        message = f"{kind} has no {name!r}: use {plain!r}, every method here is async already"
        raise AttributeError(message, name=name, obj=owner)
    raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=owner)
