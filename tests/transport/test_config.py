from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.errors import ConfigError, InputError
from tinker_actors.transport.config import (
    TINKER_SERVICE,
    Config,
    Environment,
    check_api_key,
    check_base_url,
    normal_url,
)
from tinker_actors.transport.head import Origin
from tinker_actors.transport.proxy import ProxyRules


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("https://host/path/", "https://host/path"),
        ("https://host//", "https://host"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("HTTP://host", "HTTP://host"),
        (TINKER_SERVICE, TINKER_SERVICE),
    ],
)
def test_a_base_url_loses_its_last_slash(url: str, checked: str) -> None:
    """Paths are put behind it."""
    assert check_base_url("base_url", url) == checked


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:8000", "must start with http:// or https://"),
        ("host", "must start with http:// or https://"),
        ("", "must start with http:// or https://"),
        ("ftp://host", "must start with http:// or https://"),
        ("http://", "must start with http:// or https://"),
        (" http://host", "must start with http:// or https://"),
        ("http://host:port", "not a URL"),
        ("http://ho\nst", "not a URL"),
        (None, "not a URL"),
        (3, "not a URL"),
        ("http://host:99999", "the port must be in 1 to 65535"),
        ("http://host:0", "the port must be in 1 to 65535"),
        ("http://host?x=1", "must have no query, no fragment and no spaces"),
        ("http://host/#a", "must have no query, no fragment and no spaces"),
        ("http://host/ a", "must have no query, no fragment and no spaces"),
    ],
)
def test_what_is_no_base_url_is_refused_with_its_field_and_value(url: Any, why: str) -> None:
    """Before a connection is tried."""
    with pytest.raises(ConfigError) as caught:
        check_base_url("TINKER_BASE_URL", url)
    assert str(caught.value).startswith(f"TINKER_BASE_URL = {url!r}: {why}")


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@host/", "https://:hunter2@host", "https://me:hunter2@host:port"]
)
def test_a_password_in_a_url_is_refused_and_not_shown(url: str) -> None:
    """It would stand in every message about the service."""
    with pytest.raises(ConfigError, match="base_url = ") as caught:
        check_base_url("base_url", url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["tml-0123456789", "eyJhbGciOi.a.b", "tml-"])
def test_keys_and_tokens_pass(key: str) -> None:
    """By how they begin."""
    assert check_api_key("api_key", key) == key


@pytest.mark.lesson("D48")
@pytest.mark.parametrize(
    "key",
    ["", "sk-hunter2", "tml hunter2", "tml-hunter2 ", "tml-hunter2\n", "tml-hünter2", "tml-hunter2\x7f"],
)
def test_what_is_no_key_is_refused_and_not_shown(key: str) -> None:
    """Only its length is told: it may be a password that was pasted into the wrong place."""
    with pytest.raises(InputError) as caught:
        check_api_key("TINKER_API_KEY", key)
    assert caught.value.field == "TINKER_API_KEY"
    assert caught.value.value == f"({len(key)} characters)"
    assert "unter2" not in str(caught.value)


def test_a_key_of_another_type_is_refused() -> None:
    """By its type, not by an AttributeError."""
    key: Any = b"tml-hunter2"
    with pytest.raises(InputError, match="api_key = 'bytes': an API key is a string"):
        check_api_key("api_key", key)


@given(st.text())
def test_no_text_gets_into_a_header_that_does_not_belong_there(key: str) -> None:
    """What passes has neither line breaks nor anything but printable ASCII."""
    try:
        check_api_key("api_key", key)
    except InputError:
        return
    assert key.isascii()
    assert key.isprintable()


def test_the_key_is_never_shown() -> None:
    """Not in the repr of what holds it."""
    config = Config(base_url="http://host", api_key="tml-hunter2")
    environment = Environment.read({"TINKER_API_KEY": "tml-hunter2", "TINKER_BASE_URL": "http://host"})
    assert environment.api_key == "tml-hunter2"
    assert "hunter2" not in repr(config) + repr(environment)


NAMES = (
    "TINKER_BASE_URL",
    "TINKER_API_KEY",
    "TINKER_ACTORS_EMBEDDED",
    "TINKER_CREDENTIAL_CMD",
    "TINKER_PROJECT_ID",
    "TINKER_TAGS",
    "TINKER_TELEMETRY",
    "CLOUDFLARE_ACCESS_CLIENT_ID",
    "CLOUDFLARE_ACCESS_CLIENT_SECRET",
    "HOME",
)


@pytest.mark.requirement("R26", "R29")
def test_empty_variables_are_as_good_as_unset() -> None:
    """These variables are read, and no others."""
    assert Environment.read({}) == Environment.read(dict.fromkeys(NAMES, "")) == Environment()
    values = {name: name.lower() for name in NAMES}
    assert Environment.read(values | {"TINKER_OTHER": "x"}) == Environment(
        base_url="tinker_base_url",
        api_key="tinker_api_key",
        embedded="tinker_actors_embedded",
        credential_command="tinker_credential_cmd",
        project_id="tinker_project_id",
        tags=("tinker_tags",),
        telemetry=False,
        access={
            "CF-Access-Client-Id": "cloudflare_access_client_id",
            "CF-Access-Client-Secret": "cloudflare_access_client_secret",
        },
        credentials_path=Path("home/.tinker/credentials.json"),
    )


def test_tags_are_cut_at_commas() -> None:
    """Without the spaces around them; empty ones are none."""
    assert Environment.read({"TINKER_TAGS": " a, b,,c d ,"}).tags == ("a", "b", "c d")


@pytest.mark.parametrize(
    ("text", "on"),
    [("1", True), ("true", True), ("YES", True), ("On", True), ("0", False), ("no", False), ("2", False)],
)
def test_telemetry_is_on_for_the_words_that_say_so(text: str, on: bool) -> None:
    """As in the official client."""
    assert Environment.read({"TINKER_TELEMETRY": text}).telemetry is on


@pytest.mark.requirement("R127")
def test_the_defaults_are_these() -> None:
    """Beats every 10 s with a warning at 120, 15 minutes of blocking, 400 samples, 30 s of grace."""
    assert attrs.asdict(Config(base_url="http://host"), recurse=False) == {
        "base_url": "http://host",
        "api_key": None,
        "credential_command": None,
        "project_id": None,
        "capability": None,
        "dedupe": None,
        "training_body": None,
        "session_timeout": None,
        "noise": None,
        "check_optimizer": True,
        "telemetry": None,
        "user_metadata": {},
        "tags": (),
        "heartbeat": "thread",
        "heartbeat_period": 10.0,
        "heartbeat_warn_after": 120.0,
        "max_block": 900.0,
        "connect_timeout": 5.0,
        "max_samples": 400,
        "sampling_actors": 8,
        "promise_timeout": None,
        "outage_timeout": None,
        "batch_polls": None,
        "replay_bytes": 256 * 2**20,
        "grace": 30.0,
        "headers": {},
        "query": {},
        "timeout": 60.0,
        "max_retries": 10,
        "strict": False,
        "pool": "own",
        "proxy": ProxyRules(),
        "ssl_context": None,
        "hooks": None,
        "auth": None,
    }


BAD: dict[str, list[Any]] = {
    "project_id": ["", " ", 7],
    "capability": ["skyrll", 1, ["tuft"]],
    "dedupe": ["repeat", True, 1],
    "training_body": ["xml", 1],
    "session_timeout": [0, -1.0, math.nan, "4", True],
    "noise": [-0.1, 1, math.nan, "0", True],
    "check_optimizer": [1, None],
    "telemetry": ["yes", 1],
    "user_metadata": [None, [("a", "b")], {"a": 1}, {1: "a"}],
    "tags": ["abc", None, ("a", 1)],
    "heartbeat": ["process", None],
    "heartbeat_period": [0, -1.0, math.nan, "10", None, True],
    "heartbeat_warn_after": [0, -1.0, math.nan, "10", None],
    "max_block": [0, -1.0, math.nan, "10", None],
    "connect_timeout": [0, -1.0, math.nan, "10", None],
    "max_samples": [0, -1, 1.5, True, "4", None],
    "sampling_actors": [0, -1, 1.5, True, "4", None],
    "promise_timeout": [0, -1.0, "4", True],
    "outage_timeout": [-1, "4", True],
    "batch_polls": [1, "yes"],
    "replay_bytes": [-1, 1.5, "4", None],
    "grace": [-1, math.nan, "4", None, True],
    "query": [None, "a=1"],
    "timeout": [0, -1.0, math.nan, "10", True],
    "max_retries": [-1, 1.5, True, False, "4", None],
    "strict": [1, None],
    "pool": ["other", None],
    "ssl_context": [True, "file"],
    "hooks": [print],
    "auth": [1],
}


def test_every_setting_is_checked() -> None:
    """All but the key, which is checked where it is chosen, and what has rules of its own, or is not shown."""
    assert set(BAD) == {field.name for field in attrs.fields(Config)} - {
        "base_url",
        "api_key",
        "credential_command",
        "headers",
        "proxy",
    }


@pytest.mark.parametrize("command", ["", " ", 7, ["echo hunter2"]])
def test_a_bad_command_is_refused_and_not_shown(command: Any) -> None:
    """It may hold a key."""
    with pytest.raises(ConfigError, match="credential_command: must be a command for the shell") as caught:
        Config(base_url="http://host", credential_command=command)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_setting_is_refused_with_its_name_and_value(name: str) -> None:
    """When the configuration is made: no pool of no samplers waits for ever."""
    for value in BAD[name]:
        settings: dict[str, Any] = {name: value}
        with pytest.raises(ConfigError) as caught:
            Config(base_url="http://host", **settings)
        assert str(caught.value).startswith(f"{name} = {value!r}: must be ")


@pytest.mark.parametrize(
    "good",
    [
        {"grace": 0, "replay_bytes": 0, "max_samples": 1, "sampling_actors": 1},
        {"max_block": math.inf, "heartbeat_period": 0.01},
        {"capability": "tuft", "training_body": "json"},
        {"dedupe": "replay", "heartbeat": "loop", "telemetry": False},
        {"tags": ("a",), "user_metadata": {"a": "b"}},
    ],
    ids=str,
)
def test_the_edges_of_the_ranges_pass(good: dict[str, Any]) -> None:
    """Zero grace, an empty replay log, one sampler, no limit to blocking."""
    config = Config(base_url="http://host", **good)
    assert {name: getattr(config, name) for name in good} == good


@pytest.mark.lesson("D38")
@pytest.mark.requirement("R35")
def test_time_and_retries_are_as_the_official_client_has_them() -> None:
    """A minute for an exchange, five seconds for a connection, ten retries."""
    config = Config(base_url="http://service")
    assert (config.timeout, config.connect_timeout, config.max_retries) == (60, 5, 10)


@pytest.mark.parametrize("headers", [{"a": 1}, None, "hush"])
def test_bad_headers_are_refused_without_their_values(headers: Any) -> None:
    """The setting is told, what it held is not."""
    with pytest.raises(ConfigError, match="headers: must be a mapping") as caught:
        Config(base_url="http://service", headers=headers)
    assert "hush" not in str(caught.value)


@pytest.mark.lesson("D23")
@pytest.mark.parametrize("proxy", ["socks5://me:hush@host", "ftp://hush@host", 3])
def test_a_proxy_that_cannot_be_used_is_refused(proxy: Any) -> None:
    """When the configuration is made, and without its password."""
    with pytest.raises(ConfigError, match="proxy") as caught:
        Config(base_url="http://service", proxy=proxy)
    assert "hush" not in str(caught.value)


def test_a_proxy_is_for_everything() -> None:
    """A proxy that was named carries all traffic, that to this machine as well."""
    rules = Config(base_url="http://service", proxy="http://proxy:3128").proxy
    target = rules.choose(Origin("https", "localhost", 443))
    assert target is not None
    assert target.origin == Origin("http", "proxy", 3128)


def test_headers_and_authentication_are_not_shown() -> None:
    """What may hold a secret is in no repr."""
    config = Config(
        base_url="http://service", headers={"x-token": "hush"}, auth=httpx.BasicAuth("me", "hush")
    )
    assert "hush" not in repr(config)


@pytest.mark.requirement("R33")
@pytest.mark.parametrize(
    "url",
    [
        "https://Host.example/a/",
        "HTTPS://host.example/a",
        "https://host.example:443/a//",
        "HTTPS://Host.example:443/a",
        "https://host.example/a",
    ],
)
def test_one_service_has_one_name(url: str) -> None:
    """Whatever the case of scheme and host, with the default port or without, with a slash at the end or without."""
    assert normal_url(check_base_url("base_url", url)) == "https://host.example/a"


@pytest.mark.requirement("R33")
def test_other_services_have_other_names() -> None:
    """The port, the scheme and the case of the path count."""
    urls = ["http://host", "http://host:81", "https://host", "http://host/a", "http://host/A", "http://other"]
    assert len({normal_url(url) for url in urls}) == len(urls)


def test_a_configuration_checks_its_base_url() -> None:
    """A wrong one is refused where it is written, without the password in it; the last slash goes."""
    assert Config(base_url="http://host/a/").base_url == "http://host/a"
    for wrong in ("host", "ftp://host", "http://host?q=1"):
        with pytest.raises(ConfigError, match="base_url = "):
            Config(base_url=wrong)
    with pytest.raises(ConfigError, match="base_url = ") as caught:
        Config(base_url="http://me:hunter2@host")
    assert "hunter2" not in str(caught.value)
