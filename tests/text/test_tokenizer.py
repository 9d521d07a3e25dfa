from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import huggingface_hub
import pytest
import tokenizers
from huggingface_hub.errors import EntryNotFoundError
from hypothesis import given
from hypothesis import strategies as st

from tinker_actors.actors.sampling_client import SamplingClient
from tinker_actors.actors.training_client import TrainingClient
from tinker_actors.errors import ConfigError
from tinker_actors.text import tokenizer as module
from tinker_actors.text.resolution import REVISIONS
from tinker_actors.text.tokenizer import EMBEDDED_PREFIX, Tokenizer, load_tokenizer

EMBEDDED = EMBEDDED_PREFIX + "char-100k"
PRINTABLE = "".join(map(chr, range(32, 127)))


@pytest.fixture(scope="module")
def packaged() -> Tokenizer:
    return load_tokenizer(EMBEDDED)


@given(text=st.text(PRINTABLE + "\n\t"))
def test_printable_text_comes_back_from_its_tokens(packaged: Tokenizer, text: str) -> None:
    """Every string of printable ASCII, one token for each character, none of them special."""
    tokens = packaged.encode(text)
    assert len(tokens) == len(text)
    assert packaged.decode(tokens) == text
    assert packaged.decode(tokens, skip_special_tokens=False) == text


@pytest.mark.requirement("R163")
def test_a_tokenizer_serves_several_threads_at_once(packaged: Tokenizer) -> None:
    """Each thread gets what it would get alone."""
    texts = [f"{at}+{at}={2 * at}" for at in range(200)]
    alone = [packaged.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(packaged.encode, texts)) == alone
        assert list(pool.map(packaged.decode, alone)) == texts


@pytest.mark.requirement("R161")
def test_text_becomes_ids_and_nothing_else() -> None:
    """Nothing stands before or behind the text's own ids, and the documents say who applies chat templates."""
    tokenizer = load_tokenizer(EMBEDDED)
    assert tokenizer.encode("ab") == [*tokenizer.encode("a"), *tokenizer.encode("b")]
    documented = (module.__doc__, TrainingClient.get_tokenizer.__doc__, SamplingClient.get_tokenizer.__doc__)
    assert all("chat template" in str(text) for text in documented)


def test_every_printable_sign_has_its_own_token(packaged: Tokenizer) -> None:
    """All 95, in one string and alone."""
    tokens = packaged.encode(PRINTABLE)
    assert len(set(tokens)) == len(PRINTABLE) == 95
    assert [packaged.decode([token]) for token in tokens] == list(PRINTABLE)


def test_a_tokenizer_is_loaded_from_a_file_or_its_folder(packaged: Tokenizer, tmp_path: Path) -> None:
    """The same one, by either path."""
    packaged.backend.save(str(tmp_path / "tokenizer.json"))
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        assert load_tokenizer(str(place)).backend.get_vocab() == packaged.backend.get_vocab()


def test_text_is_neither_cut_nor_filled_up(packaged: Tokenizer, tmp_path: Path) -> None:
    """Whatever lengths the file was saved with; transformers does not use them either unless it is asked to."""
    backend = tokenizers.Tokenizer.from_str(packaged.backend.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=6)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(str(tmp_path))
    for text in ("1", "12+34=46"):
        assert loaded.encode(text) == packaged.encode(text)
    assert loaded.encode_batch(["1", "12+34=46"]) == packaged.encode_batch(["1", "12+34=46"])


def test_a_path_may_begin_at_home(
    packaged: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`~` stands for it, as in a shell."""
    packaged.backend.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_tokenizer("~").encode("ab") == packaged.encode("ab")
    assert load_tokenizer("~/tokenizer.json").encode("ab") == packaged.encode("ab")


def test_a_packaged_tokenizer_needs_no_file_of_the_users(
    packaged: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of the same name where the user stands is not taken for it."""
    (tmp_path / EMBEDDED).mkdir(parents=True)
    (tmp_path / EMBEDDED / "tokenizer.json").write_text("{}", "utf-8")
    monkeypatch.chdir(tmp_path)
    assert load_tokenizer(EMBEDDED).vocab_size == packaged.vocab_size
    assert (files("tinker_actors") / "local" / "models" / "char-100k" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    "tokenizer_id",
    [
        "tinker-actors/no-such-model",
        "tinker-actors/",
        "./no/such/tokenizer.json",
        "no-such-file.json",
        "/no/such/folder",
        "too/many/parts",
        "~/tokenizer",
        "TML/private",
        "thinkingmachines/private",
        "",
    ],
)
def test_a_tokenizer_that_is_not_there_is_told_by_its_id(tokenizer_id: str) -> None:
    """What can only be a path is not looked for on the network."""
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(tokenizer_id)
    assert str(caught.value).startswith(f"tokenizer_id = {tokenizer_id!r}: no tokenizer could be loaded: ")
    assert type(caught.value.__cause__) is FileNotFoundError  # the hub's library has one of its own


def test_a_broken_file_is_told_by_its_path(tmp_path: Path) -> None:
    """With the library's reason as the cause."""
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}', "utf-8")
    with pytest.raises(ConfigError, match="no tokenizer could be loaded") as caught:
        load_tokenizer(str(tmp_path))
    assert repr(str(tmp_path)) in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_hub_id_that_cannot_be_fetched_is_told(tmp_path: Path) -> None:
    """Without a network, in a process of its own, as the hub's library reads its settings once."""
    code = (
        "from tinker_actors.errors import ConfigError\n"
        "from tinker_actors.text.tokenizer import load_tokenizer\n"
        "for name in ('somebody/no-such-model', 'gpt-none'):\n"
        "    try:\n"
        "        load_tokenizer(name)\n"
        "    except ConfigError as error:\n"
        "        print(f'tokenizer_id = {name!r}: ' in str(error))\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]


@pytest.mark.parametrize("known", [True, False])
def test_a_hub_id_that_was_fetched_once_needs_no_network(
    packaged: Tokenizer, tmp_path: Path, known: bool
) -> None:
    """Also if it has no chat template: the hub's cache knows so. A file of which nothing is known is missed."""
    cache, commit = tmp_path / "hub" / "models--somebody--model", "a" * 40
    for folder in ("refs", f"snapshots/{commit}", f".no_exist/{commit}"):
        (cache / folder).mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit, "utf-8")
    packaged.backend.save(str(cache / "snapshots" / commit / "tokenizer.json"))
    for name in ("tokenizer_config.json", "chat_template.jinja")[: 1 + known]:
        (cache / ".no_exist" / commit / name).touch()
    code = (
        "from tinker_actors.text import load_tokenizer\nprint(load_tokenizer('somebody/model').encode('ab'))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == (str(packaged.encode("ab")) if known else "")
    assert ("no tokenizer could be loaded" in done.stderr) is not known


@pytest.mark.requirement("R162")
@pytest.mark.lesson("D28")
def test_the_hub_is_asked_for_the_pinned_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the tokenizer and for what lies beside it; a file that is not there is none."""
    load_tokenizer(EMBEDDED).backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "\\n", "chat_template": "one"}', "utf-8")
    asked: list[tuple[str, str, str]] = []

    def download(repo_id: str, filename: str, *, revision: str) -> str:
        asked.append((repo_id, filename, revision))
        if not (tmp_path / filename).is_file():
            raise EntryNotFoundError(filename)
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    pinned, commit = next(iter(REVISIONS.items()))
    tokenizer = load_tokenizer(pinned)
    assert (tokenizer.tokenizer_id, tokenizer.eos_token, tokenizer.chat_template) == (pinned, "\n", "one")
    files = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    assert asked == [(pinned, file, commit) for file in files]
    asked.clear()
    load_tokenizer("somebody/model")
    assert {revision for _, _, revision in asked} == {"main"}
