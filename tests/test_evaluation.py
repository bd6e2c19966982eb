"""The measures on signals whose figures are known, the peers, and the scorecard's bookkeeping."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import melcap
from melcap import audio
from melcap.errors import AudioFileError, InputError, MelcapError, WeightsError
from melcap.evaluation import metrics, peers, scorecard
from melcap.evaluation.clips import Clip, choose_clips, find_clips
from melcap.evaluation.table import markdown, summarise
from melcap.ops import log_mel

RATE = 44100
DATA = Path(__file__).parent / "data"
SPEECH_MEASURES = [metrics.visqol_audio, metrics.stoi, metrics.pesq_wb]
MEL_MEASURES = [metrics.mel_l1, metrics.mel_cepstral_distortion, metrics.over_smoothing]
MEASURES = [*SPEECH_MEASURES, metrics.log_spectral_distance, *MEL_MEASURES]

needs_eval = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("visqol", "pystoi", "pesq"))),
    reason='needs pip install "melcap[eval]"',
)


def noise(seconds: float, scale: float = 0.1, seed: int = 0, rate: int = RATE) -> metrics.Wave:
    return scale * np.random.default_rng(seed).standard_normal(int(seconds * rate))


@pytest.fixture(scope="module")
def speech() -> metrics.Wave:
    return audio.read(DATA / "speech.flac")[0][0]


@pytest.fixture(scope="module")
def music() -> metrics.Wave:
    return audio.read(DATA / "music.flac")[0][0]


# Measures


@needs_eval
def test_identical_speech_gets_the_best_figure_of_every_measure(speech: metrics.Wave) -> None:
    part = speech[RATE // 2 : 2 * RATE]
    figures = [measure(part, part.copy(), RATE) for measure in MEASURES]
    assert figures == pytest.approx([4.732, 1, 4.644, 0, 0, 0, 1], abs=1e-3)


@needs_eval
def test_speech_measures_fall_with_noise_and_rank_it(speech: metrics.Wave) -> None:
    part = speech[RATE // 2 : 2 * RATE]
    for measure in SPEECH_MEASURES:
        some, much = (measure(part, part + noise(1.5, scale), RATE) for scale in (0.003, 0.1))
        assert measure(part, part, RATE) > some > much + 0.1


@given(st.floats(0.2, 4))
@example(1.0)
@settings(max_examples=20)
def test_a_gain_on_white_noise_has_known_figures(gain: float) -> None:
    reference = noise(0.5)
    decoded = gain * reference
    distance = metrics.log_spectral_distance(reference, decoded, RATE)
    assert distance == pytest.approx(2 * abs(math.log10(gain)), rel=1e-3, abs=1e-9)
    # Some filters at low frequencies are too narrow to hold a bin: always at the floor.
    assert metrics.mel_l1(reference, decoded, RATE) == pytest.approx(abs(math.log(gain)), rel=0.1)
    cepstral = metrics.mel_cepstral_distortion(reference, decoded, RATE)
    assert cepstral <= 0.2 * abs(20 * math.log10(gain)) + 1e-9


@pytest.mark.parametrize("rate", [48000, 88200])
def test_the_rate_of_the_arrays_does_not_matter(rate: int) -> None:
    at_44100 = [noise(0.5, seed=seed).astype(np.float32) for seed in (1, 2)]
    above = [audio.resample(wave[None], RATE, rate)[0] for wave in at_44100]
    for measure in (metrics.log_spectral_distance, *MEL_MEASURES):
        assert measure(*above, rate) == pytest.approx(measure(*at_44100, RATE), rel=0.03)


def test_the_distance_of_noise_from_silence_follows_from_its_definition() -> None:
    scale = 0.01
    # |STFT|^2 of white noise is exponential with mean scale^2 * sum(window^2), 3/8 of 2048.
    level = math.log10(scale**2 * 2048 * 3 / 8 / 1e-6) - np.euler_gamma / math.log(10)
    expected = math.hypot(level, math.pi / math.sqrt(6) / math.log(10))
    distance = metrics.log_spectral_distance(noise(10, scale), np.zeros(10 * RATE), RATE)
    assert distance == pytest.approx(expected, rel=0.005)


def test_rounding_silence_to_16_bits_counts_for_nothing() -> None:
    silence, dither = np.zeros(RATE), np.random.default_rng(0).uniform(-0.5, 0.5, RATE) / 32768
    assert metrics.log_spectral_distance(silence, dither, RATE) < 1e-3
    assert metrics.mel_l1(silence, dither, RATE) < 0.2


def test_cepstral_distortion_with_all_coefficients_is_the_spread_of_the_mel_in_decibels() -> None:
    reference, decoded = noise(0.5, seed=1), noise(0.5, seed=2)
    both = torch.from_numpy(np.stack([reference, decoded]))
    difference = log_mel(both, metrics.MEL).numpy()
    decibels = 20 / math.log(10) * (difference[0] - difference[1]).std(0).mean()
    everything = metrics.mel_cepstral_distortion(reference, decoded, RATE, coefficients=95)
    assert everything == pytest.approx(decibels, rel=1e-9)
    assert 0 < metrics.mel_cepstral_distortion(reference, decoded, RATE) < everything


def test_the_laplacian_is_the_five_point_one() -> None:
    height, width = np.mgrid[:6, :7]
    assert (metrics._laplacian(2.0 * height - 3.0 * width + 1) == np.zeros((4, 5))).all()
    impulse = np.zeros((5, 5))
    impulse[2, 2] = 1
    assert metrics._laplacian(impulse).tolist() == [[0, 1, 0], [1, -4, 1], [0, 1, 0]]


def test_blur_lowers_over_smoothing_and_grain_raises_it(music: metrics.Wave) -> None:
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
        figures.append(metrics.over_smoothing(music, wave.numpy(), RATE))
    assert figures == sorted(figures)
    assert figures[0] < 0.8
    assert figures[2] == pytest.approx(1, abs=0.01)
    assert figures[3] > 1.03


def test_measures_that_have_no_meaning_are_nan() -> None:
    silence, short = np.zeros(RATE), noise(0.1)
    assert math.isnan(metrics.over_smoothing(silence, noise(1), RATE))
    for value in (
        metrics.log_spectral_distance(short, short, RATE),
        metrics.mel_l1(short, short, RATE),
    ):
        assert value == 0


@needs_eval
def test_speech_measures_of_silence_and_snippets_are_nan() -> None:
    silence, short = np.zeros(2 * RATE), noise(0.1)
    for measure in SPEECH_MEASURES:
        assert math.isnan(measure(silence, noise(2), RATE))
        assert math.isnan(measure(short, short, RATE))
    assert math.isnan(metrics.visqol_audio(noise(0.99), noise(0.99), RATE))
    assert metrics.visqol_audio(noise(2), silence, RATE) == 1
    assert math.isnan(metrics.pesq_wb(noise(2), silence, RATE))
    # Long enough as a signal, but with too little in it that is no pause.
    click = np.zeros(2 * RATE)
    click[RATE : RATE + 2000] = noise(0.1)[:2000]
    assert math.isnan(metrics.stoi(click, click, RATE))


@needs_eval
@pytest.mark.parametrize("measure", MEASURES)
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


@pytest.mark.parametrize(
    ("measure", "module"),
    [*zip(SPEECH_MEASURES, ("visqol", "pystoi", "pesq"), strict=True)],
)
def test_a_missing_extra_is_said_with_what_to_install(
    measure: Any, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    metrics._visqol.cache_clear()
    with pytest.raises(MelcapError, match=rf'{module} .*pip install "melcap\[eval\]"'):
        measure(noise(2), noise(2), RATE)


def test_codebook_statistics_of_known_streams() -> None:
    every = metrics.codebook_statistics(np.arange(8192).reshape(2, 4, -1), 8192)
    assert every == metrics.CodebookStatistics(1.0, pytest.approx(13))
    assert metrics.codebook_statistics(np.full(100, 7), 8192) == (
        metrics.CodebookStatistics(1 / 8192, pytest.approx(0))
    )
    uneven = metrics.codebook_statistics(np.array([0, 0, 0, 1]), 4)
    assert uneven == metrics.CodebookStatistics(0.5, pytest.approx(2 - 0.75 * math.log2(3)))
    for tokens in (np.array([4]), np.array([-1]), np.array([], dtype=np.int64)):
        with pytest.raises(InputError, match=r"0\.\.3"):
            metrics.codebook_statistics(tokens, 4)


def test_importing_the_evaluation_loads_no_optional_package() -> None:
    code = (
        "import sys, melcap.evaluation.scorecard;"
        "print(sorted({'av', 'soxr', 'soundfile', 'scipy', 'visqol', 'pystoi', 'pesq', 'triton'}"
        "& sys.modules.keys()))"
    )
    path = [str(Path(melcap.__file__).parents[1]), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


# Peers


@given(
    name=st.sampled_from(peers.NAMES),
    samples=st.integers(1, 6000),
    rate=st.sampled_from([8000, 22050, RATE, 48000, 96000]),
)
@example(name="opus-12", samples=1, rate=8000)
@example(name="griffin-lim", samples=1, rate=96000)
@example(name="melcap", samples=1, rate=8000)
@settings(max_examples=25)
def test_a_round_trip_keeps_length_and_type(name: str, samples: int, rate: int) -> None:
    wave = noise(1)[:samples].astype(np.float32)
    decoded, size = peers.codec(name).round_trip(wave, rate)
    assert decoded.shape == (samples,)
    assert decoded.dtype == np.float32
    assert np.isfinite(decoded).all()
    assert size > 0 or name == "griffin-lim"


def lag(reference: metrics.Wave, decoded: metrics.Wave) -> int:
    """Samples by which `decoded` comes late, by the peak of the cross-correlation."""
    size = 2 * len(reference)
    product = np.fft.rfft(reference, size).conj() * np.fft.rfft(decoded, size)
    peak = int(np.fft.irfft(product).argmax())
    return peak if peak < len(reference) else peak - size


@pytest.mark.parametrize("kbps", [6, 8, 12, 16, 24])
def test_opus_is_aligned_and_keeps_its_rate(kbps: int, speech: metrics.Wave) -> None:
    # Its low rates carry the band under 4 kHz, so let the signal lie there.
    wave = speech.astype(np.float32)
    decoded, size = peers.codec(f"opus-{kbps}").round_trip(wave, RATE)
    assert abs(lag(wave, decoded)) <= (8 if kbps < 12 else 2)
    assert size * 8 / 1000 / (len(wave) / RATE) == pytest.approx(kbps, rel=0.3)


def test_opus_quality_and_size_rise_with_the_rate(music: metrics.Wave) -> None:
    wave = music.astype(np.float32)
    coded = [peers.codec(f"opus-{kbps}").round_trip(wave, RATE) for kbps in (6, 16, 64)]
    distances = [metrics.mel_l1(wave, decoded, RATE) for decoded, _ in coded]
    assert distances == sorted(distances, reverse=True)
    assert [size for _, size in coded] == sorted(size for _, size in coded)


def test_opus_restores_the_end_of_the_signal() -> None:
    wave = np.zeros(2 * RATE, dtype=np.float32)
    wave[-441:] = noise(0.01)
    decoded, _ = peers.codec("opus-64").round_trip(wave, RATE)
    assert np.square(decoded[-441:]).sum() > 0.5 * np.square(wave).sum()


def test_the_original_comes_back_as_it_went_in(music: metrics.Wave) -> None:
    wave = music.astype(np.float32)
    decoded, size = peers.codec("original").round_trip(wave, RATE)
    assert decoded is not wave
    assert (decoded == wave).all()
    assert size == 2 * len(wave)


@pytest.mark.parametrize("clip", ["speech", "music"])
def test_griffin_lim_finds_a_wave_with_the_true_mel(
    clip: str, request: pytest.FixtureRequest
) -> None:
    wave = request.getfixturevalue(clip).astype(np.float32)
    decoded, _ = peers.codec("griffin-lim").round_trip(wave, RATE)
    random_phase, _ = peers.GriffinLim(iterations=0).round_trip(wave, RATE)
    assert metrics.mel_l1(wave, decoded, RATE) < 0.2
    assert metrics.mel_l1(wave, decoded, RATE) < metrics.mel_l1(wave, random_phase, RATE) / 2


def test_a_mel_is_inverted_to_magnitudes_that_have_it() -> None:
    random = torch.Generator().manual_seed(0)
    filters = peers.mel_filters(RATE, 1024, 96, torch.float32, torch.device("cpu"))
    mel = filters.t() @ torch.rand(513, 7, generator=random)
    magnitude = peers.magnitude_from_mel(mel, filters, steps=300)
    assert (magnitude >= 0).all()
    assert torch.allclose(filters.t() @ magnitude, mel, rtol=0.02)


def test_melcap_gives_what_the_codec_gives_and_the_bytes_of_its_file(speech: metrics.Wave) -> None:
    model = melcap.load()
    decoded, size = peers.codec("melcap").round_trip(speech, RATE)
    assert (decoded == model.decode(model.encode(speech, RATE))[0].numpy()).all()
    columns = -(-len(speech) // 2048)
    payload = -(-12 * columns * 13 // 8)
    assert payload < size < payload + 100
    assert peers.codec("melcap").identity == model.model


def test_a_weights_file_is_a_codec(
    speech: metrics.Wave, small_weights: Path, tmp_path: Path
) -> None:
    model, name = melcap.load(small_weights), str(small_weights)
    decoded, _ = peers.codec(name).round_trip(speech, RATE)
    assert (decoded == model.decode(model.encode(speech, RATE))[0].numpy()).all()
    assert peers.codec(name).name == name
    assert peers.codec(name).identity == model.model
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors"):
        peers.codec(str(tmp_path / "nowhere.safetensors"))


@pytest.mark.parametrize("name", ["mp3", "opus", "opus-", "opus-x", "opus-5", "opus-257", ""])
def test_an_unknown_codec_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown codec|6 to 256"):
        peers.codec(name)


# Scorecard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips of speech and one of music, the shortest that ViSQOL takes."""
    for name, seed in (("speech/a_0001", 1), ("speech/b_0001", 2), ("music/a_0001", 3)):
        path = tmp_path / "data" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        audio.write(path, noise(1.01, seed=seed)[None].astype(np.float32), RATE)
    return tmp_path / "data"


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(scorecard.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


clip_names = st.lists(
    st.builds(
        "{}/{}_{:04}.wav".format,
        st.sampled_from(["speech", "music"]),
        st.sampled_from("abcd"),
        st.integers(0, 30),
    ),
    unique=True,
    max_size=40,
)


@given(clip_names, st.integers(1, 12))
def test_the_choice_is_spread_stable_and_nested(names: list[str], count: int) -> None:
    clips = [Clip(Path("shard.tar"), name) for name in names]
    chosen = choose_clips(clips, count)
    assert chosen == choose_clips(reversed(clips), count)
    assert set(chosen) <= set(choose_clips(clips, count + 1))
    for kind in ("speech", "music"):
        there = [clip for clip in clips if clip.kind == kind]
        taken = [clip.package for clip in chosen if clip.kind == kind]
        assert len(taken) == min(count, len(there))
        for package in {clip.package for clip in there}:
            left = sum(clip.package == package for clip in there) - taken.count(package)
            # A package with clips left over has had its turn as often as any other.
            assert not left or taken.count(package) >= max(map(taken.count, taken)) - 1


def test_clips_come_from_a_tar_as_from_a_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "README.txt").write_text("no audio")
    with tarfile.open(tmp_path / "valid.tar", "w") as shard:
        shard.add(folder, "valid")
    inside, packed = find_clips(folder), find_clips(tmp_path / "valid.tar")
    assert [f"valid/{clip.name}" for clip in inside] == [clip.name for clip in packed]
    assert [clip.kind for clip in packed] == ["music", "speech", "speech"]
    for one, other in zip(inside, packed, strict=True):
        wave = one.read(10)
        assert wave.shape == (int(1.01 * RATE),)
        assert (wave == other.read(10)).all()
        assert (one.read(0.5) == wave[: RATE // 2]).all()


def test_a_clip_is_mixed_clamped_and_resampled(tmp_path: Path) -> None:
    stereo = np.stack([np.full(48000, 0.5), np.full(48000, 0.1)]).astype(np.float32)
    audio.write(tmp_path / "a.wav", stereo, 48000, subtype="FLOAT")
    audio.write(tmp_path / "b.wav", 5 * stereo, 48000, subtype="FLOAT")
    soft, loud = (Clip(tmp_path, name).read(10) for name in ("a.wav", "b.wav"))
    assert soft.shape == loud.shape == (RATE,)
    assert soft[1000:-1000] == pytest.approx(0.3, abs=1e-3)
    assert loud.max() == 1


def test_data_without_clips_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(InputError, match="no audio file"):
        find_clips(tmp_path)
    with pytest.raises(InputError, match="neither a folder nor a tar"):
        find_clips(tmp_path / "notes.txt")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioFileError, match=r"broken\.wav"):
        Clip(tmp_path, "broken.wav").read(10)


@needs_eval
def test_a_run_resumes_and_goes_on_past_a_bad_clip(folder: Path, tmp_path: Path) -> None:
    out, scores = tmp_path / "out", tmp_path / "out" / "scores.jsonl"
    (folder / "music" / "c_0001.wav").write_bytes(b"RIFF")
    arguments = (folder, "--codecs", "original", "--out", out)
    first = run(*arguments)
    assert first.exit_code == 1
    assert "c_0001.wav" in first.stderr
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    assert sorted(row["clip"] for row in rows) == [
        "music/a_0001.wav", "speech/a_0001.wav", "speech/b_0001.wav",
    ]  # fmt: skip
    assert all(("stoi" in row) == (row["class"] == "speech") for row in rows)
    assert all(row["lsd"] == 0 and row["visqol"] > 4.7 for row in rows)

    # Mark what is there to see it kept; leave the last line as a killed run would.
    (folder / "music" / "c_0001.wav").unlink()
    marked = [json.dumps(row | {"lsd": 7.0}) + "\n" for row in rows]
    scores.write_text("".join(marked[:2]) + marked[2][:40])
    second = run(*arguments, "--processes", 1)
    assert second.exit_code == 0
    again = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [row["lsd"] for row in again] == [7.0, 7.0, 0.0]
    assert sorted(row["clip"] for row in again) == sorted(row["clip"] for row in rows)

    summary = json.loads((out / "scorecard.json").read_text())
    assert summary["failures"] == []
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["processor"]
    assert [line["class"] for line in summary["table"]] == ["music", "speech", "mean"]

    # Nothing left to do: the same file, the same table.
    third = run(*arguments)
    assert [json.loads(line) for line in scores.read_text().splitlines()] == again
    assert second.stdout == third.stdout == (out / "scorecard.md").read_text() + "\n"


def test_whatever_changes_a_result_is_in_its_key(folder: Path, monkeypatch: Any) -> None:
    clip, other = find_clips(folder)[:2]
    keys = [
        scorecard.Job(codec, which, seconds).key()
        for codec in ("original", "opus-12")
        for which in (clip, other)
        for seconds in (1.0, 2.0)
    ]
    monkeypatch.setattr(metrics, "DEFINITIONS", metrics.DEFINITIONS + 1)
    keys.append(scorecard.Job("original", clip, 1.0).key())
    assert len({json.dumps(key) for key in keys}) == 9
    assert all(tuple(key) == scorecard.KEY for key in keys)


def test_usage_errors_end_with_status_2_and_leave_nothing(folder: Path, tmp_path: Path) -> None:
    for arguments in (
        (folder, "--codecs", "mp3"),
        (tmp_path / "none",),
        (folder, "--seconds", "0"),
    ):
        done = run(*arguments, "--out", tmp_path / "out")
        assert done.exit_code == 2
        assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_scores_that_are_none_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("not json\n")
    with pytest.raises(MelcapError, match="is not a file of scores"):
        scorecard.compute([], path, 1)


def rows_of(kind: str, values: list[float], **other: float) -> list[dict[str, Any]]:
    common = {"codec": "x", "class": kind, "seconds": 2.0, "bytes": 500}
    return [common | {"visqol": value} | other for value in values]


def test_the_mean_is_over_classes_and_lies_in_its_interval() -> None:
    rows = rows_of("music", [1, 1, 1, 2, 2, 2]) + rows_of("speech", [4, 5], stoi=0.9)
    music, speech, mean = summarise(rows)
    assert (music["class"], speech["class"], mean["class"]) == ("music", "speech", "mean")
    assert (music["n"], mean["n"], mean["seconds"], mean["kbps"]) == (6, 8, 16, 2)
    assert music["visqol"]["mean"] == 1.5
    assert mean["visqol"]["mean"] == 3
    # The mean of six fair coins is at most 5/6 away with 1 - 2 / 64: so is 95 % of the draws.
    assert music["visqol"]["low"] == pytest.approx(1.5 - 1 / 3, abs=0.01)
    assert music["visqol"]["high"] == pytest.approx(1.5 + 1 / 3, abs=0.01)
    assert 2.5 < mean["visqol"]["low"] < 3 < mean["visqol"]["high"] < 3.5
    assert music["stoi"] is None
    assert mean["stoi"]["mean"] == pytest.approx(0.9)


def test_one_clip_has_no_interval_and_an_undefined_measure_no_part() -> None:
    (line, _) = summarise(rows_of("sound", [3.0], lsd=1.0, mcd=None))
    assert line["visqol"] == {"mean": 3.0, "low": None, "high": None}
    assert line["mcd"] is None
    text = markdown([line])
    assert "| x | sound | 1 | 2 | 2.00 | 3.00 |  |  | 1.00 |  |" in text


@pytest.mark.parametrize("count", [16, 64, 256])
def test_intervals_have_the_width_that_the_clips_support(count: int) -> None:
    line, _ = summarise(rows_of("music", [0.0, 1.0] * (count // 2)))
    width = line["visqol"]["high"] - line["visqol"]["low"]
    assert width == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(count), rel=0.15)
