"""Windows of any clip, encoded in any batch, are the tokens of the whole clip; packing loses none.

Seen red with: no silence behind a clip; a sample less of it before; a window more where a clip ends
with a column; a padded window not cut to its columns; a batch one window too long; the newest
window served first; `put` not waiting; `put` filling a packer that is closed.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from melcap import Codec
from melcap.bulk.encoding import encode
from melcap.bulk.packer import Packer
from melcap.bulk.reader import Window
from melcap.bulk.windows import Framing, WindowCutter
from tests.bulk.helpers import wave
from tests.helpers import chunks_of, count_ties


def cut(clip: np.ndarray, framing: Framing, cuts: list[int]) -> list[np.ndarray]:
    """The windows of [channels, samples] that arrives in blocks."""
    cutter = WindowCutter(framing, len(clip))
    windows = []
    for block in np.split(clip, sorted(min(at, clip.shape[1]) for at in cuts), axis=1):
        windows += list(cutter.push(block))
    return [*windows, *cutter.flush()]


@settings(max_examples=40)
@given(
    samples=st.one_of(st.integers(1, 12_000), st.integers(1, 11).map(lambda n: n * 1024)),
    columns=st.integers(1, 5),
    cuts=st.lists(st.integers(0, 12_000), max_size=5),
    channels=st.integers(1, 2),
)
def test_windows_are_the_clip(
    codec: Codec, samples: int, columns: int, cuts: list[int], channels: int
) -> None:
    clip = wave(samples / 44100, channels=channels, seed=samples)
    with chunks_of(codec, columns):
        framing = Framing.of(codec)
        expected = codec.encode(clip, 44100).tokens
    windows = cut(clip, framing, cuts)
    assert len(windows) == -(-codec.columns(samples) // columns)
    for channel in range(channels):
        found = []
        for index, window in enumerate(windows):
            count = (window.shape[1] - framing.samples(0)) // framing.column
            (encoded,) = encode(codec, [Window(0, channel, index, count, window[channel])])
            found.append(encoded.tokens.reshape(count, -1))
        tokens = torch.from_numpy(np.concatenate(found).T.astype(np.int32))
        assert torch.equal(tokens, expected[channel])


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_batch_gives_what_its_clips_give(codec: Codec, lengths: list[int], seed: int) -> None:
    framing = Framing.of(codec)
    clips = [wave(length / 44100, seed=seed + at) for at, length in enumerate(lengths)]
    columns = [codec.columns(length) for length in lengths]
    windows = [
        Window(7, at, at + 1, columns[at], cut(clip, framing, [])[0][0])
        for at, clip in enumerate(clips)
    ]
    for at, encoded in enumerate(encode(codec, windows)):
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
)
def test_every_window_is_packed_once(lengths: list[int], batch: int, room: int) -> None:
    packer = Packer(batch, room)
    given_out: list[list[Window]] = []

    def take() -> None:
        while taken := packer.take():
            given_out.append(taken)

    def put() -> None:
        for window in windows_of(lengths):
            packer.put(window)
        packer.close()

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


def test_a_batch_holds_the_oldest_and_its_like() -> None:
    packer = Packer(30, 1000)
    for window in windows_of([10, 100, 11, 9, 50, 10]):
        packer.put(window)
    assert sorted(window.clip for window in packer.take()) == [0, 5]
    assert [window.clip for window in packer.take()] == [1]


def test_put_waits_where_it_is_full_and_not_after_the_end() -> None:
    packer = Packer(10, 20)
    for window in windows_of([10, 10]):
        packer.put(window)
    thread = threading.Thread(target=packer.put, args=(windows_of([10])[0],), daemon=True)
    thread.start()
    thread.join(timeout=0.2)
    assert thread.is_alive()
    packer.close(discard=True)
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert packer.take() == []
