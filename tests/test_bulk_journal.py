"""The plan and what became of it: shards, new clips, refusals, and a full disk.

Seen red with: a plan kept that was refused half-way; one id for two clips; new clips put into the
last shard; settings not compared; a shard ready while a clip of it waits; no lock; bad clips not
tried again; shards not marked as written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melcap.bulk.journal import NAME, Journal
from melcap.bulk.sources import Entry, Unlisted
from melcap.errors import InputError, MelcapError

SETTINGS: dict[str, Any] = {"model": "small-00", "mono": False}


def clips(*numbers: int) -> list[Entry]:
    return [Entry(f"clip{number}", f"/audio/{number}.wav") for number in numbers]


def tokens(*values: int) -> bytes:
    return np.array(values, "<u2").tobytes()


def test_a_plan_outlives_its_run(tmp_path: Path) -> None:
    with Journal(tmp_path / "deep" / "out", SETTINGS) as journal:
        journal.plan(clips(*range(5)), 2)
        journal.finish(1, 44100, 1, 10, tokens(1, 2))
        journal.fail(2, "is no audio.")
        assert journal.ready_shards() == [0]
    with Journal(tmp_path / "deep" / "out", SETTINGS) as journal:
        journal.plan(clips(*range(5)), 2)
        assert [(number, entry.id) for number, entry in journal.waiting()] == [
            (3, "clip2"),
            (4, "clip3"),
            (5, "clip4"),
        ]


def test_what_is_finished_is_kept_until_its_shard_is_written(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(*range(3)), 2)
        journal.finish(2, 8000, 2, 20, tokens(3, 4))
        assert journal.ready_shards() == []
        journal.finish(1, 44100, 1, 10, tokens(1, 2))
        assert journal.ready_shards() == [0]
    with Journal(tmp_path, SETTINGS) as journal:
        first, second = journal.finished(0)
        assert (first.entry.id, second.entry.id) == ("clip0", "clip1")
        assert (second.sample_rate, second.channels, second.samples) == (8000, 2, 20)
        assert (first.tokens.tolist(), second.tokens.tolist()) == ([1, 2], [3, 4])
        journal.written(0)
        assert journal.ready_shards() == []
        counts = journal.counts()
        assert (counts.clips, counts.done, counts.bad, counts.unlisted) == (3, 2, 0, 0)


@given(
    runs=st.lists(st.sets(st.integers(0, 12), max_size=8), min_size=1, max_size=4),
    shard_clips=st.integers(1, 4),
)
def test_every_clip_is_in_one_shard(
    tmp_path_factory: pytest.TempPathFactory, runs: list[set[int]], shard_clips: int
) -> None:
    """Whatever is found in whichever run, and though everything is done after each."""
    folder = tmp_path_factory.mktemp("journal")
    written: list[list[str]] = []
    for found in runs:
        with Journal(folder, SETTINGS) as journal:
            journal.plan(clips(*sorted(found)), shard_clips)
            for number, _ in list(journal.waiting()):
                journal.finish(number, 44100, 1, 1, tokens(number))
            for shard in journal.ready_shards():
                assert shard == len(written)
                written.append([clip.entry.id for clip in journal.finished(shard)])
                journal.written(shard)
    assert all(1 <= len(each) <= shard_clips for each in written)
    everything = [clip for each in written for clip in each]
    assert sorted(everything) == sorted(f"clip{number}" for number in set().union(*runs))


def test_one_id_for_two_clips_is_refused_and_nothing_planned(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(0), 2)
        with pytest.raises(InputError, match=r"/audio/1.wav and /other.wav would both be .*clip1"):
            journal.plan([*clips(1), Entry("clip1", "/other.wav")], 2)
        with pytest.raises(InputError, match="clip0"):
            journal.plan([Entry("clip0", "/audio/0.wav", 512, 10, "x")], 2)
        with pytest.raises(InputError, match=r"/audio/0.wav and /audio/0.wav#t=1,3 would"):
            journal.plan([Entry("clip0", "/audio/0.wav", start=1, seconds=2)], 2)
    with Journal(tmp_path, SETTINGS) as journal:
        assert [entry.id for _, entry in journal.waiting()] == ["clip0"]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS):
        pass
    with pytest.raises(InputError, match=r"made with mono False, and this run has mono True"):
        Journal(tmp_path, {**SETTINGS, "mono": True})
    with Journal(tmp_path, SETTINGS):
        pass


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS):
        with pytest.raises(MelcapError, match="another run is at work"):
            Journal(tmp_path, SETTINGS)


def test_what_is_bad_is_said_and_can_be_tried_again(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan([*clips(0, 1, 2), Unlisted("/locked", "cannot be searched")], 2)
        for number, _ in list(journal.waiting()):
            journal.fail(number, f"bad {number}") if number != 2 else None
        assert list(journal.bad()) == [
            {"id": "", "source": "/locked", "reason": "cannot be searched"},
            {"id": "clip0", "source": "/audio/0.wav", "reason": "bad 1"},
            {"id": "clip2", "source": "/audio/2.wav", "reason": "bad 3"},
        ]
        assert (journal.counts().bad, journal.counts().unlisted) == (2, 1)
        journal.finish(2, 44100, 1, 1, tokens(0))
        for shard in journal.ready_shards():
            journal.written(shard)
        journal.retry(2)
        assert [number for number, _ in journal.waiting()] == [1, 3]
        for number in (1, 3):
            journal.finish(number, 44100, 1, 1, tokens(0))
        (shard,) = journal.ready_shards()
        assert shard == 2
        assert [clip.number for clip in journal.finished(shard)] == [1, 3]
        journal.plan(clips(0, 1, 2), 2)
        assert list(journal.bad()) == []


def test_what_is_bad_and_gone_is_struck_out(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(0, 1, 2), 2)
        journal.fail(1, "bad")
        journal.fail(2, "bad")
        journal.finish(3, 44100, 1, 1, tokens(0))
        journal.plan(clips(1), 2)
        assert [error["id"] for error in journal.bad()] == ["clip1"]
        counts = journal.counts()
        assert (counts.clips, counts.done, counts.bad) == (2, 1, 1)


def test_a_full_disk_is_said_in_a_sentence(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(*range(10)), 2)
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(MelcapError, match="the disk is full; make room"):
            journal.finish(1, 44100, 1, 1, bytes(50000))
        journal._db.execute("PRAGMA max_page_count = 100000")
    with Journal(tmp_path, SETTINGS) as journal:
        assert journal.counts().clips == 10


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("something else " * 100)
    with pytest.raises(MelcapError, match="damaged, or not a journal"):
        Journal(tmp_path, SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(MelcapError, match=r"file.* cannot hold the tokens: File exists"):
        Journal(tmp_path / "file", SETTINGS)
    with pytest.raises(MelcapError, match="Not a directory"):
        Journal(tmp_path / "file" / "below", SETTINGS)
