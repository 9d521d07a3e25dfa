"""Which backend it is, and why. Pure, but for stored keys.

An explicit argument; else a base URL (argument, then `TINKER_BASE_URL`); else a key, or a command that prints one
(arguments, then `TINKER_API_KEY`, then `TINKER_CREDENTIAL_CMD`), means the Tinker service; else the embedded one.
`TINKER_ACTORS_EMBEDDED=never` forbids the embedded one.

Keys that are stored in the user's home go to the Tinker service only, and do not choose it by themselves: nobody finds
a programme on a paid service because of a file.
"""

from __future__ import annotations

from typing import NoReturn

import attrs

from tinker_actors.errors import ConfigError
from tinker_actors.protocol.capability import TINKER_SERVICE, record_for
from tinker_actors.protocol.credential import Credential, Secret, choose_credential
from tinker_actors.transport.config import Environment, check_base_url, normal_url
from tinker_actors.transport.credential_file import load_credentials

__all__ = ["Backend", "choose_backend"]


@attrs.frozen
class Backend:
    """What was chosen.

    Attributes:
        base_url: where it is; None is the embedded service.
        api_key: the secret.
        why: the reason, for the user.
        credential_command: prints the secret.
    """

    base_url: str | None
    api_key: str | None = attrs.field(repr=False)
    why: str
    credential_command: str | None = attrs.field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What a run notes of it, and compares: a URL as it is compared, or `local`."""
        return "local" if self.base_url is None else normal_url(self.base_url)

    @property
    def line(self) -> str:
        """One line that says which backend it is and why."""
        what = "the embedded service" if self.base_url is None else self.base_url
        return f"tinker_actors: using {what}, because {self.why}"


def choose_backend(
    backend: str | None,
    base_url: str | None,
    api_key: str | None,
    environment: Environment,
    command: str | None = None,
) -> Backend:
    """Choose the backend; see the module.

    Args:
        backend: `local`, `tinker`, or a base URL.
        base_url: where the service is.
        api_key: the key for it.
        environment: what the environment says.
        command: prints the key.

    Raises:
        ConfigError: arguments that contradict each other, what is no URL, or no backend at all.
        InputError: a key that does not look like one.
        CredentialError: the stored keys cannot be read.
    """
    if backend is not None and base_url is not None:
        raise ConfigError(f"backend = {backend!r} and base_url = {base_url!r}: give one of them")
    if backend == "local":
        return _embedded("backend='local' was given", environment)
    credential = choose_credential(
        argument=api_key,
        variable=None if command else environment.api_key,  # an argument wins over the environment
        command=command or environment.credential_command,
        command_origin="credential_command" if command else "TINKER_CREDENTIAL_CMD",
    )
    if backend is not None and backend != "tinker" and "://" not in str(backend):
        _refuse_backend(backend)
    for name, url in (
        ("backend", TINKER_SERVICE if backend == "tinker" else backend),
        ("base_url", base_url),
        ("TINKER_BASE_URL", environment.base_url),
    ):
        if url is not None:
            return _remote(check_base_url(name, url), f"{name} is set", credential, command, environment)
    if credential is not None:
        return _remote(TINKER_SERVICE, f"{credential.origin} is set", credential, command, environment)
    return _embedded("neither TINKER_BASE_URL nor TINKER_API_KEY is set", environment)


def _refuse_backend(backend: object) -> NoReturn:
    if str(backend).startswith(("tml-", "eyJ")):  # it is not shown
        raise ConfigError("backend: a key is given as api_key")
    raise ConfigError(f"backend = {backend!r}: must be 'local', 'tinker' or a URL")


def _remote(
    url: str, why: str, credential: Credential | None, command: str | None, environment: Environment
) -> Backend:
    if (
        credential is None
        and record_for(url).service == "tinker"
        and environment.credentials_path is not None
    ):
        stored = load_credentials(environment.credentials_path).default_key
        credential = choose_credential(stored=stored)
    key = credential.value if isinstance(credential, Secret) else None
    return Backend(url, key, why, command or environment.credential_command)


def _embedded(why: str, environment: Environment) -> Backend:
    if environment.embedded == "never":
        raise ConfigError(f"TINKER_ACTORS_EMBEDDED = 'never' forbids the embedded service, yet {why}")
    if environment.embedded is not None:
        raise ConfigError(
            f"TINKER_ACTORS_EMBEDDED = {environment.embedded!r}: the only value it takes is 'never'"
        )
    return Backend(None, None, why)
