"""A key that never changes."""

from __future__ import annotations

from tinker_actors.transport.authority import KeyOnly


async def test_a_key_that_is_what_it_is_is_not_renewed() -> None:
    """It says who we are, and there is no other."""
    key = KeyOnly("tml-key")
    key.learn(exchange=True)
    assert await key.headers() == key.ready == key.latest == {"x-api-key": "tml-key"}
    assert await key.rejected(key.latest) is False
    assert KeyOnly(None).latest == {}
