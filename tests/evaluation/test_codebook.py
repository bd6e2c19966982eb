"""Usage and entropy of a codebook: of known streams, of pooled counts, and of whole data sets."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from typer.testing import CliRunner

from melcap import audio
from melcap.codec import Codec
from melcap.errors import InputError
from melcap.evaluation.measures import codebook
from melcap.evaluation.measures.codebook import CodebookStatistics, codebook_statistics
from melcap.training.data import build_cache

RATE = 44100
SIZE = 300
streams = arrays.arrays(np.int32, st.integers(1, 400), elements=st.integers(0, SIZE - 1))


def test_codebook_statistics_of_known_streams() -> None:
    every = codebook_statistics(np.arange(8192).reshape(2, 4, -1), 8192)
    assert every == CodebookStatistics(1.0, pytest.approx(13), 8192)
    assert codebook_statistics(np.full(100, 7), 8192) == (
        CodebookStatistics(1 / 8192, pytest.approx(0), 100)
    )
    uneven = codebook_statistics(np.array([0, 0, 0, 1]), 4)
    assert uneven == CodebookStatistics(0.5, pytest.approx(2 - 0.75 * math.log2(3)), 4)
    for tokens in (np.array([4]), np.array([-1]), np.array([], dtype=np.int64)):
        with pytest.raises(InputError, match=r"0\.\.3"):
            codebook_statistics(tokens, 4)


@given(streams, streams)
def test_counts_add_up_and_survive_packing(one: Any, other: Any) -> None:
    counts = [codebook.count_tokens(tokens, SIZE) for tokens in (one, other)]
    packed = [codebook.pack_counts(count) for count in counts]
    assert all(text.isascii() and "\n" not in text for text in packed)
    total = sum(codebook.unpack_counts(text) for text in packed)
    together = np.concatenate((one, other))
    assert codebook.statistics_of(total) == codebook_statistics(together, SIZE)
    assert codebook.statistics_of(total).entropy <= math.log2(min(SIZE, len(together))) + 1e-9


def test_ten_seconds_are_packed_in_a_few_kilobytes() -> None:
    tokens = np.random.default_rng(0).integers(0, 8192, 2580)
    assert len(codebook.pack_counts(codebook.count_tokens(tokens, 8192))) < 3000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seed in (("speech/a_1", 1), ("speech/b_1", 2), ("music/a_1", 3)):
        path = tmp_path / "data" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.1 * np.random.default_rng(seed).standard_normal((1, 20000 + 3000 * seed))
        audio.write(path, wave.astype(np.float32), RATE)
    return tmp_path / "data"


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(codebook.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_folder_is_counted_clip_by_clip(folder: Path, codec: Codec) -> None:
    counts = codebook.count_by_class(codec, codebook.pieces_of([folder]))
    for kind in ("speech", "music"):
        waves = [audio.read(path)[0] for path in sorted((folder / kind).iterdir())]
        tokens = [codec.encode(wave, RATE).tokens.numpy().reshape(-1) for wave in waves]
        expected = codebook.count_tokens(np.concatenate(tokens), SIZE)
        assert (counts[kind] == expected).all()


def test_a_training_cache_is_counted_whole(folder: Path, tmp_path: Path, codec: Codec) -> None:
    cache = build_cache([folder], tmp_path / "cache", workers=1)
    counts = codebook.count_by_class(codec, codebook.pieces_of([cache, folder]))
    for kind, lengths in (("speech", (23000, 26000)), ("music", (29000,))):
        columns = sum(-(-length // codec.config.column_samples) for length in lengths)
        assert counts[kind].sum() == 2 * 3 * columns
    # The cache has the audio of the folder to 16 bits: most tokens are met in both.
    apart = codebook.count_by_class(codec, codebook.pieces_of([folder]))
    differences = np.abs(sum(counts.values()) - 2 * sum(apart.values())).sum()
    assert differences < 0.1 * sum(counts.values()).sum()


def test_the_command_prints_classes_and_all(folder: Path, small_weights: Path) -> None:
    done = run(folder, "--weights", small_weights, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    lines = printed["classes"]
    assert list(lines) == ["music", "speech", "all"]
    assert lines["all"]["tokens"] == lines["music"]["tokens"] + lines["speech"]["tokens"]
    table = run(folder, "--weights", small_weights).stdout.splitlines()
    assert table[-1] == (
        f"| all | {lines['all']['tokens']} | {lines['all']['usage']:.2%} | "
        f"{lines['all']['entropy']:.3f} |"
    )
    some = json.loads(run(folder, "--weights", small_weights, "--clips", 2, "--json").stdout)
    assert (printed["clips"], some["clips"]) == (3, 2)


def test_data_that_holds_nothing_is_refused_in_a_sentence(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "no audio file" in done.stderr
    with pytest.raises(InputError, match="does not exist"):
        codebook.pieces_of([tmp_path / "gone"])
