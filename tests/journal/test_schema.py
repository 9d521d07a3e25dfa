from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import counts, flags, floats, names, optional, texts
from tinker_actors.journal.schema import operation_of, written
from tinker_actors.protocol.journal import Operation
from tinker_actors.wire import codec
from tinker_actors.wire.optimizer import (
    AdamParams,
    DimuonParams,
    OptimParams,
    OptimParamsBase,
    OptimStepRequest,
)
from tinker_actors.wire.training import ForwardBackwardInput

params = (
    st.builds(AdamParams, learning_rate=floats, weight_decay=floats)
    | st.builds(DimuonParams, learning_rate=st.floats(0, 1e3))
    | st.builds(
        OptimParamsBase, names, st.dictionaries(names.filter("type".__ne__), floats | texts, max_size=2)
    )
)
operations = st.builds(
    Operation,
    kind=st.sampled_from(
        ["forward", "forward_backward", "optim_step", "save_state", "load_state", "save_external"]
    ),
    loss_fn=st.sampled_from(["cross_entropy", "ppo"]),
    loss_fn_config=optional(st.dictionaries(names, st.floats() | st.integers() | texts, max_size=2)),
    optim_params=optional(params),
    path=optional(texts),
    optimizer=flags,
    name=optional(texts),
    ttl_seconds=optional(counts),
    overwrite=flags,
    user_metadata=optional(st.dictionaries(texts, texts, max_size=2)),
    sampler_kind=st.sampled_from(["snapshot", "latest"]),
    recipients=optional(st.lists(texts, max_size=2).map(tuple)),
)


@given(operations, optional(st.just("digest")))
def test_an_operation_comes_back_as_it_was(operation: Operation, body: str | None) -> None:
    """All of its settings, also numbers that JSON does not have."""
    got = operation_of(operation.kind, written(operation), body)
    assert repr(got) == repr(operation).replace("body=None", f"body={body!r}")  # NaN is equal to nothing


@pytest.mark.parametrize("rate", [np.float32(0.1), np.float64(0.1), np.int64(3)])
def test_numbers_of_numpys_give_the_same_requests(rate: float) -> None:
    """Those of fewer bits are written shorter than their value: what was decided must be sent, not what is near it."""
    operation = Operation(
        kind="forward_backward", loss_fn_config={"beta": rate}, optim_params=AdamParams(learning_rate=rate)
    )
    got = operation_of(operation.kind, written(operation), None)

    def sent(one: Operation) -> tuple[bytes, bytes]:
        settings: OptimParams | None = one.optim_params
        assert settings is not None
        batch = ForwardBackwardInput((), one.loss_fn, one.loss_fn_config)
        return codec.encode(batch), codec.encode(OptimStepRequest(settings, "m", 1))

    assert sent(got) == sent(operation)


def test_what_admits_to_weights_is_never_written() -> None:
    """It is a secret, and a journal is a file."""
    operation = Operation(kind="load_state", path="p", weights_access_token="secret")
    assert "secret" not in written(operation)
    assert operation_of("load_state", written(operation), None) == Operation(kind="load_state", path="p")


def test_what_json_does_not_hold_is_refused() -> None:
    """It could not be sent either."""
    with pytest.raises(TypeError, match="is not JSON"):
        written(Operation(kind="forward", loss_fn_config={"x": object()}))  # type: ignore[dict-item]  # no JSON, on purpose
