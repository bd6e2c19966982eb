"""Every measure of the scorecard, by name.

A measure of sound takes (reference, decoded, sample_rate): two finite float arrays [samples] of the
same length, full scale at 1, and their rate in Hz. It resamples to the rate that it is defined at,
and raises `InputError` for arrays that do not fit. It returns nan where it is not defined for the
clip: where the reference is silent or too short. The measures of `perceptual` need `melcap[eval]`;
the others need no extra.
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

__all__ = [
    "DEFINITIONS",
    "HEADLINE",
    "OF_SPEECH",
    "PACKAGES",
    "SPEECH",
    "TITLES",
    "WIDE_BAND",
    "Wave",
    "log_spectral_distance",
    "measure",
]

Function: TypeAlias = Callable[[Wave, Wave, int], float]

DEFINITIONS = 3
"""Raise it when a definition changes, so that old and new figures are never mixed."""

PACKAGES = ("visqol-python", "ai-edge-litert", "pystoi", "pesq", "onnxruntime", "speechmos")
"""The packages that figures depend on."""

WIDE_BAND = 16000
"""The highest rate in Hz at which ViSQOL runs in speech mode, for clips of every class. Audio mode
is defined for 48 kHz, and rates the bands that such clips do not have as kept."""

SPEECH = "speech"
"""The class of clips for measures of speech and codecs for speech."""

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
"""The measures in the short table. ViSQOL's speech mode takes the place of its audio mode where
that is not measured."""


def measure(
    reference: Wave, decoded: Wave, sample_rate: int, *, speech: bool = False
) -> dict[str, float]:
    """Measure a decoded clip.

    Args:
        reference: the original, [samples].
        decoded: the decoded audio, [samples].
        sample_rate: their rate in Hz.
        speech: whether the clip is speech; then the measures of speech are included.

    Returns:
        The measures, by their names in `TITLES`. Up to a rate of `WIDE_BAND`, "visqol" is left out
        and "visqol_speech" is there for every clip.

    Raises:
        InputError: for arrays that do not fit.
        MelcapError: for a package that is not installed.
    """
    functions = OF_ALL | (OF_SPEECH if speech else {})
    if sample_rate <= WIDE_BAND:
        del functions["visqol"]
        functions["visqol_speech"] = visqol_speech
    values = {name: of(reference, decoded, sample_rate) for name, of in functions.items()}
    if speech:
        ratings = dnsmos(decoded, sample_rate)
        values["dnsmos"] = ratings.overall
        values["dnsmos_signal"] = ratings.signal
        values["dnsmos_background"] = ratings.background
    return values
