"""Windows in any batch give the tokens of the whole clip, and batches lose none."""

from __future__ import annotations

import threading

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from melcap import Codec
from melcap.audio_codec import AudioCodec
from melcap.bulk.encoding.batches import Batcher
from melcap.bulk.encoding.encode import encode_windows
from melcap.bulk.reading.messages import Window
from melcap.bulk.reading.windows import Framing, WindowCutter
from tests.bulk.helpers import wave
from tests.helpers import chunks_of, count_ties, examples


def cut(clip: np.ndarray, framing: Framing, cuts: list[int]) -> list[np.ndarray]:
    """Return the windows of a clip [channels, samples] that arrives in blocks."""
    cutter = WindowCutter(framing, len(clip))
    windows = []
    for block in np.split(clip, sorted(min(at, clip.shape[1]) for at in cuts), axis=1):
        windows += list(cutter.push(block))
    return [*windows, *cutter.flush()]


def tokens_of_windows(codec: AudioCodec, framing: Framing, windows: list[np.ndarray]) -> Tensor:
    """Return the tokens [channels, rows, columns] of a clip's windows, each encoded by itself."""
    found = []
    for index, window in enumerate(windows):
        count = (window.shape[1] - framing.samples(0)) // framing.column
        for channel, samples in enumerate(window):
            (encoded,) = encode_windows(codec, [Window(0, channel, index, count, samples)])
            found.append(encoded.tokens.reshape(count, -1).T.astype(np.int32))
    channels = len(windows[0])
    by_channel = [np.concatenate(found[at::channels], axis=1) for at in range(channels)]
    return torch.from_numpy(np.stack(by_channel))


@settings(max_examples=examples(40))
@given(
    samples=st.one_of(st.integers(1, 12_000), st.integers(1, 11).map(lambda n: n * 1024)),
    columns=st.integers(1, 5),
    cuts=st.lists(st.integers(0, 12_000), max_size=5),
    channels=st.integers(1, 2),
)
def test_windows_give_the_tokens_of_the_clip(
    codec: Codec, samples: int, columns: int, cuts: list[int], channels: int
) -> None:
    clip = wave(samples / 44100, channels=channels, seed=samples)
    with chunks_of(codec, columns):
        framing = Framing.of(codec)
        expected = codec.encode(clip, 44100).tokens
    windows = cut(clip, framing, cuts)
    assert len(windows) == -(-codec.columns(samples) // columns)
    assert torch.equal(tokens_of_windows(codec, framing, windows), expected)


@settings(max_examples=examples(20))
@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_batch_gives_what_its_clips_give(codec: Codec, lengths: list[int], seed: int) -> None:
    framing = Framing.of(codec)
    clips = [wave(length / 44100, seed=seed + at) for at, length in enumerate(lengths)]
    columns = [codec.columns(length) for length in lengths]
    windows = [
        Window(7, at, at + 1, columns[at], cut(clip, framing, [])[0][0])
        for at, clip in enumerate(clips)
    ]
    for at, encoded in enumerate(encode_windows(codec, windows)):
        assert (encoded.clip, encoded.channel, encoded.index) == (7, at, at + 1)
        grid = encoded.tokens.reshape(columns[at], -1).T.astype(np.int32)
        clip = torch.from_numpy(clips[at][0])
        count_ties(codec, clip, codec.encode(clip, 44100).tokens, torch.from_numpy(grid))


def windows_of(lengths: list[int]) -> list[Window]:
    return [Window(at, 0, 0, 1, np.zeros(length, np.float32)) for at, length in enumerate(lengths)]


@given(
    lengths=st.lists(st.integers(1, 50), max_size=30),
    batch=st.integers(0, 120),
    room=st.integers(0, 200),
    one_length=st.booleans(),
)
def test_every_window_is_in_one_batch(
    lengths: list[int], batch: int, room: int, one_length: bool
) -> None:
    batcher = Batcher(batch, room, one_length=one_length)
    given_out: list[list[Window]] = []

    def take() -> None:
        while taken := batcher.take():
            given_out.append(taken)

    def put() -> None:
        for window in windows_of(lengths):
            batcher.put(window)
        batcher.close()

    threads = [threading.Thread(target=each, daemon=True) for each in (take, put)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert sorted(window.clip for taken in given_out for window in taken) == list(
        range(len(lengths))
    )
    for taken in given_out:
        longest = max(len(window.samples) for window in taken)
        assert len(taken) == 1 or len(taken) * longest <= batch
        assert not one_length or len({len(window.samples) for window in taken}) == 1


def test_a_batch_has_the_oldest_window_and_those_of_like_length() -> None:
    batcher = Batcher(30, 1000)
    for window in windows_of([10, 100, 11, 9, 50, 10]):
        batcher.put(window)
    assert sorted(window.clip for window in batcher.take()) == [0, 5]
    assert [window.clip for window in batcher.take()] == [1]


def test_put_waits_while_the_queue_is_full_and_not_after_the_end() -> None:
    batcher = Batcher(10, 20)
    for window in windows_of([10, 10]):
        batcher.put(window)
    thread = threading.Thread(target=batcher.put, args=(windows_of([10])[0],), daemon=True)
    thread.start()
    thread.join(timeout=0.2)
    assert thread.is_alive()
    batcher.close(discard=True)
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert batcher.take() == []
