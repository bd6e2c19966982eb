"""In a hostile collection, good clips are tokenized, bad ones named, and memory is bounded."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from melcap import Codec
from melcap.audio import write
from melcap.bulk.files.names import text
from melcap.bulk.manifests.entries import Entry
from melcap.bulk.reading.decoding import read_task
from melcap.bulk.reading.messages import Bad, End, Window
from melcap.bulk.reading.pool import ReaderPool
from melcap.bulk.reading.windows import Framing
from melcap.bulk.tokenize import ERRORS
from tests.bulk.helpers import corpus, ids_and_tokens, rows_of, wave
from tests.forks import memory_mib, start_melcap
from tests.io import hostile_corpus

pytest.importorskip("pyarrow")

GROWTH_MIB = 240
"""The bound for what the encoding process allocates beside torch: 150, and 90 to spare.

That is 100 for what it computes, and up to 16 of freed memory that each of its threads keeps (see
`melcap.model.cpu_memory`).

The longest clip, resampled as a whole, takes 150 MiB.
"""
READER_MIB = 120
"""The bound for what a reading process allocates: 30, and 90 to spare."""


@pytest.mark.slow
def test_a_hostile_collection(small_weights: Path, tmp_path: Path) -> None:
    good, bad = hostile_corpus.make(tmp_path / "hostile")
    out = tmp_path / "out"
    words = ("tokenize", tmp_path / "hostile", "-o", out, "--weights", small_weights)
    words = (*words, "--encoders", 2, "--readers", 2)
    process = start_melcap(*words, folder=tmp_path, stdout="said", stderr="errors")
    before = memory_mib(process.pid)
    largest = most = 0
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.is_alive():
        most = max(most, memory_mib(process.pid))
        with suppress(OSError):  # one of them has ended
            for child in map(int, children.read_text().split()):
                if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                    largest = max(largest, memory_mib(child))
        process.join(0.05)
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == 1, errors
    assert errors == f"error: {len(bad)} could not be read: see {out / ERRORS}\n"
    assert f"{len(good)} of {len(good) + len(bad) - 2} clips" in (tmp_path / "said").read_text()

    found = {row.id: row.header for row in rows_of(out)}
    assert set(found) == {f"hostile/{text(name)}" for name in good}
    for name, (rate, channels, samples) in good.items():
        header = found[f"hostile/{text(name)}"]
        assert (header.sample_rate, header.channels) == (rate, channels), name
        # an mp3 is padded to whole frames where a decoder does not know better
        slack = 2 * 1152 if "mp3" in name else 0
        assert samples <= header.samples <= samples + slack, name

    lines = map(json.loads, (out / ERRORS).read_text().splitlines())
    reasons = {line["source"]: line["reason"] for line in lines}
    assert set(reasons) == {f"{tmp_path / 'hostile'}/{name}" for name in bad}
    for name, reason in bad.items():
        assert reason in reasons[f"{tmp_path / 'hostile'}/{name}"], name
    assert 0 < most - before < GROWTH_MIB, (before, most)
    assert 0 < largest < READER_MIB


@pytest.mark.slow
def test_a_reader_that_dies_costs_only_its_clip(codec: Codec, tmp_path: Path) -> None:
    framing = Framing.of(codec)
    hostile_corpus._write_silence(tmp_path / "long.wav", 100_000_000, 44100)
    write(tmp_path / "short.wav", wave(0.1), 44100)
    entries = [Entry(name, str(tmp_path / name)) for name in ("long.wav", "short.wav")]
    with ReaderPool(1, framing, mono=False) as readers:
        rest, killed = [], set()
        for message in readers.read(enumerate(entries)):
            rest.append(message)
            pid = readers._readers[0]._process.pid
            assert pid
            if isinstance(message, Window) and message.clip == 0 and pid not in killed:
                os.kill(pid, signal.SIGSEGV)
                killed.add(pid)
    assert len(killed) == 2, "the clip had a second try in a process of its own"
    (bad,) = (message for message in rest if isinstance(message, Bad))
    assert bad.clip == 0
    assert (
        bad.reason
        == f"{tmp_path}/long.wav cannot be read: two processes that read it died (signal 11)"
    )
    assert isinstance(rest[-1], End)
    assert rest[-1].clip == 1


def test_an_exception_costs_only_its_clip(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a fault of a decoder")

    monkeypatch.setattr("melcap.bulk.reading.decoding.AudioReader", broken)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    entry = Entry("x", str(tmp_path / "a.wav"))
    (bad,) = read_task([(3, entry)], Framing.of(codec), mono=False)
    assert isinstance(bad, Bad)
    what = "cannot be read (ZeroDivisionError: a fault of a decoder)"
    assert bad.reason == f"{tmp_path / 'a.wav'} {what}"


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(small_weights: Path, codec: Codec, tmp_path: Path) -> None:
    corpus(tmp_path / "clips", [0.1] * 9)
    last = tmp_path / "clips" / "z" / "long.wav"
    last.parent.mkdir()
    hostile_corpus._write_silence(last, 10 * 3600 * 44100, 44100)
    words = ("tokenize", tmp_path / "clips", "-o", tmp_path / "out", "--json", "--encoders", 1)
    words = (*words, "--readers", 1, "--shard-clips", 3, "--weights", small_weights)
    said, errors = tmp_path / "said", tmp_path / "errors"
    os.mkfifo(said)
    process = start_melcap(*words, folder=tmp_path, stdout=said, stderr=errors)
    with said.open() as lines:
        for line in lines:
            if json.loads(line)["done"] >= 3:
                break
        began = time.monotonic()
        assert process.pid
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, readers and all
        lines.read()
        process.join(120)
    assert process.exitcode == 130, errors.read_text()
    assert errors.read_text() == "interrupted\n"
    assert time.monotonic() - began < 30
    kept = ids_and_tokens(tmp_path / "out")
    assert len(kept) >= 3
    write(last, wave(0.1), 44100)
    process = start_melcap(*words, folder=tmp_path, stdout="rest", stderr=errors)
    process.join()
    assert process.exitcode == 0
    events = list(map(json.loads, (tmp_path / "rest").read_text().splitlines()))
    assert events[-1]["event"] == "end"
    assert events[-1]["done"] == events[-1]["clips"] == 10
    assert events[0]["done"] >= len(kept)
    rows = ids_and_tokens(tmp_path / "out")
    assert len(dict(rows)) == len(rows) == 10
    assert set(kept) <= set(rows)
