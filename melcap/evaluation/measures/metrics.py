"""Every measure of the scorecard, by name.

A measure of sound takes (reference, decoded, sample_rate): two finite float arrays [samples] of one
length, full scale at 1, and their rate in Hz. It resamples to the rate that it is defined at, and
raises `InputError` where the arrays do not fit. `nan` says that the measure is not defined for this
clip: a silent reference, or one too short. The measures of `perceptual` need `melcap[eval]`; the
others need only what melcap itself needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from melcap.evaluation.measures.paper import paper_mel, paper_stft
from melcap.evaluation.measures.perceptual import dnsmos, pesq_wb, stoi, visqol_audio, visqol_speech
from melcap.evaluation.measures.signals import Wave
from melcap.evaluation.measures.spectral import (
    log_spectral_distance,
    mel_cepstral_distortion,
    mel_l1,
    multi_resolution_stft,
    over_smoothing,
)

# What other code calls by name is here in one place.
__all__ = [
    "DEFINITIONS",
    "HEADLINE",
    "OF_SPEECH",
    "PACKAGES",
    "SPEECH",
    "TITLES",
    "Wave",
    "log_spectral_distance",
    "measure",
]

Function: TypeAlias = Callable[[Wave, Wave, int], float]

DEFINITIONS = 3
"""Raise it when a definition changes, so that old and new figures are never mixed."""

PACKAGES = ("visqol-python", "ai-edge-litert", "pystoi", "pesq", "onnxruntime", "speechmos")
"""What figures depend on besides the definitions."""

SPEECH = "speech"
"""The class that the measures of speech and the codecs for speech are for."""

OF_ALL: dict[str, Function] = {
    "visqol": visqol_audio,
    "lsd": log_spectral_distance,
    "mcd": mel_cepstral_distortion,
    "mel_l1": mel_l1,
    "over_smoothing": over_smoothing,
    "stft": multi_resolution_stft,
    "paper_mel": paper_mel,
    "paper_stft": paper_stft,
}
OF_SPEECH: dict[str, Function] = {"visqol_speech": visqol_speech, "stoi": stoi, "pesq": pesq_wb}

TITLES = {
    "visqol": "ViSQOL",
    "visqol_speech": "ViSQOL speech",
    "stoi": "STOI",
    "pesq": "PESQ-WB",
    "dnsmos": "DNSMOS",
    "dnsmos_signal": "DNSMOS signal",
    "dnsmos_background": "DNSMOS background",
    "lsd": "LSD",
    "mcd": "MCD",
    "mel_l1": "mel L1",
    "over_smoothing": "over-smoothing",
    "stft": "STFT",
    "paper_mel": "paper's mel",
    "paper_stft": "paper's STFT",
}
"""All measures, in the order of the tables."""

HEADLINE = ("visqol", "stoi", "pesq", "dnsmos", "lsd", "over_smoothing")
"""What the short table shows."""


def measure(
    reference: Wave, decoded: Wave, sample_rate: int, *, speech: bool = False
) -> dict[str, float]:
    """All measures of a clip by their names in `TITLES`; those of speech where it is speech."""
    functions = OF_ALL | (OF_SPEECH if speech else {})
    values = {name: of(reference, decoded, sample_rate) for name, of in functions.items()}
    if speech:
        heard = dnsmos(decoded, sample_rate)
        values["dnsmos"] = heard.overall
        values["dnsmos_signal"] = heard.signal
        values["dnsmos_background"] = heard.background
    return values
