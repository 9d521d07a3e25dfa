"""Environments written for asyncio, beside a service on trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
import trio

import tinker_actors as ta
from tinker_actors.bridges.crossing import aio, from_aio
from tinker_actors.bridges.guest import run

MODEL = "tinker-actors/char-100k"
PARAMS = ta.SamplingParams(max_tokens=3, seed=1)


class AsyncioEnvironment:
    """An environment as existing ones are: locks and sleeps of asyncio, and a clean-up of its own."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.entered = 0
        self.left = 0
        self.at_once = 0
        self.most_at_once = 0

    async def step(self, action: int) -> int:
        """Take one step."""
        self.entered += 1
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            async with self._lock:
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            if action < 0:
                raise ValueError(f"no such action: {action}")
            return action + 1
        finally:
            self.at_once -= 1
            await asyncio.sleep(0)
            self.left += 1


def test_a_thousand_concurrent_steps_of_asyncio_environments() -> None:
    """All run at once on one asyncio lock, each answers its own caller, and each cleans up."""
    results: dict[int, int] = {}
    environment = AsyncioEnvironment()

    async def one(action: int) -> None:
        results[action] = await aio(environment.step, action)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for action in range(1000):
                nursery.start_soon(one, action)

    run(main, asyncio=True)
    assert results == {action: action + 1 for action in range(1000)}
    assert environment.most_at_once == environment.entered == environment.left == 1000


def test_one_of_a_thousand_fails_and_the_others_are_cancelled_and_clean_up() -> None:
    """An exception crosses one way, the cancellation it causes the other way, and every clean-up has run."""
    environment = AsyncioEnvironment()

    async def wait(event: asyncio.Event) -> None:
        environment.entered += 1
        try:
            await event.wait()
        finally:
            await asyncio.sleep(0)
            environment.left += 1

    async def main() -> None:
        never = asyncio.Event()
        with pytest.raises(ExceptionGroup) as caught:
            async with trio.open_nursery() as nursery:
                for _ in range(999):
                    nursery.start_soon(aio, wait, never)
                while environment.entered < 999:  # noqa: ASYNC110 - a number tells nobody
                    await trio.lowlevel.checkpoint()
                nursery.start_soon(aio, environment.step, -1)
        assert [str(error) for error in caught.value.exceptions] == ["no such action: -1"]
        assert environment.entered == environment.left == 1000  # before trio goes on

    run(main, asyncio=True)


class Episode:
    """An environment whose own code calls the sampling client: from asyncio, as such environments do."""

    def __init__(self, sampling: ta.SamplingClient, lock: asyncio.Lock) -> None:
        self._sampling = sampling
        self._lock = lock
        self.log: list[str] = []
        self.after_turn: Callable[[], object] = lambda: None

    async def play(self, turns: int) -> list[int]:
        """Take turns between the model and the environment."""
        tokens = [5, 6]
        try:
            for _ in range(turns):
                prompt = ta.ModelInput.from_ints(tokens)
                reply = await from_aio(self._sampling.sample, prompt, 1, PARAMS)
                async with self._lock:
                    await asyncio.sleep(0)
                tokens += reply.sequences[0].tokens
                self.after_turn()
        finally:
            await asyncio.sleep(0)
            self.log.append("closed")
        return tokens


def test_asyncio_environments_sample_from_a_service_on_trio() -> None:
    """Fifty episodes at once, each calling the client from asyncio: the same tokens as from trio, and all closed."""
    before = set(threading.enumerate())

    async def expected(sampling: ta.SamplingClient) -> list[int]:
        tokens = [5, 6]
        for _ in range(2):
            reply = await sampling.sample(ta.ModelInput.from_ints(tokens), 1, PARAMS)
            tokens += reply.sequences[0].tokens
        return tokens

    async def main() -> None:
        async with ta.open_service("local", seed=1) as service:
            sampling = await service.create_sampling_client(base_model=MODEL)
            lock = asyncio.Lock()
            episodes = [Episode(sampling, lock) for _ in range(50)]
            results: list[list[int]] = []

            async def play(episode: Episode) -> None:
                results.append(await aio(episode.play, 2))

            async with trio.open_nursery() as nursery:
                for episode in episodes:
                    nursery.start_soon(play, episode)
            assert results == [await expected(sampling)] * 50
            assert [episode.log for episode in episodes] == [["closed"]] * 50

    run(main, asyncio=True)
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert not [
        name for name in left if not name.startswith("Trio thread")
    ]  # trio keeps idle ones for a while


def test_cancelling_episodes_cancels_their_samples_and_the_service_goes_on() -> None:
    """The episode is left when its sample has been dropped and its own clean-up has run."""

    async def main() -> None:
        async with ta.open_service("local", seed=1) as service:
            sampling = await service.create_sampling_client(base_model=MODEL)
            episode = Episode(sampling, asyncio.Lock())
            with trio.CancelScope() as scope:
                episode.after_turn = scope.cancel
                await aio(episode.play, 1_000_000)
            assert scope.cancelled_caught
            assert episode.log == ["closed"]
            reply = await sampling.sample(ta.ModelInput.from_ints([5, 6]), 1, PARAMS)
            assert len(reply.sequences) == 1

    run(main, asyncio=True)


def test_a_refusal_of_the_service_is_raised_in_the_environment_with_its_type() -> None:
    """Typed errors are typed errors on either side."""

    async def main() -> None:
        async with ta.open_service("local", seed=1) as service:
            sampling = await service.create_sampling_client(base_model=MODEL)

            async def wrong() -> None:
                with pytest.raises(ta.errors.InputError):
                    await from_aio(sampling.sample, ta.ModelInput.from_ints([]), 1, PARAMS)

            await aio(wrong)

    run(main, asyncio=True)


def test_a_service_is_the_guest_of_an_asyncio_program() -> None:
    """The same from a program whose main function is asyncio's."""

    async def guest() -> int:
        async with ta.open_service("local", seed=1) as service:
            sampling = await service.create_sampling_client(base_model=MODEL)
            return len(await aio(Episode(sampling, asyncio.Lock()).play, 1))

    assert asyncio.run(ta.run_guest(guest)) == 5
