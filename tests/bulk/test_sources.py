"""The search finds the clips of every kind of source, and refuses the rest plainly."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from melcap.bulk.manifests.entries import Entry, Found, PassedOver, Refused, Unlisted
from melcap.bulk.manifests.sources import find
from melcap.bulk.reading.local_files import local_files
from melcap.bulk.reading.tasks import tasks
from melcap.errors import InputError
from tests.bulk.helpers import corpus

pytest.importorskip("pyarrow")


def found(*sources: object, skip: str = "") -> list[Found]:
    return list(find([str(source) for source in sources], skip))


def entries(*sources: object, skip: str = "") -> list[Entry]:
    """Return every clip of sources in which nothing is refused."""
    clips = [each for each in found(*sources, skip=skip) if not isinstance(each, PassedOver)]
    assert all(isinstance(each, Entry) for each in clips), clips
    return [each for each in clips if isinstance(each, Entry)]


def passed(*sources: object) -> dict[str, int]:
    """Count the files that are passed over, by kind."""
    return {each.kind: each.count for each in found(*sources) if isinstance(each, PassedOver)}


def bytes_of(entry: Entry) -> bytes:
    ((_, path),) = ((clips, path.read_bytes()) for clips, path in local_files([(0, entry)]))
    return path


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
    after = ids(clips)
    assert set(after) - set(before) >= {"clips/z/far.wav", "clips/gone.wav"}
    assert len({os.path.realpath(tmp_path / each) for each in after}) == len(after)
    assert len(after) == len(before) + 2


def test_a_glob(clips: Path) -> None:
    assert [Path(each).name for each in ids(clips / "**" / "*.flac")] == ["001.flac"]
    assert len(ids(clips / "a" / "*")) == 2
    with pytest.raises(InputError, match="matches no file"):
        entries(clips / "*.ogg")


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "sound").write_text("")
    assert ids(tmp_path / "sound") == [str(tmp_path / "sound").lstrip("/")]


def test_a_tar_gives_its_members_and_their_bytes(clips: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(clips, "some/where")
    members = entries(tmp_path / "shard.tar")
    assert [entry.member for entry in members] == [
        "some/where/a/000.wav",
        "some/where/a/002.wav",
        "some/where/b/001.flac",
    ]
    for entry in members:
        original = clips / entry.member.removeprefix("some/where/")
        assert bytes_of(entry) == original.read_bytes()
    assert ids(tmp_path) == [
        *(f"{tmp_path.name}/shard.tar/{entry.member}" for entry in members),
        *(f"{tmp_path.name}/{each}" for each in ids(clips)),
    ]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_a_packed_tar_is_read_forward(clips: Path, tmp_path: Path, suffix: str) -> None:
    import pyarrow as pa

    plain, packed = tmp_path / "x.tar", tmp_path / f"packed{suffix}"
    with tarfile.open(plain, "w") as shard:
        shard.add(clips, "in")
    if suffix == ".tar.zst":
        with pa.CompressedOutputStream(str(packed), "zstd") as file:
            file.write(plain.read_bytes())
    else:
        kind = {"tgz": "gz"}.get(suffix.rpartition(".")[2], suffix.rpartition(".")[2])
        with tarfile.open(packed, f"w:{kind}") as shard:
            shard.add(clips, "in")
    members = entries(packed)
    assert [each.member for each in members] == [each.member for each in entries(plain)]
    (task,) = tasks(enumerate(members))
    for ((_, entry),), path in local_files(task):
        assert path.read_bytes() == (clips / entry.member.removeprefix("in/")).read_bytes()
    assert bytes_of(members[-1]) == (clips / "b" / "001.flac").read_bytes()


def tar_of(path: Path, *members: tuple[str, bytes], **kind: bytes) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type = kind.get("type", tarfile.REGTYPE)
            shard.addfile(info, io.BytesIO(data))
    return path


def test_what_a_tar_passes_over_is_counted(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", ("a.wav", b"1"), ("a.json", b"2"), ("b/._a.wav", b"3"))
    with tarfile.open(path, "a") as shard:
        link = tarfile.TarInfo("c.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "a.wav"
        shard.addfile(link)
    assert [entry.member for entry in entries(path)] == ["a.wav"]
    assert passed(path) == {".json": 1, "hidden files": 1, "links and devices in tars": 1}


@pytest.mark.parametrize("damage", ["nothing", "no tar", "cut", "cut header", "header", "joined"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_tar_is_listed_with_the_reason(tmp_path: Path, damage: str, packed: bool) -> None:
    """Clips before the damage are read, and the rest is reported as lost."""
    members = [(f"{number}.wav", bytes(700)) for number in range(3)]
    data = bytearray(tar_of(tmp_path / "x.tar", *members).read_bytes())
    if damage == "no tar":
        data = bytearray(b"x" * 5000)
    elif damage == "cut":
        del data[1536 + 600 :]
    elif damage == "cut header":
        del data[3072 + 200 :]
    elif damage == "header":
        data[3072 + 10] ^= 1
    elif damage == "joined":
        data = data + data
    path = tmp_path / ("x.tar.gz" if packed else "x.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    each = found(path)
    clips = [entry.id for entry in each if isinstance(entry, Entry)]
    assert len(clips) == {"no tar": 0, "cut": 2, "cut header": 2, "header": 2}.get(damage, 3)
    bad = [entry for entry in each if isinstance(entry, Unlisted)]
    assert len(bad) == (damage != "nothing")
    for entry in bad:
        assert entry.source == str(path)
        assert "is not a tar, or a damaged one" in entry.reason


def test_a_packed_tar_that_is_cut_is_listed(clips: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as shard:
        shard.add(clips, "in")
    data = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(data[: len(data) // 2])
    *_, last = found(tmp_path / "x.tar.gz")
    assert isinstance(last, Unlisted)


def test_headers_of_a_tar_are_bounded(tmp_path: Path) -> None:
    """A name of two gigabytes in a packed tar of kilobytes is not read."""
    path = tmp_path / "x.tar.gz"
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 31
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(4096))
    (bad,) = found(path)
    assert isinstance(bad, Unlisted)
    assert "a header of 2147483648 bytes" in bad.reason


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", ("holes.wav", b"x"), type=tarfile.GNUTYPE_SPARSE)
    (bad,) = found(path)
    assert isinstance(bad, Refused)
    assert bad.id.endswith("x.tar/holes.wav")
    assert "sparse" in bad.reason


def test_urls(clips: Path, tmp_path: Path) -> None:
    assert ids(f"file://{clips}") == ids(clips)
    assert ids(f"file://{clips}/a/*.wav") == ["a/000.wav", "a/002.wav"]
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(clips / "a" / "000.wav", "x.wav")
    (entry,) = entries(f"file://{tmp_path}/shard.tar")
    assert bytes_of(entry) == (clips / "a" / "000.wav").read_bytes()
    (single,) = entries(f"file://{clips}/a/000.wav")
    assert bytes_of(single) == (clips / "a" / "000.wav").read_bytes()


def test_what_a_folder_passes_over_is_counted(clips: Path) -> None:
    for name in ("a.txt", "b.TXT", "list.json", "README", ".hidden.wav", "x.partial-download"):
        (clips / name).write_text("")
    (clips / ".cache").mkdir()
    (clips / "broken.txt").symlink_to("nowhere")
    os.mkfifo(clips / "pipe")
    assert passed(clips) == {
        ".txt": 2,
        ".json": 1,
        "without a suffix": 2,
        "hidden files": 1,
        "hidden folders": 1,
        "broken links": 1,
        "not regular files (pipes, sockets, devices)": 1,
    }
    assert passed(f"file://{clips}").items() >= {".txt": 2, ".json": 1}.items()
    assert passed(clips / "*")[".txt"] == 2


def test_a_pipe_with_the_suffix_of_audio_is_named_and_not_opened(clips: Path) -> None:
    os.mkfifo(clips / "pipe.wav")
    (bad,) = (each for each in found(clips) if isinstance(each, Refused))
    assert (bad.id, bad.source) == ("clips/pipe.wav", f"{clips}/pipe.wav")
    assert "is a pipe" in bad.reason
    for source in (clips / "pipe.wav", f"file://{clips}/pipe.wav", "/dev/zero"):
        with pytest.raises(InputError, match="not a regular file"):
            found(source)


def test_a_source_without_audio_is_named(clips: Path, tmp_path: Path) -> None:
    """Nothing begins if no source holds a clip; an empty one beside others is listed."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    (tmp_path / "notes" / "list.csv").write_text("path\n")
    tar_of(tmp_path / "no.tar", ("a.json", b""))
    with pytest.raises(
        InputError, match=r"notes holds no audio .*1 \.txt, 1 \.csv; a manifest must"
    ):
        found(tmp_path / "notes")
    with pytest.raises(InputError, match=r"no\.tar holds no audio .*it has 1 \.json"):
        found(tmp_path / "no.tar", tmp_path / "notes")
    *_, empty = found(clips, tmp_path / "notes")
    assert isinstance(empty, Unlisted)
    assert empty.source == str(tmp_path / "notes")


def test_a_glob_of_manifests_gives_what_they_list(clips: Path) -> None:
    for name in ("x", "y"):
        (clips / f"{name}.csv").write_text(f"id,path\n{name},a/000.wav\n")
    assert ids(clips / "*.csv") == ["x", "y"]
    assert ids(f"file://{clips}/*.csv") == ["x", "y"]
    assert passed(clips / "**") == {".csv": 2}


def test_a_glob_gives_nothing_twice(clips: Path) -> None:
    for pattern in ("**", "**/*", "*"):
        paths = [entry.path for entry in entries(clips / pattern)]
        assert sorted(paths) == sorted(entry.path for entry in entries(clips))


def test_names_that_are_not_text(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in (b"caf\xe9.wav", "ca\nfé😀.wav".encode(), b"  .wav"):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_text("")
    clips = entries(folder)
    assert sorted(entry.id for entry in clips) == [
        "odd/  .wav",
        "odd/ca\nfé😀.wav",
        "odd/caf\\xe9.wav",
    ]
    for entry in clips:
        entry.source.encode()
        assert os.path.exists(entry.path)
