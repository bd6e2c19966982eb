"""Files of a token set that are lost or altered are made again; foreign ones are refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from melcap import Codec
from melcap.audio import write
from melcap.bulk import tokenize as run
from melcap.bulk.token_sets.journal import NAME
from melcap.bulk.token_sets.shards import token_files
from melcap.bulk.tokenize import ERRORS, Options, RunState, tokenize
from melcap.errors import InputError
from tests.bulk.helpers import corpus, wave

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("forked_readers")

ONE = Options(readers=1, encoders=1, shard_clips=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inventory") / "clips"
    corpus(folder, (0.1, 0.2, 0.1, 0.3, 0.1))
    return folder


@pytest.fixture(scope="module", params=["parquet", "melcap"])
def made(request: pytest.FixtureRequest, clips: Path, codec: Codec) -> tuple[Path, Options]:
    options = replace(ONE, format=request.param)
    tokenize([str(clips)], clips.parent / request.param, codec, options)
    return clips.parent / request.param, options


@pytest.fixture
def out(made: tuple[Path, Options], tmp_path: Path) -> Path:
    """Return a copy of a finished set, whose times differ from those in the journal."""
    return Path(shutil.copytree(made[0], tmp_path / "out", copy_function=shutil.copyfile))


@pytest.fixture
def options(made: tuple[Path, Options]) -> Options:
    return made[1]


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in token_files(out)}


def test_an_unchanged_set_is_left_alone(
    out: Path, options: Options, clips: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has other times but the same content."""
    before = contents(out)
    monkeypatch.setattr(run, "ReaderPool", None)
    for _ in range(2):
        end = tokenize([str(clips)], out, codec, options)
        assert (end.done, end.remade) == (5, 0)
    assert contents(out) == before


@pytest.mark.parametrize("damage", ["lost", "cut", "altered"])
def test_lost_and_altered_files_are_made_again(
    out: Path, options: Options, clips: Path, codec: Codec, damage: str
) -> None:
    before = contents(out)
    victim = token_files(out)[1]
    data = bytearray(victim.read_bytes())
    if damage == "lost":
        victim.unlink()
    elif damage == "cut":
        victim.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    told: list[RunState] = []
    end = tokenize([str(clips)], out, codec, options, progress=told.append)
    assert (end.clips, end.done, end.bad, end.remade) == (5, 5, 0, 1)
    lost = 1 if options.format == "melcap" else 2
    assert end.before == 5 - lost
    assert contents(out) == before
    assert tokenize([str(clips)], out, codec, options).remade == 0


@pytest.mark.slow
def test_what_cannot_be_made_again_is_bad(
    out: Path, options: Options, clips: Path, codec: Codec, tmp_path: Path
) -> None:
    """Its file is removed, because the journal has no record of it any more."""
    moved = tmp_path / "moved"
    shutil.copytree(clips, moved / "clips")
    gone = tmp_path / "gone"
    tokenize([str(moved / "clips")], gone, codec, options)
    victim = token_files(gone)[-1]
    victim.write_bytes(b"cut")
    (last,) = (moved / "clips").rglob("003.flac")
    last.unlink()
    end = tokenize([str(moved / "clips")], gone, codec, options)
    assert (end.done, end.bad, end.remade) == (4, 1, 1)
    assert victim not in token_files(gone)
    end = tokenize([str(moved / "clips")], gone, codec, options)
    assert (end.clips, end.done, end.bad, end.remade) == (4, 4, 0, 0)


def test_files_that_are_not_in_the_journal_are_refused(
    out: Path, options: Options, clips: Path, codec: Codec
) -> None:
    """Nothing is encoded, and the folder stays as it is."""
    first = token_files(out)[0]
    foreign = first.with_name(f"tokens-000099{first.suffix}")
    shutil.copyfile(first, foreign)
    before = contents(out)
    with pytest.raises(InputError, match=rf"holds .*{foreign.name}, which is not in its journal"):
        tokenize([str(clips)], out, codec, options)
    assert contents(out) == before
    foreign.unlink()
    assert tokenize([str(clips)], out, codec, options).done == 5
    (out / NAME).unlink()
    with pytest.raises(InputError, match="which is not in its journal"):
        tokenize([str(clips)], out, codec, replace(options, shard_clips=3))
    other = replace(options, format="parquet" if options.format == "melcap" else "melcap")
    with pytest.raises(InputError, match="which is not in its journal"):
        tokenize([str(clips)], out, codec, other)


def test_what_killed_runs_left_is_removed(
    out: Path, options: Options, clips: Path, codec: Codec
) -> None:
    (out / "clips").mkdir(exist_ok=True)
    left = [out / ".melcap-0123456789ab.parquet", out / "clips" / ".melcap-ba9876543210.melcap"]
    kept = [out / ".melcap-notes.txt", out / ".hidden.tar"]
    for path in (*left, *kept):
        path.write_bytes(b"x")
    tokenize([str(clips)], out, codec, options)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


@pytest.mark.slow
def test_a_source_that_changed_is_named(codec: Codec, tmp_path: Path) -> None:
    """The run reports it, and makes its tokens again once its shard is deleted."""
    source, out = tmp_path / "in" / "a.wav", tmp_path / "out"
    source.parent.mkdir()
    write(source, wave(0.1), 44100)
    tokenize([str(source.parent)], out, codec, ONE)
    write(source, wave(0.2), 44100)
    end = tokenize([str(source.parent)], out, codec, ONE)
    assert (end.clips, end.done, end.bad, end.changed) == (1, 1, 0, 1)
    assert f"{source} has changed since its tokens were made" in (out / ERRORS).read_text()
    (shard,) = token_files(out)
    shard.unlink()
    end = tokenize([str(source.parent)], out, codec, ONE)
    assert (end.done, end.changed, end.remade) == (1, 0, 1)
    assert not (out / ERRORS).exists()


def test_a_clip_that_cannot_have_a_file_is_bad_and_the_rest_goes_on(
    codec: Codec, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.wav", "n" * 251 + ".wav"):
        write(tmp_path / "x.wav", wave(0.1), 44100)
        os.replace(tmp_path / "x.wav", folder / name)
    options = replace(ONE, format="melcap")
    for _ in range(2):
        end = tokenize([str(folder)], tmp_path / "out", codec, options)
        assert (end.clips, end.done, end.bad) == (2, 1, 1)
