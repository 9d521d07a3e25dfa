"""The decoder: many jobs at once, one token per row and step.

Theory of operation
-------------------
A job waits in line until rows are free for its samples (all of them
or some: the others follow). Its prompt is run once, prompts of equal padded length together; keys and values
of the prompt are kept until its last sample has its row. The step in which a sample gets its row draws its
first token; every further step feeds the last token and draws the next. Jobs are finished in any order.

What a sample becomes depends on (weights, prompt, parameters, seed, its index) alone. The passes compute each
row's bits by itself (see `transformer` and `cache`), each sample has its own Philox stream with one number
per token, and nothing else is shared. So a job alone and beside any others gives the same tokens and
log-probabilities, bit for bit.

A decoder is plain state: no thread, no lock. One `step` is one slice of work of some milliseconds; whoever
drives it calls `step`, `submit` and `cancel` one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from tinker_actors.errors import InputError

from .cache import KeyValueCache, decode, head, prefill_rows
from .draw import choose, uniforms
from .lora import LoraWeights, adapted
from .model import BaseModel
from .sample import SampledSequence, SampleJob, SampleResult, StopReason, StopRule, check_job, stop_rule
from .transformer import Array, Network, Tape, forward, log_softmax, padded_length

__all__ = ["Decoder"]

PREFILL_TOKENS = 1024  # padded prompt tokens run in one step: about 6 ms
EMPTY_LOGPROB = -99999.0  # Tinker's empty cell (protocol: TopkLogprobs)


@attrs.define(eq=False)
class _Running:
    """A job from its prompt's run to its last sample's end.

    Attributes:
        prompt: (layers, 2, n, width) keys and values; dropped when the last sample has its row.
        first: (vocab,) log-probabilities of the first token.
        limit: most tokens of a sample.
        started: samples that have got a row.
        done: finished samples by index.
    """

    job: SampleJob
    stop: StopRule
    prompt: Array | None
    first: Array
    limit: int
    prompt_logprobs: NDArray[np.float32] | None
    topk: tuple[NDArray[np.int32], NDArray[np.float32]] | None
    started: int = 0
    done: dict[int, SampledSequence] = attrs.field(factory=dict)

    def result(self) -> SampleResult:
        sequences = [self.done[index] for index in range(self.job.num_samples)]
        return SampleResult(self.job.id, sequences, self.prompt_logprobs, self.topk)


@attrs.define(eq=False)
class _Row:
    """One sample under way."""

    running: _Running
    index: int
    slot: int
    uniforms: NDArray[np.float64]
    tokens: list[int] = attrs.field(factory=list)
    logprobs: list[float] = attrs.field(factory=list)
    text: str = ""


class Decoder:
    """Samples from a base model, with an adapter or without.

    Args:
        base: the model.
        lora: the adapter's weights; None samples the base model.
        max_rows: most samples under way at once. Each may take 128 KiB of keys and values (char-100k).
    """

    def __init__(self, base: BaseModel, lora: LoraWeights | None, max_rows: int = 128) -> None:
        if max_rows < 1:
            raise InputError("max_rows", max_rows, "must be at least 1")
        self._base = base
        self._network: Network = (
            base.network if lora is None else adapted(base.network, lora.layout, lora.flat)
        )
        self._cache = KeyValueCache(base.config, base.network.dtype, max_rows)
        self._waiting: deque[SampleJob] = deque()
        self._starting: deque[_Running] = deque()
        self._rows: list[_Row] = []
        self._ids: set[Hashable] = set()

    @property
    def idle(self) -> bool:
        """True if no job is waiting or under way: `step` would do nothing."""
        return not self._ids

    @property
    def cache_nbytes(self) -> int:
        """Most bytes that keys and values of samples under way can take."""
        return self._cache.nbytes

    def submit(self, job: SampleJob) -> None:
        """Put a job in line.

        Raises:
            InputError: a value of the job is bad (see `sample.check_job`), or its id is that of an unfinished
                job.
        """
        check_job(job, self._base)
        if job.id in self._ids:
            raise InputError("id", job.id, "an unfinished job has this id")
        self._ids.add(job.id)
        self._waiting.append(job)

    def cancel(self, job_id: Hashable) -> bool:
        """Take a job out wherever it is; its result never comes. Returns False if there is no such job."""
        if job_id not in self._ids:
            return False
        self._ids.discard(job_id)
        self._waiting = deque(job for job in self._waiting if job.id != job_id)
        self._starting = deque(running for running in self._starting if running.job.id != job_id)
        for row in [row for row in self._rows if row.running.job.id == job_id]:
            self._drop(row)
        return True

    def step(self) -> list[SampleResult]:
        """Give every sample under way one more token, after starting as many as there is room for.

        Returns:
            The jobs this step finished.

        Raises:
            InputError: the model's log-probabilities are not finite, so no job of this decoder can go on.
        """
        old = list(self._rows)
        with np.errstate(over="ignore", invalid="ignore"):  # _append finds what is not finite
            logprobs = [self._advance(old)] if old else []
            self._prefill()
        fresh = self._start()
        logprobs += [row.running.first[None] for row in fresh]
        rows = old + fresh
        if not rows:
            return []
        self._append(rows, np.concatenate(logprobs))
        return self._finish(rows)

    def _advance(self, rows: Sequence[_Row]) -> Array:
        """Feed the rows' last tokens; return the log-probabilities of the next ones."""
        positions = [row.running.job.prompt.size + len(row.tokens) - 1 for row in rows]
        logits = decode(
            self._network,
            self._cache,
            np.array([row.slot for row in rows]),
            np.array(positions),
            np.array([row.tokens[-1] for row in rows]),
        )
        return log_softmax(logits)

    def _prefill(self) -> None:
        """Run waiting prompts, as long as there are rows for their samples and the step stays short."""
        wanted = sum(running.job.num_samples - running.started for running in self._starting)
        jobs: list[SampleJob] = []
        tokens = 0
        while self._waiting and wanted < self._cache.available:
            tokens += padded_length(self._waiting[0].prompt.size)
            if jobs and tokens > PREFILL_TOKENS:
                break
            jobs.append(self._waiting.popleft())
            wanted += jobs[-1].num_samples
        ready = dict[Hashable, _Running]()
        for length in {padded_length(job.prompt.size) for job in jobs}:
            group = [job for job in jobs if padded_length(job.prompt.size) == length]
            for running in self._run_prompts(group, length):
                ready[running.job.id] = running
        self._starting.extend(ready[job.id] for job in jobs)

    def _run_prompts(self, jobs: Sequence[SampleJob], length: int) -> list[_Running]:
        tokens = np.zeros((len(jobs), length), np.int64)
        for row, job in zip(tokens, jobs, strict=True):
            row[: job.prompt.size] = job.prompt
        tape = forward(self._network, tokens)
        last = np.zeros((padded_length(len(jobs)), self._base.config.width), self._network.dtype)
        last[: len(jobs)] = tape.final[np.arange(len(jobs)), [job.prompt.size - 1 for job in jobs]]
        first = log_softmax(head(self._network, last))
        return [self._running(job, tape, at, first[at]) for at, job in enumerate(jobs)]

    def _running(self, job: SampleJob, tape: Tape, at: int, first: Array) -> _Running:
        prompt_logprobs, topk = self._prompt_logprobs(job, tape.final[at])
        return _Running(
            job,
            stop_rule(job.stop, self._base),
            prefill_rows(tape, at, job.prompt.size),
            first,
            job.max_tokens or self._base.config.context_length - job.prompt.size,
            prompt_logprobs,
            topk,
        )

    def _prompt_logprobs(
        self, job: SampleJob, final: Array
    ) -> tuple[NDArray[np.float32] | None, tuple[NDArray[np.int32], NDArray[np.float32]] | None]:
        """Return what a job wants to know of its prompt, whose final rows are (L, width)."""
        if not job.prompt_logprobs and not job.topk_prompt_logprobs:
            return None, None
        every = log_softmax(head(self._network, final))[: job.prompt.size - 1]
        chosen, topk = None, None
        if job.prompt_logprobs:
            chosen = np.full(job.prompt.size, np.nan, np.float32)
            chosen[1:] = np.take_along_axis(every, job.prompt[1:, None], axis=-1)[:, 0]
        if job.topk_prompt_logprobs:
            topk = _topk(every, job.topk_prompt_logprobs)
        return chosen, topk

    def _start(self) -> list[_Row]:
        """Give free rows to the samples first in line."""
        fresh: list[_Row] = []
        while self._starting and self._cache.available:
            running = self._starting[0]
            assert running.prompt is not None  # dropped only below, together with the place in line
            slot = self._cache.acquire()
            self._cache.fill(slot, running.prompt)
            draws = uniforms(running.job.seed, running.started, running.limit)
            fresh.append(_Row(running, running.started, slot, draws))
            running.started += 1
            if running.started == running.job.num_samples:
                running.prompt = None
                self._starting.popleft()
        self._rows.extend(fresh)
        return fresh

    def _append(self, rows: Sequence[_Row], logprobs: Array) -> None:
        """Draw every row's next token."""
        if not np.isfinite(logprobs).all():
            raise InputError(
                "model", "log-probabilities", "are not finite: training drove the weights out of range"
            )
        jobs = [row.running.job for row in rows]
        tokens = choose(
            logprobs,
            np.array([job.temperature for job in jobs], np.float64),
            np.array([job.top_k for job in jobs], np.int64),
            np.array([job.top_p for job in jobs], np.float64),
            np.array([row.uniforms[len(row.tokens)] for row in rows]),
        )
        drawn = np.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]
        for row, token, logprob in zip(rows, tokens.tolist(), drawn.tolist(), strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)

    def _finish(self, rows: Sequence[_Row]) -> list[SampleResult]:
        """Take out the rows that ended; return the jobs that ended with them."""
        results = []
        for row in rows:
            reason = self._ended(row)
            if reason is None:
                continue
            self._drop(row)
            running = row.running
            sequence = SampledSequence(row.tokens, np.array(row.logprobs, np.float32), reason)
            running.done[row.index] = sequence
            if len(running.done) == running.job.num_samples:
                self._ids.discard(running.job.id)
                results.append(running.result())
        return results

    def _ended(self, row: _Row) -> StopReason | None:
        token, rule = row.tokens[-1], row.running.stop
        piece = self._base.token_texts[token]
        if rule.strings:
            row.text += piece
        if rule.met(token, row.text, piece):
            return "stop"
        return "length" if len(row.tokens) == row.running.limit else None

    def _drop(self, row: _Row) -> None:
        self._cache.release(row.slot)
        self._rows.remove(row)


def _topk(every: Array, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the likeliest k tokens of (n - 1, vocab) rows as Tinker lays them out, an empty row first."""
    ids = np.zeros((len(every) + 1, k), np.int32)
    logprobs = np.full(ids.shape, EMPTY_LOGPROB, np.float32)
    order = np.argsort(-every, axis=-1, kind="stable")[:, :k]
    ids[1:, : order.shape[1]] = order
    logprobs[1:, : order.shape[1]] = np.take_along_axis(every, order, axis=-1)
    return ids, logprobs
