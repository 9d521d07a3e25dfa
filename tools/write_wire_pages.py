"""Write the pages of docs/wire that are made from code.

    python tools/write_wire_pages.py           # writes them
    python tools/write_wire_pages.py --check   # writes nothing; ends with 1 and says why if a page is out of date

- `endpoints.md`: the table of tinker_actors/wire/endpoints.py, with the calls of the client that use it.
- `retries.md`: which layer sends what again. Every cell of its tables is an answer of the functions that decide:
  `protocol.retry.decide` for calls, `protocol.future.decide` and `take` for polls.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast, get_args

from page_writing import Pages, run, table

from tinker_actors.errors import APITimeoutError
from tinker_actors.protocol import future
from tinker_actors.protocol.capability import KNOWN
from tinker_actors.protocol.retry import (
    Again,
    Applied,
    BillingPause,
    DedupeMode,
    Failure,
    Look,
    Rule,
    Stop,
    Verdict,
    decide,
)
from tinker_actors.transport import resources
from tinker_actors.wire import codec, endpoints, protobuf
from tinker_actors.wire.endpoint import Endpoint, OnDoubt
from tinker_actors.wire.payload import JSON, PROTOBUF, Payload
from tinker_actors.wire.training import ForwardBackwardOutput

ROOT = Path(__file__).parents[1]
RESOURCES = Path(resources.__file__).parent
TABLE = "tinker_actors/wire/endpoints.py"
PAGES = "docs/wire"
AGAIN = "python tools/write_wire_pages.py"
PREFIX = "/api/v1"

MODES = cast("tuple[DedupeMode, ...]", get_args(DedupeMode))
RETRIES = 10  # of the calls that have any, in the first table of retries.md

# Who decides about calls that the transport never sends again.
ABOVE = {
    "client_dynamic_config": "nobody: the flags are asked for again before long",
    "session_heartbeat": "the heartbeat: the next beat follows",
    "unload_model": "nobody: a service drops what nobody uses",
    "asample": "the samplers: after a 429 all of them wait, then the same number is sent",
    "retrieve_future": "the one who waits for the promise: the table of polls above",
    "retrieve_futures": "the one who waits for the promises",
    "telemetry": "nobody: events that the service does not take are dropped",
}


class Column(NamedTuple):
    """A kind of call, and what the service does with a number it has seen, where that matters."""

    title: str
    on_doubt: OnDoubt
    dedupe: DedupeMode


COLUMNS = (
    Column("resend", "resend", "none"),
    Column("create", "create", "none"),
    Column("named", "named", "none"),
    *(Column(f"numbered, {mode}", "numbered", mode) for mode in MODES),
    Column("give_up", "give_up", "none"),
)

USED = "expected 8, got 7"
# What may happen to a send, and whether this or an earlier send of the same call was doubtful.
FAILURES: Mapping[str, tuple[Failure, bool]] = {
    "no connection": (Failure(sent=False), False),
    "429": (Failure(sent=True, status=429), False),
    "`x-should-retry: true`, whatever the status; 400 without a body": (
        Failure(sent=True, status=400, should_retry=True),
        False,
    ),
    "402, within the window": (Failure(sent=True, status=402), False),
    "broken off, or no answer in time": (Failure(sent=True), True),
    "408": (Failure(sent=True, status=408), True),
    "5xx": (Failure(sent=True, status=503), True),
    "409 that says the number is used, after a doubtful send": (
        Failure(sent=True, status=409, text=USED),
        True,
    ),
    "another 409, after a doubtful send": (Failure(sent=True, status=409), True),
    "409": (Failure(sent=True, status=409), False),
    "any other 4xx": (Failure(sent=True, status=404), False),
    "an answer that cannot be read": (Failure(sent=True, status=200), False),
    "`x-should-retry: false`, and it was doubtful": (
        Failure(sent=True, status=500, should_retry=False),
        True,
    ),
}
LATER = "429"
DOUBTFUL = "broken off, or no answer in time"


_Next: TypeAlias = (
    future.Result[ForwardBackwardOutput] | future.Failed | future.FetchPayload | future.PollAgain
)


def _answer(
    status: int, body: str | bytes = "{}", *, kind: str = JSON, after: float | None = None
) -> future.Answer:
    payload = Payload(kind, body.encode() if isinstance(body, str) else body)
    return future.Answer(status=status, payload=payload, elapsed=1.0, retry_after=after)


RESULT = ForwardBackwardOutput("x", (), {"loss:sum": 1.0})
ANSWERS: Mapping[str, future.Answer] = {
    "a result, in protobuf": _answer(200, protobuf.encode(RESULT), kind=PROTOBUF),
    "a result, in JSON": _answer(200, codec.encode(RESULT)),
    "`try_again`": _answer(200, '{"type":"try_again","request_id":"r"}'),
    "408": _answer(408),
    "`complete_metadata`": _answer(200, '{"status":"complete_metadata","response_payload_size":9}'),
    "`error`": _answer(200, '{"error":"e","category":"user"}'),
    "`error` that does not know the promise": _answer(
        200, '{"error":"Unknown request_id r","category":"User"}'
    ),
    "200 that cannot be read": _answer(200, "<html>", kind="text/html"),
    "200 protobuf that cannot be read": _answer(200, protobuf.encode(RESULT)[:-1], kind=PROTOBUF),
    "200 JSON of another shape": _answer(200, '{"unexpected":true}'),
    "400": _answer(400),
    "400 without a body, or with `x-should-retry: true`": future.Answer(status=400, should_retry=True),
    "402": _answer(402),
    "404 that speaks of the promise": _answer(404, '{"detail":"promise r not found"}'),
    "410": _answer(410),
    "any other 4xx": _answer(422),
    "429": _answer(429),
    "429 that asks for 7 s": _answer(429, after=7.0),
    "5xx": _answer(503),
    "no answer": future.Answer(status=None),
    "no answer in time, after 45 s": future.Answer(
        status=None, elapsed=45.0, error=APITimeoutError("no answer in time", doubtful=True)
    ),
}


# --- reading ------------------------------------------------------------------------------------------------


def read_calls(folder: Path) -> dict[str, str]:
    """Read which method of which resource makes which call: name of the endpoint's constant to `resource.method`."""
    calls: dict[str, str] = {}
    for file in sorted(folder.glob("*.py")):
        for method in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(method, ast.AsyncFunctionDef):
                calls |= dict.fromkeys(_called(method), f"{file.stem}.{method.name}")
    return calls


def _called(method: ast.AsyncFunctionDef) -> Iterator[str]:
    for node in ast.walk(method):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._caller.call":
            yield ast.unparse(node.args[0])


def constants() -> dict[str, Endpoint[Any, Any]]:
    """Return the endpoints by the names of their constants."""
    return {name: value for name, value in vars(endpoints).items() if isinstance(value, Endpoint)}


# --- writing ------------------------------------------------------------------------------------------------

MARK = "<!-- Written by tools/write_wire_pages.py. Do not edit. -->"

ENDPOINTS_HEAD = f"""\
# The calls of the API

{MARK}

Every call that the service takes or took, as the table in [wire/endpoints.py](../../{TABLE}) has it. The client and the
embedded service read the same table; the embedded service answers 404 to what it does not have.

- **call**: what it is called below a client, as in `await client.service.health_check()`.
- **path**: below the base URL and `{PREFIX}`. Parts in braces are filled in by the caller and stay one part each, but
  for a checkpoint's id, which is two (`weights/0001`). After `?` stand the names that may be in the query.
- **lane**: the connections it travels on. What is slow or plenty on one cannot hold up another.
- **seconds**: for the whole exchange, the answer's body included.
- **retries**: how often it is sent again at most, see [retries](retries.md).
- **since**, **until**: the version of the official client (0.4.1 to 0.38.0) that first had it, and the one that first
  had it no longer. `<=` says that the versions before have not been looked at one by one.

Bodies and answers are JSON, but for those of `training.forward_backward`, whose body may be protobuf, and of
`futures.retrieve`, whose answer may be.

"""

RETRIES_HEAD = f"""\
# What is sent again, and by whom

{MARK}

Nothing is retried in two layers. The transport sends a call again as the first table says, and no more often than the
call's *retries*. Calls without retries are never sent again there: who decides about them stands in the third table.
Where a key is exchanged for a token, that is a call of its own (`service.auth_token`), made once for all that wait for
the token. If its retries are used up, those calls fail with it, unsent, and do not begin it anew.

A send is *doubtful* when a byte of it was written and no complete answer was read, or the answer was 408 or 5xx: the
service may have carried it out. What may be done then depends on the kind of call:

- `resend`: it changes nothing, or doing it twice does no harm.
- `create`: it makes something that nobody else knows of. It is sent again; the first may be left over as an *orphan*.
- `named`: it saves something under a name, and goes out again under the same.
- `numbered`: it changes a model, and carries a number in the model's order. What is done depends on what the service
  does with a number that it has seen: answer with the first result (`replay`), refuse it (`reject`), or run it again
  (`none`). A service of which that is not known counts as `none`.
- `give_up`: it is not worth a second send.

## A send that failed

What follows, for a call that has retries left. *again* means after what the service asked for, up to 60 s, and else
after 0.5 s, twice as long each time up to 10 s, less up to a quarter.

"""

RETRIES_WORDS = """
- *pause*: again after {period:g} s, which costs no retry, until the account could not be charged for
  {window:g} s on end.
- *applied*: an earlier send was carried out and its result is lost. The error says so (`ResultLost`).
- *look*: an earlier send may have saved it; whoever asked looks whether it is there.
- *raise*: the error goes to the caller. *fence*: likewise, and nobody knows whether the model was changed, so it is
  never addressed again: a TrainingActor makes it anew from its last checkpoint.

"""

POLLS_HEAD = """
## Polls

A poll asks whether a promise has been kept. What follows, and for how long if the service gives the same answer again
and again:

"""

POLLS_WORDS = """
*without end*: unless `promise_timeout` is set. Services that say `try_again` for ever of a promise they do not know
({names}) are given {seconds:g} s of nothing else; then the wait ends with `APITimeoutError`.
"""

CALLS_HEAD = """
## Each call

What becomes of it after a refusal that says "later" (429, no connection), and after a doubtful send, by what the
service does with a number it has seen.

"""


def endpoints_page(calls: Mapping[str, str]) -> str:
    """Return the page of the table of endpoints."""
    head = ["call", "method", "path", "lane", "seconds", "retries", "since", "until"]
    rows = [
        [
            f"`{calls[name]}`",
            one.method,
            f"`{one.path.removeprefix(PREFIX)}{_query(one)}`",
            one.lane.value,
            f"{one.timeout:g}",
            str(one.retries),
            one.since,
            one.until or "",
        ]
        for name, one in constants().items()
    ]
    return ENDPOINTS_HEAD + table([head, *rows])


def _query(one: Endpoint[Any, Any]) -> str:
    return f"?{'&'.join(one.query)}" if one.query else ""


def retries_page(calls: Mapping[str, str]) -> str:
    """Return the page of what is sent again."""
    words = RETRIES_WORDS.format(period=BillingPause.PERIOD, window=BillingPause().window)
    putting_off = {name: record.patience for name, record in KNOWN.items() if record.patience is not None}
    patience = POLLS_WORDS.format(names=" and ".join(putting_off), seconds=max(putting_off.values()))
    return (
        f"{RETRIES_HEAD}{table(list(_failures()))}{words.rstrip()}\n"
        f"{POLLS_HEAD}{table(list(_polls()))}{patience}"
        f"{CALLS_HEAD}{table(list(_each_call(calls)))}"
    )


def _failures() -> Iterator[list[str]]:
    yield ["what happened", *(f"`{column.title}`" for column in COLUMNS)]
    for name in FAILURES:
        yield [name, *(_verdict(name, Rule(RETRIES, one.on_doubt, one.dedupe)) for one in COLUMNS)]


def _verdict(failure: str, rule: Rule) -> str:
    """Return what is decided about a failure, in a word."""
    what, in_doubt = FAILURES[failure]
    pause = BillingPause().refused(0.0) if what.status == 402 else None
    return _word(decide(what, rule, spent=0, in_doubt=in_doubt, pause=pause, chance=0.0))


def _word(verdict: Verdict) -> str:
    match verdict:
        case Again(counts=False):
            return "pause"
        case Again(orphan=orphan):
            return "again, orphan" if orphan else "again"
        case Applied():
            return "applied"
        case Look():
            return "look"
        case Stop(fence=fence):
            return "fence" if fence else "raise"


def _each_call(calls: Mapping[str, str]) -> Iterator[list[str]]:
    yield ["call", "kind", "retries", "later", *(f"doubtful, {mode}" for mode in MODES), "else"]
    for name, one in constants().items():
        rules = [Rule(one.retries, one.on_doubt, mode) for mode in MODES]
        later = _verdict(LATER, rules[0])
        doubtful = [_verdict(DOUBTFUL, rule) for rule in rules]
        above = "" if one.retries else ABOVE[one.name]
        yield [f"`{calls[name]}`", one.on_doubt, str(one.retries), later, *doubtful, above]


def _polls() -> Iterator[list[str]]:
    yield ["answer", "then", "the same again"]
    for name, answer in ANSWERS.items():
        yield [name, *_polling(answer)]


def _polling(answer: future.Answer) -> tuple[str, str]:
    """Return what follows on an answer, and what follows if it is given a thousand times."""
    commands = []
    polling = future.Polling("r", metadata_first=True)
    billing, now = BillingPause(), 0.0
    for _ in range(1000):
        pause = billing.refused(now) if answer.status == 402 else None
        now += pause or 0.0
        command = _follows(polling, answer, pause)
        commands.append(command)
        if isinstance(command, future.Result | future.Failed):
            break
        polling = command.polling
    first, last = commands[0], commands[-1]
    if len(commands) == 1:
        return _command(first), ""
    if isinstance(last, future.Failed):
        return _command(first), f"{_command(last)} after {len(commands)} such answers"
    word = "" if _command(first) == _command(last) else f", in the end {_command(last)}"
    return _command(first), f"without end{word}"


def _follows(polling: future.Polling, answer: future.Answer, pause: float | None) -> _Next:
    command = future.decide(polling, answer, pause=pause)
    if isinstance(command, future.Done):
        return future.take(polling, command.payload, ForwardBackwardOutput)
    return command


def _command(command: _Next) -> str:
    match command:
        case future.Result():
            return "done"
        case future.Failed(error=error):
            return f"`{type(error).__name__}`"
        case future.FetchPayload():
            return "fetch the result itself, once there is room for it"
        case future.PollAgain(delay=delay):
            return f"again after {delay:g} s" if delay else "again at once"


def pages() -> Pages:
    """Return every page: its name and what it should read."""
    calls = read_calls(RESOURCES)
    return Pages(PAGES, AGAIN, {"endpoints.md": endpoints_page(calls), "retries.md": retries_page(calls)})


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the pages, or check them; returns the exit status."""
    return run(arguments, pages(), root)


if __name__ == "__main__":
    sys.exit(main())
