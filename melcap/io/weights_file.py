"""Weights on disk: a safetensors file that includes the configuration.

A file holds a whole codec, or only its mel decoder and vocoder. In that case its metadata name the
tokenizer that they belong to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as packed
from torch import Tensor

from melcap.config import AnyConfig, from_json
from melcap.errors import WeightsError
from melcap.io.files import replacing, require_regular

HASH_BYTES = 8
DECODER = ("decoder.", "vocoder.")
"""The prefixes of the names of the tensors of mel decoder and vocoder."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        path: The file.
        config: The configuration of the codec.
        state: The tensors by name, as they are stored.
        digest: The SHA-256 of the file, hexadecimal.
        tokenizer_id: The tokenizer of a file that holds only a decoder; None for a whole codec.
    """

    path: Path
    config: AnyConfig
    state: dict[str, Tensor]
    digest: str
    tokenizer_id: str | None

    @property
    def model(self) -> str:
        """The name in the configuration, and the beginning of the file's hash."""
        return model_name(self.config.name, self.digest)


def model_name(name: str, digest: str) -> str:
    """Return a model's name: that of its configuration, and the beginning of its file's hash."""
    return f"{name}-{digest[: 2 * HASH_BYTES]}"


def read(path: Path, expected: str | None = None) -> WeightsFile:
    """Read a weights file.

    Args:
        path: The file.
        expected: Its SHA-256, where that is known.

    Raises:
        WeightsError: For a file that is missing, is no weights file, is not the expected one, or
            contains NaN or infinity.
    """
    try:
        require_regular(path)
        digest = sha256_of(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            config = from_json(metadata["config"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from error
    except (SafetensorError, KeyError) as error:
        raise WeightsError(f"{path}: not a melcap weights file: {error}") from error
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    if expected is not None and digest != expected:
        raise WeightsError(f"{path}: the weights are damaged; install melcap again")
    check_finite(state, f"{path}: not a melcap weights file")
    return WeightsFile(path, config, state, digest, metadata.get("tokenizer_id"))


def halved(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors as they are stored: floating point in half precision, on the CPU.

    Raises:
        WeightsError: For weights that are not finite in half precision; it names the file that was
            to be written.
    """
    half = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in state.items()
    }
    check_finite(half, f"{path}: cannot write the weights")
    return half


def write(
    path: Path, config: AnyConfig, state: dict[str, Tensor], tokenizer_id: str | None = None
) -> str:
    """Write a weights file, whole or not at all, and return its SHA-256.

    Args:
        path: The file.
        config: The configuration of the codec.
        state: The tensors, contiguous and on the CPU.
        tokenizer_id: The tokenizer, where the state is only a decoder.

    Raises:
        WeightsError: For a file that cannot be written.
    """
    metadata = {"config": config.to_json()}
    if tokenizer_id is not None:
        metadata["tokenizer_id"] = tokenizer_id
    data = packed(state, metadata=metadata)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise WeightsError(f"{path}: cannot write the weights: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def check_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors with NaN or infinity.

    Raises:
        WeightsError: The message begins with `what` and names the first such tensor.
    """
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{what}: {name} has NaN or infinite numbers")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits.

    Raises:
        OSError: Where it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
