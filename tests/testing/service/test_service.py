"""The scripted service by itself: what it answers when nothing goes wrong."""

from __future__ import annotations

import json

import pytest

from tinker_actors.errors import InputError
from tinker_actors.testing import (
    Capacity,
    Fixed,
    Pause,
    ScriptedService,
    ServiceDialect,
    ServiceFaults,
    Uniform,
)


def test_a_model_is_trained_saved_and_sampled(caller, bodies) -> None:
    """The way of every run: session, model, steps, checkpoint, sampler, sample, the end."""
    service = ScriptedService()
    user = caller(service)
    session = user.session()
    model = user.model(session)
    assert user.ok("get_info", {"model_id": model})["lora_rank"] == 4
    output = user.result("forward_backward", bodies.forward_backward(model, 1, 5, 6))
    assert output["loss_fn_outputs"][0]["logprobs"] == {
        "data": [-6 / 64, -7 / 64],
        "dtype": "float32",
        "shape": [2],
    }
    assert output["metrics"] == {"loss:sum": 13 / 64}
    assert user.result("optim_step", bodies.optim_step(model, 2))["metrics"] == {"steps:max": 1.0}
    saved = user.result("save_weights_for_sampler", {"model_id": model, "path": "one", "seq_id": 3})
    assert saved["path"] == f"tinker://{model}/sampler_weights/one"
    opened = {"session_id": session, "sampling_session_seq_id": 0, "model_path": saved["path"]}
    sampler = user.ok("create_sampling_session", opened)["sampling_session_id"]
    promise = user.ok("asample", bodies.sample(sampler, 0))
    assert promise["sample_sequence_ids"] == [f"{promise['request_id']}:0"]
    status, result = user.poll(promise)
    assert (status, len(result["sequences"][0]["tokens"])) == (200, 4)
    assert user.get(f"samplers/{sampler}")["model_path"] == saved["path"]
    user.ok(f"sessions/{session}/finish", {"reason": {"type": "success"}, "detail": None})
    assert service.models == service.sessions == ()
    assert [one.endpoint for one in service.trained[model]] == ["forward_backward", "optim_step"]


def test_results_change_with_each_step(caller, bodies) -> None:
    """The same batch has another loss after a step, so a step that is missing or doubled shows in results."""
    user = caller(ScriptedService())
    model = user.model()
    losses = []
    for step in range(3):
        output = user.result("forward_backward", bodies.forward_backward(model, 2 * step + 1, 5))
        losses.append(output["metrics"]["loss:sum"])
        user.result("optim_step", bodies.optim_step(model, 2 * step + 2))
    assert losses == [6 / 64, 13 / 64, 20 / 64]


def test_a_checkpoint_brings_its_history_along(caller, bodies) -> None:
    """What is in a model after loading is what was in the checkpoint, by either way of addressing."""
    service = ScriptedService()
    user = caller(service)
    session = user.session()
    first = user.model(session)
    user.result("forward_backward", bodies.forward_backward(first, 1, 5))
    user.result("optim_step", bodies.optim_step(first, 2))
    path = user.result("save_weights", {"model_id": first, "path": "a", "seq_id": 3})["path"]
    second = user.model(session, 1)
    user.result("load_weights", {"model_id": second, "path": path, "optimizer": True, "seq_id": 1})
    made = {"session_id": session, "model_seq_id": 2, "path": path, "optimizer": True}
    third = user.result("load_weights", made)["model_id"]
    assert service.trained[first] == service.trained[second] == service.trained[third]
    assert user.ok("weights_info", {"tinker_path": path})["lora_rank"] == 4


def test_a_poll_is_held_until_the_result_is_there(caller, bodies) -> None:
    """A result that comes soon is waited for; else the poll is told to come again, and by which status."""
    user = caller(ScriptedService(ServiceFaults(work=Fixed(40)), dialect=ServiceDialect(hold=30)))
    promise = user.ok("create_model", {"session_id": user.session(), "model_seq_id": 0, "base_model": "m"})
    status, again = user.poll(promise)
    assert (status, again["type"], user.now) == (408, "try_again", 30.0)
    assert (user.poll(promise)[0], user.now) == (200, 40.0)


def test_work_of_a_model_is_done_one_after_the_other(caller, bodies) -> None:
    """Two requests that come together are ready one work's time apart."""
    user = caller(ScriptedService(ServiceFaults(work=Fixed(3)), dialect=ServiceDialect(early_numbers="park")))
    model = user.model()
    first = user.ok("forward_backward", bodies.forward_backward(model, 1, 5))
    second = user.ok("optim_step", bodies.optim_step(model, 2))
    assert (user.poll(second)[0], user.now) == (200, 9.0)
    assert user.poll(first)[0] == 200


def test_a_clock_cycle_does_all_work_that_came_before_its_tick(caller, bodies) -> None:
    """Work of one cycle shares its number, and what comes late waits for the next tick."""
    user = caller(ScriptedService(dialect=ServiceDialect(cycle=10)))
    model = user.model()
    assert user.now == 10
    pending = [
        user.ok("forward_backward", bodies.forward_backward(model, 1, 5)),
        user.ok("optim_step", bodies.optim_step(model, 2)),
    ]
    cycles = [user.poll(promise)[1]["metrics"]["clock_cycle:unique"] for promise in pending]
    assert (cycles, user.now) == ([2.0, 2.0], 20.0)
    user.now = 20.5
    late = user.result("forward_backward", bodies.forward_backward(model, 3, 5))
    assert (late["metrics"]["clock_cycle:unique"], user.now) == (3.0, 30.0)


def test_a_pause_says_why_and_ends(caller, bodies) -> None:
    """No work is done in it; polls are told the state of the queue and its reason."""
    pause = Pause(start=0, end=45, queue_state="paused_rate_limit", reason="too many runs")
    user = caller(ScriptedService(ServiceFaults(pauses=(pause,))))
    promise = user.ok("create_model", {"session_id": user.session(), "model_seq_id": 0, "base_model": "m"})
    _, again = user.poll(promise)
    assert (again["queue_state"], again["queue_state_reason"]) == ("paused_rate_limit", "too many runs")
    assert (user.poll(promise)[0], user.now) == (200, 45.0)


def test_large_results_are_announced_first_to_who_asks_for_that(caller, bodies) -> None:
    """The first poll may be told the size; the second gets the result."""
    user = caller(ScriptedService(dialect=ServiceDialect(metadata_above=20)))
    model = user.model()
    promise = user.ok("forward_backward", bodies.forward_backward(model, 1, 5))
    asked = {"request_id": promise["request_id"], "allow_metadata_only": True}
    announced = user.ok("retrieve_future", asked)
    result = user.ok("retrieve_future", asked | {"allow_metadata_only": False})
    assert announced == {
        "status": "complete_metadata",
        "response_payload_size": len(json.dumps(result, separators=(",", ":"))),
    }


def test_one_poll_for_all_samples_of_a_session(caller, bodies) -> None:
    """Completions come once per cursor, again if the cursor was lost, and not after they were acknowledged."""
    user = caller(ScriptedService(ServiceFaults(work=Uniform(1, 5))))
    session = user.session()
    body = {"session_id": session, "sampling_session_seq_id": 0, "base_model": "m"}
    sampler = user.ok("create_sampling_session", body)["sampling_session_id"]
    target = {"type": "sampling_session", "sampling_session_id": sampler, "cloned_sampler_id": 0}
    empty = user.ok("retrieve_futures", {"target": target, "prev_cursor": 0, "timeout": 0.0})
    assert (empty, user.now) == ({"completions": [], "cursor": 0}, 0.0)
    promises = [user.ok("asample", bodies.sample(sampler, number))["request_id"] for number in range(3)]
    found, cursor = [], 0
    while len(found) < 3:
        answer = user.ok("retrieve_futures", {"target": target, "prev_cursor": cursor})
        assert answer == user.ok("retrieve_futures", {"target": target, "prev_cursor": cursor})
        found += [one["request_id"] for one in answer["completions"]]
        cursor = answer["cursor"]
    assert sorted(found) == sorted(promises)
    done = {"target": target, "prev_cursor": cursor, "timeout": 0.0, "retrieved_request_ids": found}
    assert user.ok("retrieve_futures", done) == {"completions": [], "cursor": 3}
    assert user.poll({"request_id": found[0]})[0] == 404
    fourth = user.ok("asample", bodies.sample(sampler, 3))["request_id"]
    answer = user.ok("retrieve_futures", {"target": target, "prev_cursor": cursor})
    assert [one["request_id"] for one in answer["completions"]] == [fourth]


def test_a_cancelled_promise_is_gone_unless_its_result_is_there(caller, bodies) -> None:
    """Cancelling is answered in any case, and noted."""
    service = ScriptedService(ServiceFaults(work=Fixed(5)))
    user = caller(service)
    model = user.model()
    promise = user.ok("forward_backward", bodies.forward_backward(model, 1, 5))
    user.ok("cancel_future", promise)
    assert user.poll(promise)[0] == 410
    assert service.cancelled == (promise["request_id"],)


def test_checkpoints_expire_are_published_and_removed(caller, bodies) -> None:
    """TTL at saving and later, null for never, publishing once, and lists in pages."""
    service = ScriptedService()
    user = caller(service)
    model = user.model()
    for number, name in enumerate("abc", 1):
        user.result("save_weights", {"model_id": model, "path": name, "seq_id": number, "ttl_seconds": 60})
    status, _ = user.call("save_weights", {"model_id": model, "path": "a", "seq_id": 4})
    assert status == 409
    here = f"training_runs/{model}/checkpoints"
    user.ok(f"{here}/weights/a/ttl", {"ttl_seconds": None}, method="PUT")
    assert user.call(f"{here}/weights/a/ttl", {}, method="PUT")[0] == 422
    user.ok(f"{here}/weights/b", method="DELETE")
    user.ok(f"{here}/weights/a/publish")
    assert user.call(f"{here}/weights/a/publish")[0] == 409
    user.ok(f"{here}/weights/a/publish", method="DELETE")
    page = user.get("checkpoints?limit=1&offset=1")
    assert [one["checkpoint_id"] for one in page["checkpoints"]] == ["weights/c"]
    assert page["cursor"] == {"offset": 1, "limit": 1, "total_count": 2}
    user.now += 61
    assert [one["checkpoint_id"] for one in user.get(here)["checkpoints"]] == ["weights/a"]
    runs = user.get("training_runs")["training_runs"]
    assert [run["training_run_id"] for run in runs] == [model]
    assert user.get(f"training_runs/{model}")["last_checkpoint"]["checkpoint_id"] == "weights/c"
    assert user.get("sessions") == {"sessions": list(service.sessions)}
    assert user.get(f"sessions/{service.sessions[0]}")["training_run_ids"] == [model]


def test_a_key_is_asked_for_and_may_be_exchanged(caller) -> None:
    """Without the key 401; a token is good for its lifetime, then it is refused in the words that ask for a new one."""
    user = caller(ScriptedService(api_key="tml-a"))
    body = {"tags": [], "user_metadata": {}, "sdk_version": "1"}
    assert user.call("create_session", body)[0] == 401
    assert user.call("create_session", body, x_api_key="tml-a")[0] == 200
    user = caller(ScriptedService(api_key="tml-a", token_lifetime=100))
    token = user.ok("auth/token", {}, x_api_key="tml-a")["jwt"]
    user.ok("create_session", body, x_api_key=token)
    user.now = 101
    plan = user.plan("POST", "create_session", body, x_api_key=token)
    assert plan.status == 401
    assert 'error="invalid_token"' in dict(plan.headers)["www-authenticate"]
    shown = repr(user.service.requests)
    assert token not in shown
    assert "tml-a" not in shown


def test_flags_sessions_and_telemetry_are_told_and_kept(caller) -> None:
    """Configuration tells what the test set; events and beats are noted; an unknown session's beat is refused."""
    service = ScriptedService(flags={"fwdbwd_max_chunk_len": 2}, dynamic_flags={"refresh_interval_sec": 7})
    user = caller(service)
    assert user.ok("client/config", {"sdk_version": "1"}) == {
        "sequence_dedupe": "replay",
        "early_numbers": "park",
        "fwdbwd_max_chunk_len": 2,
    }
    assert user.ok("client/dynamic_config", {"sdk_version": "1"}) == {"refresh_interval_sec": 7}
    assert user.ok("telemetry", {"events": [{"event": "SESSION_START"}]}) == {"status": "accepted"}
    assert service.telemetry == ({"event": "SESSION_START"},)
    assert user.ok("session_heartbeat", {"session_id": user.session()}) == {"type": "session_heartbeat"}
    assert user.call("session_heartbeat", {"session_id": "x"})[0] == 404
    assert user.get("healthz") == {"status": "ok"}
    assert user.get("get_server_capabilities")["supported_models"][0]["trainable"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("nowhere", {}, 404),
        ("healthz", {}, 405),
        ("create_session", b"{", 422),
        ("create_session", b"[]", 422),
        ("create_model", {}, 422),
        ("create_model", {"session_id": 3}, 422),
        ("create_model", {"session_id": "x", "model_seq_id": 0, "base_model": "m"}, 404),
        ("forward_backward", {"model_id": "x", "forward_backward_input": {"data": []}}, 404),
        ("asample", {"prompt": {"chunks": []}}, 400),
        ("retrieve_future", {"request_id": "x"}, 404),
        ("retrieve_futures", {"target": {}}, 404),
        ("load_weights", {"path": "tinker://x/weights/y"}, 404),
        ("training_runs?limit=x", None, 405),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(caller, path, body, status) -> None:
    """Each refusal has the status that a service gives it; the service itself goes on."""
    user = caller(ScriptedService())
    assert user.call(path, body)[0] == status
    assert user.get("healthz") == {"status": "ok"}


def test_work_that_makes_no_sense_fails_by_its_promise(caller, bodies) -> None:
    """An unknown loss, an empty batch and a batch that is none fail for the user, and nothing is trained."""
    service = ScriptedService()
    user = caller(service)
    model = user.model()
    wrong = [{"data": [], "loss_fn": "cross_entropy"}, {"data": [1], "loss_fn": "cross_entropy"}]
    for number, content in enumerate([*wrong, bodies.batch(1) | {"loss_fn": "none"}], 1):
        body = {"model_id": model, "seq_id": number, "forward_backward_input": content}
        failed = user.result("forward_backward", body)
        assert failed["category"] == "user"
    assert service.trained[model] == ()


def test_a_service_counts_and_forgets_on_request(caller, bodies) -> None:
    """A test may count requests and lose a model by hand; names that there are none of are refused."""
    service = ScriptedService()
    user = caller(service)
    model = user.model()
    assert service.count("create_model", "create_session") == 2
    service.lose_model(model, user.now)
    assert user.call("optim_step", bodies.optim_step(model, 1))[0] == 400
    with pytest.raises(InputError, match="model_id"):
        service.lose_model("x", user.now)
    with pytest.raises(InputError, match="endpoints"):
        service.count("create_modell")


def test_the_same_seed_is_the_same_run(caller, bodies) -> None:
    """Answers, times and faults of two runs are equal, byte by byte."""

    def play(seed: int) -> list[object]:
        faults = ServiceFaults(latency=Uniform(0, 1), work=Uniform(0, 9)).refuse(500, rate=0.2, of="asample")
        user = caller(ScriptedService(faults, seed=seed))
        body = {"session_id": user.session(), "sampling_session_seq_id": 0, "base_model": "m"}
        sampler = user.ok("create_sampling_session", body)["sampling_session_id"]
        plans = [user.plan("POST", "asample", bodies.sample(sampler, number)) for number in range(30)]
        return [*plans, *user.service.injected]

    assert play(1) == play(1) != play(2)


def test_samplers_are_opened_in_every_way(caller, bodies) -> None:
    """From an ephemeral save, from a base model, or for one request; clients of one are counted."""
    user = caller(ScriptedService())
    session = user.session()
    model = user.model(session)
    body = {"model_id": model, "sampling_session_seq_id": 4, "seq_id": 1}
    sampler = user.result("save_weights_for_sampler", body)["sampling_session_id"]
    assert sampler == f"{session}:sample:4"
    joins = [user.ok("join_sampling_session", {"sampling_session_id": sampler}) for _ in range(2)]
    assert joins == [{"client_counter": 1}, {"client_counter": 2}]
    assert user.get(f"samplers/{sampler}")["model_path"] is None
    once = bodies.sample(sampler, 0) | {"sampling_params": {"max_tokens": 9, "stop": [37]}}
    stopped = user.result("asample", once)["sequences"][0]
    assert (stopped["stop_reason"], stopped["tokens"][-1]) == ("stop", 37)
    del once["sampling_session_id"]
    assert user.result("asample", once | {"base_model": "m"})["sequences"]
    assert user.call("asample", once | {"num_samples": 0})[0] == 400
    assert user.call("asample", bodies.sample("x", 0))[0] == 404
    opening = {"session_id": session, "sampling_session_seq_id": 5}
    assert user.call("create_sampling_session", opening)[0] == 422
    assert user.get(f"sessions/{session}")["sampler_ids"] == [sampler]


def test_models_are_unloaded_and_custom_losses_taken(caller, bodies) -> None:
    """An unloaded model is not found any more; a custom loss gets an id."""
    service = ScriptedService()
    user = caller(service)
    session = user.session()
    model = user.model(session)
    loss = {"session_id": session, "custom_loss_seq_id": 0, "name": "nll", "inputs": [], "graph": {}}
    assert user.result("create_custom_loss", loss) == {"loss_id": "loss-1"}
    forward = {"model_id": model, "seq_id": 1, "forward_input": bodies.batch(5)}
    assert user.result("forward", forward)["metrics"] == {"loss:sum": 6 / 64}
    assert user.result("unload_model", {"model_id": model})["type"] == "unload_model"
    assert user.call("optim_step", bodies.optim_step(model, 2))[0] == 404
    assert repr(service) == "<ScriptedService: 10 requests, 0 faults>"


def test_what_is_named_wrongly_is_not_found(caller) -> None:
    """Runs, sessions and checkpoints that there are none of, and pages that are no numbers."""
    user = caller(ScriptedService())
    model = user.model()
    for path in ("training_runs/x", "sessions/x", "samplers/x", "training_runs/x/checkpoints"):
        assert user.call(path, method="GET")[0] == 404
    assert user.call("checkpoints?limit=many", method="GET")[0] == 422
    body = {"model_id": model, "path": "s", "seq_id": 1}
    path = user.result("save_weights_for_sampler", body)["path"]
    assert user.call("load_weights", {"model_id": model, "path": path, "optimizer": True})[0] == 400
    assert user.call("forward_backward", {"model_id": model})[0] == 422
    assert user.call("forward_backward", {"model_id": model, "forward_backward_input": {}})[0] == 422


def test_a_service_may_be_full_of_samples(caller, bodies) -> None:
    """One too many is refused and asked to wait, until one has ended; what holds is the latest that has begun."""
    now_and_later = (
        Capacity(samples=2, retry_after=1.5),
        Capacity(samples=1, start=100.0, retry_after=None),
    )
    user = caller(ScriptedService(ServiceFaults(work=Fixed(5.0), capacities=now_and_later)))
    opened = {"session_id": user.session(), "sampling_session_seq_id": 0, "base_model": "base"}
    sampler = user.ok("create_sampling_session", opened)["sampling_session_id"]
    plans = [user.plan("POST", "asample", bodies.sample(sampler, number)) for number in range(3)]
    assert [plan.status for plan in plans] == [200, 200, 429]
    assert dict(plans[2].headers)["retry-after"] == "1.5"
    assert user.service.sampling(user.now) == 2
    user.now = 5.0
    assert user.call("asample", bodies.sample(sampler, 3))[0] == 200
    user.now = 100.0
    assert user.call("asample", bodies.sample(sampler, 4))[0] == 200
    refused = user.plan("POST", "asample", bodies.sample(sampler, 5))
    assert (refused.status, dict(refused.headers).get("retry-after")) == (429, None)


@pytest.mark.parametrize("models", ["unloaded", "rolled_back"])
def test_a_restart_keeps_what_was_saved(caller, bodies, models) -> None:
    """Sessions and checkpoints are there; promises are not; models are gone, or what was saved last of them."""
    service = ScriptedService()
    user = caller(service)
    session = user.session()
    model, other = user.model(session), user.model(session, 1)
    for number in (1, 2):
        user.result("optim_step", bodies.optim_step(model, 2 * number - 1))
        path = user.result("save_weights", {"model_id": model, "path": f"{number}", "seq_id": 2 * number})
    promise = user.ok("optim_step", bodies.optim_step(model, 5))
    user.result("optim_step", bodies.optim_step(other, 1))
    service.restart(0.0, models)
    assert service.sessions == (session,)
    assert service.checkpoints[-1] == path["path"]
    assert user.poll(promise)[0] == 410
    if models == "unloaded":
        assert service.models == ()
        assert user.call("optim_step", bodies.optim_step(model, 6))[0] == 400
        assert len(service.trained[model]) == 3
    else:
        assert service.models == (model, other)
        assert [len(service.trained[name]) for name in (model, other)] == [2, 0]


def test_after_a_restart_a_number_is_new_again(caller, bodies) -> None:
    """The service has forgotten which numbers it has seen: what comes again is carried out again."""
    service = ScriptedService()
    user = caller(service)
    model = user.model()
    first = user.ok("optim_step", bodies.optim_step(model, 1))
    assert user.ok("optim_step", bodies.optim_step(model, 1)) == first
    service.restart(0.0, "rolled_back")
    assert user.ok("optim_step", bodies.optim_step(model, 1)) != first
    assert len(service.trained[model]) == 1


def test_a_model_made_of_a_state_is_rolled_back_to_it(caller, bodies) -> None:
    """What was in a model when it was made stays in it."""
    service = ScriptedService()
    user = caller(service)
    session = user.session()
    model = user.model(session)
    user.result("optim_step", bodies.optim_step(model, 1))
    path = user.result("save_weights", {"model_id": model, "path": "a", "seq_id": 2})["path"]
    body = {"session_id": session, "model_seq_id": 7, "path": path}
    made = user.result("load_weights", body)["model_id"]
    user.result("optim_step", bodies.optim_step(made, 1))
    service.restart(0.0, "rolled_back")
    assert len(service.trained[made]) == 1


def test_after_a_restart_nobody_waits_for_what_was_lost(caller, bodies) -> None:
    """What had come before its turn is lost with the restart, and the next number is in its turn."""
    service = ScriptedService()
    user = caller(service)
    model = user.model()
    user.result("optim_step", bodies.optim_step(model, 1))
    lost = user.ok("optim_step", bodies.optim_step(model, 3))
    service.restart(0.0, "rolled_back")
    assert user.poll(lost)[0] == 410
    user.result("optim_step", bodies.optim_step(model, 4))
    assert len(service.trained[model]) == 1
