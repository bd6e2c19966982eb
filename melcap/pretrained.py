"""Weights on disk: one safetensors file with the configuration inside, named by its own hash.

Numbers are stored in half precision and computed with in single. The default weights are part of
the package; nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as packed

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.errors import WeightsError
from melcap.files import replacing

DEFAULT = "melcap-lite.safetensors"
HASH_BYTES = 8


def load(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> Codec:
    """A codec, ready to use.

    Args:
        path: a weights file written by `save`; None for the weights that came with the package.
        device: where to compute.

    Raises:
        WeightsError: where there is no such file, or it does not hold a codec's weights.
    """
    if path is None:
        default = default_file()
        return _load(default, _recorded_hash(default.with_suffix(".sha256"))).to(device)
    return _load(Path(path), None).to(device)


def default_file() -> Path:
    """Return the path of the weights that came with the package."""
    return Path(str(resources.files("melcap") / "weights" / DEFAULT))


def save(codec: Codec, path: str | os.PathLike[str]) -> str:
    """Write weights and configuration; returns the SHA-256 of the file.

    What endless silence becomes is learnt anew from the rounded weights before they are written.
    """
    target = Path(path)
    rounded = Codec(codec.config)
    rounded.load_state_dict(_single(_half(codec.state_dict())))
    rounded.learn_silence()
    data = packed(_half(rounded.state_dict()), metadata={"config": codec.config.to_json()})
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise WeightsError(f"{target}: cannot write the weights: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def weights_hash(codec: Codec) -> bytes:
    """The first bytes of the SHA-256 of the weights file, as `.melcap` headers carry them.

    Raises `WeightsError` for a codec that was not loaded from a file.
    """
    try:
        return bytes.fromhex(codec.model.rpartition("-")[2])
    except ValueError:
        raise WeightsError(f"{codec.model} has no weights file: save it, then load it") from None


def _load(path: Path, expected: str | None) -> Codec:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="pt") as file:
            config = CodecConfig.from_json((file.metadata() or {})["config"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from error
    except (SafetensorError, KeyError) as error:
        raise WeightsError(f"{path}: not a melcap weights file: {error}") from error
    if expected is not None and digest != expected:
        raise WeightsError(f"{path}: the weights are damaged; install melcap again")
    try:
        codec = Codec(config, f"{config.name}-{digest[: 2 * HASH_BYTES]}")
        codec.load_state_dict(_single(state))
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: the weights do not fit their configuration") from error
    return codec.eval().requires_grad_(False)


def _recorded_hash(path: Path) -> str:
    try:
        return path.read_text().split()[0]
    except (OSError, IndexError) as error:
        raise WeightsError(f"{path}: the package is incomplete; install melcap again") from error


def _half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for name, value in state.items()
    }


def _single(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }
