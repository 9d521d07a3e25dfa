from __future__ import annotations

import attrs
import pytest

from tests.wire.refusals import refusal
from tinker_actors.wire.codec import decode
from tinker_actors.wire.service import (
    AuthTokenResponse,
    ClientConfigResponse,
    ClientDynamicConfigResponse,
    WhoamiResponse,
)

# tinker 0.38.0 types/client_config_response.py; the last three are ours
FLAGS = {
    "pjwt_auth_enabled": False,
    "credential_default_source": "api_key",
    "sample_dispatch_bytes_semaphore_size": 10485760,
    "inflight_response_bytes_semaphore_size": 52428800,
    "parallel_fwdbwd_chunks": True,
    "proto_compress_fwdbwd": False,
    "fwdbwd_max_chunk_len": 1024,
    "fwdbwd_max_chunk_bytes_count": 5_000_000,
    "fwdbwd_dispatch_bytes_semaphore_size": 50_000_000,
    "billing_exception_max_pause_duration_sec": 3600,
    "sample_no_retries": False,
    "sample_enable_stuck_detection": True,
    "sample_max_concurrent_requests": 2000,
    "use_pyqwest_transport": True,
    "sample_use_retrieve_futures": False,
    "custom_loss_server_side": False,
    "sample_join_sampling_session": False,
    "sequence_dedupe": None,
    "training_body": None,
    "newer_fields": None,
    "early_numbers": None,
    "restart_ends_models": None,
    "session_timeout": None,
}


def test_a_service_that_sets_nothing_gets_tinkers_flags() -> None:
    """An empty answer means the defaults of tinker 0.38.0, and says nothing of our extensions."""
    assert attrs.asdict(decode(ClientConfigResponse, b"{}", strict=True)) == FLAGS
    changing = decode(ClientDynamicConfigResponse, b"{}", strict=True)
    assert attrs.asdict(changing) == {
        "refresh_interval_sec": 300,
        "sample_cancel_enabled": False,
        "sample_cancel_max_batch_size": 64,
    }


@pytest.mark.requirement("R94")
def test_flags_that_nobody_knows_are_ignored() -> None:
    """A newer service does not break an older client."""
    body = b'{"fwdbwd_max_chunk_len":7,"quantum":true}'
    assert decode(ClientConfigResponse, body, strict=False).fwdbwd_max_chunk_len == 7


def test_a_token_says_who_one_is() -> None:
    """The user, the organization and, if it is there, the address."""
    claims = {"sub": "u", "org_id": "o", "email": "e", "exp": 1}
    assert WhoamiResponse.from_claims(claims) == WhoamiResponse(
        user_urn="u", org_urn="tml:organization:o", email="e"
    )
    assert WhoamiResponse.from_claims({"sub": "u", "org_id": "o"}).email is None


@pytest.mark.parametrize("name", ["sub", "org_id"])
def test_a_token_that_does_not_say_it_is_refused(name: str) -> None:
    """By the claim that is missing."""
    claims = {"sub": "u", "org_id": "o"}
    del claims[name]
    assert refusal(WhoamiResponse.from_claims, claims) == (f"claims['{name}']", None)


def test_a_token_is_not_shown() -> None:
    """Neither in a log nor in an error."""
    assert "eyJ" not in repr(AuthTokenResponse("eyJ.secret"))
