"""Token sets are read back: statistics, audio, damage, and the commands for them."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from melcap import Codec, decode_file, encode_file
from melcap.audio import read
from melcap.audio import write as write_audio
from melcap.bulk.detokenize import detokenize
from melcap.bulk.stats import entropy, summarise
from melcap.bulk.token_sets.rows import TokenRow
from melcap.bulk.token_sets.shards import FORMATS, read_rows, token_files, write_shard
from melcap.bulk.tokenize import Options, tokenize
from melcap.cli import commands as cli
from melcap.errors import ContainerError, InputError
from melcap.io import container
from tests.bulk.helpers import corpus, rows_of
from tests.helpers import ID, examples

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens") / "clips"
    corpus(folder, (0.3, 0.2, 0.4))
    return folder


@pytest.fixture(scope="module")
def tokens(clips: Path, codec: Codec) -> Path:
    out = clips.parent / "tokens"
    tokenize([str(clips)], out, codec, Options(readers=1, encoders=1, shard_clips=2))
    return out


def row(id: str = "x", columns: int = 3, channels: int = 1, seed: int = 0) -> TokenRow:
    header = container.Header("small-0123", ID, 44100, channels, 1000, 2, columns, 9)
    values = np.random.default_rng(seed).integers(0, 512, header.token_count, np.uint16)
    return TokenRow(id, f"/from/{id}", header, values)


@settings(max_examples=examples(30))
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3)), max_size=6),
    format=st.sampled_from(sorted(FORMATS)),
    group=st.integers(1, 100),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[tuple[int, int]],
    format: str,
    group: int,
) -> None:
    rows = [
        row(f"folder.tar/é {at}", columns, channels, at)
        for at, (columns, channels) in enumerate(sizes)
    ]
    folder = tmp_path_factory.mktemp("shard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melcap.bulk.token_sets.parquet._GROUP_TOKENS", group)
        write_shard(folder, 3, format, iter(rows))
    if not rows:
        assert list(folder.iterdir()) == []
        return
    for ours, theirs in zip(rows, rows_of(folder), strict=True):
        assert theirs.id == ours.id
        assert theirs.source == ours.source or format == "melcap"
        assert theirs.header == ours.header
        assert theirs.tokens.dtype == np.uint16
        np.testing.assert_array_equal(theirs.tokens, ours.tokens)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_same_rows_make_the_same_bytes(tmp_path: Path, format: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name, 0, format, [row("a"), row("b", seed=1)])
    for path in token_files(tmp_path / "one"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_damage_is_refused_with_the_reason(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_shard(tmp_path, 0, "parquet", [row("a"), row("b")])
    (good,) = token_files(tmp_path)
    table = pq.read_table(good)

    def refused(changed: Any, match: str) -> None:
        pq.write_table(changed, tmp_path / "bad.parquet")
        with pytest.raises(ContainerError, match=match):
            list(read_rows(tmp_path / "bad.parquet", tmp_path))

    def column(name: str, values: list[Any]) -> Any:
        at = table.schema.get_field_index(name)
        return table.set_column(
            at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
        )

    refused(table.drop_columns(["checksum"]), "no column checksum")
    refused(column("checksum", [1, 2]), r"bad.parquet, a: the tokens are damaged")
    refused(column("tokens", [[1] * 6, [2] * 6]), "damaged")
    refused(column("tokens", [None, [2] * 6]), "damaged|not a token set")
    refused(column("rows", [0, 2]), "rows is 0")
    refused(column("samples", [None, 5]), "samples is None")
    refused(column("model", ["two\nlines", "x"]), "model is")
    refused(column("tokenizer_id", ["nonsense", ID]), "tokenizer_id is 'nonsense'")
    good.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(ContainerError, match="cannot be read as Parquet"):
        list(read_rows(good, tmp_path))


def test_a_tar_of_something_else_is_refused(tmp_path: Path) -> None:
    def shard_of(**members: bytes) -> Path:
        path = tmp_path / "x.tar"
        with tarfile.open(path, "w") as shard:
            for name, data in members.items():
                info = tarfile.TarInfo(name.replace("_", "."))
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
        return path

    array = io.BytesIO()
    np.save(array, np.zeros(3, np.uint16))
    for members in (
        {"a_json": b"{}", "a_tokens_npy": array.getvalue()},
        {"a_tokens_npy": array.getvalue()},
        {"a_json": b"{"},
        {"a_json": b"[1]", "a_tokens_npy": array.getvalue()},
        {"a_json": b"{}", "a_tokens_npy": b"no array"},
    ):
        with pytest.raises(ContainerError, match=r"x\.tar"):
            list(read_rows(shard_of(**members), tmp_path))


def test_a_grid_needs_its_tokens() -> None:
    whole = row(columns=2, channels=2)
    assert whole.grid.shape == (2, 2, 2)
    np.testing.assert_array_equal(whole.grid[1, :, 0], whole.tokens[4:6])
    with pytest.raises(ContainerError, match="7 tokens are not the 8"):
        _ = replace(whole, tokens=whole.tokens[:7]).grid


def test_statistics(tmp_path: Path) -> None:
    rows = [row("a", 5, 2), row("b", 7, 1, seed=1)]
    write_shard(tmp_path, 0, "parquet", rows)
    summary = summarise([tmp_path])
    both = np.concatenate([each.grid.transpose(1, 0, 2).reshape(2, -1) for each in rows], axis=1)
    assert (summary.clips, summary.tokens) == (2, both.size)
    assert summary.hours == pytest.approx(2 * 1000 / 44100 / 3600)
    assert summary.channel_hours == pytest.approx(3 * 1000 / 44100 / 3600)
    assert summary.used == len(np.unique(both))
    for band, counts in zip(both, summary.counts, strict=True):
        np.testing.assert_array_equal(counts, np.bincount(band, minlength=512))
    data = summary.as_json()
    assert data["models"] == {"small-0123": 2}
    assert data["tokenizer_id"] == ID
    assert data["channels"] == {2: 1, 1: 1}
    assert data["seconds"]["median"] == pytest.approx(1000 / 44100)
    assert data["entropy_bits"] == pytest.approx(entropy(np.bincount(both.reshape(-1))))


def test_entropy_is_in_bits() -> None:
    assert entropy(np.array([4, 4, 0, 8])) == pytest.approx(1.5)
    assert entropy(np.zeros(3, np.int64)) == 0


def test_other_grids_are_not_mixed(tmp_path: Path) -> None:
    other = replace(row("b"), header=replace(row().header, bits=10))
    write_shard(tmp_path, 0, "parquet", [row("a"), other])
    with pytest.raises(InputError, match="b: its grid differs"):
        summarise([tmp_path])


@pytest.mark.parametrize("rate", [None, 16000])
def test_audio_is_what_decode_file_gives(
    clips: Path, tokens: Path, codec: Codec, tmp_path: Path, rate: int | None
) -> None:
    heard = list(detokenize([tokens], tmp_path, codec, sample_rate=rate))
    assert [each.error for each in heard] == [""] * 3
    for each in heard:
        source = clips.parent / each.id
        encode_file(source, tmp_path / "x.melcap", codec, force=True)
        decode_file(tmp_path / "x.melcap", tmp_path / "x.wav", codec, sample_rate=rate, force=True)
        ours, theirs = read(each.target), read(tmp_path / "x.wav")
        assert ours[1] == theirs[1] == (rate or ours[1])
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert each.target.name == (
            source.name if source.suffix == ".wav" else f"{source.name}.wav"
        )


def test_existing_files_are_left_and_bad_rows_are_skipped(
    tokens: Path, codec: Codec, tmp_path: Path
) -> None:
    sets, out = tmp_path / "sets", tmp_path / "out"
    sets.mkdir()
    (good,) = [each for each in rows_of(tokens) if each.header.channels == 1][:1]
    rows = [
        replace(good, id="../../out of it"),
        row("other weights"),
        replace(good, id="good"),
        replace(good, id="short", tokens=good.tokens[:-1]),
        replace(good, id="also good"),
    ]
    write_shard(sets, 0, "parquet", rows)
    (sets / "damaged.tar").write_bytes(b"x" * 100)
    heard = list(detokenize([sets], out, codec))
    errors = {each.id: each.error for each in heard if each.error}
    assert set(errors) == {str(sets / "damaged.tar"), "../../out of it", "other weights", "short"}
    assert errors["other weights"].startswith(f"other weights: these tokens are of tokenizer {ID}")
    assert "leads out of" in errors["../../out of it"]
    assert sorted(path.name for path in out.iterdir()) == ["also good.wav", "good.wav"]
    (out / "good.wav").write_bytes(b"kept")
    again = {each.id: each.done_before for each in detokenize([sets], out, codec) if not each.error}
    assert again == {"good": True, "also good": True}
    assert (out / "good.wav").read_bytes() == b"kept"
    list(detokenize([sets], out, codec, force=True))
    assert (out / "good.wav").read_bytes() == (out / "also good.wav").read_bytes()


def test_two_rows_never_share_a_file(tokens: Path, codec: Codec, tmp_path: Path) -> None:
    """This holds within a set, across sets, and if case and accents are ignored; the first wins."""
    (good,) = [each for each in rows_of(tokens) if each.header.channels == 1][:1]
    sets = [tmp_path / "one", tmp_path / "two"]
    names = [["a", "a.wav", "A", "caf\u00e9"], ["a", "cafe\u0301", "b", "nul\0"]]
    for folder, ids in zip(sets, names, strict=True):
        folder.mkdir()
        write_shard(folder, 0, "parquet", [replace(good, id=id) for id in ids])
    for before in (False, True):
        heard = list(detokenize(sets, tmp_path / "out", codec))
        assert [each.id for each in heard if not each.error] == ["a", "caf\u00e9", "b"]
        assert [each.done_before for each in heard if not each.error] == [before] * 3
        shared = [each.id for each in heard if "is the file of another row" in each.error]
        assert shared == ["a.wav", "A", "a", "cafe\u0301"]


def test_a_set_that_cannot_be_counted_is_an_error(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_shard(tmp_path, 0, "parquet", [row("a")])
    (file,) = token_files(tmp_path)
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 0), file)
    with pytest.raises(InputError, match="holds no clip"):
        summarise([tmp_path])
    beyond = row("b")
    beyond = replace(beyond, tokens=beyond.tokens + np.uint16(512))
    write_shard(tmp_path, 0, "parquet", [beyond])
    with pytest.raises(ContainerError, match="b: a token does not fit 9 bits"):
        summarise([tmp_path])
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(InputError, match=r"pipe\.parquet is a pipe, not a regular file"):
        summarise([tmp_path / "pipe.parquet"])


def call(*words: object) -> Result:
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.slow
def test_the_command_reports_what_it_passed_over_and_keeps_columns(
    clips: Path, small_weights: Path, tmp_path: Path
) -> None:
    weights = ("--weights", small_weights, "--readers", 1)
    (tmp_path / "in").mkdir()
    shutil.copy(next(clips.rglob("*.wav")), tmp_path / "in" / "a.wav")
    (tmp_path / "in" / "a.txt").write_text("")
    (tmp_path / "in" / "list.csv").write_text("path,text,speaker\na.wav,hello,x\n")
    made = call("tokenize", tmp_path / "in", "-o", tmp_path / "out", *weights)
    assert (made.exit_code, made.stderr) == (0, "")
    assert made.stdout.splitlines()[1:] == ["passed over: 1 .txt, 1 .csv"]
    again = call("tokenize", tmp_path / "in", "-o", tmp_path / "out", *weights, "--json")
    assert json.loads(again.stdout.splitlines()[-1])["passed_over"] == {".txt": 1, ".csv": 1}
    (tmp_path / "out" / "tokens-000000.parquet").unlink()
    again = call("tokenize", tmp_path / "in", "-o", tmp_path / "out", *weights)
    assert "made again: 1 files of the token set, lost or altered" in again.stdout
    write_audio(tmp_path / "in" / "a.wav", 2 * np.ones((1, 900), np.float32) / 9, 8000)
    changed = call("tokenize", tmp_path / "in", "-o", tmp_path / "out", *weights)
    assert changed.exit_code == 1
    assert changed.stderr.startswith("error: 1 have changed since: see ")

    kept = ("--keep", "text, speaker")
    listed = tmp_path / "in" / "list.csv"
    made = call("tokenize", listed, "-o", tmp_path / "kept", *weights, *kept)
    assert made.exit_code == 0, made.output
    (only,) = rows_of(tmp_path / "kept")
    assert only.kept == {"text": "hello", "speaker": "x"}
    nothing = call("tokenize", tmp_path / "in" / "..", "-o", tmp_path / "none", *weights, *kept)
    assert nothing.exit_code == 1
    assert "no manifest among the sources" in nothing.stderr
    (tmp_path / "empty").mkdir()
    nothing = call("tokenize", tmp_path / "empty", "-o", tmp_path / "none", *weights)
    assert nothing.exit_code == 1
    assert f"{tmp_path / 'empty'} holds no audio file" in nothing.stderr


@pytest.mark.slow
def test_the_commands(clips: Path, small_weights: Path, tmp_path: Path) -> None:
    tokens, audio = tmp_path / "tokens", tmp_path / "audio"
    weights = ("--weights", small_weights)
    made = call("tokenize", clips, "-o", tokens, *weights, "--mono", "--readers", 1)
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith(f"3 of 3 clips in {tokens}; now 0.00 h in ")
    clash = call("tokenize", clips, "-o", tokens, *weights)
    assert clash.exit_code == 1
    assert "made with mono True, and this run has mono False" in clash.stderr

    summary = call("stats", tokens, "--json", "--plot", tmp_path / "stats.png")
    assert json.loads(summary.stdout)["channels"] == {"1": 3}
    assert (tmp_path / "stats.png").read_bytes().startswith(b"\x89PNG")
    table = call("stats", tokens)
    assert "clips              3" in table.stdout

    heard = call("detokenize", tokens, "-o", audio, *weights, "--format", "flac", "--json")
    assert heard.exit_code == 0, heard.output
    data = json.loads(heard.stdout)
    assert [each["done_before"] for each in data["clips"]] == [False] * 3
    assert all(Path(each["target"]).suffix == ".flac" for each in data["clips"])
    again = call("detokenize", tokens, "-o", audio, *weights, "--format", "flac")
    assert again.stdout.count("was there") == 3

    (tokens / "x.tar").write_bytes(b"x")
    failed = call("detokenize", tokens, "-o", audio, *weights, "--quiet")
    assert failed.exit_code == 1
    assert failed.stderr.startswith(f"error: {tokens / 'x.tar'} cannot be read as a tar of tokens")
    for command in (("stats",), ("detokenize", "-o", audio, *weights)):
        missing = call(command[0], tmp_path / "nowhere", *command[1:])
        assert missing.exit_code == 1
        assert missing.stderr == f"error: {tmp_path / 'nowhere'} does not exist\n"


def test_tokens_of_several_tokenizers_are_not_counted_together(tmp_path: Path) -> None:
    own, other = row("own"), row("other")
    other = replace(other, header=replace(other.header, tokenizer_id="f" * 16))
    write_shard(tmp_path, 0, "parquet", [own, other])
    with pytest.raises(InputError, match=f"other: its tokenizer is {'f' * 16}, and .* {ID}"):
        summarise([tmp_path])
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    write_shard(tmp_path / "own", 0, "parquet", [own])
    write_shard(tmp_path / "other", 0, "parquet", [other])
    made = tmp_path / "new" / "tables"
    command = ("row-tables", tmp_path / "own", "--out", made)
    result = call(*command, "--valid", tmp_path / "other")
    assert result.exit_code == 1
    assert f"--valid has tokens of tokenizer {'f' * 16}" in result.stderr
    assert not made.parent.exists()
    assert call(*command, "--valid", tmp_path / "own").exit_code == 0
    assert [path.name for path in made.iterdir()] == [f"{ID}.row-tables.safetensors"]
