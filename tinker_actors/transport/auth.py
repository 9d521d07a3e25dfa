"""The key that requests go out with, and how it is renewed.

Theory of operation. `Credentials` holds one text at a time: an API key, what a command printed, or a token that the
service gave for one of them. `headers` gives it out, at once while it is good. Whatever takes time, a command or an
exchange, is done by one task for all who wait (a *flight*); who waits may leave, the flight goes on, and its failure is
told to each of them. A token is also renewed in the background after about half of its life; if that fails, the old one
serves while it lives. Closing ends the background task and every flight; nothing is renewed after that.

Which key, when, and what a token says is decided by `protocol.credential`. The exchange itself is a call of the
service, which is passed in; it must not ask these credentials for its headers.

A token is no secret less than a key: neither is in a repr, a message or a log.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import attrs
import trio

from tinker_actors.errors import AuthenticationError, CredentialError, TinkerActorsError
from tinker_actors.protocol.credential import (
    NEAR_EXPIRY,
    RETRY_PERIOD,
    Credential,
    CredentialCommand,
    Secret,
    is_token,
    parse_token,
    refresh_after,
    usable_key,
)

__all__ = [
    "KEY_HEADER",
    "Credentials",
    "Exchange",
    "open_credentials",
    "run_command",
]

_LOG = logging.getLogger("tinker_actors.transport")

KEY_HEADER = "x-api-key"
"""Where the key stands; never in `authorization`."""
_COMMAND_TIMEOUT = 120.0  # seconds; somebody may have to unlock something first

Exchange: TypeAlias = Callable[[str], Awaitable[str]]
"""Gives a token for a key."""


@attrs.frozen
class _Held:
    """What requests go out with, until when, and since when it has been known."""

    text: str = attrs.field(repr=False)
    expires: float = math.inf


@attrs.define(eq=False)
class _Flight:
    """One renewal under way."""

    done: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


class Credentials:
    """The key of one service; made by `open_credentials`.

    Args:
        credential: where the key comes from; None sends none.
        command: a command to use if the service says that keys come from one.
        exchange: gives a token for a key.
        nursery: where renewals run.
        rng: chance for the time of renewals.
        utc_now: the wall clock; a token's life is told by it.
    """

    def __init__(
        self,
        credential: Credential | None,
        command: CredentialCommand | None,
        exchange: Exchange,
        nursery: trio.Nursery,
        rng: random.Random,
        utc_now: Callable[[], datetime],
    ) -> None:
        self._credential = credential
        self._command = command
        self._exchange = exchange
        self._nursery = nursery
        self._rng = rng
        self._utc_now = utc_now
        self._exchanges = False
        self._refreshing = False
        self._closed = False
        self._flight: _Flight | None = None
        self._held: _Held | None = None
        self._headers: Mapping[str, str] = {}
        self._hold(self._without_waiting())

    def __repr__(self) -> str:
        origin = "nowhere" if self._credential is None else self._credential.origin
        return f"<Credentials from {origin}{', exchanged' if self._exchanges else ''}>"

    def _now(self) -> float:
        return self._utc_now().timestamp()

    def _hold(self, held: _Held | None) -> None:
        self._held = held
        self._headers = {} if held is None else {KEY_HEADER: held.text}

    def _without_waiting(self) -> _Held | None:
        """Return a key that can be used as it is."""
        if isinstance(self._credential, Secret) and not is_token(self._credential.value):
            return _Held(self._credential.value)
        return None

    def learn(self, *, exchange: bool, command: bool = False) -> None:
        """Take into account what the service says of its keys.

        Args:
            exchange: they are to be exchanged for tokens (`pjwt_auth_enabled`).
            command: they come from the command, if there is one (`credential_default_source`).
        """
        if command and self._command is not None and self._credential != self._command:
            self._credential = self._command
            self._hold(None)
        if exchange != self._exchanges and self._credential is not None:
            self._exchanges = exchange
            self._hold(None if exchange else self._without_waiting())

    @property
    def latest(self) -> Mapping[str, str]:
        """The headers that went out last; for those who cannot wait, in whatever thread they are."""
        return self._headers

    @property
    def ready(self) -> Mapping[str, str] | None:
        """The headers to send, if they need never be renewed; else None."""
        held = self._held
        is_lasting = self._credential is None or (held is not None and held.expires == math.inf)
        return self._headers if is_lasting else None

    async def headers(self) -> Mapping[str, str]:
        """Return the headers to send; no checkpoint while what is held is good.

        Raises:
            CredentialError: there is no key that can be used.
            TinkerError: the exchange failed and there is no token that lives.
        """
        ready, held = self.ready, self._held
        if ready is not None:
            return ready
        now = self._now()
        if held is None or held.expires - now <= NEAR_EXPIRY:
            try:
                await self._renew()
            except (AuthenticationError, CredentialError):
                raise
            except TinkerActorsError as error:
                if held is None or held.expires <= self._now():
                    raise
                _LOG.warning("the token was not renewed and is used to its end: %s", type(error).__name__)
        return self._headers

    async def rejected(self, sent: Mapping[str, str]) -> bool:
        """Say whether a request that was refused for its token is to be sent once more, with new `headers`.

        Only for a 401 that says so (`says_invalid_token`). However many requests were refused for one token, it is
        renewed once. Checkpoints unless that has been done already.

        Args:
            sent: the `headers` it went out with.

        Raises:
            AuthenticationError: the key itself is no longer taken.
            CredentialError: there is no key that can be used.
        """
        token = sent.get(KEY_HEADER)
        held = self._held
        if self._credential is None or self._closed:
            return False
        if held is not None and held.text != token:
            return True
        if isinstance(self._credential, Secret) and not self._exchanges:
            return False
        try:
            await self._renew()
        except (AuthenticationError, CredentialError):
            raise
        except TinkerActorsError as error:
            _LOG.warning("a token was refused and could not be renewed: %s", type(error).__name__)
            return False
        return self._held is not None and self._held.text != token

    def close(self) -> None:
        """Renew nothing any more."""
        self._closed = True
        self._nursery.cancel_scope.cancel()

    # --- renewing ----------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Wait for something newer than what is held; one flight for all who wait."""
        if self._closed:
            raise CredentialError("the connection to the service is closed; no token is renewed any more")
        flight = self._flight
        if flight is None:
            flight = self._flight = _Flight()
            self._nursery.start_soon(self._fly, flight)
        await flight.done.wait()
        if flight.error is not None:
            error = flight.error
            raise error.renewed() if isinstance(error, TinkerActorsError) else error

    async def _fly(self, flight: _Flight) -> None:
        try:
            self._hold(await self._fetch())
        except Exception as error:  # noqa: BLE001 - whoever waits for the flight raises it
            flight.error = error
        except trio.Cancelled:
            flight.error = CredentialError("the connection to the service was closed meanwhile")
            raise
        else:
            if self._exchanges and not self._refreshing:
                self._refreshing = True
                self._nursery.start_soon(self._refresh_for_ever)
        finally:
            self._flight = None
            flight.done.set()

    async def _fetch(self) -> _Held:
        while True:
            credential, exchanges = self._credential, self._exchanges
            assert credential is not None, "without one nothing is fetched"
            text, what = await self._key(credential), credential.origin
            if exchanges:
                text, what = await self._exchange(text), "the service's answer"
            expires = parse_token(text, what).expires if exchanges or is_token(text) else math.inf
            if (credential, exchanges) == (
                self._credential,
                self._exchanges,
            ):  # or the service has spoken meanwhile
                return _Held(text, expires)

    async def _key(self, credential: Credential) -> str:
        if isinstance(credential, Secret):
            await trio.lowlevel.checkpoint()
            text = credential.value
        else:
            text = await run_command(credential)
        return usable_key(text, credential.origin, self._now())

    # --- in the background -------------------------------------------------------------------------------

    async def _refresh_for_ever(self) -> None:
        """Renew the token after about half of its life, again and again.

        It ends when the service refuses the key and the token is near its end: from then on, whoever needs a token
        asks, and is told why there is none.
        """
        try:
            while self._exchanges:
                held = self._held
                await trio.sleep(self._wait_for(held))
                while self._held is held and self._exchanges:
                    if await self._failed_for_good(held):
                        return
                    if self._held is held:
                        await trio.sleep(RETRY_PERIOD)
        finally:
            self._refreshing = False

    def _wait_for(self, held: _Held | None) -> float:
        if held is None:
            return RETRY_PERIOD
        return refresh_after(parse_token(held.text), self._now(), self._rng.random())

    async def _failed_for_good(self, held: _Held | None) -> bool:
        try:
            await self._renew()
        except (AuthenticationError, CredentialError):
            return held is None or held.expires - self._now() <= NEAR_EXPIRY
        except Exception as error:  # noqa: BLE001 - the next attempt may succeed; who needs a token is told
            _LOG.info("a token was not renewed: %s; trying again in %g s", type(error).__name__, RETRY_PERIOD)
        return False


async def run_command(credential: CredentialCommand) -> str:
    """Run a command that prints a key, through the shell, and return what it prints.

    Raises:
        CredentialError: it cannot be run, it failed, or it took too long. What it printed is not shown.
    """
    origin = credential.origin
    try:
        with trio.fail_after(_COMMAND_TIMEOUT):
            done = await trio.run_process(credential.command, shell=True, capture_stdout=True, check=False)  # noqa: S604 - it is the user's own
    except trio.TooSlowError as error:
        raise CredentialError(f"{origin}: the command took more than {_COMMAND_TIMEOUT:g} s") from error
    except OSError as error:
        raise CredentialError(f"{origin}: the command cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise CredentialError(f"{origin}: the command ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "replace")


@contextlib.asynccontextmanager
async def open_credentials(
    credential: Credential | None,
    *,
    exchange: Exchange,
    rng: random.Random,
    command: str | None = None,
    utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[Credentials]:
    """Open the credentials of a service; leaving ends every renewal. The body's exception leaves as it is.

    Args:
        credential: where the key comes from; None sends none.
        exchange: gives a token for a key, by a call of the service.
        rng: chance for the time of renewals.
        command: a command to use if the service says that keys come from one.
        utc_now: the wall clock.
    """
    body: BaseException | None = None
    async with trio.open_nursery() as nursery:
        spare = CredentialCommand(command, "credential_command") if command else None
        credentials = Credentials(credential, spare, exchange, nursery, rng, utc_now)
        try:
            yield credentials
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised below, outside the nursery's group
            body = error
        credentials.close()
    try:
        if body is not None:
            raise body
    finally:
        del body  # or this frame and the traceback would keep each other alive
