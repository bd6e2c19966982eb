"""The measures on signals whose figures are known."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melcap import audio
from melcap.errors import InputError, MelcapError
from melcap.evaluation.measures import metrics, paper, perceptual, spectral
from melcap.evaluation.measures.signals import Wave, resample
from melcap.ops import log_mel
from melcap.ops.log_mel import mel_filters
from tests.helpers import examples

RATE = 44100
DATA = Path(__file__).parents[1] / "data"
VISQOL = [perceptual.visqol_audio, perceptual.visqol_speech]
SPEECH_MEASURES = [*VISQOL, perceptual.stoi, perceptual.pesq_wb]
MEL_MEASURES = [spectral.mel_l1, spectral.mel_cepstral_distortion, spectral.over_smoothing]
DISTANCES = [
    spectral.log_spectral_distance,
    spectral.multi_resolution_stft,
    paper.paper_mel,
    paper.paper_stft,
    spectral.mel_l1,
    spectral.mel_cepstral_distortion,
]
MODULES = ("visqol", "ai_edge_litert", "pystoi", "pesq", "onnxruntime", "speechmos")

needs_eval = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, MODULES)),
    reason='needs pip install "melcap[eval]"',
)


def noise(seconds: float, scale: float = 0.1, seed: int = 0, rate: int = RATE) -> Wave:
    return scale * np.random.default_rng(seed).standard_normal(int(seconds * rate))


@pytest.mark.slow
@needs_eval
def test_identical_speech_gets_the_best_figure_of_every_measure(speech: Wave) -> None:
    part = speech[RATE // 2 : 2 * RATE]
    figures = metrics.measure(part, part.copy(), RATE, speech=True)
    assert figures.keys() == metrics.TITLES.keys()
    best = {"visqol": 4.732, "stoi": 1, "pesq": 4.644, "over_smoothing": 1}
    distances = ("lsd", "mcd", "mel_l1", "stft", "paper_mel", "paper_stft")
    for name, value in (best | dict.fromkeys(distances, 0)).items():
        assert figures[name] == pytest.approx(value, abs=1e-3), name
    # The older mapping of ViSQOL would say 5.
    assert 4.5 < figures["visqol_speech"] < 4.8


@pytest.mark.slow
@needs_eval
def test_what_is_no_speech_has_no_figures_of_speech(music: Wave) -> None:
    of_speech = {*metrics.OF_SPEECH, "dnsmos", "dnsmos_signal", "dnsmos_background"}
    figures = metrics.measure(music, music.copy(), RATE)
    assert figures.keys() == metrics.TITLES.keys() - of_speech
    assert metrics.TITLES.keys() >= set(metrics.HEADLINE)


@pytest.mark.slow
@needs_eval
def test_speech_measures_fall_with_noise_and_rank_it(speech: Wave) -> None:
    part = speech[RATE // 2 : 2 * RATE]
    for measure in SPEECH_MEASURES:
        some, much = (measure(part, part + noise(1.5, scale), RATE) for scale in (0.003, 0.1))
        assert measure(part, part, RATE) > some > much + 0.1


@needs_eval
def test_pesq_is_the_median_over_beginnings(speech: Wave, monkeypatch: pytest.MonkeyPatch) -> None:
    """One delay that PESQ gets wrong is outvoted, and one beginning without speech not counted."""
    pesq = importlib.import_module("pesq")
    part = speech[: 2 * RATE]
    noisy = part + noise(2, 0.01)
    reference, decoded = (resample(wave, RATE, 16000) for wave in (part, noisy))
    single = [pesq.pesq(16000, reference[n:], decoded[n:], "wb") for n in (0, 1600, 3200)]
    assert len({*single}) == 3
    assert perceptual.pesq_wb(part, noisy, RATE) == pytest.approx(sorted(single)[1], abs=1e-4)

    def led_wrong(rate: int, reference: Wave, decoded: Wave, band: str) -> float:
        if len(reference) == 32000 - 3200:
            raise pesq.NoUtterancesError
        return {32000: 1.03, 32000 - 1600: 2.33}[len(reference)]

    monkeypatch.setattr(pesq, "pesq", led_wrong)
    assert perceptual.pesq_wb(part, noisy, RATE) == pytest.approx(1.68)


@given(st.floats(0.2, 4))
@example(1.0)
@settings(max_examples=examples(20))
def test_a_gain_on_white_noise_has_known_figures(gain: float) -> None:
    reference = noise(0.5)
    decoded = gain * reference
    distance = spectral.log_spectral_distance(reference, decoded, RATE)
    assert distance == pytest.approx(2 * abs(math.log10(gain)), rel=1e-3, abs=1e-9)
    # Some filters at low frequencies are too narrow to hold a bin: always at the floor.
    assert spectral.mel_l1(reference, decoded, RATE) == pytest.approx(abs(math.log(gain)), rel=0.1)
    cepstral = spectral.mel_cepstral_distortion(reference, decoded, RATE)
    assert cepstral <= 0.2 * abs(20 * math.log10(gain)) + 1e-9


@given(st.floats(0.2, 4))
@example(1.0)
@settings(max_examples=examples(10))
def test_a_gain_on_white_noise_has_known_figures_in_the_other_distances(gain: float) -> None:
    reference, scale = noise(0.5), 0.1
    figure = {of.__name__: of(reference, gain * reference, RATE) for of in DISTANCES}
    # The bins at both ends are real, and now and then one of them is under the floor.
    assert figure["multi_resolution_stft"] == pytest.approx(
        abs(1 - gain) + abs(math.log(gain)), rel=1e-5, abs=1e-9
    )
    filters = mel_filters(24000, 1024, 100, torch.float64, torch.device("cpu"))
    share = float((filters.sum(0) > 0).double().mean())
    assert figure["paper_mel"] == pytest.approx(share * abs(math.log(gain)), rel=1e-6, abs=1e-9)
    # A magnitude of complex noise of power p is sqrt(pi / 4 p) in the mean.
    magnitude = sum(math.sqrt(math.pi / 4 * 3 / 8 * window) * scale for window in (2048, 512))
    expected = 2 * 2 * abs(math.log10(gain)) + abs(1 - gain) * magnitude
    assert figure["paper_stft"] == pytest.approx(expected, rel=0.01, abs=1e-9)


@pytest.mark.parametrize("of", DISTANCES)
def test_a_shift_of_a_tone_hardly_counts_and_one_of_speech_does(of: Any, speech: Wave) -> None:
    # 43 Hz is a whole number of periods in any window of the STFTs but the odd ones.
    times = np.arange(2 * RATE)
    tone = 0.3 * np.sin(2 * np.pi * 40 * times / 1024)
    later = 0.3 * np.sin(2 * np.pi * 40 * (times - 100) / 1024)
    part = speech[RATE // 2 : 2 * RATE]
    known = of(tone, later, RATE)
    assert known < 0.1
    assert of(part, np.roll(part, 4410), RATE) > max(0.3, 5 * known)


def frames_of(wave: Wave, window: int, hop: int) -> Any:
    """Magnitudes [frames, bins] as torch.stft has them by default, in NumPy alone."""
    padded = np.pad(wave, window // 2, mode="reflect")
    starts = np.arange(0, len(padded) - window + 1, hop)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return np.abs(np.fft.rfft(padded[starts[:, None] + np.arange(window)] * hann))


def test_the_papers_mel_distance_is_the_one_of_its_evaluation(speech: Wave, music: Wave) -> None:
    # torchaudio's filters, from its documentation: the bins are taken to reach to 12 kHz.
    bins = np.linspace(0, 24000 // 2, 513)
    mels = np.linspace(0, 2595 * np.log10(1 + 12000 / 700), 102)
    edges = 700 * (10 ** (mels / 2595) - 1)
    slopes = edges[None] - bins[:, None]
    down, up = -slopes[:, :-2] / np.diff(edges)[:-1], slopes[:, 2:] / np.diff(edges)[1:]
    filters = np.maximum(0, np.minimum(down, up))
    decoded = music[: len(speech)] if len(music) >= len(speech) else np.resize(music, len(speech))
    logs = [
        np.log(np.maximum(frames_of(wave, 1024, 256) @ filters, 1e-7))
        for wave in (speech.astype(np.float64), decoded.astype(np.float64))
    ]
    expected = np.abs(logs[0] - logs[1]).mean()
    assert paper.paper_mel(speech, decoded, RATE) == pytest.approx(expected, rel=1e-9)


def test_the_papers_stft_distance_is_the_one_of_audiotools(speech: Wave, music: Wave) -> None:
    decoded = np.resize(music, len(speech))
    # Digital silence somewhere, for the floor to matter.
    decoded[:RATE] = 0
    expected = 0.0
    for window in (2048, 512):
        pair = [
            frames_of(wave.astype(np.float64), window, window // 4) for wave in (speech, decoded)
        ]
        expected += np.abs(np.subtract(*(np.log10(np.maximum(s, 1e-5) ** 2) for s in pair))).mean()
        expected += np.abs(pair[0] - pair[1]).mean()
    assert paper.paper_stft(speech, decoded, RATE) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rate", [48000, 88200])
def test_the_rate_of_the_arrays_does_not_matter(rate: int) -> None:
    above = [noise(0.5, seed=seed, rate=rate).astype(np.float32) for seed in (1, 2)]
    at_44100 = [audio.resample(wave[None], rate, RATE)[0] for wave in above]
    for measure in (*DISTANCES, spectral.over_smoothing):
        assert measure(*above, rate) == pytest.approx(measure(*at_44100, RATE), rel=1e-6)


@given(gain=st.floats(0.2, 4), rate=st.sampled_from([8000, 16000, 24000, 32000]))
@example(gain=0.5, rate=16000)
@example(gain=1 + 1e-7, rate=16000)
@settings(max_examples=examples(10))
def test_bands_that_clips_of_a_low_rate_do_not_have_count_for_nothing(
    gain: float, rate: int
) -> None:
    """Silence above half their rate would make every distance smaller.

    They are resampled in float32, which leaves a little where the gain is almost 1.
    """
    reference = noise(1, rate=rate)
    decoded = gain * reference
    logarithm = abs(math.log(gain))
    distance = spectral.log_spectral_distance(reference, decoded, rate)
    # The bins at the very end of the band are weak, and under the floor where no other bin is.
    assert distance == pytest.approx(2 * abs(math.log10(gain)), rel=0.02, abs=1e-4)
    # A few filters at low frequencies are too narrow to hold a bin.
    assert spectral.mel_l1(reference, decoded, rate) == pytest.approx(logarithm, rel=0.12, abs=1e-4)
    assert spectral.multi_resolution_stft(reference, decoded, rate) == pytest.approx(
        abs(1 - gain) + logarithm, rel=0.02, abs=1e-4
    )
    other = noise(1, seed=1, rate=rate)
    assert spectral.over_smoothing(reference, other, rate) == pytest.approx(1, abs=0.08)
    for distance_of_paper in (paper.paper_mel, paper.paper_stft):
        assert math.isnan(distance_of_paper(reference, decoded, rate))


@pytest.mark.parametrize(("rate", "bins"), [(8000, 52), (16000, 69), (44100, 96), (48000, 96)])
def test_mel_bins_that_count_lie_below_half_the_rate(rate: int, bins: int) -> None:
    wave = noise(0.2, rate=rate)
    assert spectral._log_mels(wave, wave, rate).shape[1] == bins
    # The upper edge of the last of them, where 98 edges divide the mel scale evenly.
    edge = 700 * (10 ** ((bins + 1) / 97 * math.log10(1 + 22050 / 700)) - 1)
    assert edge <= min(rate, RATE) / 2 + 44100 / 1024


@pytest.mark.parametrize(("rate", "low"), [(8000, True), (16000, True), (22050, False)])
def test_visqol_runs_in_speech_mode_for_all_clips_of_a_low_rate(
    rate: int, low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "OF_ALL", dict.fromkeys(metrics.OF_ALL, lambda *_: 1.0))
    monkeypatch.setattr(metrics, "visqol_speech", lambda *_: 2.0)
    figures = metrics.measure(noise(0.1), noise(0.1), rate)
    assert figures.get("visqol") == (None if low else 1.0)
    assert figures.get("visqol_speech") == (2.0 if low else None)
    assert "visqol" in metrics.OF_ALL


def test_the_distance_of_noise_from_silence_follows_from_its_definition() -> None:
    scale = 0.01
    # |STFT|^2 of white noise is exponential with mean scale^2 * sum(window^2), 3/8 of 2048.
    level = math.log10(scale**2 * 2048 * 3 / 8 / 1e-6) - np.euler_gamma / math.log(10)
    expected = math.hypot(level, math.pi / math.sqrt(6) / math.log(10))
    distance = spectral.log_spectral_distance(noise(10, scale), np.zeros(10 * RATE), RATE)
    assert distance == pytest.approx(expected, rel=0.005)


def test_rounding_silence_to_16_bits_counts_for_nothing() -> None:
    silence, dither = np.zeros(RATE), np.random.default_rng(0).uniform(-0.5, 0.5, RATE) / 32768
    assert spectral.log_spectral_distance(silence, dither, RATE) < 1e-3
    assert spectral.mel_l1(silence, dither, RATE) < 0.2
    quiet = noise(1, 1e-3)
    assert spectral.multi_resolution_stft(quiet, quiet + dither, RATE) < 0.1


def test_cepstral_distortion_with_all_coefficients_is_the_spread_of_the_mel_in_decibels() -> None:
    reference, decoded = noise(0.5, seed=1), noise(0.5, seed=2)
    both = torch.from_numpy(np.stack([reference, decoded]))
    difference = log_mel(both, spectral.MEL).numpy()
    decibels = 20 / math.log(10) * (difference[0] - difference[1]).std(0).mean()
    everything = spectral.mel_cepstral_distortion(reference, decoded, RATE, coefficients=95)
    assert everything == pytest.approx(decibels, rel=1e-9)
    assert 0 < spectral.mel_cepstral_distortion(reference, decoded, RATE) < everything


def test_the_laplacian_is_the_five_point_one() -> None:
    height, width = np.mgrid[:6, :7]
    assert (spectral._laplacian(2.0 * height - 3.0 * width + 1) == np.zeros((4, 5))).all()
    impulse = np.zeros((5, 5))
    impulse[2, 2] = 1
    assert spectral._laplacian(impulse).tolist() == [[0, 1, 0], [1, -4, 1], [0, 1, 0]]


def test_blur_lowers_over_smoothing_and_grain_raises_it(music: Wave) -> None:
    window = torch.hann_window(1024)
    spectrum = torch.stft(
        torch.from_numpy(music), 1024, 256, window=window, pad_mode="constant", return_complex=True
    )
    magnitude, phase = spectrum.abs(), spectrum.angle()
    grain = torch.randn(magnitude.shape, generator=torch.Generator().manual_seed(0)).exp()
    figures = []
    for changed in (
        torch.nn.functional.avg_pool2d(magnitude[None], 9, 1, padding=4)[0],
        torch.nn.functional.avg_pool2d(magnitude[None], 3, 1, padding=1)[0],
        magnitude,
        magnitude * grain,
    ):
        wave = torch.istft(torch.polar(changed, phase), 1024, 256, window=window, length=len(music))
        figures.append(spectral.over_smoothing(music, wave.numpy(), RATE))
    assert figures == sorted(figures)
    assert figures[0] < 0.8
    assert figures[2] == pytest.approx(1, abs=0.01)
    assert figures[3] > 1.03


def test_measures_that_have_no_meaning_are_nan() -> None:
    silence, short = np.zeros(RATE), noise(0.1)
    assert math.isnan(spectral.over_smoothing(silence, noise(1), RATE))
    assert math.isnan(spectral.multi_resolution_stft(silence, noise(1), RATE))
    for of, samples in (
        (spectral.multi_resolution_stft, 1024),
        (paper.paper_stft, 1024),
        (paper.paper_mel, 512),
    ):
        snippet = short[: samples + 1]
        assert of(snippet, snippet, RATE) < 1e-12
        assert math.isnan(of(snippet[1:], snippet[1:], RATE))
    for value in (
        spectral.log_spectral_distance(short, short, RATE),
        spectral.mel_l1(short, short, RATE),
    ):
        assert value == 0


@needs_eval
def test_speech_measures_of_silence_and_snippets_are_nan() -> None:
    silence, short = np.zeros(2 * RATE), noise(0.1)
    for measure in SPEECH_MEASURES:
        assert math.isnan(measure(silence, noise(2), RATE))
        assert math.isnan(measure(short, short, RATE))
    for measure in VISQOL:
        assert math.isnan(measure(noise(0.99), noise(0.99), RATE))
        assert measure(noise(2), silence, RATE) == 1
    assert math.isnan(perceptual.pesq_wb(noise(2), silence, RATE))
    # Long enough as a signal, but with too little in it that is no pause.
    click = np.zeros(2 * RATE)
    click[RATE : RATE + 2000] = noise(0.1)[:2000]
    assert math.isnan(perceptual.stoi(click, click, RATE))


@needs_eval
@pytest.mark.parametrize("measure", [*SPEECH_MEASURES, *DISTANCES, spectral.over_smoothing])
def test_arrays_that_do_not_fit_are_refused(measure: Any) -> None:
    wave = noise(1)
    for reference, decoded in (
        (wave, wave[1:]),
        (wave[None], wave[None]),
        (wave[:0], wave[:0]),
        (wave, np.where(np.arange(RATE) == 5, np.nan, wave)),
        (np.where(np.arange(RATE) == 5, np.inf, wave), wave),
    ):
        with pytest.raises(InputError, match="reference and decoded"):
            measure(reference, decoded, RATE)
    with pytest.raises(InputError, match="rate"):
        measure(wave, wave, 0)


@needs_eval
@pytest.mark.parametrize(
    ("measure", "module"),
    [
        *zip(SPEECH_MEASURES, ("visqol", "ai_edge_litert", "pystoi", "pesq"), strict=True),
        (lambda reference, decoded, rate: perceptual.dnsmos(decoded, rate), "onnxruntime"),
        (lambda reference, decoded, rate: perceptual.dnsmos(decoded, rate), "speechmos"),
    ],
)
def test_a_missing_extra_is_said_with_what_to_install(
    measure: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    perceptual._visqol_api.cache_clear()
    perceptual._dnsmos_session.cache_clear()
    with pytest.raises(MelcapError, match=rf'{module} .*pip install "melcap\[eval\]"'):
        measure(noise(2), noise(2), RATE)


# DNSMOS


@pytest.fixture(scope="module")
def speechmos() -> Any:
    """Speechmos's own DNSMOS, without the librosa that only its other network needs."""
    pytest.importorskip("speechmos")
    stubs = {name: ModuleType(name) for name in ("librosa", "requests")}
    stubs["requests"].session = None  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    from speechmos import dnsmos

    for name, module in before.items():
        sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    whole = object.__new__(dnsmos.DNSMOS)
    whole.audio_melspec = lambda audio: np.zeros((1, 1))
    whole.p808_onnx_sess = type("None", (), {"run": staticmethod(lambda *_: [[[0.0]]])})
    return whole


@pytest.mark.slow
@needs_eval
def test_dnsmos_is_what_speechmos_says(speech: Wave, speechmos: Any) -> None:
    speechmos.onnx_sess = perceptual._dnsmos_session()
    wave = audio.resample(speech[None], RATE, 16000)[0].clip(-1, 1)
    theirs = speechmos(wave, 16000, False)
    ours = perceptual.dnsmos(speech, RATE)
    assert ours.overall == pytest.approx(theirs["ovrl_mos"], abs=1e-6)
    assert ours.signal == pytest.approx(theirs["sig_mos"], abs=1e-6)
    assert ours.background == pytest.approx(theirs["bak_mos"], abs=1e-6)


class Listener:
    """Stands for the network: three figures that any other window would change."""

    def run(self, _: None, inputs: dict[str, Any]) -> list[Any]:
        (window,) = inputs["input_1"]
        assert window.dtype == np.float32
        assert window.shape == (144160,)
        return [[(float(window[0]), float(window[-1]), float(np.abs(window).mean()))]]


@needs_eval
@given(st.one_of(st.integers(1, 16000 * 12), st.integers(16000 * 20, 16000 * 60)))
@example(16000 * 31)
@example(144160)
@example(144159)
@settings(max_examples=examples(20))
def test_dnsmos_rates_the_windows_that_speechmos_rates(speechmos: Any, samples: int) -> None:
    wave = np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)
    speechmos.onnx_sess = Listener()
    theirs = speechmos(wave, 16000, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptual, "_dnsmos_session", Listener)
        ours = perceptual.dnsmos(wave, 16000)
        loud = perceptual.dnsmos(3 * wave, 16000)
        assert loud == perceptual.dnsmos((3 * wave).clip(-1, 1), 16000)
    assert ours.overall == pytest.approx(theirs["ovrl_mos"], rel=1e-9)
    assert ours.signal == pytest.approx(theirs["sig_mos"], rel=1e-9)
    assert ours.background == pytest.approx(theirs["bak_mos"], rel=1e-9)


@pytest.mark.slow
@needs_eval
def test_dnsmos_notices_noise_without_a_reference(speech: Wave) -> None:
    clean = perceptual.dnsmos(speech, RATE)
    noisy = perceptual.dnsmos(speech + noise(3, 0.02)[: len(speech)], RATE)
    assert noisy.background < clean.background - 0.5
    assert noisy.overall < clean.overall - 0.3
    for wrong in (speech[None], speech[:0], np.full(16000, np.nan)):
        with pytest.raises(InputError, match="decoded must be finite"):
            perceptual.dnsmos(wrong, RATE)
