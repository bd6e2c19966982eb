"""A codec of the published architecture keeps the promises that it makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import melcap
from melcap import audio
from melcap.base_codec import BaseCodec
from melcap.cli.commands import app
from melcap.config import from_json
from melcap.config.base import SHORTEST_WINDOW
from melcap.errors import InputError, ModelMismatchError, WeightsError
from melcap.model.base.windows import signal_of, windows_of
from melcap.ops.precision import exact_float32
from melcap.pretrained import save, save_decoder
from melcap.transcode import decode_file, encode_file
from melcap.windowed import WindowedDecoder, WindowedEncoder
from tests.helpers import examples, noise
from tests.model.base.published import TINY, codec_of, with_windows

RATE = 44100
UNIT = 2048
CLOSE = 1e-5


@pytest.fixture(scope="module")
def base() -> BaseCodec:
    return codec_of(TINY[0])


@given(st.integers(1, 3000), st.integers(12, 300))
@settings(max_examples=examples(200))
def test_windows_cover_a_clip(columns: int, length: int) -> None:
    windows = windows_of(columns, length)
    assert [begin for begin, _ in windows] == [end for _, end in [(0, 0), *windows[:-1]]]
    assert windows[-1][1] == columns
    assert all(end - begin == length for begin, end in windows[:-1])
    assert windows[-1][1] - windows[-1][0] < length + SHORTEST_WINDOW
    assert len(windows) == 1 or windows[-1][1] - windows[-1][0] >= SHORTEST_WINDOW


@given(st.integers(1, 7000), st.integers(0, 99))
@settings(max_examples=examples(20))
@example(1, 0)
@example(512, 0)
@example(513, 0)
@example(1792, 0)
@example(1793, 0)
@example(2048, 0)
@example(2049, 0)
@example(5000, 0)
def test_decoded_audio_has_the_length_of_the_original(
    base: BaseCodec, samples: int, seed: int
) -> None:
    wave = noise(samples, seed=seed)
    codes = base.encode(wave, RATE)
    assert codes.tokens.shape == (12, -(-samples // UNIT))
    decoded = base.decode(codes)
    assert decoded.shape == (samples,)
    assert decoded.isfinite().all()


@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=3),
    st.sampled_from([12, 216]),
    st.integers(0, 99),
)
@settings(max_examples=examples(8))
@example([60_000, 1, 24 * UNIT], 12, 0)
@example([30_000, 700], 216, 0)
def test_a_batch_gives_what_each_clip_gives_alone(
    base: BaseCodec, lengths: list[int], window: int, seed: int
) -> None:
    """Clips are never padded, so tokens are equal; this holds with several windows as well."""
    short = with_windows(base, window)
    batch = noise(len(lengths), max(lengths), seed=seed)
    codes = short.encode(batch, RATE, lengths)
    decoded = short.decode(codes)
    for index, length in enumerate(lengths):
        alone = short.encode(batch[index, :length], RATE)
        assert torch.equal(codes[index].tokens[..., : alone.tokens.shape[-1]], alone.tokens)
        assert (decoded[index, :length] - short.decode(alone)).abs().max() <= CLOSE
        assert not decoded[index, length:].any()


def test_seams_of_windows_cannot_be_heard(base: BaseCodec) -> None:
    """The front end and the vocoder run across them, the image networks do not."""
    short = with_windows(base, 13)
    wave = noise(40 * UNIT - 700)
    codes = short.encode(wave, RATE)
    assert windows_of(40, 13) == [(0, 13), (13, 26), (26, 40)]
    with exact_float32():
        whole = signal_of(base.config, wave.numpy(), 0, len(wave), (0, 40))
        middle = signal_of(base.config, wave.numpy(), 0, len(wave), (13, 26))
        assert np.array_equal(middle, whole[13 * UNIT : 26 * UNIT + 768])
        tokens = short.tokens_of(torch.from_numpy(middle)[None])
        assert torch.equal(tokens[0], codes.tokens[:, 13:26])
        mels = [short.ln_mel_of(codes.tokens[None, :, a:b]) for a, b in windows_of(40, 13)]
        at_once = short.vocoder(torch.cat(mels, dim=-1))[0, : len(wave)].clamp(-1, 1)
    assert (short.decode(codes) - at_once).abs().max() <= CLOSE


def test_other_sample_rates_and_channels(base: BaseCodec) -> None:
    wave = noise(2, 24001)
    codes = base.encode(wave, 48000)
    assert codes.tokens.shape == (2, 12, 11)
    assert base.decode(codes).shape == (2, 24001)
    assert base.bitrate == pytest.approx(12 * 9 * RATE / UNIT)  # 512 entries


def test_flat_tokens(base: BaseCodec) -> None:
    ids = base.encode(noise(9000), RATE).flatten()[0]
    assert base.decode_tokens(ids).shape == (5 * UNIT,)
    ids[7] = 600
    with pytest.raises(InputError):
        base.decode_tokens(ids)
    assert base.decode_tokens(ids, on_invalid="silence").shape == (5 * UNIT,)


def test_tokens_of_another_codec_are_refused(base: BaseCodec) -> None:
    codes = base.encode(noise(9000), RATE)
    with pytest.raises(ModelMismatchError):
        codec_of(TINY[2]).decode(codes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_are_refused(base: BaseCodec, dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match="computes in float32"):
        base.to(dtype)
    assert base.codebook.vectors.dtype == torch.float32


@pytest.fixture(scope="module")
def weights(base: BaseCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save(with_windows(base, 12), path)
    return path


def test_a_saved_codec_is_the_same(base: BaseCodec, weights: Path) -> None:
    """Nothing is rounded, so tokens, id and samples stay."""
    short, loaded = with_windows(base, 12), melcap.load(weights)
    assert isinstance(loaded, BaseCodec)
    assert loaded.config == short.config
    assert loaded.tokenizer_id == short.tokenizer_id != base.tokenizer_id
    assert loaded.model.startswith("tiny-tanh-24320-")
    for name, value in short.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    codes = loaded.encode(noise(30_000), RATE)
    assert torch.equal(loaded.decode(codes), short.decode(codes))


def test_one_quality_and_one_decoder(weights: Path) -> None:
    with pytest.raises(InputError, match="one quality and one decoder"):
        melcap.load(weights, quality="fast")
    with pytest.raises(InputError, match="one quality and one decoder"):
        melcap.load(weights, decoder=weights)
    with pytest.raises(WeightsError, match="cannot be exchanged"):
        melcap.load(decoder=weights)


def test_weights_of_an_architecture_that_is_not_known(base: BaseCodec) -> None:
    text = base.config.to_json().replace('"base"', '"next"')
    with pytest.raises(WeightsError, match="lite or base, not 'next'"):
        from_json(text)


@pytest.mark.parametrize(
    ("columns", "rate"),
    [*((columns, 44100) for columns in (1, 11, 12, 23, 24, 25, 50)), (1, 16000), (25, 16000)],
)
def test_files_are_coded_as_clips_are(
    weights: Path, tmp_path: Path, columns: int, rate: int
) -> None:
    """Encoder and decoder for files take pieces of 10 s, and windows here have 12 columns."""
    codec = melcap.load(weights)
    samples = (columns * UNIT - 500) * rate // RATE
    source, coded, target = (tmp_path / name for name in ("a.wav", "a.melcap", "b.wav"))
    audio.write(source, noise(2, samples, seed=columns).numpy(), rate, "FLOAT")
    wave, _ = audio.read(source)
    encode_file(source, coded, codec)
    codes = codec.encode(wave, rate)
    assert np.array_equal(melcap.Codes.load(coded).tokens.numpy(), codes.tokens.numpy())
    decode_file(coded, target, codec)
    found, found_rate = audio.read(target)
    assert found_rate == rate
    assert found.shape == (2, samples)
    assert np.abs(found - codec.decode(codes).numpy()).max() <= 2**-15 + CLOSE


@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=4), st.sampled_from([44100, 48000]))
@settings(max_examples=examples(6))
@example([1], 44100)
@example([0, 12 * UNIT, 24 * UNIT, 0, 1], 44100)
@example([30_000, 29_999, 7, 30_000], 48000)
def test_pieces_of_any_size(weights: Path, sizes: list[int], rate: int) -> None:
    codec = melcap.load(weights)
    assert isinstance(codec, BaseCodec)
    total = max(1, sum(sizes))
    wave = noise(2, total)
    encoder = WindowedEncoder(codec, rate, 2)
    tokens = [encoder.push(piece) for piece in wave.split([*sizes, total - sum(sizes)], dim=1)]
    found = torch.cat([*tokens, encoder.flush()], dim=-1)
    codes = codec.encode(wave, rate)
    assert torch.equal(found, codes.tokens)
    decoder = WindowedDecoder(codec, rate, 2)
    parts = [decoder.push(piece) for piece in found.split(7, dim=-1)]
    joined = torch.cat([*parts, decoder.flush(total)], dim=-1)
    assert joined.shape == wave.shape
    assert (joined - codec.decode(codes)).abs().max() <= CLOSE


def test_the_commands(weights: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.wav"
    audio.write(source, noise(1, 90_000).numpy(), RATE)
    for words in (["encode", source], ["decode", tmp_path / "a.melcap", "-o", tmp_path / "b.wav"]):
        done = CliRunner().invoke(app, [*map(str, words), "--weights", str(weights), "--json"])
        assert done.exit_code == 0, done.output
    assert audio.read(tmp_path / "b.wav")[0].shape == (1, 90_000)
    done = CliRunner().invoke(app, ["info", str(weights), "--json"])
    assert json.loads(done.stdout)["window_columns"] == 12
    assert "published MelCap, tanh" in CliRunner().invoke(app, ["info", str(weights)]).stdout


def test_streams_and_graphs_are_refused(base: BaseCodec, tmp_path: Path) -> None:
    for stream in (melcap.StreamEncoder, melcap.StreamDecoder):
        with pytest.raises(InputError, match="a stream cannot work with"):
            stream(base)
    with pytest.raises(InputError, match="CUDA graphs cannot work with"):
        base.use_graphs()
    with pytest.raises(InputError, match="a decoder alone cannot work with"):
        save_decoder(base, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_the_export_to_onnx_is_refused(base: BaseCodec, tmp_path: Path) -> None:
    from melcap.onnx import export

    with pytest.raises(InputError, match="the export to ONNX cannot work with"):
        export(base, tmp_path)
    assert not list(tmp_path.iterdir())
