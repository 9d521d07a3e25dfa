"""Starts TuFT on the CPU, without Ray and vLLM: training is TuFT's own, with real gradients; the sampler is ours.

    python tests/contract/servers/tuft_cpu.py launch --host 127.0.0.1 --port 8104 --config tuft.yaml ...

Two factories are replaced. `HFTrainingModel.get_actor` gives an object in this process instead of a Ray actor with a
GPU; what it calls is TuFT's. The sampler is a small one over transformers, because TuFT's only real one is vLLM: what
it draws says nothing about TuFT. New adapters are drawn from one seed, for TuFT has no use for the client's.

It has only what TuFT needs, and is run by TuFT's interpreter, not by ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from tinker import types
from tuft.backends import base_backend
from tuft.backends.hf_training_model import HFTrainingModel
from tuft.cli import main

LONGEST = 16  # tokens, if the client does not say

torch.set_num_threads(1)
for name in ("empty_cache", "reset_peak_memory_stats"):
    setattr(torch.cuda, name, lambda *_, **__: None)


class Remote:
    """A method as Ray would offer it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def remote(self, *arguments: Any, **named: Any) -> Any:
        """Call it: an awaitable."""
        if asyncio.iscoroutinefunction(self._method):
            return self._method(*arguments, **named)
        return asyncio.to_thread(self._method, *arguments, **named)


class InProcess:
    """An actor without Ray."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._actor, name)
        return Remote(seeded(method) if name == "create_adapter" else method)


def seeded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that begins with the same random state each time."""

    async def later(*arguments: Any, **named: Any) -> Any:
        torch.manual_seed(0)
        return await method(*arguments, **named)

    def now(*arguments: Any, **named: Any) -> Any:
        torch.manual_seed(0)
        return method(*arguments, **named)

    return later if asyncio.iscoroutinefunction(method) else now


class SmallSampler(base_backend.BaseSamplingBackend):
    """Draws token by token, without a cache."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = str(config.model_path)
        self._base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._adapted: Any = None
        self._names: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def async_init(self) -> None:
        """Nothing is left to do."""

    async def shutdown(self) -> None:
        """Nothing is left to do."""

    async def add_adapter(self, lora_id: str, adapter_path: Any) -> None:
        """Load an adapter."""
        from peft import PeftModel

        async with self._lock:
            if lora_id in self._names:
                return
            name = f"adapter-{len(self._names)}"
            if self._adapted is None:
                self._adapted = PeftModel.from_pretrained(self._base, str(adapter_path), adapter_name=name)
                self._adapted.eval()
            else:
                self._adapted.load_adapter(str(adapter_path), adapter_name=name)
            self._names[lora_id] = name

    async def remove_adapter(self, lora_id: str) -> None:
        """Forget an adapter."""
        self._names.pop(lora_id, None)

    async def sample(
        self,
        prompt: Any,
        num_samples: int,
        sampling_params: Any,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        lora_id: str | None = None,
    ) -> Any:
        """Draw sequences; the likeliest tokens of the prompt are not given."""
        async with self._lock:
            return await asyncio.to_thread(
                self._sample, prompt.to_ints(), num_samples, sampling_params, include_prompt_logprobs, lora_id
            )

    @torch.no_grad()
    def _sample(
        self, prompt: list[int], count: int, params: Any, of_prompt: bool, lora_id: str | None
    ) -> Any:
        model = self._base if self._adapted is None else self._adapted
        plain = contextlib.nullcontext()
        if self._adapted is not None and lora_id:
            self._adapted.set_adapter(self._names[lora_id])
        elif self._adapted is not None:
            plain = self._adapted.disable_adapter()
        generator = torch.Generator().manual_seed(params.seed if params.seed is not None else 0)
        with plain:
            sequences = [self._draw(model, prompt, params, generator) for _ in range(count)]
            given = self._of_prompt(model, prompt) if of_prompt else None
        return types.SampleResponse(sequences=sequences, _prompt_logprobs_list=given)

    def _draw(self, model: Any, prompt: list[int], params: Any, generator: torch.Generator) -> Any:
        stop = params.stop if params.stop is not None else []
        stop = [stop] if isinstance(stop, str | int) else list(stop)
        tokens: list[int] = []
        logprobs: list[float] = []
        while len(tokens) < (params.max_tokens or LONGEST):
            logits = model(torch.tensor([prompt + tokens])).logits[0, -1].float()
            likely = torch.softmax(logits / (params.temperature or 1.0), -1)
            drawn = logits.argmax() if not params.temperature else likely.multinomial(1, generator=generator)
            tokens.append(int(drawn))
            logprobs.append(float(torch.log_softmax(logits, -1)[tokens[-1]]))
            if tokens[-1] in (*stop, self._tokenizer.eos_token_id) or self._spells(tokens, stop):
                return types.SampledSequence(stop_reason="stop", _tokens_list=tokens, _logprobs_list=logprobs)
        return types.SampledSequence(stop_reason="length", _tokens_list=tokens, _logprobs_list=logprobs)

    def _spells(self, tokens: list[int], stop: list[Any]) -> bool:
        text = self._tokenizer.decode(tokens)
        return any(isinstance(one, str) and one in text for one in stop)

    def _of_prompt(self, model: Any, prompt: list[int]) -> list[float | None]:
        logprobs = torch.log_softmax(model(torch.tensor([prompt])).logits[0].float(), -1)
        return [None, *(float(logprobs[at, token]) for at, token in enumerate(prompt[1:]))]


HFTrainingModel.get_actor = classmethod(lambda cls, config: InProcess(cls(config)))
base_backend.BaseSamplingBackend.create_backend = classmethod(
    lambda cls, config, worker_venv_path=None: SmallSampler(config)
)

if __name__ == "__main__":
    sys.exit(main())
