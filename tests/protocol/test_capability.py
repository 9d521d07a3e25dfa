"""What is known of services, and how it is corrected."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import ConfigError
from tinker_actors.protocol.capability import (
    KNOWN,
    TINKER_SERVICE,
    CapabilityRecord,
    body_refused,
    form_refused,
    learn_flags,
    record_for,
)
from tinker_actors.wire.codec import decode
from tinker_actors.wire.service import ClientConfigResponse

#                  dedupe, early numbers, training body, compression, newer fields, patience
TABLE = {
    "tinker": ("none", "park", "protobuf", False, True, None),
    "tinker_actors": ("replay", "park", "json", False, True, None),
    "skyrl-0.3.0": ("none", "run", "json", False, False, None),
    "skyrl": ("replay", "run", "protobuf", True, False, None),
    "tuft": ("reject", "refuse", "protobuf", True, False, None),
    "open-rl": ("none", "run", "json", False, False, 3600.0),
    "opentinker": ("none", "run", "json", False, False, None),
    "twinkle": ("none", "run", "json", False, False, 3600.0),
}
bodies = st.sampled_from(["json", "protobuf"])
dedupes = st.sampled_from(["replay", "reject", "none"])
flags = st.builds(
    ClientConfigResponse,
    sequence_dedupe=st.none() | dedupes,
    training_body=st.none() | bodies,
    newer_fields=st.none() | st.booleans(),
    early_numbers=st.none() | st.sampled_from(["park", "refuse", "run"]),
    restart_ends_models=st.none() | st.booleans(),
    session_timeout=st.none() | st.floats(-10.0, 1000.0),
    proto_compress_fwdbwd=st.booleans(),
)


def test_the_services_that_were_looked_at() -> None:
    """As they were measured; each under its own name."""
    seen = {
        name: (
            record.dedupe,
            record.early_numbers,
            record.training_body,
            record.compression,
            record.newer_fields,
            record.patience,
        )
        for name, record in KNOWN.items()
    }
    assert seen == TABLE
    assert all(record.service == name and record.source == "known" for name, record in KNOWN.items())
    assert [name for name, record in KNOWN.items() if record.unload_forgets] == ["tuft"]


def test_what_is_not_known_is_assumed_at_its_worst() -> None:
    """Repeats are carried out again, bodies are JSON, newer fields are refused."""
    record = record_for("http://somewhere:8000")
    assert record == CapabilityRecord()
    assert attrs.asdict(record) == {
        "service": "unknown",
        "dedupe": "none",
        "early_numbers": "run",
        "training_body": "json",
        "compression": False,
        "newer_fields": False,
        "restart_ends_models": False,
        "creates_by_loading": False,
        "unload_forgets": False,
        "patience": None,
        "session_timeout": None,
        "noise": 0.0,
        "source": "assumed",
        "fixed": frozenset(),
    }


@pytest.mark.parametrize(
    ("url", "service"),
    [
        (TINKER_SERVICE, "tinker"),
        ("https://TINKER.thinkingmachines.dev/services/tinker-staging", "tinker"),
        ("https://thinkingmachines.dev", "tinker"),
        ("https://notthinkingmachines.dev", "unknown"),
        ("https://thinkingmachines.dev.example.com", "unknown"),
        ("http://localhost:8000/thinkingmachines.dev", "unknown"),
        ("", "unknown"),
    ],
)
def test_tinker_is_known_by_its_host(url: str, service: str) -> None:
    """Whatever stands behind it in the URL; nobody else is known by a URL."""
    assert record_for(url).service == service


def test_the_user_may_say_which_service_it_is_or_what_it_can_do() -> None:
    """A name takes the table's row; a record stands as it is, whatever the service says."""
    assert record_for("http://a", capability="tuft") == KNOWN["tuft"]
    own = CapabilityRecord(service="mine", dedupe="replay")
    record = record_for(TINKER_SERVICE, capability=own)
    assert (record.service, record.dedupe, record.source) == ("mine", "replay", "set")
    said = ClientConfigResponse(
        sequence_dedupe="none",
        early_numbers="park",
        training_body="protobuf",
        newer_fields=True,
        proto_compress_fwdbwd=True,
    )
    assert learn_flags(record, said) is record
    assert body_refused(record, record.training_body) is None


def test_a_service_that_nobody_knows_is_refused() -> None:
    """With the names there are."""
    with pytest.raises(
        ConfigError, match=r"capability = 'skyrlll': must be a record or one of tinker, .*tuft"
    ):
        record_for("http://a", capability="skyrlll")


@given(
    flags,
    st.none() | dedupes,
    st.none() | bodies,
    st.none() | st.just(60.0),
    st.none() | st.sampled_from(sorted(KNOWN)),
)
def test_the_user_wins_over_the_service_and_the_service_over_the_table(
    said: ClientConfigResponse, dedupe: Any, training_body: Any, timeout: float | None, name: str | None
) -> None:
    """Each value comes from who knows best."""
    first = record_for("http://a", capability=name)
    record = learn_flags(
        record_for(
            "http://a",
            capability=name,
            dedupe=dedupe,
            training_body=training_body,
            session_timeout=timeout,
            noise=0.01,
        ),
        said,
    )
    assert record.noise == 0.01
    assert record.session_timeout == (
        timeout or (said.session_timeout if said.session_timeout and said.session_timeout > 0 else None)
    )
    assert record.dedupe == (dedupe or said.sequence_dedupe or first.dedupe)
    assert record.training_body == (training_body or said.training_body or first.training_body)
    assert record.newer_fields == (first.newer_fields if said.newer_fields is None else said.newer_fields)
    assert record.compression == (first.compression or said.proto_compress_fwdbwd)
    assert record.early_numbers == (said.early_numbers or first.early_numbers)
    ends = said.restart_ends_models
    assert record.restart_ends_models == (first.restart_ends_models if ends is None else ends)


def test_a_service_that_says_something_is_known() -> None:
    """And one that says nothing is as it was."""
    assert learn_flags(CapabilityRecord(), ClientConfigResponse()) == CapabilityRecord()
    assert learn_flags(CapabilityRecord(), ClientConfigResponse(sequence_dedupe="none")).source == "known"


@pytest.mark.parametrize(("first", "other"), [("json", "protobuf"), ("protobuf", "json")])
def test_a_form_that_is_refused_gives_way_to_the_other_once(first: Any, other: Any) -> None:
    """415 teaches which form it is; refused again, or set by the user, it is an error."""
    learned = body_refused(CapabilityRecord(training_body=first), first)
    assert learned is not None
    assert (learned.training_body, learned.source) == (other, "probed")
    assert body_refused(learned, other) is None
    assert learn_flags(learned, ClientConfigResponse(training_body=first)) is learned
    assert body_refused(record_for("http://a", training_body=first), first) is None


def test_requests_that_were_under_way_go_by_what_another_has_learned() -> None:
    """Several went out in the form that is refused; the first answer teaches it to all of them."""
    learned = body_refused(CapabilityRecord(), "json")
    assert learned is not None
    assert body_refused(learned, "json") is learned


@pytest.mark.parametrize("status", [404, 405, 415, 422])
def test_a_guess_that_is_refused_is_none(status: int) -> None:
    """A service without `/forward` is taken for one that wants protobuf only if it then takes that."""
    assert form_refused(status)
    assert not form_refused(200)
    assert not form_refused(400)
    assert not form_refused(503)


def test_words_that_are_not_known_say_nothing() -> None:
    """A newer service may have a fourth way to treat numbers; it is opened all the same, and nothing is assumed."""
    answer = (
        b'{"sequence_dedupe": "merge", "training_body": "xml", "early_numbers": "sort", "newer_fields": true}'
    )
    flags = decode(ClientConfigResponse, answer, strict=False)
    record = record_for("http://elsewhere")
    assert learn_flags(record, flags) == attrs.evolve(record, newer_fields=True, source="known")


def test_only_tinkers_own_service_is_known_to_make_models_of_states_in_one_request() -> None:
    """All others are asked what a state was made of."""
    assert [name for name, record in KNOWN.items() if record.creates_by_loading] == ["tinker"]
