"""The codec's stages and operations in what every graph runtime has: real numbers, no FFT.

Weights are shared with the stages that they replace. The operations of `melcap.ops` are decomposed
into plain PyTorch; the front end, Griffin-Lim steps and the search for the nearest code differ from
the references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from melcap.config import MelSpec
from melcap.model.griffin_lim import GriffinLim
from melcap.model.mel import LogMel
from melcap.model.vocoder import ISTFTHead
from melcap.onnx.dft import Grid, InverseRealDFT, RealDFT
from melcap.ops import reference
from melcap.ops.reference import TIE, gain

CANDIDATES = 16
"""Number of codes that float32 scores nominate; exact distances decide between them."""


class PortableLogMel(LogMel):
    window: Tensor
    filters: Tensor

    def __init__(self, stage: LogMel) -> None:
        super().__init__(stage.spec)
        spec = stage.spec
        cpu = torch.device("cpu")
        self.dft = RealDFT(spec.n_fft)
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
        self.inverse_dft = InverseRealDFT(stage.n_fft)
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


class FirstState(nn.Module):
    """Split [batch, 2 * hop + n_fft / 2 + 1, frames] into the state of a `GriffinLimStep`."""

    bins: Tensor

    def __init__(self, stage: GriffinLim) -> None:
        super().__init__()
        self.hop, self.grid = stage.hop, Grid(stage.n_fft)
        self.register_buffer("bins", self.grid.bins, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wave, before, magnitude = x.tensor_split((self.hop, 2 * self.hop), dim=1)
        wanted = magnitude[:, self.bins].unflatten(1, (self.grid.kept, 1, self.grid.columns))
        return wave, before, wanted


class GriffinLimStep(nn.Module):
    """Take one of the steps of a `GriffinLim`, with frames as the last axis.

    It turns a state into the state of the frames that the step reaches. A state is the wave and the
    wave one step before, both [batch, hop, frames], and the magnitudes wanted in the `Grid` of the
    spectrum, [batch, kept, 1, columns, frames].
    """

    window: Tensor
    inverse: Tensor

    def __init__(self, stage: GriffinLim) -> None:
        super().__init__()
        self.n_fft, self.hop, self.momentum = stage.n_fft, stage.hop, stage.momentum
        self.dft, self.inverse_dft = RealDFT(stage.n_fft), InverseRealDFT(stage.n_fft)
        cpu = torch.device("cpu")
        window = reference.hann_window(stage.n_fft, torch.float32, cpu)
        inverse = reference.inverse_window(stage.n_fft, stage.hop, torch.float32, cpu)
        self.register_buffer("window", window[:, None], persistent=False)
        self.register_buffer("inverse", inverse[:, None], persistent=False)

    def forward(self, wave: Tensor, before: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        blocks = self.n_fft // self.hop
        reach, lead = blocks - 1, blocks // 2
        moved = wave + self.momentum * (wave - before)
        windows = _windows(moved, self.n_fft) * self.window
        spectrum = self.dft(windows)
        frames = windows.shape[-1]
        power = spectrum.square().sum(2, keepdim=True)
        spectrum = spectrum * gain(power, wanted[..., lead : lead + frames])
        parts = (self.inverse_dft(spectrum) * self.inverse).split(self.hop, dim=1)
        whole = frames - reach
        agreed = parts[reach][..., :whole]
        for k in range(1, blocks):
            agreed = agreed + parts[reach - k][..., k : k + whole]
        return agreed, wave[..., reach:-reach], wanted[..., reach:-reach]


def _windows(blocks: Tensor, n_fft: int) -> Tensor:
    """Return the windows [batch, n_fft, frames] of blocks [batch, hop, frames]."""
    overlap = n_fft // blocks.shape[1]
    frames = blocks.shape[2] - overlap + 1
    return torch.cat([blocks[..., k : k + frames] for k in range(overlap)], dim=1)


PORTABLE: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    LogMel: PortableLogMel,
    ISTFTHead: PortableHead,
}


def make_portable(module: nn.Module) -> None:
    """Replace, in the module itself and all below it, the stages that need an FFT."""
    for name, child in module.named_children():
        if type(child) in PORTABLE:
            setattr(module, name, PORTABLE[type(child)](child))
        else:
            make_portable(child)


def nearest_code(x: Tensor, codebook: Tensor) -> Tensor:
    """Return what `melcap.ops.nearest_code` does, for numbers whose squares are finite.

    Exact as long as no more than `CANDIDATES` codes are as near as float32 rounding.
    """
    scores = torch.addmm(-codebook.square().sum(1) / 2, x, codebook.t())
    codes = scores.topk(min(CANDIDATES, len(codebook)), dim=1).indices
    offsets = x[:, None].double() - F.embedding(codes, codebook).double()
    distance = offsets.square().sum(2).sqrt()
    tied = distance <= distance.amin(1, keepdim=True) * (1 + TIE)
    return torch.where(tied, codes, len(codebook) - 1).amin(1).to(torch.int32)


DECOMPOSITIONS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.melcap.nearest_code: nearest_code,
    torch.ops.melcap.upsample_conv1d: reference.upsample_conv1d,
    torch.ops.melcap.convnext1d: reference.convnext1d,
}


class Decomposed(TorchFunctionMode):
    """Call the decompositions in place of the operations, while a module is traced."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return DECOMPOSITIONS.get(func, func)(*args, **(kwargs or {}))
