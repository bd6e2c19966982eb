"""Networks from weights files, and weights files from networks.

A file holds half precision, and a network computes in float32. `melcap.pretrained` has the public
functions. Here the class of the network is an argument, so that `melcap.Codec` can use these too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from melcap.errors import WeightsError
from melcap.io import weights_file
from melcap.io.weights_file import DECODER, WeightsFile
from melcap.model.network import Network
from melcap.model.quality import Quality, griffin_lim_steps

N = TypeVar("N", bound=Network)


def network_of(kind: type[N], weights: WeightsFile, quality: Quality = "default") -> N:
    """Return a network with the weights of a file, for inference on the CPU.

    Args:
        kind: the class of the network.
        weights: the content of the file.
        quality: the quality of decoding.

    Raises:
        WeightsError: for a decoder alone, or weights that do not fit their configuration.
        InputError: for a quality that the vocoder does not have.
    """
    if weights.tokenizer_id is not None:
        raise WeightsError(
            f"{weights.path}: holds a decoder alone, for tokenizer {weights.tokenizer_id}: load it "
            f'with melcap.load(decoder="{weights.path}"), which adds an encoder and a codebook'
        )
    griffin_lim_steps(weights.config, quality)  # a wrong quality is not an error of the weights
    try:
        network = _built(lambda: kind(weights.config, weights.model, quality), weights.state)
        network.codebook.check(network.silence)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{weights.path}: the weights do not fit their configuration") from error
    return network.eval().requires_grad_(False)


def save(network: Network, path: Path) -> str:
    """Write a network, and return the SHA-256 of the file; see `melcap.pretrained.save`."""
    rounded = _rounded(network, path)
    rounded.learn_silence()
    state = weights_file.halved(rounded.state_dict(), path)
    return weights_file.write(path, rounded.config, state)


def save_decoder(network: Network, path: Path) -> str:
    """Write mel decoder and vocoder; see `melcap.pretrained.save_decoder`."""
    rounded = _rounded(network, path)
    state = weights_file.halved(rounded.state_dict(), path)
    own = {name: value for name, value in state.items() if name.startswith(DECODER)}
    return weights_file.write(path, rounded.config, own, rounded.tokenizer_id)


def _rounded(network: Network, path: Path) -> Network:
    """Return a copy of the network as it will be loaded from the file."""
    half = weights_file.halved(network.state_dict(), path)
    return _built(lambda: Network(network.config), half)


@torch.inference_mode(False)
def _built(make: Callable[[], N], state: Mapping[str, Tensor]) -> N:
    """Return a new network with copies of these weights, in float32 and on the CPU.

    The process's default dtype and device, and inference mode, have no effect.

    Raises:
        RuntimeError: for weights of other names or shapes.
        ValueError: for a weight of an integer type, or a silence column of another type than int32.
    """
    weights = {}
    for name, value in state.items():
        if (value.dtype == torch.int32) != (name == "silence"):
            raise ValueError(f"{name} is {value.dtype}")
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        weights[name] = value.to("cpu", dtype, copy=True).contiguous()
    # A configuration may ask for any amount of memory. On the meta device nothing is allocated, and
    # a network that fits the weights there is no larger than they are.
    for device in ("meta", "cpu"):
        with torch.device(device):
            network = make()
        network.load_state_dict(weights, assign=True)
    return network
