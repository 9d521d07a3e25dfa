"""Which key requests go out with, exchange and renewal, in virtual time; commands are run for real."""

from __future__ import annotations

import base64
import contextlib
import logging
import random
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import orjson
import pytest
import trio
import trio.testing

from tinker_actors.errors import (
    APIConnectionError,
    AuthenticationError,
    CredentialError,
    TinkerActorsError,
)
from tinker_actors.protocol.credential import CredentialCommand, Secret
from tinker_actors.transport.auth import Credentials, open_credentials, run_command

EPOCH = 1_000_000.0
KEY = Secret("tml-hunter2", "api_key")
REFUSED = AuthenticationError("the key is not known", status_code=401)


def wall() -> datetime:
    """Return a wall clock that goes with trio's."""
    return datetime.fromtimestamp(EPOCH + trio.current_time(), UTC)


def jwt(number: int, expires: float, issued: float | None = None) -> str:
    """Make the nth token; times count from the beginning of the test."""
    claims: dict[str, float] = {"exp": EPOCH + expires, "n": number}
    if issued is not None:
        claims["iat"] = EPOCH + issued
    return "eyJh." + base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=") + ".hunter2"


class Issuer:
    """The service's side: gives tokens for keys, and knows which ones it takes.

    Attributes:
        keys: the keys that came, in order.
        times: when they came.
        life: seconds a new token lives.
        failures: what is raised instead, one each; None gives a token.
        takes: seconds an exchange takes.
    """

    def __init__(self, life: float = 3600.0) -> None:
        self.keys: list[str] = []
        self.times: list[float] = []
        self.life = life
        self.failures: list[Exception | None] = []
        self.always: Exception | None = None
        self.takes = 1.0
        self.tokens: list[str] = []

    async def __call__(self, key: str) -> str:
        self.keys.append(key)
        self.times.append(trio.current_time())
        await trio.sleep(self.takes)
        failure = self.failures.pop(0) if self.failures else self.always
        if failure is not None:
            raise failure
        now = trio.current_time()
        self.tokens.append(jwt(len(self.tokens), now + self.life, now))
        return self.tokens[-1]


def opened(
    issuer: Issuer, credential: Any = KEY, *, command: str | None = None, seed: int = 0
) -> contextlib.AbstractAsyncContextManager[Credentials]:
    """Open credentials on the issuer."""
    return open_credentials(
        credential, exchange=issuer, rng=random.Random(seed), command=command, utc_now=wall
    )


async def key_of(credentials: Credentials) -> str | None:
    """Return what a request would go out with."""
    return (await credentials.headers()).get("x-api-key")


async def never(_: str) -> str:
    """Fail: this service does not want an exchange."""
    raise AssertionError


# --- without an exchange ---------------------------------------------------------------------------------


async def test_an_api_key_is_sent_as_it_is(autojump_clock: Any) -> None:
    """In its own header; a refusal of it is final; nothing is exchanged."""
    async with open_credentials(KEY, exchange=never, rng=random.Random(0)) as credentials:
        assert dict(await credentials.headers()) == {"x-api-key": "tml-hunter2"}
        assert credentials.ready == {"x-api-key": "tml-hunter2"}
        assert credentials.latest == {"x-api-key": "tml-hunter2"}
        assert not await credentials.rejected({"x-api-key": "tml-hunter2"})
        credentials.learn(exchange=False)
        assert await key_of(credentials) == "tml-hunter2"


async def test_without_a_key_nothing_is_sent(autojump_clock: Any) -> None:
    """Also if the service would exchange one."""
    async with open_credentials(None, exchange=never, rng=random.Random(0)) as credentials:
        credentials.learn(exchange=True, command=True)
        assert dict(await credentials.headers()) == {}
        assert not await credentials.rejected({"x-api-key": "tml-x"})
        assert repr(credentials) == "<Credentials from nowhere>"


async def test_a_token_given_as_a_key_is_used_until_it_ends(autojump_clock: Any) -> None:
    """It cannot be renewed; when it has ended, that is said before anything is sent."""
    token = jwt(0, 100.0)
    async with opened(Issuer(), Secret(token, "TINKER_API_KEY")) as credentials:
        assert await key_of(credentials) == token
        await trio.sleep(99)
        assert await key_of(credentials) == token
        assert not await credentials.rejected({"x-api-key": token})
        await trio.sleep(1)
        with pytest.raises(CredentialError, match="TINKER_API_KEY is a token that expired 0 s ago"):
            await credentials.headers()


@pytest.mark.parametrize(("text", "why"), [("eyJhunter2", "not a JWT"), (jwt(0, -5.0), "expired 5 s ago")])
async def test_a_token_that_cannot_be_used_is_refused(autojump_clock: Any, text: str, why: str) -> None:
    """Malformed or ended: with an exchange or without."""
    issuer = Issuer()
    for exchange in (False, True):
        async with opened(issuer, Secret(text, "api_key")) as credentials:
            credentials.learn(exchange=exchange)
            with pytest.raises(CredentialError, match=why) as caught:
                await credentials.headers()
        assert "hunter2" not in str(caught.value)
    assert issuer.keys == []


# --- commands --------------------------------------------------------------------------------------------


async def test_a_commands_key_is_used() -> None:
    """What it prints, without white space; it is run once for all who wait."""
    command = CredentialCommand("echo; echo '  tml-from-command '", "TINKER_CREDENTIAL_CMD")
    async with opened(Issuer(), command) as credentials:
        got: list[str | None] = []

        async def ask() -> None:
            got.append(await key_of(credentials))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert got == ["tml-from-command"] * 5


async def test_a_command_is_run_again_when_its_key_is_refused(tmp_path: Any) -> None:
    """If it prints another key, the request is worth sending again; the same key is not."""
    script = f"echo x >> {tmp_path}/runs; echo tml-$(grep -c x {tmp_path}/runs)"
    async with opened(Issuer(), CredentialCommand(script, "it")) as credentials:
        assert await key_of(credentials) == "tml-1"
        assert await credentials.rejected({"x-api-key": "tml-1"})
        assert await key_of(credentials) == "tml-2"
    async with opened(Issuer(), CredentialCommand("echo tml-1", "it")) as credentials:
        assert await key_of(credentials) == "tml-1"
        assert not await credentials.rejected({"x-api-key": "tml-1"})


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("true", "TINKER_CREDENTIAL_CMD gave no key: what it printed is empty"),
        ("echo; echo ' '", "what it printed is empty"),
        ("echo hunter2", "a key starts with 'tml-'"),
        ("echo tml-hunter2; exit 3", "the command ended with status 3"),
        (f"echo {jwt(0, -5.0 - EPOCH)}", "is a token that expired"),
    ],
)
async def test_a_command_that_gives_no_key_is_a_typed_error(command: str, why: str) -> None:
    """With the reason, and without what was printed."""
    async with opened(Issuer(), CredentialCommand(command, "TINKER_CREDENTIAL_CMD")) as credentials:
        with pytest.raises(CredentialError, match=why) as caught:
            await credentials.headers()
    assert "hunter2" not in str(caught.value)


async def test_a_shell_that_cannot_be_started_is_a_typed_error() -> None:
    """With the system's reason."""
    with pytest.raises(CredentialError, match="the command cannot be run: "):
        await run_command(CredentialCommand("echo " + "a" * 3_000_000, "it"))


async def test_the_service_may_say_that_keys_come_from_the_command() -> None:
    """Then the command's key is exchanged, although there is another one."""
    issuer = Issuer()
    issuer.takes = 0.0
    async with opened(issuer, command="echo tml-from-command") as credentials:
        credentials.learn(exchange=True, command=True)
        assert await key_of(credentials) == issuer.tokens[0]
    assert issuer.keys == ["tml-from-command"]
    async with opened(Issuer()) as credentials:  # there is no command
        credentials.learn(exchange=False, command=True)
        assert await key_of(credentials) == "tml-hunter2"


# --- with an exchange ------------------------------------------------------------------------------------


async def test_the_first_request_exchanges_and_starts_the_renewal(autojump_clock: Any) -> None:
    """Not before; one exchange for all who wait; the token is renewed after about half of its life."""
    issuer = Issuer()
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        credentials.learn(exchange=True)
        await trio.sleep(1000)
        assert issuer.keys == []
        got: list[str | None] = []

        async def ask() -> None:
            got.append(await key_of(credentials))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert got == [issuer.tokens[0]] * 5
        assert issuer.keys == ["tml-hunter2"]
        await trio.sleep(3600)
        assert await key_of(credentials) == issuer.tokens[-1]
        await trio.sleep(36_000)
    waits = [later - earlier for earlier, later in pairwise(issuer.times)]
    assert len(waits) >= 19
    assert all(0.45 * 3600 <= wait <= 0.55 * 3600 + 1 for wait in waits)


async def test_the_time_to_renew_scales_with_the_life(autojump_clock: Any) -> None:
    """A short token is renewed sooner."""
    issuer = Issuer(life=600.0)
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        await credentials.headers()
        assert credentials.ready is None, "a token ends, so it is looked at each time"
        await trio.sleep(400)
    assert 270 <= issuer.times[1] - issuer.times[0] <= 331


@pytest.mark.parametrize(
    "failure", [REFUSED, APIConnectionError("no way"), RuntimeError("a defect")], ids=repr
)
async def test_a_first_exchange_that_fails_is_raised(autojump_clock: Any, failure: Exception) -> None:
    """Unchanged, after exactly one attempt; every caller that waited has an error of its own; the next tries anew."""
    issuer = Issuer()
    issuer.failures = [failure]
    caught: list[Exception] = []
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)

        async def ask() -> None:
            with pytest.raises(type(failure), match=str(failure)) as raised:
                await credentials.headers()
            caught.append(raised.value)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert len(issuer.keys) == 1
        assert len(caught) == 5
        if isinstance(failure, TinkerActorsError):
            assert len({id(error) for error in caught}) == 5
        if isinstance(caught[0], AuthenticationError):
            assert caught[0].status_code == 401
        assert await key_of(credentials) == issuer.tokens[0]


@pytest.mark.parametrize("answer", ["", "hunter2", "eyJhunter2", "tml-hunter2"])
async def test_an_answer_that_is_no_token_is_a_typed_error(autojump_clock: Any, answer: str) -> None:
    """It is not sent to anybody, and not shown."""

    async def exchange(_: str) -> str:
        await trio.lowlevel.checkpoint()
        return answer

    async with open_credentials(KEY, exchange=exchange, rng=random.Random(0), utc_now=wall) as credentials:
        credentials.learn(exchange=True)
        with pytest.raises(CredentialError, match="the service's answer: not a JWT") as caught:
            await credentials.headers()
    assert "hunter2" not in str(caught.value)


async def test_five_rejections_are_one_exchange(autojump_clock: Any) -> None:
    """Whoever was refused for the same token is to try once more, with the new one; a later one at once."""
    issuer = Issuer()
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        old = await key_of(credentials)
        assert old is not None
        verdicts: list[bool] = []

        async def refused() -> None:
            verdicts.append(await credentials.rejected({"x-api-key": old}))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(refused)
        assert verdicts == [True] * 5
        assert len(issuer.keys) == 2
        assert await credentials.rejected({"x-api-key": old})
        assert len(issuer.keys) == 2
        assert await key_of(credentials) == issuer.tokens[1] != old


async def test_a_rejection_that_cannot_be_mended(autojump_clock: Any) -> None:
    """A key that is refused is an error; a service out of reach leaves the refusal as it is; so does the same token."""
    issuer = Issuer()
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        token = await key_of(credentials)
        assert token is not None
        issuer.failures = [REFUSED, APIConnectionError("no way")]
        with pytest.raises(AuthenticationError):
            await credentials.rejected({"x-api-key": token})
        assert not await credentials.rejected({"x-api-key": token})
        assert await key_of(credentials) == token

    async def same(_: str) -> str:
        await trio.lowlevel.checkpoint()
        return token

    async with open_credentials(KEY, exchange=same, rng=random.Random(0), utc_now=wall) as credentials:
        credentials.learn(exchange=True)
        assert await key_of(credentials) == token
        assert not await credentials.rejected({"x-api-key": token})


async def test_a_renewal_that_fails_is_tried_every_minute(autojump_clock: Any) -> None:
    """The old token serves while it lives."""
    issuer = Issuer()
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        token = await key_of(credentials)
        issuer.failures = [APIConnectionError("no way"), REFUSED, RuntimeError("a defect")]
        await trio.sleep(2200)
        waits = [b - a for a, b in pairwise(issuer.times[1:])]
        assert waits == pytest.approx([61.0] * 3)
        assert await key_of(credentials) == issuer.tokens[1] != token


async def test_a_refused_key_ends_the_renewal_only_near_the_end(autojump_clock: Any) -> None:
    """While the token lives it is served and the renewal goes on; then whoever asks is told; a new key starts it."""
    issuer = Issuer()
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        token = await key_of(credentials)
        issuer.always = REFUSED
        await trio.sleep(3500)
        assert await key_of(credentials) == token
        attempts = len(issuer.keys)
        assert attempts > 20
        await trio.sleep(7200)
        assert len(issuer.keys) <= attempts + 2
        with pytest.raises(AuthenticationError):
            await credentials.headers()
        issuer.always = None
        assert await key_of(credentials) == issuer.tokens[1]
        await trio.sleep(3600)
        assert len(issuer.tokens) > 2


async def test_near_its_end_a_token_is_renewed_by_whoever_needs_it(autojump_clock: Any) -> None:
    """Once for all; if that fails, it serves while it lives, and then the failure is raised."""
    issuer = Issuer(life=60.5)
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        await credentials.headers()
        await trio.sleep(0.6)
        issuer.always = APIConnectionError("no way")
        assert await key_of(credentials) == issuer.tokens[0]
        await trio.sleep(58)
        with pytest.raises(APIConnectionError):
            await credentials.headers()
        issuer.always = None
        assert await key_of(credentials) == issuer.tokens[1]


async def test_an_ended_token_is_renewed_before_it_is_used(autojump_clock: Any) -> None:
    """After a long sleep of the machine, for instance."""
    now = [0.0]
    issuer = Issuer()
    opener = open_credentials(
        KEY,
        exchange=issuer,
        rng=random.Random(0),
        utc_now=lambda: datetime.fromtimestamp(EPOCH + trio.current_time() + now[0], UTC),
    )
    async with opener as credentials:
        credentials.learn(exchange=True)
        await credentials.headers()
        now[0] = 10_000.0
        issuer.life += now[0]
        assert await key_of(credentials) == issuer.tokens[1]


async def test_who_waits_may_leave_and_the_exchange_goes_on(autojump_clock: Any) -> None:
    """Its result is the next one's."""
    issuer = Issuer()
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        with trio.move_on_after(0.5) as scope:
            await credentials.headers()
        assert scope.cancelled_caught
        assert await key_of(credentials) == issuer.tokens[0]
        assert len(issuer.keys) == 1


async def test_what_the_service_says_meanwhile_counts(autojump_clock: Any) -> None:
    """A key that was being fetched is exchanged after all; an exchange under way is not used any more."""
    issuer = Issuer()
    token = jwt(7, 5000.0)
    async with opened(issuer, Secret(token, "api_key")) as credentials, trio.open_nursery() as nursery:
        got: list[str | None] = []

        async def ask() -> None:
            got.append(await key_of(credentials))

        credentials.learn(exchange=True)
        nursery.start_soon(ask)
        await trio.sleep(0.5)
        credentials.learn(exchange=False)
        await trio.sleep(5)
        assert got == [token]


async def test_a_service_may_change_its_mind(autojump_clock: Any) -> None:
    """Keys go out as they are again, and the renewal ends; it begins again with the next exchange."""
    issuer = Issuer()
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        await credentials.headers()
        await trio.testing.wait_all_tasks_blocked()
        credentials.learn(exchange=False)
        credentials.learn(exchange=True)
        await trio.sleep(2100)  # nobody has asked for a token since
        assert len(issuer.keys) == 2
        credentials.learn(exchange=False)
        assert await key_of(credentials) == "tml-hunter2"
        await trio.sleep(10_000)
        assert len(issuer.keys) == 2
        credentials.learn(exchange=True)
        assert await key_of(credentials) == issuer.tokens[2]


async def test_nothing_is_renewed_after_the_end(autojump_clock: Any) -> None:
    """Who waits is told; the background task is gone; a rejection is final."""
    issuer = Issuer()
    async with trio.open_nursery() as nursery, opened(issuer) as credentials:
        credentials.learn(exchange=True)
        token = await key_of(credentials)
        assert token is not None
        issuer.takes = 1000.0

        async def wait() -> None:
            with pytest.raises(CredentialError, match="was closed meanwhile"):
                await credentials.rejected({"x-api-key": token})

        nursery.start_soon(wait)
        await trio.sleep(1)
    assert len(issuer.keys) == 2
    await trio.sleep(10_000)
    assert len(issuer.keys) == 2
    assert not await credentials.rejected({"x-api-key": token})
    with pytest.raises(CredentialError, match="is closed; no token is renewed any more"):
        await credentials.headers()


async def test_the_bodys_exception_leaves_as_it_is(autojump_clock: Any) -> None:
    """Not in a group, although there is a task in the background."""
    with pytest.raises(KeyError, match="mine"):
        async with opened(Issuer()) as credentials:
            credentials.learn(exchange=True)
            await credentials.headers()
            raise KeyError("mine")
    with trio.move_on_after(1) as scope:
        async with opened(Issuer()):
            await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.requirement("R30")
async def test_two_services_never_mix_their_keys(autojump_clock: Any) -> None:
    """Each has its own key, its own token, its own renewals."""
    first, second = Issuer(), Issuer(life=1000.0)
    async with (
        opened(first, Secret("tml-first", "a")) as one,
        opened(second, Secret("tml-second", "b")) as two,
    ):
        one.learn(exchange=True)
        two.learn(exchange=True)
        for _ in range(50):
            assert await key_of(one) in first.tokens
            assert await key_of(two) in second.tokens
            await trio.sleep(333)
    assert set(first.keys) == {"tml-first"}
    assert set(second.keys) == {"tml-second"}
    assert len(second.keys) > len(first.keys) > 5


async def test_no_secret_is_shown(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Not in a repr, a log, or an error, whatever fails."""
    caplog.set_level(logging.DEBUG)
    issuer = Issuer()
    async with opened(issuer) as credentials:
        credentials.learn(exchange=True)
        token = await key_of(credentials)
        assert token is not None
        issuer.failures = [APIConnectionError("no way"), APIConnectionError("no way")]
        assert not await credentials.rejected({"x-api-key": token})
        await trio.sleep(3599)
        await credentials.headers()
        shown = repr(credentials) + repr(credentials._held)
    assert shown.startswith("<Credentials from api_key, exchanged>")
    assert len(caplog.records) == 2
    assert "hunter2" not in shown + caplog.text
