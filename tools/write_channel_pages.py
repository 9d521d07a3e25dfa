"""Write docs/channels.md: the messages behind the clients' verbs, and the events of a service.

    python tools/write_channel_pages.py           # writes it
    python tools/write_channel_pages.py --check   # writes nothing; ends with 1 and says why if it is out of date

Which message a verb sends is read from the verb; role and reply of a message from its class.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from page_writing import Pages, run, table

from tinker_actors import messages
from tinker_actors.actors.sampling_client import SamplingClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.kernel import Message
from tinker_actors.protocol.event import ServiceEvent

ROOT = Path(__file__).parents[1]
PAGES = "docs"
NAME = "channels.md"
AGAIN = "python tools/write_channel_pages.py"

HEAD = """\
# Typed channels

<!-- Written by tools/write_channel_pages.py. Do not edit. -->

The clients are thin: each verb makes a message, sends it to an actor, and gives its reply. The same channels are yours.
Use them to send what a verb has no room for, to hand a *ref* to an actor of your own without its client, or to put
something of your own in an actor's place: `tinker_actors.testing.Probe` answers any message.

| channel                            | what it does                                                                    |
| ---------------------------------- | ------------------------------------------------------------------------------- |
| `await training.submit(message)`   | in line when it returns, with a `Pending`; a failure nobody awaits is told      |
| `await training.ref.submit(...)`   | the same, but what becomes of the `Pending` is yours                            |
| `await training.ref.ask(message)`  | the reply; a caller that leaves takes its message along if it has not begun     |
| `await training.ref.tell(message)` | in line when it returns; nobody waits for a reply                               |
| `await sampling.ref.ask(message)`  | the reply; samples have no order, so this is what `sample` does                 |
| `service.ref.subscribe(*kinds)`    | a channel of events; see below                                                  |
| `service.ref.waits()`              | who waits for what, since when and why                                          |
| `service.ref.observe_queues(...)`  | tells an observer of each change of a queue                                     |
| `service.ref.record(sink)`         | has events, actors and waits written down, as `open_service(events=...)` does   |

A service takes no messages as a whole: `service.ref` has what belongs to none of its clients.

## Messages

`tinker_actors.messages` has the classes. Making one checks it: what cannot be sent is an `InputError` that names the
field, before anything is in line. The reply's type follows from the message, and type checkers refuse a message to an
actor of another role.

```python
import trio

import tinker_actors as ta
from tinker_actors.messages import ForwardBackward, OptimStep, Sample


async def main() -> None:
    async with ta.open_service("local") as service:
        training = await service.create_lora_training_client("tinker-actors/char-100k", rank=4)
        ids = [5, 6, 7, 8]
        datum = ta.Datum(ta.ModelInput.from_ints(ids[:-1]), {"target_tokens": ids[1:], "weights": [1.0] * 3})
        gradient = await training.ref.submit(ForwardBackward([datum], "cross_entropy"))
        await training.ref.ask(OptimStep(ta.AdamParams(learning_rate=1e-3)))
        print((await gradient).metrics["loss:sum"])
        sampling = await training.save_weights_and_get_sampling_client()
        params = ta.SamplingParams(max_tokens=4, seed=1)
        message = Sample(
            target=sampling.target, prompt=ta.ModelInput.from_ints(ids), num_samples=1, sampling_params=params
        )
        print((await sampling.ref.ask(message)).sequences[0].tokens)


trio.run(main)
```

"""

VERBS = """\
### Which verb sends which message

"""

EVENTS = """\
## Events

`tinker_actors.events` has the classes. A subscription gets those of the kinds it names, or all of them, from then on.
It is read by `async for`, which ends with the service, and ended by leaving its `with` or `async with` block. Nobody
waits for a subscriber: one that lets more than `max_buffer` events come up loses the oldest. `dropped` says how many,
and so does a `Lagged` in the place where they are missing, for those who subscribed to all kinds or to that one.

```python
import trio

import tinker_actors as ta
from tinker_actors.events import ModelLostEvent, ModelRestored


async def main() -> None:
    embedded = ta.EmbeddedService()
    embedded.drop_model_at("forward_backward", 2)
    async with ta.open_service("local", embedded=embedded) as service:
        with service.ref.subscribe(ModelLostEvent, ModelRestored) as events:
            training = await service.create_lora_training_client("tinker-actors/char-100k", rank=4)
            ids = [5, 6, 7, 8]
            datum = ta.Datum(ta.ModelInput.from_ints(ids[:-1]), {"target_tokens": ids[1:], "weights": [1.0] * 3})
            for _ in range(3):
                await training.forward_backward([datum], "cross_entropy")
                done = await training.optim_step(ta.AdamParams(learning_rate=1e-3))
            await done
            print(await events.receive())
            print(await events.receive())


trio.run(main)
```

"""

WAITS = """\

## Queues and waits

`service.waits()` shows at any time who waits for what: a list of `WaitSeen`, the oldest wait first, those that wait for
the same put together, with the state of the queue and why, as far as the service has said. What has not been promised
yet is `sending OptimStep`, a sample in our own line waits for `room for a sample`, and a service that cannot be reached
is `server`.

Nobody has to look. A wait of a minute is a `Waiting` event and a line in the log, and again each time it has doubled;
its end is a `WaitEnded` with its length. A queue that is paused is a `QueueChange` at once, and one that goes on is
another, with the seconds between. The log hears of a pause of samples at once, of one of training after a minute, of
one subject once a minute at most, and always of both ends.

An observer of Tinker's kind is told of one client's queue, or of all, once for each state and reason. What it raises is
logged and breaks nothing.

<!-- test: skip because it is a fragment -->
```python
class Lights:
    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        print("go" if queue_state is QueueState.ACTIVE else f"wait: {queue_state_reason}")

with service.ref.observe_queues(Lights(), of=training):
    ...
```
"""


def message_kinds() -> list[type[Message[Any, Any]]]:
    """Return the messages of the public channels."""
    values = [getattr(messages, name) for name in messages.__all__]
    return [value for value in values if isinstance(value, type) and issubclass(value, Message)]


def parties(kind: type) -> tuple[type, object]:
    """Return the role a message is addressed to, and the type of its reply."""
    for base in (base for one in kind.__mro__ for base in getattr(one, "__orig_bases__", ())):
        if get_origin(base) is Message:
            role, reply = get_args(base)
            return role, reply
    raise LookupError(kind)


def calls(kind: type, name: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the names that a method of a class calls, those of methods of the same class that it calls included."""
    method = inspect.getattr_static(kind, name)
    if not inspect.isfunction(method) or name in seen:
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(node.func, ast.Name):
            yield node.func.id
        elif ast.unparse(node.func) in {f"self.{own}" for own in dir(kind)}:
            yield from calls(kind, ast.unparse(node.func).removeprefix("self."), seen | {name})


def sent_by(kind: type, name: str) -> list[str]:
    """Return the messages a verb sends."""
    known = {one.__name__ for one in message_kinds()}
    return list(dict.fromkeys(one for one in calls(kind, name) if one in known))


_OTHERS = {"submit", "decide"}  # whatever it is given; and what runs use


def verb_rows() -> list[list[str]]:
    """Return a row for each verb that sends a message."""
    rows = [["verb", "message", "role", "reply of the message", "what the verb gives"]]
    for client, what in ((TrainingClient, "training"), (SamplingClient, "sampling")):
        for name in (name for name in vars(client) if not name.startswith("_") and name not in _OTHERS):
            for message in sent_by(client, name):
                role, reply = parties(getattr(messages, message))
                gives = str(inspect.signature(inspect.getattr_static(client, name)).return_annotation)
                words = [f"{what}.{name}", message, role.__name__, _named(reply), gives]
                rows.append([f"`{word}`".replace("|", "\\|") for word in words])
    return rows


def _named(kind: object) -> str:
    return "None" if kind is type(None) else kind.__name__ if isinstance(kind, type) else str(kind)


def unsent() -> list[str]:
    """Return a line for each message that no verb sends."""
    sent = {row[1].strip("`") for row in verb_rows()}
    return [f"no verb sends {kind.__name__}" for kind in message_kinds() if kind.__name__ not in sent]


def event_rows() -> list[list[str]]:
    """Return a row for each kind of event."""
    rows = [["event", "fields", "what it says"]]
    for kind in sorted(get_args(ServiceEvent), key=lambda kind: kind.__name__):
        fields = ", ".join(f"`{field.name}`" for field in kind.__attrs_attrs__)
        rows.append(
            [f"`{kind.__name__}`", fields, (kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")]
        )
    return rows


def pages() -> Pages:
    """Return the page as it should read."""
    text = HEAD + VERBS + table(verb_rows()) + "\n" + EVENTS + table(event_rows()) + WAITS
    return Pages(PAGES, AGAIN, {NAME: text})


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Be the program."""
    return run(arguments, pages(), root, amiss=unsent())


if __name__ == "__main__":
    sys.exit(main())
