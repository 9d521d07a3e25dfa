from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from tinker_actors.errors import InputError
from tinker_actors.kernel import Backoff, ChildSpec, PoolSpec, RestartPolicy
from tinker_actors.kernel.bound import at_least, check_count, within


@attrs.frozen
class Settings:
    count: int = attrs.field(default=1, validator=at_least(1))
    share: float = attrs.field(default=0.5, validator=within(0.0, 1.0))
    seconds: float = attrs.field(default=1.0, validator=within(0.0))


@pytest.mark.parametrize("value", [0, -1, 1.0, math.inf, True, "1", None])
def test_a_count_is_a_whole_number(value: Any) -> None:
    """Counts refuse what is too small, infinite, or no whole number, and name the field and the value."""
    with pytest.raises(InputError) as caught:
        check_count("capacity", value, 1)
    assert caught.value.field == "capacity"
    assert caught.value.value is value
    with pytest.raises(InputError, match="count = "):
        Settings(count=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_a_share_lies_within_its_bounds(value: float) -> None:
    """Numbers out of their bounds are refused, and so is NaN."""
    with pytest.raises(InputError, match="share = "):
        Settings(share=value)


def test_what_is_in_bounds_passes() -> None:
    """The bounds themselves are allowed, and a duration may be without end."""
    assert Settings(count=1, share=0.0, seconds=math.inf) == Settings(1, 0.0, math.inf)
    assert Settings(share=1.0).share == 1.0


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Backoff, "base", -1.0),
        (Backoff, "maximum", math.nan),
        (Backoff, "jitter", 1.5),
        (RestartPolicy, "max_restarts", -1),
        (RestartPolicy, "period", -1.0),
        (RestartPolicy, "reset_after", math.nan),
        (ChildSpec, "capacity", 0),
        (ChildSpec, "capacity", math.inf),
        (ChildSpec, "concurrency", 0),
        (ChildSpec, "start_timeout", -1.0),
        (ChildSpec, "stop_timeout", math.nan),
        (ChildSpec, "cleanup_timeout", -0.5),
        (PoolSpec, "workers", 0),
        (PoolSpec, "concurrency", 0),
        (PoolSpec, "capacity", 0),
    ],
)
def test_wrong_settings_are_refused_where_they_are_written(kind: Any, field: str, value: object) -> None:
    """Every setting of the kernel that is a number has its bounds, and the error names it."""
    needed: dict[Any, dict[str, Any]] = {
        ChildSpec: {"name": "a", "factory": object},
        PoolSpec: {"name": "a", "workers": 1},
    }
    with pytest.raises(InputError) as caught:
        kind(**{**needed.get(kind, {}), field: value})
    assert caught.value.field == field
