from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinker_actors.local.draw import choose, keep_top, uniforms

LOGPROBS = np.log(np.array([0.5, 0.05, 0.25, 0.2], np.float32))


def draw(count: int, temperature: float = 1.0, top_k: int = -1, top_p: float = 1.0) -> np.ndarray:
    """Shares of the four tokens among `count` draws with a fixed seed."""
    chosen = choose(
        np.repeat(LOGPROBS[None], count, axis=0),
        np.full(count, temperature),
        np.full(count, top_k),
        np.full(count, top_p),
        uniforms(7, 0, count),
    )
    return np.bincount(chosen, minlength=4) / count


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, [0.5, 0.05, 0.25, 0.2]),
        ({"temperature": 0.5}, [0.25 / 0.355, 0.0025 / 0.355, 0.0625 / 0.355, 0.04 / 0.355]),
        ({"top_k": 2}, [2 / 3, 0, 1 / 3, 0]),
        ({"top_p": 0.75}, [2 / 3, 0, 1 / 3, 0]),
        ({"top_p": 0.76}, [0.5 / 0.95, 0, 0.25 / 0.95, 0.2 / 0.95]),
        ({"top_k": 3, "top_p": 0.7}, [2 / 3, 0, 1 / 3, 0]),  # of the three that top-k leaves, 0.7 * 0.95
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_k": 1000}, [0.5, 0.05, 0.25, 0.2]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"temperature": 1e-300}, [1, 0, 0, 0]),
    ],
)
def test_frequencies(settings: dict[str, float], shares: list[float]) -> None:
    """Temperature, top-k and top-p give the shares they should, within five standard errors of 20,000 draws."""
    found = draw(20_000, **settings)  # type: ignore[arg-type]  # one table for three settings
    error = np.sqrt(np.array(shares) * (1 - np.array(shares)) / 20_000)
    assert (np.abs(found - shares) <= 5 * error + 1e-7).all(), found


def test_ties_go_to_the_lowest_id() -> None:
    """Greedy, top-k and top-p never depend on how a sort happens to break ties."""
    flat = np.zeros((1, 5), np.float32)
    for temperature, top_k, top_p in ((0.0, -1, 1.0), (1.0, 1, 1.0), (1.0, -1, 0.1)):
        chosen = choose(flat, np.array([temperature]), np.array([top_k]), np.array([top_p]), np.array([0.99]))
        assert chosen.tolist() == [0]


def test_rows_follow_their_own_rules() -> None:
    """Greedy, filtered and plain rows in one call give what they give alone."""
    random = np.random.default_rng(0)
    logprobs = np.log(random.dirichlet(np.ones(50), 12).astype(np.float32))
    temperature = np.tile([0.0, 0.7, 1.0, 1.3], 3)
    top_k, top_p = np.tile([-1, 5, -1], 4), np.repeat([1.0, 0.8, 0.3], 4)
    uniform = random.random(12)
    together = choose(logprobs, temperature, top_k, top_p, uniform)
    alone = [
        choose(logprobs[[row]], temperature[[row]], top_k[[row]], top_p[[row]], uniform[[row]])[0]
        for row in range(12)
    ]
    assert together.tolist() == alone


@given(
    arrays(np.float64, 9, elements=st.sampled_from([0.0, 1e-300, 0.1, 1.0, 3.0])),
    st.floats(0, 1, exclude_max=True),
)
def test_a_token_without_a_share_is_never_drawn(shares: np.ndarray, uniform: float) -> None:
    """Neither the ends of the cumulative sum nor rounding let an impossible token through."""
    if not shares.any():
        return
    with np.errstate(divide="ignore"):
        logprobs = np.log(shares)[None]
    chosen = choose(logprobs, np.ones(1), np.array([-1]), np.ones(1), np.array([uniform]))
    assert shares[chosen[0]] > 0


def test_the_largest_uniform_draws_the_last_possible_token() -> None:
    """Just below 1 the draw stays inside the vocabulary."""
    shares = np.array([[0.1, 0.7, 0.1, 0.1, 0.0]])
    with np.errstate(divide="ignore"):
        chosen = choose(
            np.log(shares), np.ones(1), np.array([-1]), np.ones(1), np.array([np.nextafter(1, 0)])
        )
    assert chosen.tolist() == [3]


def test_keep_top_leaves_at_least_one_token() -> None:
    """However small top-p is."""
    kept = keep_top(np.array([[0.2, 0.5, 0.3]]), np.array([-1]), np.array([1e-12]))
    assert kept.tolist() == [[0.0, 0.5, 0.0]]


def test_top_p_stops_as_soon_as_its_share_is_reached() -> None:
    """A token more than the shortest sufficient run is left out, even on equality."""
    kept = keep_top(np.array([[0.25, 0.5, 0.25]]), np.array([-1]), np.array([0.75]))
    assert kept.tolist() == [[0.25, 0.5, 0.0]]


def test_uniforms_depend_on_seed_and_sample_alone() -> None:
    """More numbers of a sample begin with the same ones; other samples and seeds have others."""
    assert uniforms(5, 2, 10)[:4].tolist() == uniforms(5, 2, 4).tolist()
    assert len({uniforms(seed, sample, 1)[0] for seed in range(20) for sample in range(20)}) == 400
