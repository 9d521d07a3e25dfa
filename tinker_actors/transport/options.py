"""What one call may have of its own, in place of what its endpoint and the configuration say."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

__all__ = ["RequestOptions"]


@attrs.frozen(kw_only=True)
class RequestOptions:
    """Settings of one call; None leaves it as it is.

    Attributes:
        headers: more headers; they replace those of the same name.
        query: more parameters of the query, likewise.
        timeout: seconds for the whole exchange.
        max_retries: how many further attempts there may be.
        idempotency_key: the key that all attempts carry.
    """

    headers: Mapping[str, str] | None = None
    query: Mapping[str, object] | None = None
    timeout: float | None = None
    max_retries: int | None = None
    idempotency_key: str | None = None
