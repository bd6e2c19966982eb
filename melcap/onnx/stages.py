"""The codec's stages and operations in what every graph runtime has: real numbers, no FFT.

Weights are shared with the stages that they replace. The operations of `melcap.ops` are decomposed
into plain PyTorch, the front end and the search for the nearest code in ways of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melcap.config import MelSpec
from melcap.griffin_lim import GriffinLim, gain
from melcap.mel import LogMel
from melcap.onnx.dft import InverseRealDFT, RealDFT
from melcap.ops import reference
from melcap.ops.reference import TIE
from melcap.vocoder import ISTFTHead

CANDIDATES = 16
"""Codes that float32 scores nominate, for exact distances to decide between."""


# One for all stages, so that a graph holds the matrices once.
_dft = lru_cache(RealDFT)
_inverse_dft = lru_cache(InverseRealDFT)


class PortableLogMel(LogMel):
    window: Tensor
    filters: Tensor

    def __init__(self, stage: LogMel) -> None:
        super().__init__(stage.spec)
        spec = stage.spec
        cpu = torch.device("cpu")
        window = reference.hann_window(spec.n_fft, torch.float32, cpu)
        edges = (spec.sample_rate, spec.n_fft, spec.n_mels)
        filters = reference.mel_filters(*edges, torch.float32, cpu)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.dft = _dft(spec.n_fft)

    def forward(self, wave: Tensor) -> Tensor:
        spec: MelSpec = self.spec
        overlap = spec.n_fft // spec.hop
        hops = wave[:, : wave.shape[1] // spec.hop * spec.hop].unflatten(1, (-1, spec.hop))
        frames = hops.shape[1] - overlap + 1
        windows = torch.cat([hops[:, k : k + frames] for k in range(overlap)], dim=-1)
        real, imaginary = self.dft(windows * self.window).chunk(2, dim=-1)
        mel = (real.square() + imaginary.square()).sqrt() @ self.filters
        return ((mel.clamp(min=spec.floor).log() - spec.mean) / spec.std).transpose(1, 2)


class PortableHead(ISTFTHead):
    def __init__(self, stage: ISTFTHead) -> None:
        super().__init__(stage.linear.in_features, stage.hop, stage.overlap)
        self.linear = stage.linear
        self.inverse_dft = _inverse_dft(stage.n_fft)

    def synthesis(self, real: Tensor, imaginary: Tensor) -> Tensor:
        return self.inverse_dft(torch.cat((real, imaginary), dim=-1))


class PortableGriffinLim(GriffinLim):
    def __init__(self, stage: GriffinLim) -> None:
        super().__init__(stage.n_fft, stage.hop, stage.momentum, stage.steps)
        self.dft, self.inverse_dft = _dft(stage.n_fft), _inverse_dft(stage.n_fft)

    def impose(self, windows: Tensor, wanted: Tensor) -> Tensor:
        spectrum = self.dft(windows)
        real, imaginary = spectrum.chunk(2, dim=-1)
        each = gain(real.square() + imaginary.square(), wanted)
        return self.inverse_dft(spectrum * torch.cat((each, each), dim=-1))


PORTABLE: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    LogMel: PortableLogMel,
    ISTFTHead: PortableHead,
    GriffinLim: PortableGriffinLim,
}


def make_portable(module: nn.Module) -> None:
    """Replaces, in the module itself and all below it, the stages that need an FFT."""
    for name, child in module.named_children():
        if type(child) in PORTABLE:
            setattr(module, name, PORTABLE[type(child)](child))
        else:
            make_portable(child)


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """`melcap.ops.nearest_code`, for finite numbers whose squares are finite too.

    Exact as long as no more than `CANDIDATES` codes are as near as float32 rounding.
    """
    scores = torch.addmm(-codebook.square().sum(1) / 2, x, codebook.t())
    codes = scores.topk(min(CANDIDATES, len(codebook)), dim=1).indices
    offsets = x[:, None].double() - F.embedding(codes, codebook).double()
    distance = offsets.square().sum(2).sqrt()
    tied = distance <= distance.amin(1, keepdim=True) * (1 + TIE)
    return torch.where(tied, codes, len(codebook)).amin(1).to(torch.int32)


DECOMPOSITIONS = {
    torch.ops.melcap.nearest_code.default: nearest_code,
    torch.ops.melcap.upsample_conv1d.default: reference.upsample_conv1d,
    torch.ops.melcap.convnext1d.default: reference.convnext1d,
}
