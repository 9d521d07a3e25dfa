from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from safetensors.numpy import load

from tinker_actors.errors import InputError
from tinker_actors.local.archive import (
    ADAPTER_FILE,
    CHUNK,
    CONFIG_FILE,
    OPTIMIZER_FILE,
    AdapterConfig,
    checkpoint_files,
    read_arrays,
    read_config,
    tar_chunks,
)
from tinker_actors.local.lora import LoraConfig
from tinker_actors.local.model import BaseModel
from tinker_actors.local.trainer import LoraModel

LORA = LoraConfig(rank=4, seed=3, train_mlp=False)


@pytest.fixture
def files(tiny: BaseModel) -> dict[str, bytes]:
    return checkpoint_files(AdapterConfig.of("tiny", LORA), LoraModel(tiny, LORA).state(optimizer=True))


def test_a_training_checkpoint_has_three_files_a_samplers_two(
    tiny: BaseModel, files: dict[str, bytes]
) -> None:
    """The optimizer's arrays stand in a file of their own, or are not there."""
    assert set(files) == {ADAPTER_FILE, CONFIG_FILE, OPTIMIZER_FILE}
    sampler = checkpoint_files(AdapterConfig.of("tiny", LORA), LoraModel(tiny, LORA).state(optimizer=False))
    assert sampler == {name: files[name] for name in (ADAPTER_FILE, CONFIG_FILE)}
    assert not any(name.startswith("optimizer") for name in load(files[ADAPTER_FILE]))
    assert all(name.startswith("optimizer.") for name in load(files[OPTIMIZER_FILE]))


def test_what_was_written_is_read(tiny: BaseModel, files: dict[str, bytes]) -> None:
    """Configuration and arrays come back; loading them gives the same model."""
    assert read_config(files) == AdapterConfig.of("tiny", LORA)
    assert read_config(files).lora_config() == LoraConfig(rank=4, train_mlp=False)
    model = LoraModel(tiny, LoraConfig(rank=4, seed=99, train_mlp=False))
    model.load_state(read_arrays(files, optimizer=True), optimizer=True)
    assert np.array_equal(model.weights, LoraModel(tiny, LORA).weights)


def test_the_configuration_is_readable_by_others(files: dict[str, bytes]) -> None:
    """The file says what PEFT calls these things."""
    assert json.loads(files[CONFIG_FILE]) == {
        "base_model_name_or_path": "tiny",
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 32.0,
        "target_modules": ["attn", "unembed"],
    }


def test_the_order_of_arrays_does_not_matter(tiny: BaseModel, files: dict[str, bytes]) -> None:
    """The same weights give the same bytes, and other weights others."""
    state = LoraModel(tiny, LORA).state(optimizer=True)
    config = AdapterConfig.of("tiny", LORA)
    assert checkpoint_files(config, dict(reversed(state.items()))) == files
    name = next(iter(state))
    state[name] = state[name] + 1
    assert checkpoint_files(config, state)[ADAPTER_FILE] != files[ADAPTER_FILE]


def test_an_array_that_lies_strided_in_memory_is_written_as_it_reads() -> None:
    """A transposed view is not written in the order of its memory."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    files = checkpoint_files(AdapterConfig.of("tiny", LORA), {"a": array})
    assert np.array_equal(read_arrays(files, optimizer=False)["a"], array)


def test_an_archive_is_a_plain_tar_without_time_or_owner() -> None:
    """Any tar program reads it; the same files give the same bytes; members are sorted."""
    files = {"b": b"x" * (CHUNK + 5), "a": b"", "c": b"y" * 512}
    chunks = list(tar_chunks(files))
    data = b"".join(chunks)
    assert data == b"".join(tar_chunks(dict(reversed(files.items()))))
    assert len(data) % tarfile.RECORDSIZE == 0
    assert max(map(len, chunks)) <= CHUNK
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == ["a", "b", "c"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
            (0, 0, 0, "", "", 0o644)
        }
        assert {m.name: archive.extractfile(m).read() for m in members} == files


def test_a_samplers_checkpoint_has_no_optimizer_to_load(files: dict[str, bytes]) -> None:
    """Asking for it is an error that says so."""
    del files[OPTIMIZER_FILE]
    assert read_arrays(files, optimizer=False)
    with pytest.raises(InputError, match="saved for sampling"):
        read_arrays(files, optimizer=True)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, None])
def test_damaged_checkpoints_are_input_errors(files: dict[str, bytes], damage: bytes | None) -> None:
    """A file that is missing or is not what it should be is named."""
    for name in (ADAPTER_FILE, CONFIG_FILE):
        damaged = dict(files)
        if damage is None:
            del damaged[name]
        else:
            damaged[name] = damage
        with pytest.raises(InputError, match="damaged") as caught:
            read_config(damaged) if name == CONFIG_FILE else read_arrays(damaged, optimizer=False)
        assert caught.value.field == name
