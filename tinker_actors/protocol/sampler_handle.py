"""Handles of sampling clients: a line of text from which another process makes a client of the same weights. Pure.

It is JSON in base64url, with the names that the official client has (tinker 0.38.0 sampling_client.py), whose handles
are read as well. No key is in it: who reads it brings his own.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, cast

import attrs
import orjson

from tinker_actors.errors import InputError

__all__ = ["SamplerHandle", "read_handle", "write_handle"]


@attrs.frozen(kw_only=True)
class SamplerHandle:
    """What a handle says.

    Attributes:
        session_id: the session that the sampling session belongs to.
        sampling_session_id: what is sampled from; it lives as long as its session.
        base_model: the model; empty if it is not known.
        base_url: where the service is.
        record_stability_info: samples are recorded for `stable_reinforce`.
    """

    session_id: str
    sampling_session_id: str
    base_model: str = ""
    base_url: str = ""
    record_stability_info: bool = False


def write_handle(handle: SamplerHandle) -> str:
    """Return the text of a handle."""
    return base64.urlsafe_b64encode(orjson.dumps(attrs.asdict(handle))).decode("ascii")


def read_handle(text: str) -> SamplerHandle:
    """Read a handle.

    Raises:
        InputError: a text that is none; what was given is not shown in full.
    """
    fields = _fields(text)
    base_url = fields.get("base_url") or _object(fields.get("holder")).get("base_url")
    return SamplerHandle(
        session_id=_string(text, fields, "session_id"),
        sampling_session_id=_string(text, fields, "sampling_session_id"),
        base_model=str(fields.get("base_model") or ""),
        base_url=str(base_url or ""),
        record_stability_info=fields.get("record_stability_info") is True,
    )


def _fields(text: object) -> dict[str, Any]:
    if not isinstance(text, str):
        raise InputError("handle", text, "must be a string from get_sampler_handle")
    try:
        fields: object = orjson.loads(base64.b64decode(text.encode("utf-8"), altchars=b"-_", validate=True))
    except (binascii.Error, orjson.JSONDecodeError) as error:
        raise InputError(
            "handle", text, "must come from get_sampler_handle: it is no JSON in base64"
        ) from error
    if not isinstance(fields, dict):
        raise InputError("handle", text, "must come from get_sampler_handle: it holds no object")
    return _object(cast("object", fields))


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _string(text: str, fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise InputError("handle", text, f"must come from get_sampler_handle: it has no {name}")
    return value
