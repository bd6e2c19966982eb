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
from torch import Tensor

from melcap.codec import Codec
from melcap.config import CodecConfig
from melcap.errors import WeightsError
from melcap.files import replacing, require_regular

DEFAULT = "melcap-lite.safetensors"
HASH_BYTES = 8
_BLOCK = 1 << 20


def load(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> Codec:
    """A codec, ready to use.

    Args:
        path: a weights file written by `save`; None for the weights that came with the package.
        device: where to compute.

    Raises:
        WeightsError: where there is no such file, it does not hold a codec's weights, or some of
            these are NaN or infinite.
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

    Raises:
        WeightsError: for weights that are not finite in half precision, or a file that cannot be
            written.
    """
    target = Path(path)
    half = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in codec.state_dict().items()
    }
    _check_finite(half, f"{target}: cannot write the weights")
    rounded = _built(codec.config, half)
    rounded.learn_silence()
    half["silence"] = rounded.silence
    data = packed(half, metadata={"config": codec.config.to_json()})
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
        require_regular(path)
        digest = _sha256(path)
        with safe_open(path, framework="pt") as file:
            config = CodecConfig.from_json((file.metadata() or {})["config"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise WeightsError(f"{path}: cannot read the weights: {error.strerror}") from error
    except (SafetensorError, KeyError) as error:
        raise WeightsError(f"{path}: not a melcap weights file: {error}") from error
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    if expected is not None and digest != expected:
        raise WeightsError(f"{path}: the weights are damaged; install melcap again")
    _check_finite(state, f"{path}: not a melcap weights file")
    try:
        codec = _built(config, state, f"{config.name}-{digest[: 2 * HASH_BYTES]}")
        codec.codebook.check(codec.silence)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: the weights do not fit their configuration") from error
    return codec.eval().requires_grad_(False)


@torch.inference_mode(False)
def _built(config: CodecConfig, state: dict[str, Tensor], model: str = "untrained") -> Codec:
    """Return a codec with copies of these weights, float32 and on the CPU whatever is set.

    Raises:
        RuntimeError, ValueError: where the weights do not fit.
    """
    weights = {}
    for name, value in state.items():
        if (value.dtype == torch.int32) != (name == "silence"):
            raise ValueError(f"{name} is {value.dtype}")
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        weights[name] = value.to("cpu", dtype, copy=True).contiguous()
    # On the meta device a configuration allocates nothing, whatever it asks for: what fits there is
    # no larger than the weights.
    for device in ("meta", "cpu"):
        with torch.device(device):
            codec = Codec(config, model)
        codec.load_state_dict(weights, assign=True)
    return codec


def _check_finite(state: dict[str, Tensor], what: str) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{what}: {name} has NaN or infinite numbers")


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _recorded_hash(path: Path) -> str:
    try:
        return path.read_text().split()[0]
    except (OSError, IndexError) as error:
        raise WeightsError(f"{path}: the package is incomplete; install melcap again") from error
