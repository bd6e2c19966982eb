"""What profiling/kernels.py measures: shapes, contenders, and the fewest bytes and FLOP of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import melcap
from melcap.config import MelSpec
from melcap.ops import log_mel, nearest_code, reference, upsample_conv1d

Contenders = dict[str, Callable[[], Tensor]]


@dataclass
class Case:
    """One shape of one operation. `bytes` and `flops` are the fewest that the work needs."""

    operation: str
    name: str
    dtype: torch.dtype
    bytes: float
    flops: float
    units: str
    build: Callable[[], tuple[Any, ...]]
    call: Callable[..., Tensor]
    peers: Callable[..., Contenders]
    truth: Callable[..., Tensor]
    _arguments: tuple[Any, ...] = field(default=())

    def arguments(self) -> tuple[Any, ...]:
        """As the backends' implementations take them; made once, on the device."""
        self._arguments = self._arguments or self.build()
        return self._arguments

    def contenders(self) -> Contenders:
        """melcap on both backends, then the peers."""

        def on(backend: str) -> Callable[[], Tensor]:
            def run() -> Tensor:
                with melcap.use_backend(backend):
                    return self.call(*self.arguments())

            return run

        ours = {"melcap triton": on("triton"), "melcap torch": on("torch")}
        return ours | self.peers(*self.arguments())

    def expected(self) -> Tensor:
        """In float64."""
        return self.truth(*self.arguments())


def log_mel_cases() -> list[Case]:
    found = []
    spec = MelSpec()
    for batch, seconds in ((1, 0.1), (1, 1), (1, 10), (8, 10), (64, 10), (64, 30)):
        samples = round(seconds * spec.sample_rate)
        frames = -(-samples // spec.hop)
        found.append(
            Case(
                "log_mel",
                f"{batch} x {seconds:g} s",
                torch.float32,
                4.0 * batch * (samples + spec.n_mels * frames),
                36e3 * batch * frames,  # see melcap/kernels/log_mel.py
                "float32 FLOP/s",
                lambda b=batch, n=samples: (
                    torch.randn(b, n, device="cuda") * 0.1,
                    spec,
                    spec.margin,
                    spec.margin + spec.hop - 1,
                ),
                lambda wave, spec, left, right: log_mel(wave, spec, padding=(left, right)),
                _log_mel_peers,
                lambda wave, spec, left, right: torch.cat(
                    [reference.log_mel(clip.double(), spec, left, right) for clip in wave.split(1)]
                ),
            )
        )
    return found


def _log_mel_peers(wave: Tensor, spec: MelSpec, left: int, right: int) -> Contenders:
    if importlib.util.find_spec("torchaudio") is None:
        print("torchaudio is not installed: left out")
        return {}
    from torchaudio.transforms import MelSpectrogram

    mel = MelSpectrogram(
        spec.sample_rate,
        spec.n_fft,
        hop_length=spec.hop,
        n_mels=spec.n_mels,
        power=1,
        center=False,
        norm=None,
        mel_scale="htk",
    ).to("cuda")

    def eager() -> Tensor:
        padded = torch.nn.functional.pad(wave, (left, right))
        return (mel(padded).clamp(min=spec.floor).log() - spec.mean) / spec.std

    return {"torchaudio": eager, "torchaudio compiled": torch.compile(eager)}


def nearest_code_cases() -> list[Case]:
    found = []
    for rows, codes, dim in (
        (12, 8192, 32),
        (258, 8192, 32),
        (2584, 8192, 32),
        (131072, 8192, 32),
        (1048576, 8192, 32),
        (131072, 65536, 64),
        (131072, 1024, 128),
        (131072, 8192, 256),
    ):
        found.append(
            Case(
                "nearest_code",
                f"{rows} x {codes} x {dim}",
                torch.float32,
                4.0 * (rows * dim + codes * dim + rows),
                2.0 * rows * codes * dim,
                "tf32 FLOP/s",
                lambda n=rows, k=codes, d=dim: (
                    torch.randn(n, d, device="cuda"),
                    torch.randn(k, d, device="cuda"),
                ),
                nearest_code,
                _nearest_code_peers,
                _true_codes,
            )
        )
    return found


def _true_codes(x: Tensor, codebook: Tensor) -> Tensor:
    with melcap.use_backend("torch"):
        return nearest_code(x, codebook)


def _nearest_code_peers(x: Tensor, codebook: Tensor) -> Contenders:
    half_norms = codebook.square().sum(1) / 2
    at_once = max(1, 2**28 // len(codebook))

    def cdist() -> Tensor:
        return torch.cat([torch.cdist(part, codebook).argmin(1) for part in x.split(at_once)])

    def addmm() -> Tensor:
        parts = [
            torch.addmm(-half_norms, part, codebook.t()).argmax(1) for part in x.split(at_once)
        ]
        return torch.cat(parts)

    return {"cdist + argmin": cdist, "addmm + argmax": addmm, "compiled": torch.compile(addmm)}


def upsample_conv1d_cases() -> list[Case]:
    found = []
    for name, batch, channels_in, channels_out, steps, stride, kernel in (
        ("lite 1 x 0.1 s", 1, 256, 128, 19, 4, 8),
        ("lite 1 x 10 s", 1, 256, 128, 1724, 4, 8),
        ("lite 64 x 10 s", 64, 256, 128, 1724, 4, 8),
        ("512 to 256, x8", 8, 512, 256, 860, 8, 16),
        ("256 to 128, x8", 8, 256, 128, 6880, 8, 16),
        ("128 to 64, x2", 8, 128, 64, 55040, 2, 4),
        ("64 to 32, x2", 8, 64, 32, 110080, 2, 4),
        ("32 to 32, x5", 8, 32, 32, 20000, 5, 10),
    ):
        outputs = batch * steps * stride * channels_out
        found.append(
            Case(
                "upsample_conv1d",
                name,
                torch.float32,
                4.0 * (batch * channels_in * steps + channels_in * channels_out * kernel + outputs),
                2.0 * outputs * channels_in * kernel / stride,
                "tf32 FLOP/s",
                lambda b=batch, i=channels_in, o=channels_out, t=steps, s=stride, k=kernel: (
                    torch.randn(b, i, t, device="cuda"),
                    torch.randn(i, o, k, device="cuda") / (i * k / s) ** 0.5,
                    torch.randn(o, device="cuda"),
                    s,
                    "snake",
                    torch.rand(i, device="cuda") + 0.5,
                    None,
                ),
                lambda x, w, b, s, act, alpha, res: upsample_conv1d(
                    x, w, b, s, activation=act, alpha=alpha, residual=res
                ),
                _upsample_peers,
                lambda x, w, b, s, act, alpha, res: reference.upsample_conv1d(
                    x.double(), w.double(), b.double(), s, act, alpha.double(), res
                ),
            )
        )
    return found


def _upsample_peers(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, activation: str, alpha: Tensor, _: None
) -> Contenders:
    def eager() -> Tensor:
        return reference.upsample_conv1d(x, weight, bias, stride, activation, alpha, None)

    return {"cuDNN": eager, "compiled": torch.compile(eager)}


CASES: dict[str, Callable[[], list[Case]]] = {
    "log_mel": log_mel_cases,
    "nearest_code": nearest_code_cases,
    "upsample_conv1d": upsample_conv1d_cases,
}
