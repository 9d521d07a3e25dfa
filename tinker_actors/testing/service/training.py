"""Endpoints of models."""

from __future__ import annotations

import math
from typing import Any

import attrs

from .arithmetic import LOSSES, digest_of, sample_result, training_result
from .call import Call
from .promising import Result, WorkFailed, promised, run, submit
from .reply import Answer, Refusal
from .session import BASE_MODEL
from .state import Applied, Checkpoint, Model, Promise, Sampler, Session

__all__ = [
    "asample",
    "create_custom_loss",
    "create_model",
    "create_sampling_session",
    "forward",
    "forward_backward",
    "get_info",
    "get_sampler",
    "join_sampling_session",
    "load_weights",
    "optim_step",
    "save_weights",
    "save_weights_external",
    "save_weights_for_sampler",
    "unload_model",
]

KEPT_FIELDS = ("model_id", "seq_id", "type")


def _repeated(call: Call, session: Session, number: int) -> str | None:
    """Return what an earlier delivery of a numbered creation came to, if the service remembers such things."""
    if call.state.dialect.dedupe != "replay":
        return None
    return session.created_by.get((call.request.endpoint, number))


# ----------------------------------------------------------------------------------------------------- models


def create_model(call: Call) -> Answer:
    """Make a model."""
    session = call.state.session(call.need("session_id", str))
    number = call.need("model_seq_id", int)
    base_model = call.need("base_model", str)
    rank = int((call.get("lora_config", dict, {})).get("rank", 32))
    return _create(call, session, number, base_model, rank, None)


def _create(
    call: Call, session: Session, number: int, base_model: str, rank: int, checkpoint: Checkpoint | None
) -> Answer:
    if (repeated := _repeated(call, session, number)) is not None:
        promise = call.state.promises[repeated]
        return promised(call, promise, promise.owner)
    model_id = f"{session.session_id}:train:{number}"
    while model_id in call.state.models:
        model_id += "'"
    promise = call.state.promise(call.request.endpoint, model_id)

    def work() -> Result:
        model = Model(model_id, session.session_id, base_model, rank, call.now)
        model.user_metadata = call.body.get("user_metadata")
        model.origin = () if checkpoint is None else checkpoint.applied
        model.applied = list(model.origin)
        call.state.models[model_id] = model
        session.models.append(model_id)
        kind = call.request.endpoint
        more = {} if checkpoint is None else {"path": checkpoint.path}
        return Result({"type": kind, "model_id": model_id, **more})

    run(call, promise, work, call.now)
    if model_id in call.state.models:
        call.state.models[model_id].free_at = promise.ready_at
    session.created_by[call.request.endpoint, number] = promise.request_id
    return promised(call, promise, model_id)


def get_info(call: Call) -> Answer:
    """Describe a model."""
    model = call.state.model(call.need("model_id", str))
    data = {"arch": "scripted", "model_name": model.base_model, "tokenizer_id": model.base_model}
    body = {
        "type": "get_info",
        "model_id": model.model_id,
        "model_data": data,
        "is_lora": True,
        "lora_rank": model.rank,
        "model_name": model.base_model,
    }
    return Answer(body)


def unload_model(call: Call) -> Answer:
    """Forget a model, at once."""
    model = call.state.model(call.need("model_id", str))
    promise = call.state.promise("unload_model", model.session_id)
    run(call, promise, lambda: Result({"type": "unload_model", "model_id": model.model_id}), call.now)
    call.state.lose_model(model, "404", call.now)
    if call.state.dialect.unload_forgets:
        call.state.forget_checkpoints(model)
    return promised(call, promise, model.model_id)


def _batch(call: Call, *fields: str) -> dict[str, Any]:
    batch = next((call.need(field, dict) for field in fields if field in call.body), None)
    if batch is None:
        return call.need(fields[0], dict)  # refuses
    if not isinstance(batch.get("data"), list):
        raise Refusal(422, [{"type": "missing", "loc": ["body", fields[0], "data"], "msg": "Field required"}])
    return batch


def _forward(batch: dict[str, Any], model: Model) -> Result:
    if batch.get("loss_fn") not in LOSSES:
        raise WorkFailed(f"loss_fn = {batch.get('loss_fn')!r}: not a loss")
    if not batch["data"]:
        raise WorkFailed("data: the batch is empty")
    try:
        return Result(training_result(batch, model.steps + model.strayed), "training")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WorkFailed(f"data: {error!r}") from error


def forward(call: Call) -> Answer:
    """Compute a loss."""
    model = call.state.model(call.need("model_id", str))
    batch = _batch(call, "forward_input", "forward_backward_input")
    return submit(call, model, lambda: _forward(batch, model))


def forward_backward(call: Call) -> Answer:
    """Compute a loss, and note that its gradient became part of the model."""
    if call.body.get("forward_only"):
        return forward(call)
    model = call.state.model(call.need("model_id", str))
    batch = _batch(call, "forward_backward_input")

    def work() -> Result:
        result = _forward(batch, model)
        model.applied.append(Applied("forward_backward", digest_of(batch), call.number(), batch))
        return result

    return submit(call, model, work)


def optim_step(call: Call) -> Answer:
    """Note a step."""
    model = call.state.model(call.need("model_id", str))
    content = {key: value for key, value in call.body.items() if key not in KEPT_FIELDS}

    def work() -> Result:
        if model.cold:  # an optimizer that begins afresh goes farther, and nowhere without a gradient
            model.strayed += call.state.stray if _has_gradient(model.applied) else -1
            model.cold = False
        model.applied.append(Applied("optim_step", digest_of(content), call.number(), content))
        return Result({"metrics": {"steps:max": float(model.steps)}})

    return submit(call, model, work)


def create_custom_loss(call: Call) -> Answer:
    """Take a loss."""
    session = call.state.session(call.need("session_id", str))
    call.state.losses.append(dict(call.body))
    promise = call.state.promise("create_custom_loss", session.session_id)
    run(call, promise, lambda: Result({"loss_id": f"loss-{len(call.state.losses)}"}), call.now)
    return promised(call, promise)


# ------------------------------------------------------------------------------------------------ checkpoints


def _save(call: Call, model: Model, kind: str, name: str) -> Checkpoint:
    path = f"tinker://{model.model_id}/{kind}/{name}"
    if path in call.state.checkpoints and not (
        call.state.dialect.overwrite or call.get("overwrite", bool, False)
    ):
        raise Refusal(409, f"Checkpoint {path} already exists")
    ttl = call.number("ttl_seconds")
    return Checkpoint(
        path=path,
        model_id=model.model_id,
        kind=kind,
        name=name,
        base_model=model.base_model,
        rank=model.rank,
        created=call.now,
        applied=(),
        expires_at=math.inf if ttl is None else call.now + ttl,
        user_metadata=call.body.get("user_metadata"),
    )


def _keep(call: Call, model: Model, checkpoint: Checkpoint) -> None:
    call.state.checkpoints.pop(checkpoint.path, None)  # the newest one comes last
    call.state.checkpoints[checkpoint.path] = attrs.evolve(
        checkpoint, applied=_without_gradient(model.applied), strayed=model.strayed
    )


def _without_gradient(applied: list[Applied]) -> tuple[Applied, ...]:
    """Return what a saved state holds: weights and optimizer, but no gradient that waits for its step."""
    steps = [place for place, one in enumerate(applied) if one.endpoint == "optim_step"]
    return tuple(applied[: steps[-1] + 1 if steps else 0])


def _has_gradient(applied: list[Applied]) -> bool:
    """Whether the gradient that waits for its step has anything in it."""
    for one in reversed(applied):
        if one.endpoint != "forward_backward":
            return False
        content: Any = one.content
        for datum in content["data"]:
            inputs = datum.get("loss_fn_inputs", {})
            factors = inputs.get("weights") or inputs.get("advantages") or {}
            if any(factors.get("data") or [1.0]):
                return True
    return False


def _is_repeated(call: Call, model: Model) -> bool:
    return call.state.dialect.dedupe == "replay" and call.number() in model.seen


def save_weights(call: Call) -> Answer:
    """Keep a model as it is."""
    model = call.state.model(call.need("model_id", str))
    name = call.get("path", str, "") or f"{len(call.state.checkpoints):06d}"
    checkpoint = None if _is_repeated(call, model) else _save(call, model, "weights", name)

    def work() -> Result:
        assert checkpoint is not None  # a repetition is not worked on
        _keep(call, model, checkpoint)
        return Result({"type": "save_weights", "path": checkpoint.path})

    return submit(call, model, work)


def save_weights_external(call: Call) -> Answer:
    """Keep a model as it is, for other programs."""
    model = call.state.model(call.need("model_id", str))
    name = call.need("path", str)
    checkpoint = None if _is_repeated(call, model) else _save(call, model, "external_weights", name)

    def work() -> Result:
        assert checkpoint is not None
        _keep(call, model, checkpoint)
        return Result({"type": "save_weights_external", "path": checkpoint.path, "size_bytes": 1024})

    return submit(call, model, work)


def save_weights_for_sampler(call: Call) -> Answer:
    """Keep a model as it is, for samplers: under a name, or in a sampling session of its own."""
    model = call.state.model(call.need("model_id", str))
    name = call.get("path", str, "")
    if not name:
        return _save_ephemeral(call, model)
    checkpoint = None if _is_repeated(call, model) else _save(call, model, "sampler_weights", name)

    def work() -> Result:
        assert checkpoint is not None
        _keep(call, model, checkpoint)
        return Result({"type": "save_weights_for_sampler", "path": checkpoint.path})

    return submit(call, model, work)


def _save_ephemeral(call: Call, model: Model) -> Answer:
    number = call.need("sampling_session_seq_id", int)

    def work() -> Result:
        sampler_id = f"{model.session_id}:sample:{number}"
        sampler = Sampler(sampler_id, model.session_id, model.base_model, None, model.steps)
        _open_sampler(call, sampler)
        return Result({"type": "save_weights_for_sampler", "sampling_session_id": sampler_id})

    return submit(call, model, work)


def load_weights(call: Call) -> Answer:
    """Load a checkpoint into a model, or make a model of it."""
    checkpoint = call.state.checkpoint(call.need("path", str), call.now)
    if checkpoint.kind != "weights":
        raise Refusal(400, f"{checkpoint.path} is not a training checkpoint")
    if call.body.get("model_id") is None:
        session = call.state.session(call.need("session_id", str))
        number = call.need("model_seq_id", int)
        return _create(call, session, number, checkpoint.base_model, checkpoint.rank, checkpoint)
    model = call.state.model(call.need("model_id", str))

    def work() -> Result:
        model.applied, model.strayed = list(checkpoint.applied), checkpoint.strayed
        whole = call.get("optimizer", bool, False) and checkpoint.path not in call.state.without_optimizer
        model.cold = checkpoint.steps > 0 and not whole
        return Result({"type": "load_weights", "path": checkpoint.path})

    return submit(call, model, work)


# --------------------------------------------------------------------------------------------------- sampling


def _open_sampler(call: Call, sampler: Sampler) -> None:
    session = call.state.sessions.get(sampler.session_id)
    if session is not None and sampler.sampler_id not in call.state.samplers:
        session.samplers.append(sampler.sampler_id)
    call.state.samplers[sampler.sampler_id] = sampler


def _steps_of(call: Call, path: str | None) -> tuple[str, int]:
    if path is None:
        return BASE_MODEL, 0
    checkpoint = call.state.checkpoint(path, call.now)
    return checkpoint.base_model, checkpoint.steps


def create_sampling_session(call: Call) -> Answer:
    """Open a sampling session."""
    session = call.state.session(call.need("session_id", str))
    number = call.need("sampling_session_seq_id", int)
    path = call.get("model_path", str, "") or None
    if path is None:
        call.need("base_model", str)
    base_model, steps = _steps_of(call, path)
    sampler_id = _repeated(call, session, number) or f"{session.session_id}:sample:{number}"
    if sampler_id not in call.state.samplers:
        _open_sampler(call, Sampler(sampler_id, session.session_id, base_model, path, steps))
    session.created_by["create_sampling_session", number] = sampler_id
    return Answer({"type": "create_sampling_session", "sampling_session_id": sampler_id})


def join_sampling_session(call: Call) -> Answer:
    """Count a client of a sampling session."""
    sampler = _sampler(call, call.need("sampling_session_id", str))
    sampler.joined += 1
    return Answer({"client_counter": sampler.joined})


def get_sampler(call: Call) -> Answer:
    """Describe a sampling session."""
    sampler = _sampler(call, call.request.params["sampler_id"])
    body = {
        "sampler_id": sampler.sampler_id,
        "base_model": sampler.base_model,
        "model_path": sampler.model_path,
    }
    return Answer(body)


def _sampler(call: Call, sampler_id: str) -> Sampler:
    sampler = call.state.samplers.get(sampler_id)
    if sampler is None:
        raise Refusal(404, f"Sampling session {sampler_id} not found")
    call.state.session(sampler.session_id)
    return sampler


def asample(call: Call) -> Answer:
    """Draw samples, from a sampling session or without one."""
    prompt = call.need("prompt", dict)
    count = call.get("num_samples", int, 1)
    if not prompt.get("chunks"):
        raise Refusal(400, "prompt is empty")
    if count < 1:
        raise Refusal(400, "num_samples must be 1 or more")
    sampler_id = call.get("sampling_session_id", str, "")
    sampler = _sampler(call, sampler_id) if sampler_id else None
    number = call.number()
    if sampler is not None and number in sampler.seen and call.state.dialect.dedupe == "replay":
        return _sampling(call, call.state.promises.get(sampler.seen[number]), count)
    steps = _steps_of(call, call.get("model_path", str, "") or None)[1] if sampler is None else sampler.steps
    promise = call.state.promise("asample", sampler_id or "sample")
    if sampler is not None:
        sampler.promises.append(promise.request_id)
        if number is not None:
            sampler.seen[number] = promise.request_id
    run(call, promise, lambda: Result(sample_result(call.body, steps), "sample"), call.now)
    call.state.sampling_until(promise.ready_at)
    return _sampling(call, promise, count)


def _sampling(call: Call, promise: Promise | None, count: int) -> Answer:
    if promise is None:
        raise Refusal(410, "the result of this number is gone")
    ids = [f"{promise.request_id}:{index}" for index in range(count)]
    if not call.state.dialect.sequence_ids:
        return promised(call, promise)
    return promised(call, promise, sample_sequence_ids=ids)
