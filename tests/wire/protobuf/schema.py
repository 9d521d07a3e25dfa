"""The official package's message classes, built from tinker_public.proto when the tests run, without protoc."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TOKENS = re.compile(r'//[^\n]*|"[^"]*"|[A-Za-z_][\w.]*|\d+|[{}<>=;,]')
_SCALARS = {
    name: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in ("string", "bytes", "double", "bool", "int32", "int64", "uint32")
}


def _tokens(text: str) -> Iterator[str]:
    return (token for token in _TOKENS.findall(text) if not token.startswith("//"))


class _Parser:
    """Reads the part of the language that our file uses: proto3, enums, messages, oneofs, maps, labels."""

    def __init__(self, text: str, name: str) -> None:
        self._rest = list(_tokens(text))[::-1]
        self.file = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto3")
        self._enums: set[str] = set()

    def parse(self) -> descriptor_pb2.FileDescriptorProto:
        while self._rest:
            match self._next():
                case "syntax":
                    self._expect("=", '"proto3"', ";")
                case "package":
                    self.file.package = self._next()
                    self._expect(";")
                case "enum":
                    self._enum()
                case "message":
                    self._message()
                case token:
                    raise SyntaxError(token)
        for message in self.file.message_type:
            for scope in (message, *message.nested_type):
                for field in scope.field:
                    self._resolve(message.name, field)
        return self.file

    def _next(self) -> str:
        return self._rest.pop()

    def _expect(self, *tokens: str) -> None:
        for token in tokens:
            found = self._next()
            assert found == token, f"{token!r} expected, {found!r} found"

    def _enum(self) -> None:
        enum = self.file.enum_type.add(name=self._next())
        self._enums.add(enum.name)
        self._expect("{")
        while (name := self._next()) != "}":
            self._expect("=")
            enum.value.add(name=name, number=int(self._next()))
            self._expect(";")

    def _message(self) -> None:
        message = self.file.message_type.add(name=self._next())
        optional = []
        self._expect("{")
        while (token := self._next()) != "}":
            if token == "oneof":
                message.oneof_decl.add(name=self._next())
                self._expect("{")
                while (kind := self._next()) != "}":
                    self._field(message, kind).oneof_index = len(message.oneof_decl) - 1
            elif token == "map":
                self._map(message)
            elif token == "repeated":
                self._field(message, self._next()).label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
            elif token == "optional":
                optional.append(self._field(message, self._next()))
            else:
                self._field(message, token)
        for field in optional:  # behind all others, as the language wants it
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")

    def _map(self, message: descriptor_pb2.DescriptorProto) -> None:
        self._expect("<")
        key = self._next()
        self._expect(",")
        value = self._next()
        self._expect(">")
        field = self._field(message, "entry")
        entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type_name=key)
        entry.field.add(name="value", number=2, type_name=value)
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        field.type_name = f"{message.name}.{entry.name}"

    def _field(
        self, message: descriptor_pb2.DescriptorProto, kind: str
    ) -> descriptor_pb2.FieldDescriptorProto:
        name = self._next()
        self._expect("=")
        field = message.field.add(name=name, number=int(self._next()), type_name=kind)
        self._expect(";")
        return field

    def _resolve(self, message: str, field: descriptor_pb2.FieldDescriptorProto) -> None:
        """Replace a name by what it stands for, now that all of them are known."""
        kind = field.type_name
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
            field.ClearField("type_name")
        else:
            is_enum = kind in self._enums
            field.type = getattr(
                descriptor_pb2.FieldDescriptorProto, "TYPE_ENUM" if is_enum else "TYPE_MESSAGE"
            )
            field.type_name = f".{self.file.package}.{kind}"
        if field.label != descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED:
            field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL


def official_classes() -> dict[str, Any]:
    """Return the message classes by name, in a pool of their own."""
    path = Path(__file__).with_name("tinker_public.proto")
    pool = descriptor_pool.DescriptorPool()
    file = _Parser(path.read_text(), path.name).parse()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{file.package}.{message.name}")
        )
        for message in file.message_type
    }


OFFICIAL = official_classes()
