"""What is wrong with a JSON value: words for it, and a path to each place."""

from collections.abc import Mapping

import cattrs

from tinker_actors.errors import InputError

__all__ = ["missing", "problems_of", "wrong"]

_WORDS: Mapping[type, str] = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "a string",
    type(None): "null",
}


def wrong(value: object, *kinds: type, name: str = "value") -> InputError:
    """Return the refusal of a value that is of none of the kinds."""
    words = [_WORDS[kind] for kind in kinds if kind is not int or float not in kinds]
    return InputError(name, value, f"must be {' or '.join(words)}")


def missing(*names: str) -> TypeError:
    """Return the refusal of an object that lacks fields."""
    return TypeError(f"required field missing: {', '.join(names)}")


def problems_of(error: Exception) -> list[str]:
    """Return what cattrs found, each with its path."""
    return cattrs.transform_error(error, format_exception=_explain)


def _explain(error: BaseException, _: type | None) -> str:
    match error:
        case InputError():
            return str(error)
        case KeyError():
            return "required field missing"
        case cattrs.ForbiddenExtraKeysError():
            return f"unknown field: {', '.join(sorted(error.extra_fields))}"
        case AttributeError():  # where a mapping was expected
            return f"must be {_WORDS[dict]}"
        case _:
            return str(error)
