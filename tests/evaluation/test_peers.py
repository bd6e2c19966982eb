"""The codecs that melcap is compared with: aligned, of the right size, refused in a sentence."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import melcap
from melcap.errors import ContainerError, InputError, MelcapError, WeightsError
from melcap.evaluation.alignment import lags
from melcap.evaluation.measures.perceptual import stoi
from melcap.evaluation.measures.signals import Wave, resample
from melcap.evaluation.measures.spectral import mel_l1
from melcap.evaluation.peers import CODECS, codec2, speex
from melcap.evaluation.peers.base import Coded
from melcap.evaluation.peers.bounds import GriffinLimOracle, magnitude_from_mel
from melcap.evaluation.peers.registry import peer
from melcap.ops.log_mel import mel_filters
from tests.helpers import examples

RATE = 44100
DATA = Path(__file__).parents[1] / "data"


def installed(name: str) -> bool:
    try:
        return bool(peer(name))
    except (MelcapError, ImportError):
        return False


needs_codec2 = pytest.mark.skipif(not installed("codec2-3200"), reason="needs pycodec2")
needs_speex = pytest.mark.skipif(not installed("speex"), reason="needs libspeex")
NARROW = [
    *(pytest.param(f"codec2-{mode}", marks=needs_codec2) for mode in codec2.MODES),
    *(pytest.param(f"speex-{kbps}", marks=needs_speex) for kbps in speex.QUALITIES),
]


def noise(seconds: float, scale: float = 0.1, seed: int = 0) -> Wave:
    return scale * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


@given(
    name=st.sampled_from([*filter(installed, CODECS)]),
    samples=st.integers(1, 6000),
    rate=st.sampled_from([8000, 22050, RATE, 48000, 96000]),
)
@example(name="opus-12", samples=1, rate=8000)
@example(name="griffin-lim", samples=1, rate=96000)
@example(name="melcap", samples=1, rate=8000)
@settings(max_examples=examples(25))
def test_a_round_trip_keeps_length_and_type(name: str, samples: int, rate: int) -> None:
    wave = noise(1)[:samples].astype(np.float32)
    decoded, size = peer(name).round_trip(wave, rate)
    assert decoded.shape == (samples,)
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()
    assert size > 0 or name == "griffin-lim"


def lag(reference: Wave, decoded: Wave) -> int:
    """Samples by which `decoded` comes late, by the peak of the cross-correlation."""
    size = 2 * len(reference)
    product = np.fft.rfft(reference, size).conj() * np.fft.rfft(decoded, size)
    peak = int(np.fft.irfft(product).argmax())
    return peak if peak < len(reference) else peak - size


@pytest.mark.parametrize("kbps", [6, 8, 12, 16, 24])
def test_opus_is_aligned_and_keeps_its_rate(kbps: int, speech: Wave) -> None:
    # Its low rates carry the band under 4 kHz, so let the signal lie there.
    wave = speech.astype(np.float32)
    decoded, size = peer(f"opus-{kbps}").round_trip(wave, RATE)
    assert abs(lag(wave, decoded)) <= (8 if kbps < 12 else 2)
    assert size * 8 / 1000 / (len(wave) / RATE) == pytest.approx(kbps, rel=0.3)


def test_opus_quality_and_size_rise_with_the_rate(music: Wave) -> None:
    wave = music.astype(np.float32)
    coded = [peer(f"opus-{kbps}").round_trip(wave, RATE) for kbps in (6, 16, 64)]
    distances = [mel_l1(wave, decoded, RATE) for decoded, _ in coded]
    assert distances == sorted(distances, reverse=True)
    assert [size for _, size in coded] == sorted(size for _, size in coded)


def test_opus_restores_the_end_of_the_signal() -> None:
    wave = np.zeros(2 * RATE, dtype=np.float32)
    wave[-441:] = noise(0.01)
    decoded, _ = peer("opus-64").round_trip(wave, RATE)
    assert np.square(decoded[-441:]).sum() > 0.5 * np.square(wave).sum()


# Codecs for speech


@pytest.fixture(scope="module")
def vowels() -> Wave:
    """A voice at 140 Hz, seven times for 0.12 s, at places that no frame divides."""
    times = np.arange(3 * RATE) / RATE
    voice = sum(np.cos(2 * np.pi * 140 * k * times) / k for k in range(1, 25))
    wave = np.zeros(3 * RATE, np.float32)
    for start in (0.23, 0.61, 0.98, 1.52, 1.87, 2.31, 2.66):
        part = slice(int(start * RATE), int((start + 0.12) * RATE))
        wave[part] = 0.05 * voice[part]
    return wave


def envelope(wave: Wave) -> Wave:
    """The loudness over 20 ms, without its mean."""
    window = np.hanning(883) / np.hanning(883).sum()
    loudness = np.sqrt(np.convolve(np.square(wave, dtype=np.float64), window, "same"))
    return loudness - loudness.mean()


def band(wave: Wave) -> Wave:
    """From 500 to 3300 Hz: codecs for telephones turn phases at the ends of their band."""
    spectrum = np.fft.rfft(wave)
    spectrum[[not 500 < hz < 3300 for hz in np.fft.rfftfreq(len(wave), 1 / RATE)]] = 0
    return np.fft.irfft(spectrum, len(wave))


@pytest.mark.parametrize("samples", [-700, 0, 1, 882])
def test_a_known_shift_is_found(samples: int, speech: Wave, vowels: Wave) -> None:
    for wave in (speech, vowels):
        later = np.roll(wave, samples)
        assert lag(wave, later) == lag(band(wave), band(later)) == samples
        assert abs(lag(envelope(wave), envelope(later)) - samples) <= 20


@needs_codec2
@pytest.mark.parametrize("mode", codec2.MODES)
def test_codec2_is_aligned(mode: int, speech: Wave, vowels: Wave) -> None:
    # It keeps loudness and pitch and makes phases up, so the loudness must be in place. The modes
    # that send it once for 40 ms or quantise it over time smear it by a few ms; the delay is 20.
    for wave in (speech.astype(np.float32), vowels):
        decoded, _ = peer(f"codec2-{mode}").round_trip(wave, RATE)
        late = lag(envelope(wave), envelope(decoded)) / RATE * 1000
        assert abs(late) < (1 if mode == 3200 else 4), late


@needs_speex
@pytest.mark.parametrize("kbps", [kbps for kbps in speex.QUALITIES if kbps > 2])
def test_speex_is_aligned_to_the_sample(kbps: int, speech: Wave, vowels: Wave) -> None:
    for wave in (speech.astype(np.float32), vowels):
        decoded, _ = peer(f"speex-{kbps}").round_trip(wave, RATE)
        # A sample at 8 kHz is 5.5 of these.
        assert abs(lag(band(wave), band(decoded))) <= 3


@pytest.mark.parametrize("name", NARROW)
def test_codecs_for_speech_keep_their_rate_their_band_and_the_words(
    name: str, speech: Wave
) -> None:
    codec = peer(name)
    assert codec.speech_only
    decoded, size = codec.round_trip(speech.astype(np.float32), RATE)
    family, rate = name.split("-")
    bits_per_second = int(rate) * (1 if family == "codec2" else 1000)
    # The rates in Speex's names are rounded; delay and last frame add a little to 3 s.
    assert size * 8 / 3 == pytest.approx(bits_per_second, rel=0.03 if family == "codec2" else 0.09)
    spectrum = np.square(np.abs(np.fft.rfft(decoded)))
    assert spectrum[np.fft.rfftfreq(len(decoded), 1 / RATE) > 4000].sum() < 1e-5 * spectrum.sum()
    pytest.importorskip("pystoi")
    assert stoi(speech, decoded, RATE) > 0.55


@needs_codec2
@pytest.mark.parametrize("mode", codec2.MODES)
def test_codec2_frames_are_packed_without_gaps(mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import pycodec2

    codec = peer(f"codec2-{mode}")
    assert isinstance(codec, codec2.Codec2)
    frames = (3000 * noise(1)[: 11 * codec.frame]).astype(np.int16).reshape(11, codec.frame)
    payload = codec.encode_frames(frames)
    assert len(payload) == -(-11 * round(mode * codec.frame / 8000) // 8)
    # The frames are compared as bits: decoded noise is never the same twice.
    encoder, decoded = pycodec2.Codec2(mode), []

    class Decoder:
        def decode(self, frame: bytes) -> Any:
            decoded.append(frame)
            return np.zeros(codec.frame, np.int16)

    monkeypatch.setattr(codec, "_library", SimpleNamespace(Codec2=lambda mode: Decoder()))
    assert codec.decode_frames(payload, 11).shape == frames.shape
    assert decoded == [encoder.encode(frame) for frame in frames]


@needs_speex
def test_a_payload_that_is_no_speex_is_refused() -> None:
    codec = peer("speex")
    assert isinstance(codec, speex.Speex)
    with pytest.raises(MelcapError, match="cannot decode"):
        codec.decode_frames(b"\xff" * 40, 4)


@needs_speex
def test_speex_says_nothing_on_stderr(speech: Wave, capfd: pytest.CaptureFixture[str]) -> None:
    peer("speex-25").round_trip(speech.astype(np.float32), RATE)
    assert capfd.readouterr().err == ""


def test_a_codec_that_is_not_installed_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setitem(sys.modules, "pycodec2", None)
    speex._library.cache_clear()
    peer.cache_clear()
    with pytest.raises(MelcapError, match="apt install libspeex1"):
        peer("speex")
    with pytest.raises(MelcapError, match=r'pycodec2 .*pip install "melcap\[eval\]"'):
        peer("codec2-3200")
    peer.cache_clear()


@pytest.mark.parametrize("name", [name for name in CODECS if name.startswith(("mel", "opus"))])
def test_codecs_take_and_return_16_khz(name: str, speech: Wave) -> None:
    wave = resample(speech, RATE, 16000).astype(np.float32)
    at_16000, _ = peer(name).round_trip(wave, 16000)
    at_44100, _ = peer(name).round_trip(speech.astype(np.float32), RATE)
    assert at_16000.shape == wave.shape
    # melcap makes up phases, so its loudness must be in place.
    late = lags(wave, at_16000, 16000)["lag" if name.startswith("opus") else "envelope_lag"]
    assert late is not None
    assert abs(late) < 0.001
    # It is the same codec: what it makes of the whole band has about the same lower part.
    distances = [mel_l1(wave, at_16000, 16000)]
    distances.append(mel_l1(wave, resample(at_44100, RATE, 16000), 16000))
    assert distances[0] == pytest.approx(distances[1], rel=0.35)


# Bounds


def test_the_original_comes_back_as_it_went_in(music: Wave) -> None:
    wave = music.astype(np.float32)
    decoded, size = peer("original").round_trip(wave, RATE)
    assert decoded is not wave
    assert (decoded == wave).all()
    assert size == 2 * len(wave)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["speech", "music"])
def test_griffin_lim_finds_a_wave_with_the_true_mel(
    clip: str, request: pytest.FixtureRequest
) -> None:
    wave = request.getfixturevalue(clip).astype(np.float32)
    decoded, _ = peer("griffin-lim").round_trip(wave, RATE)
    random_phase, _ = GriffinLimOracle(iterations=0).round_trip(wave, RATE)
    assert mel_l1(wave, decoded, RATE) < 0.2
    assert mel_l1(wave, decoded, RATE) < mel_l1(wave, random_phase, RATE) / 2


def test_a_mel_is_inverted_to_magnitudes_that_have_it() -> None:
    random = torch.Generator().manual_seed(0)
    filters = mel_filters(RATE, 1024, 96, torch.float32, torch.device("cpu"))
    mel = filters.t() @ torch.rand(513, 7, generator=random)
    magnitude = magnitude_from_mel(mel, filters, steps=300)
    assert (magnitude >= 0).all()
    assert torch.allclose(filters.t() @ magnitude, mel, rtol=0.02)


@pytest.mark.slow
def test_melcap_gives_what_the_codec_gives_and_the_bytes_of_its_file(speech: Wave) -> None:
    model = melcap.load()
    decoded, size = peer("melcap").round_trip(speech, RATE)
    assert (decoded == model.decode(model.encode(speech, RATE)).numpy()).all()
    columns = -(-len(speech) // 2048)
    payload = -(-12 * columns * 13 // 8)
    assert payload < size < payload + 100
    assert peer("melcap").identity == model.model


def test_a_weights_file_is_a_codec(speech: Wave, small_weights: Path, tmp_path: Path) -> None:
    model, name = melcap.load(small_weights), str(small_weights)
    decoded, _ = peer(name).round_trip(speech, RATE)
    assert (decoded == model.decode(model.encode(speech, RATE)).numpy()).all()
    assert peer(name).name == name
    assert peer(name).identity == model.model
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors"):
        peer(str(tmp_path / "nowhere.safetensors"))


def test_melcap_is_decoded_from_the_bytes_of_the_file(music: Wave) -> None:
    own = peer("melcap")
    coded = own.encode(music[:20000].astype(np.float32), RATE)
    assert coded.tokens is not None
    assert coded.tokens.shape == (12, 10)
    assert coded.size == len(coded.payload)
    altered = bytearray(coded.payload)
    altered[-10] ^= 1
    broken = Coded(bytes(altered), coded.size, coded.samples, coded.sample_rate)
    with pytest.raises(ContainerError):
        own.decode(broken)


def test_what_a_codec_is_for() -> None:
    of = {name: peer(name) for name in filter(installed, CODECS)}
    assert {name for name in of if of[name].bound} == {"griffin-lim", "original"}
    assert {name for name in of if of[name].codebook_size} == {
        "melcap",
        "melcap-fast",
        "melcap-best",
    }
    assert {name for name in of if of[name].speech_only} <= {"codec2-3200", "speex"}
    assert all(codec.name == name for name, codec in of.items())


@pytest.mark.parametrize(
    "name",
    ["mp3", "opus", "opus-", "opus-5", "opus-257", "codec2", "codec2-700", "speex-", "speex-9", ""],
)
def test_an_unknown_codec_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown codec|6 to 256|1200, 1300|2, 4, 6"):
        peer(name)
