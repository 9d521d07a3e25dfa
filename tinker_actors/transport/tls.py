"""TLS: one context for all connections of a service, and the handshake.

Whom we trust is read once, when the configuration is made: `SSL_CERT_FILE` and `SSL_CERT_DIR` if the environment has
them, else the certificates that certifi brings. A context of the caller's own is used as it is.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import attrs
import certifi
import httpx
import trio

from tinker_actors.errors import ConfigError

__all__ = ["Trust", "make_ssl_context", "start_tls"]


@attrs.frozen(kw_only=True)
class Trust:
    """Where the certificates of trusted authorities lie.

    Attributes:
        file: one file with many, in PEM.
        directory: a directory with one each, by hash.
    """

    file: str | None = None
    directory: str | None = None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> Trust:
        """Read `SSL_CERT_FILE` and `SSL_CERT_DIR`; empty counts as unset."""
        return cls(file=values.get("SSL_CERT_FILE") or None, directory=values.get("SSL_CERT_DIR") or None)


def make_ssl_context(trust: Trust | None = None) -> ssl.SSLContext:
    """Make the context that all connections share; reading the certificates takes some 10 ms.

    Raises:
        ConfigError: the certificates cannot be read.
    """
    trust = trust or Trust()
    file = trust.file if trust.file or trust.directory else certifi.where()
    try:
        context = ssl.create_default_context(cafile=file, capath=trust.directory)
    except (OSError, ssl.SSLError) as error:
        shown = f"SSL_CERT_FILE = {trust.file!r}, SSL_CERT_DIR = {trust.directory!r}"
        raise ConfigError(f"{shown}: no certificates can be read there: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


async def start_tls(
    stream: trio.abc.Stream, context: ssl.SSLContext, server_name: str, peer: str
) -> trio.SSLStream[trio.abc.Stream]:
    """Encrypt a connection. Checkpoints. A stream whose handshake fails is the caller's to close.

    Args:
        stream: connected.
        context: whom to trust.
        server_name: what the server's certificate must be for; sent to it as SNI.
        peer: how messages name the other side.

    Raises:
        httpx.ConnectError: the handshake failed; the text says why and what may help.
    """
    try:
        encrypted = trio.SSLStream(stream, context, server_hostname=server_name, https_compatible=True)
        await encrypted.do_handshake()
    except (trio.BrokenResourceError, ssl.SSLError, ValueError, OSError) as error:
        raise httpx.ConnectError(f"TLS with {peer} failed: {_explain(error)}") from error
    return encrypted


def _explain(error: BaseException) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        hint = "SSL_CERT_FILE, SSL_CERT_DIR or ssl_context say whom to trust"
        return f"its certificate is not accepted: {cause.verify_message} ({hint})"
    if isinstance(cause, ssl.SSLError):
        return cause.reason or str(cause)
    return str(cause) or "the connection was closed"
