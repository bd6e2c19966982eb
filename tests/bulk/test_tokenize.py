"""Token sets hold the tokens of `Codec.encode`, in every format and after any interruption."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import melcap
from melcap import Codec
from melcap.audio import read, write
from melcap.bulk import tokenize as run
from melcap.bulk.token_sets.journal import NAME
from melcap.bulk.tokenize import ERRORS, Options, tokenize
from melcap.errors import InputError, MelcapError, WeightsError
from tests.bulk.helpers import corpus, ids_and_tokens, rows_of, tokenize_until, tokens_of, wave
from tests.forks import FORKS
from tests.helpers import draw_weights

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("forked_readers")

ONE = Options(readers=1, encoders=1, shard_clips=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bulk") / "clips"
    corpus(folder)
    (folder / "bad.wav").write_bytes(b"RIFF but no more")
    return folder


@pytest.fixture(scope="module")
def undisturbed(clips: Path, codec: Codec) -> Path:
    out = clips.parent / "undisturbed"
    end = tokenize([str(clips)], out, codec, ONE)
    assert (end.clips, end.done, end.bad) == (6, 5, 1)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("format", ["parquet", "webdataset", "melcap"])
def test_rows_are_what_the_codec_gives(
    clips: Path, undisturbed: Path, codec: Codec, tmp_path: Path, format: str
) -> None:
    out = undisturbed
    if format != "parquet":
        out = tmp_path / format
        tokenize([str(clips)], out, codec, replace(ONE, format=format))
    rows = rows_of(out)
    files = sorted(path for path in clips.rglob("*.*") if path.name != "bad.wav")
    assert [row.id for row in rows] == [str(path.relative_to(clips.parent)) for path in files]
    for row, path in zip(rows, files, strict=True):
        samples, rate = read(path)
        header = row.header
        assert (header.sample_rate, header.channels, header.samples) == (rate, *samples.shape)
        assert row.header.model == codec.model
        assert row.header.tokenizer_id == codec.tokenizer_id
        assert row.source == str(path) or format == "melcap"
        np.testing.assert_array_equal(row.tokens, tokens_of(codec, path))
    (error,) = map(json.loads, (out / ERRORS).read_text().splitlines())
    assert error["id"] == "clips/bad.wav"
    assert "bad.wav" in error["reason"]
    assert not list(out.rglob(".melcap-*.p*"))


def test_stretches_of_a_file_are_clips(codec: Codec, tmp_path: Path) -> None:
    """Each has the tokens that it has alone; only a stretch beyond the end is bad."""
    write(tmp_path / "talk.flac", wave(3.0, 22050), 22050)
    samples, rate = read(tmp_path / "talk.flac")
    (tmp_path / "list.csv").write_text(
        "path,offset,duration\ntalk.flac,0.5,1.25\ntalk.flac,1.7,\ntalk.flac,2.5,2\n"
    )
    out = tmp_path / "out"
    end = tokenize([str(tmp_path / "list.csv")], out, codec, ONE)
    assert (end.clips, end.done, end.bad) == (3, 2, 1)
    first, second = rows_of(out)
    assert (first.id, second.id) == ("talk.flac#t=0.5,1.75", "talk.flac#t=1.7")
    assert first.source == f"{tmp_path}/talk.flac#t=0.5,1.75"
    for row, part in ((first, samples[:, 11025:38588]), (second, samples[:, 37485:])):
        assert row.header.samples == part.shape[1]
        np.testing.assert_array_equal(row.tokens, codec.encode(part, rate).flatten()[0].numpy())
    (error,) = map(json.loads, (out / ERRORS).read_text().splitlines())
    assert error["id"] == "talk.flac#t=2.5,4.5"
    assert "is 3.00 s long and cannot be read from 2.50 s to 4.50 s" in error["reason"]


def test_mono_is_the_mean(codec: Codec, tmp_path: Path) -> None:
    both = 3 * wave(0.5, 48000, channels=2, seed=4)  # beyond full scale, and to be resampled
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "x.wav", both, 48000, "FLOAT")
    tokenize([str(tmp_path / "in")], tmp_path / "out", codec, replace(ONE, mono=True))
    (row,) = rows_of(tmp_path / "out")
    (expected,) = codec.encode(both.mean(axis=0), 48000).flatten()
    assert row.header.channels == 1
    np.testing.assert_array_equal(row.tokens, expected.numpy())


@pytest.mark.slow
def test_encoders_readers_and_batches_change_nothing(
    clips: Path, undisturbed: Path, codec: Codec, tmp_path: Path
) -> None:
    """In other batches, tokens may differ where two entries are equally near; here none does."""
    many = Options(readers=3, encoders=3, batch_seconds=3, shard_clips=4)
    tokenize([str(clips)], tmp_path, codec, many)
    assert ids_and_tokens(tmp_path) == ids_and_tokens(undisturbed)


def files_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".")}


def test_a_second_run_does_nothing(
    clips: Path, undisturbed: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_of(undisturbed)
    monkeypatch.setattr(run, "ReaderPool", None)
    monkeypatch.setattr(run, "write_shard", None)
    end = tokenize([str(clips)], undisturbed, codec, ONE)
    assert (end.clips, end.done, end.bad, end.audio_seconds) == (6, 5, 1, 0)
    assert files_of(undisturbed) == before


@pytest.mark.slow
def test_new_clips_make_new_shards_and_bad_ones_are_tried_again_on_request(
    codec: Codec, tmp_path: Path
) -> None:
    folder, out = tmp_path / "clips", tmp_path / "out"
    corpus(folder, (0.1, 0.2, 0.1))
    (folder / "late.wav").write_bytes(b"")
    tokenize([str(folder)], out, codec, ONE)
    before = files_of(out)
    write(folder / "late.wav", wave(0.3), 44100)
    write(folder / "new.wav", wave(0.2, seed=9), 44100)
    end = tokenize([str(folder)], out, codec, ONE)
    assert (end.clips, end.done, end.bad) == (5, 4, 1)
    assert before.items() <= files_of(out).items()
    end = tokenize([str(folder)], out, codec, ONE, retry=True)
    assert (end.done, end.bad) == (5, 0)
    assert not (out / ERRORS).exists()
    assert {id for id, _ in ids_and_tokens(out)} == {
        str(path.relative_to(tmp_path)) for path in folder.rglob("*.*")
    }


def run_apart(clips: Path, out: Path, weights: Path, fuse: int, points: str, end: float) -> int:
    """Run in a process that is killed at the `fuse`-th call of `points`, or after `end` seconds."""
    process = FORKS.Process(target=tokenize_until, args=(clips, out, weights, fuse, points))
    process.start()
    process.join(end)
    if process.exitcode is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def apart(clips: Path, small_weights: Path) -> tuple[Path, float]:
    """Return the token set of an undisturbed run in a process of its own, and its seconds."""
    out = clips.parent / "apart"
    began = time.perf_counter()
    assert run_apart(clips, out, small_weights, 0, "", 600) == 0
    return out, time.perf_counter() - began


@pytest.mark.parametrize(
    ("point", "fuse"),
    [("plan", 1), ("fail", 1), ("finish", 4), ("commit", 3), ("write_shard", 1), ("written", 2)],
)
def test_a_run_killed_while_it_writes_goes_on(
    clips: Path,
    apart: tuple[Path, float],
    small_weights: Path,
    tmp_path: Path,
    point: str,
    fuse: int,
) -> None:
    assert run_apart(clips, tmp_path, small_weights, fuse, point, 600) == -signal.SIGKILL
    assert run_apart(clips, tmp_path, small_weights, 0, "", 600) == 0
    assert files_of(tmp_path) == files_of(apart[0])


@pytest.mark.slow
def test_a_run_killed_again_and_again_goes_on(
    clips: Path, undisturbed: Path, apart: tuple[Path, float], small_weights: Path, tmp_path: Path
) -> None:
    chance = random.Random(5)
    files, whole = files_of(apart[0]), apart[1]
    ends = [
        run_apart(clips, tmp_path, small_weights, 0, "", chance.uniform(0, whole)) for _ in range(3)
    ]
    assert set(ends) <= {0, -signal.SIGKILL}
    assert run_apart(clips, tmp_path, small_weights, 0, "", 600) == 0
    assert files_of(tmp_path) == files
    assert ids_and_tokens(tmp_path) == ids_and_tokens(undisturbed)


@pytest.mark.slow
def test_a_shard_that_cannot_be_written_is_written_later(
    clips: Path, undisturbed: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def full(path: Path) -> None:
        written.append(path)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("melcap.bulk.token_sets.shards._flush", full)
        with pytest.raises(MelcapError, match="cannot be written: No space left on device"):
            tokenize([str(clips)], tmp_path, codec, ONE)
    assert written
    assert {path.name for path in tmp_path.iterdir()} <= {NAME, ERRORS}
    tokenize([str(clips)], tmp_path, codec, ONE)
    assert files_of(tmp_path) == files_of(undisturbed)


def test_progress_is_reported(clips: Path, codec: Codec, tmp_path: Path) -> None:
    told: list[run.RunState] = []
    (tmp_path / "no.tar").write_bytes(b"x")
    sources = [str(clips), str(tmp_path / "no.tar")]
    began = time.perf_counter()
    end = tokenize(sources, tmp_path / "out", codec, ONE, progress=told.append)
    wall = time.perf_counter() - began
    assert told
    assert [state.done for state in told] == sorted(state.done for state in told)
    last = told[-1]
    seconds = sum(row.seconds * row.header.channels for row in rows_of(tmp_path / "out"))
    for state in (last, end):
        assert (state.clips, state.done, state.bad, state.unlisted) == (6, 5, 1, 1)
        assert state.audio_seconds == pytest.approx(seconds)
        assert 0 < state.wall_seconds <= wall
        assert state.speed == pytest.approx(state.audio_seconds / state.wall_seconds)
        assert 0 < state.busy <= 1
        assert state.eta_seconds == 0


@pytest.mark.parametrize(
    "sources", [["missing.tar"], ["a.wav", "missing.tar"], ["a.wav", "*.tar"], ["notes"]], ids=str
)
def test_nothing_is_made_without_the_sources(
    sources: list[str], codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("a.wav"), wave(0.1), 44100)
    Path("notes").mkdir()
    Path("notes", "a.txt").write_text("no audio")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"does not exist|matches no file|holds no audio file"):
        tokenize(sources, Path("set"), codec, ONE)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"format": "csv"}, "format"), ({"engine": "slurm"}, "engine"), ({"encoders": 0}, "encoders")],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_goes_on_with_another_decoder_and_no_other_tokenizer(
    tmp_path: Path, codec: Codec
) -> None:
    """Rows name the weights that made them; the tokenizer decides what they mean."""
    better, other = (draw_weights(Codec(codec.config), seed=3) for _ in range(2))
    for part in ("encoder", "codebook"):
        better.get_submodule(part).load_state_dict(codec.get_submodule(part).state_dict())
    better.model, other.model = "better-01", "other-01"
    models = []
    for number, own in enumerate((codec, better)):
        corpus(tmp_path / f"clips{number}", (0.3,))
        tokenize([str(tmp_path / "clips*")], tmp_path / "out", own, Options(readers=1))
        rows = rows_of(tmp_path / "out")
        models = [row.header.model for row in rows]
        assert {row.header.tokenizer_id for row in rows} == {codec.tokenizer_id}
    assert models == [codec.model, "better-01"]
    words = f"made with tokenizer_id {codec.tokenizer_id}.* has tokenizer_id {other.tokenizer_id}"
    with pytest.raises(InputError, match=words):
        tokenize([str(tmp_path / "clips*")], tmp_path / "out", other, Options(readers=1))


def test_a_codec_without_a_file_is_refused(clips: Path, tmp_path: Path, codec: Codec) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        tokenize([str(clips)], tmp_path / "out", melcap.Codec(codec.config))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_pandas_and_datasets_read_the_shards(undisturbed: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    datasets = pytest.importorskip("datasets")
    rows = rows_of(undisturbed)
    frame = pandas.concat(map(pandas.read_parquet, sorted(undisturbed.glob("*.parquet"))))
    files = str(undisturbed / "*.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path)
    )
    assert loaded.features["tokens"].feature.dtype == "uint16"
    for table in (frame.to_dict("records"), list(loaded)):
        assert [record["id"] for record in table] == [row.id for row in rows]
        for record, row in zip(table, rows, strict=True):
            np.testing.assert_array_equal(record["tokens"], row.tokens)
            assert record["samples"] == row.header.samples
            assert record["checksum"] == row.checksum
