"""Clips are read again after a process died; only what kills the next process too is bad."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from melcap.audio import write
from melcap.bulk.manifests.entries import Entry
from melcap.bulk.reading import pool
from melcap.bulk.reading.messages import Bad, End, Message, Window
from melcap.bulk.reading.pool import ReaderPool
from melcap.bulk.reading.windows import Framing
from tests.bulk.deadly import serve_badly
from tests.bulk.helpers import wave

FRAMING = Framing(rate=11025, column=256, columns=4, left=100, right=50)


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELCAP_TEST_FLAG", str(tmp_path))
    monkeypatch.setattr(pool, "serve", serve_badly)
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.wav", wave(1.0), 44100)
    return tmp_path


def ends(entries: list[Entry]) -> tuple[dict[int, Message], Counter[tuple[int, int]]]:
    """Return the last message of each clip, and how often each of its windows came."""
    found: dict[int, Message] = {}
    windows: Counter[tuple[int, int]] = Counter()
    with ReaderPool(1, FRAMING, mono=False) as processes:
        for message in processes.read(iter(enumerate(entries))):
            if isinstance(message, Window):
                windows[message.clip, message.index] += 1
            else:
                assert message.clip not in found
                found[message.clip] = message
    return found, windows


@pytest.mark.slow
def test_a_clip_that_was_killed_once_is_read_again(deadly: Path) -> None:
    names = ("a", "deadly once", "c")
    entries = [Entry(name, f"{deadly}/{file}.wav") for name, file in zip(names, "abc", strict=True)]
    found, windows = ends(entries)
    assert all(isinstance(end, End) for end in found.values())
    assert sorted(found) == [0, 1, 2]
    assert set(windows.values()) == {1}
    assert len(windows) == sum(end.windows for end in found.values() if isinstance(end, End))


@pytest.mark.slow
def test_a_clip_that_kills_every_process_is_bad_and_named(deadly: Path) -> None:
    names = ("a", "deadly", "c")
    entries = [Entry(name, f"{deadly}/{file}.wav") for name, file in zip(names, "abc", strict=True)]
    found, _ = ends(entries)
    bad = found[1]
    assert isinstance(bad, Bad)
    assert (
        bad.reason == f"{deadly}/b.wav cannot be read: two processes that read it died (signal 9)"
    )
    assert isinstance(found[0], End)
    assert isinstance(found[2], End)


@pytest.mark.slow
def test_what_lies_before_it_in_its_file_is_good_and_what_follows_is_bad(deadly: Path) -> None:
    spans = [("first", 0.0), ("deadly", 0.3), ("after", 0.6)]
    entries = [Entry(name, f"{deadly}/a.wav", start=start, seconds=0.3) for name, start in spans]
    found, windows = ends([*entries, Entry("other", f"{deadly}/b.wav")])
    assert [type(found[number]) for number in range(4)] == [End, Bad, Bad, End]
    assert set(windows.values()) == {1}


@pytest.mark.slow
def test_other_rows_of_its_group_are_good(deadly: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    sound = (deadly / "a.wav").read_bytes()
    pq.write_table(pa.table({"audio": [sound] * 3}), deadly / "x.parquet")
    entries = [
        Entry(name, f"{deadly}/x.parquet", offset=row, member="audio", row_group=0)
        for row, name in enumerate(("a", "deadly", "c"))
    ]
    found, _ = ends(entries)
    assert [type(found[number]) for number in range(3)] == [End, Bad, End]
