"""Classes and unions of classes in JSON: cattrs' generated functions, and what is ours around them."""

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args, get_origin

import attrs
import cattrs
import numpy as np
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from tinker_actors.errors import InputError
from tinker_actors.wire.optimizer import AdamParams, OptimStepRequest
from tinker_actors.wire.problem import missing
from tinker_actors.wire.reading import Hook, list_of, object_of
from tinker_actors.wire.writing import Writer

__all__ = [
    "class_hook",
    "class_writer",
    "is_class",
    "is_list",
    "is_literal",
    "is_stop",
    "is_union",
    "list_hook",
    "step_hook",
    "step_writer",
    "union_hook",
]

_TAGS = ("type", "state", "event")
_STEP_NAMES = ("adam_params", "optimizer_params", "optim_params")


# --- which kind of type ----------------------------------------------------------------------------------


def is_class(kind: object) -> bool:
    """Whether it is one of our classes."""
    return isinstance(kind, type) and attrs.has(kind)


def is_literal(kind: object) -> bool:
    """Whether it is a choice of strings."""
    origin: object = get_origin(kind)
    return origin is Literal


def is_list(kind: object) -> bool:
    """Whether it is a list of anything."""
    return get_origin(kind) is tuple and get_args(kind)[1:] == (...,)


def is_stop(kind: object) -> bool:
    """Whether it is the union that stop conditions are; it is sent as it is."""
    return isinstance(kind, types.UnionType) and any(
        get_origin(member) is Sequence for member in kind.__args__
    )


def is_union(kind: object) -> bool:
    """Whether it is one of several classes, or one of them and whatever else there may be."""
    if not isinstance(kind, types.UnionType):
        return False
    members = [member for member in kind.__args__ if member is not types.NoneType]
    return len(members) > 1 and any(map(is_class, members))


# --- classes ---------------------------------------------------------------------------------------------


def _wire_name(field: "attrs.Attribute[Any]") -> str:
    name: str = field.metadata.get("named", field.name)
    return name


def class_hook(converter: cattrs.Converter, kind: Any, *, strict: bool, **renamed: str) -> Hook:
    """Make the function that reads a class.

    Null stands for what is absent where there is a default: older clients write it so. A number is not among that:
    null may as well be an infinite one, which JSON does not have.
    """
    fields = attrs.fields(kind)
    names = {field.name: renamed.get(field.name, _wire_name(field)) for field in fields}
    renames: dict[str, Any] = {name: override(rename=wire) for name, wire in names.items() if name != wire}
    read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=strict, **renames)
    optional = {
        names[field.name]
        for field in fields
        if field.default is not attrs.NOTHING and field.type not in (bool, float, int, str)
    }
    required = [names[field.name] for field in fields if "needed" in field.metadata]

    def hook(value: object, _: object) -> object:
        given = object_of(value)
        if None in given.values():
            given = {name: item for name, item in given.items() if item is not None or name not in optional}
        if absent := [name for name in required if name not in given]:
            raise missing(*absent)
        try:
            return read(given, kind)
        except cattrs.ClassValidationError as error:
            _use_wire_names(error, names)
            raise

    return hook


def _use_wire_names(error: cattrs.ClassValidationError, names: Mapping[str, str]) -> None:
    """Have the path of each problem go by the names that are in the JSON."""
    for problem in error.exceptions:
        notes = getattr(problem, "__notes__", [])
        notes[:] = [_renamed(note, names) for note in notes]


def _renamed(note: str, names: Mapping[str, str]) -> str:
    if not isinstance(note, cattrs.AttributeValidationNote):
        return note
    return cattrs.AttributeValidationNote(note, names[note.name], note.type)


def _is_array(kind: object) -> bool:
    return get_origin(kind) is np.ndarray or any(
        get_origin(member) is np.ndarray for member in get_args(kind)
    )


def _override(
    field: "attrs.Attribute[Any]", name: str, *, newer: bool
) -> Any:  # cattrs does not export its class
    told = field.metadata
    absent = field.default is None and "null" not in told and not _is_array(field.type)
    unknown = "since" in told and not newer
    return override(rename=name if name != field.name else None, omit_if_default=absent or unknown)


def class_writer(converter: cattrs.Converter, kind: Any, *, newer: bool, **renamed: str) -> Writer:
    """Make the function that writes a class: None is left out, and what strict services may not know."""
    fields = attrs.fields(kind)
    names = {field.name: renamed.get(field.name, _wire_name(field)) for field in fields}
    overrides = {field.name: _override(field, names[field.name], newer=newer) for field in fields}
    write = make_dict_unstructure_fn(kind, converter, **overrides)
    if not any(_is_array(field.type) and field.default is None for field in fields):
        return write

    def hook(value: object) -> dict[str, object]:  # cattrs would compare arrays with None one by one
        return {name: item for name, item in write(value).items() if item is not None}

    return hook


# --- unions ----------------------------------------------------------------------------------------------


def _tag_of(kind: Any) -> tuple[str, tuple[str, ...]] | None:
    """Return the field that tells a class from others, and its values there."""
    for field in attrs.fields(kind):
        if field.name in _TAGS and is_literal(field.type):
            return field.name, get_args(field.type)
    return None


def _needs(kind: Any) -> frozenset[str]:
    return frozenset(_wire_name(field) for field in attrs.fields(kind) if field.default is attrs.NOTHING)


class _Members:
    """The members of a union: those told by a tag, the one without a tag, and the one for all other tags."""

    def __init__(self, kind: Any) -> None:
        members = [member for member in kind.__args__ if member is not types.NoneType]
        self.nullable = len(members) < len(kind.__args__)
        tags = {member: _tag_of(member) for member in members if is_class(member)}
        self.tagged = {word: member for member, tag in tags.items() if tag for word in tag[1]}
        (self.name,) = {tag[0] for tag in tags.values() if tag}
        rest = [member for member in members if tags.get(member) is None]
        self.untagged = [
            member for member in rest if is_class(member) and not hasattr(attrs.fields(member), self.name)
        ]
        self.open = [member for member in rest if member not in self.untagged]
        self._shapes = {member: _needs(member) for member in self.tagged.values()}

    def choose(self, fields: Mapping[str, object]) -> Any:
        """Return the member that an object is of.

        Without the tag, which older clients leave out, it is the one of which all required fields are there.
        """
        tag = fields.get(self.name)
        if tag is None:
            fitting = self.untagged or [
                one for one, needs in self._shapes.items() if needs and needs <= fields.keys()
            ]
            if len(fitting) == 1:
                return fitting[0]
            raise missing(self.name)
        found = [self.tagged[tag]] if isinstance(tag, str) and tag in self.tagged else self.open
        if not found or not isinstance(tag, str):
            raise InputError(self.name, tag, f"must be one of {', '.join(map(repr, self.tagged))}")
        return found[0]


def union_hook(converter: cattrs.Converter, kind: Any) -> Hook:
    """Make the function that reads one of several classes."""
    members = _Members(kind)
    all_of_them = (*members.tagged.values(), *members.untagged, *members.open)
    hooks = {member: converter.get_structure_hook(member) for member in all_of_them}

    def hook(value: object, _: object) -> object:
        if value is None and members.nullable:
            return None
        member = members.choose(object_of(value))
        return hooks[member](value, member)

    return hook


def list_hook(converter: cattrs.Converter, kind: Any) -> Hook:
    """Make the function that reads a list."""
    items = cast("Any", list)[get_args(kind)[0]]
    read = converter.get_structure_hook(items)

    def hook(value: object, _: object) -> tuple[object, ...]:
        return tuple(read(list_of(value), items))

    return hook


# --- the optimizer's step, whose settings have three names -----------------------------------------------


def step_hook(converter: cattrs.Converter, *, strict: bool) -> Hook:
    """Make the function that reads an optimizer's step."""
    read = {
        name: class_hook(converter, OptimStepRequest, strict=strict, optim_params=name)
        for name in _STEP_NAMES
    }

    def hook(value: object, kind: object) -> object:
        given = [name for name in _STEP_NAMES if name in object_of(value)]
        if len(given) != 1:
            raise TypeError(f"one of these must be there, and only one: {', '.join(_STEP_NAMES)}")
        return read[given[0]](value, kind)

    return hook


def step_writer(converter: cattrs.Converter, *, newer: bool) -> Writer:
    """Make the function that writes an optimizer's step."""
    adam, other = (
        class_writer(converter, OptimStepRequest, newer=newer, optim_params=name) for name in _STEP_NAMES[:2]
    )

    def write(value: OptimStepRequest) -> object:
        return (adam if isinstance(value.optim_params, AdamParams) else other)(value)

    return write
