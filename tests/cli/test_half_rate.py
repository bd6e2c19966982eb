"""A model of half the rate, from its training to what users do with it.

`tests/model/test_half_rate.py` has the promises of the codec itself, `tests/onnx` the exported
graphs, and `tests/kernels/test_codec.py` the kernels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import melcap
from melcap import audio
from melcap.cli.commands import app
from melcap.codec import Codec
from melcap.io import container
from melcap.lm import (
    ContextModel,
    SilenceStop,
    Vocabulary,
    apply_delay_pattern,
    initial_embedding,
    pack,
    revert_delay_pattern,
)
from melcap.training.audio_cache import AudioCache
from melcap.training.checkpoint import Checkpoint
from melcap.training.start import prepare
from tests.helpers import HALF, noise
from tests.training.helpers import cache_of_clips, train_to

pytestmark = pytest.mark.slow


def melcap_(*arguments: object) -> Result:
    """Run `melcap` with these arguments."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `clips`, the `cache` made of them, and `run`, a run of all stages."""
    made = tmp_path_factory.mktemp("half")
    cache = cache_of_clips(made)
    for settings in (
        {"stage": 1, "codec": HALF, "columns": 3, "codebook_warmup": 1},
        {"stage": 2, "from_mels": True, "codec": HALF, "columns": 3},
        {"stage": 2, "columns": 3},
        {"joint": True, "columns": 3},
    ):
        train(cache, made / "run", settings)
    return made


def train(cache: AudioCache, out: Path, settings: dict[str, Any]) -> None:
    start = prepare(out, {"warmup": 1, **settings}, None, batch=1)
    train_to(3, start.recipe, cache, start.checkpoint, start.history)


@pytest.fixture(scope="module")
def weights(folder: Path) -> Path:
    path = folder / "half.safetensors"
    melcap_("export", folder / "run", "--weights", path)
    return path


@pytest.fixture(scope="module")
def half(weights: Path) -> Codec:
    codec = melcap.load(weights)
    assert isinstance(codec, Codec)
    return codec


def test_all_stages_are_trained_at_half_the_rate(folder: Path, half: Codec) -> None:
    for name in ("stage1", "vocoder", "stage2", "joint"):
        found = Checkpoint(folder / "run" / name)
        assert (found.step, found.codec) == (3, HALF)
        assert found.config.columns == 3
    assert half.config == HALF
    assert half.frame_rate == 44100 / HALF.column_samples
    assert "3 tokens for every 2048 samples" in (folder / "half.md").read_text()


def test_files_keep_their_tokens(
    folder: Path, weights: Path, half: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed and compact files hold the same tokens, and all ways to audio give the same."""
    source, used = folder / "clips" / "music" / "music.flac", ("--weights", weights)
    melcap_("tokenize", folder / "clips", *used, "--out", tmp_path / "tokens")
    melcap_("row-tables", tmp_path / "tokens", "--out", tmp_path)
    monkeypatch.setenv("MELCAP_ROW_TABLES", str(tmp_path))
    for name, options in (("packed", ()), ("compact", ("--compact",))):
        melcap_("encode", source, *used, *options, "--out", tmp_path / f"{name}.melcap")
        melcap_("decode", tmp_path / f"{name}.melcap", *used, "--out", tmp_path / f"{name}.wav")
    melcap_("transcode", source, *used, "--out", tmp_path / "direct.wav")
    wave, rate = audio.read(source)
    codes = half.encode(torch.from_numpy(wave), rate)
    for name in ("packed", "compact"):
        header, tokens = container.read(tmp_path / f"{name}.melcap")
        assert np.array_equal(tokens, codes.tokens.numpy())
        assert (header.rows, header.columns) == (HALF.rows, codes.columns[0])
    files = [(tmp_path / f"{name}.wav").read_bytes() for name in ("packed", "compact", "direct")]
    assert files[0] == files[1] == files[2]


def test_a_collection_goes_to_tokens_and_back(
    folder: Path, weights: Path, half: Codec, tmp_path: Path
) -> None:
    melcap_("tokenize", folder / "clips", "--weights", weights, "--out", tmp_path / "tokens")
    melcap_("detokenize", tmp_path / "tokens", "--weights", weights, "--out", tmp_path / "back")
    for source in sorted((folder / "clips").rglob("*.flac")):
        (found,) = (tmp_path / "back").rglob(f"{source.stem}.*")
        wave, rate = audio.read(source)
        made, again = audio.read(found)
        assert (again, made.shape) == (rate, wave.shape)
        whole = half.decode(half.encode(torch.from_numpy(wave), rate)).clamp(-1, 1)
        assert np.abs(made - whole.numpy()).max() <= 2**-15 + 1e-4
    said = melcap_("stats", tmp_path / "tokens").stdout
    assert half.tokenizer_id in said


def test_language_models_take_its_tokens(half: Codec) -> None:
    vocabulary = Vocabulary.of(half, offset=1000, eos=2)
    clips = [half.encode(noise(1, 9000 + 5000 * n, seed=n), 44100).flatten()[0] for n in range(3)]
    blocks = list(pack(clips, vocabulary, length=4 * half.rows))
    ids = torch.stack([block.ids for block in blocks])
    numbers = torch.stack([block.documents for block in blocks])
    for number, clip in enumerate(clips):
        tokens = vocabulary.decode(ids[numbers == number])
        assert torch.equal(tokens, clip.long())
        samples = len(clip) // half.rows * HALF.column_samples
        assert half.decode_tokens(tokens).shape == (samples,)
    grid = clips[2].view(-1, half.rows).mT
    steps = apply_delay_pattern(grid, fill=-1)
    assert torch.equal(revert_delay_pattern(steps), grid)
    model = ContextModel.of(half)
    bits = model.bits_of_clip(grid)
    assert bits.shape == grid.shape
    assert bits.isfinite().all()
    continued = model.generate(grid[None], 2, generator=torch.Generator().manual_seed(0))
    assert continued.shape == (1, half.rows, grid.shape[1] + 2)
    assert initial_embedding(half, vocabulary, 16).shape == (vocabulary.size, 16)
    stop = SilenceStop(half, vocabulary, seconds=2 / half.frame_rate)
    quiet = vocabulary.encode(half.silence.repeat(2))[None]
    assert stop(quiet).all()
