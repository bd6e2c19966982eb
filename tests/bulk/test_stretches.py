"""Neighbouring stretches of a file come from one pass, with the windows that each has alone."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melcap.bulk.manifests.entries import Entry
from melcap.bulk.reading import decoding
from melcap.bulk.reading.decoding import read_task
from melcap.bulk.reading.messages import Bad, End, Message, Window
from melcap.bulk.reading.tasks import Task, tasks
from melcap.bulk.reading.windows import Framing
from tests.bulk.helpers import wave
from tests.helpers import examples

FRAMING = Framing(rate=11025, column=256, columns=4, left=100, right=50)
RATE = 22050
SECONDS = 12.0
FORMS = {"wav": ("WAV", "FLOAT"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stretches")
    sound = wave(SECONDS, RATE, channels=2, seed=3).T
    for suffix, (kind, subtype) in FORMS.items():
        soundfile.write(folder / f"whole.{suffix}", sound, RATE, format=kind, subtype=subtype)
    spoilt = sound.copy()
    spoilt[round(5.1 * RATE)] = np.nan
    soundfile.write(folder / "nan.wav", spoilt, RATE, format="WAV", subtype="FLOAT")
    whole = bytearray((folder / "whole.flac").read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 400] = bytes(400)
    (folder / "damaged.flac").write_bytes(whole)
    return folder


def stretches(path: Path, *spans: tuple[float, float]) -> Task:
    return [
        (number, Entry(f"{number}", str(path), start=start, seconds=seconds))
        for number, (start, seconds) in enumerate(spans)
    ]


def of_each(messages: list[Message]) -> dict[int, list[object]]:
    """Return the messages of each clip, in order, in a form that can be compared."""
    said: dict[int, list[object]] = defaultdict(list)
    for message in messages:
        if isinstance(message, Window):
            at = (message.channel, message.index, message.columns)
            said[message.clip].append((*at, message.samples.tobytes()))
        else:
            said[message.clip].append(message)
    return dict(said)


def together(task: Task) -> dict[int, list[object]]:
    return of_each(list(read_task(task, FRAMING, False)))


def alone(task: Task) -> dict[int, list[object]]:
    return of_each([m for clip in task for m in read_task([clip], FRAMING, False)])


spans = st.lists(
    st.tuples(st.floats(0, SECONDS + 1), st.one_of(st.just(-1.0), st.floats(0.01, 7))),
    min_size=2,
    max_size=7,
).map(sorted)


@pytest.mark.slow
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans=spans, name=st.sampled_from([f"whole.{suffix}" for suffix in FORMS]))
def test_each_has_the_windows_that_it_has_alone(
    folder: Path, spans: list[tuple[float, float]], name: str
) -> None:
    task = stretches(folder / name, *spans)
    assert together(task) == alone(task)


@pytest.mark.parametrize(
    ("name", "undamaged"), [("nan.wav", "whole.wav"), ("damaged.flac", "whole.flac")]
)
@pytest.mark.parametrize(
    "spans",
    [
        [(0.5, 1.0), (2.0, 1.0), (4.9, 0.15), (5.0, 1.0), (6.5, 1.0), (8.0, 1.0), (10.0, -1.0)],
        [(0.0, -1.0), (1.0, 1.0), (4.5, 3.0), (5.2, 0.3), (7.0, 9.0)],
    ],
)
def test_damage_costs_no_more_than_alone(
    folder: Path, name: str, undamaged: str, spans: list[tuple[float, float]]
) -> None:
    """Clips that are good alone are good together and right, and no window is given twice."""
    by_itself = alone(stretches(folder / name, *spans))
    right = alone(stretches(folder / undamaged, *spans))
    found = together(stretches(folder / name, *spans))
    for clip, messages in found.items():
        if isinstance(messages[-1], End):
            assert messages == right[clip]
        else:
            assert messages[-1] == by_itself[clip][-1]
            assert len(set(messages)) == len(messages)
    ends = [isinstance(messages[-1], End) for messages in found.values()]
    assert any(ends)
    assert not all(ends)


def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    readers: list[object] = []

    class Counting(decoding.AudioReader):
        def __init__(self, path: Path) -> None:
            readers.append(path)
            super().__init__(path)

    monkeypatch.setattr(decoding, "AudioReader", Counting)
    return readers


def test_a_file_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = opened(monkeypatch)
    clips = stretches(folder / "whole.ogg", *((at / 20, 0.05) for at in range(200)))
    (task,) = tasks(clips)
    assert sum(isinstance(message, End) for message in read_task(task, FRAMING, False)) == 200
    assert len(readers) == 1


def test_damage_before_all_that_follow_is_met_three_times(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is met once together and twice alone; then all that follow are bad for the same reason."""
    (folder / "cut.mp3").write_bytes(b"no audio at all " * 100)
    readers = opened(monkeypatch)
    task = stretches(folder / "cut.mp3", *((at / 10, 0.1) for at in range(100)))
    messages = list(read_task(task, FRAMING, False))
    assert len(readers) == 3
    reasons = {message.reason for message in messages if isinstance(message, Bad)}
    assert len(messages) == len(reasons) == 100


@pytest.mark.parametrize(("name", "expected"), [("whole.wav", 2), ("whole.ogg", 1)])
def test_a_long_gap_is_skipped_where_that_is_possible(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: int
) -> None:
    monkeypatch.setattr(decoding, "_GAP_SECONDS", 2.0)
    readers = opened(monkeypatch)
    task = stretches(folder / name, (0.0, 1.0), (1.5, 1.0), (9.0, 1.0))
    assert together(task) == alone(task)
    assert len(readers) == expected + len(task)


def entry(path: str = "/x.opus", start: float = 0.0, seconds: float = 1.0) -> Entry:
    return Entry("x", path, start=start, seconds=seconds)


@pytest.mark.parametrize(
    ("entries", "sizes"),
    [
        ([entry(start=0), entry(start=1), entry(start=2)], [3]),
        ([entry(start=0), entry(start=2), entry(start=1)], [2, 1]),
        ([entry(start=0), entry("/y.opus", 1), entry(start=2)], [1, 1, 1]),
        ([entry(start=at / 100, seconds=9) for at in range(20)], [8, 8, 4]),
        ([entry(start=0, seconds=-1) for _ in range(9)], [8, 1]),
        ([entry("/x.wav", at) for at in range(70)], [64, 6]),
        ([entry(start=at) for at in range(5000)], [4096, 904]),
        ([Entry("x", "/x.tar", at, 10, f"{at}.wav") for at in (1, 20, 40)], [1, 1, 1]),
        ([Entry("x", "/x.tar.gz", at, 10, f"{at}.wav") for at in (1, 20, 10)], [2, 1]),
        (
            [Entry("x", "/x.parquet", at, member="a", row_group=at // 2) for at in range(5)],
            [2, 2, 1],
        ),
    ],
)
def test_what_one_pass_can_read_is_one_task(entries: list[Entry], sizes: list[int]) -> None:
    numbered = list(enumerate(entries))
    found = list(tasks(numbered))
    assert [len(task) for task in found] == sizes
    assert [clip for task in found for clip in task] == numbered
