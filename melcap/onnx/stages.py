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
from melcap.griffin_lim import GriffinLim
from melcap.mel import LogMel
from melcap.onnx.dft import InverseRealDFT, RealDFT
from melcap.ops import reference
from melcap.ops.reference import TIE, gain
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
        self.dft = _dft(spec.n_fft)
        window = reference.hann_window(spec.n_fft, torch.float32, cpu)
        edges = (spec.sample_rate, spec.n_fft, spec.n_mels)
        filters = reference.mel_filters(*edges, torch.float64, cpu)
        bins = self.dft.grid.bins
        filters = (filters / bins.bincount()[:, None])[bins]
        self.register_buffer("window", window[:, None], persistent=False)
        self.register_buffer("filters", filters.t().float(), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        spec: MelSpec = self.spec
        hops = wave[:, : wave.shape[1] // spec.hop * spec.hop].unflatten(1, (-1, spec.hop))
        windows = _windows(hops.transpose(1, 2), spec.n_fft) * self.window
        real, imaginary = self.dft(windows).unbind(-3)
        magnitude = (real.square() + imaginary.square()).sqrt().flatten(1, 2)
        mel = self.filters @ magnitude
        return (mel.clamp(min=spec.floor).log() - spec.mean) / spec.std


class PortableHead(ISTFTHead):
    sign: Tensor
    bins: Tensor

    def __init__(self, stage: ISTFTHead) -> None:
        super().__init__(stage.linear.in_features, stage.hop, stage.overlap)
        self.linear = stage.linear
        self.inverse_dft = _inverse_dft(stage.n_fft)
        grid = self.inverse_dft.grid
        self.register_buffer("bins", grid.bins, persistent=False)
        self.register_buffer("sign", grid.sign[:, None], persistent=False)

    def synthesis(self, real: Tensor, imaginary: Tensor) -> Tensor:
        grid = self.inverse_dft.grid
        parts = (real.transpose(1, 2)[:, self.bins], imaginary.transpose(1, 2)[:, self.bins])
        by_k1 = [
            part.unflatten(1, (grid.kept, grid.columns))
            for part in (parts[0], parts[1] * self.sign)
        ]
        return self.inverse_dft(torch.stack(by_k1, dim=2)).transpose(1, 2)


class PortableGriffinLim(GriffinLim):
    """The steps with frames as the last axis, as the tensors between stages say they are."""

    bins: Tensor
    window: Tensor
    inverse: Tensor

    def __init__(self, stage: GriffinLim) -> None:
        super().__init__(stage.n_fft, stage.hop, stage.momentum, stage.steps)
        self.dft, self.inverse_dft = _dft(stage.n_fft), _inverse_dft(stage.n_fft)
        cpu = torch.device("cpu")
        window = reference.hann_window(stage.n_fft, torch.float32, cpu)
        inverse = reference.inverse_window(stage.n_fft, stage.hop, torch.float32, cpu)
        self.register_buffer("bins", self.dft.grid.bins, persistent=False)
        self.register_buffer("window", window[:, None], persistent=False)
        self.register_buffer("inverse", inverse.view(-1, stage.hop, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        wave, before, magnitude = x.tensor_split((self.hop, 2 * self.hop), dim=1)
        blocks = self.n_fft // self.hop
        grid, reach, lead = self.dft.grid, blocks - 1, blocks // 2
        wanted = magnitude[:, self.bins].unflatten(1, (grid.kept, 1, grid.columns))
        for _ in range(self.steps):
            moved = torch.lerp(before, wave, 1 + self.momentum)
            windows = _windows(moved, self.n_fft) * self.window
            spectrum = self.dft(windows)
            frames = windows.shape[-1]
            power = spectrum.square().sum(2, keepdim=True)
            spectrum = spectrum * gain(power, wanted[..., lead : lead + frames])
            parts = self.inverse_dft(spectrum).unflatten(1, (blocks, self.hop)) * self.inverse
            whole = frames - reach
            before = wave[..., reach:-reach]
            wave = sum(parts[:, reach - k, :, k : k + whole] for k in range(blocks))
            wanted = wanted[..., reach:-reach]
        kept = self.steps * reach
        return torch.cat((wave, before, magnitude[..., kept:-kept]), dim=1)


def _windows(blocks: Tensor, n_fft: int) -> Tensor:
    """Blocks [batch, hop, frames] -> their windows [batch, n_fft, frames]."""
    overlap = n_fft // blocks.shape[1]
    frames = blocks.shape[2] - overlap + 1
    return torch.cat([blocks[..., k : k + frames] for k in range(overlap)], dim=1)


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
    return torch.where(tied, codes, len(codebook) - 1).amin(1).to(torch.int32)


DECOMPOSITIONS = {
    torch.ops.melcap.nearest_code.default: nearest_code,
    torch.ops.melcap.upsample_conv1d.default: reference.upsample_conv1d,
    torch.ops.melcap.convnext1d.default: reference.convnext1d,
}
