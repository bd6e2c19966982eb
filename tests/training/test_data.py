from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melcap.errors import AudioFileError, InputError
from melcap.training import decoding
from melcap.training.audio_cache import SAMPLE_RATE, AudioCache
from melcap.training.crops import CropSampler
from melcap.training.cutting import NARROW_HZ, SILENT_PEAK
from melcap.training.decoding import build_cache

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

RATE = SAMPLE_RATE


def write(path: Path, wave: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype=subtype)


def noise(samples: int, seed: int = 0, peak: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-peak, peak, samples)


def opened(source: Path, tmp_path: Path, name: str = "cache") -> AudioCache:
    return AudioCache(build_cache([source], tmp_path / name, workers=1))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    """Return clips of very different lengths, in three classes, each with its own noise."""
    folder = tmp_path_factory.mktemp("clips")
    lengths = {"music": (4000, 1000), "sound": (1, 2, 100), "speech": (2000,)}
    for label, many in lengths.items():
        for seed, length in enumerate(many):
            wave = noise(length, seed)
            wave[length // 2] = 0.5
            write(folder / label / f"{seed}.wav", wave)
    return opened(folder, folder.parent, "cache_of_clips")


class TestBuild:
    def test_folder(self, tmp_path: Path) -> None:
        wave = noise(3000)
        write(tmp_path / "in" / "speech" / "deep" / "a.wav", wave)
        write(tmp_path / "in" / "music" / "b.flac", noise(500, 1))
        (tmp_path / "in" / "music" / "notes.txt").write_text("not audio")
        found = opened(tmp_path / "in", tmp_path)
        assert [(c.name, c.label, c.length) for c in found.clips] == [
            ("music/b.flac", "music", 500),
            ("speech/deep/a.wav", "deep", 3000),
        ]
        assert found.classes == ("deep", "music")
        assert found.hours == pytest.approx(3500 / RATE / 3600)
        np.testing.assert_allclose(found.wave(found.clips[1]), wave, atol=1e-4)

    def test_tar_equals_folder(self, tmp_path: Path) -> None:
        for seed in range(3):
            write(tmp_path / "in" / "train" / "sound" / f"{seed}.wav", noise(1000 + seed, seed))
        with tarfile.open(tmp_path / "shard.tar", "w") as shard:
            for path in sorted((tmp_path / "in").rglob("*.wav")):
                shard.add(path, path.relative_to(tmp_path / "in"))
        one = opened(tmp_path / "in", tmp_path, "one")
        other = opened(tmp_path / "shard.tar", tmp_path, "other")
        assert one.clips == other.clips
        np.testing.assert_array_equal(one.samples, other.samples)

    def test_opus_in_a_tar(self, tmp_path: Path) -> None:
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
        packed = io.BytesIO()
        soundfile.write(packed, tone, 48_000, format="OGG", subtype="OPUS")
        member = tarfile.TarInfo("train/music/tone.opus")
        member.size = packed.tell()
        packed.seek(0)
        with tarfile.open(tmp_path / "shard.tar", "w") as shard:
            shard.addfile(member, packed)
        found = opened(tmp_path / "shard.tar", tmp_path)
        assert abs(found.clips[0].length - RATE) <= 1
        spectrum = np.abs(np.fft.rfft(found.wave(found.clips[0])[:RATE]))
        assert int(spectrum.argmax()) == 440

    def test_resamples_and_mixes_to_mono(self, tmp_path: Path) -> None:
        seconds = np.arange(22_050 * 30) / 22_050  # longer than one block
        left = 0.4 * np.sin(2 * np.pi * 1000 * seconds)
        write(tmp_path / "in" / "x" / "a.wav", np.stack([left, np.zeros_like(left)], 1), 22_050)
        found = opened(tmp_path / "in", tmp_path)
        made = found.wave(found.clips[0])
        assert len(made) == 2 * len(left)
        expected = 0.2 * np.sin(2 * np.pi * 1000 * np.arange(len(made)) / RATE)
        inner = slice(1000, -1000)
        np.testing.assert_allclose(made[inner], expected[inner], atol=1e-3)

    def test_clamps(self, tmp_path: Path) -> None:
        write(tmp_path / "in" / "x" / "a.wav", np.array([0.0, 1.7, -1.7, 0.5]), subtype="FLOAT")
        found = opened(tmp_path / "in", tmp_path)
        np.testing.assert_allclose(found.wave(found.clips[0]), [0, 1, -1, 0.5], atol=1e-4)

    def test_damaged_files_are_left_out(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(tmp_path / "in" / "x" / "a.wav", noise(100))
        (tmp_path / "in" / "x" / "b.wav").write_bytes(b"RIFF, but no more than that")
        write(tmp_path / "in" / "x" / "c.wav", noise(200, 1))
        found = opened(tmp_path / "in", tmp_path)
        assert [c.name for c in found.clips] == ["x/a.wav", "x/c.wav"]
        np.testing.assert_allclose(found.wave(found.clips[1]), noise(200, 1), atol=1e-4)
        assert "b.wav" in caplog.text

    def test_files_are_refused_as_melcap_audio_refuses_them(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A file that is cut short does not become a shorter clip, nor NaN become 0."""
        write(tmp_path / "in" / "x" / "a.flac", noise(4000))
        write(tmp_path / "in" / "x" / "cut.wav", noise(4000, 1))
        write(tmp_path / "in" / "x" / "nan.wav", np.array([0.0, np.nan]), subtype="FLOAT")
        cut = tmp_path / "in" / "x" / "cut.wav"
        cut.write_bytes(cut.read_bytes()[:-1000])
        found = opened(tmp_path / "in", tmp_path)
        assert [c.name for c in found.clips] == ["x/a.flac"]
        assert "left out x/cut.wav" in caplog.text
        assert "left out x/nan.wav" in caplog.text

    def test_a_file_damaged_half_way_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "in" / "x" / "a.wav", noise(100))
        write(tmp_path / "in" / "x" / "b.wav", noise(200, 1))
        decode = decoding._decode

        def fails_late(audio: io.BytesIO, out: io.BytesIO) -> int:
            length = decode(audio, out)
            if length == 100:
                raise AudioFileError("damaged near its end")
            return length

        monkeypatch.setattr(decoding, "_decode", fails_late)
        found = opened(tmp_path / "in", tmp_path)
        assert [(c.name, c.start) for c in found.clips] == [("x/b.wav", 0)]
        np.testing.assert_allclose(found.wave(found.clips[0]), noise(200, 1), atol=1e-4)

    def test_two_processes_give_the_same_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoding, "_CLIPS_PER_UNIT", 2)
        for seed in range(5):
            write(tmp_path / "in" / "x" / f"{seed}.wav", noise(100 + seed, seed))
        alone = opened(tmp_path / "in", tmp_path, "alone")
        both = AudioCache(build_cache([tmp_path / "in"], tmp_path / "both", workers=2))
        assert alone.clips == both.clips
        np.testing.assert_array_equal(alone.samples, both.samples)


class TestReuse:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        write(tmp_path / "in" / "x" / "a.wav", noise(100))
        write(tmp_path / "in" / "x" / "b.wav", noise(200))
        return tmp_path / "in"

    def test_unchanged_sources_decode_nothing(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = opened(source, tmp_path)

        def refuse(*_: object) -> int:
            raise AssertionError("decoded again")

        monkeypatch.setattr(decoding, "_decode", refuse)
        assert opened(source, tmp_path).clips == first.clips

    @pytest.mark.parametrize(
        "change",
        [
            lambda source: write(source / "x" / "c.wav", noise(300)),
            lambda source: write(source / "x" / "b.wav", noise(300)),
            lambda source: (source / "x" / "b.wav").unlink(),
            lambda source: (source / "x" / "b.wav").rename(source / "x" / "c.wav"),
        ],
        ids=["added", "longer", "removed", "renamed"],
    )
    def test_a_changed_source_is_decoded_again(
        self, source: Path, tmp_path: Path, change: Callable[[Path], None]
    ) -> None:
        first = opened(source, tmp_path)
        change(source)
        second = opened(source, tmp_path)
        assert second.key != first.key
        paths = sorted((source / "x").iterdir())
        assert [c.name for c in second.clips] == [f"x/{path.name}" for path in paths]
        for clip, path in zip(second.clips, paths, strict=True):
            np.testing.assert_allclose(second.wave(clip), soundfile.read(path)[0], atol=1e-4)
        assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
            f"audio-{second.key}.int16",
            "index.json",
        ]

    def test_a_cut_audio_file_is_made_again(self, source: Path, tmp_path: Path) -> None:
        first = opened(source, tmp_path)
        audio = tmp_path / "cache" / f"audio-{first.key}.int16"
        whole = audio.read_bytes()
        audio.write_bytes(whole[:-2])
        with pytest.raises(InputError, match="cut short"):
            AudioCache(tmp_path / "cache")
        opened(source, tmp_path)
        assert audio.read_bytes() == whole

    def test_an_interrupted_build_goes_on(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoding, "_CLIPS_PER_UNIT", 1)
        expected = opened(source, tmp_path, "expected")
        decode = decoding._decode
        lengths: list[int] = []

        def interrupted(audio: io.BytesIO, out: io.BytesIO) -> int:
            if lengths == [100]:
                lengths.append(0)
                raise KeyboardInterrupt
            lengths.append(decode(audio, out))
            return lengths[-1]

        monkeypatch.setattr(decoding, "_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened(source, tmp_path)
        with pytest.raises(InputError, match="holds no audio cache"):
            AudioCache(tmp_path / "cache")
        found = opened(source, tmp_path)
        assert lengths == [100, 0, 200]  # the first clip was not decoded again
        assert found.clips == expected.clips
        np.testing.assert_array_equal(found.samples, expected.samples)

    @pytest.mark.parametrize("kind", ["missing", "empty", "not a tar", "no audio"])
    def test_refuses(self, tmp_path: Path, kind: str) -> None:
        source = tmp_path / "source"
        if kind == "empty":
            source.mkdir()
        elif kind == "not a tar":
            source.write_text("hello")
        elif kind == "no audio":
            source.mkdir()
            (source / "a.wav").write_text("hello")
        message = {
            "missing": "does not exist",
            "empty": "no audio files",
            "not a tar": "is not a tar shard",
            "no audio": "can be read",
        }[kind]
        with pytest.raises(InputError, match=message):
            opened(source, tmp_path)


class TestSampler:
    def test_same_seed_same_batches(self, cache: AudioCache) -> None:
        one, same, other = (CropSampler(cache, 1000, 4, seed) for seed in (7, 7, 8))
        first = [one.next() for _ in range(5)]
        assert first[0].shape == (4, 1000)
        assert first[0].dtype == torch.float32
        assert all(torch.equal(batch, same.next()) for batch in first)
        assert not torch.equal(first[0], other.next())
        assert not torch.equal(first[0], first[1])

    def test_resumes_exactly(self, cache: AudioCache) -> None:
        sampler = CropSampler(cache, 1000, 4, 1)
        for _ in range(3):
            sampler.next()
        state = json.loads(json.dumps(sampler.state_dict()))
        expected = [sampler.next() for _ in range(3)]
        resumed = CropSampler(cache, 1000, 4, 99)
        resumed.load_state_dict(state)
        assert resumed.batches == 3
        assert all(torch.equal(batch, resumed.next()) for batch in expected)
        with pytest.raises(InputError, match="not the state"):
            resumed.load_state_dict({"step": 3})

    def test_classes_are_balanced(self, cache: AudioCache) -> None:
        labels, _ = self._choices(CropSampler(cache, 10, 1, 0))
        for label in cache.classes:
            assert labels[label] == pytest.approx(1 / 3, abs=0.03)

    def test_class_weights(self, cache: AudioCache) -> None:
        labels, _ = self._choices(CropSampler(cache, 10, 1, 0, class_weights={"music": 3}))
        assert labels["music"] == pytest.approx(3 / 5, abs=0.03)
        labels, _ = self._choices(CropSampler(cache, 10, 1, 0, class_weights={"speech": 0}))
        assert labels["speech"] == 0

    def test_clips_are_chosen_by_length(self, cache: AudioCache) -> None:
        _, names = self._choices(CropSampler(cache, 10, 1, 0, class_weights={"sound": 0}))
        assert names["music/0.wav"] / names["music/1.wav"] == pytest.approx(4, rel=0.2)

    @staticmethod
    def _choices(sampler: CropSampler) -> tuple[dict[str, float], dict[str, float]]:
        clips = [sampler._choose(*draw) for draw in np.random.default_rng(0).random((4000, 2))]
        labels = dict.fromkeys(sampler.cache.classes, 0.0)
        names = {clip.name: 0.0 for clip in sampler.cache.clips}
        for clip in clips:
            labels[clip.label] += 1 / len(clips)
            names[clip.name] += 1 / len(clips)
        return labels, names

    @pytest.mark.slow
    @given(samples=st.integers(1, 600), seed=st.integers(0, 1000))
    def test_a_crop_is_an_excerpt_of_the_extended_clip(
        self, cache: AudioCache, samples: int, seed: int
    ) -> None:
        sampler = CropSampler(cache, samples, 1, seed)
        draws = np.random.default_rng(seed).random(7)
        clip = sampler._choose(draws[0], draws[1])
        silence = np.zeros(samples, np.float32)
        extended = np.concatenate([silence, cache.wave(clip), silence])
        windows = np.lib.stride_tricks.sliding_window_view(extended, samples)
        half = samples // 2
        windows = windows[samples - half : samples - half + clip.length + 1]  # the allowed starts
        crop = sampler.next().numpy()[0]
        peaks = np.abs(windows).max(1, keepdims=True)
        scaled = np.divide(windows, peaks, out=np.zeros_like(windows), where=peaks > 0)
        unit = crop / np.abs(crop).max() if np.abs(crop).max() > 0 else crop
        distances = np.minimum(np.abs(scaled - unit).max(1), np.abs(scaled + unit).max(1))
        assert distances.min() < 1e-4

    def test_starts_ends_and_short_clips_occur(self, cache: AudioCache) -> None:
        batch = CropSampler(cache, 800, 200, 0, class_weights={"sound": 0}).next().numpy()
        assert (batch[:, 0] == 0).any()
        assert (batch[:, -1] == 0).any()
        assert (batch != 0).mean(1).min() >= 0.49  # at least half of a crop is in the clip
        short = CropSampler(cache, 800, 50, 0, class_weights={"music": 0, "speech": 0}).next()
        assert (short != 0).sum(1).max() <= 100

    def test_levels_and_polarity(self, cache: AudioCache) -> None:
        only = {"music": 1.0, "sound": 0.0, "speech": 0.0}
        sampler = CropSampler(cache, 4000, 400, 0, gain_db=(-12, -6), class_weights=only)
        batch = sampler.next()
        peaks = 20 * batch.abs().amax(1).log10()
        assert peaks.min() >= -12.001
        assert peaks.max() <= -5.999
        assert peaks.mean() == pytest.approx(-9, abs=0.3)
        highest = batch.gather(1, batch.abs().argmax(1, keepdim=True))
        assert 0.35 < (highest > 0).float().mean() < 0.65

    def test_near_silence_is_not_scaled(self, tmp_path: Path) -> None:
        write(tmp_path / "in" / "x" / "a.wav", noise(5000, peak=SILENT_PEAK / 2))
        batch = CropSampler(opened(tmp_path / "in", tmp_path), 1000, 8, 0).next()
        assert 0 < batch.abs().max() <= SILENT_PEAK / 2 + 1e-4

    def test_a_share_is_narrowed(self, cache: AudioCache) -> None:
        """Crops lose what is above their frequency, and do not change below it."""
        bands = []
        for share in (0.0, 0.5):
            # gain is by the peak, which a narrower band lowers: compare shapes of spectra
            batch = CropSampler(cache, 4096, 64, 0, narrowed=share).next().numpy()
            power = np.abs(np.fft.rfft(batch)) ** 2
            bands.append(power / power[:, 10:250].sum(1, keepdims=True))  # 100 to 2700 Hz
        whole, narrowed = bands
        kept = np.abs(whole - narrowed).max(1) < 1e-6 * whole.max(1)
        assert 0.3 < kept.mean() < 0.7
        ends = [int((row > 1e-9 * row.max()).nonzero()[0][-1]) for row in narrowed[~kept]]
        hertz = np.array(ends) * 44100 / 4096
        assert hertz.max() < 1.11 * NARROW_HZ[1]
        assert hertz.min() > NARROW_HZ[0]
        assert hertz.std() > 2000
        below = slice(10, 250)
        assert np.abs(whole - narrowed)[:, below].max() < 1e-5 * whole[:, below].max()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"samples": 0}, "at least 1"),
            ({"batch": 0}, "at least 1"),
            ({"gain_db": (0.0, -6.0)}, "low <= high"),
            ({"gain_db": (0.0, 6.0)}, "low <= high"),
            ({"class_weights": {"bird": 1.0}}, "no class bird"),
            ({"class_weights": {"speech": -1.0}}, "must be >= 0"),
            ({"class_weights": {"speech": 0.0, "music": 0.0, "sound": 0.0}}, "not all 0"),
        ],
    )
    def test_refuses(self, cache: AudioCache, arguments: dict[str, object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            CropSampler(cache, **{"samples": 10, "batch": 1, "seed": 0, **arguments})  # type: ignore[arg-type]
