"""The memory of the command line does not grow with the length of a clip."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from melcap import pretrained
from melcap.codec import Codec
from melcap.config import CodecConfig, MelSpec, TokenizerConfig, VocoderConfig
from tests.cli.helpers import DATA, transcode_all
from tests.forks import FORKS
from tests.helpers import draw_weights

PEAK = "Linux says what a process took at most; getrusage includes what the one before it had"


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a codec that computes next to nothing."""
    config = CodecConfig(
        name="tiny",
        mel=MelSpec(n_fft=1024, hop=512, n_mels=8),
        tokenizer=TokenizerConfig(
            channels=(2, 2, 2),
            encoder_blocks=(0, 0, 0),
            decoder_blocks=(0, 0, 0),
            codebook_size=8,
            codebook_dim=2,
        ),
        vocoder=VocoderConfig(dim=4, hidden=4, blocks=1, strides=(), griffin_lim_steps=0),
    )
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    with torch.random.fork_rng():
        pretrained.save(draw_weights(Codec(config)), path)
    return path


def write_repeated(path: Path, wave: Any, seconds: int) -> None:
    """Write a wave at 44.1 kHz over and over, so many seconds of it."""
    soundfile.write(path, np.resize(wave, seconds * 44100), 44100)


def peaks(folder: Path, clips: Sequence[str], *options: object) -> list[float]:
    """Transcode clips in one process, one after the other; return its peak in MiB after each."""
    if not sys.platform.startswith("linux"):
        pytest.skip(PEAK)
    process = FORKS.Process(target=transcode_all, args=(folder, [*clips], [*map(str, options)]))
    process.start()
    process.join()
    assert process.exitcode == 0
    return [int(line) / 2**10 for line in (folder / "peaks").read_text().splitlines()]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path, tiny_weights: Path) -> None:
    """Whole, the three more minutes would be 32 MB of wave alone.

    The first minute is not counted: allocators keep what they have had, and take more the
    second time, of the same clip as well. The codec is tiny: it takes pieces as any codec does.
    """
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * 44100)
    for minutes in (1, 4):
        write_repeated(tmp_path / f"{minutes}.wav", noise, 60 * minutes)
    words = ("--force", "--weights", tiny_weights)
    _, short, long = peaks(tmp_path, ("1", "1", "4"), *words)
    assert soundfile.info(tmp_path / "4.flac").frames == 4 * 60 * 44100
    assert long - short < 16, f"{short:.0f} MiB, then {long:.0f} MiB"


@pytest.mark.slow
def test_memory_with_the_weights_that_ship(tmp_path: Path) -> None:
    """A clip of 45 s takes hardly more than one of 15 s, and both stay under 1 GB.

    Both are longer than a chunk. Computed whole, the activations would be hundreds of MB.
    """
    clip, _ = soundfile.read(DATA / "music.flac")
    for seconds in (15, 45):
        write_repeated(tmp_path / f"{seconds}.wav", clip, seconds)
    short, long = peaks(tmp_path, ("15", "45"))
    assert soundfile.info(tmp_path / "45.flac").frames == 45 * 44100
    assert long - short < 80, f"{short:.0f} MiB, then {long:.0f} MiB"
    assert long * 2**20 < 1e9
