"""Models of what listeners say: ViSQOL, STOI, PESQ and DNSMOS. They need `melcap[eval]`.

Each takes (reference, decoded, sample_rate) as `melcap.evaluation.measures.metrics` says, but for `dnsmos`,
which hears the decoded signal alone.
"""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from melcap.errors import InputError
from melcap.evaluation.measures.signals import Wave, both_at, resample
from melcap.extras import import_extra

DNSMOS_SAMPLES = 144160
"""What the network of `dnsmos` hears at a time: 9.01 s at 16 kHz."""

DNSMOS_POLYNOMIALS = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
"""From what the network says to the scale of the ratings, in the order of its outputs; highest
power first. As in speechmos."""


PESQ_BEGINNINGS = (0.0, 0.1, 0.2)
"""Seconds that PESQ does not hear, each time it is asked."""


def visqol_audio(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """ViSQOL v3 in audio mode at 48 kHz: MOS-LQO from 1 to 4.73 (what identical signals get).

    nan where the reference is silent or shorter than a second; 1 where only `decoded` is silent.
    """
    return _visqol("audio", 48000, reference, decoded, sample_rate)


def visqol_speech(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """ViSQOL v3 in speech mode at 16 kHz: MOS-LQO from 1 to at most 5.

    The mapping to MOS is the lattice network, the default of the reference implementation, and not
    the older exponential, which gives 5 to identical signals. The network gives them 4.1 to 4.7,
    as the signal is: read it beside its figure for the original. nan and 1 as for `visqol_audio`.
    """
    return _visqol("speech", 16000, reference, decoded, sample_rate)


def stoi(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Short-time objective intelligibility of speech (pystoi, not extended), up to 1.

    nan where the reference is silent or has under 0.4 s of speech.
    """
    pystoi = import_extra("pystoi")
    reference, decoded = both_at(10000, reference, decoded, sample_rate)
    if not reference.any() or len(reference) < 4000:
        return math.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not enough STFT frames", RuntimeWarning)
        value = float(pystoi.stoi(reference, decoded, 10000, extended=False))
    # What pystoi returns where too few frames of speech are left.
    return math.nan if value == 1e-5 else value


def pesq_wb(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """PESQ of speech, wide band, at 16 kHz (ITU-T P.862.2): MOS-LQO from 1.04 to 4.64.

    The median over three beginnings, `PESQ_BEGINNINGS`: PESQ finds the delay by itself, and may be
    led wrong by speech that sets in with the first sample (docs/measures.md). nan where it finds
    no utterance in the reference, or either signal is silent.
    """
    pesq = import_extra("pesq")
    reference, decoded = both_at(16000, reference, decoded, sample_rate)
    found = []
    for seconds in PESQ_BEGINNINGS:
        heard = [signal[round(seconds * 16000) :] for signal in (reference, decoded)]
        if all(signal.any() for signal in heard):
            with suppress(pesq.NoUtterancesError, pesq.BufferTooShortError):
                found.append(float(pesq.pesq(16000, *heard, "wb")))
    return median(found) if found else math.nan


@dataclass(frozen=True)
class Dnsmos:
    """Ratings from 1 to 5 of speech (`signal`), of the noise behind it (`background`; 5 is none)
    and of both (`overall`)."""

    overall: float
    signal: float
    background: float


def dnsmos(decoded: Wave, sample_rate: int) -> Dnsmos:
    """DNSMOS P.835 (Reddy et al. 2022) of speech at 16 kHz, without a reference.

    It says how clean speech sounds, not whether it is the speech that went in: read it beside its
    figure for the original. The network is the one in speechmos, and so are the rules: a signal
    under 9.01 s is repeated, a longer one is heard in windows of 9.01 s that begin a second apart,
    and the mean over windows counts. Samples are clamped to full scale.
    """
    if decoded.ndim != 1 or not decoded.size or not np.isfinite(decoded).all():
        raise InputError(f"decoded must be finite samples [samples], not {list(decoded.shape)}")
    session = _dnsmos_session()
    wave = resample(decoded, sample_rate, 16000).clip(-1, 1).astype(np.float32)
    while len(wave) < DNSMOS_SAMPLES:
        wave = np.concatenate((wave, wave))
    # speechmos counts in seconds, and skips a window whose end it rounds to a sample too early.
    seconds = range(max(0, len(wave) // 16000 - 10) + 1)
    windows = [wave[16000 * start : int((start + 9.01) * 16000)] for start in seconds]
    whole = [window[None] for window in windows if len(window) == DNSMOS_SAMPLES]
    heard = np.array([session.run(None, {"input_1": window})[0][0] for window in whole])
    ratings = {
        name: float(np.polyval(polynomial, heard[:, output].astype(np.float64)).mean())
        for output, (name, polynomial) in enumerate(DNSMOS_POLYNOMIALS.items())
    }
    return Dnsmos(**ratings)


def _visqol(mode: str, rate: int, reference: Wave, decoded: Wave, sample_rate: int) -> float:
    reference, decoded = both_at(rate, reference, decoded, sample_rate)
    if not reference.any() or len(reference) < rate:
        return math.nan
    if not decoded.any():
        return 1.0
    return float(_visqol_api(mode).measure_from_arrays(reference, decoded, rate).moslqo)


@cache
def _visqol_api(mode: str) -> Any:
    visqol = import_extra("visqol")
    if mode == "speech":
        import_extra("ai_edge_litert")
    api = visqol.VisqolApi()
    # Left to itself, ViSQOL takes whichever mapping to MOS the installed packages allow.
    api.create(mode=mode, use_lattice_model=mode == "speech")
    return api


@cache
def _dnsmos_session() -> Any:
    onnxruntime = import_extra("onnxruntime")
    # speechmos itself would import librosa, which only its other models need.
    folder = Path(import_extra("speechmos").__path__[0]) / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    # The scorecard runs a process for each core.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(folder / "sig_bak_ovr.onnx"), options, providers=["CPUExecutionProvider"]
    )
