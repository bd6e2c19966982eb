"""Networks from weights files, and weights files from networks.

A file holds half precision, and a network computes in float32. For the published architecture half
precision is too coarse, and its files hold float32. `melcap.pretrained` has the public functions.
Here the class of the network is an argument, so that `melcap.Codec` can use these too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from melcap.config import BaseConfig, CodecConfig
from melcap.errors import WeightsError
from melcap.io import weights_file
from melcap.io.weights_file import DECODER, WeightsFile
from melcap.model.base.network import BaseNetwork
from melcap.model.network import Network
from melcap.model.quality import Quality, griffin_lim_steps

N = TypeVar("N", bound=Network)
B = TypeVar("B", bound=BaseNetwork)
Built = TypeVar("Built", bound=Network | BaseNetwork)


def network_of(kind: type[N], weights: WeightsFile, quality: Quality = "default") -> N:
    """Return a network with the weights of a file, for inference on the CPU.

    Args:
        kind: the class of the network.
        weights: the content of the file.
        quality: the quality of decoding.

    Raises:
        WeightsError: for a decoder alone, another architecture, or weights that do not fit their
            configuration.
        InputError: for a quality that the vocoder does not have.
    """
    config = weights.config
    if not isinstance(config, CodecConfig):
        raise WeightsError(
            f"{weights.path}: is of the published MelCap architecture: load the file with "
            "melcap.load, or its folder with melcap.base_codec.BaseCodec.from_pretrained"
        )
    griffin_lim_steps(config, quality)  # a wrong quality is not an error of the weights
    return _fitted(weights, lambda: kind(config, weights.model, quality))


def base_network_of(kind: type[B], weights: WeightsFile) -> B:
    """Return a network of the published architecture, for inference on the CPU.

    Raises:
        WeightsError: for another architecture, or weights that do not fit their configuration.
    """
    config = weights.config
    if not isinstance(config, BaseConfig):
        raise WeightsError(
            f"{weights.path}: is not of the published MelCap architecture: load the file with "
            "melcap.load, or its folder with melcap.Codec.from_pretrained"
        )
    return _fitted(weights, lambda: kind(config, weights.model))


def any_network_of(weights: WeightsFile) -> Network | BaseNetwork:
    """Return a network of the architecture of a file, for inference on the CPU.

    Raises:
        WeightsError: as `network_of` and `base_network_of`.
    """
    if isinstance(weights.config, BaseConfig):
        return base_network_of(BaseNetwork, weights)
    return network_of(Network, weights)


def _fitted(weights: WeightsFile, make: Callable[[], Built]) -> Built:
    """Return a network of a file's configuration with the weights of the file."""
    if weights.tokenizer_id is not None:
        raise WeightsError(
            f"{weights.path}: holds a decoder alone, for tokenizer {weights.tokenizer_id}: load it "
            f'with melcap.load(decoder="{weights.path}"), which adds an encoder and a codebook'
        )
    try:
        network = _built(make, weights.state)
        network.codebook.check(network.silence)
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"{weights.path}: the weights do not fit their configuration") from error
    network.eval().requires_grad_(False)
    return network


def save(network: Network | BaseNetwork, path: Path) -> str:
    """Write a network, and return the SHA-256 of the file; see `melcap.pretrained.save`."""
    if isinstance(network, BaseNetwork):
        state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        weights_file.check_finite(state, f"{path}: cannot write the weights")
        return weights_file.write(path, network.config, state)
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
def _built(make: Callable[[], Built], state: Mapping[str, Tensor]) -> Built:
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
