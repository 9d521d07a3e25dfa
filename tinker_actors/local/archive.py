"""A checkpoint's files: what is in them, and how they become one tar archive.

The same weights give the same bytes, whenever and wherever they are saved: names are sorted, configuration is
written with sorted keys, and an archive knows no time and no owner.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping

import attrs
import cattrs
import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tinker_actors.errors import InputError

from .lora import ALPHA, LoraConfig
from .transformer import Array

__all__ = [
    "CONFIG_FILE",
    "AdapterConfig",
    "checkpoint_files",
    "part_of",
    "read_arrays",
    "read_config",
    "tar_chunks",
    "tar_size",
]

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
OPTIMIZER_FILE = "optimizer.safetensors"
OPTIMIZER_PREFIX = "optimizer."  # of the arrays of LoraModel.state that are Adam's
CHUNK = 64 * 1024  # bytes of an archive that are sent at a time


@attrs.frozen(kw_only=True)
class AdapterConfig:
    """What `adapter_config.json` says; the first five names are PEFT's.

    Attributes:
        base_model_name_or_path: the base model.
        peft_type: always LORA.
        r: rank.
        lora_alpha: the adapter is scaled by lora_alpha / r.
        target_modules: which parts of the model have adapters.
    """

    base_model_name_or_path: str
    peft_type: str = "LORA"
    r: int
    lora_alpha: float = ALPHA
    target_modules: tuple[str, ...]

    @classmethod
    def of(cls, base_model: str, config: LoraConfig) -> AdapterConfig:
        """Describe an adapter."""
        parts = {"attn": config.train_attn, "mlp": config.train_mlp, "unembed": config.train_unembed}
        modules = tuple(name for name, trained in parts.items() if trained)
        return cls(base_model_name_or_path=base_model, r=config.rank, target_modules=modules)

    def lora_config(self) -> LoraConfig:
        """Return the configuration of a model that such an adapter fits into."""
        return LoraConfig(
            rank=self.r,
            train_attn="attn" in self.target_modules,
            train_mlp="mlp" in self.target_modules,
            train_unembed="unembed" in self.target_modules,
        )


def checkpoint_files(config: AdapterConfig, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, bytes]:
    """Return the files of a checkpoint.

    Args:
        config: of the adapter.
        arrays: what `LoraModel.state` returned, with the optimizer's or without.
    """
    optimizer = {name: array for name, array in arrays.items() if name.startswith(OPTIMIZER_PREFIX)}
    adapter = {name: array for name, array in arrays.items() if name not in optimizer}
    files = {
        ADAPTER_FILE: _tensors(adapter),
        CONFIG_FILE: orjson.dumps(attrs.asdict(config), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS),
    }
    if optimizer:
        files[OPTIMIZER_FILE] = _tensors(optimizer)
    return files


def _tensors(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    # safetensors writes the memory as it lies there
    return save({name: np.require(arrays[name], requirements="C") for name in sorted(arrays)})


def read_config(files: Mapping[str, bytes]) -> AdapterConfig:
    """Return an adapter's description.

    Raises:
        InputError: the checkpoint is damaged.
    """
    try:
        return cattrs.structure(orjson.loads(files[CONFIG_FILE]), AdapterConfig)
    except (KeyError, ValueError, cattrs.BaseValidationError) as exc:
        raise InputError(CONFIG_FILE, files.get(CONFIG_FILE), f"the checkpoint is damaged: {exc!r}") from exc


def read_arrays(files: Mapping[str, bytes], *, optimizer: bool) -> dict[str, Array]:
    """Return the arrays `LoraModel.load_state` takes: the adapter's, and the optimizer's if wanted.

    Raises:
        InputError: the optimizer's state is wanted and was not saved, or the checkpoint is damaged.
    """
    if optimizer and OPTIMIZER_FILE not in files:
        raise InputError(
            "optimizer", True, "the checkpoint has no optimizer state: it was saved for sampling"
        )
    names = (ADAPTER_FILE, OPTIMIZER_FILE) if optimizer else (ADAPTER_FILE,)
    arrays: dict[str, Array] = {}
    for name in names:
        try:
            arrays |= load(files[name])
        except (KeyError, SafetensorError) as exc:
            raise InputError(name, sorted(files), f"the checkpoint is damaged: {exc!r}") from exc
    return arrays


def tar_chunks(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """Yield a tar archive of the files piece by piece; the same files give the same bytes."""
    size = 0
    for name in sorted(files):
        for piece in _tar_member(name, files[name]):
            size += len(piece)
            yield piece
    size += 2 * tarfile.BLOCKSIZE  # two empty blocks end an archive, which is whole records long
    yield bytes(2 * tarfile.BLOCKSIZE + -size % tarfile.RECORDSIZE)


def tar_size(files: Mapping[str, bytes]) -> int:
    """Return the bytes of the tar archive that `tar_chunks` makes of the files."""
    blocks = sum(1 + -(-len(content) // tarfile.BLOCKSIZE) for content in files.values()) + 2
    return -(-blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def part_of(chunks: Iterator[bytes], part: range) -> Iterator[bytes]:
    """Yield the bytes of a part from pieces of the whole."""
    at = 0
    for chunk in chunks:
        begin, end = max(part.start - at, 0), max(part.stop - at, 0)
        at += len(chunk)
        if piece := chunk[begin:end]:
            yield piece
        if at >= part.stop:
            return


def _tar_member(name: str, content: bytes) -> Iterator[bytes]:
    header = tarfile.TarInfo(name)  # mtime, uid and gid are 0, the owner's name is empty
    header.size = len(content)
    yield header.tobuf(tarfile.USTAR_FORMAT)
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]
    yield bytes(-len(content) % tarfile.BLOCKSIZE)
