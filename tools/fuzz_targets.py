"""What `fuzz` feeds: for each reader of bytes, how inputs are made and what must hold of what comes out."""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib
import itertools
import json
import math
import pkgutil
import random
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple

import attrs
import orjson
from fuzz_inputs import Json, broken, disturbed, document, specimen

import tinker_actors.wire
from tinker_actors.errors import DecodeError, InputError
from tinker_actors.protocol import credential, future
from tinker_actors.protocol.retry import parse_retry_after
from tinker_actors.protocol.sse import EventParser
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.compression import decompress
from tinker_actors.wire.endpoints import ENDPOINTS
from tinker_actors.wire.payload import PROTOBUF, Payload, read
from tinker_actors.wire.training import ForwardBackwardOutput

__all__ = ["TARGETS", "Broken", "Target"]

MIB = 1 << 20
OUTPUT_LIMIT = MIB  # what may come out of a compressed body
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Broken(Exception):
    """An answer that breaks a promise."""


@functools.cache
def wire_classes() -> tuple[type, ...]:
    """Return every class of the wire that has fields, by name."""
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(tinker_actors.wire.__path__, "tinker_actors.wire."):
        for name, value in vars(importlib.import_module(module.name)).items():
            public = isinstance(value, type) and attrs.has(value) and name[0].isupper()
            if public and value.__module__.startswith("tinker_actors.wire"):
                found[name] = value
    return tuple(found[name] for name in sorted(found) if name not in ("Endpoint", "Payload"))


@functools.cache
def _requests() -> tuple[type, ...]:
    return tuple({endpoint.request for endpoint in ENDPOINTS if attrs.has(endpoint.request)})


class Document(NamedTuple):
    """JSON for a class."""

    kind: type
    data: bytes
    strict: bool


def make_json(rng: random.Random) -> Document:
    """Make JSON that is nearly of some class of the wire."""
    kind = rng.choice(wire_classes())
    return Document(kind, document(rng, kind), rng.random() < 0.5)


def run_json(case: Document) -> None:
    """Decode it; what can be decoded can be decoded from its parsed form as well."""
    decoded: object = codec.decode(case.kind, case.data, strict=case.strict)
    if not isinstance(decoded, case.kind):
        raise Broken(f"decoded to {type(decoded).__name__}")


# Written by the official encoder: two requests for training, a result, a sample.
_GOLDEN = (
    base64.b64decode(
        "CglzOnRyYWluOjAQARpkChAKDgoMAQAAAAIAAAADAAAAEjAKDXRhcmdldF90b2tlbnMSHwoYAgAAAAAAAAADAAAAAAAAAAQA"
        "AAAAAAAAGAIiAQMSHgoHd2VpZ2h0cxITCgwAAAAAAACAPwAAgD8YASIBAyINY3Jvc3NfZW50cm9weQ=="
    ),
    base64.b64decode(
        "CglzOnRyYWluOjAQAxpLCggKBgoEBwAAABI/Cg10YXJnZXRfdG9rZW5zEi4SJgoIBQAAAAAAAAASEAAAAAAAAAAAAQAAAAAA"
        "AAAaCAIAAAAAAAAAGAIiAgEDIgNwcG8qHQoSY2xpcF9sb3dfdGhyZXNob2xkEZqZmZmZmek/MAE6HwoSY2xpcF9sb3dfdGhy"
        "ZXNob2xkEgkJmpmZmZmZ6T86CwoEbW9kZRIDEgF4"
    ),
    base64.b64decode(
        "CgtBcnJheVJlY29yZBJPCgtBcnJheVJlY29yZBI+Cghsb2dwcm9icxIyChQAAIC/AAAAwAAAQMAAAIDAAACgwBIYAAAAAAAA"
        "AAAMAAAAAAAAABQAAAAAAAAAGAEYAhoTCghsb3NzOnN1bREAAAAAAAD4Pw=="
    ),
    base64.b64decode(
        "ChYIARIICgAAAAsAAAAaCAAAAL8AAIC+EggAAMB/AACAvxooChAAAAAAAAAAAAMAAAAAAAAAEhCAT8PHgE/Dx83MzL2AT8PH"
        "GAIgAiAB"
    ),
)


class Proto(NamedTuple):
    """Protobuf for a class."""

    kind: type
    data: bytes


def _wire_format(rng: random.Random, depth: int = 0) -> bytes:
    """Return a message of fields with small numbers and any types."""
    parts = []
    for _ in range(rng.randint(0, 5)):
        wire_type = rng.choice((0, 1, 2, 2, 2, 5, rng.randrange(8)))
        parts.append(bytes([min(127, rng.randint(0, 9) << 3 | wire_type)]))
        match wire_type:
            case 0:
                parts.append(rng.choice((b"\x00", b"\x01", b"\x80" * 9 + b"\x01", rng.randbytes(2))))
            case 1:
                parts.append(rng.randbytes(8))
            case 2:
                inner = _wire_format(rng, depth + 1) if depth < 5 else rng.randbytes(rng.randint(0, 9))
                parts += [bytes([min(127, len(inner))]), inner]
            case _:
                parts.append(rng.randbytes(4))
    return b"".join(parts)


def make_protobuf(rng: random.Random) -> Proto:
    """Make protobuf that is nearly one of the messages."""
    kinds = sorted(protobuf.MESSAGES, key=lambda kind: kind.__name__) or list(_requests())
    kind = rng.choice(kinds)
    data = _wire_format(rng) if rng.random() < 0.2 else rng.choice(_GOLDEN)
    if rng.random() < 0.4:
        with contextlib.suppress(DecodeError, InputError):
            data = protobuf.encode(codec.decode(kind, orjson.dumps(specimen(rng, kind)), strict=False))
    return Proto(kind, broken(rng, data, _GOLDEN) if rng.random() < 0.95 else data)


def run_protobuf(case: Proto) -> None:
    """Read it, as an answer's payload is read."""
    decoded: object = read(case.kind, Payload(PROTOBUF, case.data))
    if not isinstance(decoded, case.kind):
        raise Broken(f"decoded to {type(decoded).__name__}")


class Compressed(NamedTuple):
    """A compressed body."""

    encoding: str
    data: bytes


def _zstd_frame(rng: random.Random, blocks: int, claim: int | None) -> bytes:
    """Write a zstd frame by hand: blocks of one byte repeated, 128 KiB each, under any claim (RFC 8878, 3.1.1)."""
    header = b"\x28\xb5\x2f\xfd"
    header += b"\x00\x58" if claim is None else b"\xc0\x58"[:1] + b"\x58" + claim.to_bytes(8, "little")
    size = 128 * 1024
    body = [
        ((size << 3) | 2 | (number == blocks - 1)).to_bytes(3, "little") + b"a" for number in range(blocks)
    ]
    return header + b"".join(body) + rng.choice((b"", b"", b"xyz"))


@functools.cache
def _bomb(kind: str) -> bytes:
    packer = zlib.compressobj(9, wbits=31 if kind == "gzip" else 15)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(64)) + packer.flush()
    return zlib.compress(packed) if kind == "twice" else packed


@functools.cache
def _honest() -> tuple[tuple[str, bytes], ...]:
    import zstandard

    text = b'{"data":[1,2,3]}' * 50
    gzip = zlib.compressobj(wbits=31)
    raw = zlib.compressobj(wbits=-15)
    return (
        ("zstd", zstandard.ZstdCompressor().compress(text)),
        ("zstd", zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(text)),
        ("gzip", gzip.compress(text) + gzip.flush()),
        ("deflate", zlib.compress(text)),
        ("deflate", raw.compress(text) + raw.flush()),
        ("identity", text),
        ("deflate, zstd", zstandard.ZstdCompressor().compress(zlib.compress(text))),
    )


def make_compressed(rng: random.Random) -> Compressed:
    """Make a compressed body, honest, broken, or a bomb."""
    match rng.randrange(12):
        case 0:
            frames = [
                _zstd_frame(
                    rng, rng.choice((1, 9, 1000)), rng.choice((None, None, 0, 1, MIB, 2**40, 2**64 - 1))
                )
                for _ in range(rng.randint(1, 3))
            ]
            return Compressed("zstd", b"".join(frames))
        case 1:
            kind = rng.choice(("gzip", "deflate", "twice"))
            return Compressed({"twice": "deflate, deflate"}.get(kind, kind), _bomb(kind))
        case _:
            encoding, data = rng.choice(_honest())
            if rng.random() < 0.1:
                encoding = rng.choice(
                    ("", "br", "zstd, zstd, zstd, zstd", " GZIP ,", "zstd;q=1", "x-gzip", "\0")
                )
            return Compressed(encoding, broken(rng, data, [other for _, other in _honest()]))


def run_compressed(case: Compressed) -> None:
    """Decompress it; no more may come out than is allowed."""
    if len(decompress(case.data, case.encoding, limit=OUTPUT_LIMIT)) > OUTPUT_LIMIT:
        raise Broken("more came out than is allowed")


class Events(NamedTuple):
    """A stream of events, in chunks."""

    chunks: tuple[bytes, ...]
    limit: int


_LINES = (
    *(
        b"data: x",
        b"data:",
        b"data",
        b'data: {"a":1}',
        b"event: ping",
        b"id: 7",
        b"id: \0",
        b"retry: 10",
        b"retry: -1",
    ),
    *(
        b"",
        b"",
        b"",
        b":comment",
        b"\xef\xbb\xbfdata: bom",
        b"retry: " + b"9" * 5000,
        b"unknown: field",
        b"data: \xff\xfe",
    ),
    b"data: " + b"y" * 3000,
)


def make_events(rng: random.Random) -> Events:
    """Make a stream, cut anywhere."""
    data = b"".join(
        rng.choice(_LINES) + rng.choice((b"\n", b"\r", b"\r\n")) for _ in range(rng.randint(0, 20))
    )
    if rng.random() < 0.5:
        data = broken(rng, data)
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((0, 1, 5, len(data)))))
    edges = [0, *cuts, len(data)]
    chunks = tuple(data[first:last] for first, last in itertools.pairwise(edges))
    return Events(chunks, rng.choice((64, 1024, 1 << 20)))


def run_events(case: Events) -> None:
    """Feed it; however it is cut, the events are the same."""
    parser = EventParser(limit=case.limit)
    events = [event for chunk in case.chunks for event in parser.feed(chunk)]
    for event in events:
        try:
            event.json()
        except DecodeError:
            continue
    if events != EventParser(limit=2 * case.limit + sum(map(len, case.chunks))).feed(b"".join(case.chunks)):
        raise Broken("other cuts give other events")


class Asked(NamedTuple):
    """Two headers."""

    milliseconds: str | None
    seconds: str | None


_TIMES = (
    *("0", "1", "-1", "1.5", "1e3", "1e999", "nan", "inf", "-inf", "0x10", "\u0661", "1_0"),
    *(" 7 ", "", "5s", "9" * 5000, "\0"),
)


def _time(rng: random.Random) -> str | None:
    match rng.randrange(5):
        case 0:
            return None
        case 1:
            date = NOW + timedelta(seconds=rng.choice((-1e10, -5, 0, 5, 3600, 1e9)))
            return broken(rng, format_datetime(date, usegmt=True).encode()).decode("latin-1")
        case 2:
            zones = ("-0000", "+9999", "+2400", "-2359", "EST", "")
            return f"Mon, {rng.randint(-1, 40)} Feb {rng.choice((0, 1, 26, 9999, 10**9))} 25:61:61 {rng.choice(zones)}"
        case 3:
            return broken(rng, rng.choice(_TIMES).encode()).decode("latin-1")
        case _:
            return rng.choice(_TIMES)


def make_asked(rng: random.Random) -> Asked:
    """Make headers that ask to wait."""
    return Asked(_time(rng), _time(rng))


def run_asked(case: Asked) -> None:
    """Read them; what comes out is a time to wait, or nothing."""
    for now in (NOW, None):
        wait = parse_retry_after(case.milliseconds, case.seconds, now=now)
        if wait is not None and not 0 <= wait < math.inf:
            raise Broken(f"asks to wait {wait}")


class Polled(NamedTuple):
    """An answer to a poll, and how far the polling was."""

    polling: future.Polling
    answer: future.Answer


_ANSWERS: tuple[Json, ...] = (
    {"type": "try_again", "request_id": "r", "queue_state": "paused_capacity", "queue_state_reason": "why"},
    {"status": "complete_metadata", "response_payload_size": 1234},
    {"error": "boom", "category": "user"},
    {"detail": [{"type": "value_error", "loc": ["body", 0], "msg": "m"}]},
    {"type": "RequestFailedResponse", "error_message": "e"},
    {"detail": "Promise r is not known"},
    {"metrics": {"loss:sum": 1.5}},
    {"type": "sample", "sequences": [], "error": None},
)


def make_polled(rng: random.Random) -> Polled:
    """Make an answer to a poll."""
    value = json.loads(json.dumps(rng.choice(_ANSWERS)))
    for _ in range(rng.choice((0, 1, 2))):
        value = disturbed(rng, value)
    data = orjson.dumps(value)
    if rng.random() < 0.3:
        data = broken(rng, data, (b"<html>", b"[" * 2000))
    kinds = (
        "application/json",
        PROTOBUF,
        "text/html; charset=utf-8",
        "",
        "application/x-protobuf; a=b",
        "\0",
    )
    status = rng.choice(
        (None, 200, 200, 200, 202, 204, 301, 400, 402, 404, 408, 409, 410, 422, 429, 500, 503, 999, 0)
    )
    answer = future.Answer(
        status=status,
        payload=None if rng.random() < 0.1 else Payload(rng.choice(kinds), data),
        elapsed=rng.choice((0.0, 0.01, 45.0)),
        retry_after=rng.choice((None, None, 0.0, 3.0, 1e12)),
        should_retry=rng.choice((None, None, True, False)),
    )
    polls, failures, bad, unreadable = (rng.choice((0, 1, 2, 3, 10**6)) for _ in range(4))
    polling = future.Polling("r", polls, rng.random() < 0.5, failures, bad, unreadable)
    return Polled(polling, answer)


def run_polled(case: Polled) -> None:
    """Judge it; no judgement raises, and none waits for ever or not at all."""
    command: future.Command | future.Result[ForwardBackwardOutput]
    command = future.decide(case.polling, case.answer)
    if isinstance(command, future.Done):
        if case.answer.payload is not command.payload:
            raise Broken("the result is not the answer's body")
        command = future.take(case.polling, command.payload, ForwardBackwardOutput)
    match command:
        case future.PollAgain():
            if not 0 <= command.delay <= 3600:
                raise Broken(f"waits {command.delay} s")
        case future.FetchPayload():
            if command.size < 0:
                raise Broken(f"fetches {command.size!r} bytes")
        case future.Failed():
            str(command.error)
        case future.Result():
            pass


class Secret(NamedTuple):
    """A token, or a file of keys."""

    data: bytes
    is_file: bool


def make_secret(rng: random.Random) -> Secret:
    """Make a token or a file, nearly."""
    claims: Json = {"exp": 1e9, "iat": 0, "sub": "u", "org_id": "o"}
    key = {"type": "manual", "key": "tml-x", "name": "n"}
    if rng.random() < 0.5:
        file: Json = {"version": 1, "default": "a", "keys": {"a": key}}
        return Secret(broken(rng, orjson.dumps(disturbed(rng, file))), is_file=True)
    parts = [orjson.dumps(part) for part in ({"alg": "none"}, disturbed(rng, claims))]
    token = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts) + b"."
    return Secret(broken(rng, token) if rng.random() < 0.5 else token, is_file=False)


def run_secret(case: Secret) -> None:
    """Read it."""
    if case.is_file:
        credential.read_credentials(case.data)
    else:
        credential.parse_token(case.data.decode("latin-1"))


class Target(NamedTuple):
    """Something that reads inputs."""

    name: str
    weight: int  # of all inputs, in hundredths
    make: Callable[[random.Random], Any]  # each has a kind of input of its own
    run: Callable[[Any], None]


TARGETS = (
    Target("sse", 18, make_events, run_events),
    Target("json", 34, make_json, run_json),
    Target("protobuf", 18, make_protobuf, run_protobuf),
    Target("compression", 8, make_compressed, run_compressed),
    Target("retry_headers", 10, make_asked, run_asked),
    Target("poll_answers", 8, make_polled, run_polled),
    Target("secrets", 4, make_secret, run_secret),
)
