from __future__ import annotations

from tinker_actors.wire.codec import decode
from tinker_actors.wire.future import RequestFailed, TryAgain
from tinker_actors.wire.service import ClientConfigResponse


def test_a_service_that_sets_nothing_gets_tinkers_limits() -> None:
    """An empty answer means the defaults of tinker 0.38.0, and no promise about repeated numbers."""
    limits = decode(ClientConfigResponse, b'{"proto_compress_fwdbwd":false}', strict=False)
    assert limits == ClientConfigResponse(
        fwdbwd_max_chunk_len=1024,
        fwdbwd_max_chunk_bytes_count=5_000_000,
        sample_max_concurrent_requests=2000,
        sequence_dedupe=None,
    )


def test_answers_to_a_poll_have_their_marks() -> None:
    """What tells them apart is there without being asked for."""
    assert TryAgain("r").type == "try_again"
    assert TryAgain("r").queue_state == "active"
    assert RequestFailed("no").category == "unknown"
