"""log_mel and torchaudio's mel spectrogram."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from cases.case import Case, Contenders
from melcap.config import MelSpec
from melcap.ops import log_mel, reference


def cases() -> list[Case]:
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
                _peers,
                lambda wave, spec, left, right: torch.cat(
                    [reference.log_mel(clip.double(), spec, left, right) for clip in wave.split(1)]
                ),
            )
        )
    return found


def _peers(wave: Tensor, spec: MelSpec, left: int, right: int) -> Contenders:
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
