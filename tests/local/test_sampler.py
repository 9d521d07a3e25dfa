from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import attrs
import numpy as np
import pytest

from tinker_actors.errors import InputError
from tinker_actors.local.adam import AdamParams
from tinker_actors.local.example import Example
from tinker_actors.local.lora import LoraConfig, LoraWeights
from tinker_actors.local.model import BaseModel, load_base_model
from tinker_actors.local.sample import SampledSequence, SampleJob, SampleResult
from tinker_actors.local.sampler import Decoder
from tinker_actors.local.trainer import LoraModel

BASE = load_base_model("tinker-actors/char-100k")


def encode(text: str) -> np.ndarray:
    return np.array(BASE.tokenizer.encode(text).ids)


def decode(tokens: Sequence[int]) -> str:
    return str(BASE.tokenizer.decode(list(tokens), skip_special_tokens=False))


def sample(
    *jobs: SampleJob, lora: LoraWeights | None = None, max_rows: int = 128
) -> dict[object, SampleResult]:
    """Run jobs together to their end."""
    decoder = Decoder(BASE, lora, max_rows)
    for job in jobs:
        decoder.submit(job)
    results = {}
    while not decoder.idle:
        for result in decoder.step():
            results[result.id] = result
    return results


def one(prompt: str, **settings: object) -> SampledSequence:
    """The only sample of a prompt."""
    job = SampleJob(0, encode(prompt), **settings)  # type: ignore[arg-type]  # one helper for settings of several types
    return sample(job)[0].sequences[0]


def bits(result: SampleResult) -> list[tuple[list[int], bytes, str]]:
    return [(each.tokens, each.logprobs.tobytes(), each.stop_reason) for each in result.sequences]


def random_job(seed: int, index: int) -> SampleJob:
    """A job of any kind, shorter ones and longer ones."""
    random = np.random.default_rng([seed, index])
    return SampleJob(
        index,
        random.integers(3, 100, random.integers(1, 60)),
        num_samples=int(random.integers(1, 3)),
        max_tokens=int(random.integers(1, 24)),
        temperature=float(random.choice([0.0, 0.7, 1.0])),
        top_k=int(random.choice([-1, 20])),
        top_p=float(random.choice([1.0, 0.9])),
        stop=[None, [], ["\n"], [30]][random.integers(4)],
        seed=int(random.integers(1000)),
        prompt_logprobs=bool(random.integers(2)),
    )


@pytest.mark.parametrize("others", range(1, 32))
def test_the_same_bits_alone_and_beside_others(others: int) -> None:
    """A job's tokens and log-probabilities do not depend on who shares the decoder, nor on when they come and go."""
    job = SampleJob(
        "job",
        encode("copy: between>"),
        num_samples=2,
        max_tokens=20,
        stop=[],
        seed=others,
        prompt_logprobs=True,
    )
    alone = sample(job)["job"]
    decoder = Decoder(BASE, None, max_rows=24)  # fewer rows than samples: some wait, some start in mid-run
    crowd = [random_job(others, index) for index in range(others)]
    for each in (*crowd[: others // 2], job, *crowd[others // 2 :]):
        decoder.submit(each)
    found: list[SampleResult] = []
    while not found:
        found = [result for result in decoder.step() if result.id == "job"]
    assert bits(found[0]) == bits(alone)
    assert found[0].prompt_logprobs is not None
    assert alone.prompt_logprobs is not None
    assert found[0].prompt_logprobs.tobytes() == alone.prompt_logprobs.tobytes()


def test_samples_do_not_depend_on_how_many_are_asked_for() -> None:
    """Sample i is the same among 3 and among 40, in one row at a time and in many."""
    jobs = [SampleJob(0, encode("word: "), num_samples=n, max_tokens=12, seed=3) for n in (3, 40)]
    few, many = (bits(sample(job)[0]) for job in jobs)
    narrow = bits(sample(jobs[1], max_rows=1)[0])
    assert many == narrow
    assert many[:3] == few
    assert len({tuple(tokens) for tokens, _, _ in many}) > 20


def test_seeds_decide() -> None:
    """The same seed draws the same, another seed something else."""
    first, again, other = (one("word: ", max_tokens=12, seed=seed).tokens for seed in (1, 1, 2))
    assert first == again != other


def trained() -> LoraModel:
    model = LoraModel(BASE, LoraConfig(rank=8, seed=1))
    tokens = encode("12+7=banana\n")
    data = [
        Example(tokens[:-1], {"target_tokens": tokens[1:], "weights": np.ones(tokens.size - 1, np.float32)})
    ]
    for _ in range(30):
        list(model.forward_backward(data, "cross_entropy"))
        model.optim_step(AdamParams(learning_rate=1e-2))
    return model


def test_an_adapter_is_sampled_with() -> None:
    """What training taught shows in samples of its snapshot, and not in those of the base model."""
    lora = trained().snapshot()
    job = SampleJob(0, encode("12+7="), max_tokens=10, temperature=0, stop=["\n"])
    assert decode(sample(job, lora=lora)[0].sequences[0].tokens) == "banana\n"
    assert decode(sample(job)[0].sequences[0].tokens) != "banana\n"


def learner_logprobs(model: LoraModel, prompt: np.ndarray, sequence: SampledSequence) -> np.ndarray:
    """What a training forward says of a sample's tokens."""
    tokens = np.concatenate([prompt, sequence.tokens])
    inputs = {"target_tokens": tokens[1:], "weights": np.zeros(tokens.size - 1, np.float32)}
    slices = model.forward_backward([Example(tokens[:-1], inputs)], "cross_entropy", backward=False)
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return np.asarray(end.value.outputs[0]["logprobs"][prompt.size - 1 :])


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}, {"temperature": 0.0}], ids=str
)
def test_logprobs_are_those_of_the_learner(settings: dict[str, float]) -> None:
    """However a token was drawn, its log-probability is the model's own: the importance ratio starts at 1."""
    model = trained()
    for prompt in ("12+7=", "rev: stone>", "copy: " + "abcdefghij" * 9 + ">"):
        job = SampleJob(0, encode(prompt), max_tokens=24, stop=[], seed=5, **settings)  # type: ignore[arg-type]  # a table row
        sequence = sample(job, lora=model.snapshot())[0].sequences[0]
        wanted = learner_logprobs(model, encode(prompt), sequence)
        np.testing.assert_allclose(sequence.logprobs, wanted, atol=1e-5 * (1 + np.abs(wanted).max()))


def test_prompt_logprobs_are_those_of_the_learner() -> None:
    """NaN at the first token, then what a training forward gives; asked for, the likeliest tokens as well."""
    prompt = encode("upper: stone>STONE")
    job = SampleJob(0, prompt, max_tokens=1, prompt_logprobs=True, topk_prompt_logprobs=3)
    result = sample(job)[0]
    assert result.prompt_logprobs is not None
    assert np.isnan(result.prompt_logprobs[0])
    rest = SampledSequence(prompt[1:].tolist(), np.empty(0, np.float32), "length")
    wanted = learner_logprobs(LoraModel(BASE, LoraConfig(rank=8)), prompt[:1], rest)
    np.testing.assert_allclose(result.prompt_logprobs[1:], wanted, atol=1e-5)
    assert result.topk_prompt_logprobs is not None
    ids, logprobs = result.topk_prompt_logprobs
    assert (ids.shape, ids.dtype, logprobs.dtype) == ((18, 3), np.int32, np.float32)
    assert ids[0].tolist() == [0, 0, 0]
    assert logprobs[0].tolist() == [-99999.0] * 3
    assert decode(ids[13:, 0].tolist()) == "STONE"
    np.testing.assert_array_equal(logprobs[13:, 0], result.prompt_logprobs[13:])
    assert (np.diff(logprobs[1:], axis=1) <= 0).all()


def test_topk_beyond_the_vocabulary_is_filled_with_empty_cells() -> None:
    """Tinker's empty cell stands where there is no further token, and prompt_logprobs stay None if not asked for."""
    result = sample(SampleJob(0, encode("ab"), max_tokens=1, topk_prompt_logprobs=102))[0]
    assert result.prompt_logprobs is None
    assert result.topk_prompt_logprobs is not None
    ids, logprobs = result.topk_prompt_logprobs
    assert sorted(ids[1, :100].tolist()) == list(range(100))
    assert (ids[1, 100:].tolist(), logprobs[1, 100:].tolist()) == ([0, 0], [-99999.0] * 2)


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        (None, "stone\n\u2404", "stop"),  # the end token, by default
        (["\n"], "stone\n", "stop"),
        (["on"], "ston", "stop"),
        (["xyz", "ne\n"], "stone\n", "stop"),
        (["e", "\n"], "stone", "stop"),
        ([int(encode("o")[0])], "sto", "stop"),
        ([1], "stone\n\u2404", "stop"),
    ],
)
def test_stop(stop: list[str] | list[int] | None, text: str, reason: str) -> None:
    """What stops is part of the sample: a string in the generated text, a token, or the end token by default."""
    sequence = one("copy: stone>", temperature=0, max_tokens=20, stop=stop)
    assert (decode(sequence.tokens), sequence.stop_reason) == (text, reason)
    assert len(sequence.logprobs) == len(sequence.tokens)


def test_an_empty_stop_list_stops_at_nothing() -> None:
    """Not even the end token."""
    sequence = one("copy: stone>", temperature=0, max_tokens=20, stop=[])
    assert decode(sequence.tokens).startswith("stone\n\u2404")
    assert (len(sequence.tokens), sequence.stop_reason) == (20, "length")


def test_an_explicit_list_replaces_the_end_token() -> None:
    """With a list, the end token stops only if it is in it."""
    sequence = one("copy: stone>", temperature=0, max_tokens=12, stop=["@@"])
    assert (len(sequence.tokens), sequence.stop_reason) == (12, "length")


def test_stop_wins_over_length() -> None:
    """A sample whose last allowed token stops it has stopped."""
    assert one("copy: stone>", temperature=0, max_tokens=6, stop=["\n"]).stop_reason == "stop"
    assert one("copy: stone>", temperature=0, max_tokens=5, stop=["\n"]).stop_reason == "length"


def test_the_prompt_is_not_searched_for_stops() -> None:
    """A stop string that begins in the prompt does not count."""
    assert decode(one("copy: stone>", temperature=0, max_tokens=20, stop=[">s", "ne"]).tokens) == "stone"


def test_without_max_tokens_a_sample_may_fill_the_context() -> None:
    """Prompt and sample together have as many tokens as the context, and no more."""
    sequence = one("copy: stone>", stop=[])
    assert (len(sequence.tokens), sequence.stop_reason) == (128 - 12, "length")


def test_sampled_frequencies_follow_the_model() -> None:
    """The first tokens of 2,000 samples occur as often as the model says, within five standard errors."""
    first = [each.tokens[0] for each in sample(SampleJob(0, encode("word: "), 2000, 1, seed=11))[0].sequences]
    greedy = sample(SampleJob(0, encode("word: a"), 1, 1, topk_prompt_logprobs=100))[0].topk_prompt_logprobs
    assert greedy is not None
    shares = np.zeros(100)
    shares[greedy[0][-1]] = np.exp(greedy[1][-1].astype(np.float64))
    found = np.bincount(first, minlength=100) / 2000
    assert (np.abs(found - shares) <= 5 * np.sqrt(shares * (1 - shares) / 2000) + 1e-3).all()


def test_top_k_one_is_greedy() -> None:
    """At any temperature."""
    greedy = one("rev: stone>", temperature=0, max_tokens=8).tokens
    assert one("rev: stone>", temperature=1.5, top_k=1, max_tokens=8).tokens == greedy
    assert one("rev: stone>", temperature=1.5, top_p=1e-6, max_tokens=8).tokens == greedy


@pytest.mark.parametrize("when", ["waiting", "starting", "running"])
def test_cancel_takes_a_job_out_wherever_it_is(when: str) -> None:
    """A cancelled job never reports, frees its rows, and changes nothing for the others."""
    other = SampleJob("other", encode("word: "), num_samples=2, max_tokens=12, stop=[], seed=1)
    alone = sample(other)["other"]
    decoder = Decoder(BASE, None, max_rows=4)
    decoder.submit(SampleJob("gone", encode("rev: stone>"), num_samples=6, max_tokens=20, stop=[]))
    if when == "starting":
        decoder.step()  # four of its six samples have rows
    decoder.submit(other)
    if when == "running":
        decoder.step()
    assert decoder.cancel("gone")
    assert not decoder.cancel("gone")
    results = []
    while not decoder.idle:
        results += decoder.step()
    assert [result.id for result in results] == ["other"]
    assert bits(results[0]) == bits(alone)
    decoder.submit(SampleJob("gone", encode("ab"), num_samples=4, max_tokens=1))
    assert [result.id for result in decoder.step()] == ["gone"]  # all four rows are free again


def test_a_step_runs_a_bounded_number_of_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many prompts at once are spread over steps, which changes no sample; a single long one still runs."""
    jobs = [
        SampleJob(index, encode("copy: between>"), max_tokens=4, stop=[], seed=index) for index in range(6)
    ]
    at_once = sample(*jobs)
    monkeypatch.setattr("tinker_actors.local.sampler.PREFILL_TOKENS", 8)
    decoder = Decoder(BASE, None)
    for job in jobs:
        decoder.submit(job)
    finished: list[list[SampleResult]] = []
    while not decoder.idle:
        finished.append(decoder.step())
    assert [len(results) for results in finished] == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert all(bits(result) == bits(at_once[result.id]) for results in finished for result in results)


def test_idle_and_step_with_nothing_to_do() -> None:
    """A fresh or drained decoder is idle, and a step of it does nothing."""
    decoder = Decoder(BASE, None)
    assert decoder.idle
    assert decoder.step() == []
    decoder.submit(SampleJob(0, encode("ab"), max_tokens=1))
    assert not decoder.idle
    assert len(decoder.step()) == 1
    assert decoder.idle


def test_more_samples_than_rows_wait_for_their_turn() -> None:
    """At no time are more samples under way than rows, and all come in the end."""
    decoder = Decoder(BASE, None, max_rows=3)
    for index in range(5):
        decoder.submit(SampleJob(index, encode("ab"), num_samples=2, max_tokens=3, stop=[]))
    finished = []
    while not decoder.idle:
        finished += decoder.step()
        assert len(decoder._rows) <= 3
    assert [result.id for result in finished] == [0, 1, 2, 3, 4]
    assert decoder.cache_nbytes == 2 * 2 * 3 * 128 * 64 * 4


def change(**changes: object) -> Callable[[], object]:
    return lambda: Decoder(BASE, None).submit(attrs.evolve(SampleJob(0, encode("ab")), **changes))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (change(prompt=np.array([], np.int64)), "prompt"),
        (change(prompt=np.array([3, 100])), r"prompt\[1\] = 100"),
        (change(prompt=np.full(128, 5)), "leaves no room"),
        (change(max_tokens=0), "max_tokens = 0"),
        (change(max_tokens=127), "max_tokens = 127: must be 1 to 126"),
        (change(num_samples=0), "num_samples"),
        (change(temperature=-1.0), "temperature"),
        (change(temperature=float("nan")), "temperature"),
        (change(top_k=0), "top_k"),
        (change(top_p=0.0), "top_p"),
        (change(top_p=1.1), "top_p"),
        (change(stop="\n"), "stop"),
        (change(stop=[""]), r"stop\[0\]"),
        (change(stop=["a", 5]), "not both"),
        (change(stop=[100]), r"stop\[0\] = 100"),
        (change(topk_prompt_logprobs=-1), "topk_prompt_logprobs"),
        (lambda: Decoder(BASE, None, max_rows=0), "max_rows"),
    ],
    ids=itertools.count(),
)
def test_bad_jobs_are_refused_by_name(act: Callable[[], object], message: str) -> None:
    """The error names the field; nothing of the job stays in the decoder."""
    with pytest.raises(InputError, match=message):
        act()


def test_two_unfinished_jobs_cannot_have_one_id() -> None:
    """Their results could not be told apart; a finished job's id may be used again."""
    decoder = Decoder(BASE, None)
    job = SampleJob("twice", encode("ab"), max_tokens=1)
    decoder.submit(job)
    with pytest.raises(InputError, match="twice"):
        decoder.submit(job)
    decoder.step()
    decoder.submit(job)


def test_weights_out_of_range_are_an_error_and_no_samples() -> None:
    """A model driven to overflow does not quietly draw the first token of the vocabulary."""
    model = LoraModel(BASE, LoraConfig(rank=8))
    huge = LoraWeights.from_flat(model.layout, np.full_like(model.weights, 1e18))
    with pytest.raises(InputError, match="not finite"):
        sample(SampleJob(0, encode("ab"), max_tokens=3), lora=huge)


DIGEST = """
import hashlib, sys
import numpy as np
sys.path[:0] = sys.argv[1:]
from tinker_actors.local.adam import AdamParams
from tinker_actors.local.example import Example
from tinker_actors.local.lora import LoraConfig
from tinker_actors.local.model import load_base_model
from tinker_actors.local.sample import SampleJob
from tinker_actors.local.sampler import Decoder
from tinker_actors.local.trainer import LoraModel
base = load_base_model("tinker-actors/char-100k")
model, digest = LoraModel(base, LoraConfig(rank=8)), hashlib.sha256()
random = np.random.default_rng(0)
for _ in range(3):
    data = []
    for length in random.integers(2, 128, 24):
        tokens = random.integers(3, 100, length)
        data.append(Example(tokens[:-1], {"target_tokens": tokens[1:], "weights": np.ones(length - 1, np.float32)}))
    list(model.forward_backward(data, "cross_entropy"))
    model.optim_step(AdamParams(learning_rate=1e-3))
digest.update(model.weights.tobytes())
decoder = Decoder(base, model.snapshot())
for index in range(20):
    decoder.submit(SampleJob(index, random.integers(3, 100, 3 * index + 1), 2, 16, stop=[], seed=index))
while not decoder.idle:
    for result in decoder.step():
        for each in result.sequences:
            digest.update(bytes(each.tokens) + each.logprobs.tobytes())
print(digest.hexdigest())
"""


def test_the_number_of_blas_threads_changes_no_bit() -> None:
    """Training and sampling give the same hash with 1 and with 4 BLAS threads."""
    hashes = set()
    for threads in ("1", "4"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        command = [sys.executable, "-c", DIGEST, *sys.path]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_no_product_has_fewer_than_eight_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batch, products have a multiple of 8 rows, and dense ones exactly 8: shapes decide bits."""
    shapes: set[tuple[int, ...]] = set()
    matmul = np.matmul

    def spy(a: np.ndarray, b: np.ndarray, **options: np.ndarray) -> np.ndarray:
        shapes.add((a.shape[-2], b.ndim))
        return matmul(a, b, **options)

    monkeypatch.setattr(np, "matmul", spy)
    model = trained()
    sample(*(random_job(0, index) for index in range(11)), lora=model.snapshot())
    assert {rows for rows, dimensions in shapes if dimensions == 2} == {8}
    assert all(rows % 8 == 0 for rows, _ in shapes)


def test_base_model_is_shared() -> None:
    """A decoder without an adapter runs on the base model's own weights."""
    assert isinstance(BASE, BaseModel)
    assert Decoder(BASE, None)._network is BASE.network
