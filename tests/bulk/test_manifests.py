"""Manifests in all forms, and the cost of a wrong row, column or file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from melcap.bulk.manifests.entries import Entry, Found, PassedOver, Refused
from melcap.bulk.manifests.rows import MAX_LINE
from melcap.bulk.manifests.sources import find
from melcap.bulk.reading.local_files import local_files
from melcap.bulk.reading.tasks import tasks
from melcap.errors import InputError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [
    {"id": "one", "path": "a.wav", "text": 'she said "no', "speaker": 3},
    {"id": "", "path": "sub/b.flac", "text": "zwei, drei", "speaker": None},
]


def listed(manifest: Path, keep: Sequence[str] = ()) -> list[Found]:
    return list(find([str(manifest)], "", keep))


def clips(manifest: Path, keep: Sequence[str] = ()) -> list[Entry]:
    return [each for each in listed(manifest, keep) if isinstance(each, Entry)]


def refused(manifest: Path) -> list[Refused]:
    return [each for each in listed(manifest) if isinstance(each, Refused)]


def write_manifest(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the form that the suffix names."""
    packed = path.name.endswith(".gz")
    form = Path(path.name.removesuffix(".gz")).suffix
    if form == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if form == ".json" and not packed:
        data = json.dumps(rows, indent=1)
    elif form in (".jsonl", ".json", ".ndjson"):
        data = "\n\n".join(map(json.dumps, rows))
    elif form == ".tsv":
        lines = [list(rows[0]), *([_cell(row[name]) for name in rows[0]] for row in rows)]
        data = "\ufeff" + "".join("\t".join(line) + "\r\n" for line in lines)
    else:
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(rows[0]))
        table.writeheader()
        table.writerows([{name: _cell(value) for name, value in row.items()} for row in rows])
        data = "\ufeff" + text.getvalue()
    path.write_bytes(gzip.compress(data.encode()) if packed else data.encode())
    return path


def _cell(value: object) -> str:
    return "" if value is None else str(value)


FORMS = ["csv", "tsv", "jsonl", "ndjson", "json", "parquet", "csv.gz", "tsv.gz", "json.gz"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_lists_the_same_clips(tmp_path: Path, form: str) -> None:
    first, second = clips(write_manifest(tmp_path / f"list.{form}", ROWS), ("text", "speaker"))
    assert (first.id, second.id) == ("one", "sub/b.flac")
    assert (first.path, second.path) == (f"{tmp_path}/a.wav", f"{tmp_path}/sub/b.flac")
    empty = None if form[:3] not in ("csv", "tsv") else ""
    assert first.kept == ('she said "no', "3")
    assert second.kept == ("zwei, drei", empty)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_stretches(tmp_path: Path, form: str) -> None:
    """An offset makes a stretch; a duration without one is only the length of the file."""
    lines = [(0.02, 0.03, None), (0.05, None, None), (None, 0.04, None), (0.0, 0.04, "start")]
    rows = [
        {"path": "a.wav", "offset": offset, "duration": duration, "id": name}
        for offset, duration, name in lines
    ]
    found = clips(write_manifest(tmp_path / f"list.{form}", rows))
    assert [(entry.id, entry.start, entry.seconds) for entry in found] == [
        ("a.wav#t=0.02,0.05", 0.02, 0.03),
        ("a.wav#t=0.05", 0.05, -1),
        ("a.wav", 0, -1),
        ("start", 0, 0.04),
    ]
    assert [entry.samples(44100) for entry in found] == [
        (882, 2205),
        (2205, None),
        (0, None),
        (0, 1764),
    ]
    path = str(tmp_path / "a.wav")
    assert [entry.source.removeprefix(path) for entry in found] == [
        "#t=0.02,0.05",
        "#t=0.05",
        "",
        "#t=0,0.04",
    ]


@pytest.mark.parametrize(
    ("offset", "duration"),
    [
        ("-0.1", "1"),
        ("nan", "1"),
        ("inf", ""),
        ("0", "0"),
        ("0", "-2"),
        ("0", "-1"),
        ("0", "nan"),
        ("one", ""),
    ],
)
def test_an_invalid_stretch_costs_its_row(tmp_path: Path, offset: str, duration: str) -> None:
    (tmp_path / "list.csv").write_text(
        f"path,offset,duration\na.wav,,\na.wav,{offset},{duration}\n"
    )
    (bad,) = refused(tmp_path / "list.csv")
    assert f"line 3: offset '{offset}' and duration " in bad.reason
    assert [entry.id for entry in clips(tmp_path / "list.csv")] == ["a.wav"]


def test_common_voice(tmp_path: Path) -> None:
    """Its files lie in a folder beside it, and quotes are ordinary characters."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp3").write_text("")
    (tmp_path / "clips" / "beside.mp3").write_text("")
    (tmp_path / "beside.mp3").write_text("")
    (tmp_path / "test.tsv").write_text(
        'client_id\tpath\tsentence\nx\ta.mp3\t"Oh\ny\tbeside.mp3\tno"\nz\tgone.mp3\t\n'
    )
    found = clips(tmp_path / "test.tsv", ("sentence", "client_id"))
    assert [Path(entry.path).relative_to(tmp_path).as_posix() for entry in found] == [
        "clips/a.mp3",
        "beside.mp3",
        "gone.mp3",
    ]
    assert [entry.kept for entry in found] == [('"Oh', "x"), ('no"', "y"), ("", "z")]


def test_fairseq(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(
        "/data/libri\n1/a.flac\t16000\n2/b c.flac\t32000\n3/d\tx\t1\n"
    )
    first, second = clips(tmp_path / "train.tsv")
    assert (first.id, first.path) == ("1/a.flac", "/data/libri/1/a.flac")
    assert (second.id, second.path) == ("2/b c.flac", "/data/libri/2/b c.flac")
    (bad,) = refused(tmp_path / "train.tsv")
    assert "line 4" in bad.reason
    (tmp_path / "names.tsv").write_text("path\n1/a.flac\n")
    assert [entry.id for entry in clips(tmp_path / "names.tsv")] == ["1/a.flac"]


def test_a_path_may_be_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("data/a.wav", "data/clips/b.wav", "a.wav", "b.wav", "c.wav"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    (tmp_path / "data" / "wav.scp").write_text("one a.wav\ntwo b.wav\nthree c.wav\nfour d.wav\n")
    monkeypatch.chdir(tmp_path)
    for manifest in (Path("data/wav.scp"), tmp_path / "data" / "wav.scp"):
        assert [entry.path for entry in clips(manifest)] == [
            f"{tmp_path}/{place}"
            for place in ("data/a.wav", "data/clips/b.wav", "c.wav", "data/d.wav")
        ]


def test_kaldi(tmp_path: Path) -> None:
    """Commands are never run. A file `segments`, if there is one, cuts the recordings."""
    made = tmp_path / "made"
    (tmp_path / "wav.scp").write_text(
        f"utt1 /data/a b.wav\nutt2\tsub/c.wav\nutt3 touch {made} |\n\nutt4\n"
    )
    found = clips(tmp_path / "wav.scp")
    assert [(entry.id, entry.path) for entry in found] == [
        ("utt1", "/data/a b.wav"),
        ("utt2", f"{tmp_path}/sub/c.wav"),
    ]
    command, empty = refused(tmp_path / "wav.scp")
    assert command.id == "utt3"
    assert "commands are not run" in command.reason
    assert empty.source == f"{tmp_path}/wav.scp, line 5"
    assert not made.exists()
    (tmp_path / "segments").write_text(
        "seg1 utt1 0.5 1.25\nseg2 utt1 1.25 -1\nseg3 utt9 0 1\nseg4 utt1 3 2\nseg5 utt1 x\n"
    )
    found = clips(tmp_path / "wav.scp")
    assert [(entry.id, entry.start, entry.seconds) for entry in found] == [
        ("seg1", 0.5, 0.75),
        ("seg2", 1.25, -1),
    ]
    assert {bad.id for bad in refused(tmp_path / "wav.scp")} >= {"utt3", "seg3", "seg4", "seg5"}


@pytest.mark.parametrize("name", ["File_Name", "AUDIO_FILEPATH", "wav", "audio"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_columns_of_paths_have_many_names(tmp_path: Path, name: str, form: str) -> None:
    manifest = write_manifest(tmp_path / f"list.{form}", [{"text": "x", name: "a.wav"}])
    assert [entry.id for entry in clips(manifest)] == ["a.wav"]


def test_an_unused_column_of_paths_is_named(tmp_path: Path) -> None:
    rows = [{"file": "b.wav", "path": "a.wav"}]
    each, note = listed(write_manifest(tmp_path / "list.jsonl", rows))
    assert isinstance(each, Entry)
    assert each.id == "a.wav"
    assert isinstance(note, PassedOver)
    assert note.kind == f"column file of {tmp_path}/list.jsonl (path was used)"


def test_a_duplicate_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,text,text\na.wav,one,two\n")
    assert [entry.id for entry in clips(tmp_path / "x.csv")] == ["a.wav"]
    with pytest.raises(InputError, match="has several columns text; rename all but one"):
        listed(tmp_path / "x.csv", ("text",))
    (tmp_path / "x.csv").write_text("path,path\na.wav,b.wav\n")
    with pytest.raises(InputError, match="has several columns path; rename all but one"):
        listed(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("path,PATH\na.wav,b.wav\n")
    each, note = listed(tmp_path / "x.csv")
    assert isinstance(each, Entry)
    assert each.id == "a.wav"
    assert "column PATH" in str(note)
    table = pa.table([["a.wav"], ["one"], ["two"]], names=["path", "text", "text"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match="has several columns text; rename all but one"):
        listed(tmp_path / "x.parquet", ("text",))


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "jsonl"])
def test_a_manifest_that_lacks_a_column_is_refused_with_those_it_has(
    tmp_path: Path, form: str
) -> None:
    manifest = write_manifest(tmp_path / f"list.{form}", [{"sound": "a.wav", "text": "x"}])
    with pytest.raises(InputError, match=r"sound, text"):
        listed(manifest)
    manifest = write_manifest(tmp_path / f"list.{form}", [{"path": "a.wav", "text": "x"}])
    with pytest.raises(InputError, match=r"no speaker to keep; it has path, text"):
        listed(manifest, ("text", "speaker"))


DIGITS = "9" * 5000
WRONG: list[tuple[str, bytes, str]] = [
    ("csv", b"x.wav,has,a comma,", "4 cells, not the 3"),
    ("csv", b"x.wav", "1 cells, not the 3"),
    ("csv", b'"x.wav,,', "not a row of a table"),
    ("csv", b"caf\xe9.wav,,", "cannot be the name of a file"),
    ("csv", b"x.wav,caf\xe9,", "text is not UTF-8"),
    ("csv", b"x.wav," + b"a" * (MAX_LINE + 10) + b",", "not a row of a table|longer than"),
    ("csv", b",,", "names no file"),
    ("jsonl", b'{"path": "x.wav"', "not JSON"),
    ("jsonl", b'["x.wav"]', "not an object"),
    ("jsonl", b'{"path": ["x.wav"]}', "is list, which is not a path"),
    ("jsonl", b'{"path": "\\ud800.wav"}', "cannot be the name of a file"),
    ("jsonl", b'{"path": "x\\u0000.wav"}', "cannot be the name of a file"),
    ("jsonl", b'{"path": "x.wav", "text": {"a": 1}}', "only text, numbers"),
    ("jsonl", b'{"path": "x.wav", "id": ".."}', "cannot be a name"),
    ("jsonl", b'{"a":' * 5000 + b"1" + b"}" * 5000, "not JSON"),
    ("jsonl", b"[" * 100_000, "not JSON"),
    ("jsonl", f'{{"path": "x.wav", "offset": {DIGITS}}}'.encode(), "not JSON"),
    ("jsonl", f'{{"path": "x.wav", "offset": {DIGITS[:400]}}}'.encode(), "must be seconds"),
    ("jsonl", b'{"path": "x.wav", "offset": 1e999}', "must be seconds"),
    ("jsonl", b'{"path": "' + b"a" * (MAX_LINE + 10) + b'"}', "longer than"),
]


@pytest.mark.parametrize(("form", "line", "message"), WRONG)
def test_a_wrong_row_costs_that_row_alone(
    tmp_path: Path, form: str, line: bytes, message: str
) -> None:
    manifest = tmp_path / f"list.{form}"
    good = b"%s.wav,," if form == "csv" else b'{"path": "%s.wav", "text": ""}'
    head = [b"path,text,id"] if form == "csv" else []
    manifest.write_bytes(b"\n".join([*head, good % b"a", line, good % b"b"]))
    found = list(find([str(manifest)], "", ("text",)))
    names = [each.id for each in found if isinstance(each, Entry)]
    assert names == (["a.wav"] if line.startswith(b'"') else ["a.wav", "b.wav"])
    (bad,) = (each for each in found if isinstance(each, Refused))
    assert bad.source == f"{manifest}, line {2 + len(head)}"
    assert re.search(message, bad.reason), bad.reason
    bad.reason.encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"path\n", "lists no clip"),
        ("x.csv", b"", "no column of paths"),
        ("x.jsonl", b"", "lists no clip: it is empty"),
        ("x.csv", "path\na.wav\n".encode("utf-16"), "UTF-16"),
        ("x.json", b'[{"path": "a.wav"}, {"pa', "item 2 is not JSON"),
        ("x.json", b'[{"path": "a.wav"}] [{"path": "b.wav"}]', "more follows after item 1"),
        ("x.json", b'[{"a": ' + b"[" * 9000, "cannot be read as a manifest: item 1"),
        (
            "x.json",
            b'{"clips": [{"path": "a.wav"}]}',
            "line 1: it names no file; its fields are clips",
        ),
        ("x.jsonl.gz", b"not packed", "cannot be read as a manifest"),
        (
            "x.jsonl.gz",
            gzip.compress(b'{"path": "a.wav"}' * 99, mtime=0)[:-20],
            "cannot be read as a manifest",
        ),
        ("x.parquet", b"PAR1 or not", "cannot be read as a manifest"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        listed(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_a_list_of_something_else_is_soon_given_up(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"name": "x"}\n' * 5000)
    with pytest.raises(
        InputError, match="lists no clip: line 1: it names no file; its fields are name"
    ):
        listed(tmp_path / "x.jsonl")


def embedded(path: Path, rows: list[dict[str, Any]], group: int = 2, **types: Any) -> Path:
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        table = table.set_column(
            table.column_names.index(name), name, table.column(name).cast(kind)
        )
    pq.write_table(table, path, row_group_size=group)
    return path


def audio_of(entries: list[Entry]) -> list[bytes]:
    return [
        path.read_bytes() for task in tasks(enumerate(entries)) for _, path in local_files(task)
    ]


def test_embedded_audio(tmp_path: Path) -> None:
    """Rows of the hub have the bytes of their audio, or else its path."""
    (tmp_path / "beside.wav").write_bytes(b"beside")
    rows: list[dict[str, Any]] = [
        {"audio": {"bytes": b"zero", "path": "x/zero.wav"}, "text": "a", "path": "elsewhere"},
        {"audio": {"bytes": b"one", "path": None}, "text": "b", "path": "elsewhere"},
        {"audio": {"bytes": None, "path": "beside.wav"}, "text": None, "path": None},
        {"audio": {"bytes": b"three", "path": "three.wav"}, "text": "d", "path": "elsewhere"},
        {"audio": {"bytes": b"four", "path": "four.wav"}, "text": "e", "path": "elsewhere"},
    ]
    hub = embedded(tmp_path / "hub.parquet", rows)
    found = clips(hub, ("text",))
    top = str(tmp_path).lstrip("/")
    assert [entry.id.removeprefix(f"{top}/hub/") for entry in found] == [
        "zero-000000",
        "000001",
        "beside-000002",
        "three-000003",
        "four-000004",
    ]
    assert [entry.kept for entry in found] == [("a",), ("b",), (None,), ("d",), ("e",)]
    assert found[3].source == f"{hub}#row=3"
    assert audio_of(found) == [b"zero", b"one", b"beside", b"three", b"four"]
    assert audio_of([found[1], found[4]]) == [b"one", b"four"]
    assert [len(task) for task in tasks(enumerate(found))] == [2, 2, 1]


@pytest.mark.parametrize("name", ["audio", "wav", "flac", "mp3", "bytes"])
def test_a_column_of_bytes_is_audio(tmp_path: Path, name: str) -> None:
    rows = [{"id": number, name: b"%d" % number} for number in range(3)]
    found = clips(embedded(tmp_path / "x.parquet", rows, **{name: pa.large_binary()}))
    assert [entry.id for entry in found] == ["0", "1", "2"]
    assert audio_of(found) == [b"0", b"1", b"2"]


def test_columns_of_another_type_are_refused(tmp_path: Path) -> None:
    table = pa.table({"audio": [[0.5, 0.25]], "text": [["a"]]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"no column of paths .* audio \(list<.*double.*\), text"):
        listed(tmp_path / "x.parquet")
    table = pa.table({"path": ["a.wav"], "text": [["a"]]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"text as list<.*only text, numbers"):
        listed(tmp_path / "x.parquet", ("text",))


def test_ids_do_not_lead_out_of_folders(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\n../../etc/x.wav\n/abs/./y.wav\n")
    assert [entry.id for entry in clips(tmp_path / "list.csv")] == ["etc/x.wav", "abs/y.wav"]


def test_columns_to_keep_need_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("")
    with pytest.raises(InputError, match="no manifest among the sources"):
        list(find([str(tmp_path)], "", ("text",)))
    manifest = write_manifest(tmp_path / "list.csv", ROWS)
    found = list(find([str(tmp_path), str(manifest)], "", ("text",)))
    kept = [each.kept for each in found if isinstance(each, Entry)]
    assert kept == [(), ('she said "no',), ("zwei, drei",)]
    assert os.path.exists(manifest)
