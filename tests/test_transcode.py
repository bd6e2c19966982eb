"""Files keep length, rate and channels on the way to tokens and back, and errors leave no file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import melcap
from melcap import audio, transcode
from melcap.codec import Codec
from melcap.codes import Codes
from melcap.errors import (
    AudioFileError,
    ContainerError,
    InputError,
    ModelMismatchError,
    OutputExistsError,
    WeightsError,
)
from melcap.io import container
from melcap.streaming import StreamDecoder, StreamEncoder
from melcap.transcode import decode_file, encode_file
from tests.helpers import (
    SMALL,
    at_codec_rate,
    count_ties,
    draw_weights,
    examples,
    noise,
    sample_rates,
)

UNIT = SMALL.column_samples
ROUNDING = 2**-15 + 1e-4  # 16 bits, and what two ways of computing may differ by


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the module, because hypothesis refuses fixtures of single tests."""
    return tmp_path_factory.mktemp("transcode")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Return a short stereo file."""
    path = tmp_path / "clip.wav"
    audio.write(path, noise(2, 5000).numpy(), 22050)
    return path


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.slow
@settings(max_examples=examples(12))
@example(8, 1, 192000, "wav", 0)
@example(2, 6000, 8000, "flac", 0)
@given(
    st.integers(1, 8),
    st.integers(1, 6000),
    sample_rates(),
    st.sampled_from(["wav", "flac"]),
    st.integers(0, 2**32),
)
def test_a_file_comes_back_as_it_was(
    codec: Codec, folder: Path, channels: int, samples: int, rate: int, suffix: str, seed: int
) -> None:
    if rate > 65535 and rate % 10:
        suffix = "wav"  # FLAC has no room for such a rate
    source, packed, back = (folder / f"a.{suffix}", folder / "a.melcap", folder / f"b.{suffix}")
    wave = noise(channels, samples, seed=seed).clamp(-1, 1)
    audio.write(source, wave.numpy(), rate)
    done = encode_file(source, packed, codec, force=True)
    stored = torch.from_numpy(audio.read(source)[0])
    whole = codec.encode(stored, rate)
    header, tokens = container.read(packed)
    for one, other, row in zip(whole.tokens, torch.from_numpy(tokens), stored, strict=True):
        count_ties(codec, at_codec_rate(codec, row, rate), one, other)
    assert (header.sample_rate, header.channels, header.samples) == (rate, channels, samples)
    assert (header.model, header.tokenizer_id) == (codec.model, codec.tokenizer_id)
    assert (header.rows, header.bits) == (SMALL.rows, 9)
    assert (done.source, done.target) == (source, packed)
    assert (done.channels, done.sample_rate, done.seconds) == (channels, rate, samples / rate)
    assert done.file_bytes == packed.stat().st_size
    assert done.kbps == pytest.approx(done.file_bytes * 8 / 1000 / (samples / rate))

    again = decode_file(packed, back, codec, force=True)
    found, found_rate = audio.read(back)
    assert found_rate == rate
    assert found.shape == (channels, samples)
    codes = Codes(torch.from_numpy(tokens), whole.columns, whole.lengths, rate, codec.tokenizer_id)
    assert np.abs(found - codec.decode(codes).numpy()).max() <= ROUNDING
    assert (again.source, again.target, again.clipped) == (packed, back, 0)
    assert (again.channels, again.sample_rate, again.seconds) == (channels, rate, samples / rate)
    assert again.file_bytes == packed.stat().st_size
    assert set(files(folder)) <= {"a.wav", "a.flac", "a.melcap", "b.wav", "b.flac"}


@pytest.mark.parametrize("rate", [8000, 22051, 44100, 96000])
def test_at_another_rate(codec: Codec, clip: Path, rate: int) -> None:
    packed = encode_file(clip, codec=codec).target
    done = decode_file(packed, clip.with_name("back.wav"), codec, sample_rate=rate)
    found, found_rate = audio.read(done.target)
    assert (found_rate, done.sample_rate) == (rate, rate)
    assert found.shape == (2, -(-5000 * rate // 22050))
    assert done.seconds == found.shape[1] / rate


def test_names_and_progress(codec: Codec, clip: Path) -> None:
    seconds: list[float] = []
    encoded = encode_file(str(clip), codec=codec, progress=seconds.append)
    assert encoded.target == clip.with_suffix(".melcap")
    assert sum(seconds) == pytest.approx(5000 / 22050)
    seconds.clear()
    decoded = decode_file(str(encoded.target), codec=codec, force=True, progress=seconds.append)
    assert decoded.target == clip
    assert sum(seconds) == pytest.approx(5000 / 22050, abs=UNIT / 44100)
    assert files(clip.parent) == ["clip.melcap", "clip.wav"]


def test_many_pieces(codec: Codec, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pieces in which a file is processed do not change the result."""
    packed, back = clip.with_suffix(".melcap"), clip.with_name("back.wav")
    encode_file(clip, packed, codec)
    decode_file(packed, back, codec)
    header, tokens = container.read(packed)
    wave, _ = audio.read(back)
    blocks, pieces = audio.AudioReader.blocks, []
    monkeypatch.setattr(audio.AudioReader, "blocks", lambda self, _=0: blocks(self, 333))
    monkeypatch.setattr(transcode, "_piece_seconds", lambda _: 0)  # decodes column by column
    encode_file(clip, packed, codec, force=True, progress=pieces.append)
    decode_file(packed, back, codec, force=True, progress=pieces.append)
    assert len(pieces) == -(-5000 // 333) + header.columns
    found_header, found = container.read(packed)
    assert found_header == header
    for row, one, other in zip(torch.from_numpy(audio.read(clip)[0]), tokens, found, strict=True):
        own = at_codec_rate(codec, row, 22050)
        count_ties(codec, own, torch.from_numpy(one), torch.from_numpy(other))
    assert np.abs(audio.read(back)[0] - wave).max() <= ROUNDING


@pytest.mark.slow
def test_the_default_weights(lite: Codec, clip: Path) -> None:
    packed = encode_file(clip).target
    assert container.read_header(packed).model == lite.model
    decoded = decode_file(packed, clip.with_name("back.flac"))
    assert audio.read(decoded.target)[0].shape == (2, 5000)


def test_other_weights(codec: Codec, clip: Path, tmp_path: Path) -> None:
    packed = encode_file(clip, codec=codec).target
    path = tmp_path / "other.safetensors"
    melcap.pretrained.save(draw_weights(Codec(SMALL), seed=9), path)
    other = melcap.load(path)
    words = f"{packed}: these tokens are of tokenizer {codec.tokenizer_id} .*{codec.model}.*"
    with pytest.raises(ModelMismatchError, match=f"{words}{other.model}"):
        decode_file(packed, tmp_path / "back.wav", other)
    assert not (tmp_path / "back.wav").exists()


def test_the_weights_that_would_do_are_named(codec: Codec, lite: Codec, clip: Path) -> None:
    packed = encode_file(clip).target
    words = f"; the weights that come with melcap, {lite.model}, are of it"
    with pytest.raises(ModelMismatchError, match=words):
        decode_file(packed, clip.with_name("back.wav"), codec)


def test_outputs_that_exist(codec: Codec, clip: Path) -> None:
    packed = encode_file(clip, codec=codec).target
    before = packed.read_bytes(), clip.read_bytes()
    with pytest.raises(OutputExistsError, match=f"{packed}: exists.*--force"):
        encode_file(clip, codec=codec)
    with pytest.raises(OutputExistsError, match=f"{clip}: exists.*--force"):
        decode_file(packed, codec=codec)
    for force in (False, True):
        with pytest.raises(InputError, match="is the input file"):
            encode_file(clip, clip, codec, force=force)
        link = clip.with_name("link.melcap")
        link.symlink_to(clip)
        with pytest.raises(InputError, match="is the input file"):
            encode_file(clip, link, codec, force=force)
        link.unlink()
        with pytest.raises(InputError, match="is the input file"):
            decode_file(packed, packed, codec, force=force)
    assert (packed.read_bytes(), clip.read_bytes()) == before


def test_impossible_headers_are_refused(codec: Codec, clip: Path, tmp_path: Path) -> None:
    """Files with correct checksums and impossible headers are refused."""
    packed = encode_file(clip, codec=codec).target
    header, tokens = container.read(packed)
    forged, back = tmp_path / "forged.melcap", tmp_path / "back.wav"
    cases: list[tuple[container.Header, npt.NDArray[np.int32], type[Exception], str]] = [
        (replace(header, samples=5000 + UNIT), tokens, ContainerError, "columns do not fit"),
        (replace(header, samples=1), tokens, ContainerError, "columns do not fit 1 samples"),
        (replace(header, samples=2**40), tokens, ContainerError, "columns do not fit"),
        (replace(header, sample_rate=8000), tokens, ContainerError, "at 8000 Hz"),
        (replace(header, sample_rate=768_000), tokens, ContainerError, "at 768000 Hz"),
        (
            replace(header, columns=header.columns - 1),
            tokens[..., 1:],
            ContainerError,
            "damaged",
        ),
        (replace(header, rows=2), tokens[:, :2], ModelMismatchError, "rows or bits per token"),
        (replace(header, bits=10), tokens, ModelMismatchError, "rows or bits per token"),
        (header, tokens | 256 | 128 | 64, InputError, r"0\.\.299"),
    ]
    for claimed, stored, kind, words in cases:
        container.write(forged, claimed, stored)
        with pytest.raises(kind, match=words) as caught:
            decode_file(forged, back, codec)
        assert "\n" not in str(caught.value)
        assert not back.exists()
    assert files(tmp_path) == ["clip.melcap", "clip.wav", "forged.melcap"]


@pytest.mark.parametrize(
    ("name", "data"),
    [("text.wav", b"no audio"), ("empty.wav", b""), ("missing.wav", None), ("clip.melcap", b"?")],
)
def test_sources_that_are_not_audio(
    codec: Codec, tmp_path: Path, name: str, data: bytes | None
) -> None:
    source, target = tmp_path / name, tmp_path / "out.melcap"
    if data is not None:
        source.write_bytes(data)
    with pytest.raises(AudioFileError, match=name):
        encode_file(source, target, codec)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "data"), [("text.melcap", b"no tokens"), ("missing.melcap", None)]
)
def test_sources_that_are_not_tokens(
    codec: Codec, tmp_path: Path, name: str, data: bytes | None
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ContainerError, match=name):
        decode_file(tmp_path / name, tmp_path / "out.wav", codec)
    assert not (tmp_path / "out.wav").exists()


def test_targets_that_cannot_be(codec: Codec, clip: Path, tmp_path: Path) -> None:
    packed = encode_file(clip, codec=codec).target
    before = files(tmp_path)
    with pytest.raises(AudioFileError, match=r"wav or \.flac"):
        decode_file(packed, tmp_path / "back.mp3", codec)
    with pytest.raises(AudioFileError, match="folder"):
        decode_file(packed, tmp_path / "missing" / "back.wav", codec)
    with pytest.raises((ContainerError, AudioFileError)):
        encode_file(clip, tmp_path / "missing" / "clip.melcap", codec)
    with pytest.raises(InputError, match="rate"):
        decode_file(packed, tmp_path / "back.wav", codec, sample_rate=7)
    with pytest.raises(InputError, match="rate"):
        decode_file(packed, tmp_path / "back.wav", codec, sample_rate=0)
    with pytest.raises(WeightsError, match="no weights file"):
        encode_file(clip, tmp_path / "out.melcap", Codec(SMALL))
    assert files(tmp_path) == before


@pytest.mark.parametrize("fails_after", [1, 2])
def test_a_source_that_breaks_off(
    codec: Codec, clip: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int
) -> None:
    def broken(self: audio.AudioReader, size: int) -> Iterator[npt.NDArray[np.float32]]:
        for _ in range(fails_after):
            yield noise(2, 3000).numpy()
        raise AudioFileError(f"{self.name}: is cut short")

    monkeypatch.setattr(audio.AudioReader, "blocks", broken)
    with pytest.raises(AudioFileError, match="cut short"):
        encode_file(clip, codec=codec)
    assert files(clip.parent) == ["clip.wav"]


def test_an_interrupted_decode_leaves_nothing(codec: Codec, clip: Path) -> None:
    packed = encode_file(clip, codec=codec).target

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_file(packed, clip.with_name("back.wav"), codec, progress=interrupt)
    assert files(clip.parent) == ["clip.melcap", "clip.wav"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(
    codec: Codec, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory after each piece, without the tokens, is no more after 20 pieces than after 6."""
    held: list[int] = []

    def watched(kind: type[Any]) -> type[Any]:
        class Watched(kind):  # type: ignore[misc]
            def push(self, piece: Any) -> torch.Tensor:
                result: torch.Tensor = super().push(piece)
                tensors = [each for each in self._stream._pending if each is not None]
                held.append(sum(each.untyped_storage().nbytes() for each in tensors))
                return result

        return Watched

    def blocks(self: audio.AudioReader, size: int) -> Iterator[npt.NDArray[np.float32]]:
        for seed in range(20):
            yield noise(2, 2000, seed=seed).numpy()

    monkeypatch.setattr(transcode, "StreamEncoder", watched(StreamEncoder))
    monkeypatch.setattr(transcode, "StreamDecoder", watched(StreamDecoder))
    monkeypatch.setattr(audio.AudioReader, "blocks", blocks)
    packed = encode_file(clip, codec=codec).target
    assert len(held) == 40  # for each channel
    assert max(held[12:]) <= 1.5 * max(held[:12])
    held.clear()
    monkeypatch.setattr(transcode, "_piece_seconds", lambda _: 0)  # column by column
    decode_file(packed, clip, codec, force=True)
    assert len(held) > 100
    assert max(held[40:]) <= 1.05 * max(held[:40])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_channels(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest piece read, written or computed is no larger for 16 channels than for one."""
    largest: dict[str, int] = {}
    blocks, write = audio.AudioReader.blocks, audio.AudioWriter.write

    def note(what: str, array: Any) -> None:
        largest[what] = max(largest.get(what, 0), array.size)

    def watched_blocks(self: audio.AudioReader, *size: int) -> Iterator[npt.NDArray[np.float32]]:
        for block in blocks(self, *size):
            note("read", block)
            yield block

    def watched_write(self: audio.AudioWriter, block: npt.NDArray[np.float32]) -> None:
        note("written", block)
        write(self, block)

    monkeypatch.setattr(audio.AudioReader, "blocks", watched_blocks)
    monkeypatch.setattr(transcode.AudioWriter, "write", watched_write)
    hooks = [
        stage.register_forward_hook(lambda _, given, made, n=name: note(n, given[0].numpy()))
        for name, stage in (("encoded", codec.front), ("decoded", codec.decoder[0]))
    ]
    found = []
    try:
        for channels in (1, 16):
            largest.clear()
            path = tmp_path / f"{channels}.wav"
            # as long as all channels together may be at once, and a bit
            audio.write(path, noise(channels, 11 * 4000 // channels + 5000).numpy(), 4000)
            packed = encode_file(path, codec=codec).target
            decode_file(packed, tmp_path / "back.wav", codec, force=True)
            found.append(dict(largest))
    finally:
        for hook in hooks:
            hook.remove()
    one, many = found
    # Never less than a second of each channel; and the last is written with what waited for it.
    least = {"read": 16 * 4000, "written": 2 * 16 * 4000}
    for what, size in many.items():
        assert size <= max(one[what], least.get(what, 0)), (what, one, many)
