"""Kept columns of a manifest go into the token set, even after an interruption."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from melcap import Codec
from melcap.audio import write
from melcap.bulk import tokenize as run
from melcap.bulk.detokenize import detokenize
from melcap.bulk.options import Options
from melcap.bulk.stats import summarise
from melcap.bulk.token_sets.journal import NAME
from melcap.bulk.tokenize import tokenize
from melcap.errors import InputError
from tests.bulk.helpers import rows_of, wave

pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.usefixtures("forked_readers")

KEEP = Options(readers=1, encoders=1, shard_clips=2, keep=("text", "speaker", "loud"))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [
        {"text": "one\nline", "speaker": 1, "loud": True},
        {"text": "zwei, „drei“", "speaker": 2.5},
        {"text": None, "speaker": "x", "loud": False},
        {},
        {},
    ]
    for number, row in enumerate(rows):
        write(tmp_path / f"{number}.wav", wave(0.1, seed=number), 44100)
        row["path"] = f"{number}.wav"
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


EXPECTED = [
    {"text": "one\nline", "speaker": "1", "loud": "true"},
    {"text": "zwei, „drei“", "speaker": "2.5", "loud": None},
    {"text": None, "speaker": "x", "loud": "false"},
    {"text": None, "speaker": None, "loud": None},
    {"text": None, "speaker": None, "loud": None},
]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_kept_columns_are_in_the_set(
    manifest: Path, codec: Codec, tmp_path: Path, format: str
) -> None:
    out = tmp_path / "out"
    tokenize([str(manifest)], out, codec, replace(KEEP, format=format))
    assert [row.kept for row in rows_of(out)] == EXPECTED
    if format == "parquet":
        schemas = [pq.read_schema(path) for path in sorted(out.glob("*.parquet"))]
        assert schemas[0].names[-4:] == ["text", "speaker", "loud", "tokens"]
        assert all(schema == schemas[0] for schema in schemas)
    else:
        with tarfile.open(out / "tokens-000000.tar") as shard:
            file = shard.extractfile("000000000000.json")
            assert file
            record = json.load(file)
        assert record.items() >= EXPECTED[0].items()
    assert summarise([out]).clips == 5
    assert [each.error for each in detokenize([out], tmp_path / "audio", codec)] == [""] * 5


def test_kept_values_outlive_an_interruption(
    manifest: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ended before its shards were written leaves the values in the journal."""
    out = tmp_path / "out"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            tokenize([str(manifest)], out, codec, KEEP)
    assert [path.name for path in out.glob("*")] == [NAME]
    tokenize([str(manifest)], out, codec, KEEP)
    assert [row.kept for row in rows_of(out)] == EXPECTED
    with pytest.raises(
        InputError, match=r"made with keep \['text', 'speaker', 'loud'\].* keep \[\]"
    ):
        tokenize([str(manifest)], out, codec, replace(KEEP, keep=()))


def test_clips_without_a_manifest_have_none_of_it(
    manifest: Path, codec: Codec, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "x.wav", wave(0.1), 44100)
    options = replace(KEEP, keep=("text",))
    tokenize([str(tmp_path / "more"), str(manifest)], tmp_path / "out", codec, options)
    assert [row.kept for row in rows_of(tmp_path / "out")][:2] == [
        {"text": None},
        {"text": "one\nline"},
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ("text",), "format": "melcap"}, "no room for columns"),
        ({"keep": ("tokens",)}, "'tokens' cannot be kept"),
        ({"keep": ("Source",)}, "'Source' cannot be kept"),
        ({"keep": ("text", "Text")}, "'Text' cannot be kept"),
        ({"keep": ("",)}, "'' cannot be kept"),
    ],
)
def test_columns_that_cannot_be_kept(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**options)  # type: ignore[arg-type]
