"""Compare log_mel with PyTorch's operations and the mel spectrograms of torchaudio and flashmel."""

from __future__ import annotations

import importlib
import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from cases.case import Case, Contenders
from melcap.config import MelSpec
from melcap.ops import log_mel
from melcap.ops.log_mel import log_mel_reference, mel_filters

_PACKAGES = {"torchaudio": "torchaudio.transforms", "flashmel": "flashmel"}
"""The peers, and the module in which each has its MelSpectrogram."""


def cases() -> list[Case]:
    """Return the cases that are measured."""
    found = []
    spec = MelSpec()
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: left out")
    for batch, seconds in ((1, 0.1), (1, 1), (1, 10), (8, 10), (64, 10), (64, 30)):
        samples = round(seconds * spec.sample_rate)
        frames = -(-samples // spec.hop)
        found.append(
            Case(
                "log_mel",
                f"{batch} x {seconds:g} s",
                torch.float32,
                4.0 * batch * (samples + spec.n_mels * frames),
                36e3 * batch * frames,  # see kernels/log_mel/kernels.py
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
                    [log_mel_reference(clip.double(), spec, left, right) for clip in wave.split(1)]
                ),
            )
        )
    return found


def _peers(wave: Tensor, spec: MelSpec, left: int, right: int) -> Contenders:
    window = torch.hann_window(spec.n_fft, device="cuda")
    filters = mel_filters(spec.sample_rate, spec.n_fft, spec.n_mels, torch.float32, wave.device).t()

    def scaled(mel: Tensor) -> Tensor:
        return (mel.clamp(min=spec.floor).log() - spec.mean) / spec.std

    def stft() -> Tensor:
        padded = F.pad(wave, (left, right))
        spectrum = torch.stft(
            padded, spec.n_fft, spec.hop, window=window, center=False, return_complex=True
        )
        return scaled(filters @ spectrum.abs())

    found: Contenders = {"torch.stft": stft, "torch.stft compiled": torch.compile(stft)}
    for name, package in _PACKAGES.items():
        if importlib.util.find_spec(name) is None:
            continue
        mel = importlib.import_module(package).MelSpectrogram(
            spec.sample_rate,
            spec.n_fft,
            hop_length=spec.hop,
            n_mels=spec.n_mels,
            power=1.0,
            center=False,
            norm=None,
            mel_scale="htk",
        )
        on_device = mel.to("cuda")
        found[name] = lambda mel=on_device: scaled(mel(F.pad(wave, (left, right))))
    return found
