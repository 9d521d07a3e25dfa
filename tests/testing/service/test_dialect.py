"""The manners of services: repeated and early numbers, forms of failures, what is kept."""

from __future__ import annotations

import pytest

from tinker_actors.errors import InputError
from tinker_actors.protocol.capability import KNOWN
from tinker_actors.testing import ScriptedService, ServiceDialect, ServiceFaults
from tinker_actors.testing.service.dialect import DIALECTS


def steps(service, model):
    return sum(one.endpoint == "optim_step" for one in service.trained[model])


def test_replay_answers_a_repetition_with_the_first_promise(caller, bodies) -> None:
    """The work is done once; another body under a used number is refused."""
    service = ScriptedService(dialect=ServiceDialect(dedupe="replay"))
    user = caller(service)
    model = user.model()
    first = user.ok("optim_step", bodies.optim_step(model, 1))
    assert user.ok("optim_step", bodies.optim_step(model, 1)) == first
    assert user.poll(first)[1] == user.poll(first)[1]
    status, answer = user.call("optim_step", bodies.optim_step(model, 1) | {"adam_params": {}})
    assert (status, answer["detail"].partition(":")[0]) == (409, "sequence number was reused")
    assert steps(service, model) == 1


def test_reject_fails_a_repetition_by_its_promise(caller, bodies) -> None:
    """The promise says which number was expected; the work is done once, and a failed number is not used up."""
    service = ScriptedService(dialect=ServiceDialect.like("tuft"))
    user = caller(service)
    model = user.model()
    assert user.call("optim_step", bodies.optim_step(model, 1))[0] == 202
    status, answer = user.poll(user.ok("optim_step", bodies.optim_step(model, 1)))
    assert (status, answer) == (409, {"detail": "Sequence conflict: expected 2, got 1"})
    status, answer = user.poll(user.ok("optim_step", bodies.optim_step(model, 3)))
    assert (status, answer) == (409, {"detail": "Sequence conflict: expected 2, got 3"})
    user.ok("optim_step", bodies.optim_step(model, None))
    assert user.poll(user.ok("optim_step", bodies.optim_step(model, 2)))[0] == 200
    assert steps(service, model) == 3


def test_none_carries_a_repetition_out_again(caller, bodies) -> None:
    """The step is doubled, as it would be on such a service."""
    service = ScriptedService(dialect=ServiceDialect(dedupe="none", early_numbers="run"))
    user = caller(service)
    model = user.model()
    promises = [user.ok("optim_step", bodies.optim_step(model, 1)) for _ in range(2)]
    assert promises[0] != promises[1]
    assert steps(service, model) == 2


def test_creations_are_repeated_by_their_number(caller, bodies) -> None:
    """Where repetitions are known, models, sampling sessions and samples are made once; else again."""
    for dedupe, count in (("replay", 1), ("none", 2)):
        service = ScriptedService(dialect=ServiceDialect(dedupe=dedupe))
        user = caller(service)
        session = user.session()
        models = [user.model(session, 0) for _ in range(2)]
        assert len(set(models)) == len(service.models) == count
        body = {"session_id": session, "sampling_session_seq_id": 0, "base_model": "m"}
        opened = [user.ok("create_sampling_session", body)["sampling_session_id"] for _ in range(2)]
        sampler = opened[1]
        samples = [user.ok("asample", bodies.sample(sampler, 0))["request_id"] for _ in range(2)]
        assert len(set(samples)) == count


def test_a_parked_number_waits_for_its_turn(caller, bodies) -> None:
    """It has a promise at once; when the gap is filled, both are done, in order."""
    service = ScriptedService(dialect=ServiceDialect(early_numbers="park", hold=5))
    user = caller(service)
    model = user.model()
    early = user.ok("optim_step", bodies.optim_step(model, 2))
    assert user.poll(early)[0] == 408
    assert service.trained[model] == ()
    user.ok("forward_backward", bodies.forward_backward(model, 1, 5))
    assert user.poll(early)[0] == 200
    assert [one.seq_id for one in service.trained[model]] == [1, 2]


def test_an_early_number_is_refused_or_run(caller, bodies) -> None:
    """Refused by its promise it may come again in its turn; run, it is done in order of arrival."""
    service = ScriptedService(dialect=ServiceDialect(early_numbers="refuse"))
    user = caller(service)
    model = user.model()
    assert user.poll(user.ok("optim_step", bodies.optim_step(model, 2)))[0] == 409
    user.ok("forward_backward", bodies.forward_backward(model, 1, 5))
    user.ok("optim_step", bodies.optim_step(model, 2))
    assert [one.seq_id for one in service.trained[model]] == [1, 2]
    service = ScriptedService(dialect=ServiceDialect(early_numbers="run"))
    user = caller(service)
    model = user.model()
    user.ok("optim_step", bodies.optim_step(model, 2))
    user.ok("forward_backward", bodies.forward_backward(model, 1, 5))
    assert [one.seq_id for one in service.trained[model]] == [2, 1]


def test_results_may_be_consumed_on_first_read(caller, bodies) -> None:
    """The second read is told what an unknown promise is told."""
    user = caller(ScriptedService(dialect=ServiceDialect.like("opentinker")))
    model = user.model()
    promise = user.ok("forward_backward", bodies.forward_backward(model, 1, 5))
    assert "metrics" in user.poll(promise)[1]
    status, answer = user.poll(promise)
    assert (status, answer["category"]) == (200, "User")


@pytest.mark.parametrize(
    ("unknown", "status", "seconds"),
    [("404", 404, 0), ("410", 410, 0), ("error", 200, 0), ("try_again", 200, 60)],
)
def test_unknown_promises_are_told_so_or_put_off_for_ever(caller, unknown, status, seconds) -> None:
    """404, 410, an error object, or try_again after each hold."""
    dialect = ServiceDialect(unknown=unknown, hold=60, hold_status=200)
    user = caller(ScriptedService(dialect=dialect))
    for _ in range(2):
        before = user.now
        found, answer = user.poll({"request_id": "x"})
        assert (found, user.now - before) == (status, seconds)
    assert (answer.get("type") == "try_again") == (unknown == "try_again")


@pytest.mark.parametrize(
    ("form", "status", "shown"),
    [
        ("error", 200, {"error": "boom", "category": "server"}),
        ("400", 400, {"detail": "boom"}),
        ("status", 422, {"detail": "boom"}),
        ("RequestFailedResponse", 400, {"type": "RequestFailedResponse", "error_message": "boom"}),
        ("422", 422, {"detail": [{"type": "value_error", "loc": ["body"], "msg": "boom"}]}),
    ],
)
def test_a_failure_is_told_in_each_of_five_forms(caller, bodies, form, status, shown) -> None:
    """Nothing is trained, and the number is used up, but where a failed one is not."""
    service = ScriptedService(ServiceFaults().fail(form, text="boom", of="optim_step"))
    user = caller(service)
    model = user.model()
    assert user.poll(user.ok("optim_step", bodies.optim_step(model, 1))) == (status, shown)
    assert steps(service, model) == 0
    user.ok("optim_step", bodies.optim_step(model, 2))
    assert steps(service, model) == 1


def test_a_strict_service_refuses_fields_of_newer_clients(caller) -> None:
    """422 names the field; endpoints that it lacks are not found."""
    user = caller(ScriptedService(dialect=ServiceDialect.like("tuft")))
    body = {"session_id": user.session(), "model_seq_id": 0, "base_model": "m"}
    status, answer = user.call("create_model", body | {"optimizer_config": {"type": "adamw"}})
    assert (status, answer["detail"][0]["type"], answer["detail"][0]["loc"]) == (
        422,
        "extra_forbidden",
        ["body", "optimizer_config"],
    )
    assert user.call("client/dynamic_config", {"sdk_version": "1"})[0] == 404
    assert user.call("session_heartbeat", {"session_id": "x"})[0] == 500


def test_bodies_of_the_wrong_form_are_refused(caller, bodies) -> None:
    """A service that takes protobuf refuses JSON for training with 415, and the other way round."""
    user = caller(ScriptedService(dialect=ServiceDialect(bodies="protobuf")))
    model = user.model()
    assert user.call("forward_backward", bodies.forward_backward(model, 1, 5))[0] == 415
    user = caller(ScriptedService(dialect=ServiceDialect(bodies="json")))
    assert user.call("forward_backward", b"\x0a\x01x", content_type="application/x-protobuf")[0] == 415


def test_silent_sessions_are_lost_if_the_service_says_so(caller, bodies) -> None:
    """Who beat once and stopped loses his models, hears nothing of it, and finds out by the next request."""
    user = caller(ScriptedService(dialect=ServiceDialect(session_timeout=20)))
    session = user.session()
    model = user.model(session)
    user.now = 100
    assert user.call("optim_step", bodies.optim_step(model, 1))[0] == 200
    user.ok("session_heartbeat", {"session_id": session})
    user.now = 121
    assert user.call("session_heartbeat", {"session_id": session})[0] == 200
    assert user.call("optim_step", bodies.optim_step(model, 2))[0] == 400


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"dedupe": "some"}, "dedupe"),
        ({"early_numbers": "x"}, "early_numbers"),
        ({"bodies": "xml"}, "bodies"),
        ({"unknown": "403"}, "unknown"),
        ({"failures": "500"}, "failures"),
        ({"hold": -1}, "hold"),
        ({"cycle": -1}, "cycle"),
        ({"hold_status": 204}, "hold_status"),
    ],
)
def test_manners_that_no_service_has_are_refused(settings, field) -> None:
    """The error names the field."""
    with pytest.raises(InputError) as caught:
        ServiceDialect(**settings)
    assert caught.value.field == field


def test_only_services_that_were_measured_are_imitated() -> None:
    """Another name is refused, with those that there are."""
    with pytest.raises(InputError, match="opentinker"):
        ServiceDialect.like("closedtinker")


@pytest.mark.parametrize("name", DIALECTS)
def test_a_service_has_the_same_name_here_and_as_a_capability(name: str) -> None:
    """What clients take a known service to do with numbers and bodies is what its imitation does, or the worst."""
    record, dialect = KNOWN[name], ServiceDialect.like(name)
    assert record.dedupe in (dialect.dedupe, "none")
    assert record.early_numbers == dialect.early_numbers
    assert dialect.bodies in (record.training_body, "both")


@pytest.mark.parametrize(("forgets", "status"), [(False, 200), (True, 404)])
def test_unloading_may_take_checkpoints_along(caller, bodies, forgets: bool, status: int) -> None:
    """What was saved of other models stays either way."""
    user = caller(ScriptedService(dialect=ServiceDialect(unload_forgets=forgets)))
    models = [user.model(), user.model()]
    body = {"path": "one", "seq_id": 1}
    paths = [user.result("save_weights", {"model_id": model, **body})["path"] for model in models]
    user.ok("unload_model", {"model_id": models[0]})
    assert [user.call("weights_info", {"tinker_path": path})[0] for path in paths] == [status, 200]
