"""What is made of the runs on a real server: whether the one that was killed is like those that nobody disturbed.

Nothing here trusts that a recording is whole. Of the undisturbed runs must be seen, on the wire, that they did each
step once, with its own batch; of each run, that the probe was the last thing that its final model was asked for; and
the probe must be able to tell a step more or less from the server's noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import httpx
import numpy as np
import trio

from tests.contract.launch import Server
from tests.contract.smoke import batch
from tinker_actors.testing import Exchange, Recording, Update
from tinker_actors.testing.recording import describe_reply, describe_request, differences
from tinker_actors.wire import codec, protobuf
from tinker_actors.wire.payload import PROTOBUF
from tinker_actors.wire.training import ForwardBackwardInput, ForwardBackwardRequest

SLACK = 1e-6  # of a log probability in float32
FACTOR = 3.0  # two runs are a small sample of what a server's runs differ by
UPDATES = ("forward_backward", "optim_step")
PATIENCE = 60.0  # seconds for the outcome of a promise that no client asked for


def no_logprobs() -> np.ndarray:
    """Return the log probabilities of a probe that was not made."""
    return np.zeros(0)


@attrs.define
class Run:
    """What became of one run.

    Attributes:
        recording: what came to the server.
        model_id: the model it ended with.
        logprobs: of the probe.
        before: of the same probe, before the last step.
        state: of the loop, at the end.
        ways: how it went on after each start: `fresh`, `attached`, `restored`.
        kills: how often it was killed.
        start_seconds: how long the first start took.
        steps_began: when it told of its steps.
        seconds: in all.
    """

    recording: Recording = attrs.field(factory=Recording)
    model_id: str = ""
    logprobs: np.ndarray = attrs.field(factory=no_logprobs)
    before: np.ndarray = attrs.field(factory=no_logprobs)
    state: dict[str, int] = attrs.field(factory=dict)
    ways: list[str] = attrs.field(factory=list)
    kills: int = 0
    start_seconds: float = 0.0
    steps_began: list[float] = attrs.field(factory=list)
    seconds: float = 0.0

    @property
    def step_seconds(self) -> float:
        """How long a step takes; of a run that nobody disturbed."""
        return (self.steps_began[-1] - self.steps_began[0]) / (len(self.steps_began) - 1)


async def failed_promises(server: Server, recording: Recording) -> set[str]:
    """Ask the server for the promises that no client asked for; return those that failed.

    One of which it does not tell counts as done.
    """
    headers = {"x-api-key": server.api_key}
    asked = Recording()
    async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, timeout=60) as client:
        for promise in recording.open_promises(*UPDATES, "save_weights"):
            asked.exchanges += [await poll(client, promise)]
            with trio.move_on_after(PATIENCE):
                while later(asked.exchanges[-1]):  # noqa: ASYNC110 - the server is another process
                    await trio.sleep(0.1)
                    asked.exchanges += [await poll(client, promise)]
    return set(asked.failed())


async def poll(client: httpx.AsyncClient, promise: str) -> Exchange:
    """Ask for a promise, as a client would."""
    fields = {"request_id": promise}
    reply = await client.post("/api/v1/retrieve_future", json=fields)
    return Exchange(
        number=0,
        at=0.0,
        method="POST",
        path="/api/v1/retrieve_future",
        fields=fields,
        status=reply.status_code,
        reply=describe_reply(reply.headers.get("content-type", ""), reply.content),
    )


def later(answer: Exchange) -> bool:
    """Whether it is to be asked for again."""
    return answer.status == 408 or answer.reply.get("type") == "try_again"


def digests(step: int) -> frozenset[str]:
    """Return what the content of a step's gradient may be on the wire: that of JSON, and that of protobuf."""
    asked = ForwardBackwardRequest(
        ForwardBackwardInput(data=tuple(batch(step)), loss_fn="cross_entropy"), "", 0
    )
    bodies = (("application/json", codec.encode(asked)), (PROTOBUF, protobuf.encode(asked)))
    return frozenset(describe_request(kind, "", body)[1] for kind, body in bodies)


def each_once(lineage: Sequence[Update], steps: Sequence[frozenset[str]]) -> bool:
    """Whether it is just these steps: of each its own gradient, then the optimizer."""
    gradients = [update.content for update in lineage if update.kind == "forward_backward"]
    return [update.kind for update in lineage] == [*UPDATES] * len(steps) and all(
        content in step for content, step in zip(gradients, steps, strict=True)
    )


def probe(run: Run) -> str:
    """Return what was the last thing that a run's final model was asked for, if it was a forward pass."""
    asked = [one for one in run.recording.of("forward", *UPDATES) if one.model_id == run.model_id]
    last = asked[-1] if asked else None
    forward = last is not None and (last.endpoint == "forward" or bool(last.fields.get("forward_only")))
    return last.content if last is not None and forward else ""


def probed(runs: Sequence[Run]) -> bool:
    """Whether all runs put the same probe to their final weights, and have its log probabilities."""
    asked, shapes = {probe(run) for run in runs}, {run.logprobs.shape for run in runs}
    return len(asked) == len(shapes) == 1 and "" not in asked and (0,) not in shapes


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Return how far apart the log probabilities of two probes are; infinitely if they are not alike."""
    if one.shape != other.shape or not one.size:
        return float("inf")
    return float(np.abs(one - other).max())


async def judge(
    server: Server, undisturbed: tuple[Run, Run], killed: Run, steps: Sequence[frozenset[str]]
) -> dict[str, Any]:
    """Hold the killed run against the undisturbed ones, and these against the steps that were to be done."""
    first, second = undisturbed
    failed = await failed_promises(server, killed.recording)
    expected, again = (one.recording.lineage(one.model_id) for one in undisturbed)
    found = killed.recording.lineage(killed.model_id, failed=failed)
    doubled, missing = differences(expected, found)
    noise, difference = apart(first.logprobs, second.logprobs), apart(first.logprobs, killed.logprobs)
    last_step = apart(first.logprobs, first.before)
    return {
        "client_kills": killed.kills,
        "ways": dict(Counter(killed.ways)),
        "updates": len(found),
        "doubled": doubled,
        "missing": missing,
        "unanswered": len(killed.recording.unanswered(killed.model_id)),
        "in_order": found == expected,
        "undisturbed_right": each_once(expected, steps) and again == expected,
        "state_equal": killed.state == first.state == {"steps": len(steps)},
        "probed": probed([first, second, killed]),
        "noise": noise,
        "difference": difference,
        "last_step": last_step,
        "within_noise": difference <= allowed(noise) < float("inf"),
        "telling": allowed(noise) < last_step < float("inf"),
        "seconds": round(killed.seconds, 1),
        "seconds_undisturbed": round(first.seconds, 1),
    }


def allowed(noise: float) -> float:
    """Return how far a probe may be from that of an undisturbed run."""
    return FACTOR * noise + SLACK


def holds(verdict: Mapping[str, Any], kills: int) -> bool:
    """Whether everything is as it must be, and the run was killed as often as was asked for."""
    right = ("in_order", "undisturbed_right", "state_equal", "probed", "within_noise", "telling")
    none = ("doubled", "missing", "unanswered")
    return (
        verdict["client_kills"] == kills
        and all(verdict[name] for name in right)
        and not any(verdict[name] for name in none)
    )
