"""The page makes of audio what Python makes of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from torch import Tensor

import melcap
from melcap.audio import resample
from melcap.codec import Codec
from tests.helpers import latents_of
from tests.web.page import Page

pytestmark = pytest.mark.web

CLIPS = Path(__file__).parents[2] / "examples" / "audio"
NAMES = ("speech", "music", "sound")


def count_near_ties(codec: Codec, clip: Tensor, found: Tensor) -> int:
    """Return how many tokens differ from the codec's, and fail unless these are few and near ties.

    WebAssembly rounds the DFT in another way, and the logarithm magnifies it near the floor of the
    mel. So both entries of a differing token must be as near as the nearest within 1 %.
    """
    expected = codec.encode(clip, 44100).tokens
    assert found.shape == expected.shape
    places = (found != expected).nonzero()
    latents = latents_of(codec, clip).double()
    vectors = codec.codebook.vectors.double()
    for row, column in places.tolist():
        distances = (vectors - latents[:, row, column]).norm(dim=1)
        both = distances[[int(found[row, column]), int(expected[row, column])]]
        assert both.max() <= distances.min() * 1.01, (row, column)
    assert len(places) <= expected.numel() // 500
    return len(places)


def wav_of(data: bytes) -> npt.NDArray[np.float32]:
    """Return the samples [channels, samples] of a WAV file."""
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert rate == 44100
    return np.ascontiguousarray(samples.T)


def assert_near(found: npt.NDArray[np.float32], expected: Tensor) -> None:
    """Check that samples are those of the codec within 1e-3, but for one in a hundred.

    In a few places Griffin-Lim steps magnify rounding, in ONNX Runtime without a browser too.
    """
    difference = np.abs(found - expected.numpy())
    assert np.mean(difference > 1e-3) <= 0.01
    assert difference.max() <= 0.03


@pytest.mark.parametrize("name", NAMES)
def test_a_clip(lite: Codec, used_page: Page, name: str) -> None:
    """Its tokens are the codec's but for near ties, and decode to the same samples."""
    used_page.clip(name)
    wave = torch.from_numpy(soundfile.read(CLIPS / f"{name}.flac", dtype="float32")[0])
    file, data = used_page.saved("melcap")
    assert file == f"{name}.melcap"
    codes = melcap.Codes.from_bytes(data)
    assert (codes.lengths, codes.sample_rate) == ((len(wave),), 44100)
    assert (codes.tokenizer_id, codes.model) == (lite.tokenizer_id, lite.model)
    count_near_ties(lite, wave, codes.tokens[0])
    file, data = used_page.saved("wav")
    assert file == f"{name}-decoded.wav"
    assert_near(wav_of(data), lite.decode(codes))
    figures = used_page.figures()
    kbps = 8 * len(codes.to_bytes()) / 1000 / (len(wave) / 44100)
    assert figures["Rate of a channel"] == f"{kbps:.2f} kbps"
    assert figures["Duration"] == f"{len(wave) / 44100:.2f} s, mono"


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "PCM_U8"), ("WAV", "ULAW"),
     ("WAVEX", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")],
)  # fmt: skip
def test_lossless_files_give_the_samples_of_python(
    used_page: Page, container: str, subtype: str
) -> None:
    """To the bit, at the codec's own rate."""
    wave = np.random.default_rng(0).uniform(-1, 1, (999, 2))
    wave[:4] = [[1, -1], [0, 0], [0.5, -0.5], [1 / 32768, -1 / 32768]]
    file = io.BytesIO()
    soundfile.write(file, wave, 44100, format=container, subtype=subtype)
    expected, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
    found = used_page.page.evaluate(
        """async (bytes) => {
          const { decodeAudio } = await import("./src/index.js");
          const waves = await decodeAudio(Uint8Array.from(bytes), 44100);
          return waves.map((wave) => [...wave]);
        }""",
        list(file.getvalue()),
    )
    assert np.array_equal(np.array(found, np.float32).T, expected)


def test_stereo_of_another_rate(lite: Codec, used_page: Page, tmp_path: Path) -> None:
    """The browser resamples it; each channel has tokens of its own."""
    speech = soundfile.read(CLIPS / "speech.flac", dtype="float32")[0][:66150]
    music = soundfile.read(CLIPS / "music.flac", dtype="float32")[0][:66150]
    stereo = np.stack([resample(x[None], 44100, 48000)[0] for x in (speech, music)])
    soundfile.write(tmp_path / "both.wav", stereo.T, 48000, subtype="FLOAT")
    used_page.file(tmp_path / "both.wav")
    codes = melcap.Codes.from_bytes(used_page.saved("melcap")[1])
    assert codes.tokens.shape[0] == 2
    # Browsers resample in their own ways: the length may differ by a sample, and some tokens.
    assert abs(codes.lengths[0] - 66150) <= 1
    for found, expected in zip(codes.tokens, lite.encode(stereo, 48000).tokens, strict=True):
        assert (found == expected).float().mean() > 0.75
    assert used_page.figures()["Duration"] == "1.50 s, 2 channels"
    assert wav_of(used_page.saved("wav")[1]).shape == (2, codes.lengths[0])


@pytest.mark.parametrize("suffix", ["mp3", "ogg"])
def test_lossy_files(used_page: Page, tmp_path: Path, suffix: str) -> None:
    wave = soundfile.read(CLIPS / "music.flac", dtype="float32")[0][:44100]
    soundfile.write(tmp_path / f"clip.{suffix}", wave, 44100)
    used_page.file(tmp_path / f"clip.{suffix}")
    assert used_page.saved("melcap")[0] == "clip.melcap"


@pytest.mark.parametrize("compact", [False, True])
def test_a_file_of_tokens(lite: Codec, used_page: Page, tmp_path: Path, compact: bool) -> None:
    """It is decoded to the rate and the length of its header, and saved as it was."""
    wave = soundfile.read(CLIPS / "speech.flac", dtype="float32")[0][: 2 * 44100]
    original = torch.from_numpy(resample(wave[None], 44100, 48000))[:, :-7]
    codes = lite.encode(original, 48000)
    codes.save(tmp_path / "talk.melcap", compact=compact)
    used_page.file(tmp_path / "talk.melcap")
    assert used_page.saved("melcap") == ("talk.melcap", (tmp_path / "talk.melcap").read_bytes())
    samples, rate = soundfile.read(io.BytesIO(used_page.saved("wav")[1]), dtype="float32")
    assert (len(samples), rate) == (original.shape[1], 48000)
    decoded = lite.decode(codes)[0].numpy()
    # the browser and soxr resample with other filters
    assert np.sqrt(np.mean((samples - decoded) ** 2)) <= 0.02 * np.sqrt(np.mean(decoded**2))
    assert not used_page.page.is_visible("#original-figure")
    assert used_page.page.is_disabled("input[value=original]")


def test_pieces_in_the_browser(lite: Codec, used_page: Page, tmp_path: Path) -> None:
    """A clip of more than one piece has the tokens of the whole clip."""
    clips = [soundfile.read(CLIPS / f"{name}.flac", dtype="float32")[0] for name in NAMES]
    wave = np.concatenate(clips)
    assert len(wave) / 2048 > 2 * 256
    soundfile.write(tmp_path / "long.wav", wave, 44100, subtype="PCM_16")
    used_page.file(tmp_path / "long.wav")
    codes = melcap.Codes.from_bytes(used_page.saved("melcap")[1])
    count_near_ties(lite, torch.from_numpy(wave), codes.tokens[0])
    assert_near(wav_of(used_page.saved("wav")[1]), lite.decode(codes))


def test_the_spectrogram_is_that_of_the_codec(lite: Codec, used_page: Page) -> None:
    """The page computes it in JavaScript, for pictures alone."""
    wave = soundfile.read(CLIPS / "music.flac", dtype="float32")[0][:20000]
    found = used_page.page.evaluate(
        """async (wave) => {
          const { logMel } = await import("./demo/mel.js");
          const { values, frames } = logMel(Float32Array.from(wave), 44100, 1000);
          return [frames, ...values];
        }""",
        wave.tolist(),
    )
    spec = lite.config.mel
    expected = melcap.ops.log_mel(torch.from_numpy(wave)[None], spec)[0] * spec.std + spec.mean
    values = torch.tensor(found[1:]).view(int(found[0]), spec.n_mels).T
    count = min(values.shape[1], expected.shape[1])
    assert abs(values.shape[1] - expected.shape[1]) <= 1
    torch.testing.assert_close(values[:, :count], expected[:, :count], rtol=0, atol=2e-3)


def test_the_recording_of_a_microphone(browser: Any, site: str) -> None:
    """Chromium's fake microphone beeps once a second."""
    kept = """const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (what) => (window.stream = await ask(what));"""
    with Page.opened(browser, site, script=kept, permissions=["microphone"]) as page:
        page.page.click("#record")
        page.page.locator("#status", has_text="Recording: 0:02").wait_for()
        assert page.page.inner_text("#cancel") == "Stop"
        page.page.click("#cancel")
        page.wait()
        assert page.page.evaluate("stream.getTracks().map((track) => track.readyState)") == [
            "ended"
        ]
        name, data = page.saved("melcap")
        codes = melcap.Codes.from_bytes(data)
        assert name == "recording.melcap"
        assert 2 <= codes.lengths[0] / 44100 <= 4
        (wave,) = wav_of(page.saved("wav")[1])
        loud = np.abs(wave) > 0.05
        assert 0 < loud.mean() < 0.9
        assert page.complaints == []
