"""Handles: what is in them, and what is none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import InputError
from tinker_actors.protocol.sampler_handle import SamplerHandle, read_handle, write_handle


def packed(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@given(st.text(min_size=1), st.text(min_size=1), st.text(), st.text(), st.booleans())
def test_a_handle_is_read_as_it_was_written(
    session: str, sampling: str, model: str, url: str, record: bool
) -> None:
    """Whatever the names are."""
    handle = SamplerHandle(
        session_id=session,
        sampling_session_id=sampling,
        base_model=model,
        base_url=url,
        record_stability_info=record,
    )
    assert read_handle(write_handle(handle)) == handle


def test_handles_of_the_official_client_are_read() -> None:
    """They keep the URL elsewhere, and have more in them than is needed."""
    text = packed(
        {
            "session_id": "s",
            "sampling_session_id": "s:sample:0",
            "base_model": "m",
            "record_stability_info": True,
            "holder": {"base_url": "https://x", "client_config": {}},
        }
    )
    assert read_handle(text) == SamplerHandle(
        session_id="s",
        sampling_session_id="s:sample:0",
        base_model="m",
        base_url="https://x",
        record_stability_info=True,
    )
    bare = read_handle(packed({"session_id": "s", "sampling_session_id": "t"}))
    assert (bare.base_model, bare.base_url, bare.record_stability_info) == ("", "", False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (7, "must be a string"),
        ("no base64!", "no JSON"),
        ("é", "no JSON"),
        (base64.urlsafe_b64encode(b"{").decode(), "no JSON"),
        (packed([1]), "no object"),
        (packed({"session_id": "s"}), "no sampling_session_id"),
        (packed({"session_id": 3, "sampling_session_id": "t"}), "no session_id"),
    ],
)
def test_what_is_no_handle_is_refused(text: Any, why: str) -> None:
    """With the reason."""
    with pytest.raises(InputError, match=why) as caught:
        read_handle(text)
    assert caught.value.field == "handle"
