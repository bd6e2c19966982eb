"""The plan and the results in a journal: shards, new clips, refusals, and a full disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melcap.bulk.manifests.entries import Entry, PassedOver, Unlisted
from melcap.bulk.token_sets.journal import NAME, Journal
from melcap.bulk.token_sets.plan import file_of
from melcap.errors import InputError, MelcapError

SETTINGS: dict[str, Any] = {"tokenizer_id": "00", "mono": False}


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


def test_a_plan_that_fails_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    def found() -> Iterator[Entry]:
        yield from clips(1, 2)
        raise InputError("a manifest that cannot be read")

    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(0), 2)
        with pytest.raises(InputError, match="a manifest"):
            journal.plan(found(), 2)
        assert [entry.id for _, entry in journal.waiting()] == ["clip0"]
        assert journal.counts().clips == 1


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


@pytest.mark.slow
@given(
    runs=st.lists(st.sets(st.integers(0, 12), max_size=8), min_size=1, max_size=4),
    shard_clips=st.integers(1, 4),
)
def test_every_clip_is_in_one_shard(
    tmp_path_factory: pytest.TempPathFactory, runs: list[set[int]], shard_clips: int
) -> None:
    """This holds whatever each run finds, even if everything is done after each."""
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


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (Entry("clip0", "/other.wav"), "/audio/0.wav and /other.wav would both have the id clip0"),
        (Entry("clip0", "/audio/0.wav", start=1, seconds=2), "/audio/0.wav and /audio/0.wav#t=1,3"),
        (
            Entry("clip0", "/audio/0.wav", kept=("x",)),
            "listed twice, with different values to keep",
        ),
    ],
)
def test_one_id_for_two_clips_costs_the_second(tmp_path: Path, second: Entry, reason: str) -> None:
    """This holds in any run and for any state of the first clip; the others go on."""
    for _ in range(2):
        with Journal(tmp_path, SETTINGS) as journal:
            journal.plan([*clips(0), second, *clips(1)], 2)
            assert [entry for _, entry in journal.waiting()] == clips(0, 1)
            (bad,) = journal.bad()
            assert (bad["id"], bad["source"]) == ("clip0", second.source)
            assert reason in bad["reason"]
            assert (journal.counts().clips, journal.counts().bad) == (3, 1)
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan([*clips(0), *clips(1)], 2)
        assert list(journal.bad()) == []


def test_a_member_that_is_twice_in_a_tar_costs_the_second(tmp_path: Path) -> None:
    members = [Entry("x.tar/a.wav", "/x.tar", at, 10, "a.wav") for at in (512, 2048)]
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(members, 2)
        assert [entry for _, entry in journal.waiting()] == members[:1]
        (bad,) = journal.bad()
        assert bad["reason"] == "/x.tar/a.wav occurs more than once; the first one is taken"


def test_a_clip_without_tokens_may_move(tmp_path: Path) -> None:
    """After a correction of the manifest, a clip is read from its new place."""
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(0, 1), 2)
        journal.fail(1, "No such file")
        journal.plan([Entry("clip0", "/there.wav"), Entry("clip1", "/too.wav", kept=("x",))], 2)
        assert [entry.path for _, entry in journal.waiting()] == ["/there.wav", "/too.wav"]
        assert [entry.kept for _, entry in journal.waiting()] == [(), ("x",)]
        assert list(journal.bad()) == []
        assert journal.ready_shards() == []


def test_a_clip_with_tokens_stays_what_it_is(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(0), 2)
        journal.finish(1, 44100, 1, 1, tokens(0))
        journal.plan([Entry("clip0", "/other.wav")], 2)
        (bad,) = journal.bad()
        assert "/audio/0.wav and /other.wav would both have the id clip0" in bad["reason"]
        journal.plan([Entry("clip0", "/audio/0.wav", kept=("x",))], 2)
        (bad,) = journal.bad()
        assert "has changed since its tokens were made: its values to keep differ" in bad["reason"]
        assert (journal.counts().done, journal.counts().changed) == (1, 1)


def test_a_source_that_changed_is_named(tmp_path: Path) -> None:
    """Its size and time decide, if it has tokens; a clip that waits is read as it is."""
    source = tmp_path / "a.wav"
    source.write_bytes(b"1")
    entry = Entry("a", str(source))
    with Journal(tmp_path / "out", SETTINGS) as journal:
        journal.plan([entry], 2)
        source.write_bytes(b"12")
        journal.plan([entry], 2)
        journal.finish(1, 44100, 1, 1, tokens(0))
        journal.plan([entry], 2)
        assert list(journal.bad()) == []
        for change in (lambda: source.write_bytes(b"123"), lambda: os.utime(source, (5, 5))):
            change()
            journal.plan([entry], 2)
            (bad,) = journal.bad()
            assert bad["id"] == "a"
            assert f"{source} has changed since its tokens were made" in bad["reason"]
            assert journal.counts().changed == 1
            journal._db.execute(
                "UPDATE clips SET file_size = ?, file_time = ?", file_of(str(source))
            )


@pytest.mark.parametrize(
    ("ids", "bad"),
    [
        (["a", "b"], []),
        (["a", "A"], ["A"]),
        (["stra\u00dfe", "STRASSE"], ["STRASSE"]),
        (["caf\u00e9", "cafe\u0301"], ["cafe\u0301"]),
        (["a", "a.melcap/b"], ["a.melcap/b"]),
        (["a.melcap/b", "a"], ["a"]),
        (["a.melcap/b", "a.MELCAP/c", "a"], ["a"]),
        (["x" * 248], []),
        (["x" * 249, "ok"], ["x" * 249]),
        (["\u00e9" * 125, "ok"], ["\u00e9" * 125]),
        (["f" * 256 + "/a", "ok"], ["f" * 256 + "/a"]),
        (["/".join(["d" * 200] * 20), "ok"], ["/".join(["d" * 200] * 20)]),
        ([".hidden", "a/.b", "a\0b", "ok"], [".hidden", "a/.b", "a\0b"]),
    ],
)
def test_two_ids_never_share_a_file(tmp_path: Path, ids: list[str], bad: list[str]) -> None:
    """Nor are ids taken that no file can have. Both hold only where clips have their own files."""
    found = [Entry(id, f"/{number}.wav") for number, id in enumerate(ids)]
    for _ in range(2):
        with Journal(tmp_path, {**SETTINGS, "format": "melcap"}) as journal:
            journal.plan(found, 2)
            assert [error["id"] for error in journal.bad()] == bad
            assert [entry.id for _, entry in journal.waiting()] == [
                id for id in ids if id not in bad
            ]
    with Journal(tmp_path / "parquet", {**SETTINGS, "format": "parquet"}) as journal:
        journal.plan(found, 2)
        assert list(journal.bad()) == []


def test_the_file_of_a_clip_that_is_gone_is_free(tmp_path: Path) -> None:
    with Journal(tmp_path, {**SETTINGS, "format": "melcap"}) as journal:
        journal.plan([Entry("a", "/a.wav")], 2)
        journal.fail(1, "bad")
        journal.plan([], 2)
        journal.plan([Entry("A", "/b.wav")], 2)
        assert list(journal.bad()) == []
        assert [entry.id for _, entry in journal.waiting()] == ["A"]


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        passed = journal.plan([PassedOver(".txt", 2), *clips(0), PassedOver(".txt")], 2)
        assert passed == {".txt": 3}
        assert journal.counts().clips == 1


def test_the_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal._db.execute(
            "UPDATE settings SET text = replace(text, '\"journal\": 3', '\"a\": 1')"
        )
    with pytest.raises(InputError, match="made with journal None, and this run has journal 3"):
        Journal(tmp_path, SETTINGS)


def test_other_settings_are_refused_where_there_are_clips(tmp_path: Path) -> None:
    with Journal(tmp_path, {**SETTINGS, "mono": "begun, and refused"}):
        pass
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(0), 2)
    with pytest.raises(InputError, match=r"made with mono False, and this run has mono True"):
        Journal(tmp_path, {**SETTINGS, "mono": True})
    with Journal(tmp_path, SETTINGS):
        pass


@pytest.mark.slow
def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS):
        with pytest.raises(MelcapError, match="another run is at work"):
            Journal(tmp_path, SETTINGS)


def test_bad_clips_are_listed_and_can_be_tried_again(tmp_path: Path) -> None:
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


def test_bad_clips_that_are_gone_are_deleted(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(0, 1, 2), 2)
        journal.fail(1, "bad")
        journal.fail(2, "bad")
        journal.finish(3, 44100, 1, 1, tokens(0))
        journal.plan(clips(1), 2)
        assert [error["id"] for error in journal.bad()] == ["clip1"]
        counts = journal.counts()
        assert (counts.clips, counts.done, counts.bad) == (2, 1, 1)


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    with Journal(tmp_path, SETTINGS) as journal:
        journal.plan(clips(*range(10)), 2)
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(MelcapError, match="the disk is full; free some space"):
            journal.finish(1, 44100, 1, 1, bytes(50000))
        journal._db.execute("PRAGMA max_page_count = 100000")
    with Journal(tmp_path, SETTINGS) as journal:
        assert journal.counts().clips == 10


def test_a_file_that_is_not_a_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("something else " * 100)
    with pytest.raises(MelcapError, match="is damaged, or is not a journal"):
        Journal(tmp_path, SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(MelcapError, match=r"file.* cannot hold the tokens: File exists"):
        Journal(tmp_path / "file", SETTINGS)
    with pytest.raises(MelcapError, match="Not a directory"):
        Journal(tmp_path / "file" / "below", SETTINGS)
