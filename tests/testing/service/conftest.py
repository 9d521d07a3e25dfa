"""A caller that asks a scripted service without any front: it has the clock in its hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tinker_actors.testing import ReplyPlan, ScriptedService, ServedRequest
from tinker_actors.testing.service.reply import Held


class Caller:
    """Calls a service and waits for held answers by turning the clock.

    Attributes:
        now: the time, in seconds.
    """

    def __init__(self, service: ScriptedService) -> None:
        self.service = service
        self.now = 0.0

    def plan(self, method: str, path: str, body: Any = None, **headers: str) -> ReplyPlan:
        """Send a request and return the plan of its answer; the clock goes on while it is held."""
        path, _, query = path.partition("?")
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        request = ServedRequest(
            method=method, path=f"/api/v1/{path}", query=query, headers=named, content=content
        )
        step = self.service.handle(request, self.now)
        while isinstance(step, Held):
            assert step.until >= self.now
            self.now = step.until
            step = step.resume(self.now)
        return step

    def call(self, path: str, body: Any = None, *, method: str = "POST", **headers: str) -> tuple[int, Any]:
        """Send a request and return its status and the JSON value of its answer."""
        plan = self.plan(method, path, body, **headers)
        return plan.status, json.loads(plan.body)

    def ok(self, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request that must succeed and return the answer."""
        status, answer = self.call(path, body, **headers)
        assert status < 300, answer
        return answer

    def get(self, path: str) -> Any:
        """GET something that must be there."""
        status, answer = self.call(path, method="GET")
        assert status == 200, answer
        return answer

    def poll(self, promise: dict[str, Any]) -> tuple[int, Any]:
        """Ask for a promise's result."""
        return self.call("retrieve_future", {"request_id": promise["request_id"]})

    def result(self, path: str, body: Any) -> Any:
        """Send a request that must succeed and return its result."""
        status, answer = self.poll(self.ok(path, body))
        assert status == 200, answer
        return answer

    def session(self) -> str:
        """Open a session."""
        request = {"tags": [], "user_metadata": {}, "sdk_version": "1", "type": "create_session"}
        session_id: str = self.ok("create_session", request)["session_id"]
        return session_id

    def model(self, session_id: str | None = None, number: int = 0) -> str:
        """Make a model, in a session of its own if none is named."""
        body = {
            "session_id": session_id or self.session(),
            "model_seq_id": number,
            "base_model": "m",
            "lora_config": {"rank": 4},
        }
        model_id: str = self.result("create_model", body)["model_id"]
        return model_id


def batch(*tokens: int) -> dict[str, Any]:
    """Return a batch of one datum, as JSON."""
    size = len(tokens)
    inputs = {
        "target_tokens": {"data": list(tokens), "dtype": "int64", "shape": [size]},
        "weights": {"data": [1.0] * size, "dtype": "float32", "shape": [size]},
    }
    chunks = [{"type": "encoded_text", "tokens": list(tokens)}]
    return {
        "data": [{"model_input": {"chunks": chunks}, "loss_fn_inputs": inputs}],
        "loss_fn": "cross_entropy",
    }


def forward_backward(model_id: str, seq_id: int | None, *tokens: int) -> dict[str, Any]:
    """Return the body of a forward_backward."""
    body = {"forward_backward_input": batch(*tokens), "model_id": model_id}
    return body if seq_id is None else body | {"seq_id": seq_id}


def optim_step(model_id: str, seq_id: int | None) -> dict[str, Any]:
    """Return the body of an optim_step."""
    body = {"model_id": model_id, "adam_params": {"learning_rate": 0.1}, "type": "optim_step"}
    return body if seq_id is None else body | {"seq_id": seq_id}


def sample(sampler_id: str, seq_id: int) -> dict[str, Any]:
    """Return the body of a request for one sample."""
    return {
        "sampling_session_id": sampler_id,
        "seq_id": seq_id,
        "num_samples": 1,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2, 3]}]},
        "sampling_params": {"max_tokens": 4},
        "type": "sample",
    }


class Bodies:
    """The bodies above, for tests."""

    batch = staticmethod(batch)
    forward_backward = staticmethod(forward_backward)
    optim_step = staticmethod(optim_step)
    sample = staticmethod(sample)


@pytest.fixture
def bodies() -> type[Bodies]:
    """Return functions that make bodies."""
    return Bodies


@pytest.fixture
def caller() -> type[Caller]:
    """Return the class of callers."""
    return Caller
