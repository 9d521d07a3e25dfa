from __future__ import annotations

import numpy as np

from tinker_actors.wire.sampling import SampledSequence, SamplingParams


def test_the_defaults_of_sampling_are_tinkers() -> None:
    """The values of tinker 0.38.0: no limit, no seed, temperature 1, everything else off."""
    assert SamplingParams() == SamplingParams(
        max_tokens=None, seed=None, stop=None, temperature=1.0, top_k=-1, top_p=1.0
    )


def test_a_sequence_gives_its_numbers_as_plain_lists() -> None:
    """Integers and floats of Python's own, whatever the arrays hold."""
    sequence = SampledSequence("stop", np.array([3, 4], np.int32), np.array([-0.5, -1.5], np.float32))
    assert sequence.tokens == [3, 4]
    assert sequence.logprobs == [-0.5, -1.5]
    assert [type(value) for value in (*sequence.tokens, *(sequence.logprobs or ()))] == [
        int,
        int,
        float,
        float,
    ]
    assert SampledSequence("length", np.array([3], np.int32)).logprobs is None


def test_sequences_are_compared_by_their_values() -> None:
    """Arrays are compared as a whole; without log probabilities is not with them."""
    one = SampledSequence("stop", np.array([3], np.int32), np.array([-0.5], np.float32))
    assert one == SampledSequence("stop", np.array([3], np.int32), np.array([-0.5], np.float32))
    assert one != SampledSequence("stop", np.array([4], np.int32), np.array([-0.5], np.float32))
    assert one != SampledSequence("stop", np.array([3], np.int32))
    assert one != SampledSequence("length", np.array([3], np.int32), np.array([-0.5], np.float32))
