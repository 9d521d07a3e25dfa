"""Which backend is chosen, and what the embedded one gives."""

from __future__ import annotations

import random
import ssl
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import trio

import tinker_actors as ta
from tinker_actors.errors import ConfigError, CredentialError, InputError, JournalError
from tinker_actors.local.service import EmbeddedService
from tinker_actors.observe import ActorReady, FileBegun, FileEnded, latest_snapshot, read_events
from tinker_actors.opening import Settings, choose_backend, open_service
from tinker_actors.opening.service import _open_remote
from tinker_actors.opening.settings import _common_settings, _remote_settings
from tinker_actors.protocol.credential import CredentialsFile, StoredKey
from tinker_actors.protocol.event import LoopBlocked, ModelRestored
from tinker_actors.transport.config import TINKER_SERVICE, Config, Environment
from tinker_actors.transport.credential_file import save_credentials

MODEL = "tinker-actors/char-100k"
NOTHING: dict[str, str] = {}
KEY = "tml-0123456789"


@pytest.mark.requirement("R26", "R27")
@pytest.mark.parametrize(
    ("arguments", "environment", "url", "why"),
    [
        ((None, None, None), {}, None, "neither TINKER_BASE_URL nor TINKER_API_KEY is set"),
        (("local", None, None), {"TINKER_BASE_URL": "http://x"}, None, "backend='local' was given"),
        (("http://x/", None, None), {}, "http://x", "backend is set"),
        ((None, "http://x", None), {"TINKER_BASE_URL": "http://y"}, "http://x", "base_url is set"),
        ((None, None, KEY), {"TINKER_BASE_URL": "http://y"}, "http://y", "TINKER_BASE_URL is set"),
        ((None, None, KEY), {}, TINKER_SERVICE, "api_key is set"),
        ((None, None, None), {"TINKER_API_KEY": KEY}, TINKER_SERVICE, "TINKER_API_KEY is set"),
        ((None, None, None), {"TINKER_BASE_URL": "", "TINKER_API_KEY": ""}, None, "neither"),
        (("tinker", None, None), {}, TINKER_SERVICE, "backend is set"),
        ((None, None, None), {"TINKER_CREDENTIAL_CMD": "c"}, TINKER_SERVICE, "TINKER_CREDENTIAL_CMD is set"),
    ],
)
def test_the_backend_is_chosen_by_the_documented_rule(
    arguments: tuple[Any, Any, Any], environment: dict[str, str], url: str | None, why: str
) -> None:
    """Arguments come before the environment, a URL before a key, and the reason is told."""
    chosen = choose_backend(*arguments, Environment.read(environment))
    assert chosen.base_url == url
    assert chosen.why.startswith(why)
    assert why in chosen.line
    assert "\n" not in chosen.line


@pytest.mark.parametrize(
    ("arguments", "environment", "error", "match"),
    [
        (("local", "http://x", None), {}, ConfigError, "base_url = 'http://x'"),
        (("ftp://x", None, None), {}, ConfigError, "backend = 'ftp://x'"),
        (("locl", None, None), {}, ConfigError, "backend = 'locl': must be 'local', 'tinker' or a URL"),
        (("tml-secret", None, None), {}, ConfigError, "^backend: a key is given as api_key$"),
        ((None, "no url", None), {}, ConfigError, "base_url = 'no url'"),
        ((None, None, "sk-wrong-kind-of-key"), {}, InputError, "api_key = "),
        ((None, None, None), {"TINKER_API_KEY": "wrong key value"}, InputError, "TINKER_API_KEY"),
        ((None, None, None), {"TINKER_ACTORS_EMBEDDED": "never"}, ConfigError, "'never' forbids"),
        (
            ("local", None, None),
            {"TINKER_ACTORS_EMBEDDED": "no"},
            ConfigError,
            "TINKER_ACTORS_EMBEDDED = 'no'",
        ),
    ],
)
def test_contradictions_are_refused(
    arguments: tuple[Any, Any, Any], environment: dict[str, str], error: type[Exception], match: str
) -> None:
    """Each error names the setting and its value, and never a whole key."""
    with pytest.raises(error, match=match) as caught:
        choose_backend(*arguments, Environment.read(environment))
    assert "wrong-kind-of-key" not in str(caught.value)


@pytest.mark.requirement("R26")
@pytest.mark.parametrize(
    ("api_key", "command", "environment", "key", "chosen_command"),
    [
        (KEY, None, {"TINKER_API_KEY": "tml-b", "TINKER_CREDENTIAL_CMD": "c"}, KEY, "c"),
        (None, None, {"TINKER_API_KEY": "tml-b", "TINKER_CREDENTIAL_CMD": "c"}, "tml-b", "c"),
        (None, "d", {"TINKER_API_KEY": "tml-b", "TINKER_CREDENTIAL_CMD": "c"}, None, "d"),
        (None, None, {"TINKER_CREDENTIAL_CMD": "c"}, None, "c"),
        (None, None, {"TINKER_API_KEY": "sk-b", "TINKER_CREDENTIAL_CMD": "c"}, None, "c"),
        (KEY, "d", {}, KEY, "d"),
    ],
)
def test_the_key_is_chosen_by_the_documented_rule(
    api_key: str | None,
    command: str | None,
    environment: dict[str, str],
    key: str | None,
    chosen_command: str,
) -> None:
    """Arguments, then variables, then the command; nothing of them is shown."""
    chosen = choose_backend("http://x", None, api_key, Environment.read(environment), command)
    assert (chosen.api_key, chosen.credential_command) == (key, chosen_command)
    assert "tml-" not in repr(chosen) + chosen.line


@pytest.mark.requirement("R28")
def test_the_embedded_service_asks_for_no_key() -> None:
    """Whatever is in the environment."""
    chosen = choose_backend("local", None, "sk-wrong", Environment.read({"TINKER_API_KEY": "sk-wrong"}))
    assert (chosen.base_url, chosen.api_key) == (None, None)


def test_stored_keys_go_to_the_tinker_service_and_nowhere_else(tmp_path: Path) -> None:
    """They come last, and do not choose the backend by themselves."""
    stored = CredentialsFile({"1": StoredKey(key="tml-stored")}, "1")
    save_credentials(tmp_path / ".tinker" / "credentials.json", stored)
    home = {"HOME": str(tmp_path)}
    assert choose_backend("tinker", None, None, Environment.read(home)).api_key == "tml-stored"
    assert choose_backend(None, TINKER_SERVICE, None, Environment.read(home)).api_key == "tml-stored"
    assert choose_backend("tinker", None, KEY, Environment.read(home)).api_key == KEY
    assert (
        choose_backend("tinker", None, None, Environment.read(home | {"TINKER_API_KEY": KEY})).api_key == KEY
    )
    assert choose_backend("http://x", None, None, Environment.read(home)).api_key is None
    assert choose_backend(None, None, None, Environment.read(home)).base_url is None
    assert choose_backend("tinker", None, None, Environment.read({})).api_key is None
    with pytest.raises(CredentialError, match="not JSON"):
        (tmp_path / ".tinker" / "credentials.json").write_text("{")
        choose_backend("tinker", None, None, Environment.read(home))


def test_what_the_environment_says_lies_under_what_is_given() -> None:
    """Tags, telemetry and project; and the headers of an access proxy, which the embedded service does not need."""
    environment = Environment.read(
        {
            "TINKER_TAGS": "a,b",
            "TINKER_TELEMETRY": "off",
            "TINKER_PROJECT_ID": "p",
            "CLOUDFLARE_ACCESS_CLIENT_ID": "i",
            "CLOUDFLARE_ACCESS_CLIENT_SECRET": "hunter2",
        }
    )
    assert _common_settings(environment) == {"tags": ("a", "b"), "telemetry": False}
    assert _remote_settings(environment, {}) == {
        "tags": ("a", "b"),
        "telemetry": False,
        "project_id": "p",
        "headers": {"CF-Access-Client-Id": "i", "CF-Access-Client-Secret": "hunter2"},
    }
    given: Settings = {
        "tags": (),
        "telemetry": True,
        "project_id": None,
        "headers": {"CF-Access-Client-Id": "j"},
    }
    assert _remote_settings(environment, given) == {
        "tags": (),
        "telemetry": True,
        "project_id": None,
        "headers": {"CF-Access-Client-Id": "j", "CF-Access-Client-Secret": "hunter2"},
    }
    assert _common_settings(Environment()) == _remote_settings(Environment(), {}) == {}


def test_every_setting_of_a_configuration_is_taken_by_name() -> None:
    """Type checkers, and the check of names, know all of them; the URL and the key are arguments of their own."""
    assert [*Settings.__annotations__] == [
        field.name for field in attrs.fields(Config) if field.name not in ("base_url", "api_key")
    ]


async def test_a_setting_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names it, and what was meant; nothing has been opened."""
    with pytest.raises(TypeError, match=r"open_service\(\) .* 'timeuot'; did you mean 'timeout'\?"):
        async with open_service("local", timeuot=3.0):  # type: ignore[call-arg]  # refusing it is the test
            pass
    with pytest.raises(TypeError, match=r"open_service\(\) .* 'zzz'$"):
        async with open_service("local", zzz=3.0):  # type: ignore[call-arg]  # refusing it is the test
            pass
    assert capsys.readouterr().err == ""


async def test_one_line_on_stderr_says_what_was_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """Opening without a word opens the embedded service and says why."""
    async with open_service() as service:
        assert service.backend == "local"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "embedded" in said.err


async def test_the_embedded_service_says_what_it_does_with_numbers() -> None:
    """It answers a repeated one with the first result and keeps an early one: chunks of a batch go out together."""
    async with ta.open_service("local") as service:
        record = service._tree.transport.capability
        assert (record.dedupe, record.early_numbers) == ("replay", "park")


async def test_what_happens_is_written_down_from_the_opening_to_the_end(tmp_path: Path) -> None:
    """In a file that another process can read at any time; nobody needs a key, a run or a web page for that."""
    path = tmp_path / "events.jsonl"
    async with ta.open_service("local", events=path, api_key=None) as service:
        await service.create_lora_training_client(MODEL, rank=4)
    events = [recorded.event for recorded in read_events(path)]
    ready = [event.actor for event in events if isinstance(event, ActorReady)]
    assert ready[0] == "service/telemetry"
    assert "service/training/model-0" in ready
    assert isinstance(events[0], FileBegun)
    assert isinstance(events[-1], FileEnded)
    last = latest_snapshot(path)
    assert last is not None
    assert last.event.actors == ()
    with pytest.raises(JournalError, match="No such file"):
        async with ta.open_service("local", events=str(tmp_path / "none" / "events.jsonl")):
            pass


async def test_the_design_programme_runs_and_learns() -> None:
    """The 15-line program: training lowers the loss, and samples come from the trained weights."""
    async with ta.open_service("local", seed=3) as service:
        training = await service.create_lora_training_client(MODEL, rank=8)
        tokenizer = await training.get_tokenizer()
        ids = tokenizer.encode("ab:xyz\n")
        datum = ta.Datum(
            ta.ModelInput.from_ints(ids[:-1]),
            {"target_tokens": ids[1:], "weights": np.ones(len(ids) - 1, np.float32)},
        )
        losses = []
        for _ in range(30):
            forward = await training.forward_backward([datum], "cross_entropy")
            await training.optim_step(ta.AdamParams(learning_rate=1e-2))
            losses.append((await forward).metrics["loss:sum"])
        sampling = await training.save_weights_and_get_sampling_client()
        prompt = ta.ModelInput.from_ints(tokenizer.encode("ab:"))
        params = ta.SamplingParams(max_tokens=8, temperature=0.0, stop=["\n"])
        reply = await sampling.sample(prompt, num_samples=1, sampling_params=params)
        logprobs = await sampling.compute_logprobs(ta.ModelInput.from_ints(ids))
    assert losses[-1] < 0.1 * losses[0]
    assert tokenizer.decode(reply.sequences[0].tokens) == "xyz\n"
    assert logprobs[0] is None
    assert sum(value for value in logprobs[1:] if value is not None) == pytest.approx(-losses[-1], abs=0.2)


def _batch(tokenizer: Any, text: str) -> list[ta.Datum]:
    ids = tokenizer.encode(text)
    return [
        ta.Datum(
            ta.ModelInput.from_ints(ids[:-1]), {"target_tokens": ids[1:], "weights": [1.0] * (len(ids) - 1)}
        )
    ]


async def _train(drop: tuple[str, int] | None, tmp_path: Path) -> tuple[bytes, int]:
    """Train eight steps with a save after the third; return the weights' archive and the restores."""
    embedded = EmbeddedService(seed=1)
    if drop is not None:
        embedded.drop_model_at(*drop)
    async with open_service(embedded=embedded, seed=1) as service:
        events = service.subscribe()
        training = await service.create_lora_training_client(MODEL, rank=4, seed=5)
        tokenizer = await training.get_tokenizer()
        for step in range(8):
            await training.forward_backward(_batch(tokenizer, f"{step}+1={step + 1}\n"), "cross_entropy")
            if step == 5:
                await training.save_state("mid-step")
            await training.optim_step(ta.AdamParams(learning_rate=1e-2))
            if step == 2:
                await training.save_state("three")
        path = (await training.save_state("end")).path
        file = await service.rest.download_checkpoint(path, tmp_path / "end.tar", force=True)
    restored = 0
    async for event in events:
        restored += isinstance(event, ModelRestored)
    return file.read_bytes(), restored


@pytest.mark.parametrize(
    "drop",
    [
        ("forward_backward", 1),
        ("optim_step", 1),
        ("forward_backward", 4),
        ("optim_step", 4),
        ("forward_backward", 6),
        ("save_weights", 1),
        ("save_weights", 2),
        ("optim_step", 6),
        ("forward_backward", 8),
        ("save_weights", 3),
    ],
)
async def test_a_dropped_model_ends_with_the_same_weights(drop: tuple[str, int], tmp_path: Path) -> None:
    """Whenever the service drops the model, the final weights and optimizer are bit-equal to undisturbed ones."""
    undisturbed, none = await _train(None, tmp_path)
    disturbed, restored = await _train(drop, tmp_path)
    assert (none, restored) == (0, 1)
    assert _without_names(disturbed) == _without_names(undisturbed)


def _without_names(archive: bytes) -> dict[str, bytes]:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {m.name: tar.extractfile(m) for m in tar.getmembers() if m.name.endswith(".safetensors")}
        return {name: file.read() for name, file in files.items() if file is not None}


async def test_a_download_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """A missing checkpoint is a typed error, and nothing half-written stays."""
    async with open_service("local") as service:
        with pytest.raises(ta.errors.NotFoundError):
            await service.rest.download_checkpoint("tinker://none/weights/x", tmp_path / "x.tar")
        with pytest.raises(InputError):
            await service.rest.download_checkpoint("weights/x", tmp_path / "x.tar")
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a look at an empty folder


@pytest.mark.slow
async def test_blocking_the_loop_leaves_no_gap_in_the_beats_of_the_embedded_service() -> None:
    """The whole way: user code stands still for 3 s, and the service in this process hears every beat."""
    embedded = EmbeddedService(seed=1)
    async with open_service(embedded=embedded, heartbeat_period=0.1) as service:
        events = service.subscribe()
        await trio.sleep(0.5)
        before = embedded.statistics().beats
        time.sleep(3)  # noqa: ASYNC251 - blocking the loop is the test
        heard = embedded.statistics().beats - before
        await trio.sleep(0.5)
        blocked = events.receive_nowait()
    assert heard >= 25
    assert isinstance(blocked, LoopBlocked)
    assert "time.sleep(3)" in blocked.stack


def test_what_was_given_is_not_looked_for_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies and certificates of the environment are read, and may be wrong, only if none were given."""
    monkeypatch.setenv("ALL_PROXY", "socks5://elsewhere")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at/all.pem")
    chosen = choose_backend(None, "https://x", None, Environment.read(NOTHING))
    context = ssl.create_default_context()
    _open_remote(chosen, random.Random(0), {"proxy": "http://proxy", "ssl_context": context})
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        _open_remote(chosen, random.Random(0), {"ssl_context": context})
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        _open_remote(chosen, random.Random(0), {"proxy": "http://proxy"})


@pytest.mark.requirement("R6")
async def test_clients_without_a_session_send_nothing_by_themselves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are opened and closed with nobody at the other end; one line says where they lead, and why."""
    url = "http://127.0.0.1:9"
    async with (
        ta.open_rest_client(url) as rest,
        ta.open_admin_client(base_url=url, api_key="tml-hush") as admin,
    ):
        assert (repr(rest), repr(admin)) == (f"<RestClient {url}>", f"<AdminClient {url}>")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"tinker_actors: using {url}, because backend is set",
        f"tinker_actors: using {url}, because base_url is set",
    ]


@pytest.mark.parametrize("opener", [ta.open_rest_client, ta.open_admin_client])
async def test_clients_without_a_session_take_what_services_take(opener: Any) -> None:
    """A setting that is none is told by the name of what was called; contradictions are refused alike."""
    with pytest.raises(
        TypeError, match=rf"{opener.__name__}\(\) got .*'max_retry'; did you mean 'max_retries'"
    ):
        async with opener(max_retry=1):
            pass  # pragma: no cover - it is not entered
    with pytest.raises(ConfigError, match="embedded was given"):
        async with opener("http://x", embedded=EmbeddedService()):
            pass  # pragma: no cover - it is not entered


async def test_a_client_without_a_session_sees_the_embedded_service() -> None:
    """Without a URL and a key, as everything else."""
    async with ta.open_rest_client() as rest:
        assert (await rest.get_server_capabilities()).supported_models[0].model_name == MODEL
        assert (await rest.health_check()).status == "ok"
