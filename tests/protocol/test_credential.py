"""Keys, tokens, and the file that keys are stored in. `hunter2` is what must never be shown."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import CredentialError, InputError
from tinker_actors.protocol.credential import (
    NEAR_EXPIRY,
    CredentialCommand,
    CredentialsFile,
    Secret,
    StoredKey,
    Token,
    choose_credential,
    parse_token,
    read_credentials,
    refresh_after,
    says_invalid_token,
    usable_key,
    write_credentials,
)

KEY = "tml-hunter2"


def encoded(data: bytes) -> str:
    """Return base64 as JWTs have it: for URLs, and without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt(claims: object) -> str:
    """Make a JWT with a secret for a signature."""
    body = claims if isinstance(claims, bytes) else orjson.dumps(claims)
    head = encoded(b'{"alg":"x"}')
    return f"{head}.{encoded(body)}.hunter2"


# --- which key -------------------------------------------------------------------------------------------


@pytest.mark.requirement("R26")
@pytest.mark.parametrize(
    ("given_keys", "chosen"),
    [
        ({}, None),
        ({"argument": "", "variable": "", "command": "", "stored": ""}, None),
        (
            {"argument": "tml-a", "variable": "tml-b", "command": "c", "stored": "tml-d"},
            Secret("tml-a", "api_key"),
        ),
        ({"variable": "tml-b", "command": "c", "stored": "tml-d"}, Secret("tml-b", "TINKER_API_KEY")),
        ({"command": "c", "stored": "tml-d"}, CredentialCommand("c", "TINKER_CREDENTIAL_CMD")),
        ({"stored": "tml-d"}, Secret("tml-d", "the stored credentials")),
        ({"argument": "eyJa.b.c"}, Secret("eyJa.b.c", "api_key")),
        ({"argument": "sk-1", "command": "c"}, CredentialCommand("c", "TINKER_CREDENTIAL_CMD")),
        ({"variable": "sk-1", "command": "c"}, CredentialCommand("c", "TINKER_CREDENTIAL_CMD")),
        (
            {"variable": "sk-1", "command": "c", "command_origin": "credential_command"},
            CredentialCommand("c", "credential_command"),
        ),
    ],
)
def test_the_first_key_that_there_is_wins(given_keys: dict[str, Any], chosen: Any) -> None:
    """Argument, variable, command, stored; a key that is none gives way to a command, and to nothing else."""
    assert choose_credential(**given_keys) == chosen


@pytest.mark.lesson("D48")
@pytest.mark.requirement("R28")
@pytest.mark.parametrize(
    ("given_keys", "field"),
    [
        ({"argument": "sk-hunter2", "variable": "tml-b"}, "api_key"),
        ({"variable": "sk-hunter2", "stored": "tml-d"}, "TINKER_API_KEY"),
        ({"argument": b"tml-hunter2"}, "api_key"),
        ({"stored": "hunter2"}, "the stored credentials"),
    ],
)
def test_a_key_that_is_none_is_refused_with_the_rule(given_keys: dict[str, Any], field: str) -> None:
    """The message says how a key begins, and not what it is."""
    with pytest.raises(InputError) as caught:
        choose_credential(**given_keys)
    assert caught.value.field == field
    assert "an API key" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_what_a_command_prints_is_a_key_or_an_error() -> None:
    """White space around it is dropped; empty, a password and an ended token are refused."""
    good = jwt({"exp": 1000})
    assert usable_key(" tml-a\n", "it", 0.0) == "tml-a"
    assert usable_key(good + "\n", "it", 999.0) == good
    for text, why in {
        "": "it gave no key: what it printed is empty",
        " \n\t": "empty",
        "hunter2": "it has 7 characters",
        "tml-hunter2 tml-b": "it gave no key",
        good: "it is a token that expired 500 s ago",
        "eyJhunter2": "not a JWT",
    }.items():
        with pytest.raises(CredentialError, match=why) as caught:
            usable_key(text, "it", 1500.0)
        assert "hunter2" not in str(caught.value)
        assert caught.value.started is False


# --- tokens ----------------------------------------------------------------------------------------------


def test_a_token_says_when_it_ends() -> None:
    """And when it began, and whom it is for; numbers may have fractions."""
    token = parse_token(jwt({"exp": 2000.5, "iat": 1000, "sub": "me"}))
    assert (token.expires, token.issued, token.claims["sub"]) == (2000.5, 1000.0, "me")
    assert parse_token(jwt({"exp": 2000})).issued is None
    assert [token.lives(now) for now in (1999.0, 2000.5, 2001.0)] == [True, False, False]
    assert [token.is_near_expiry(now) for now in (1940.4, 1940.5, 3000.0)] == [False, True, True]
    assert token.remaining(2000.0) == 0.5


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a JWT: it has 1 parts and 0 characters"),
        ("eyJ", "not a JWT"),
        ("eyJ.hunter2", "it has 2 parts"),
        ("eyJ.a.b.c", "it has 4 parts"),
        ("eyJ.h\u00fcnter2.x", "not a JWT"),
        ("eyJ." + "a" * 70_000 + ".x", "characters"),
        ("eyJ.hunter2!.x", "its claims are not JSON in base64"),
        ("eyJ.a.x", "its claims are not JSON in base64"),
        (jwt(b"hunter2"), "its claims are not JSON in base64"),
        (jwt(b"\xff\xfe"), "its claims are not JSON in base64"),
        (jwt(["hunter2"]), "its claims are a list"),
        (jwt({}), "a JWT without 'exp'"),
        (jwt({"exp": None}), "a JWT without 'exp'"),
        (jwt({"exp": "hunter2"}), "the claim 'exp' must be a number, and is a str"),
        (jwt({"exp": True}), "the claim 'exp' must be a number, and is a bool"),
        (jwt({"exp": 1, "iat": ["hunter2"]}), "the claim 'iat' must be a number, and is a list"),
    ],
    ids=str,
)
def test_what_is_no_token_is_refused_and_not_shown(text: str, why: str) -> None:
    """The message says what is wrong; what it quotes is the type."""
    with pytest.raises(CredentialError, match=why) as caught:
        parse_token(text, "the answer")
    assert str(caught.value).startswith("the answer: ") or "without 'exp'" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(
    st.text()
    | st.builds(jwt, st.binary(max_size=40))
    | st.builds(
        jwt,
        st.dictionaries(
            st.sampled_from(["exp", "iat"]), st.floats() | st.integers(-(2**63), 2**63) | st.text(max_size=3)
        ),
    )
)
def test_any_text_is_a_token_or_a_typed_error(text: str) -> None:
    """Nothing else gets out, whatever a service or a command says."""
    try:
        token = parse_token(text)
    except CredentialError:
        return
    assert token.text == text
    assert refresh_after(token, 0.0, 0.5) >= 1


@given(st.floats(61, 1e7), st.floats(0, 2e9), st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_token_is_renewed_after_about_half_of_its_life(
    life: float, now: float, chance: float, says_when: bool
) -> None:
    """0.45 to 0.55 of it, and never so late that others have to wait for it; never in a busy loop."""
    token = Token("eyJ", now + life, now if says_when else None, {})
    life = token.expires - now
    wait = refresh_after(token, now, chance)
    assert wait >= 1.0
    assert wait <= max(1.0, 0.55 * life + 1e-3)
    if life > 200:
        assert wait >= 0.45 * life - 1e-3
    if wait > 1.0:
        assert token.remaining(now + wait) >= NEAR_EXPIRY - 1e-3


def test_the_time_to_renew_scales_with_the_life() -> None:
    """An hour's token after half an hour; one that came late sooner; one that is ending after a second."""
    hour = Token("eyJ", 3600.0, 0.0, {})
    assert refresh_after(hour, 0.0, 0.0) == pytest.approx(1620)
    assert refresh_after(hour, 0.0, 0.5) == pytest.approx(1800)
    assert refresh_after(hour, 3000.0, 0.5) == pytest.approx(540)
    assert refresh_after(hour, 3590.0, 0.5) == 1.0


@pytest.mark.parametrize(
    ("header", "invalid"),
    [
        (None, False),
        ("", False),
        ("Bearer", False),
        ('Bearer error="invalid_token"', True),
        ('Bearer realm="x", error="invalid_token", error_description="expired"', True),
        ('bearer ERROR = "Invalid_Token"', True),
        ("Bearer error=invalid_token", True),
        ("Bearer error=invalid_token_format", False),
        ('Bearer error="invalid_request"', False),
        ('Bearer my_error="invalid_token"', False),
        ('Bearer x-error="invalid_token"', False),
        ("invalid_token", False),
    ],
)
def test_only_a_marked_401_says_that_the_token_ended(header: str | None, invalid: bool) -> None:
    """Other reasons are no use to try again for."""
    assert says_invalid_token(header) is invalid


# --- the file --------------------------------------------------------------------------------------------

FILE = CredentialsFile(
    {
        "1": StoredKey(key="tml-hunter2-a", name="laptop"),
        "2": StoredKey(
            key="tml-hunter2-b",
            type="generated",
            name="cluster",
            note="for hunter2",
            rest={"details": {"org_details": {"name": "o"}, "user_details": {"email": "e"}}},
        ),
    },
    "2",
)


def test_the_file_is_tinkers() -> None:
    """Version, default, and what is known of each key; what we do not know of stays."""
    data = write_credentials(FILE)
    assert orjson.loads(data) == {
        "version": 1,
        "default": "2",
        "keys": {
            "1": {"type": "manual", "key": "tml-hunter2-a", "name": "laptop"},
            "2": {
                "type": "generated",
                "key": "tml-hunter2-b",
                "name": "cluster",
                "note": "for hunter2",
                "details": {"org_details": {"name": "o"}, "user_details": {"email": "e"}},
            },
        },
    }
    assert read_credentials(data) == FILE
    assert FILE.default_key == "tml-hunter2-b"
    assert read_credentials(write_credentials(CredentialsFile())) == CredentialsFile()
    assert CredentialsFile().default_key is None


def entry(**changes: Any) -> bytes:
    """Make a file with one key, and a part of it changed."""
    return orjson.dumps(
        {"version": 1, "default": "a", "keys": {"a": {"type": "manual", "key": KEY, "name": "n"} | changes}}
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"hunter2", "not JSON"),
        (b"[]", r"\$ must be an object, and is a list"),
        (b"{}", r"\$.version must be 1"),
        (b'{"version": 2}', r"\$.version must be 1"),
        (b'{"version": 1, "keys": "hunter2"}', r"\$.keys must be an object, and is a str"),
        (b'{"version": 1, "keys": {"a": "hunter2"}}', r"\$.keys\['a'\] must be an object"),
        (b'{"version": 1, "default": "hunter2"}', r"\$.default must be the id of a key"),
        (b'{"version": 1, "default": ["hunter2"]}', r"\$.default must be the id of a key"),
        (entry(key="sk-hunter2"), r"\$.keys\['a'\].key must start with"),
        (entry(key=7), r"\$.keys\['a'\].key must start with"),
        (entry(name=["hunter2"]), "name and note must be text"),
        (entry(note=7), "name and note must be text"),
        (entry(type="hunter2"), "type must be 'manual' or 'generated'"),
    ],
)
def test_what_is_no_such_file_is_refused_and_not_shown(data: bytes, why: str) -> None:
    """With the path of what is wrong."""
    with pytest.raises(CredentialError, match=why) as caught:
        read_credentials(data)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers(-9, 9) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["version", "default", "keys", "a", "key"]), inner, max_size=3)
        ),
    ).map(orjson.dumps)
)
def test_any_bytes_are_a_file_or_a_typed_error(data: bytes) -> None:
    """A file that was cut off, or of somebody else."""
    with contextlib.suppress(CredentialError):
        read_credentials(data)


def test_nothing_shows_its_secret() -> None:
    """Not in the repr of whatever holds it."""
    holders = [
        Secret(KEY, "api_key"),
        CredentialCommand("echo hunter2", "TINKER_CREDENTIAL_CMD"),
        parse_token(jwt({"exp": 1, "sub": "hunter2"})),
        FILE,
        *FILE.keys.values(),
    ]
    for holder in [*holders[:3], FILE.keys["1"]]:
        assert "hunter2" not in repr(holder) + str(holder)
        assert "..." in repr(holder)
    assert "tml-" not in repr(holders)
