"""Models of listeners' ratings: ViSQOL, STOI, PESQ and DNSMOS. They need `melcap[eval]`.

Each takes (reference, decoded, sample_rate) as `metrics` describes, except for `dnsmos`, which
takes the decoded signal alone.
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
"""The input of the network of `dnsmos`: 9.01 s at 16 kHz."""

DNSMOS_POLYNOMIALS = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
"""Polynomials from the network's outputs, in their order, to the scale of the ratings, as in
speechmos. The highest power comes first."""

PESQ_BEGINNINGS = (0.0, 0.1, 0.2)
"""Seconds that are cut from the beginning, in each run of PESQ."""


def visqol_audio(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return ViSQOL v3 in audio mode at 48 kHz: MOS-LQO from 1 to 4.73, that of equal signals.

    It is nan where the reference is silent or shorter than a second, and 1 where only `decoded` is
    silent.
    """
    return _visqol("audio", 48000, reference, decoded, sample_rate)


def visqol_speech(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return ViSQOL v3 in speech mode at 16 kHz: MOS-LQO from 1 to at most 5.

    The mapping to MOS is the lattice network, the default of the reference implementation, and not
    the older exponential, which gives 5 to equal signals. The network gives them 4.1 to 4.7,
    depending on the signal, so compare with the figure of the original. The measure is nan and 1
    as for `visqol_audio`.
    """
    return _visqol("speech", 16000, reference, decoded, sample_rate)


def stoi(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return the short-time objective intelligibility of speech (pystoi, not extended), up to 1.

    It is nan where the reference is silent or has under 0.4 s of speech.
    """
    pystoi = import_extra("pystoi")
    reference, decoded = both_at(10000, reference, decoded, sample_rate)
    if not reference.any() or len(reference) < 4000:
        return math.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Not enough STFT frames", RuntimeWarning)
        value = float(pystoi.stoi(reference, decoded, 10000, extended=False))
    # pystoi returns 1e-5 where too few frames of speech are left.
    return math.nan if value == 1e-5 else value


def pesq_wb(reference: Wave, decoded: Wave, sample_rate: int) -> float:
    """Return PESQ of speech, wide band, at 16 kHz (ITU-T P.862.2): MOS-LQO from 1.04 to 4.64.

    It is the median over three beginnings, `PESQ_BEGINNINGS`. PESQ estimates the delay itself, and
    speech that starts with the first sample can mislead it (docs/measures.md). The measure is nan
    where PESQ finds no utterance in the reference, or either signal is silent.
    """
    pesq = import_extra("pesq")
    reference, decoded = both_at(16000, reference, decoded, sample_rate)
    found = []
    for seconds in PESQ_BEGINNINGS:
        pair = [signal[round(seconds * 16000) :] for signal in (reference, decoded)]
        if all(signal.any() for signal in pair):
            with suppress(pesq.NoUtterancesError, pesq.BufferTooShortError):
                found.append(float(pesq.pesq(16000, *pair, "wb")))
    return median(found) if found else math.nan


@dataclass(frozen=True)
class Dnsmos:
    """Ratings of DNSMOS, from 1 to 5.

    Attributes:
        overall: of the whole.
        signal: of the speech.
        background: of the background noise; 5 is no noise.
    """

    overall: float
    signal: float
    background: float


def dnsmos(decoded: Wave, sample_rate: int) -> Dnsmos:
    """Return DNSMOS P.835 (Reddy et al. 2022) of speech at 16 kHz, without a reference.

    It measures how clean speech sounds, and not whether it is the original speech, so compare with
    the figure of the original. Network and rules are those of speechmos: a signal under 9.01 s is
    repeated, a longer one is cut into windows of 9.01 s that begin a second apart, and the result
    is the mean over windows. Samples are clamped to full scale.

    Raises:
        InputError: for audio that is not finite samples, [samples].
    """
    if decoded.ndim != 1 or not decoded.size or not np.isfinite(decoded).all():
        raise InputError(f"decoded must be finite samples [samples], not {list(decoded.shape)}")
    session = _dnsmos_session()
    wave = resample(decoded, sample_rate, 16000).clip(-1, 1).astype(np.float32)
    while len(wave) < DNSMOS_SAMPLES:
        wave = np.concatenate((wave, wave))
    # speechmos counts in seconds, and skips a window whose end is rounded down by a sample.
    seconds = range(max(0, len(wave) // 16000 - 10) + 1)
    windows = [wave[16000 * start : int((start + 9.01) * 16000)] for start in seconds]
    whole = [window[None] for window in windows if len(window) == DNSMOS_SAMPLES]
    outputs = np.array([session.run(None, {"input_1": window})[0][0] for window in whole])
    ratings = {
        name: float(np.polyval(polynomial, outputs[:, output].astype(np.float64)).mean())
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
    # By default, ViSQOL takes the mapping to MOS that the installed packages allow.
    api.create(mode=mode, use_lattice_model=mode == "speech")
    return api


@cache
def _dnsmos_session() -> Any:
    onnxruntime = import_extra("onnxruntime")
    # The modules of speechmos import librosa, which only its other models need.
    folder = Path(import_extra("speechmos").__path__[0]) / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    # The scorecard runs a process on each core.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(folder / "sig_bak_ovr.onnx"), options, providers=["CPUExecutionProvider"]
    )
