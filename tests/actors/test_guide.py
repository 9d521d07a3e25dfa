"""What a wrong guess at a client is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import tinker_actors as ta

MODEL = "tinker-actors/char-100k"


def test_a_client_made_by_hand_says_how_it_is_made() -> None:
    """Tinker's clients are made by their constructors, so that is the first guess."""
    makers: list[tuple[Any, dict[str, Any], str]] = [
        (ta.ServiceClient, {}, "open_service"),
        (ta.ServiceClient, {"base_url": "https://t.example", "api_key": "tml-x"}, "open_service"),
        (ta.TrainingClient, {"model_id": "m"}, "create_lora_training_client"),
        (ta.SamplingClient, {"model_path": "tinker://a/weights/b"}, "create_sampling_client"),
        (ta.RestClient, {"api_key": "tml-x"}, "open_rest_client"),
        (ta.AdminClient, {}, "open_admin_client"),
    ]
    for kind, arguments, told in makers:
        with pytest.raises(TypeError, match=rf"{kind.__name__} is not made by hand: .*{told}\(\.\.\.\)"):
            kind(**arguments)
    with pytest.raises(TypeError, match="open_service"):
        ta.ServiceClient({"a": "b"}, "project")  # type: ignore[call-arg, arg-type]


async def test_names_of_other_clients_are_told_with_the_client(autojump_clock: Any, open_stub: Any) -> None:
    """And a name that no client has is as unknown as anywhere."""
    async with open_stub() as service:
        training = await service.create_lora_training_client(MODEL)
        sampling = await service.create_sampling_client(base_model=MODEL)
        for client, name, told in (
            (service, "list_training_runs", "use 'rest.list_training_runs'"),
            (service, "list_user_checkpoints_async", "use 'rest.list_user_checkpoints'"),
            (service, "get_audit_log", "use 'admin.get_audit_log'"),
            (service.rest, "get_billing_usage", "use 'service.admin.get_billing_usage'"),
            (service.rest, "get_sampler_async", "use 'get_sampler'"),
            (training, "optim_step_async", "use 'optim_step'"),
            (sampling, "sample_async", "use 'sample'"),
            (service.admin, "get_audit_log_async", "use 'get_audit_log'"),
            (training, "nothing", "'TrainingClient' object has no attribute 'nothing'"),
        ):
            with pytest.raises(AttributeError, match=told):
                getattr(client, name)
        assert copy.copy(sampling) is sampling
