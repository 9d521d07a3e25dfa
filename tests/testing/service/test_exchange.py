"""Faults, one by one, as plans of answers."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime

import pytest

from tinker_actors.testing import Fixed, RateLimit, ScriptedService, ServiceFaults


def trained(service, model):
    return [one.endpoint for one in service.trained[model]]


def struck(faults, caller, bodies):
    """Make a model, send it one forward_backward, and return the caller, the model and the plan."""
    user = caller(ScriptedService(faults))
    model = user.model()
    plan = user.plan("POST", "forward_backward", bodies.forward_backward(model, 1, 5))
    return user, model, plan


OF = "forward_backward"


def test_latency_delays_every_answer_and_a_delay_adds_to_it(caller, bodies) -> None:
    """The plan says how long; the work is done all the same."""
    user, model, plan = struck(ServiceFaults(latency=Fixed(0.5)).delay(2, of=OF), caller, bodies)
    assert (plan.delay, plan.status, trained(user.service, model)) == (2.5, 200, [OF])


def test_a_late_request_arrives_after_others(caller, bodies) -> None:
    """It is carried out when it is delivered, so another may overtake it."""
    service = ScriptedService(ServiceFaults().delay(3, "request", of=OF))
    user = caller(service)
    model = user.model()
    step = service.handle(user_request(user, OF, bodies.forward_backward(model, 1, 5)), 0.0)
    user.ok("optim_step", bodies.optim_step(model, 2))
    assert trained(service, model) == []
    assert step.resume(step.until).status == 200
    assert trained(service, model) == [OF, "optim_step"]


def user_request(user, path, body):
    user.plan("GET", "healthz")
    request = user.service.requests[-1]
    return type(request)(method="POST", path=f"/api/v1/{path}", content=json.dumps(body).encode())


@pytest.mark.parametrize(
    ("form", "header", "value"),
    [("seconds", "retry-after", "5"), ("ms", "retry-after-ms", "5000")],
)
def test_a_refusal_asks_to_wait_in_each_form(caller, bodies, form, header, value) -> None:
    """Nothing is carried out, and the header says when to come again."""
    faults = ServiceFaults().refuse(429, of=OF, retry_after=5, retry_after_form=form)
    user, model, plan = struck(faults, caller, bodies)
    assert (plan.status, dict(plan.headers)[header]) == (429, value)
    assert trained(user.service, model) == []


def test_a_refusal_may_ask_by_a_date_and_carry_other_headers(caller, bodies) -> None:
    """The date is that of the service's own clock."""
    extra = [("x-should-retry", "false")]
    faults = ServiceFaults().refuse(503, of=OF, retry_after=90, retry_after_form="date", headers=extra)
    _, _, plan = struck(faults, caller, bodies)
    headers = dict(plan.headers)
    assert parsedate_to_datetime(headers["retry-after"]).isoformat() == "2026-01-01T00:01:30+00:00"
    assert headers["x-should-retry"] == "false"


def test_a_doubtful_refusal_comes_when_the_work_is_done(caller, bodies) -> None:
    """The status says that it failed, and the model has it."""
    user, model, plan = struck(ServiceFaults().refuse(500, "after", of=OF), caller, bodies)
    assert (plan.status, trained(user.service, model)) == (500, [OF])


def test_an_empty_bucket_refuses_with_the_time_of_the_next_token(caller) -> None:
    """Each refusal is noted as a fault."""
    limit = RateLimit(per_second=0.25, burst=1, of=frozenset({"telemetry"}))
    user = caller(ScriptedService(ServiceFaults(limits=(limit,))))
    user.ok("telemetry", {"events": []})
    plan = user.plan("POST", "telemetry", {"events": []})
    assert (plan.status, dict(plan.headers)["retry-after"]) == (429, "4")
    assert [one.fault for one in user.service.injected] == [limit]


@pytest.mark.parametrize(
    ("faults", "ending", "done"),
    [
        (ServiceFaults().drop("connect", of=OF), "refuse_connection", False),
        (ServiceFaults().drop("request", of=OF), "drop_head", False),
        (ServiceFaults().drop("answer", of=OF), "drop_head", True),
        (ServiceFaults().drop("body", of=OF), "drop_body", True),
        (ServiceFaults().drop("reset", of=OF), "reset", True),
        (ServiceFaults().stall("request", of=OF), "stall_head", False),
        (ServiceFaults().stall("answer", of=OF), "stall_head", True),
        (ServiceFaults().stall("body", of=OF), "stall_body", True),
        (ServiceFaults().duplicate("answer", of=OF), "twice", True),
    ],
)
def test_connections_break_before_or_after_the_work_is_done(caller, bodies, faults, ending, done) -> None:
    """The plan says how it ends, the model whether it was carried out, and the fault is noted."""
    user, model, plan = struck(faults, caller, bodies)
    assert plan.ending == ending
    assert trained(user.service, model) == ([OF] if done else [])
    assert [(one.fault.what, one.endpoint) for one in user.service.injected] == [(faults.planned[0].what, OF)]
    assert len(plan.sent) == len(plan.body) // (2 if ending in ("drop_body", "reset", "stall_body") else 1)


def test_a_duplicated_request_meets_the_dedupe_rule(caller, bodies) -> None:
    """With replay it is done once and its answer is the first promise."""
    user, model, plan = struck(ServiceFaults().duplicate(of=OF), caller, bodies)
    assert trained(user.service, model) == [OF]
    assert user.poll(json.loads(plan.body))[0] == 200


@pytest.mark.parametrize(("form", "status"), [("404", 404), ("410", 410), ("error", 200), ("try_again", 408)])
def test_an_evicted_result_is_lost_though_the_work_is_done(caller, bodies, form, status) -> None:
    """Polls are told so in each of four forms, for ever."""
    user, model, plan = struck(ServiceFaults().evict(form, of=OF), caller, bodies)
    assert trained(user.service, model) == [OF]
    promise = json.loads(plan.body)
    assert [user.poll(promise)[0] for _ in range(2)] == [status, status]


@pytest.mark.parametrize("form", ["not_json", "html", "truncated", "wrong_type", "wrong_shape", "empty"])
def test_garbage_comes_with_status_200(caller, bodies, form) -> None:
    """The body is not the answer, or does not say what it is."""
    user, model, plan = struck(ServiceFaults().garbage(form, of=OF), caller, bodies)
    assert (plan.status, trained(user.service, model)) == (200, [OF])
    if form == "wrong_type":
        assert plan.content_type == "text/plain"
    elif form == "wrong_shape":
        assert isinstance(json.loads(plan.body), list)
    else:
        with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
            json.loads(plan.body)


@pytest.mark.parametrize(("form", "status"), [("400", 400), ("404", 404), ("410", 410)])
def test_a_lost_model_is_gone_for_good(caller, bodies, form, status) -> None:
    """The request that struck and all later ones are refused; what was under way is broken; a new model works."""
    faults = ServiceFaults(work=Fixed(9)).lose_model(form, of="optim_step")
    user, model, plan = struck(faults, caller, bodies)
    pending = json.loads(plan.body)
    assert [user.call("optim_step", bodies.optim_step(model, 2))[0] for _ in range(2)] == [status, status]
    assert user.poll(pending)[0] == 410
    assert model not in user.service.models
    other = user.model()
    assert user.call("optim_step", bodies.optim_step(other, 1))[0] == 200


@pytest.mark.parametrize(
    ("form", "beat", "create"),
    [("410", 410, 410), ("404", 404, 404), ("500", 500, 410), ("silent", 200, 200)],
)
def test_a_lost_session_takes_its_models_along(caller, bodies, form, beat, create) -> None:
    """Heartbeats are told, or not; models are not loaded any more."""
    user = caller(ScriptedService(ServiceFaults().lose_session(form, of="session_heartbeat")))
    session = user.session()
    model = user.model(session)
    assert user.call("session_heartbeat", {"session_id": session})[0] == beat
    assert user.call("optim_step", bodies.optim_step(model, 1))[0] == 400
    body = {"session_id": session, "model_seq_id": 1, "base_model": "m"}
    assert user.call("create_model", body)[0] == create


def test_a_rollback_is_silent(caller, bodies) -> None:
    """The model has its id and its numbers, and what is in it is what the latest checkpoint had."""
    service = ScriptedService(ServiceFaults().rollback(of="forward_backward", nth=3))
    user = caller(service)
    model = user.model()
    user.ok("forward_backward", bodies.forward_backward(model, 1, 1))
    user.ok("optim_step", bodies.optim_step(model, 2))
    user.ok("save_weights", {"model_id": model, "path": "a", "seq_id": 3})
    user.ok("forward_backward", bodies.forward_backward(model, 4, 4))
    user.ok("forward_backward", bodies.forward_backward(model, 5, 5))
    assert [one.seq_id for one in service.trained[model]] == [1, 2, 5]
    assert [one.fault.what for one in service.injected] == ["rollback"]
