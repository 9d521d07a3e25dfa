"""A short tour of a server by our client: train, save, go on, load, make a model of what was saved, sample.

    python tests/contract/smoke.py skyrl      # starts the server; also tuft, and own for our own

The last line is one JSON object. What a server cannot do shows as an error.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))  # the project's root

import tinker_actors as ta
from tests.contract.launch import KINDS, Server, open_server
from tinker_actors.testing import open_recording_proxy

RANK = 8
ADAM = ta.AdamParams(learning_rate=1e-2)
LENGTH = 12


def batch(number: int, size: int = 4) -> list[ta.Datum]:
    """Make a batch of sentences that repeat themselves; the same for the same number."""
    rng = np.random.default_rng(number)
    return [sentence(rng.integers(3, 60, 3)) for _ in range(size)]


def sentence(words: np.ndarray) -> ta.Datum:
    """Make a datum in which the same three tokens come again and again."""
    tokens = np.tile(words, LENGTH)[: LENGTH + 1].astype(np.int64)
    inputs = {"target_tokens": tokens[1:], "weights": np.ones(LENGTH, np.float32)}
    return ta.Datum(ta.ModelInput.from_ints([int(token) for token in tokens[:-1]]), inputs)


def loss(output: ta.ForwardBackwardOutput, data: list[ta.Datum]) -> float:
    """Return the mean loss per token: some servers give the log probabilities only."""
    logprobs = np.concatenate([one["logprobs"].to_numpy() for one in output.loss_fn_outputs])
    assert len(logprobs) == LENGTH * len(data)
    return float(-logprobs.mean())


async def tour(server: Server, url: str, steps: int = 3) -> dict[str, object]:
    """Take the tour; returns what was seen on it."""
    async with ta.open_service(
        url, api_key=server.api_key, capability=server.capability, seed=0, telemetry=False
    ) as service:
        training = await service.create_lora_training_client(server.base_model, rank=RANK, seed=7)
        data = batch(0)
        losses = []
        for _ in range(steps):
            forward = await training.forward_backward(data, "cross_entropy")
            await training.optim_step(ADAM)
            losses.append(loss(await forward, data))
        saved = (await training.save_state("tour")).path
        at_save = loss(await (await training.forward(data, "cross_entropy")), data)
        await (await training.forward_backward(data, "cross_entropy"))
        await (await training.optim_step(ADAM))
        await training.load_state_with_optimizer(saved)
        loaded = loss(await (await training.forward(data, "cross_entropy")), data)
        other = await service.create_training_client_from_state_with_optimizer(saved)
        made = loss(await (await other.forward(data, "cross_entropy")), data)
        sampling = await training.save_weights_and_get_sampling_client()
        prompt = ta.ModelInput.from_ints(data[0].model_input.to_ints()[:6])
        params = ta.SamplingParams(max_tokens=6, temperature=0.0)
        reply = await sampling.sample(prompt, num_samples=1, sampling_params=params)
    return {
        "losses": [round(one, 4) for one in losses],
        "saved": round(at_save, 4),
        "loaded": round(loaded, 4),
        "made_of_it": round(made, 4),
        "sampled": list(reply.sequences[0].tokens),
    }


async def main(options: argparse.Namespace) -> dict[str, object]:
    """Start the server and take the tour through a proxy."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_server(options.server, Path(folder)) as server,
            open_recording_proxy(server.url) as proxy,
        ):
            try:
                with trio.fail_after(options.patience):
                    return await tour(server, proxy.url)
            finally:
                for one in proxy.recording.exchanges:
                    refused = one.status is None or one.status >= 400
                    if options.verbose or refused:
                        print(one.method, one.endpoint, dict(one.fields), one.status, dict(one.reply))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("server", choices=sorted(KINDS))
    parser.add_argument("--patience", type=float, default=300.0, help="seconds for the tour")
    parser.add_argument("--verbose", action="store_true", help="show every request")
    print(json.dumps(trio.run(main, parser.parse_args())))
