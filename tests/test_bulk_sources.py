"""Which clips there are: every kind of source, names that are hostile, and plain refusals.

Seen red with: links to folders not followed; a folder entered again through a link; the folder of
the tokens searched; hidden files taken; a manifest's paths not counted from its folder; ids with
dots that lead up; a tar's member read from the tar's beginning.
"""

from __future__ import annotations

import csv
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from melcap.audio import read
from melcap.bulk.reader import local_file
from melcap.bulk.sources import Entry, Unlisted, find
from melcap.errors import InputError
from tests.bulk_helpers import corpus

pytest.importorskip("pyarrow")


def entries(*sources: object, skip: str = "") -> list[Entry]:
    found = list(find([str(source) for source in sources], skip))
    assert all(isinstance(each, Entry) for each in found), found
    return [each for each in found if isinstance(each, Entry)]


def ids(*sources: object) -> list[str]:
    return [entry.id for entry in entries(*sources)]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    corpus(tmp_path / "clips", (0.1, 0.1, 0.1))
    return tmp_path / "clips"


def test_a_folder_gives_its_audio_in_order(clips: Path) -> None:
    (clips / "notes.txt").write_text("no audio")
    (clips / ".hidden.wav").write_text("hidden")
    (clips / ".cache").mkdir()
    (clips / ".cache" / "x.wav").write_text("hidden")
    (clips / "LOUD.WAV").write_text("audio, by its name")
    expected = ["clips/LOUD.WAV", "clips/a/000.wav", "clips/a/002.wav", "clips/b/001.flac"]
    assert ids(clips) == expected
    assert ids(f"{clips}/") == expected
    for entry in entries(clips):
        assert Path(entry.path).is_absolute()
        assert entry.path == str(clips.parent / entry.id) == entry.source


def test_the_folder_of_the_tokens_is_passed_over(clips: Path) -> None:
    (clips / "tokens").mkdir()
    (clips / "tokens" / "x.wav").write_text("")
    assert len(entries(clips, skip=str(clips / "tokens"))) == len(entries(clips)) - 1


def test_links_are_followed_and_no_folder_is_entered_twice(clips: Path, tmp_path: Path) -> None:
    before = ids(clips)
    (clips / "a" / "up").symlink_to("..")
    (clips / "again").symlink_to("b")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.wav").write_text("")
    (clips / "z").symlink_to(tmp_path / "elsewhere")
    (clips / "gone.wav").symlink_to("nowhere")
    found = ids(clips)
    assert set(found) - set(before) >= {"clips/z/far.wav", "clips/gone.wav"}
    assert len({os.path.realpath(tmp_path / each) for each in found}) == len(found)
    assert len(found) == len(before) + 2


def test_a_glob(clips: Path) -> None:
    assert [Path(each).name for each in ids(clips / "**" / "*.flac")] == ["001.flac"]
    assert len(ids(clips / "a" / "*")) == 2
    with pytest.raises(InputError, match="matches no file"):
        entries(clips / "*.ogg")


def test_a_file_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "sound").write_text("")
    assert ids(tmp_path / "sound") == [str(tmp_path / "sound").lstrip("/")]


def test_a_tar_gives_its_members_and_their_bytes(clips: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(clips, "some/where")
    found = entries(tmp_path / "shard.tar")
    assert [entry.member for entry in found] == [
        "some/where/a/000.wav",
        "some/where/a/002.wav",
        "some/where/b/001.flac",
    ]
    for entry in found:
        with local_file(entry) as path:
            ours, rate = read(path)
        theirs, expected_rate = read(clips / entry.member.removeprefix("some/where/"))
        assert rate == expected_rate
        np.testing.assert_array_equal(ours, theirs)
    assert ids(tmp_path) == [
        *(f"{tmp_path.name}/shard.tar/{entry.member}" for entry in found),
        *(f"{tmp_path.name}/{each}" for each in ids(clips)),
    ]


def test_a_tar_that_is_none_is_listed_with_the_reason(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"x" * 2000)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as shard:
        shard.add(clips)
    with tarfile.open(tmp_path / "cut.tar", "w") as shard:
        shard.add(clips)
    whole = (tmp_path / "cut.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    for name in ("no", "packed", "cut"):
        found = list(find([str(tmp_path / f"{name}.tar")]))
        assert isinstance(found[-1], Unlisted), name
        assert "not a tar" in found[-1].reason
        assert found[-1].source == str(tmp_path / f"{name}.tar")
    assert any(isinstance(each, Entry) for each in found)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_manifest_counts_from_its_folder(clips: Path, suffix: str, tmp_path: Path) -> None:
    manifest = clips / f"list.{suffix}"
    if suffix == "csv":
        manifest.write_text(
            "id,path,text\none,a/000.wav,hello\n,b/001.flac,\n", encoding="utf-8-sig"
        )
    elif suffix == "jsonl":
        lines = ['{"id": "one", "audio_filepath": "a/000.wav"}', "", '{"path": "b/001.flac"}']
        manifest.write_text("\n".join(lines))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({"path": ["a/000.wav", "b/001.flac"], "id": ["one", None], "x": [1, 2]})
        pq.write_table(table, manifest)
    found = entries(manifest)
    assert [entry.id for entry in found] == ["one", "b/001.flac"]
    assert [entry.path for entry in found] == [str(clips / "a/000.wav"), str(clips / "b/001.flac")]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_manifest_of_stretches(clips: Path, suffix: str) -> None:
    """An offset makes a stretch; a duration without one only says how long the file is."""
    lines = [(0.02, 0.03, None), (0.05, None, None), (None, 0.04, None), (0.0, 0.04, "start")]
    rows = [
        {"path": "a/000.wav", "offset": offset, "duration": duration, "id": name}
        for offset, duration, name in lines
    ]
    manifest = clips / f"list.{suffix}"
    if suffix == "csv":
        with manifest.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif suffix == "jsonl":
        manifest.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), manifest)
    found = entries(manifest)
    assert [(entry.id, entry.start, entry.seconds) for entry in found] == [
        ("a/000.wav#t=0.02,0.05", 0.02, 0.03),
        ("a/000.wav#t=0.05", 0.05, -1),
        ("a/000.wav", 0, -1),
        ("start", 0, 0.04),
    ]
    assert [entry.samples(44100) for entry in found] == [
        (882, 2205),
        (2205, None),
        (0, None),
        (0, 1764),
    ]
    path = str(clips / "a/000.wav")
    assert [entry.source.removeprefix(path) for entry in found] == [
        "#t=0.02,0.05",
        "#t=0.05",
        "",
        "#t=0,0.04",
    ]


@pytest.mark.parametrize(
    ("offset", "duration"),
    [("-0.1", "1"), ("nan", "1"), ("inf", ""), ("0", "0"), ("0", "-2"), ("0", "nan"), ("one", "")],
)
def test_a_stretch_that_is_none_is_refused(clips: Path, offset: str, duration: str) -> None:
    manifest = clips / "list.csv"
    manifest.write_text(f"path,offset,duration\na/000.wav,,\na/000.wav,{offset},{duration}\n")
    with pytest.raises(InputError, match=rf"row 2: offset '{offset}' and duration '{duration}'"):
        entries(manifest)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "name,text\na.wav,b\n", "no path"),
        ("x.csv", "path\n", "lists no clip"),
        ("x.jsonl", '{"path": "a.wav"}\n{"pa', "cannot be read as a manifest"),
        ("x.jsonl", '["a.wav"]', "line 1 is not an object"),
        ("x.jsonl", '{"path": "\\ud800.wav"}', "row 1: .* no name that a file can have"),
        ("x.parquet", "PAR1 or not", "cannot be read as a manifest"),
    ],
)
def test_a_manifest_that_says_nothing_is_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        entries(tmp_path / name)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        entries(tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not exist"):
        entries(f"file://{tmp_path}/nowhere")
    with pytest.raises(InputError, match="cannot be opened"):
        entries("nonsense://bucket/x")


def test_urls(clips: Path, tmp_path: Path) -> None:
    assert ids(f"file://{clips}") == ids(clips)
    assert ids(f"file://{clips}/a/*.wav") == ["a/000.wav", "a/002.wav"]
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(clips / "a" / "000.wav", "x.wav")
    (entry,) = entries(f"file://{tmp_path}/shard.tar")
    with local_file(entry) as path:
        np.testing.assert_array_equal(read(path)[0], read(clips / "a" / "000.wav")[0])
    (single,) = entries(f"file://{clips}/a/000.wav")
    with local_file(single) as path:
        np.testing.assert_array_equal(read(path)[0], read(clips / "a" / "000.wav")[0])


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"caf\xe9.wav", "ca\nfé😀.wav".encode(), b"  .wav"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_text("")
    found = entries(folder)
    assert sorted(entry.id for entry in found) == [
        "odd/  .wav",
        "odd/ca\nfé😀.wav",
        "odd/caf\\xe9.wav",
    ]
    for entry in found:
        entry.source.encode()
        assert os.path.exists(entry.path)


def test_ids_lead_out_of_no_folder(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("path\n../../etc/x.wav\n/abs/./y.wav\n")
    assert ids(manifest) == ["etc/x.wav", "abs/y.wav"]
