"""The service itself: its health, what it offers, its flags for clients, who one is to it."""

from collections.abc import Mapping

import attrs

from tinker_actors.errors import InputError

__all__ = [
    "ApiKeyDetails",
    "ApiKeyResponse",
    "AuthTokenRequest",
    "AuthTokenResponse",
    "ClientConfigRequest",
    "ClientConfigResponse",
    "ClientDynamicConfigResponse",
    "Empty",
    "GetServerCapabilitiesResponse",
    "HealthResponse",
    "OrgDetails",
    "SupportedModel",
    "UserDetails",
    "WhoamiResponse",
]


@attrs.frozen
class Empty:
    """No fields."""


@attrs.frozen
class HealthResponse:
    """The service answers."""

    status: str  # `ok`, or some other good word


@attrs.frozen(kw_only=True)
class SupportedModel:
    """One model a service offers."""

    model_name: str | None = None
    max_context_length: int | None = None
    trainable: bool | None = None
    sampleable: bool | None = None


@attrs.frozen
class GetServerCapabilitiesResponse:
    """What a service offers."""

    supported_models: tuple[SupportedModel, ...]


# --- flags for clients -----------------------------------------------------------------------------------


@attrs.frozen
class ClientConfigRequest:
    """Asks for the flags a service sets for its clients, those that stay or those that may change."""

    sdk_version: str


@attrs.frozen(kw_only=True)
class ClientConfigResponse:
    """A service's flags for its clients, asked for once; defaults are tinker 0.38.0 types/client_config_response.py.

    Attributes:
        pjwt_auth_enabled: exchange the credential for a token.
        credential_default_source: `credential_cmd` has the exchange use the credential command.
        sample_dispatch_bytes_semaphore_size: bytes of samples being submitted at once.
        inflight_response_bytes_semaphore_size: bytes of large results being fetched at once.
        parallel_fwdbwd_chunks: the chunks of a batch may be submitted together.
        proto_compress_fwdbwd: compress training bodies by zstd.
        fwdbwd_max_chunk_len: datums per request.
        fwdbwd_max_chunk_bytes_count: estimated bytes per request.
        fwdbwd_dispatch_bytes_semaphore_size: estimated bytes of chunks being submitted at once.
        billing_exception_max_pause_duration_sec: how long a 402 is waited for.
        sample_no_retries: samples are not repeated after a failure.
        sample_enable_stuck_detection: samples that make no progress are given up.
        sample_max_concurrent_requests: samples in flight.
        use_pyqwest_transport: means something to the official client alone.
        sample_use_retrieve_futures: poll for all samples at once.
        custom_loss_server_side: losses may be uploaded.
        sample_join_sampling_session: copies of a sampling client ask for numbers of their own.
        sequence_dedupe: what the service does with a repeated number; our own services say `replay`. This and the
            rest are extensions of this package: None, the service does not say.
        training_body: the form it takes gradient requests in.
        newer_fields: it takes fields that came after version 0.24 of the official client.
        early_numbers: what it does with a number before its turn; our own services say `park`, they keep it.
        restart_ends_models: a model that was there before a restart of the service is never answered for after it; so
            say our own services.
        session_timeout: seconds that a session lives without a beat.
    """

    pjwt_auth_enabled: bool = False
    credential_default_source: str = "api_key"
    sample_dispatch_bytes_semaphore_size: int = 10 * 1024 * 1024
    inflight_response_bytes_semaphore_size: int = 50 * 1024 * 1024
    parallel_fwdbwd_chunks: bool = True
    proto_compress_fwdbwd: bool = False
    fwdbwd_max_chunk_len: int = 1024
    fwdbwd_max_chunk_bytes_count: int = 5_000_000
    fwdbwd_dispatch_bytes_semaphore_size: int = 50_000_000
    billing_exception_max_pause_duration_sec: float = 3600
    sample_no_retries: bool = False
    sample_enable_stuck_detection: bool = True
    sample_max_concurrent_requests: int = 2000
    use_pyqwest_transport: bool = True
    sample_use_retrieve_futures: bool = False
    custom_loss_server_side: bool = False
    sample_join_sampling_session: bool = False
    sequence_dedupe: str | None = None  # words, not literals: a newer service may know others
    training_body: str | None = None
    newer_fields: bool | None = None
    early_numbers: str | None = None
    restart_ends_models: bool | None = None
    session_timeout: float | None = None


@attrs.frozen(kw_only=True)
class ClientDynamicConfigResponse:
    """A service's flags that may change; defaults are tinker 0.38.0 types/client_dynamic_config_response.py.

    Attributes:
        refresh_interval_sec: ask again after so many seconds.
        sample_cancel_enabled: tell the service of samples that nobody waits for any more.
        sample_cancel_max_batch_size: of so many at once.
    """

    refresh_interval_sec: float = 300
    sample_cancel_enabled: bool = False
    sample_cancel_max_batch_size: int = 64


# --- who one is ------------------------------------------------------------------------------------------


@attrs.frozen
class AuthTokenRequest:
    """Exchanges the credential that the request carries for a token; an object without fields."""


@attrs.frozen
class AuthTokenResponse:
    """The token."""

    jwt: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class OrgDetails:
    """The organization of an API key."""

    name: str | None = None


@attrs.frozen(kw_only=True)
class UserDetails:
    """The user of an API key."""

    email: str | None = None


@attrs.frozen(kw_only=True)
class ApiKeyDetails:
    """Whose an API key is."""

    org_details: OrgDetails | None = None
    user_details: UserDetails | None = None


@attrs.frozen(kw_only=True)
class ApiKeyResponse:
    """What the service knows of an API key, without the key."""

    key_id: int
    name: str | None = None
    note: str | None = None
    details: ApiKeyDetails | None = None


@attrs.frozen(kw_only=True)
class WhoamiResponse:
    """Who one is, as the token has it.

    Attributes:
        user_urn: the user.
        org_urn: the organization.
        email: the user's address.
    """

    user_urn: str
    org_urn: str
    email: str | None = None

    @classmethod
    def from_claims(cls, claims: Mapping[str, object]) -> "WhoamiResponse":
        """Read the claims of a token.

        Raises:
            InputError: it does not say who the user and the organization are.
        """
        for name in ("sub", "org_id"):
            if not isinstance(claims.get(name), str):
                raise InputError(f"claims[{name!r}]", claims.get(name), "must be a string")
        email = claims.get("email")
        return cls(
            user_urn=str(claims["sub"]),
            org_urn=f"tml:organization:{claims['org_id']}",
            email=email if isinstance(email, str) else None,
        )
