"""Small collections of audio, and what a token set of them must hold."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melcap import load
from melcap.audio import read, write
from melcap.audio_codec import AudioCodec
from melcap.bulk.token_sets.rows import TokenRow
from melcap.bulk.token_sets.shards import read_rows, token_files
from melcap.pretrained import save
from tests.model.base.published import TINY, codec_of, with_windows

Tokens = npt.NDArray[np.uint16]


def wave(seconds: float, rate: int = 44100, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Return a tone in noise, float32 [channels, samples], different for each seed."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 37 * seed) * time)
    noise = 0.1 * generator.standard_normal((channels, len(time)))
    return (tone + noise).clip(-1, 1).astype(np.float32)


def corpus(folder: Path, seconds: Sequence[float] = (0.3, 1.0, 0.05, 2.2, 12.5)) -> list[Path]:
    """Write clips of so many seconds, of several rates, channels and formats, in folders."""
    made = []
    for number, length in enumerate(seconds):
        rate, channels = (44100, 22050, 48000, 8000)[number % 4], (1, 2, 1)[number % 3]
        path = folder / "ab"[number % 2] / f"{number:03d}.{('wav', 'flac')[number % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, wave(length, rate, channels, seed=number), rate)
        made.append(path)
    return sorted(made)


def tokens_of(codec: AudioCodec, path: Path) -> Tokens:
    """Return the tokens of the codec's `encode` in the order of a row: channel after channel."""
    samples, rate = read(path)
    return np.concatenate([each.numpy() for each in codec.encode(samples, rate).flatten()])


def saved_base(path: Path, window_columns: int) -> AudioCodec:
    """Return a small codec of the published architecture whose weights are in a file."""
    save(with_windows(codec_of(TINY[0]), window_columns), path)
    return load(path)


def rows_of(folder: Path) -> list[TokenRow]:
    """Return every row of a token set, in order."""
    return [row for file in token_files(folder) for row in read_rows(file, folder)]


def ids_and_tokens(folder: Path) -> list[tuple[str, bytes]]:
    """Return what two token sets of the same clips have in common, whoever made them."""
    return sorted((row.id, row.tokens.tobytes()) for row in rows_of(folder))


def tokenize_until(sources: Path, out: Path, weights: Path, fuse: int, points: str) -> None:
    """Run `tokenize`, and kill the process and its reader at the `fuse`-th call of `points`.

    These are names of what writes something: methods of the journal, or `write_shard`.
    """
    from melcap.bulk import tokenize as run
    from melcap.bulk.reading import pool
    from melcap.bulk.token_sets.journal import Journal

    os.setsid()
    # A forked reader starts in no time, but does not notice when this process has died.
    pool.SPAWN = multiprocessing.get_context("fork")  # type: ignore[assignment]
    left = fuse

    def burn(call: Callable[..., object]) -> Callable[..., object]:
        def burning(*arguments: object) -> object:
            nonlocal left
            left -= 1
            if not left:
                os.killpg(0, signal.SIGKILL)
            return call(*arguments)

        return burning

    for name in points.split():
        owner = Journal if hasattr(Journal, name) else run
        setattr(owner, name, burn(getattr(owner, name)))
    run._TICK_SECONDS = 0.02
    options = run.Options(shard_clips=3, readers=1, encoders=1)
    run.tokenize([str(sources)], out, load(weights), options)
