"""Replace the codec's stages and operations by forms that every graph runtime can run.

These use real numbers and no FFT. The portable forms of operations are defined in `melcap.ops`; the
stages here use them. Weights are shared with the stages that are replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from melcap.model.griffin_lim import LOUDEST_LN_MAGNITUDE
from melcap.model.mel import LogMel
from melcap.model.vocoder import ISTFTHead
from melcap.ops.dft import InverseRealDFT
from melcap.ops.log_mel.portable import PortableLogMel
from melcap.ops.polar_istft import cartesian, overlap_add
from melcap.ops.registry import OPERATIONS


class PortableFrontEnd(LogMel):
    """The front end without an FFT."""

    def __init__(self, stage: LogMel) -> None:
        super().__init__(stage.spec)
        self.log_mel = PortableLogMel(stage.spec)

    def forward(self, wave: Tensor) -> Tensor:
        """Return [batch, n_mels, frames] for [batch, samples]."""
        mel: Tensor = self.log_mel(wave)
        return mel


class PortableHead(ISTFTHead):
    """The inverse STFT without an FFT."""

    sign: Tensor
    bins: Tensor

    def __init__(self, stage: ISTFTHead) -> None:
        super().__init__(stage.linear.in_features, stage.hop, stage.overlap)
        self.linear = stage.linear
        self.inverse_dft = InverseRealDFT(stage.n_fft)
        grid = self.inverse_dft.grid
        self.register_buffer("bins", grid.bins, persistent=False)
        self.register_buffer("sign", grid.sign[:, None], persistent=False)

    def synthesis(self, x: Tensor) -> Tensor:
        """Return the wave of ln magnitudes and phases [batch, steps, n_fft + 2]."""
        grid = self.inverse_dft.grid
        real, imaginary = cartesian(x, LOUDEST_LN_MAGNITUDE)
        parts = (real.transpose(1, 2)[:, self.bins], imaginary.transpose(1, 2)[:, self.bins])
        by_k1 = [
            part.unflatten(1, (grid.kept, grid.columns))
            for part in (parts[0], parts[1] * self.sign)
        ]
        frames = self.inverse_dft(torch.stack(by_k1, dim=2)).transpose(1, 2)
        return overlap_add(frames * self.window, self.hop)


PORTABLE: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    LogMel: PortableFrontEnd,
    ISTFTHead: PortableHead,
}


def make_portable(module: nn.Module) -> None:
    """Replace the stages that need an FFT, in the module and all its submodules."""
    for name, child in module.named_children():
        if type(child) in PORTABLE:
            setattr(module, name, PORTABLE[type(child)](child))
        else:
            make_portable(child)


DECOMPOSITIONS: dict[Any, Callable[..., Tensor]] = {
    getattr(torch.ops.melcap, name): operation.portable
    for name, operation in OPERATIONS.items()
    if operation.portable is not None
}


class Decomposed(TorchFunctionMode):
    """A mode that calls the portable forms in place of the operations, while a module is traced."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return DECOMPOSITIONS.get(func, func)(*args, **(kwargs or {}))
