"""Answers to polls, and what is decided about them; for the tests of polling."""

from __future__ import annotations

from typing import Any

import orjson

from tinker_actors.errors import TinkerError
from tinker_actors.protocol.future import Answer, Failed, PollAgain, Polling, decide
from tinker_actors.wire.payload import JSON, Payload

START = Polling("r1")


def said(status: int, body: Any = None, **others: Any) -> Answer:
    """Make an answer with a JSON body."""
    return Answer(status=status, payload=Payload(JSON, orjson.dumps(body)), **others)


def raw(status: int, content: bytes, content_type: str = "", **others: Any) -> Answer:
    return Answer(status=status, payload=Payload(content_type, content), **others)


def again(answer: Answer, polling: Polling = START) -> PollAgain:
    command = decide(polling, answer, pause=5.0)
    assert isinstance(command, PollAgain)
    assert command.polling.iteration == polling.iteration + 1
    return command


def failure(answer: Answer, polling: Polling = START) -> TinkerError:
    command = decide(polling, answer)
    assert isinstance(command, Failed)
    assert command.error.request_id == "r1"
    assert "r1" in str(command.error)
    assert "request_id=" not in str(command.error)
    return command.error
